package exchange

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bits-and-blooms/bitset"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
	"shoal/p2p/penalty"
	"shoal/p2p/plan"
	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

func (q *quietSwarm) Self() Holder { return Holder{} }

// quiet returns an exchange of a swarm in which nobody says anything.
func quiet(t *testing.T, swarm Swarm) *Exchange {
	t.Helper()
	met, err := newAcquaintances("self")
	if err != nil {
		t.Fatal(err)
	}
	x := &Exchange{
		client: &client{},
		cache:  emptyCache(t), swarm: swarm, met: met, turns: newTurns(), limits: defaults(), drivers: map[key]*driver{}, log: slog.New(slog.DiscardHandler),
		bans: penalty.NewBox(forLies()), silent: penalty.NewBox(forSilence()), slow: penalty.NewBox(forSlowness()),
	}
	x.followers, x.follows = newFollowers(x), newFollows(x)
	return x
}

// crowded returns a driver whose fill has begun in a swarm of so many members
// besides, and how often it has left a follow.
func crowded(t *testing.T, others int, volunteers bool) (d *driver, left map[peer.ID]int) {
	t.Helper()
	x := quiet(t, &quietSwarm{connected: others})
	want := blob.Descriptor{Digest: digest.FromString("x"), Size: 4 * blob.PieceSize}
	d = newDriver(x, key{want.Digest, want.Size}, want)
	d.plan = plan.New(plan.Config{Size: want.Size, PieceSize: blob.PieceSize, Tuning: plan.Defaults()})
	x.drivers[d.key] = d
	d.settled = true
	if d.volunteered = volunteers; volunteers {
		d.search.volunteer()
	}
	d.look()
	return d, map[peer.ID]int{}
}

// tells lets member k say that it fills the blob.
func tells(d *driver, left map[peer.ID]int, k int, info wire.Info) {
	id := peer.ID(fmt.Sprint(k))
	a := d.search.asked[id]
	if a == nil {
		a = &asked{holder: Holder{Peer: id, Pieces: []string{"x"}}}
		d.search.asked[id] = a
	}
	if a.leave == nil {
		a.leave = func() { left[id]++ }
	}
	info.Size, info.Proven, info.Claims = d.want.Size, bitset.New(4), bitset.New(4)
	d.search.hear(id, said{info: info})
	d.listen()
}

// A plan takes as many members as are good for it; the others are let go, and
// come back when one has gone. Who has the whole takes no place of those.
func TestPlansTakeFewMembers(t *testing.T) {
	g := plan.DefaultDegrees()
	for name, c := range map[string]struct {
		others, volunteers int // in the swarm; volunteers besides 60 who are none
		keen               bool
		joined             int
	}{
		"large":                    {500, 0, false, g.Degree},
		"small":                    {g.Volunteers - 1, 0, false, 60},
		"just not small":           {g.Volunteers, 0, false, g.Degree},
		"volunteers know others":   {500, 20, true, g.Degree + 20},
		"but not too many":         {500, 50, true, g.Degree + g.VolunteerDegree},
		"others need not":          {500, 20, false, g.Degree},
		"more than there ever are": {g.Volunteers - 1, 20, true, maxMembers},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, left := crowded(t, c.others, c.keen)
				n := 0
				for range 60 {
					n++
					tells(d, left, n, wire.Info{})
				}
				for range c.volunteers {
					n++
					tells(d, left, n, wire.Info{Volunteer: true})
				}
				volunteers, others, wholes := d.joined()
				if got := volunteers + sum(others); got != c.joined || sum(wholes) != 0 {
					t.Errorf("%d members of %d, %d whole; want %d", got, n, wholes, c.joined)
				}
				if len(left) != n-c.joined {
					t.Errorf("%d of %d were let go", len(left), n)
				}
				for range maxWholes + 1 {
					n++
					tells(d, left, n, wire.Info{Whole: true})
				}
				if _, _, wholes := d.joined(); sum(wholes) != min(maxWholes, maxMembers-c.joined) {
					t.Errorf("%d members with the whole", wholes)
				}
			})
		})
	}
}

// Spare members are asked again when others have gone, as many as are missing,
// and what was on its way from them when they were let go is not believed.
func TestSparesReplaceThoseThatGo(t *testing.T) {
	d, left := crowded(t, 500, false)
	degree := d.x.limits.degrees.Degree
	for k := range 40 {
		tells(d, left, k, wire.Info{})
	}
	d.fillUp()
	if len(d.search.met) != 0 {
		t.Fatalf("%d are asked although there are enough", len(d.search.met))
	}
	for id := range left { // had spoken before it was let go
		d.search.hear(id, said{info: wire.Info{Size: d.want.Size, Proven: bitset.New(4), Claims: bitset.New(4)}})
	}
	if news := d.search.take(); len(news) != 0 {
		t.Errorf("%d spare members are heard", len(news))
	}
	gone := 0
	for id := range d.sources {
		if gone++; gone > 2 {
			break
		}
		d.search.hear(id, said{err: errors.New("broken")})
	}
	d.listen()
	for range 3 {
		d.fillUp()
	}
	if len(d.search.met) != 2 {
		t.Fatalf("%d are asked for 2 that have gone", len(d.search.met))
	}
	for _, h := range d.search.met {
		d.search.hear(h.Peer, said{info: wire.Info{Size: d.want.Size, Proven: bitset.New(4), Claims: bitset.New(4)}})
	}
	d.search.met = nil
	d.listen()
	if _, others, _ := d.joined(); others[within] != degree {
		t.Errorf("%d members, want %d", others, degree)
	}
	if d.fillUp(); len(d.search.met) != 0 {
		t.Errorf("%d more are asked", len(d.search.met))
	}
	for id := range d.sources { // again
		d.search.hear(id, said{err: errors.New("broken")})
		d.listen()
		break
	}
	if d.fillUp(); len(d.search.met) != 1 {
		t.Errorf("%d are asked for another that has gone", len(d.search.met))
	}
	// What was not taken yet when it was let go is not either.
	id := peer.ID("quick")
	d.search.asked[id] = &asked{}
	d.search.hear(id, said{})
	if d.search.spare(id); len(d.search.take()) != 0 {
		t.Error("a spare member is heard")
	}
}

// A member that has much less than this node makes way for a spare one, one at a
// time, and is asked again only when there is nobody else.
func TestWhoHasLittleMakesWay(t *testing.T) {
	d, left := crowded(t, 500, false)
	degree := d.x.limits.degrees.Degree
	for k := range degree {
		tells(d, left, k, wire.Info{})
	}
	d.plan.Stored(0)
	d.plan.Stored(1)
	if d.fillUp(); len(left) != 0 {
		t.Fatalf("%d were let go although nobody is spare", len(left))
	}
	tells(d, left, degree, wire.Info{}) // finds no room
	if len(left) != 1 {
		t.Fatalf("%d are spare, want one", len(left))
	}
	for range 3 { // within less than WeakEvery
		d.fillUp()
	}
	if _, others, _ := d.joined(); others[within] != degree-1 || len(left) != 2 {
		t.Fatalf("%d members are left, %d were let go; want %d and 2", others, len(left), degree-1)
	}
	if len(d.search.met) != 1 || d.search.met[0].Peer != peer.ID(fmt.Sprint(degree)) {
		t.Fatalf("%v are asked, want the one that was spare", d.search.met)
	}
	if d.search.better(within) {
		t.Error("who had to make way is better than others")
	}
	d.search.recall(sides{2, 0}) // one is coming back
	if len(d.search.met) != 2 {
		t.Errorf("%d are asked although there is nobody else", len(d.search.met))
	}
}

// A member that failed is left alone for a while: to let it go for want of room
// would bring it back at once.
func TestWhoFailedIsNotSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, left := crowded(t, 500, false)
		degree := d.x.limits.degrees.Degree
		for k := range degree + 1 {
			tells(d, left, k, wire.Info{})
		}
		failed := d.sources["0"]
		d.leave(failed)
		tells(d, left, degree, wire.Info{}) // the spare one, which was asked again
		if volunteers, others, _ := d.joined(); volunteers+sum(others) != degree {
			t.Fatalf("%d members", volunteers+sum(others))
		}
		tells(d, left, 0, wire.Info{})
		if d.sources["0"] != failed {
			t.Error("the one that failed is let go")
		}
		time.Sleep(leftFor) //nolint:forbidigo // within a bubble nobody waits
		tells(d, left, 0, wire.Info{})
		if d.sources["0"] != nil || left["0"] != 1 {
			t.Error("later there is no room for it, and it is kept")
		}
	})
}

// watchers lets n members follow what d fills.
func watchers(d *driver, n int) (all []*follower, refused int) {
	for k := range n {
		f := &follower{
			all: d.x.followers, holder: Holder{Peer: peer.ID(fmt.Sprint(k))},
			woken: make(chan struct{}, 1), watches: map[uint32]*watch{},
		}
		all = append(all, f)
		w := &watch{by: f, id: 1, blob: d.want.Digest, size: d.want.Size}
		crowds := d.x.crowding(d.want.Digest)
		d.x.followers.mu.Lock()
		full := d.x.followers.full(w, crowds)
		if !full {
			f.watches[1] = w
			if d.x.followers.blobs[w.blob] == nil {
				d.x.followers.blobs[w.blob] = map[*watch]struct{}{}
			}
			d.x.followers.blobs[w.blob][w] = struct{}{}
		} else {
			refused++
		}
		d.x.followers.mu.Unlock()
	}
	return all, refused
}

// A fill has few followers, so that who comes late finds room only at others
// that came late. Among volunteers there is room, and in small swarms.
func TestFollowersOfAFillAreFew(t *testing.T) {
	g := plan.DefaultDegrees()
	for name, c := range map[string]struct {
		others  int
		keen    bool
		refused int
	}{
		"large":                    {500, false, 60 - g.Followers},
		"small":                    {g.Volunteers - 1, false, 0},
		"a volunteer cannot tell":  {500, true, 0},
		"a volunteer, small swarm": {g.Volunteers - 1, true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d, left := crowded(t, c.others, c.keen)
			if _, refused := watchers(d, 60); refused != c.refused {
				t.Errorf("%d of 60 are refused, want %d", refused, c.refused)
			}
			if !c.keen || c.others < g.Volunteers {
				return
			}
			// Now it hears who volunteers; the rest keep to the bound.
			for k := range 60 {
				tells(d, left, k, wire.Info{Volunteer: k < 20})
			}
			keep := 20 + g.Followers
			if n := len(d.x.followers.of(d.want.Digest)); n != keep {
				t.Errorf("%d followers, want 20 volunteers and %d others", n, g.Followers)
			}
		})
	}
}

// Those who followed before a fill began find out that there is no room.
func TestFollowersFromBeforeAreTrimmed(t *testing.T) {
	d, _ := crowded(t, 500, false)
	delete(d.x.drivers, d.key)
	all, refused := watchers(d, 30)
	if refused != 0 {
		t.Errorf("%d are refused while there is nothing to tell", refused)
	}
	d.x.drivers[d.key] = d
	d.x.limits.degrees.Volunteers = 0 // this is none
	d.volunteer(t.Context())
	if n := len(d.x.followers.of(d.want.Digest)); n != d.x.limits.degrees.Followers {
		t.Errorf("%d followers are left", n)
	}
	told := 0
	for _, f := range all {
		told += len(f.refused)
	}
	if told != 30-d.x.limits.degrees.Followers {
		t.Errorf("%d are told that there is no room", told)
	}
}

// A crowd in which each knows few ends, and shares what the origin gave.
func TestCrowdOfFewNeighbours(t *testing.T) {
	data := content(1, 24*mib)
	reg := newRegistry(t, origintest.Options{}, data)
	members := newMesh(t).crowd(10)
	for _, m := range members {
		m.limits.degrees = plan.Degrees{Volunteers: 3, Fewest: 1, Degree: 3, VolunteerDegree: 9, Followers: 4}
	}
	warm(members)
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(func() {
			if got, err := m.pull(reg.d, reg.src); err != nil || len(got) != len(data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	wg.Wait()
	if gave := reg.gave(); gave > 10*int64(len(data))/2 {
		t.Errorf("the origin gave %d bytes", gave)
	}
}
