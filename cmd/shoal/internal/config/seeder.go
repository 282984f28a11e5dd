package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"shoal/seeder"
)

const (
	// seederKey is the section of the file about what the node fetches by
	// itself.
	seederKey = "seeder"
	// selectKey holds the selections, by name.
	selectKey = seederKey + ".select"
	// webhookKey holds where registries tell what was pushed.
	webhookKey = seederKey + ".webhook"
)

// seederSettings is the table of what stands in the section, besides selections,
// by the path below it.
func seederSettings() map[string]func(*seeder.Config, string) error {
	return map[string]func(*seeder.Config, string) error{
		seederKey + ".concurrency": func(c *seeder.Config, s string) (err error) {
			c.Concurrency, err = strconv.Atoi(s)
			if err != nil || c.Concurrency < 1 || c.Concurrency > seeder.MaxConcurrency {
				return fmt.Errorf("%q: use a number of images from 1 to %d", s, seeder.MaxConcurrency)
			}
			return nil
		},
		seederKey + ".rate": func(c *seeder.Config, s string) (err error) {
			c.Rate, err = units.RAMInBytes(s)
			if err != nil || c.Rate < units.KiB {
				return fmt.Errorf("%q: use bytes a second, 1KiB or more, for instance 20MiB", s)
			}
			return nil
		},
		seederKey + ".check-holders": func(c *seeder.Config, s string) (err error) {
			if c.CheckEvery, err = time.ParseDuration(s); err != nil || c.CheckEvery <= 0 {
				return fmt.Errorf("%q is no time between two checks: use for instance 10m", s)
			}
			return nil
		},
		webhookKey + ".listen":      func(c *seeder.Config, s string) error { c.Webhook.Listen = s; return checkAddr(s) },
		webhookKey + ".secret-file": func(c *seeder.Config, s string) error { c.Webhook.SecretFile = s; return notEmpty(s) },
	}
}

// selectionSetting is one row of the table of what can be said of a selection.
type selectionSetting struct {
	list bool
	set  func(s *seeder.Selection, word string) error
}

func selectionSettings() map[string]selectionSetting {
	duration := func(at func(*seeder.Selection) *time.Duration) selectionSetting {
		return selectionSetting{set: func(s *seeder.Selection, word string) error {
			d, err := time.ParseDuration(word)
			if err != nil || d <= 0 {
				return fmt.Errorf("%q is no time between two looks: use for instance 30s or 6h", word)
			}
			*at(s) = d
			return nil
		}}
	}
	number := func(what string, at func(*seeder.Selection) *int) selectionSetting {
		return selectionSetting{set: func(s *seeder.Selection, word string) error {
			n, err := strconv.Atoi(word)
			if err != nil || n < 1 {
				return fmt.Errorf("%q: use a number of %s, 1 or more", word, what)
			}
			*at(s) = n
			return nil
		}}
	}
	return map[string]selectionSetting{
		"images":      {list: true, set: func(s *seeder.Selection, word string) error { s.Images = append(s.Images, word); return nil }},
		"platforms":   {list: true, set: func(s *seeder.Selection, word string) error { s.Platforms = append(s.Platforms, word); return nil }},
		"versions":    {set: func(s *seeder.Selection, word string) error { s.Versions = word; return nil }},
		"newest":      number("versions", func(s *seeder.Selection) *int { return &s.Newest }),
		"schedule":    {set: func(s *seeder.Selection, word string) error { s.Schedule = word; return notEmpty(word) }},
		"time-zone":   {set: func(s *seeder.Selection, word string) error { s.TimeZone = word; return notEmpty(word) }},
		"every":       duration(func(s *seeder.Selection) *time.Duration { return &s.Every }),
		"follow":      duration(func(s *seeder.Selection) *time.Duration { return &s.Follow }),
		"min-holders": number("members", func(s *seeder.Selection) *int { return &s.MinHolders }),
		"min-zones":   number("zones", func(s *seeder.Selection) *int { return &s.MinZones }),
	}
}

// seeder puts the section into l, each value by its path, and of a selection the
// place where it begins.
func (f file) seeder(l layer, section entry) error {
	entries, err := f.entries(section.value, section.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.path {
		case selectKey:
			err = f.selections(l, e)
		case webhookKey:
			var keys []entry
			if keys, err = f.entries(e.value, e.path); err == nil {
				err = f.seederScalars(l, keys)
			}
		default:
			err = f.seederScalars(l, []entry{e})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f file) seederScalars(l layer, entries []entry) error {
	for _, e := range entries {
		if _, known := seederSettings()[e.path]; !known {
			return f.errorf(e.key, e.path, "is no setting of a seeder: there are check-holders, concurrency, rate, select, webhook.listen, webhook.secret-file")
		}
		w, err := f.scalar(e.value, e.path)
		if err != nil {
			return err
		}
		l[e.path] = []word{w}
	}
	return nil
}

func (f file) selections(l layer, e entry) error {
	selections, err := f.entries(e.value, e.path)
	if err != nil {
		return err
	}
	for _, s := range selections {
		keys, err := f.entries(s.value, s.path)
		if err != nil {
			return err
		}
		l[s.path+"."] = []word{{text: s.name, where: f.where(s.key, s.path)}}
		for _, k := range keys {
			setting, known := selectionSettings()[k.name]
			if !known {
				return f.errorf(k.key, k.path, "is no setting of a selection: there are %s", strings.Join(slices.Sorted(maps.Keys(selectionSettings())), ", "))
			}
			words, err := f.list(k)
			if err != nil {
				return err
			}
			if len(words) == 0 || !setting.list && len(words) > 1 {
				return f.errorf(k.key, k.path, "has %d values: use one", len(words))
			}
			l[k.path] = words
		}
	}
	return nil
}

// setSeeder reads what the file says of what the node fetches by itself.
func (c *Config) setSeeder(merged layer) error {
	for path, set := range seederSettings() {
		for _, w := range merged[path] {
			if err := set(&c.Seeder, w.text); err != nil {
				return &Error{Where: w.where, Err: err}
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(merged)) {
		if !strings.HasPrefix(path, selectKey+".") || !strings.HasSuffix(path, ".") {
			continue
		}
		place := merged[path][0]
		s := seeder.Selection{Name: place.text}
		for name, setting := range selectionSettings() {
			for _, w := range merged[path+name] {
				if err := setting.set(&s, w.text); err != nil {
					return &Error{Where: w.where, Err: err}
				}
			}
		}
		err := s.Check()
		if err == nil && s.MinHolders > 0 && c.SigningKey == "" {
			err = errors.New("min-holders has members fetch, who obey a key: set signing-key, and have its public key in their trusted-keys")
		}
		if err != nil {
			return &Error{Where: place.where, Err: err}
		}
		c.Seeder.Selections = append(c.Seeder.Selections, s)
	}
	if err := c.Seeder.Check(); err != nil {
		return &Error{Where: seederKey, Err: err}
	}
	return nil
}
