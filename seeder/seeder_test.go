package seeder

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
)

// Tags is of Lister.
func (w *world) Tags(_ context.Context, repository_ string) ([]string, error) {
	if err := w.lookup("tags " + repository_); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var tags []string
	for name := range w.manifests {
		if tag, ok := strings.CutPrefix(name, repository_+":"); ok {
			tags = append(tags, tag)
		}
	}
	return tags, nil
}

// Repositories is of Lister.
func (w *world) Repositories(_ context.Context, registry string) ([]string, error) {
	if err := w.lookup("catalog " + registry); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for name := range w.manifests {
		if name, ok := strings.CutPrefix(repository(name), registry+"/"); ok && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all, nil
}

// forget returns what was asked since the last time, sorted.
func (w *world) forget() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := slices.Sorted(slices.Values(w.asked))
	w.asked = nil
	return strings.Join(asked, "\n")
}

// seed runs a seeder in a synctest bubble.
func seed(t *testing.T, o Options, c Config, test func(t *testing.T, w *world, s *Seeder)) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		t.Helper()
		s, stop := w.seeder(t, o, c)
		defer stop()
		test(t, w, s)
	})
}

// bubble is one of synctest with the images that selections of the tests have.
func bubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, tag := range []string{"v1.0.0", "v1.1.0", "edge"} {
			w.add("r.io/team/app:"+tag, "config", "layer of "+tag)
		}
		w.add("r.io/other/db:v9.0.0", "config")
		test(t, w)
	})
}

// seeder starts a seeder, until it is stopped.
func (w *world) seeder(t *testing.T, o Options, c Config) (s *Seeder, stop func()) {
	t.Helper()
	o.Mirror, o.Lister, o.Cache = w, w, w.cache
	if c, ok := o.Swarm.(*crowd); ok {
		c.world = w
	}
	s, err := New(o, c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	synctest.Wait()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// pass lets time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestSeederLooksAndFollows(t *testing.T) {
	c := Config{Selections: []Selection{{Name: "team", Images: []string{"r.io/team/*:*"}, Versions: ">=1", Every: time.Hour, Follow: time.Minute}}}
	seed(t, Options{}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		r := s.Report().Selections[0]
		if len(r.Runs) != 1 || r.Runs[0].Why != ByStart || r.Runs[0].Fetched != 2 || r.Runs[0].LeftOut["no version"] != 1 || r.Next.Sub(r.Runs[0].Began) != time.Hour {
			t.Errorf("after the start: %+v", r)
		}
		w.forget()
		pass(time.Minute)
		if got := w.forget(); got != "r.io/team/app:v1.0.0\nr.io/team/app:v1.1.0" {
			t.Errorf("nothing is new: asked\n%s", got)
		}
		if r := s.Report().Selections[0]; len(r.Runs) != 1 || r.Followed.IsZero() {
			t.Errorf("a look at what is not new is told: %+v", r)
		}
		w.add("r.io/team/app:v1.0.0", "config", "a new layer")
		w.add("r.io/team/app:v1.2.0", "config", "the newest layer")
		pass(time.Minute)
		if r := s.Report().Selections[0].Runs[0]; r.Why != ByFollow || r.Fetched != 1 || r.Unchanged != 1 || r.Bytes != int64(len("a new layer")) {
			t.Errorf("a tag has moved: %+v", r)
		}
		pass(time.Hour)
		if r := s.Report().Selections[0].Runs[0]; r.Why != BySchedule || r.Fetched != 1 || r.Unchanged != 2 {
			t.Errorf("a tag has come: %+v", r)
		}
	})
}

// What cannot be listed stays as it was chosen, and what fails is told.
func TestSeederFails(t *testing.T) {
	c := Config{Selections: []Selection{{Name: "team", Images: []string{"r.io/team/*:v*"}, Every: time.Hour}}}
	seed(t, Options{}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.setFail("catalog r.io", fmt.Errorf("%w: it does not tell", blob.ErrDenied))
		w.setFail("r.io/team/app:v1.0.0", fmt.Errorf("%w: it has gone", blob.ErrNotFound))
		pass(time.Hour)
		r := s.Report().Selections[0].Runs[0]
		if r.Chosen != 2 || r.Failed != 1 || r.Unchanged != 1 || len(r.Errors) != 1 || !strings.HasPrefix(r.Errors[0], "the repositories of r.io: denied") {
			t.Errorf("%+v", r)
		}
		if len(r.Images) != 1 || r.Images[0].Error != "not found: it has gone" {
			t.Errorf("%+v", r.Images)
		}
	})
}

func TestSeederIsNotified(t *testing.T) {
	c := Config{Selections: []Selection{{Name: "team", Images: []string{"r.io/team/*:*"}, Newest: 1}, {Name: "one", Images: []string{"r.io/other/db:v9.0.0"}}}}
	seed(t, Options{}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.forget()
		w.add("r.io/team/app:v2.0.0", "config", "two")
		if n := s.Notify([]Event{{"team/app", "v2.0.0"}, {"team/app", "edge"}, {"stranger/app", "v1"}, {"other/db", "v8"}}); n != 2 {
			t.Errorf("%d taken", n)
		}
		if synctest.Wait(); w.forget() != "" {
			t.Error("asked before the registry's last answer was too old")
		}
		pass(settle)
		// edge is not the newest version, and is not fetched.
		if got := w.forget(); strings.Contains(got, "edge") || strings.Contains(got, "other") || !strings.Contains(got, "r.io/team/app:v2.0.0") {
			t.Errorf("asked\n%s", got)
		}
		if r := s.Report().Selections[1].Runs[0]; r.Why != ByNotification || r.Fetched != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// What a selection was is over before what it is now begins: they write the same
// file.
func TestSelectionEndsBeforeTheNext(t *testing.T) {
	of := func(image string) Config {
		return Config{Selections: []Selection{{Name: "one", Images: []string{image}}}}
	}
	seed(t, Options{}, of(v100), func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.answers.Store(int64(10 * time.Second))
		if err := s.Look("one"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		w.forget()
		if err := s.Apply(of(v110)); err != nil {
			t.Fatal(err)
		}
		if pass(9 * time.Second); w.forget() != "" {
			t.Error("the next asks while an answer is awaited")
		}
		if pass(time.Second); w.forget() != v110 {
			t.Error("the next does not ask")
		}
	})
}

func TestSeederApplies(t *testing.T) {
	keep := Selection{Name: "keep", Images: []string{"r.io/other/db:v9.0.0"}, Every: time.Hour}
	c := Config{Selections: []Selection{keep, {Name: "drop", Images: []string{"r.io/team/app:edge"}}}}
	seed(t, Options{Platforms: []string{"all"}}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.forget()
		if err := s.Apply(Config{Selections: []Selection{{Name: "bad"}}}); err == nil {
			t.Error("a selection of nothing passes")
		}
		if synctest.Wait(); len(s.Report().Selections) != 2 || w.forget() != "" {
			t.Error("what is wrong changes something")
		}
		if err := s.Apply(Config{Selections: []Selection{{Name: "new", Images: []string{"r.io/team/app:v1.0.0"}}, keep}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r := s.Report().Selections
		if len(r) != 2 || r[0].Name != "keep" || len(r[0].Runs) != 1 || r[1].Name != "new" {
			t.Errorf("%+v", r)
		}
		if got := w.forget(); strings.Contains(got, "other/db") || !strings.Contains(got, "team/app") {
			t.Errorf("a selection that stays the same was looked at again:\n%s", got)
		}
		if s.Look("drop") == nil || s.Look("keep") != nil {
			t.Error("look at what is gone, or not at what is there")
		}
		if synctest.Wait(); s.Report().Selections[0].Runs[0].Why != ByOperator {
			t.Error("not looked at")
		}
	})
}

// While a runtime waits nothing new begins, for a while; a rate spreads layers.
func TestSeederHoldsBack(t *testing.T) {
	c := Config{Rate: 10, Selections: []Selection{{Name: "team", Images: []string{"r.io/team/app:v1.0.0"}}}}
	var busy atomic.Bool
	busy.Store(true)
	seed(t, Options{Busy: busy.Load}, c, func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		start := time.Now()
		if pass(busyWait - time.Second); s.Report().Selections[0].Running == nil {
			t.Fatal("it did not hold back")
		}
		busy.Store(false)
		pass(time.Second)
		if r := s.Report().Selections[0].Running; r == nil || r.Images[0].State != Fetching {
			t.Errorf("22 bytes at 10 a second: %+v", r)
		}
		pass(3 * time.Second)
		if r := s.Report().Selections[0]; len(r.Runs) != 1 || r.Runs[0].Ended.Sub(start) < busyWait-time.Second {
			t.Errorf("%+v", r)
		}
	})
}

func TestReceiver(t *testing.T) {
	const secret = "0123456789abcdef"
	c := Config{Selections: []Selection{{Name: "one", Images: []string{"r.io/other/db:v9.0.0"}}}}
	seed(t, Options{}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.forget()
		const push = `{"events":[{"action":"push","target":{"repository":"other/db","tag":"v9.0.0"}}]}`
		for _, tt := range []struct {
			authorization, body string
			want                int
		}{
			{"", push, 401},
			{"Bearer ", push, 401},
			{"Bearer " + secret[:15], push, 401},
			{secret + "x", push, 401},
			{"Basic " + secret, push, 401},
			{secret, "text", 400},
			{secret, strings.Repeat(" ", maxNotification+1), 413},
		} {
			req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(tt.body))
			req.Header.Set("Authorization", tt.authorization)
			rec := httptest.NewRecorder()
			s.Receiver(secret).ServeHTTP(rec, req)
			if rec.Code != tt.want {
				t.Errorf("%q, %.20q: %d, want %d", tt.authorization, tt.body, rec.Code, tt.want)
			}
		}
		if pass(settle); w.forget() != "" {
			t.Error("something was fetched")
		}
		for _, told := range []string{secret, "Bearer " + secret, "bearer " + secret} {
			req := httptest.NewRequest(http.MethodPost, "/any/path", strings.NewReader(push))
			req.Header.Set("Authorization", told)
			rec := httptest.NewRecorder()
			s.Receiver(secret).ServeHTTP(rec, req)
			pass(settle)
			if asked := w.forget(); rec.Code != http.StatusAccepted || asked != "r.io/other/db:v9.0.0" {
				t.Errorf("%q: %d, asked %q", told, rec.Code, asked)
			}
		}
	})
}
