package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/statement"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"
)

// worker is a node that notes what it was ordered to fetch, and says "begun", then
// "done" when it is let go on.
type worker struct {
	*Node
	goOn chan struct{}

	mu     sync.Mutex
	images []string
}

func (w *worker) ordered() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.images)
}

func startWorker(t *testing.T, o Options, trusted ...statement.Key) *worker {
	t.Helper()
	w := &worker{goOn: make(chan struct{})}
	o.TrustedKeys = trusted
	o.Preheat = func(ctx context.Context, said statement.Preheat, tell func([]byte)) {
		w.mu.Lock()
		w.images = append(w.images, said.Image)
		w.mu.Unlock()
		tell([]byte("begun"))
		select {
		case <-w.goOn:
			tell([]byte("done"))
		case <-ctx.Done():
		}
	}
	w.Node, _ = start(t, o)
	return w
}

func preheat(t *testing.T, s *statement.Signer, image, to string, at time.Time) []byte {
	t.Helper()
	p, err := s.Preheat(statement.Preheat{Image: image, To: to}, at)
	if err != nil {
		t.Fatal(err)
	}
	return p.Marshal()
}

// heard is what was told last of each, or its error.
type heard struct {
	mu  sync.Mutex
	all map[peer.ID]Heard
}

func (h *heard) hear(what Heard) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[what.Peer] = what
}

func (h *heard) of(n *worker) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	what := h.all[n.ID()]
	if what.Error != nil {
		return what.Error.Error()
	}
	return string(what.Told)
}

// startWorkers runs three that know each other: the last trusts nobody, and is in
// another zone.
func startWorkers(t *testing.T, trusted statement.Key) [3]*worker {
	t.Helper()
	key := swarmkey.New()
	first := startWorker(t, testOptions(t, key), trusted)
	second := startWorker(t, testOptions(t, key, first.Node), trusted)
	o := testOptions(t, key, first.Node, second.Node)
	o.Zone = "other"
	third := startWorker(t, o)
	all := [3]*worker{first, second, third}
	for _, w := range all {
		eventually(t, "no swarm", func() bool {
			m := w.Members()
			return len(m) == 2 && (w == third || (m[0].Zone == "other") != (m[1].Zone == "other"))
		})
	}
	return all
}

func TestPreheat(t *testing.T) {
	signer := statement.GenerateSigner()
	w := startWorkers(t, signer.Key())
	h := &heard{all: map[peer.ID]Heard{}}
	body := preheat(t, signer, "r.io/app:v1", statement.ToAll, time.Now())
	ended := make(chan error, 1)
	go func() { ended <- w[0].Preheat(t.Context(), body, h.hear) }()
	eventually(t, "they do not begin", func() bool { return h.of(w[0]) == "begun" && h.of(w[1]) == "begun" && h.of(w[2]) != "" })
	if got := h.of(w[2]); got != "it refuses: signed by a key that is not trusted here" || len(w[2].ordered()) > 0 {
		t.Errorf("who does not trust the key: %q", got)
	}
	if err := w[1].Preheat(t.Context(), body, h.hear); !errors.Is(err, ErrKnown) {
		t.Errorf("said again by another: %v", err)
	}
	close(w[1].goOn)
	close(w[0].goOn)
	if err := <-ended; err != nil || h.of(w[0]) != "done" || h.of(w[1]) != "done" {
		t.Errorf("%v, %q, %q", err, h.of(w[0]), h.of(w[1]))
	}
	if len(w[0].ordered()) != 1 || len(w[1].ordered()) != 1 {
		t.Errorf("%q, %q", w[0].ordered(), w[1].ordered())
	}
}

// Who is not meant is not asked, and who leaves does not end what was begun.
func TestPreheatOfSome(t *testing.T) {
	signer := statement.GenerateSigner()
	w := startWorkers(t, signer.Key())
	h := &heard{all: map[peer.ID]Heard{}}
	ctx, leave := context.WithCancel(t.Context())
	body := preheat(t, signer, "r.io/app:v1", statement.ToMembers(w[1].ID().String()), time.Now())
	ended := make(chan error, 1)
	go func() { ended <- w[0].Preheat(ctx, body, h.hear) }()
	eventually(t, "they do not begin", func() bool { return h.of(w[0]) == "begun" && h.of(w[1]) == "begun" })
	leave()
	if err := <-ended; !errors.Is(err, context.Canceled) || h.of(w[2]) != "" {
		t.Errorf("%v, %q", err, h.of(w[2]))
	}
	close(w[1].goOn)
	eventually(t, "it ends with who asked", func() bool {
		w[1].preheater.mu.Lock()
		defer w[1].preheater.mu.Unlock()
		return w[1].preheater.running == 0
	})
}

// TestOrder: one member does what it is ordered by a node that need not trust the
// key, and says how it ends; who does not trust it refuses.
func TestOrder(t *testing.T) {
	signer := statement.GenerateSigner()
	w := startWorkers(t, signer.Key())
	body := preheat(t, signer, "r.io/app:v1", statement.ToMembers(w[1].ID().String(), w[2].ID().String()), time.Now())
	close(w[1].goOn)
	var told string
	if err := w[2].Order(t.Context(), w[1].ID(), body, func(b []byte) { told = string(b) }); err != nil || told != "done" {
		t.Errorf("%v, %q", err, told)
	}
	if err := w[0].Order(t.Context(), w[2].ID(), body, func([]byte) {}); err == nil || !strings.Contains(err.Error(), "not trusted here") {
		t.Errorf("who does not trust the key: %v", err)
	}
	if n := len(w[0].ordered()) + len(w[2].ordered()); n > 0 || len(w[1].ordered()) != 1 {
		t.Errorf("others have begun: %d", n)
	}
}

// TestHostileOrders: what is no order of a trusted key, for this member and of now
// is refused, and so are too many of them.
func TestHostileOrders(t *testing.T) {
	signer := statement.GenerateSigner()
	w := startWorkers(t, signer.Key())
	bad, victim := w[2], w[1]
	now := time.Now()
	stranger := preheat(t, statement.GenerateSigner(), "r.io/app:v1", statement.ToAll, now)
	altered := preheat(t, signer, "r.io/app:v1", statement.ToAll, now)
	altered[len(altered)-100] ^= 1
	for want, body := range map[string][]byte{
		"not trusted here": stranger,
		"statement is":     preheat(t, signer, "r.io/app:v1", statement.ToAll, now.Add(-time.Hour)),
		"for others":       preheat(t, signer, "r.io/app:v1", statement.ToZone("other"), now),
		"not signed by":    altered,
		"malformed":        []byte("order"),
	} {
		err := bad.preheater.ask(t.Context(), victim.ID(), body, func([]byte) { t.Errorf("%s: it was told something", want) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if got := victim.ordered(); len(got) > 0 {
		t.Errorf("it obeys %q", got)
	}
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var asks sync.WaitGroup
	for i := range preheatsMost {
		body := preheat(t, signer, fmt.Sprintf("r.io/app:v%d", i), statement.ToAll, now)
		asks.Go(func() { _ = bad.preheater.ask(ctx, victim.ID(), body, func([]byte) {}) })
	}
	eventually(t, "they do not begin", func() bool { return len(victim.ordered()) == preheatsMost })
	more := preheat(t, signer, "r.io/app:more", statement.ToAll, now)
	if err := bad.preheater.ask(t.Context(), victim.ID(), more, func([]byte) {}); err == nil || !strings.Contains(err.Error(), "16 orders are being worked on") {
		t.Errorf("one more: %v", err)
	}
	leave()
	asks.Wait()
	close(victim.goOn)
}

// TestOrdersAreBounded: a preheat of any size fits what members take of a push.
func TestOrdersAreBounded(t *testing.T) {
	if statement.MaxPreheat > wire.MaxPush {
		t.Errorf("%d bytes, and a push has %d", statement.MaxPreheat, wire.MaxPush)
	}
}
