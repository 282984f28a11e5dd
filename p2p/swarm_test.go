package p2p

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/blobcache/blob"
	"shoal/p2p/exchange"
	"shoal/p2p/swarmkey"
)

// silence listens and never says a word, like a stopped process or a host
// behind a firewall that drops packets.
func silence(t *testing.T) ma.Multiaddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))
}

// knows reports how many of the nodes have a record of their own that holder
// has the blob.
func knows(t *testing.T, nodes []*Node, holder *Node, d digest.Digest) int {
	t.Helper()
	count := 0
	for _, n := range nodes {
		infos, err := n.dht.ProviderStore().GetProviders(t.Context(), n.s.Key.CID(d).Hash())
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			if info.ID == holder.ID() {
				count++
			}
		}
	}
	return count
}

func TestStrangersCannotConnect(t *testing.T) {
	inside, _ := start(t, testOptions(t, swarmkey.New()))
	for name, key := range map[string]*swarmkey.Key{"another key": swarmkey.New(), "no key": nil} {
		t.Run(name, func(t *testing.T) {
			outside, _ := start(t, testOptions(t, key, inside))
			<-outside.JoinTried()
			if outside.Joined() || inside.Joined() {
				t.Error("a stranger is in the swarm")
			}
			// On the piece channel neither, though its address leaks.
			c, err := outside.channel.Dial(t.Context(), inside.ID(), inside.pieces.Addr().String())
			if err == nil {
				_ = c.Close()
				t.Error("a stranger is on the piece channel")
			}
		})
	}
}

// TestRotation: in the middle of one, half of the members use the old key and
// half the new one; all meet, and find what the others announce.
func TestRotation(t *testing.T) {
	older, newer := swarmkey.New(), swarmkey.New()
	both := func(first, second *swarmkey.Key) *swarmkey.Key {
		_, rest, _ := strings.Cut(string(second.Text()), "\n")
		k, err := swarmkey.Parse([]byte(string(first.Text()) + rest))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	a, _ := start(t, testOptions(t, both(older, newer)))
	b, _ := start(t, testOptions(t, both(newer, older), a))
	<-b.JoinTried()
	da, db := digest.FromString("of a"), digest.FromString("of b")
	for n, d := range map[*Node]digest.Digest{a: da, b: db} {
		if err := n.Provide(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a does not find b", func() bool {
		found := holders(t, a, db)
		return len(found) == 1 && found[0].Peer == b.ID()
	})
	eventually(t, "b does not find a", func() bool {
		found := holders(t, b, da)
		return len(found) == 1 && found[0].Peer == a.ID()
	})
}

func TestKeylessNodesMeet(t *testing.T) {
	a, _ := start(t, testOptions(t, nil))
	b, _ := start(t, testOptions(t, nil, a))
	<-b.JoinTried()
	if !b.Joined() {
		t.Error("two nodes on one machine do not meet")
	}
}

func TestTwentyNodes(t *testing.T) {
	key := swarmkey.New()
	first, _ := start(t, testOptions(t, key))
	nodes := []*Node{first}
	for range 19 {
		n, _ := start(t, testOptions(t, key, first))
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		<-n.JoinTried()
	}
	blobs := make(map[int]digest.Digest)
	for i := 0; i < len(nodes); i += 4 {
		blobs[i] = put(t, nodes[i].s.Cache, fmt.Sprint("blob of node ", i))
	}
	for i, d := range blobs {
		seeker := nodes[(i+7)%len(nodes)]
		eventually(t, fmt.Sprintf("node %d's blob is not found", i), func() bool {
			found := holders(t, seeker, d)
			return len(found) == 1 && found[0].Peer == nodes[i].ID() && len(found[0].Pieces) == 1
		})
	}
}

// TestNewBlobIsFoundAtOnce: from the commit to the record at another node,
// without waiting for the periodic announcements.
func TestNewBlobIsFoundAtOnce(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	b, _ := start(t, testOptions(t, key, a))
	<-b.JoinTried()
	before := testutil.ToFloat64(b.metrics.provides.WithLabelValues("ok"))
	d := put(t, b.s.Cache, "fresh")
	eventually(t, "not announced", func() bool { return knows(t, []*Node{a}, b, d) == 1 })
	if testutil.ToFloat64(b.metrics.provides.WithLabelValues("ok")) != before+1 {
		t.Error("the announcement did not go out on its own")
	}
}

// TestBlobsOfALonelyNode: what was announced to nobody reaches those who come.
func TestBlobsOfALonelyNode(t *testing.T) {
	key := swarmkey.New()
	o := testOptions(t, key)
	var blobs []digest.Digest
	for i := range 40 {
		blobs = append(blobs, put(t, o.Cache, fmt.Sprint("old ", i)))
	}
	lonely, _ := start(t, o)
	eventually(t, "nothing announced", func() bool { return lonely.announcer.count() == len(blobs) })
	blobs = append(blobs, put(t, lonely.s.Cache, "new, and nobody there"))
	eventually(t, "alone", func() bool {
		return testutil.ToFloat64(lonely.metrics.provides.WithLabelValues("alone")) == 1
	})
	// The first to come is told everything, ...
	first, _ := start(t, testOptions(t, key, lonely))
	others := []*Node{first}
	for _, d := range blobs {
		eventually(t, "the first to come was not told", func() bool { return knows(t, others, lonely, d) == 1 })
	}
	// ... and as the swarm grows, at least half of it.
	for range 7 {
		n, _ := start(t, testOptions(t, key, lonely))
		others = append(others, n)
	}
	for _, d := range blobs {
		eventually(t, "a blob of the lonely node is known to few", func() bool {
			return knows(t, others, lonely, d) >= len(others)/2
		})
	}
}

func TestGrown(t *testing.T) {
	// A routing table holds a small swarm whole, and 20 more members for each
	// doubling of a large one.
	for _, c := range []struct {
		told, size int
		want       bool
	}{
		{0, 1, true},
		{1, 1, false},
		{1, 2, true},
		{6, 8, false},
		{6, 12, true},
		{19, 37, false},
		{19, 38, true},
		{20, 39, false},
		{20, 40, true},
		{100, 119, false},
		{100, 120, true},
		{100, 50, false},
	} {
		if got := grown(c.told, c.size); got != c.want {
			t.Errorf("from %d to %d: %v", c.told, c.size, got)
		}
	}
}

// TestNewBlobsWaitForFills: a new blob is announced when fills are over, or soon,
// and at once where members would not ask this node by themselves.
func TestNewBlobsWaitForFills(t *testing.T) {
	for name, c := range map[string]struct {
		since            time.Duration
		fills, connected int
		now              bool
	}{
		"a fill runs":          {0, 1, 5, false},
		"it runs for long":     {announceLatest - time.Second, 1, 5, false},
		"it runs for too long": {announceLatest, 1, 5, true},
		"nothing runs":         {0, 0, 5, true},
		"all are asked":        {0, 1, exchange.MaxNear, false},
		"not all are asked":    {0, 1, exchange.MaxNear + 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := New(testOptions(t, swarmkey.New()))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = n.Close() }()
			an := newAnnouncer(n)
			an.add(true, digest.FromString("new"))
			later := time.Now().Add(c.since)
			if names, _ := an.take(later, c.fills, c.connected); len(an.all()) != 1 || len(names) == 1 != c.now {
				t.Errorf("%d of %d are announced now", len(names), len(an.all()))
			}
			if names, _ := an.take(later, 0, c.connected); len(names) == 1 == c.now {
				t.Errorf("%d are announced when fills are over", len(names))
			}
		})
	}
}

// silentOrigin never answers.
type silentOrigin struct{}

func (silentOrigin) Open(ctx context.Context, _ blob.Descriptor, _ blob.Range) (*blob.Stream, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestNewBlobsWaitForFillsOfOthers: who is done first leaves the processors to
// those that still fill what it has.
func TestNewBlobsWaitForFillsOfOthers(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	b, stop := start(t, testOptions(t, key, a))
	<-b.JoinTried()
	go b.Fetch(t.Context(), blob.Descriptor{Digest: digest.FromString("slow"), Size: 4}, silentOrigin{}) //nolint:errcheck // it ends with b
	eventually(t, "b does not follow", func() bool { return a.exchange.Followed() == 1 })
	put(t, a.s.Cache, "new")
	eventually(t, "not known", func() bool { return a.announcer.count() == 1 })
	if names, _ := a.announcer.due(time.Now()); len(names) > 0 || !a.announcer.holds() {
		t.Error("announced while a member fills")
	}
	stop()
	eventually(t, "not announced", func() bool { return !a.announcer.holds() })
}

func TestEvictedBlobsAreNotRenewed(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	o := testOptions(t, key, a)
	n, _ := start(t, o)
	eventually(t, "no member", func() bool { return n.dht.RoutingTable().Size() > 0 })
	bulk, err := newRenewal(t.Context(), n, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer bulk.close()
	renewed := func() int {
		size, err := bulk.keys.Size(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return size
	}
	an := newAnnouncer(n)
	update := func() {
		fresh, gone := an.take(time.Now(), 0, 1)
		if err := bulk.update(t.Context(), 1, fresh, gone, an.all); err != nil {
			t.Fatal(err)
		}
	}
	d, other := digest.FromString("evicted"), digest.FromString("kept")
	an.add(true, d, other)
	update()
	if renewed() != 2 {
		t.Fatalf("%d renewed, want 2", renewed())
	}
	an.remove(d)
	update()
	if renewed() != 1 {
		t.Errorf("%d renewed after an eviction, want 1", renewed())
	}
	// Evicted and fetched again between two rounds: it is here.
	an.remove(other)
	an.add(true, other)
	update()
	if renewed() != 1 {
		t.Errorf("%d renewed after a blob went and came, want 1", renewed())
	}
}

// TestAnnouncerFollowsTheCache: a budget of two blobs makes the third push out
// the first.
func TestAnnouncerFollowsTheCache(t *testing.T) {
	o := testOptions(t, swarmkey.New())
	cache := budgetCache(t, 20)
	o.Cache = cache
	put(t, cache, "0123456789")
	n, _ := start(t, o)
	eventually(t, "not announced", func() bool { return n.announcer.count() == 1 })
	put(t, cache, "abcdefghij")
	eventually(t, "not announced", func() bool { return n.announcer.count() == 2 })
	third := put(t, cache, "ABCDEFGHIJ")
	eventually(t, "the evicted one is still announced", func() bool {
		n.announcer.mu.Lock()
		defer n.announcer.mu.Unlock()
		_, ok := n.announcer.names[third]
		return ok && len(n.announcer.names) == 2
	})
}

// TestDeadHolderDelaysNobody: the record of a dead member leads to an address
// that swallows everything.
func TestDeadHolderDelaysNobody(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	alive, _ := start(t, testOptions(t, key, a))
	o := testOptions(t, key, a)
	o.Announce = []ma.Multiaddr{silence(t)}
	dead, stop := start(t, o)
	<-alive.JoinTried()
	<-dead.JoinTried()
	d := digest.FromString("wanted")
	for _, n := range []*Node{alive, dead} {
		if err := n.Provide(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	// The DHT does not acknowledge: a record may be lost with its connection.
	for _, n := range []*Node{alive, dead} {
		eventually(t, "no record", func() bool { return knows(t, []*Node{a}, n, d) == 1 })
	}
	stop()
	seeker, _ := start(t, testOptions(t, key, a))
	<-seeker.JoinTried()
	failed := func() float64 { return testutil.ToFloat64(seeker.metrics.dials.WithLabelValues("error")) }
	var found []peer.ID
	for h := range seeker.Holders(t.Context(), d) {
		found = append(found, h.Peer)
		if failed() != 0 {
			t.Error("the living holder came after the dead one had been given up")
		}
	}
	if len(found) != 1 || found[0] != alive.ID() {
		t.Fatalf("found %v, want %v", found, alive.ID())
	}
	if failed() != 1 {
		t.Fatalf("%v holders failed, want 1", failed())
	}
	// It is left alone for a while.
	if again := holders(t, seeker, d); len(again) != 1 || failed() != 1 {
		t.Errorf("found %v, %v failures", again, failed())
	}
}

// TestDialThatWasGivenUp, by the caller, says nothing about the holder.
func TestDialThatWasGivenUp(t *testing.T) {
	n, _ := start(t, testOptions(t, swarmkey.New()))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		cancel() // in the middle of the handshake
		accepted <- c
	}()
	silent := peer.AddrInfo{ID: randomID(t), Addrs: addrs(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port))}
	if _, err := n.reach(ctx, silent); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if testutil.ToFloat64(n.metrics.dials.WithLabelValues("error")) != 0 || n.avoid.Holds(silent.ID, time.Now()) {
		t.Error("it counts against the holder")
	}
	(<-accepted).Close()
}

// TestMembersThatJoinEachOther must not wait for one another.
func TestMembersThatJoinEachOther(t *testing.T) {
	key := swarmkey.New()
	var nodes [3]*Node
	for i := range nodes {
		n, err := New(testOptions(t, key))
		if err != nil {
			t.Fatal(err)
		}
		nodes[i] = n
	}
	for i, n := range nodes { // their addresses are known only now
		for k, other := range nodes {
			if k != i {
				n.s.join = append(n.s.join, peer.AddrInfo{ID: other.ID(), Addrs: other.host.Addrs()})
			}
		}
		n.joiner = newJoiner(n)
	}
	for _, n := range nodes {
		run(t, n)
	}
	for i, n := range nodes {
		<-n.JoinTried()
		eventually(t, fmt.Sprintf("node %d misses one", i), func() bool { return n.Peers() == 2 })
	}
}

// TestUnreachableMember: a node is ready within 3 s though the member that it
// was told to join does not answer.
func TestUnreachableMember(t *testing.T) {
	o := testOptions(t, swarmkey.New())
	o.Join = []ma.Multiaddr{silence(t).Encapsulate(ma.StringCast("/p2p/" + randomID(t).String()))}
	n, _ := start(t, o)
	deadline := time.After(10 * time.Second) // 3, and the rest for a busy machine
	select {
	case <-n.JoinTried():
	case <-deadline:
		t.Error("still waiting for a member that does not answer")
	}
	if n.Joined() {
		t.Error("joined nobody")
	}
}

// TestReadyToLookUp: a node that has joined finds what its member knows, with
// its first question.
func TestReadyToLookUp(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	d := digest.FromString("wanted")
	if err := a.Provide(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		b, _ := start(t, testOptions(t, key, a))
		<-b.JoinTried()
		if found := holders(t, b, d); len(found) != 1 || found[0].Peer != a.ID() {
			t.Fatalf("found %v", found)
		}
	}
}

// TestMemberThatBootsLater is tried again soon: a fleet boots in any order.
// libp2p by itself makes the second attempt after 5 s, the third after 10.
func TestMemberThatBootsLater(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	attempts := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
			attempts <- struct{}{}
		}
	}()
	addr := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d/p2p/%s", l.Addr().(*net.TCPAddr).Port, randomID(t))
	o := testOptions(t, swarmkey.New())
	o.Join = addrs(addr)
	start(t, o)
	eventually(t, "not tried four times", func() bool { return len(attempts) >= 4 })
}

func TestNobodyToJoin(t *testing.T) {
	n, _ := start(t, testOptions(t, swarmkey.New()))
	<-n.JoinTried()
}

// TestMemberThatComesBack: as another process, with another piece channel.
func TestMemberThatComesBack(t *testing.T) {
	key := swarmkey.New()
	o := testOptions(t, key)
	first, stop := start(t, o)
	o.Swarm = first.host.Addrs()
	n, _ := start(t, testOptions(t, key, first))
	<-n.JoinTried()
	piecesOf := func() string {
		h, _ := n.greeter.get(first.ID())
		return fmt.Sprint(h.Pieces)
	}
	eventually(t, "no hello", func() bool { return piecesOf() == fmt.Sprint(first.pieceAddrs()) })
	stop()
	eventually(t, "still connected", func() bool { return !n.Joined() && piecesOf() == "[]" })
	// The DHT would dial it again, too: now only the joiner knows where it is.
	n.host.Peerstore().ClearAddrs(first.ID())
	second, _ := start(t, o)
	eventually(t, "not joined again", n.Joined)
	eventually(t, "no new hello", func() bool { return piecesOf() == fmt.Sprint(second.pieceAddrs()) })
}

// TestNodeThatEndsBeforeItJoined: nothing waits for a try that is not made.
func TestNodeThatEndsBeforeItJoined(t *testing.T) {
	key := swarmkey.New()
	first, _ := start(t, testOptions(t, key))
	n, err := New(testOptions(t, key, first))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = n.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j := newJoiner(n)
	ended := make(chan struct{})
	go func() { defer close(ended); j.run(ctx) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for what it never tried")
	}
}

func TestCallsAfterTheEnd(t *testing.T) {
	n, stop := start(t, testOptions(t, swarmkey.New()))
	stop()
	d := digest.FromString("x")
	if err := n.Provide(t.Context(), d); !errors.Is(err, ErrClosed) {
		t.Errorf("provide: %v", err)
	}
	if found := holders(t, n, d); found != nil {
		t.Errorf("found %v", found)
	}
}

// TestNodeThatNeverRan: everything that New opened is released by Close;
// goleak watches.
func TestNodeThatNeverRan(t *testing.T) {
	n, err := New(testOptions(t, swarmkey.New()))
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", n.pieces.Addr().String()); err == nil {
		t.Error("the piece channel still listens")
	}
}

// TestNamesInTheDHT: what members store for each other tells no digest.
func TestNamesInTheDHT(t *testing.T) {
	key := swarmkey.New()
	a, _ := start(t, testOptions(t, key))
	b, _ := start(t, testOptions(t, key, a))
	<-b.JoinTried()
	d := put(t, b.s.Cache, "secret image")
	eventually(t, "not announced", func() bool { return knows(t, []*Node{a}, b, d) == 1 })
	plain, err := a.dht.ProviderStore().GetProviders(t.Context(), swarmkey.Loopback().CID(d).Hash())
	if err != nil || len(plain) > 0 {
		t.Errorf("found under a name that anybody can compute: %v %v", plain, err)
	}
}
