package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"shoal/blobcache/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const lease = 5 * time.Minute

// clock is a time that stands until it is moved.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func place(repository, content string) Place {
	return Place{"r.example/" + repository, digest.FromString(content)}
}

func yes(context.Context) error { return nil }
func no(context.Context) error  { return fmt.Errorf("r.example: %w", blob.ErrDenied) }

func TestPermit(t *testing.T) {
	c := &clock{time.Unix(1000, 0)}
	b := New(c.now)
	alice, bob, nobody := b.Who("Bearer a"), b.Who("Bearer b"), b.Who("")
	app, base, other := place("team/app", "app"), place("team/app", "base"), place("team/else", "app")
	b.Refer(alice, app.Repository, lease, base.Digest)
	for _, step := range []struct {
		name string
		pass time.Duration
		who  Who
		what Place
		ask  func(context.Context) error
		want Verdict
	}{
		{"unknown", 0, alice, app, no, Refused},
		{"refusals are not kept", 0, alice, app, yes, Granted},
		{"leased", 0, alice, app, no, Leased},
		{"named by a manifest", 0, alice, base, no, Leased},
		{"other token", 0, bob, app, no, Refused},
		{"no token", 0, nobody, app, no, Refused},
		{"other repository", 0, alice, other, no, Refused},
		{"an instant before the end", lease - 1, alice, app, no, Leased},
		{"the end", 1, alice, app, no, Refused},
		{"the end of what was named", 0, alice, base, no, Refused},
		{"no answer", 0, alice, app, func(context.Context) error { return blob.ErrStalled }, Failed},
		{"not there", 0, alice, app, func(context.Context) error { return blob.ErrNotFound }, Refused},
		{"again", 0, alice, app, yes, Granted},
		{"a clock that is set back", -time.Hour, alice, app, no, Leased},
	} {
		c.t = c.t.Add(step.pass)
		got, err := b.Permit(t.Context(), step.who, step.what, lease, step.ask)
		if permitted := step.want == Leased || step.want == Granted; got != step.want || permitted != (err == nil) {
			t.Errorf("%s: %s, %v; want %s", step.name, got, err, step.want)
		}
	}
	if !b.Confirmed(app) || b.Confirmed(base) || b.Confirmed(other) {
		t.Error("not what the registry said is confirmed")
	}
}

// Many ask at the same moment: the registry is asked once, and it goes on for
// the others when the first one leaves.
func TestAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(time.Now)
		who, p := b.Who("Bearer a"), place("team/app", "app")
		var asked atomic.Int32
		ask := func(ctx context.Context) error {
			asked.Add(1)
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		first, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if v, err := b.Permit(first, who, p, lease, ask); v != Failed || !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %s, %v", v, err)
			}
		})
		synctest.Wait()
		for range 100 {
			wg.Go(func() {
				if v, err := b.Permit(t.Context(), who, p, lease, ask); v != Granted || err != nil {
					t.Errorf("%s, %v", v, err)
				}
			})
		}
		synctest.Wait()
		leave()
		wg.Wait()
		if n := asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestAQuestionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(time.Now)
		start := time.Now()
		_, err := b.Permit(t.Context(), b.Who(""), place("a", "b"), lease, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if took := time.Since(start); err == nil || took != patience {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestTheBooksAreBounded(t *testing.T) {
	b := New(time.Now)
	who := b.Who("Bearer a")
	for i := range maxLeases + 10 {
		b.Grant(who, place("team/app", fmt.Sprint(i)), lease)
	}
	if b.leases.Len() != maxLeases || b.places.Len() != maxPlaces {
		t.Errorf("%d leases, %d places", b.leases.Len(), b.places.Len())
	}
	if b.Leased(who, place("team/app", "0")) || !b.Leased(who, place("team/app", fmt.Sprint(maxLeases))) {
		t.Error("not the oldest went")
	}
}

func TestTokensAreNotKept(t *testing.T) {
	const token = "Bearer s3cret"
	b, other := New(time.Now), New(time.Now)
	if b.Who(token) == other.Who(token) || b.Who(token) == b.Who("") {
		t.Error("a hash of a token can be made without the secret")
	}
	b.Grant(b.Who(token), place("team/app", "app"), lease)
	if text := fmt.Sprintf("%+v %s", b.leases.Keys(), b.places.Keys()); strings.Contains(text, "s3cret") {
		t.Error(text)
	}
}
