package config

import (
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// prefix is what the names of all our environment variables start with.
const prefix = "SHOAL_"

// Words is a flag's values as they were written, one for each time that it was
// given; nil if it was not. Kong must neither split nor interpret them: the
// same words may come from elsewhere, and are judged in one place.
type Words []string

// Decode takes the next word off the command line.
func (w *Words) Decode(ctx *kong.DecodeContext) error {
	text, err := ctx.Scan.PopValue("value")
	if err != nil {
		return err
	}
	*w = append(*w, text.String())
	return nil
}

// Switch is a flag that needs no value: --name is --name=true.
type Switch []string

// Decode takes an explicit value (--name=false) or assumes true.
func (s *Switch) Decode(ctx *kong.DecodeContext) error {
	text := "true"
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		text = ctx.Scan.Pop().String()
	}
	*s = append(*s, text)
	return nil
}

// IsBool tells kong that a value is optional.
func (s *Switch) IsBool() bool { return true }

// Common are the flags of every verb that looks at a node's settings.
type Common struct {
	Config Words `placeholder:"FILE" help:"YAML file with the same names as the flags; registry is a map, NAME: {upstreams: [URL, ...]}."`
}

// DataDir is the flag of verbs that work on a node's files.
type DataDir struct {
	DataDir Words `placeholder:"DIR" help:"Where blobs, keys and state are kept. Default: /var/lib/shoal."`
}

// Admin is the flag of verbs that talk to a node.
type Admin struct {
	Admin Words `placeholder:"ADDR" help:"Address of the node's admin endpoint: /healthz, /readyz, /metrics, /api/v1/... Default: 127.0.0.1:5050."`
}

// Flags are all settings of a node as flags. Verbs that need fewer fill in the
// parts that they have.
type Flags struct {
	Common
	DataDir
	Mirror Words `placeholder:"ADDR" help:"Registry endpoint for the container runtimes of this machine. Default: 127.0.0.1:5000."`
	Admin

	Swarm       Words  `group:"Swarm:" placeholder:"MULTIADDR" help:"Where to listen for members; repeat for more. Default: /ip4/0.0.0.0/tcp/4001 with a swarm key, /ip4/127.0.0.1/tcp/4001 without."`
	Pieces      Words  `group:"Swarm:" placeholder:"ADDR" help:"Where to serve pieces of blobs to members. Default: the swarm's host, any free port."`
	Announce    Words  `group:"Swarm:" placeholder:"MULTIADDR" help:"Address to tell members instead of those listened on (containers, NAT); repeat for more."`
	Join        Words  `group:"Swarm:" placeholder:"MULTIADDR" help:"A member to start from, /ip4/1.2.3.4/tcp/4001/p2p/ID, which \"shoal status\" prints there, or a name that leads to members: /dns4/NAME/tcp/4001, /dnsaddr/NAME; repeat for more."`
	SwarmKey    Words  `group:"Swarm:" placeholder:"FILE" help:"Key of the swarm, made by \"shoal swarm-key new\", the same on every member. Without it the node keeps to loopback."`
	TrustedKeys Words  `group:"Swarm:" placeholder:"KEY" help:"Public key, printed by \"shoal key new\", whose statements count here: it obeys \"shoal cache invalidate --signing-key\", and believes the chains of blobs and leases of tags that seeders sign. Repeat for more. Default: none."`
	SigningKey  Words  `group:"Swarm:" placeholder:"FILE" help:"Key, made by \"shoal key new\", with which this node signs the chains of the blobs that it has proven, and what registries tell it of tags, for those that trust it, and the orders of min-holders. For seeders. Default: none."`
	Zone        Words  `group:"Swarm:" placeholder:"NAME" help:"Site of this node; members of the same zone are asked first."`
	NoMDNS      Switch `group:"Swarm:" name:"no-mdns" help:"Do not look for members on the local network by multicast DNS."`

	BehindNAT         Words  `group:"Swarm:" name:"behind-nat" placeholder:"auto|true|false" help:"Whether members outside this network cannot dial the node; \"shoal help nat\". Default: auto, the node finds out, or false with --announce."`
	Relay             Switch `group:"Swarm:" help:"Relay between members that cannot reach each other, within the limits below. Others have to be able to dial this node."`
	RelayRate         Words  `group:"Swarm:" placeholder:"SIZE" help:"Bytes that are relayed in a second, over all. Default: 24MiB."`
	RelayCircuitRate  Words  `group:"Swarm:" placeholder:"SIZE" help:"The same between two members, in each direction. Default: 6MiB."`
	RelayReservations Words  `group:"Swarm:" placeholder:"COUNT" help:"Members that can be reached over this node. Default: 256."`
	RelayCircuits     Words  `group:"Swarm:" placeholder:"COUNT" help:"Connections between members that are relayed at a time. Default: 512."`

	Registry     Words  `group:"Content:" placeholder:"NAME=URL[,URL]" help:"Upstreams of a registry in order of preference; repeat for more registries. http:// is allowed. Default: docker.io=https://registry-1.docker.io. A registry that is not listed is https://NAME, public names only."`
	DockerConfig Words  `group:"Content:" placeholder:"FILE" help:"config.json of docker, or auth.json of podman, with the credentials for registries that say access: shared in the file and name none themselves."`
	CacheSize    Words  `group:"Content:" placeholder:"SIZE" help:"Bytes of disk for blobs: 500MiB, 50GiB, ... (powers of 1024). Default: a quarter of the disk, at most 50GiB."`
	Offline      Switch `group:"Content:" help:"Ask no registry: serve what is in the cache and what members have. Tags are what they were, or what \"shoal cache import\" says."`
	HighWater    Words  `group:"Content:" name:"cache-high-water" placeholder:"SHARE" help:"When more of cache-size is used, images that were not used for longest go, before a pull has to wait for it. Default: 95%."`
	LowWater     Words  `group:"Content:" name:"cache-low-water" placeholder:"SHARE" help:"... until no more of it is used. Default: 5% of cache-size less than cache-high-water."`
	MinFree      Words  `group:"Content:" placeholder:"SIZE" help:"Bytes of the disk to leave free, whatever cache-size says. Default: 0."`
	CacheMaxAge  Words  `group:"Content:" placeholder:"DURATION" help:"Images that nobody used for so long go. Default: 0, which is never."`
	ScrubEvery   Words  `group:"Content:" placeholder:"DURATION" help:"Read each blob so often to see whether it has rotted; 0 is never. Default: 168h."`
	ScrubRate    Words  `group:"Content:" placeholder:"RATE" help:"Bytes a second to read for that at most. Default: 20MB."`
	ManifestSize Words  `group:"Content:" placeholder:"SIZE" help:"Largest manifest that is accepted, 1MiB to 64MiB. Default: 4MiB."`
	Reverify     Words  `group:"Content:" placeholder:"DURATION" help:"Hash a cached blob again before it is served when its last proof is older than this. Default: 24h."`

	MaxUpload   Words `group:"Limits:" placeholder:"RATE" help:"Most bytes a second that go to members, all together: 50MB (50,000,000), 50MiB, 400Mbit, or 0 or unlimited. Repeat with hours for what counts then: \"22:00-06:00 unlimited\". Default: unlimited."`
	MaxDownload Words `group:"Limits:" placeholder:"RATE" help:"The same for bytes that come from members and registries together. Default: unlimited."`
	MaxOrigin   Words `group:"Limits:" placeholder:"RATE" help:"The same for bytes that come from registries. Default: unlimited."`

	LogLevel  Words `group:"Logging:" placeholder:"LEVEL" help:"debug, info, warn or error. Default: info."`
	LogFormat Words `group:"Logging:" placeholder:"FORMAT" help:"text or json, to standard error. Default: text."`
}

// layer returns the words of the flags that were given.
func (f *Flags) layer() layer {
	l := layer{}
	for name, words := range map[string][]string{
		"config": f.Config, "data-dir": f.DataDir.DataDir, "mirror": f.Mirror, "admin": f.Admin.Admin,
		"swarm": f.Swarm, "pieces": f.Pieces, "announce": f.Announce, "join": f.Join,
		"swarm-key": f.SwarmKey, "trusted-keys": f.TrustedKeys, "signing-key": f.SigningKey, "zone": f.Zone, "no-mdns": f.NoMDNS,
		"behind-nat": f.BehindNAT, "relay": f.Relay, "relay-rate": f.RelayRate, "relay-circuit-rate": f.RelayCircuitRate,
		"relay-reservations": f.RelayReservations, "relay-circuits": f.RelayCircuits,
		"registry": f.Registry, dockerConfigKey: f.DockerConfig, "cache-size": f.CacheSize, "offline": f.Offline, "cache-high-water": f.HighWater, "cache-low-water": f.LowWater, "min-free": f.MinFree,
		"cache-max-age": f.CacheMaxAge, "scrub-every": f.ScrubEvery, "scrub-rate": f.ScrubRate, "manifest-size": f.ManifestSize, "reverify": f.Reverify,
		MaxUploadKey: f.MaxUpload, MaxDownloadKey: f.MaxDownload, MaxOriginKey: f.MaxOrigin,
		"log-level": f.LogLevel, "log-format": f.LogFormat,
	} {
		for _, text := range words {
			l[name] = append(l[name], word{text: text, where: "--" + name})
		}
	}
	return l
}

// environment returns the words of the variables that name a setting, and the
// names of those that look as if they should. A variable that is set to
// nothing is not set: compose files and unit files pass on empty ones.
//
// An unknown variable is no error: Kubernetes puts SHOAL_PORT and the like into
// every container beside a service called "shoal", and those are not even
// reported.
func environment(environ []string) (layer, []string) {
	l := layer{}
	var unknown []string
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || value == "" {
			continue
		}
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		s, known := find(name)
		switch {
		case known && s.list:
			for _, text := range strings.Fields(value) {
				l[name] = append(l[name], word{text: text, where: variable})
			}
		case known:
			l[name] = []word{{text: value, where: variable}}
		case name == "config":
			l[name] = []word{{text: value, where: variable}}
		case slices.Contains([]string{"json", "keep", "watch", "limit", "svg", "output", "dry-run", "until", "rate", "platform", "zstd", "name", "platform", "to-zone", "peers", "all", "wait"}, name): // flags of single verbs, which kong reads
		case !serviceLink(variable):
			unknown = append(unknown, variable)
		}
	}
	slices.Sort(unknown)
	return l, unknown
}

// serviceLink reports whether Kubernetes makes variables of this shape for a
// service: *_SERVICE_HOST, *_SERVICE_PORT[_NAME], *_PORT[_5000_TCP[_ADDR]].
func serviceLink(variable string) bool {
	return strings.HasSuffix(variable, "_SERVICE_HOST") ||
		strings.Contains(variable, "_SERVICE_PORT") ||
		strings.HasSuffix(variable, "_PORT") ||
		strings.Contains(variable, "_PORT_")
}

// Variable returns the name of the environment variable of a flag.
func Variable(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
