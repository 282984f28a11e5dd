package config

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/multiformats/go-multiaddr"

	"shoal/blobcache/pace"
	"shoal/blobcache/statement"
	"shoal/proxy/origin"
)

const peer = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F"

// trusted returns the public key of a seed.
func trusted(seed byte) statement.Key {
	return statement.Key(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)).Public().(ed25519.PublicKey))
}

// load parses args as "shoal serve" does. "FILE" in args and environ stands
// for a file with the given text.
func load(t *testing.T, args []string, environ []string, file string) (Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shoal.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(in []string) []string {
		var out []string
		for _, s := range in {
			out = append(out, strings.ReplaceAll(s, "FILE", path))
		}
		return out
	}
	var flags Flags
	parser, err := kong.New(&flags)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(put(args)); err != nil {
		t.Fatal(err)
	}
	c, err := Load(flags, put(environ))
	if err != nil {
		err = errors.New(strings.ReplaceAll(err.Error(), path, "FILE"))
	}
	return c, err
}

func rates(t *testing.T, words ...string) pace.Rules {
	t.Helper()
	r, err := pace.Parse(words)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func addrs(texts ...string) []multiaddr.Multiaddr {
	var all []multiaddr.Multiaddr
	for _, s := range texts {
		all = append(all, multiaddr.StringCast(s))
	}
	return all
}

func TestDefaults(t *testing.T) {
	c, err := load(t, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		DataDir: "/var/lib/shoal", Mirror: "127.0.0.1:5000", Admin: "127.0.0.1:5050",
		Swarm:      addrs("/ip4/127.0.0.1/tcp/4001"),
		Registries: origin.Registries{"docker.io": {Upstreams: []string{"https://registry-1.docker.io"}}},
		HighWater:  .95, LowWater: defaultLowWater(.95), ScrubEvery: 168 * time.Hour, ScrubRate: 20 << 20, ManifestSize: 4 << 20, Reverify: 24 * time.Hour, LogLevel: slog.LevelInfo, LogFormat: "text",
		BehindNAT: ReachAuto, Relay: Relay{Rate: 24 << 20, CircuitRate: 6 << 20, Reservations: 256, Circuits: 512},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	keyed, err := load(t, []string{"--swarm-key=k"}, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := keyed.Swarm; !reflect.DeepEqual(got, addrs("/ip4/0.0.0.0/tcp/4001")) || !keyed.MDNS {
		t.Errorf("with a key: swarm %q, mDNS %v", got, keyed.MDNS)
	}
}

func TestEverySettingFromEverySource(t *testing.T) {
	want := Config{
		DataDir: "/d", Mirror: "127.0.0.1:1", Admin: "[::1]:2",
		Swarm:    addrs("/ip4/10.0.0.1/tcp/4", "/ip6/::/tcp/5"),
		Announce: addrs("/dns4/a.example/tcp/6", "/ip4/10.0.0.2/tcp/6"),
		Join:     addrs("/ip4/10.0.0.3/tcp/7/p2p/"+peer, "/dns4/b.example/tcp/8", "/dnsaddr/c.example"),
		Pieces:   "10.0.0.1:3", SwarmKey: "/k", TrustedKeys: []statement.Key{trusted(1), trusted(2)}, SigningKey: "/s",
		Registries: origin.Registries{
			"docker.io": {Upstreams: []string{"https://m.example", "https://registry-1.docker.io"}},
			"ghcr.io":   {Upstreams: []string{"http://127.0.0.1:5001"}},
		},
		Zone: "a/b", CacheSize: 3 << 29, Offline: true, HighWater: .8, LowWater: .705, MinFree: 5 << 30, MaxAge: 720 * time.Hour, ScrubEvery: 24 * time.Hour, ScrubRate: 100 << 20, ManifestSize: 8 << 20, Reverify: 90 * time.Minute,
		MaxUpload: rates(t, "5MB", "22:00-06:00 unlimited"), MaxDownload: rates(t, "400Mbit"), MaxOrigin: rates(t, "09:00-17:00 1MB"),
		LogLevel: slog.LevelDebug, LogFormat: "json",
		BehindNAT: ReachOpen, Relay: Relay{Enabled: true, Rate: 1 << 30, CircuitRate: 256 << 10, Reservations: 1, Circuits: 100_000},
	}
	for name, tt := range map[string]struct {
		args, environ []string
		file          string
	}{
		"flags": {args: []string{
			"--data-dir=/d", "--mirror", "127.0.0.1:1", "--admin=[::1]:2", "--swarm=/ip4/10.0.0.1/tcp/4", "--swarm=/ip6/::/tcp/5",
			"--announce=/dns4/a.example/tcp/6", "--announce=/ip4/10.0.0.2/tcp/6",
			"--join=/ip4/10.0.0.3/tcp/7/p2p/" + peer, "--join=/dns4/b.example/tcp/8", "--join=/dnsaddr/c.example",
			"--pieces=10.0.0.1:3", "--swarm-key=/k", "--trusted-keys=" + trusted(1).String(), "--trusted-keys", trusted(2).String(), "--signing-key=/s", "--registry=docker.io=https://m.example,https://registry-1.docker.io",
			"--registry=ghcr.io=http://127.0.0.1:5001/", "--zone=a/b", "--cache-size=1.5GiB", "--offline", "--cache-high-water=80%", "--cache-low-water=70.5%", "--min-free=5GiB", "--cache-max-age=720h", "--scrub-every=24h", "--scrub-rate=100MB", "--manifest-size=8MiB", "--reverify=90m", "--no-mdns",
			"--max-upload=5MB", "--max-upload", "22:00-06:00 unlimited", "--max-download=400Mbit", "--max-origin=9:00-17:00 1MB",
			"--log-level=debug", "--log-format=json",
			"--behind-nat=false", "--relay", "--relay-rate=1GiB", "--relay-circuit-rate=256KiB", "--relay-reservations=1", "--relay-circuits=100000",
		}},
		"environment": {environ: []string{
			"SHOAL_DATA_DIR=/d", "SHOAL_MIRROR=127.0.0.1:1", "SHOAL_ADMIN=[::1]:2", "SHOAL_SWARM=/ip4/10.0.0.1/tcp/4 /ip6/::/tcp/5",
			"SHOAL_ANNOUNCE= /dns4/a.example/tcp/6\n/ip4/10.0.0.2/tcp/6 ",
			"SHOAL_JOIN=/ip4/10.0.0.3/tcp/7/p2p/" + peer + "\t/dns4/b.example/tcp/8 /dnsaddr/c.example",
			"SHOAL_PIECES=10.0.0.1:3", "SHOAL_SWARM_KEY=/k", "SHOAL_TRUSTED_KEYS=" + trusted(1).String() + " " + trusted(2).String(), "SHOAL_SIGNING_KEY=/s",
			"SHOAL_REGISTRY=docker.io=https://m.example,https://registry-1.docker.io ghcr.io=http://127.0.0.1:5001",
			"SHOAL_ZONE=a/b", "SHOAL_CACHE_SIZE=1.5g", "SHOAL_OFFLINE=true", "SHOAL_CACHE_HIGH_WATER=80%", "SHOAL_CACHE_LOW_WATER=70.5%", "SHOAL_MIN_FREE=5g", "SHOAL_CACHE_MAX_AGE=720h", "SHOAL_SCRUB_EVERY=24h", "SHOAL_SCRUB_RATE=100m", "SHOAL_MANIFEST_SIZE=8m", "SHOAL_REVERIFY=90m", "SHOAL_NO_MDNS=1",
			"SHOAL_MAX_UPLOAD=5MB 22:00-06:00 unlimited", "SHOAL_MAX_DOWNLOAD=50MB", "SHOAL_MAX_ORIGIN=9:00-17:00 8Mbit",
			"SHOAL_LOG_LEVEL=debug", "SHOAL_LOG_FORMAT=json", "SHOAL_KEEP=1",
			"SHOAL_BEHIND_NAT=0", "SHOAL_RELAY=1", "SHOAL_RELAY_RATE=1g", "SHOAL_RELAY_CIRCUIT_RATE=256k", "SHOAL_RELAY_RESERVATIONS=1", "SHOAL_RELAY_CIRCUITS=100000", "PATH=/bin",
		}},
		"file": {args: []string{"--config", "FILE"}, file: `
data-dir: /d
mirror: 127.0.0.1:1
admin: "[::1]:2"
swarm: [/ip4/10.0.0.1/tcp/4, "/ip6/::/tcp/5"]
announce:
  - /dns4/a.example/tcp/6
  - /ip4/10.0.0.2/tcp/6
join: [/ip4/10.0.0.3/tcp/7/p2p/` + peer + `, /dns4/b.example/tcp/8, /dnsaddr/c.example]
pieces: 10.0.0.1:3
swarm-key: /k
signing-key: /s
trusted-keys: [` + trusted(1).String() + `, "` + trusted(2).String() + `"]
registry:
  docker.io:
    upstreams: [https://m.example, https://registry-1.docker.io]
  ghcr.io: {upstreams: http://127.0.0.1:5001}
zone: a/b
cache-size: 1610612736
offline: true
cache-high-water: 80%
cache-low-water: 70.5%
min-free: 5GiB
cache-max-age: 720h
scrub-every: 24h
scrub-rate: 100MiB
manifest-size: 8388608
reverify: 1h30m
no-mdns: true
max-upload: [5MB, "22:00-06:00 unlimited"]
max-download: 50000000
max-origin: 09:00-17:00 1MB
log-level: debug
log-format: json
behind-nat: false
relay: true
relay-rate: 1GiB
relay-circuit-rate: 256KiB
relay-reservations: 1
relay-circuits: 100000
`},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := load(t, tt.args, tt.environ, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(c, want) {
				t.Errorf("got  %+v\nwant %+v", c, want)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	file := "zone: file\nmirror: 127.0.0.1:1\nadmin: 127.0.0.1:1\ndata-dir: /file\n" +
		"registry:\n  a.example: {upstreams: [http://file]}\n  b.example: {upstreams: [http://file]}\n  c.example: {upstreams: [http://file, http://file2]}\n"
	c, err := load(t,
		[]string{"--zone=first", "--zone=flag", "--registry=a.example=http://flag"},
		[]string{
			"SHOAL_ZONE=env", "SHOAL_MIRROR=127.0.0.1:2", "SHOAL_ADMIN=", "SHOAL_CONFIG=FILE",
			"SHOAL_REGISTRY=a.example=http://env b.example=http://env b.example=http://env2",
		}, file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone != "flag" || c.Mirror != "127.0.0.1:2" || c.Admin != "127.0.0.1:1" || c.DataDir != "/file" {
		t.Errorf("zone %q, mirror %q, admin %q, data-dir %q", c.Zone, c.Mirror, c.Admin, c.DataDir)
	}
	want := origin.Registries{
		"a.example": {Upstreams: []string{"http://flag"}},
		"b.example": {Upstreams: []string{"http://env", "http://env2"}},
		"c.example": {Upstreams: []string{"http://file", "http://file2"}},
		"docker.io": {Upstreams: []string{"https://registry-1.docker.io"}},
	}
	if !reflect.DeepEqual(c.Registries, want) {
		t.Errorf("registries %v, want %v", c.Registries, want)
	}
}

func TestSettingsOfARegistry(t *testing.T) {
	c, err := load(t, []string{"--config=FILE", "--registry=b.example=https://flag"}, nil, `
registry:
  docker.io: {deny: [private/*, "*-internal"]}
  a.example: {ca-file: /ca, client-cert: /c, client-key: /k, insecure-skip-verify: true, allow: team, proxy: none}
  b.example:
    upstreams: [https://file/v2/hub/, https://b.example]
    proxy: http://proxy:3128
    username: robot$hub+node
    password-file: /p
    access: shared
  c.example: {upstreams: ['http://c'], username: me, password-file: /p, access: shared, credentials-in-clear: true}
  d.example: {docker-config: /d, access: shared}
  e.example: {credential-command: [helper, --account, "a b"], access: shared}
  f.example: {credential-command: helper, access: shared}
  g.example: {access: client, lease: 2m, share-with-swarm: true}
  h.example: {max-age: ["*:latest=0s", "team/*:v*=24h"], stale-if-error: 90m}
  i.example: {max-age: "app:[0-9]*=1h", stale-if-error: 0s, tag-leases: prefer}
`)
	if err != nil {
		t.Fatal(err)
	}
	want := origin.Registries{
		"docker.io": {Upstreams: []string{"https://registry-1.docker.io"}, Deny: []string{"private/*", "*-internal"}},
		"a.example": {CAFile: "/ca", ClientCert: "/c", ClientKey: "/k", InsecureSkipVerify: true, Allow: []string{"team"}, Proxy: origin.ProxyNone},
		"b.example": {Upstreams: []string{"https://flag"}, Proxy: "http://proxy:3128", Username: "robot$hub+node", PasswordFile: "/p", Access: origin.AccessShared}, // a flag says where, not how
		"c.example": {Upstreams: []string{"http://c"}, Username: "me", PasswordFile: "/p", Access: origin.AccessShared, CredentialsInClear: true},
		"d.example": {DockerConfig: "/d", Access: origin.AccessShared},
		"e.example": {CredentialCommand: []string{"helper", "--account", "a b"}, Access: origin.AccessShared},
		"f.example": {CredentialCommand: []string{"helper"}, Access: origin.AccessShared},
		"g.example": {Access: origin.AccessClient, ByClient: origin.ByClient{Lease: 2 * time.Minute, ShareWithSwarm: true}},
		"h.example": {MaxAge: []origin.TagAge{{Pattern: "*:latest"}, {Pattern: "team/*:v*", Age: 24 * time.Hour}}, StaleIfError: 90 * time.Minute},
		"i.example": {MaxAge: []origin.TagAge{{Pattern: "app:[0-9]*", Age: time.Hour}}, StaleIfError: -1, TagLeases: origin.LeasesPrefer},
	}
	if !reflect.DeepEqual(c.Registries, want) {
		t.Errorf("got  %+v\nwant %+v", c.Registries, want)
	}
}

// TestDockerConfigForAll: it is for registries that may have credentials and
// have no others.
func TestDockerConfigForAll(t *testing.T) {
	const file = `
registry:
  docker.io: {deny: [private]}
  a.example: {access: shared}
  b.example: {access: public}
  c.example: {access: shared, docker-config: /c}
  d.example: {access: shared, username: me, password-file: /p}
  e.example: {access: shared, credential-command: helper}
`
	for from, load := range map[string]func() (Config, error){
		"flag": func() (Config, error) {
			return load(t, []string{"--config=FILE", "--registry=a.example=https://a", "--docker-config=/all"}, nil, file)
		},
		"environment": func() (Config, error) {
			return load(t, nil, []string{"SHOAL_CONFIG=FILE", "SHOAL_DOCKER_CONFIG=/all"}, file)
		},
		"file": func() (Config, error) { return load(t, []string{"--config=FILE"}, nil, "docker-config: /all\n"+file) },
	} {
		c, err := load()
		if err != nil {
			t.Fatal(err)
		}
		if c.DockerConfig != "/all" {
			t.Errorf("by %s it is %q", from, c.DockerConfig)
		}
		for name, want := range map[string]string{"docker.io": "", "a.example": "/all", "b.example": "", "c.example": "/c", "d.example": "", "e.example": ""} {
			if got := c.Registries[name].DockerConfig; got != want {
				t.Errorf("by %s %s has %q, want %q", from, name, got, want)
			}
		}
	}
}

func TestSwitchCanBeTurnedBack(t *testing.T) {
	c, err := load(t, []string{"--no-mdns=false", "--swarm-key=k"}, []string{"SHOAL_NO_MDNS=true"}, "")
	if err != nil || !c.MDNS {
		t.Errorf("mDNS %v, %v", c.MDNS, err)
	}
}

func TestUnknownVariablesAreReported(t *testing.T) {
	c, err := load(t, nil, []string{
		"SHOAL_ZONES=x", "SHOAL_CACHESIZE=1GiB", "SHOAL_JSON=1",
		"SHOAL_SERVICE_HOST=10.0.0.1", "SHOAL_SERVICE_PORT_MIRROR=5000", "SHOAL_PORT=tcp://10.0.0.1:5000", "SHOAL_PORT_5000_TCP_ADDR=10.0.0.1",
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"SHOAL_CACHESIZE", "SHOAL_ZONES"}; !reflect.DeepEqual(c.UnknownNames, want) {
		t.Errorf("unknown %q, want %q", c.UnknownNames, want)
	}
}

func TestBadWordsInTheFile(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"unknown key", "zone: a\ncachesize: 1GiB\n", `FILE:2:1: cachesize: is no setting: there are data-dir, mirror, `},
		{"config in the file", "config: x\n", `FILE:1:1: config: is no setting`},
		{"out of range", "\n\ncache-size: 12\n", `FILE:3:13: cache-size: "12" is out of range: use 1MiB to 1024PiB`},
		{"no size", "cache-size: many", `FILE:1:13: cache-size: "many" is no size`},
		{"negative size", "cache-size: -1GiB", `FILE:1:13: cache-size: "-1GiB" is no size`},
		{"no share", "cache-high-water: 0.9", `FILE:1:19: cache-high-water: "0.9" is no share of cache-size: use 1% to 100%`},
		{"too much of a share", "cache-low-water: 101%", `FILE:1:18: cache-low-water: "101%" is no share`},
		{"low above high", "cache-high-water: 80%\ncache-low-water: 85%", `FILE:2:18: cache-low-water: 85% is above cache-high-water`},
		{"no free size", "min-free: much", `FILE:1:11: min-free: "much" is no size`},
		{"an age that would empty it", "cache-max-age: 5s", `FILE:1:16: cache-max-age: "5s" is no such time: use a number with a unit, at least 1m`},
		{"an age without a unit", "scrub-every: 7", `FILE:1:14: scrub-every: "7" is no such time`},
		{"a rate that comes to no end", "scrub-rate: 1KiB", `FILE:1:13: scrub-rate: "1KiB" is no rate`},
		{"tiny manifests", "manifest-size: 1KiB", `FILE:1:16: manifest-size: "1KiB" is no size of a manifest: use 1MiB to 64MiB`},
		{"huge manifests", "manifest-size: 65MiB", `FILE:1:16: manifest-size: "65MiB" is no size of a manifest`},
		{"huge size", "cache-size: 99999999999PiB", `FILE:1:13: cache-size: "99999999999PiB" is out of range`},
		{"neither behind NAT nor not", "behind-nat: perhaps", `FILE:1:13: behind-nat: "perhaps": use auto, true or false`},
		{"a relay that nobody reaches", "relay: true\nbehind-nat: true", `FILE:1:8: relay: a node that others cannot dial (behind-nat) cannot relay for them: leave one of the two out`},
		{"a relay that crawls", "relay-rate: 1k", `FILE:1:13: relay-rate: "1k" is no rate of a relay: use 256KiB to 100GiB, bytes a second`},
		{"a relay for nobody", "relay-circuits: 0", `FILE:1:17: relay-circuits: "0": use a number from 1 to 100000`},
		{"no boolean", "no-mdns: maybe", `FILE:1:10: no-mdns: "maybe": use true or false`},
		{"list for a scalar", "zone: [a, b]", `FILE:1:7: zone: must be a plain value, not a sequence`},
		{"no value", "zone:\nmirror: 127.0.0.1:1\n", `zone: has no value`},
		{"bad entry of a list", "join:\n  - /ip4/127.0.0.1/tcp/1/p2p/" + peer + "\n  - nonsense\n", `FILE:3:5: join: "nonsense" is no address of a member`},
		{"duplicate key", "zone: a\nzone: b\n", `FILE:2:1: mapping key "zone" already defined at [1:1]`},
		{"syntax", "zone: a\n\t- b: [", `FILE:2:`},
		{"no mapping", "- a\n", `FILE:1:1: must be a mapping of names to values`},
		{"two documents", "zone: a\n---\nzone: b\n", `FILE:3:`},
		{"registry as a list", "registry: [a]\n", `FILE:1:11: registry: must be a mapping`},
		{"registry without upstreams", "registry:\n  ghcr.io: {upstreams: []}\n", `FILE:2:13: registry.ghcr.io.upstreams: is empty`},
		{"registry without anything", "registry:\n  ghcr.io: {}\n", `FILE:2:3: registry.ghcr.io: says nothing`},
		{"unknown key of a registry", "registry:\n  ghcr.io:\n    upstream: http://x\n", `FILE:3:5: registry.ghcr.io.upstream: is no setting of a registry: there are upstreams, ca-file, client-cert, `},
		{"name of a registry", "registry:\n  Ghcr.io: {deny: [a]}\n", `FILE:2:20: registry.Ghcr.io.deny: "Ghcr.io" is no name of a registry`},
		{"bad pattern", "registry:\n  ghcr.io: {allow: [a/*, 'b[']}\n", `FILE:2:26: registry.ghcr.io.allow: "b[" is no pattern of repositories`},
		{"pattern with a slash", "registry:\n  ghcr.io: {deny: /a}\n", `"/a" is no pattern of repositories: use for instance library/* or team/app`},
		{"age of nothing", "registry:\n  ghcr.io: {max-age: ['a:b=1h', '*:v*']}\n", `FILE:2:33: registry.ghcr.io.max-age: "*:v*": use PATTERN=DURATION, for instance *:v*=24h`},
		{"age of a repository", "registry:\n  ghcr.io: {max-age: library/nginx=1h}\n", `registry.ghcr.io.max-age: "library/nginx" is no pattern of tags: use for instance *:v* or library/nginx:1.*`},
		{"age without a unit", "registry:\n  ghcr.io: {max-age: 'a:b=24'}\n", `registry.ghcr.io.max-age: "24" is no duration: use a number with a unit, for instance 90s or 24h`},
		{"no kind of leases", "registry:\n  ghcr.io: {tag-leases: always}\n", `FILE:2:25: registry.ghcr.io.tag-leases: "always": use outage, prefer or off`},
		{"a bad window", "registry:\n  ghcr.io: {stale-if-error: -1h}\n", `registry.ghcr.io.stale-if-error: "-1h" is out of range: use 0s to 8760h`},
		{"bad proxy", "registry:\n  ghcr.io: {proxy: 'proxy:3128'}\n", `"proxy:3128" is no proxy: use http://HOST:PORT, socks5://HOST:PORT or none`},
		{"password for a proxy", "registry:\n  ghcr.io: {proxy: 'http://me:secret@proxy:3128'}\n", `http://me:xxxxx@proxy:3128: credentials do not belong here`},
		{"certificate without a key", "registry:\n  ghcr.io: {client-cert: /c}\n", `FILE:2:3: registry.ghcr.io: client-cert and client-key belong together`},
		{"key without a certificate", "registry:\n  ghcr.io: {client-key: /c}\n", `FILE:2:3: registry.ghcr.io: client-cert and client-key belong together`},
		{"unsure", "registry:\n  ghcr.io: {insecure-skip-verify: perhaps}\n", `registry.ghcr.io.insecure-skip-verify: "perhaps": use true or false`},
		{"password for everybody", "registry:\n  ghcr.io: {username: me, password-file: /p}\n", `FILE:2:3: registry.ghcr.io: with credentials, whoever reaches this mirror may pull what they can get, and every holder of the swarm key may have it: set "access: shared"`},
		{"password in public", "registry:\n  ghcr.io: {username: me, password-file: /p, access: public}\n", `FILE:2:3: registry.ghcr.io: with credentials, whoever reaches`},
		{"password without a user", "registry:\n  ghcr.io: {password-file: /p, access: shared}\n", `FILE:2:3: registry.ghcr.io: username and password-file belong together`},
		{"password in clear", "registry:\n  ghcr.io: {upstreams: ['http://a'], username: me, password-file: /p, access: shared}\n", `FILE:2:3: registry.ghcr.io: http://a would get the password in clear: use https://, or set "credentials-in-clear: true"`},
		{"two kinds of credentials", "registry:\n  ghcr.io: {username: me, password-file: /p, docker-config: /d, access: shared}\n", `FILE:2:3: registry.ghcr.io: username, docker-config and credential-command exclude each other: keep one of them`},
		{"a command for everybody", "registry:\n  ghcr.io: {credential-command: helper}\n", `FILE:2:3: registry.ghcr.io: with credentials, whoever reaches`},
		{"an empty command", "registry:\n  ghcr.io: {credential-command: ''}\n", `FILE:2:33: registry.ghcr.io.credential-command: is empty`},
		{"a file for everybody", "registry:\n  ghcr.io: {docker-config: /d, access: public}\n", `FILE:2:3: registry.ghcr.io: with credentials, whoever reaches`},
		{"docker-config in clear", "docker-config: /d\nregistry:\n  ghcr.io: {upstreams: ['https://a', 'http://b'], access: shared}\n", `FILE:3:3: registry.ghcr.io: http://b would get the password in clear`},
		{"no access", "registry:\n  ghcr.io: {access: all}\n", `registry.ghcr.io.access: "all" is no access: use public, shared or client`},
		{"tokens in clear", "registry:\n  ghcr.io: {upstreams: ['http://a'], access: client}\n", `FILE:2:3: registry.ghcr.io: http://a would get the tokens of clients in clear: use https://, or set "credentials-in-clear: true"`},
		{"password and clients", "registry:\n  ghcr.io: {username: me, password-file: /p, access: client}\n", `FILE:2:3: registry.ghcr.io: with "access: client" each client brings its own token: remove the credentials`},
		{"lease for all", "registry:\n  ghcr.io: {lease: 5m}\n", `FILE:2:3: registry.ghcr.io: lease is for "access: client"`},
		{"long lease", "registry:\n  ghcr.io: {lease: 24h, access: client}\n", `FILE:2:3: registry.ghcr.io: lease 24h0m0s: use up to 1h0m0s`},
		{"no lease", "registry:\n  ghcr.io: {lease: 0s, access: client}\n", `registry.ghcr.io.lease: "0s" is no lease: use for instance 5m`},
		{"shared anyway", "registry:\n  ghcr.io: {share-with-swarm: true, access: shared}\n", `FILE:2:3: registry.ghcr.io: share-with-swarm is for "access: client"`},
		{"password in the file", "registry:\n  ghcr.io: {password: secret}\n", `registry.ghcr.io.password: is no setting of a registry: there are upstreams, `},
		{"list for a file", "registry:\n  ghcr.io: {ca-file: [a]}\n", `registry.ghcr.io.ca-file: must be a plain value`},
		{"bad upstream", "registry:\n  ghcr.io:\n    upstreams:\n      - https://ghcr.io\n      - ftp://x\n", `FILE:5:9: registry.ghcr.io.upstreams: "ftp://x" is no URL of a registry`},
		{"alias", "zone: &z a\n", `FILE:1:7: zone: must be a plain value, not a anchor`},
		{"beyond loopback", "swarm: /ip4/0.0.0.0/tcp/4001\n", `FILE:1:8: swarm: /ip4/0.0.0.0/tcp/4001 is beyond loopback, which needs a swarm key`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, []string{"--config=FILE"}, nil, tt.file)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s...", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestBadWords(t *testing.T) {
	for _, tt := range []struct{ arg, want string }{
		{"--data-dir=", `--data-dir: is empty`},
		{"--mirror=5000", `--mirror: "5000" is no address: use HOST:PORT`},
		{"--mirror=127.0.0.1:65536", `--mirror: "127.0.0.1:65536": the port must be a number from 0 to 65535`},
		{"--admin=127.0.0.1:http", `--admin: "127.0.0.1:http": the port must be`},
		{"--swarm=/ip4/127.0.0.1/udp/4001/quic-v1", `--swarm: "/ip4/127.0.0.1/udp/4001/quic-v1" is no address to listen on`},
		{"--swarm=/dns4/localhost/tcp/4001", `--swarm: "/dns4/localhost/tcp/4001" is no address to listen on`},
		{"--join=/dns4/b.example", `is no address of a member`},
		{"--join=/dnsaddr/b.example/tcp/4001", `is no address of a member`},
		{"--join=/p2p/" + peer, `is no address of a member`},
		{"--join=/dnsaddr/b.example", `is beyond loopback`},
		{"--join=/dns4/localhost/tcp/4001", `is beyond loopback`},
		{"--join=/ip4/127.0.0.1/udp/4001/p2p/" + peer, `is no address of a member: use /ip4/1.2.3.4/tcp/4001/p2p/ID`},
		{"--announce=10.0.0.1:4001", `--announce: "10.0.0.1:4001" is no address to announce: use /ip4/1.2.3.4/tcp/4001`},
		{"--announce=/ip4/1.2.3.4/tcp/4001/p2p/" + peer, `is no address to announce`},
		{"--join=/ip4/1.2.3.4/tcp/4001/ws/p2p/" + peer, `is no address of a member`},
		{"--registry=docker.io", `--registry: "docker.io": use NAME=URL[,URL]`},
		{"--registry=docker.io=", `--registry: "docker.io=": use NAME=URL[,URL]`},
		{"--registry=Docker.io=https://x", `"Docker.io" is no name of a registry`},
		{"--registry=docker.io=https://x,,https://y", `"" is no URL of a registry`},
		{"--registry=docker.io=https://u:secret@x", `https://u:xxxxx@x: credentials do not belong into the URL`},
		{"--registry=docker.io=https://x?a=b", `"https://x?a=b" has more than scheme, host, port and path`},
		{"--registry=docker.io=https://x/Y", `"https://x/Y": the path is no folder of repositories: use https://HOST/PROJECT`},
		{"--trusted-keys=AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", `--trusted-keys: no key: use ed25519: and 32 bytes in base64; "shoal key new" prints the public key that belongs here`},
		{"--trusted-keys=ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", `--trusted-keys: no key: anybody can sign for that one`},
		{"--zone=a b", `--zone: "a b" is no name of a zone`},
		{"--reverify=24", `--reverify: "24" is no duration`},
		{"--reverify=1s", `--reverify: "1s" is out of range`},
		{"--log-level=loud", `--log-level: "loud" is no log level: use debug, info, warn or error`},
		{"--log-format=xml", `--log-format: "xml" is no log format`},
		{"--config=/nowhere/shoal.yaml", `--config: open /nowhere/shoal.yaml: no such file or directory`},
		{"--swarm=/ip4/10.0.0.1/tcp/4001", `--swarm: /ip4/10.0.0.1/tcp/4001 is beyond loopback, which needs a swarm key: make one with "shoal swarm-key new"`},
		{"--join=/ip4/10.0.0.1/tcp/4001/p2p/" + peer, `is beyond loopback`},
		{"--join=/dns4/localhost/tcp/4001/p2p/" + peer, `is beyond loopback`},
		{"--announce=/ip4/10.0.0.1/tcp/4001", `is beyond loopback`},
		{"--pieces=0.0.0.0:0", `--pieces: 0.0.0.0:0 is beyond loopback`},
		{"--pieces=:0", `--pieces: :0 is beyond loopback`},
	} {
		_, err := load(t, []string{tt.arg}, nil, "")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s\ngot  %v\nwant %s", tt.arg, err, tt.want)
		}
	}
	if _, err := load(t, nil, []string{"SHOAL_CACHE_SIZE=banana"}, ""); err == nil || !strings.HasPrefix(err.Error(), `SHOAL_CACHE_SIZE: "banana" is no size`) {
		t.Errorf("environment: %v", err)
	}
}

func TestWithoutKeyLoopbackIsAllowed(t *testing.T) {
	_, err := load(t, []string{
		"--swarm=/ip4/127.0.0.2/tcp/0", "--swarm=/ip6/::1/tcp/0", "--pieces=localhost:0",
		"--join=/ip4/127.0.0.1/tcp/4001/p2p/" + peer, "--announce=/ip4/127.0.0.1/tcp/4001",
	}, nil, "")
	if err != nil {
		t.Error(err)
	}
}

// FuzzParseFile: whatever a file says, it is a set of known settings within
// their limits, or an error of one line that names the place.
func FuzzParseFile(f *testing.F) {
	f.Add("zone: a\nregistry:\n  ghcr.io: {upstreams: [http://x]}\n")
	f.Add("swarm: /ip4/127.0.0.1/tcp/0\njoin: [/dns4/a.example/tcp/1/p2p/" + peer + "]\nno-mdns: yes\n")
	f.Add("cache-size: 10GiB\nreverify: 90m\nlog-level: debug\nlog-format: json\nswarm-key: k\npieces: a:1\n")
	f.Add("join:\n- a\n- b\n---\n")
	f.Add("registry:\n  ghcr.io: {deny: [a, b], proxy: none, a.b: c}\n")
	f.Add("a: &a [*a]\n? [x]\n: y\n<<: {zone: 1}\n")
	f.Fuzz(func(t *testing.T, text string) {
		words, err := parseFile("f", []byte(text))
		if err != nil {
			if strings.Contains(err.Error(), "\n") && !strings.Contains(text, "\n") {
				t.Errorf("an error of more than one line: %q", err)
			}
			return
		}
		c := Config{Registries: origin.Registries{}}
		placed := func(err error) {
			if e, ok := errors.AsType[*Error](err); !ok || !strings.HasPrefix(e.Where, "f:") {
				t.Errorf("an error that names no place: %v", err)
			}
		}
		for name, list := range words {
			if strings.HasPrefix(name, registryKey+".") || strings.HasPrefix(name, registryPlace) {
				continue // setRegistryKeys looks at it
			}
			s, ok := find(name)
			if !ok {
				t.Fatalf("accepted %q", name)
			}
			if err := s.set(&c, list); err != nil {
				placed(err)
				return
			}
		}
		if err := c.setRegistryKeys(words); err != nil {
			placed(err)
			return
		}
		if c.CacheSize != 0 && (c.CacheSize < minCacheSize || c.CacheSize > maxCacheSize) || c.Reverify != 0 && c.Reverify < minReverify || len(c.Zone) > 64 {
			t.Errorf("out of bounds: %+v", c)
		}
	})
}
