package exchange

import (
	"context"
	"sync"
	"testing"

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

// crowd adds n members that are connected.
func (m *mesh) crowd(n int) []*member {
	m.t.Helper()
	members := make([]*member, n)
	for i := range members {
		members[i] = m.member(nil)
	}
	m.connect(members...)
	return members
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
