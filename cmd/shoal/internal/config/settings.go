package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/docker/go-units"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/blobcache/statement"
)

// Limits of values.
const (
	minCacheSize = units.MiB // one piece of a blob
	maxCacheSize = 1 << 60   // 1 EiB: keeps sums of sizes far from overflow
	// A manifest is in memory once for each client that asks for it. What is
	// below the least has been seen in registries.
	minManifestSize = units.MiB
	maxManifestSize = 64 * units.MiB
	// minReverify keeps a typo ("24" read as nanoseconds, "1s") from hashing
	// every blob at every pull.
	minReverify = time.Minute
	maxReverify = 365 * 24 * time.Hour
)

// setting is one row of the table of everything that can be set.
type setting struct {
	name  string
	list  bool   // may be given more than once; otherwise the last word wins
	value string // default, or "" if there is none or it depends
	set   func(c *Config, words []word) error
}

// defaults is the layer below all others.
func defaults() layer {
	l := layer{}
	for _, s := range settings() {
		if s.value != "" {
			l[s.name] = []word{{text: s.value, where: s.name}}
		}
	}
	return l
}

// settings is the table. Its names are those of the flags and of the file's
// keys.
func settings() []setting {
	return slices.Concat(nodeSettings(), cacheSettings(), swarmSettings(), limitSettings(), natSettings())
}

// nodeSettings are those that a node without a swarm has, too.
func nodeSettings() []setting {
	return []setting{
		{name: "data-dir", value: "/var/lib/shoal", set: one(func(c *Config, s string) error {
			c.DataDir = s
			return notEmpty(s)
		})},
		{name: "mirror", value: "127.0.0.1:5000", set: one(func(c *Config, s string) error {
			c.Mirror = s
			return checkAddr(s)
		})},
		{name: "admin", value: "127.0.0.1:5050", set: one(func(c *Config, s string) error {
			c.Admin = s
			return checkAddr(s)
		})},
		{name: registryKey, list: true, value: "docker.io=https://registry-1.docker.io", set: setUpstreams},
		{name: dockerConfigKey, set: one(func(c *Config, s string) error {
			c.DockerConfig = s
			return notEmpty(s)
		})},
		{name: "manifest-size", value: "4MiB", set: one(func(c *Config, s string) (err error) {
			c.ManifestSize, err = parseManifestSize(s)
			return err
		})},
		{name: "reverify", value: "24h", set: one(func(c *Config, s string) (err error) {
			c.Reverify, err = parseReverify(s)
			return err
		})},
		{name: "log-level", value: "info", set: one(func(c *Config, s string) (err error) {
			c.LogLevel, err = parseLevel(s)
			return err
		})},
		{name: "log-format", value: "text", set: one(func(c *Config, s string) error {
			c.LogFormat = s
			if s != "text" && s != "json" {
				return fmt.Errorf("%q is no log format: use text or json", s)
			}
			return nil
		})},
	}
}

func swarmSettings() []setting {
	return []setting{
		{name: "swarm", list: true, set: each(func(c *Config, s string) error {
			m, err := parseListen(s)
			c.Swarm = append(c.Swarm, m)
			return err
		})},
		{name: "pieces", set: one(func(c *Config, s string) error {
			c.Pieces = s
			return checkAddr(s)
		})},
		{name: "announce", list: true, set: each(func(c *Config, s string) error {
			m, err := parseAnnounce(s)
			c.Announce = append(c.Announce, m)
			return err
		})},
		{name: "join", list: true, set: each(func(c *Config, s string) error {
			m, err := parseJoin(s)
			c.Join = append(c.Join, m)
			return err
		})},
		{name: "swarm-key", set: one(func(c *Config, s string) error {
			c.SwarmKey = s
			return notEmpty(s)
		})},
		{name: "trusted-keys", list: true, set: each(func(c *Config, s string) error {
			k, err := statement.ParseKey(s)
			c.TrustedKeys = append(c.TrustedKeys, k)
			if err != nil {
				return fmt.Errorf("%w; \"shoal key new\" prints the public key that belongs here", err)
			}
			return nil
		})},
		{name: "signing-key", set: one(func(c *Config, s string) error {
			c.SigningKey = s
			return notEmpty(s)
		})},
		{name: "zone", set: one(func(c *Config, s string) error {
			c.Zone = s
			return checkZone(s)
		})},
		{name: "no-mdns", value: "false", set: one(func(c *Config, s string) error {
			off, err := parseBool(s)
			c.MDNS = !off
			return err
		})},
	}
}

// find returns the setting of that name.
func find(name string) (setting, bool) {
	all := settings()
	i := slices.IndexFunc(all, func(s setting) bool { return s.name == name })
	if i < 0 {
		return setting{}, false
	}
	return all[i], true
}

// one makes a setter of the last word.
func one(set func(*Config, string) error) func(*Config, []word) error {
	return func(c *Config, words []word) error {
		return each(set)(c, words[len(words)-1:])
	}
}

// each makes a setter of every word in turn.
func each(set func(*Config, string) error) func(*Config, []word) error {
	return func(c *Config, words []word) error {
		for _, w := range words {
			if err := set(c, w.text); err != nil {
				return &Error{Where: w.where, Err: err}
			}
		}
		return nil
	}
}

func notEmpty(s string) error {
	if s == "" {
		return errors.New("is empty: name a path")
	}
	return nil
}

func checkAddr(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is no address: use HOST:PORT, for instance 127.0.0.1:5000", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port must be a number from 0 to 65535", s)
	}
	return nil
}

// parseListen allows what a swarm with a private network can listen on: TCP.
func parseListen(s string) (multiaddr.Multiaddr, error) {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil || !isTCP(m) || !manet.IsThinWaist(m) {
		return nil, fmt.Errorf("%q is no address to listen on: use /ip4/ADDRESS/tcp/PORT or /ip6/ADDRESS/tcp/PORT", s)
	}
	return m, nil
}

func parseAnnounce(s string) (multiaddr.Multiaddr, error) {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil || !isTCP(m) {
		return nil, fmt.Errorf("%q is no address to announce: use /ip4/1.2.3.4/tcp/4001 (or /ip6/, /dns4/, /dns6/, /dns/)", s)
	}
	return m, nil
}

// parseJoin allows a host and TCP port, and /dnsaddr/NAME, with or without the
// ID of the member there.
func parseJoin(s string) (multiaddr.Multiaddr, error) {
	bad := fmt.Errorf("%q is no address of a member: use /ip4/1.2.3.4/tcp/4001/p2p/ID, or /dns4/NAME/tcp/4001 or /dnsaddr/NAME for those behind a name", s)
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return nil, bad
	}
	place := m
	if last := len(m) - 1; m[last].Protocol().Code == multiaddr.P_P2P {
		place = m[:last]
	}
	if !isTCP(place) && (len(place) != 1 || place[0].Protocol().Code != multiaddr.P_DNSADDR) {
		return nil, bad
	}
	return m, nil
}

// isTCP reports whether m is a host and a TCP port.
func isTCP(m multiaddr.Multiaddr) bool {
	hosts := []int{multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6}
	return len(m) == 2 && slices.Contains(hosts, m[0].Protocol().Code) && m[1].Protocol().Code == multiaddr.P_TCP
}

// loopback reports whether a multiaddr or HOST:PORT stays on this machine.
func loopback(s string) bool {
	if host, _, err := net.SplitHostPort(s); err == nil {
		ip := net.ParseIP(host)
		return host == "localhost" || ip != nil && ip.IsLoopback()
	}
	m, err := multiaddr.NewMultiaddr(s)
	return err == nil && manet.IsIPLoopback(m)
}

var zonePattern = regexp.MustCompile(`^[A-Za-z0-9._/-]{0,64}$`)

func checkZone(s string) error {
	if !zonePattern.MatchString(s) {
		return fmt.Errorf("%q is no name of a zone: use at most 64 letters, digits and . _ / -", s)
	}
	return nil
}

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%q: use true or false", s)
	}
	return b, nil
}

func parseSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no size: use a number with a unit, for instance 500MiB or 50GiB", s)
	}
	if n < minCacheSize || n > maxCacheSize {
		return 0, fmt.Errorf("%q is out of range: use 1MiB to 1024PiB", s)
	}
	return n, nil
}

func parseManifestSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil || n < minManifestSize || n > maxManifestSize {
		return 0, fmt.Errorf("%q is no size of a manifest: use 1MiB to 64MiB", s)
	}
	return n, nil
}

func parseReverify(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration: use a number with a unit, for instance 90m or 24h", s)
	}
	if d < minReverify || d > maxReverify {
		return 0, fmt.Errorf("%q is out of range: use 1m to 8760h", s)
	}
	return d, nil
}

func parseLevel(s string) (slog.Level, error) {
	switch s {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%q is no log level: use debug, info, warn or error", s)
}
