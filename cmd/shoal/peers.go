package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/config"
)

type peersCmd struct {
	config.Admin
	config.Common
	JSON  bool `name:"json" env:"SHOAL_JSON" help:"Print the JSON of /api/v1/peers: all members, sizes in bytes, times in seconds."`
	Watch bool `short:"w" env:"SHOAL_WATCH" help:"Show it again every second until Ctrl-C; on a terminal in place."`
	Limit uint `default:"50" placeholder:"COUNT" env:"SHOAL_LIMIT" help:"Show so many members at most; 0 shows all. Default: 50."`
}

// Help shows examples.
func (peersCmd) Help() string {
	return `    $ shoal peers
    $ shoal peers --watch
    $ shoal peers --limit 0 | grep banned
    $ shoal peers --json | jq '.peers[] | select(.ban)'

Those that are banned come first, then those with which most was traded. MEMBER is the end of the peer ID. WAY says how a member is reached: direct; inbound, over the connection that it opened, as it is behind NAT; hole-punched, where both are; relayed by another member, whose ADDRESS it is then. TRIP is the shortest time in which a connection to the member was opened: a round trip. DOWN and UP are the rates at which pieces came and went last, TAKEN and GIVEN all of them, with the number of blobs they belong to; LAST says how long ago. STATE also names those that did not answer or were slower than the registry: for a while pulls do not wait for them. Members that are gone are remembered for a while. Counters start at zero with the node's process.`
}

// Run asks the node and prints the answer.
func (c peersCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{Admin: c.Admin, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	return look(env, c.Watch, c.JSON, asker(cfg.Admin, admin.FetchPeers), func(out io.Writer, now, _ glance[admin.Peers]) error {
		return printPeers(out, now, int(c.Limit))
	})
}

// printPeers writes a table for people, of limit members at most or, if it is
// zero, of all.
func printPeers(out io.Writer, now glance[admin.Peers], limit int) error {
	peers := slices.SortedStableFunc(slices.Values(now.said.Peers), byTraffic)
	connected, banned := 0, 0
	for _, p := range peers {
		if p.Connected {
			connected++
		}
		if p.Ban != nil {
			banned++
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%s connected, %d gone, %d banned\n", count(connected, "member"), len(peers)-connected, banned) // Flush tells, here and below
	shown := peers
	if limit > 0 {
		shown = peers[:min(limit, len(peers))]
	}
	if len(shown) > 0 {
		_, _ = fmt.Fprintln(w, "MEMBER\tADDRESS\tWAY\tZONE\tTRIP\tDOWN\tUP\tTAKEN\tGIVEN\tLAST\tSTATE")
	}
	for _, p := range shown {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", ending(p.ID), hostPort(p.Addr), cmp.Or(p.Way, "-"), cmp.Or(p.Zone, "-"), tripText(p.RoundTrip),
			lately(p.Taken), lately(p.Given), volume(p.Taken), volume(p.Given), ago(p, now.at), standing(p, now.at))
	}
	if left := len(peers) - len(shown); left > 0 {
		_, _ = fmt.Fprintf(w, "%d more: --limit 0 shows all\n", left)
	}
	return w.Flush()
}

// byTraffic puts those first that are banned, then those that are worth most.
func byTraffic(a, b admin.Peer) int {
	rank := func(p admin.Peer) int {
		switch {
		case p.Ban != nil:
			return 0
		case p.Connected:
			return 1
		}
		return 2
	}
	traffic := func(p admin.Peer) int64 { return p.Taken.Bytes + p.Given.Bytes }
	if (a.Ban == nil) != (b.Ban == nil) || traffic(a) == traffic(b) {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID))
	}
	return cmp.Compare(traffic(b), traffic(a))
}

// ending returns the end of a peer ID: all begin alike.
func ending(id string) string { return id[max(0, len(id)-8):] }

// hostPort shortens a multiaddr, one over a relay to where the relay is.
func hostPort(addr string) string {
	m, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return cmp.Or(addr, "-")
	}
	m, _ = multiaddr.SplitFunc(m, func(c multiaddr.Component) bool { return c.Protocol().Code == multiaddr.P_P2P })
	a, err := manet.ToNetAddr(m)
	if err != nil {
		return addr
	}
	return a.String()
}

func tripText(seconds float64) string {
	if seconds == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1fms", 1000*seconds)
}

// lately is the rate of a direction.
func lately(t admin.Traffic) string {
	if t.Rate == 0 {
		return "-"
	}
	return size(int64(t.Rate)) + "/s"
}

// volume is how much went, of how many blobs.
func volume(t admin.Traffic) string {
	if t.Bytes == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%d)", size(t.Bytes), t.Blobs)
}

// ago is how long ago pieces were traded.
func ago(p admin.Peer, now time.Time) string {
	last := p.Taken.Last
	if p.Given.Last.After(last) {
		last = p.Given.Last
	}
	switch since := now.Sub(last).Round(time.Second); {
	case last.IsZero():
		return "-"
	case since <= 0:
		return "now"
	default:
		return since.String()
	}
}

// standing says whether a member is banned or not waited for, and whether it is
// there.
func standing(p admin.Peer, now time.Time) string {
	left := func(until time.Time) time.Duration { return max(0, until.Sub(now)).Round(time.Second) }
	there := "gone"
	if p.Connected {
		there = "connected"
	}
	switch {
	case p.Ban != nil:
		return fmt.Sprintf("banned until %s (%s), lied about %s", p.Ban.Until.Local().Format(time.DateTime), left(p.Ban.Until), p.Ban.About)
	case p.Silent.After(now):
		return fmt.Sprintf("%s, did not answer, not waited for (%s)", there, left(p.Silent))
	case p.Slow.After(now):
		return fmt.Sprintf("%s, slower than the registry, not waited for (%s)", there, left(p.Slow))
	}
	return there
}
