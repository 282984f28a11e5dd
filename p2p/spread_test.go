package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"shoal/blobcache/statement"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
)

// obedient is a node that notes what it was told to forget.
type obedient struct {
	*Node
	mu     sync.Mutex
	images []string
}

func (o *obedient) obeyed() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.images)
}

// counted is how many statements had that result.
func (o *obedient) counted(result string) float64 {
	return testutil.ToFloat64(o.metrics.statements.WithLabelValues(result))
}

// startObedient runs a node that trusts those keys.
func startObedient(t *testing.T, o Options, trusted ...statement.Key) *obedient {
	t.Helper()
	node := &obedient{}
	o.TrustedKeys = trusted
	o.Obey = func(i statement.Invalidation) {
		node.mu.Lock()
		defer node.mu.Unlock()
		node.images = append(node.images, i.Image)
	}
	node.Node, _ = start(t, o)
	return node
}

// startChain runs three nodes of which the first and the last cannot reach each
// other, as in the middle of the rotation of a key: one has the old key, one the
// new one, and the one between them both.
func startChain(t *testing.T, trusted ...[]statement.Key) [3]*obedient {
	t.Helper()
	older, newer := swarmkey.New(), swarmkey.New()
	_, line, _ := strings.Cut(string(newer.Text()), "\n")
	both, err := swarmkey.Parse(append(older.Text(), line...))
	if err != nil {
		t.Fatal(err)
	}
	middle := startObedient(t, testOptions(t, both), trusted[1]...)
	first := startObedient(t, testOptions(t, older, middle.Node), trusted[0]...)
	last := startObedient(t, testOptions(t, newer, middle.Node), trusted[2]...)
	eventually(t, "no chain", func() bool { return first.Peers() == 1 && middle.Peers() == 2 && last.Peers() == 1 })
	return [3]*obedient{first, middle, last}
}

func invalidate(t *testing.T, s *statement.Signer, image string, at time.Time) []byte {
	t.Helper()
	i, err := s.Invalidate(image, at)
	if err != nil {
		t.Fatal(err)
	}
	return i.Marshal()
}

// TestSpread: a statement goes through a chain, and each obeys it once.
func TestSpread(t *testing.T) {
	signer := statement.GenerateSigner()
	mine := []statement.Key{statement.GenerateSigner().Key(), signer.Key()}
	chain := startChain(t, mine, mine, mine)
	for i, from := range []int{0, 2, 1} {
		image := fmt.Sprint("docker.io/library/app:v", i)
		told, err := chain[from].Spread(t.Context(), invalidate(t, signer, image, time.Now()))
		if want := []int{1, 2, 1}[from]; told != want || err != nil {
			t.Errorf("told %d, want %d: %v", told, want, err)
		}
		for j, n := range chain {
			if j != from {
				eventually(t, "not everybody obeys", func() bool { return slices.Contains(n.obeyed(), image) })
			}
		}
	}
	for i, n := range chain {
		if got := n.obeyed(); len(got) != 2 {
			t.Errorf("node %d obeyed %q", i, got)
		}
	}
}

// TestWhoObeys: those that trust the key, also behind one that does not.
func TestWhoObeys(t *testing.T) {
	signer := statement.GenerateSigner()
	yes, no := []statement.Key{signer.Key()}, []statement.Key{statement.GenerateSigner().Key()}
	chain := startChain(t, yes, no, yes)
	body := invalidate(t, signer, "docker.io/library/app", time.Now())
	if _, err := chain[1].Spread(t.Context(), body); !errors.Is(err, ErrUntrusted) {
		t.Errorf("who does not trust the key begins it: %v", err)
	}
	if _, err := chain[0].Spread(t.Context(), body); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last does not obey", func() bool { return len(chain[2].obeyed()) == 1 })
	if got := chain[1].obeyed(); len(got) > 0 || chain[1].counted("ignored") != 1 {
		t.Errorf("who does not trust the key obeys %q", got)
	}
	if _, err := chain[0].Spread(t.Context(), body); !errors.Is(err, ErrKnown) {
		t.Errorf("once more: %v", err)
	}
}

// push has a member push something, and returns when it was taken or refused.
func push(t *testing.T, from host.Host, to *Node, b []byte) error {
	t.Helper()
	s, err := from.NewStream(t.Context(), to.ID(), pushProtocol)
	if err != nil {
		return err
	}
	defer func() { _ = s.Reset() }()
	_, _ = s.Write(b)
	_ = s.CloseWrite()
	_ = s.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err = s.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
		err = nil
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		t.Errorf("a push hangs: %v", err)
	}
	return err
}

// connectedRaw returns a member that speaks only what the test makes it speak.
func connectedRaw(t *testing.T, key *swarmkey.Key, to *Node) host.Host {
	t.Helper()
	h := rawMember(t, key)
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return h
}

// TestHostilePushes: nothing that a member makes up, alters, keeps for later or
// says again is obeyed, and what is right still is.
func TestHostilePushes(t *testing.T) {
	key, signer := swarmkey.New(), statement.GenerateSigner()
	n := startObedient(t, testOptions(t, key), signer.Key())
	bad := connectedRaw(t, key, n.Node)
	now := time.Now()
	good := invalidate(t, signer, "docker.io/library/app:v1", now)
	framed := func(body []byte) []byte { return wire.AppendPush(nil, wire.PushInvalidation, body) }
	pushes := map[string][]byte{
		"nothing":         nil,
		"half a head":     {0, 0},
		"half a body":     framed(good)[:40],
		"four GiB":        {0xff, 0xff, 0xff, 0xff, 1},
		"no statement":    framed(nil),
		"garbage":         framed([]byte("\x00\xff garbage")),
		"expired":         framed(invalidate(t, signer, "docker.io/library/app:old", now.Add(-statement.Validity-statement.Skew-time.Minute))),
		"not yet":         framed(invalidate(t, signer, "docker.io/library/app:new", now.Add(statement.Skew+time.Minute))),
		"another key":     framed(invalidate(t, statement.GenerateSigner(), "docker.io/library/app:his", now)),
		"a newer version": framed(append([]byte{2}, good[1:]...)),
		"cut":             framed(good[:len(good)-1]),
	}
	for i := range good {
		altered := bytes.Clone(good)
		altered[i] ^= 1
		pushes[fmt.Sprint("altered at ", i)] = framed(altered)
	}
	for name, b := range pushes {
		n.spreader.meters.Remove(bad.ID()) // how often it may is another test's
		_ = push(t, bad, n.Node, b)
		if got := n.obeyed(); len(got) > 0 {
			t.Fatalf("%s: obeyed %q", name, got)
		}
	}
	for range 5 {
		if err := push(t, bad, n.Node, framed(good)); err != nil {
			t.Errorf("what is right, by whomever it comes: %v", err)
		}
	}
	if got := n.obeyed(); len(got) != 1 || n.counted("obeyed") != 1 {
		t.Errorf("obeyed %q", got)
	}
}

// TestNoPushSaysWhatATagIs: of all that a member can push without being asked,
// only two kinds are looked at. One makes a node forget, not believe; the other
// counts only if a trusted key has signed it (lease_test.go).
func TestNoPushSaysWhatATagIs(t *testing.T) {
	key, signer := swarmkey.New(), statement.GenerateSigner()
	n := startObedient(t, testOptions(t, key), signer.Key())
	member := connectedRaw(t, key, n.Node)
	said := invalidate(t, signer, "docker.io/library/app:v1", time.Now())
	for kind := range 256 {
		if k := wire.PushKind(kind); k == wire.PushInvalidation || k == wire.PushLease {
			continue
		}
		n.spreader.meters.Remove(member.ID())
		if err := push(t, member, n.Node, wire.AppendPush(nil, wire.PushKind(kind), said)); err != nil {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
	if got := n.obeyed(); len(got) > 0 {
		t.Errorf("obeyed %q", got)
	}
}

// TestPushesAreMetered: a member that pushes without end is refused, and others
// are not.
func TestPushesAreMetered(t *testing.T) {
	key, signer := swarmkey.New(), statement.GenerateSigner()
	n := startObedient(t, testOptions(t, key), signer.Key())
	greedy, modest := connectedRaw(t, key, n.Node), connectedRaw(t, key, n.Node)
	empty := wire.AppendPush(nil, 0, nil)
	refused := 0
	for range memberBurst + 100 {
		if push(t, greedy, n.Node, empty) != nil {
			refused++
		}
	}
	if refused == 0 || n.counted("refused") == 0 {
		t.Errorf("%d of %d were refused", refused, memberBurst+100)
	}
	if err := push(t, modest, n.Node, empty); err != nil {
		t.Errorf("another member: %v", err)
	}
}

// TestStrangersAreRarelyPassedOn: keys are cheap, so what nobody trusts must
// not make the swarm work; what is trusted goes past it.
func TestStrangersAreRarelyPassedOn(t *testing.T) {
	signer := statement.GenerateSigner()
	yes := []statement.Key{signer.Key()}
	chain := startChain(t, yes, yes, yes)
	const many = 5 * strangersBurst
	for range many {
		_, err := chain[0].Spread(t.Context(), invalidate(t, statement.GenerateSigner(), "docker.io/library/app", time.Now()))
		if !errors.Is(err, ErrUntrusted) {
			t.Fatal(err)
		}
		body := invalidate(t, statement.GenerateSigner(), "docker.io/library/app", time.Now())
		if !chain[0].spreader.push(t.Context(), chain[1].ID(), wire.AppendPush(nil, wire.PushInvalidation, body)) {
			t.Fatal("not taken")
		}
	}
	if _, err := chain[0].Spread(t.Context(), invalidate(t, signer, "docker.io/library/app", time.Now())); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what is trusted is not passed on", func() bool { return len(chain[2].obeyed()) == 1 })
	if first, last := chain[1].counted("ignored"), chain[2].counted("ignored"); first != many || last > strangersBurst+1 {
		t.Errorf("of %v strangers %v were passed on", first, last)
	}
}
