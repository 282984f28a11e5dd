package exchange

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/proxy/origin/origintest"
)

// connect makes members know each other, as those of a small swarm do.
func (m *mesh) connect(members ...*member) {
	for _, a := range members {
		a.near = nil
		for _, b := range members {
			if a != b {
				a.near = append(a.near, b.holder())
			}
		}
	}
}

// crowd adds n members that are connected, with wrapped handlers if there are
// any wraps.
func (m *mesh) crowd(n int, wraps ...func(http.Handler) http.Handler) []*member {
	m.t.Helper()
	members := make([]*member, n)
	for i := range members {
		var wrap func(http.Handler) http.Handler
		if i < len(wraps) {
			wrap = wraps[i]
		}
		members[i] = m.member(wrap)
	}
	m.connect(members...)
	return members
}

// warm opens the connections of members, as between those that have been idle
// for a while, and takes the haste out of them: what a busy machine delays is
// not late, so that what is counted follows from what they tell each other.
func warm(members []*member) {
	t := members[0].mesh.t
	t.Helper()
	for _, m := range members {
		m.follows.keep(m.near)
		m.limits.commit = unhurried
		p := &m.limits.plan
		p.OriginDeadAfter, p.SilentAfter, p.LateBy, p.StuckBy, p.TurnEvery = unhurried, unhurried, unhurried, unhurried, unhurried
		p.OriginShare, p.Window = 0, unhurried
	}
	for _, m := range members {
		eventually(t, "members are not connected", func() bool { return m.metric("shoal_p2p_followed", "") == int64(len(m.near)) })
	}
}

func (m *member) holder() Holder { return Holder{Peer: m.id, Pieces: []string{m.addr}} }

// driver returns the driver of a blob that is being filled, or nil.
func (m *member) driver(d blob.Descriptor) *driver {
	for _, dr := range m.driving(d.Digest) {
		return dr
	}
	return nil
}

// fills returns the members that m knows to fill or have the blob.
func (m *member) fills(d blob.Descriptor) int {
	if dr := m.driver(d); dr != nil {
		return len(dr.search.holders())
	}
	return 0
}

// Whoever fills a blob knows all others that do, however they began: the
// origin is silent, so that nothing else could tell.
func TestFillersKnowEachOther(t *testing.T) {
	data := content(1, 8*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
	for _, size := range []int64{reg.d.Size, blob.UnknownSize} {
		for name, order := range map[string]func(start []func()){
			"at once": func(start []func()) {
				var wg sync.WaitGroup
				for _, s := range start {
					wg.Go(s)
				}
				wg.Wait()
			},
			"one by one": func(start []func()) {
				for _, s := range start {
					s()
				}
			},
		} {
			t.Run(name, func(t *testing.T) {
				d := blob.Descriptor{Digest: reg.d.Digest, Size: size}
				members := newMesh(t).crowd(6)
				var start []func()
				ctx, cancel := context.WithCancel(t.Context())
				var fetches sync.WaitGroup
				defer fetches.Wait()
				defer cancel()
				for _, m := range members {
					start = append(start, func() {
						fetches.Go(func() { _, _ = m.Fetch(ctx, d, reg.src) })
						eventually(t, "the fill did not begin", func() bool { return m.driver(d) != nil })
					})
				}
				order(start)
				for _, m := range members {
					eventually(t, "a filler is not known", func() bool { return m.fills(d) == len(members)-1 })
				}
			})
		}
	}
}

// fetch returns the fill of a blob.
func (m *member) fetch(d blob.Descriptor, src blob.Source) *blobcache.Fill {
	m.mesh.t.Helper()
	f, err := m.Fetch(m.mesh.t.Context(), d, src)
	if err != nil {
		m.mesh.t.Fatal(err)
	}
	return f
}
