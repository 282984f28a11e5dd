package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"shoal/blobcache/blob"
	"shoal/p2p/plan"
	"shoal/proxy/origin/origintest"
)

// pullAll has all members pull a blob at once and fails unless all get it.
func pullAll(members []*member, d blob.Descriptor, src blob.Source) {
	t := members[0].mesh.t
	t.Helper()
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			got, err := m.pull(d, src)
			if err != nil || describe(got).Digest != d.Digest {
				t.Errorf("member %d got %d bytes and %v", i, len(got), err)
			}
			m.checkBlobs()
		})
	}
	wg.Wait()
}

// Of a manifest, or a small layer, one copy leaves the origin; Docker Hub counts
// them. That nobody knows its size changes nothing.
func TestSmallBlobIsFetchedOnceByACrowd(t *testing.T) {
	t.Parallel()
	data := content(1, 5000)
	for _, size := range []int64{int64(len(data)), blob.UnknownSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{Latency: 20 * time.Millisecond}, data)
			members := newMesh(t).crowd(6)
			for _, m := range members {
				m.limits.plan.TurnSmall = 2 * time.Second // nobody is slow, only the machine is busy
			}
			d := reg.d
			d.Size = size
			pullAll(members, d, reg.src)
			if n := len(reg.Registry.Requests()); n > 2 {
				t.Errorf("the origin saw %v", reg.Registry.Lines())
			}
		})
	}
}

// Who is to ask first may be ill: the next does it.
func TestNextMemberAsksForASmallBlob(t *testing.T) {
	t.Parallel()
	data := content(1, 5000)
	for _, size := range []int64{int64(len(data)), blob.UnknownSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, origintest.Options{}, data)
			silent := newRegistry(t, origintest.Options{}, data)
			silent.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
			members := newMesh(t).crowd(3)
			d := reg.d
			d.Size = size
			first := members[0]
			for _, m := range members { // who comes first has an origin that does not answer
				if rankOf(m, members, d) == 0 {
					first = m
				}
			}
			var wg sync.WaitGroup
			for _, m := range members {
				src := reg.src
				if m == first {
					src = silent.src
				}
				wg.Go(func() {
					if got, err := m.pull(d, src); err != nil || describe(got).Digest != d.Digest {
						t.Errorf("%d bytes and %v", len(got), err)
					}
				})
			}
			wg.Wait()
			if n := len(reg.Registry.Requests()); n == 0 || n > 2 {
				t.Errorf("the origin saw %v", reg.Registry.Lines())
			}
		})
	}
}

// rankOf returns how many of the members come before m for a blob.
func rankOf(m *member, members []*member, d blob.Descriptor) int {
	var others []uint64
	for _, o := range members {
		if o != m {
			others = append(others, ownership(string(o.id)))
		}
	}
	return plan.Rank(ownership(d.Digest.String()), ownership(string(m.id)), others...)
}

// Members that all have nobody to ask say so at once.
func TestNobodyWaitsForTheOtherInVain(t *testing.T) {
	t.Parallel()
	data := content(1, 3*mib)
	for _, size := range []int64{int64(len(data)), blob.UnknownSize} {
		for _, origin := range []bool{true, false} {
			t.Run(fmt.Sprint(size, origin), func(t *testing.T) {
				t.Parallel()
				var src blob.Source
				if origin { // it has no such blob
					src = newRegistry(t, origintest.Options{}, content(2, 10)).src
				}
				members := newMesh(t).crowd(2)
				d := describe(data)
				d.Size = size
				var wg sync.WaitGroup
				for _, m := range members {
					m.limits.commit = time.Minute // which is what waiting would take
					wg.Go(func() {
						if _, err := m.pull(d, src); !errors.Is(err, blob.ErrNotFound) {
							t.Errorf("got %v", err)
						}
					})
				}
				wg.Wait()
			})
		}
	}
}

// A wrong size that a member believes in harms one fill of those who heard of
// it, and not the next.
func TestFillersFalseSize(t *testing.T) {
	t.Parallel()
	data := content(1, 3*mib+1)
	reg := newRegistry(t, origintest.Options{}, data)
	silent := newRegistry(t, origintest.Options{}, data)
	silent.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
	mesh := newMesh(t)
	members := mesh.crowd(2)
	liar, m := members[0], members[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var fetch sync.WaitGroup
	defer fetch.Wait()
	defer cancel()
	wrong := blob.Descriptor{Digest: reg.d.Digest, Size: 5 * mib}
	fetch.Go(func() { _, _ = liar.Fetch(ctx, wrong, silent.src) })
	eventually(t, "no fill of the wrong size", func() bool { return liar.driver(wrong) != nil })
	unknown := blob.Descriptor{Digest: reg.d.Digest, Size: blob.UnknownSize}
	m.limits.plan.TurnEvery = 10 * time.Millisecond
	if got, err := m.pull(unknown, reg.src); !errors.Is(err, blob.ErrCorrupt) || len(got) > 0 {
		t.Errorf("the first reader got %d bytes and %v", len(got), err)
	}
	got, err := m.pull(unknown, reg.src)
	if err != nil || describe(got).Digest != reg.d.Digest {
		t.Errorf("the second reader got %d bytes and %v", len(got), err)
	}
	m.lawful() // it may have been told that size itself
}

func TestWhoVolunteers(t *testing.T) {
	for others, want := range map[int]float64{0: 1, 1: 1, 13: 1, 27: 0.5, 139: 0.1} {
		n := 0
		for i := range 1000 {
			if willVolunteer(others, 14, (float64(i)+0.5)/1000) {
				n++
			}
		}
		if float64(n)/1000 != want {
			t.Errorf("of %d members %d of 1000 volunteer", others+1, n)
		}
	}
}
