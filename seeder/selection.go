package seeder

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/robfig/cron/v3"
)

// Limits of selections.
const (
	maxSelections = 256
	maxPatterns   = 1000
	// maxImages bounds what one selection may name: what a typo selects must not
	// be a whole registry.
	maxImages = 10_000
	// minEvery keeps a selection from asking all the time; minFollow is a HEAD
	// for each of its tags.
	minEvery  = time.Minute
	minFollow = 5 * time.Second
)

// Selection says which images are kept at hand, and when they are looked at.
type Selection struct {
	Name string
	// Images are patterns: REGISTRY/REPOSITORY[:TAG], where * stands for any
	// characters but a slash. Without a tag it is latest, or with Versions or
	// Newest any.
	Images []string
	// Versions is a range of semantic versions, such as ">=1.25 <2"; other tags
	// are left out, and so are versions before a release unless it names one.
	Versions string
	// Newest takes that many of each repository, by version; 0 is all.
	Newest    int
	Platforms []string // none is for New to say
	// Schedule is when to look, as cron has it, in TimeZone (a name of the IANA
	// database; none is UTC). Every is the time between two looks. Follow is the
	// time between two questions what the tags are that were chosen last. At
	// most one of Schedule and Every; without Schedule the first look is at the
	// start.
	Schedule, TimeZone string
	Every, Follow      time.Duration
	// MinHolders is how many members, this one included, are to hold each blob
	// of the images, in at least MinZones zones; 0 is for nobody to check. The
	// first look is at the start then, with a schedule, too.
	MinHolders, MinZones int
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Check returns the first thing that is wrong with a selection, or nil.
func (s Selection) Check() error {
	_, err := s.compile()
	return err
}

// rules is a Selection that was read.
type rules struct {
	Selection
	patterns  []pattern
	versions  *semver.Constraints // nil: tags need not be versions
	platforms Platforms
	schedule  cron.Schedule // nil: none
}

func (s Selection) compile() (r rules, err error) {
	r.Selection = s
	switch {
	case !namePattern.MatchString(s.Name):
		return r, fmt.Errorf("%.80q is no name of a selection: use at most 64 letters, digits and . _ -", s.Name)
	case len(s.Images) == 0:
		return r, errors.New("names no images")
	case len(s.Images) > maxPatterns:
		return r, fmt.Errorf("names %d images: use at most %d, and patterns", len(s.Images), maxPatterns)
	case s.Newest < 0:
		return r, fmt.Errorf("newest is %d: use a number of versions", s.Newest)
	case s.Schedule != "" && s.Every != 0:
		return r, errors.New("has a schedule and every: keep one of them")
	case s.TimeZone != "" && s.Schedule == "":
		return r, errors.New("has a time-zone and no schedule, which it would be for")
	case s.Every != 0 && s.Every < minEvery:
		return r, fmt.Errorf("looks every %v: use %v or more, and follow for tags", s.Every, minEvery)
	case s.Follow != 0 && s.Follow < minFollow:
		return r, fmt.Errorf("follows every %v: use %v or more", s.Follow, minFollow)
	case s.MinHolders != 0 && (s.MinHolders < 2 || s.MinHolders > maxHolders):
		return r, fmt.Errorf("min-holders is %d: use a number of members from 2 to %d, this one included", s.MinHolders, maxHolders)
	case s.MinZones > s.MinHolders || s.MinZones < 0:
		return r, fmt.Errorf("min-zones is %d and min-holders %d: use as many holders as zones, or more", s.MinZones, s.MinHolders)
	}
	if err := r.readVersions(); err != nil {
		return r, err
	}
	tags := "latest"
	if r.versions != nil {
		tags = "*"
	}
	for _, word := range s.Images {
		p, err := parsePattern(word, tags)
		if err != nil {
			return r, err
		}
		r.patterns = append(r.patterns, p)
	}
	if r.platforms, err = ParsePlatforms(s.Platforms); err != nil {
		return r, err
	}
	return r, r.readSchedule()
}

func (r *rules) readVersions() (err error) {
	text := r.Versions
	if text == "" && r.Newest > 0 {
		text = "*" // every release
	}
	if text == "" {
		return nil
	}
	if r.versions, err = semver.NewConstraint(text); err != nil {
		return fmt.Errorf("%.80q is no range of versions: use for instance \">=1.25 <2\"", text)
	}
	return nil
}

func (r *rules) readSchedule() (err error) {
	if r.Schedule == "" {
		return nil
	}
	zone := time.UTC
	if r.TimeZone != "" {
		if zone, err = time.LoadLocation(r.TimeZone); err != nil {
			return fmt.Errorf("%.80q is no time zone of this machine: use a name such as Europe/Berlin", r.TimeZone)
		}
	}
	r.schedule, err = cron.ParseStandard("CRON_TZ=" + zone.String() + " " + r.Schedule)
	if err != nil {
		return fmt.Errorf("%.80q is no schedule: use minute, hour, day, month and day of the week, for instance \"0 3 * * *\"", r.Schedule)
	}
	return nil
}

// next returns when to look next, if that was done last at last, or never if that
// is zero, and the selection is known since began. Zero is never.
func (r rules) next(began, last time.Time) time.Time {
	switch {
	case r.MinHolders > 0 && last.IsZero(): // what is checked must be known
		return began
	case r.schedule != nil:
		if last.IsZero() {
			last = began
		}
		return r.schedule.Next(last)
	case last.IsZero():
		return began
	case r.Every != 0:
		return last.Add(r.Every)
	}
	return time.Time{}
}

// chosen are tags of a repository, and what is left out of them and why.
type chosen struct {
	tags    []string       // in the order of versions, newest first, else of names
	leftOut map[string]int // how many, by reason
}

// choose picks from the tags of a repository that p covers.
func (r rules) choose(p pattern, tags []string) chosen {
	c := chosen{leftOut: map[string]int{}}
	type candidate struct {
		tag     string
		version *semver.Version
	}
	var all []candidate
	for _, tag := range tags {
		if !p.coversTag(tag) {
			continue // and not worth telling
		}
		if r.versions == nil {
			all = append(all, candidate{tag: tag})
			continue
		}
		v, err := p.version(tag)
		switch {
		case err != nil:
			c.leftOut["no version"]++
		case !r.versions.Check(v):
			c.leftOut["not in the range of versions"]++
		default:
			all = append(all, candidate{tag, v})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.version == nil {
			return cmp.Compare(a.tag, b.tag)
		}
		return cmp.Or(b.version.Compare(a.version), cmp.Compare(a.tag, b.tag))
	})
	all = slices.CompactFunc(all, func(a, b candidate) bool { return a.tag == b.tag })
	if r.Newest > 0 && len(all) > r.Newest {
		c.leftOut["older than the newest"] += len(all) - r.Newest
		all = all[:r.Newest]
	}
	for _, one := range all {
		c.tags = append(c.tags, one.tag)
	}
	return c
}

// asIs returns the name of the image if p needs no list of tags.
func (r rules) asIs(p pattern, repository string) (image string, ok bool) {
	name := p.registry + "/" + repository
	switch {
	case p.digest != "":
		return name + "@" + p.digest, true
	case r.versions == nil && !glob(p.tag):
		return name + ":" + p.tag, true
	}
	return "", false
}
