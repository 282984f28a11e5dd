package p2p_test

import (
	"io"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/blobcache/blob"
	"shoal/p2p"
	"shoal/p2p/p2ptest"
	"shoal/p2p/p2ptest/forge"
	"shoal/proxy/origin/origintest"
)

// Whatever a member does on its piece channel, the bytes are right, and come
// from the origin when it gave none; only proven lies ban.
func TestLies(t *testing.T) {
	t.Parallel()
	data := content(2, 5<<20+3)
	for _, lie := range p2ptest.Lies() {
		t.Run(string(lie), func(t *testing.T) {
			t.Parallel()
			// The liar is asked before the origin has answered.
			srv, d, src := registry(t, origintest.Options{Latency: time.Second}, data)
			reg := prometheus.NewRegistry()
			c := p2ptest.NewCluster(t, 2, p2ptest.Options{
				Lies: map[int]p2ptest.Lie{0: lie},
				Configure: func(i int, o *p2p.Options) {
					if i == 1 {
						o.Metrics = reg
					}
				},
			})
			liar, m := c.Members[0], c.Members[1]
			liar.Seed(data)
			m.AwaitHolders(d.Digest, liar)
			pull(t, m, d, src)
			gave := srv.Registry.Stats().Content[d.Digest]
			if lie == p2ptest.WrongPiece || lie == p2ptest.OneBit { // the verdict follows the end of the fill
				p2ptest.Eventually(t, "the liar is not banned", func() bool { return bans(t, reg) > 0 })
			}
			bans := bans(t, reg)
			switch lie {
			case p2ptest.WrongPiece:
				if bans != 1 || gave != d.Size {
					t.Errorf("%v bans, the origin gave %d bytes of %d", bans, gave, d.Size)
				}
			case p2ptest.OneBit: // in the last piece of each answer
				if bans != 1 || gave == 0 || gave > d.Size {
					t.Errorf("%v bans, the origin gave %d bytes of %d", bans, gave, d.Size)
				}
			case p2ptest.TooLittle: // half of a run may hold whole pieces
				if bans != 0 || gave == 0 || gave > d.Size {
					t.Errorf("%v bans, the origin gave %d bytes of %d", bans, gave, d.Size)
				}
			default:
				if bans != 0 || gave != d.Size {
					t.Errorf("%v bans, the origin gave %d bytes of %d", bans, gave, d.Size)
				}
			}
		})
	}
}

// What a member says about its pieces that is not so bans it, in nodes as they
// run; the bytes are right.
func TestForgedPledges(t *testing.T) {
	t.Parallel()
	data := content(2, 5<<20+3)
	for _, lie := range append(forge.AtOnce(), forge.Later()...) {
		t.Run(string(lie), func(t *testing.T) {
			t.Parallel()
			// The liar is asked before the origin has answered.
			_, d, src := registry(t, origintest.Options{Latency: time.Second}, data)
			reg := prometheus.NewRegistry()
			c := p2ptest.NewCluster(t, 2, p2ptest.Options{
				Forges: map[int]forge.Lie{0: lie},
				Configure: func(i int, o *p2p.Options) {
					if i == 1 {
						o.Metrics = reg
					}
				},
			})
			liar, m := c.Members[0], c.Members[1]
			liar.Seed(data)
			m.AwaitHolders(d.Digest, liar)
			pull(t, m, d, src)
			p2ptest.Eventually(t, "the liar is not banned", func() bool { return bans(t, reg) > 0 })
		})
	}
}

func bans(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() == "shoal_p2p_bans_total" {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// A holder that stands still in the middle of what it serves costs a second or
// so, with the defaults that nodes run with.
func TestFrozenHolder(t *testing.T) {
	data := content(3, 64<<20)
	for _, rescue := range []string{"origin", "holder"} {
		t.Run(rescue, func(t *testing.T) {
			srv, d, src := registry(t, origintest.Options{}, data)
			c := p2ptest.NewCluster(t, 3, p2ptest.Options{})
			frozen, other, m := c.Members[0], c.Members[1], c.Members[2]
			frozen.Seed(data)
			m.AwaitHolders(d.Digest, frozen)
			f, err := m.Fetch(t.Context(), d, src)
			if err != nil {
				t.Fatal(err)
			}
			p2ptest.Eventually(t, "no piece came", func() bool { return f.Have().Any() })
			frozen.Freeze()
			defer frozen.Thaw()
			if rescue == "holder" {
				other.Seed(data)
			}
			r, err := f.Open(t.Context(), blob.Range{Length: -1})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			start := time.Now()
			n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
			if err != nil || n != d.Size {
				t.Fatalf("%d bytes, %v", n, err)
			}
			// How long it takes depends on the machine; that it is not the
			// minute of a fill without progress does not.
			t.Logf("after the freeze it took %v; the origin gave %d bytes", time.Since(start), srv.Registry.Stats().Content[d.Digest])
			if time.Since(start) > 30*time.Second {
				t.Error("the fill waited for the frozen holder")
			}
		})
	}
}

func TestHolderStopsMidway(t *testing.T) {
	data := content(4, 64<<20)
	srv, d, src := registry(t, origintest.Options{}, data)
	c := p2ptest.NewCluster(t, 2, p2ptest.Options{})
	holder, m := c.Members[0], c.Members[1]
	holder.Seed(data)
	m.AwaitHolders(d.Digest, holder)
	f, err := m.Fetch(t.Context(), d, src)
	if err != nil {
		t.Fatal(err)
	}
	p2ptest.Eventually(t, "no piece came", func() bool { return f.Have().Any() })
	holder.Stop()
	pull(t, m, d, src)
	if gave := srv.Registry.Stats().Content[d.Digest]; gave > d.Size {
		t.Errorf("the origin gave %d bytes of %d", gave, d.Size)
	}
}
