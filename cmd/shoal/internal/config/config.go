// Package config turns what the command line, the environment and a YAML file
// say into one checked Config. It reads the file that it is pointed at and
// nothing else: whether a key file exists or a port is free is not its
// business.
//
// A setting has one name everywhere: the flag --cache-size is
// SHOAL_CACHE_SIZE in the environment and cache-size in the file. A flag wins
// over the environment, the environment over the file, the file over the
// default; lists are replaced as a whole, registries name by name: flags and
// environment hold a registry's upstreams, and what else is set about it stands
// in the file, under registry.NAME, and so does what the node fetches by
// itself, under seeder. Every error
// is an *Error that says where the wrong word stands: the flag, the variable,
// or file, line, column and key.
package config

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"

	"shoal/blobcache/pace"
	"shoal/blobcache/statement"
	"shoal/proxy/origin"
	"shoal/seeder"
)

// Config is everything that can be set about a node. Load checked all of it.
type Config struct {
	DataDir string
	Mirror  string // HOST:PORT; port 0 means any free one, here and below
	Admin   string // HOST:PORT
	// Swarm holds the multiaddrs to listen on, Announce those to tell others,
	// Join those of members to start from (with their /p2p/ID) and of places
	// where members are.
	Swarm, Announce, Join []multiaddr.Multiaddr
	Pieces                string // HOST:PORT, or "" for the swarm's host and any free port
	SwarmKey              string // path of the key file, or ""
	TrustedKeys           []statement.Key
	SigningKey            string            // path of the key file, or ""
	Registries            origin.Registries // with DockerConfig where it counts
	DockerConfig          string            // path of a config.json of docker, or ""
	Zone                  string
	// MaxUpload, MaxDownload and MaxOrigin say how many bytes a second go to
	// members, come from members and registries, and from registries.
	MaxUpload, MaxDownload, MaxOrigin pace.Rules
	CacheSize                         int64         // bytes, or 0 for a default that depends on the disk
	HighWater, LowWater               float64       // shares of it
	MinFree                           int64         // bytes of the disk, or 0
	MaxAge                            time.Duration // of blobs since their last use, or 0 for ever
	ScrubEvery                        time.Duration // or 0 for never
	ScrubRate                         int64         // bytes a second
	ManifestSize                      int64         // bytes of the largest manifest that is accepted
	Reverify                          time.Duration // age at which a cached blob's proof is renewed before it is served
	Offline                           bool          // no registry is asked
	MDNS                              bool          // never without a swarm key
	BehindNAT                         Reachability
	Relay                             Relay
	LogLevel                          slog.Level
	LogFormat                         string // "text" or "json"
	Seeder                            seeder.Config
	UnknownNames                      []string // variables SHOAL_... of the environment that name no setting, sorted

	// Patience is that of p2p.Options: nothing sets it but tests.
	Patience time.Duration
}

// Error is a wrong word and where it stands.
type Error struct {
	Where string // "--cache-size", "SHOAL_CACHE_SIZE" or "shoal.yaml:3:13: cache-size"
	Err   error
}

func (e *Error) Error() string { return e.Where + ": " + e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// word is a value as it was written, and where.
type word struct {
	text  string
	where string
}

func (w word) errorf(format string, args ...any) error {
	return &Error{Where: w.where, Err: fmt.Errorf(format, args...)}
}

// layer holds the words that one source (flags, environment, file, defaults)
// has on the settings that it mentions.
type layer map[string][]word

// Load merges the flags, the environment (as of os.Environ) and the file that
// one of the two names, and checks the result.
func Load(flags Flags, environ []string) (Config, error) {
	args := flags.layer()
	env, unknown := environment(environ)
	layers := []layer{args, env}
	for _, l := range layers {
		words := l["config"]
		if len(words) == 0 {
			continue
		}
		file, err := readFile(words[len(words)-1])
		if err != nil {
			return Config{}, err
		}
		layers = append(layers, file)
		break
	}
	merged := merge(append(layers, defaults()))
	c := Config{UnknownNames: unknown}
	for _, s := range settings() {
		if words := merged[s.name]; len(words) > 0 {
			if err := s.set(&c, words); err != nil {
				return Config{}, err
			}
		}
	}
	if err := c.setRegistryKeys(merged); err != nil {
		return Config{}, err
	}
	if err := c.setSeeder(merged); err != nil {
		return Config{}, err
	}
	return c, c.finish(merged)
}

// merge takes each setting from the first layer that mentions it, registries
// name by name.
func merge(layers []layer) layer {
	merged := layer{}
	named := map[string]bool{}
	for _, l := range layers {
		for name, words := range l {
			if name != registryKey {
				if _, ok := merged[name]; !ok {
					merged[name] = words
				}
				continue
			}
			higher := len(merged[name])
			for _, w := range words {
				if !named[registryName(w.text)] {
					merged[name] = append(merged[name], w)
				}
			}
			for _, w := range merged[name][higher:] {
				named[registryName(w.text)] = true
			}
		}
	}
	return merged
}

func registryName(text string) string {
	name, _, _ := strings.Cut(text, "=")
	return name
}

// finish fills in the defaults that depend on other settings, and checks what
// a node without a swarm key must not do: anybody could join it, so it keeps
// to loopback.
func (c *Config) finish(merged layer) error {
	if c.Relay.Enabled && c.BehindNAT == ReachBehind {
		return merged["relay"][0].errorf("a node that others cannot dial (behind-nat) cannot relay for them: leave one of the two out")
	}
	if c.LowWater == 0 {
		c.LowWater = defaultLowWater(c.HighWater)
	}
	if c.SwarmKey != "" {
		if len(c.Swarm) == 0 {
			c.Swarm = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/0.0.0.0/tcp/4001")}
		}
		return nil
	}
	c.MDNS = false
	if len(c.Swarm) == 0 {
		c.Swarm = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/4001")}
	}
	for _, name := range []string{"swarm", "announce", "join", "pieces"} {
		for _, w := range merged[name] {
			if w.text != "" && !loopback(w.text) {
				return w.errorf("%s is beyond loopback, which needs a swarm key: make one with \"shoal swarm-key new\" and give it to every member with --swarm-key FILE", w.text)
			}
		}
	}
	return nil
}
