package config

import (
	"errors"

	"shoal/blobcache/pace"
)

// Names of the settings that limit bytes a second.
const (
	MaxUploadKey   = "max-upload"
	MaxDownloadKey = "max-download"
	MaxOriginKey   = "max-origin"
)

func limitSettings() []setting {
	return []setting{
		{name: MaxUploadKey, list: true, set: rules(func(c *Config) *pace.Rules { return &c.MaxUpload })},
		{name: MaxDownloadKey, list: true, set: rules(func(c *Config) *pace.Rules { return &c.MaxDownload })},
		{name: MaxOriginKey, list: true, set: rules(func(c *Config) *pace.Rules { return &c.MaxOrigin })},
	}
}

// rules makes a setter of all words together.
func rules(field func(*Config) *pace.Rules) func(*Config, []word) error {
	return func(c *Config, words []word) error {
		var texts []string
		for _, w := range words {
			texts = append(texts, w.text)
		}
		r, err := pace.Parse(texts)
		if e, ok := errors.AsType[*pace.Error](err); ok {
			return &Error{Where: words[e.Word].where, Err: e.Err}
		}
		*field(c) = r
		return err
	}
}

// Limits returns the rules by the names of their settings.
func (c Config) Limits() map[string]pace.Rules {
	return map[string]pace.Rules{MaxUploadKey: c.MaxUpload, MaxDownloadKey: c.MaxDownload, MaxOriginKey: c.MaxOrigin}
}
