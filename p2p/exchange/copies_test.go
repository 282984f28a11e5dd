package exchange

import (
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/bits-and-blooms/bitset"

	"shoal/blobcache/blob"
	"shoal/p2p/channel"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// copies fails if more than most copies of the blob left the origin.
func (r *registry) copies(t *testing.T, most float64) {
	t.Helper()
	copies := float64(r.gave()) / float64(r.d.Size)
	t.Logf("%.3f copies", copies)
	if copies > most {
		t.Errorf("%.3f copies left the origin, want at most %.2f", copies, most)
	}
}

// start pulls in the background; the test waits for it.
func (m *member) start(wg *sync.WaitGroup, d blob.Descriptor, src blob.Source) {
	wg.Go(func() {
		got, err := m.pull(d, src)
		if err != nil || describe(got).Digest != d.Digest {
			m.mesh.t.Errorf("%d bytes and %v", len(got), err)
		}
		m.checkBlobs()
	})
}

// has returns how many pieces of a running fill are here; all if it has ended.
func (m *member) has(d blob.Descriptor) int {
	if f, ok := m.cache.Running(d.Digest); ok {
		return int(f.Have().Count())
	}
	if _, ok := m.cache.Stat(d.Digest); ok {
		return blob.PieceCount(d.Size)
	}
	return 0
}

func TestColdCrowdTakesOneCopy(t *testing.T) {
	data := content(1, 40*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 400e6}, data, unhurried)
	members := newMesh(t).crowd(6)
	warm(members)
	var wg sync.WaitGroup
	for _, m := range members {
		m.start(&wg, reg.d, reg.src)
	}
	wg.Wait()
	reg.copies(t, 1.05)
	for _, m := range members {
		m.lawful()
	}
}

// Whose size nobody knows, as of a layer that is asked for without its
// manifest: a few pieces more.
func TestColdCrowdWithoutASize(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 400e6}, data, unhurried)
	members := newMesh(t).crowd(4)
	warm(members)
	var wg sync.WaitGroup
	for _, m := range members {
		// Long enough that nobody asks whose turn it is not. It may be nobody's:
		// who is heard a moment late is neither earlier nor later.
		m.limits.plan.TurnSmall = 5 * time.Second
		m.start(&wg, blob.Descriptor{Digest: reg.d.Digest, Size: blob.UnknownSize}, reg.src)
	}
	wg.Wait()
	reg.copies(t, 1.1)
}

func TestManySmallLayers(t *testing.T) {
	const layers = 8
	members := newMesh(t).crowd(6)
	warm(members)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 400e6}, nil, unhurried)
	var wg sync.WaitGroup
	var all int64
	for i := range byte(layers) {
		data := content(i+1, mib+77)
		d := reg.Registry.AddBlob("test/image", data)
		all += d.Size
		for _, m := range members {
			m.start(&wg, d, reg.src)
		}
	}
	wg.Wait()
	var gave int64
	for _, n := range reg.Registry.Stats().Content {
		gave += n
	}
	// Fills of so few pieces can meet in the moment in which each begins to ask,
	// when the machine is busy; without members it would be six.
	if copies := float64(gave) / float64(all); copies > 1.6 {
		t.Errorf("%.3f copies left the origin", copies)
	}
}

// Members that come when others are half way take what these have, and their
// part of the rest. What one asks for before the others have heard of it may be on its
// way to another as well: a piece for each of its requests in flight is allowed.
func TestLateMembersDuplicateNothing(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 200e6}, data, unhurried)
	members := newMesh(t).crowd(5)
	warm(members)
	var wg sync.WaitGroup
	for i, m := range members {
		m.start(&wg, reg.d, reg.src)
		eventually(t, "nothing comes", func() bool { return members[0].has(reg.d) >= 4*i })
	}
	wg.Wait()
	late := (len(members) - 1) * members[0].limits.plan.OriginRequests
	reg.copies(t, 1+float64(late)/24)
}

// What a member that is killed had claimed and not given on comes from others.
func TestOwnerIsKilled(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 200e6}, data, unhurried)
	members := newMesh(t).crowd(4)
	warm(members)
	killed := members[3]
	var wg sync.WaitGroup
	for _, m := range members[:3] {
		m.start(&wg, reg.d, reg.src)
	}
	f := killed.fetch(reg.d, reg.src)
	eventually(t, "nothing comes", func() bool { return f.Have().Count() >= 8 })
	killed.stop()
	killed.close()
	for _, m := range members[:3] {
		eventually(t, "the end of a member was not noticed", func() bool { return m.driver(reg.d) == nil || m.fills(reg.d) == 2 })
	}
	wg.Wait()
	reg.copies(t, 1.3)
}

// An owner whose origin gives it nothing is relieved by others.
func TestOwnerIsStuck(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 400e6}, data, unhurried)
	silent := newRegistry(t, origintest.Options{}, data)
	silent.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.SilenceAfter(0)})
	members := newMesh(t).crowd(4)
	warm(members)
	var wg sync.WaitGroup
	for i, m := range members {
		m.limits.plan.SilentAfter = time.Second
		m.limits.plan.TurnEvery = 300 * time.Millisecond
		src := reg.src
		if i == 0 {
			src = silent.src
		}
		m.start(&wg, reg.d, src)
	}
	wg.Wait()
	reg.copies(t, 1.3)
}

// Of an origin that sends the whole whatever is asked for, one member takes it.
func TestOriginWithoutRangeInACrowd(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 400e6, NoRange: true}, data, unhurried)
	members := newMesh(t).crowd(4)
	warm(members)
	var wg sync.WaitGroup
	for _, m := range members {
		m.start(&wg, reg.d, reg.src)
	}
	wg.Wait()
	reg.copies(t, 1.1)
}

// Where the one that streams dies, another goes on.
func TestStreamingMemberIsKilled(t *testing.T) {
	data := content(1, 24*mib)
	reg := newSlowRegistry(t, origintest.Options{UplinkBitsPerSecond: 200e6, NoRange: true}, data, unhurried)
	members := newMesh(t).crowd(3)
	warm(members)
	var wg sync.WaitGroup
	streams := members[0]
	for _, m := range members {
		m.limits.plan.TurnEvery = 300 * time.Millisecond
		if rankOf(m, members, reg.d) == 0 {
			streams = m
		}
	}
	f := streams.fetch(reg.d, reg.src)
	for _, m := range members {
		if m != streams {
			m.start(&wg, reg.d, reg.src)
		}
	}
	eventually(t, "nothing comes", func() bool { return f.Have().Count() >= 8 })
	streams.stop()
	streams.close()
	wg.Wait()
	reg.copies(t, 2.2) // the second begins anew
}

// claimant follows the protocol, fills nothing, and claims everything: with
// progress, for ever.
func claimant(d blob.Descriptor) func(http.Handler) http.Handler {
	all := bitset.New(uint(blob.PieceCount(d.Size))).SetAll()
	return func(honest http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, ok := channel.RemotePeer(r.Context())
			if r.URL.Path != wire.FollowPath || !ok || id == "" {
				honest.ServeHTTP(w, r)
				return
			}
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Time{})
			_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.FollowProtocol + "\r\n\r\n"))
			ids := make(chan uint32, 10)
			go func() {
				defer close(ids)
				for {
					head, _, err := readFrame(rw.Reader, wire.MaxOther)
					if err != nil {
						return
					}
					if head.Type == wire.FrameFollow {
						ids <- head.ID
					}
				}
			}()
			info := wire.Info{Size: d.Size, Claims: all, Volunteer: true, Origin: wire.OriginRanged}
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			var followed []uint32
			for {
				select {
				case id, ok := <-ids:
					if !ok {
						return
					}
					followed = append(followed, id)
				case <-tick.C:
					info.Progress += mib
				}
				var b []byte
				for _, id := range followed {
					b = wire.AppendFrame(b, wire.FrameInfo, id, info.Marshal())
				}
				if _, err := conn.Write(b); err != nil {
					return
				}
			}
		})
	}
}

// Who claims everything and gives nothing does not keep others from the origin.
func TestClaimsOfEverything(t *testing.T) {
	data := content(1, 12*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	mesh := newMesh(t)
	members := mesh.crowd(2, claimant(reg.d))
	m := members[1]
	m.limits.swarmFirst = 100 * time.Millisecond
	m.limits.plan = defaults().plan
	m.mustPull(data, reg.src)
	reg.copies(t, 1)
}

// Members that come a moment after the fill began take part in it.
func TestMembersComeLater(t *testing.T) {
	data := content(1, 8*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
	mesh := newMesh(t)
	members := mesh.crowd(3)
	near := members[0].near
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, m := range members {
		m.meet(nil)
		wg.Go(func() { _, _ = m.Fetch(ctx, reg.d, reg.src) })
	}
	for _, m := range members {
		eventually(t, "the origin was not asked by somebody who is alone", func() bool {
			dr := m.driver(reg.d)
			return dr != nil && dr.search.state(1).alone
		})
	}
	members[0].meet(near) // who is followed follows back
	eventually(t, "members that came are not known", func() bool {
		return members[0].fills(reg.d) == 2 && members[1].fills(reg.d) == 2 && members[2].fills(reg.d) == 2
	})
}

// The names of others travel with the first word: members that know only one
// in the middle find each other.
func TestMembersAreNamed(t *testing.T) {
	data := content(1, 8*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	reg.Registry.Fault(origintest.Fault{Kind: origintest.Blob, Effect: origintest.Silence()})
	mesh := newMesh(t)
	members := mesh.crowd(5)
	hub := members[0]
	hub.meet(nil)
	for _, m := range members[1:] {
		m.meet([]Holder{hub.holder()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, m := range members[1:] { // the hub itself does not fill it
		wg.Go(func() { _, _ = m.Fetch(ctx, reg.d, reg.src) })
	}
	for _, m := range members[1:] {
		eventually(t, "a filler was not named", func() bool { return m.fills(reg.d) == 3 })
	}
}

// meet changes who is connected.
func (m *member) meet(near []Holder) {
	m.mesh.mu.Lock()
	defer m.mesh.mu.Unlock()
	m.near, m.alone = near, near == nil
}
