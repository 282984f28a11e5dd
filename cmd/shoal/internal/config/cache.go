package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

const (
	// minAge keeps a typo ("24" read as nanoseconds, "1s") from emptying the cache,
	// or from reading it all the time.
	minAge = time.Minute
	maxAge = 100 * 365 * 24 * time.Hour
	// minScrubRate gets through 10 GiB in two days.
	minScrubRate = 64 * units.KiB
)

func cacheSettings() []setting {
	return []setting{
		{name: "cache-size", set: one(func(c *Config, s string) (err error) {
			c.CacheSize, err = parseSize(s)
			return err
		})},
		{name: "offline", value: "false", set: one(func(c *Config, s string) (err error) {
			c.Offline, err = parseBool(s)
			return err
		})},
		{name: "cache-high-water", value: "95%", set: one(func(c *Config, s string) (err error) {
			c.HighWater, err = parseShare(s)
			return err
		})},
		{name: "cache-low-water", set: func(c *Config, words []word) (err error) {
			return c.setLowWater(words[len(words)-1])
		}},
		{name: "min-free", value: "0", set: one(func(c *Config, s string) (err error) {
			if c.MinFree, err = units.RAMInBytes(s); err != nil || c.MinFree < 0 || c.MinFree > maxCacheSize {
				return fmt.Errorf("%q is no size: use a number with a unit, for instance 5GiB, or 0", s)
			}
			return nil
		})},
		{name: "cache-max-age", value: "0", set: one(func(c *Config, s string) (err error) {
			c.MaxAge, err = parseAge(s)
			return err
		})},
		{name: "scrub-every", value: "168h", set: one(func(c *Config, s string) (err error) {
			c.ScrubEvery, err = parseAge(s)
			return err
		})},
		{name: "scrub-rate", value: "20MB", set: one(func(c *Config, s string) (err error) {
			c.ScrubRate, err = ParseRate(s)
			return err
		})},
	}
}

// defaultLowWater is so much below the high one that evicting is no constant
// business, and no more.
func defaultLowWater(high float64) float64 { return max(high/2, high-.05) }

// setLowWater is called after the high one was set.
func (c *Config) setLowWater(w word) (err error) {
	if c.LowWater, err = parseShare(w.text); err != nil {
		return &Error{Where: w.where, Err: err}
	}
	if c.LowWater > c.HighWater {
		return w.errorf("%s is above cache-high-water: what is evicted there would be too little", w.text)
	}
	return nil
}

func parseShare(s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !percent || !(n >= 1 && n <= 100) {
		return 0, fmt.Errorf("%q is no share of cache-size: use 1%% to 100%%", s)
	}
	return n / 100, nil
}

// parseAge reads a duration of which 0 turns something off.
func parseAge(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d != 0 && (d < minAge || d > maxAge) {
		return 0, fmt.Errorf("%q is no such time: use a number with a unit, at least 1m, for instance 168h, or 0", s)
	}
	return d, nil
}

// ParseRate reads bytes a second.
func ParseRate(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < minScrubRate || n > maxCacheSize {
		return 0, fmt.Errorf("%q is no rate: use bytes a second with a unit, at least 64KiB, for instance 20MB", s)
	}
	return n, nil
}
