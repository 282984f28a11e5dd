package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"shoal/proxy/origin"
)

const (
	registryKey = "registry" // the setting that lists registries
	// upstreamsKey is what a registry has in the file for the URLs that a flag
	// has behind its name.
	upstreamsKey = "upstreams"
	// dockerConfigKey is the setting for all registries, and for one.
	dockerConfigKey = "docker-config"
	// registryPlace is what a layer has before the name of a registry for the
	// place where the file begins to speak of it.
	registryPlace = "place of registry "
)

// registrySetting is one row of the table of what can be set about a registry
// besides its upstreams.
type registrySetting struct {
	name string
	list bool
	set  func(r *origin.Registry, s string) error // a word of a list in turn
}

func registrySettings() []registrySetting {
	return []registrySetting{
		{name: "ca-file", set: func(r *origin.Registry, s string) error { r.CAFile = s; return notEmpty(s) }},
		{name: "client-cert", set: func(r *origin.Registry, s string) error { r.ClientCert = s; return notEmpty(s) }},
		{name: "client-key", set: func(r *origin.Registry, s string) error { r.ClientKey = s; return notEmpty(s) }},
		{name: "insecure-skip-verify", set: func(r *origin.Registry, s string) (err error) {
			r.InsecureSkipVerify, err = parseBool(s)
			return err
		}},
		{name: "proxy", set: func(r *origin.Registry, s string) error { r.Proxy = s; return origin.CheckProxy(s) }},
		{name: "username", set: func(r *origin.Registry, s string) error { r.Username = s; return nil }},
		{name: "password-file", set: func(r *origin.Registry, s string) error { r.PasswordFile = s; return notEmpty(s) }},
		{name: dockerConfigKey, set: func(r *origin.Registry, s string) error { r.DockerConfig = s; return notEmpty(s) }},
		{name: "credential-command", list: true, set: func(r *origin.Registry, s string) error {
			r.CredentialCommand = append(r.CredentialCommand, s)
			return notEmpty(r.CredentialCommand[0])
		}},
		{name: "credentials-in-clear", set: func(r *origin.Registry, s string) (err error) {
			r.CredentialsInClear, err = parseBool(s)
			return err
		}},
		{name: "access", set: func(r *origin.Registry, s string) error { r.Access = s; return origin.CheckAccess(s) }},
		{name: "lease", set: func(r *origin.Registry, s string) (err error) {
			r.Lease, err = time.ParseDuration(s)
			if err != nil || r.Lease <= 0 {
				return fmt.Errorf("%q is no lease: use for instance 5m", s)
			}
			return nil
		}},
		{name: "share-with-swarm", set: func(r *origin.Registry, s string) (err error) {
			r.ShareWithSwarm, err = parseBool(s)
			return err
		}},
		{name: "allow", list: true, set: func(r *origin.Registry, s string) error {
			r.Allow = append(r.Allow, s)
			return origin.CheckPattern(s)
		}},
		{name: "deny", list: true, set: func(r *origin.Registry, s string) error {
			r.Deny = append(r.Deny, s)
			return origin.CheckPattern(s)
		}},
		{name: "max-age", list: true, set: func(r *origin.Registry, s string) error {
			age, err := origin.ParseTagAge(s)
			r.MaxAge = append(r.MaxAge, age)
			return err
		}},
		{name: "tag-leases", set: func(r *origin.Registry, s string) error { r.TagLeases = s; return origin.CheckTagLeases(s) }},
		{name: "stale-if-error", set: func(r *origin.Registry, s string) (err error) {
			if r.StaleIfError, err = origin.ParseAge(s); r.StaleIfError == 0 {
				r.StaleIfError = -1 // never: 0 is the default
			}
			return err
		}},
	}
}

func findRegistrySetting(name string) (registrySetting, bool) {
	all := registrySettings()
	i := slices.IndexFunc(all, func(s registrySetting) bool { return s.name == name })
	if i < 0 {
		return registrySetting{}, false
	}
	return all[i], true
}

// registryNames returns the names of all settings of a registry.
func registryNames() []string {
	all := []string{upstreamsKey}
	for _, s := range registrySettings() {
		all = append(all, s.name)
	}
	return all
}

// setUpstreams reads NAME=URL[,URL]; a name that comes again adds upstreams.
func setUpstreams(c *Config, words []word) error {
	c.Registries = origin.Registries{}
	for _, w := range words {
		name, list, ok := strings.Cut(w.text, "=")
		if !ok || list == "" {
			return w.errorf("%q: use NAME=URL[,URL], for instance docker.io=https://registry-1.docker.io", w.text)
		}
		if err := checkRegistryName(name); err != nil {
			return &Error{Where: w.where, Err: err}
		}
		r := c.Registries[name]
		for upstream := range strings.SplitSeq(list, ",") {
			if err := origin.CheckUpstream(upstream); err != nil {
				return &Error{Where: w.where, Err: err}
			}
			r.Upstreams = append(r.Upstreams, strings.TrimRight(upstream, "/"))
		}
		c.Registries[name] = r
	}
	return nil
}

// setRegistryKeys reads what the file says of registries besides upstreams,
// which are the registry itself where nothing else is said.
func (c *Config) setRegistryKeys(merged layer) error {
	for _, path := range slices.Sorted(maps.Keys(merged)) {
		rest, ok := strings.CutPrefix(path, registryKey+".")
		if !ok {
			continue
		}
		words := merged[path]
		dot := strings.LastIndexByte(rest, '.') // names have dots, keys have none
		name := rest[:dot]
		if err := checkRegistryName(name); err != nil {
			return &Error{Where: words[0].where, Err: err}
		}
		s, _ := findRegistrySetting(rest[dot+1:]) // the file was read by the same table
		r := c.Registries[name]
		for _, w := range words {
			if err := s.set(&r, w.text); err != nil {
				return &Error{Where: w.where, Err: err}
			}
		}
		c.Registries[name] = r
	}
	return c.checkRegistries(merged)
}

// checkRegistries lets registries that may have credentials and say nothing
// else have them from docker-config, and finds settings of a registry that do
// not go together.
func (c *Config) checkRegistries(merged layer) error {
	for name, r := range c.Registries {
		if c.DockerConfig != "" && r.TakesCredentials() {
			r.DockerConfig = c.DockerConfig
			c.Registries[name] = r
		}
		place := merged[registryPlace+name]
		if err := r.Check(); err != nil && len(place) > 0 { // flags only have what was checked before
			return &Error{Where: place[0].where, Err: err}
		}
	}
	return nil
}

// registryPattern is a host with an optional port, as image references spell
// it (distribution reference grammar, without the upper case that no registry
// answers to).
var registryPattern = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$`)

func checkRegistryName(name string) error {
	if !registryPattern.MatchString(name) {
		return fmt.Errorf("%q is no name of a registry: use a host such as ghcr.io or localhost:5001", name)
	}
	return nil
}
