package exchange

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/blobcache/pace"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

func limiter(t *testing.T, words ...string) *pace.Limiter {
	t.Helper()
	rules, err := pace.Parse(words)
	if err != nil {
		t.Fatal(err)
	}
	return pace.New(rules)
}

// asDeployed gives members the deadlines that nodes run with.
func asDeployed(members ...*member) {
	for _, m := range members {
		m.limits = defaults()
	}
}

// Two members get the same of a limited node, though one of them asks over eight
// connections, and together no more than the limit says.
func TestUploadsAreFair(t *testing.T) {
	const rate, span = 8e6, 1500 * time.Millisecond
	mesh := newMesh(t)
	holder, greedy, modest := mesh.member(nil), mesh.member(nil), mesh.member(nil)
	d := holder.seed(content(1, 16*mib))
	holder.upload = limiter(t, "8MB")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ask := func(m *member, connections int) *atomic.Int64 {
		var got atomic.Int64
		m.client.know(holder.holder())
		for range connections {
			wg.Go(func() {
				for ctx.Err() == nil {
					p, err := m.client.pieces(ctx, holder.id, wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, Count: 4})
					if err != nil {
						return
					}
					_, _ = io.Copy(counting{&got}, p.body) // until ctx ends
					p.body.Close()
				}
			})
		}
		return &got
	}
	a, b := ask(greedy, 8), ask(modest, 1)
	eventually(t, "nothing comes", func() bool { return a.Load() > rate/4 && b.Load() > rate/4 })
	began, a0, b0 := time.Now(), a.Load(), b.Load()
	<-time.After(span)
	many, one, seconds := float64(a.Load()-a0), float64(b.Load()-b0), time.Since(began).Seconds()
	cancel()
	wg.Wait()
	if many > 1.2*one || one > 1.2*many {
		t.Errorf("%.0f bytes over eight connections, %.0f over one", many, one)
	}
	if got := (many + one) / seconds; got > 1.1*rate {
		t.Errorf("%.0f bytes a second", got)
	}
}

type counting struct{ n *atomic.Int64 }

func (c counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// Eight members that get 1 MB a second together from a node see each of their
// requests go on: for longer than the dead are waited for, nobody takes it for
// dead, or asks for anything twice.
func TestALimitedMemberIsNotDead(t *testing.T) {
	data := content(1, 3*mib)
	mesh := newMesh(t)
	members := mesh.crowd(9)
	asDeployed(members...)
	holder := members[0]
	holder.seed(data)
	holder.upload = limiter(t, "1MB")
	for _, m := range members[1:] {
		if _, err := m.Fetch(t.Context(), describe(data), nil); err != nil {
			t.Fatal(err)
		}
	}
	given := func() int64 { return holder.metric("shoal_p2p_served_bytes_total", "") }
	eventually(t, "nothing comes", func() bool { return given() > 0 })
	began, before := time.Now(), given()
	<-time.After(holder.limits.plan.DeadAfter + holder.limits.plan.StallAfter)
	if rate := float64(given()-before) / time.Since(began).Seconds(); rate == 0 || rate > 1.1e6 {
		t.Errorf("%.0f bytes a second", rate)
	}
	for _, m := range members[1:] {
		if m.driver(describe(data)) == nil || len(m.log.find("member failed")) > 0 {
			t.Errorf("%s", m.log)
		}
	}
	if broken := holder.log.find("answer broken off"); len(broken) > 0 {
		t.Errorf("%d answers were broken off: %s", len(broken), broken[0])
	}
}

// A node that takes little at a time has few requests in flight, so that none is
// broken off, and all its fills go on.
func TestALimitedDownload(t *testing.T) {
	mesh := newMesh(t)
	holder, m := mesh.member(nil), mesh.member(nil)
	mesh.connect(holder, m)
	asDeployed(holder, m)
	m.download = limiter(t, "2MB")
	var wg sync.WaitGroup
	began, most := time.Now(), 0
	for i := range byte(6) {
		data := content(i, 3*mib/2)
		holder.seed(data)
		wg.Go(func() {
			if _, err := m.pull(describe(data), nil); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		case <-time.After(5 * time.Millisecond):
			most = max(most, m.members.used())
		}
	}
	if took := time.Since(began).Seconds(); took < 4.5 {
		t.Errorf("9 MiB took %.2f s", took)
	}
	if most > leastLimited {
		t.Errorf("%d requests at once", most)
	}
	if len(m.log.find("member failed")) > 0 {
		t.Errorf("%s", m.log)
	}
}

// What the origin is asked for is in the background while nobody reads.
func TestWhatNobodyReadsIsInTheBackground(t *testing.T) {
	data := content(1, 16*mib)
	for _, size := range []int64{int64(len(data)), blob.UnknownSize} {
		m := newMesh(t).member(nil)
		m.alone = true
		reg := newRegistry(t, origintest.Options{}, data)
		reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.SilenceAfter(1)})
		src := &noting{Source: reg.src, flows: make(chan func() pace.Flow, 100)}
		f, err := m.Fetch(t.Context(), blob.Descriptor{Digest: reg.d.Digest, Size: size}, src)
		if err != nil {
			t.Fatal(err)
		}
		flow := <-src.flows
		is := func(when string, background bool) {
			t.Helper()
			if want := (pace.Flow{Name: string(reg.d.Digest), Background: background}); flow() != want {
				t.Errorf("%s: %+v", when, flow())
			}
		}
		is("without a reader", true)
		r, err := f.Open(t.Context(), blob.Range{Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		is("with a reader", false)
		r.Close()
		is("without one again", true)
	}
}

// noting is an origin that notes for which flows it is asked.
type noting struct {
	blob.Source
	flows chan func() pace.Flow
}

func (n *noting) Open(ctx context.Context, d blob.Descriptor, r blob.Range) (*blob.Stream, error) {
	n.flows <- pace.FlowOf(ctx)
	return n.Source.Open(ctx, d, r)
}
