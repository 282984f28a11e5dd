//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// TestJoinByName: nodes that start together and know of each other only the
// name that all of them have, as pods behind a headless service do, are one
// swarm: what one of them has, another gets while the origin is off.
func TestJoinByName(t *testing.T) {
	ctx, l := scenario(t)
	listener := must(l.origin.Host.Listen(ctx, l.origin.Host.Addr, 53))(t)
	zone := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		if q.Question[0].Name == "swarm.test." && q.Question[0].Qtype == dns.TypeA {
			for _, h := range l.hosts {
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: "swarm.test.", Rrtype: dns.TypeA, Class: dns.ClassINET},
					A:   h.Addr.AsSlice(),
				})
			}
		}
		_ = w.WriteMsg(answer) // the asker may have gone
	})
	server := &dns.Server{Listener: listener, Handler: zone}
	ended := inBackground(server.ActivateAndServe)
	defer func() {
		check(t, server.Shutdown())
		check(t, <-ended)
	}()
	resolv := filepath.Join(l.dir, "resolv.conf")
	check(t, os.WriteFile(resolv, []byte("nameserver "+l.origin.Host.Addr.String()+"\noptions use-vc\n"), 0o644))
	key := filepath.Join(l.dir, "names.key")
	text := must(l.machines[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
	check(t, os.WriteFile(key, []byte(text), 0o600))

	nodes := make([]*program.Node, len(l.hosts))
	var group errgroup.Group
	for i, h := range l.hosts {
		group.Go(func() (err error) {
			nodes[i], err = program.StartNode(ctx, h, program.NodeConfig{
				Shoal: l.shoal, Name: "shoal-names", SwarmKey: key, Upstream: l.origin.URL(), ResolvConf: resolv,
				Args: []string{"--no-mdns", "--join", "/dns4/swarm.test/tcp/4001"},
			})
			return err
		})
	}
	err := group.Wait()
	for _, n := range nodes {
		if n != nil {
			t.Cleanup(n.Kill)
		}
	}
	check(t, err)
	awaitConnected(ctx, t, nodes)

	const repository = "shoal/names"
	b := must(l.origin.PutBlob(repository, 1, 4<<20))(t)
	check(t, program.DownloadBlob(ctx, nodes[0].Host, program.MirrorURL, repository, b))
	check(t, l.origin.Host.Unplug())
	err = program.DownloadBlob(ctx, nodes[5].Host, program.MirrorURL, repository, b)
	check(t, l.origin.Host.Plug())
	check(t, err)
}
