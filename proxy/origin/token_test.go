package origin_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/origin/origintest"
)

const (
	blob401 = "GET blob D -> 401"
	blob200 = "GET blob D -> 200"
	token   = "GET token -> 200"
)

func TestTokens(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{Service: "the registry", Expires: 100 * time.Second}})
		d := r.AddBlob("lib/x", []byte(data))
		r.AddBlob("lib/y", []byte(data))
		c := w.client(origin.Options{Registries: origin.Registries{"r": {Upstreams: []string{"http://u.test"}}}})
		pull := func(name string, want ...string) {
			t.Helper()
			r.ResetStats()
			if _, _, err := read(t.Context(), w.of(c, "r", name).Blobs(), d, whole); err != nil {
				t.Fatal(err)
			}
			wantLines(t, r, d.Digest.String(), want...)
		}
		pull("lib/x", blob401, token, blob200)
		q := r.Requests()
		if got, want := q[1].Query, "scope=repository%3Alib%2Fx%3Apull&service=the+registry"; got != want {
			t.Errorf("token was asked for with %q, want %q", got, want)
		}
		if q[0].Auth != "" || q[1].Auth != "" || q[2].Auth != "Bearer token-1" {
			t.Errorf("credentials: %q, %q, %q", q[0].Auth, q[1].Auth, q[2].Auth)
		}
		pull("lib/x", blob200)
		pull("lib/y", blob401, token, blob200) // of another scope
		w.pass(89 * time.Second)
		pull("lib/x", blob200)
		w.pass(2 * time.Second) // a tenth before it expires
		pull("lib/x", token, blob200)
		if got, want := r.Requests()[0].Query, "scope=repository%3Alib%2Fx%3Apull&service=the+registry"; got != want {
			t.Errorf("the next token was asked for with %q, want %q", got, want)
		}
		r.RevokeTokens()
		pull("lib/x", blob401, token, blob200)
		if strings.Contains(w.log.String(), "token-") {
			t.Errorf("a token is in the log:\n%s", w.log.String())
		}
	})
}

func TestATokenIsFetchedOnceForAll(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}, Latency: time.Second})
		d := r.AddBlob("lib/x", []byte(data))
		src := w.repository("u.test").Blobs()
		hasty, leave := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer leave()
		var all sync.WaitGroup
		all.Go(func() {
			if _, _, err := read(hasty, src, d, whole); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one who leaves: %v", err)
			}
		})
		w.pass(time.Millisecond) // so that it is the first
		for range 50 {
			all.Go(func() {
				if _, _, err := read(t.Context(), src, d, whole); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := r.Stats().Requests["GET token"]; n != 1 {
			t.Errorf("%d tokens were fetched", n)
		}
	})
}

func TestTokenFaults(t *testing.T) {
	answer := func(body string) origintest.Effect { return origintest.Body([]byte(body)) }
	tests := []struct {
		name   string
		effect origintest.Effect
		err    error
		took   time.Duration
	}{
		{name: "denied", effect: origintest.Status(403), err: blob.ErrDenied},
		{name: "unauthorized", effect: origintest.Status(401), err: blob.ErrDenied},
		{name: "silence", effect: origintest.Silence(), err: blob.ErrStalled, took: 5 * time.Second},
		{name: "silence in the body", effect: origintest.SilenceAfter(3), err: blob.ErrStalled, took: 5 * time.Second},
		{name: "trickle", effect: origintest.Trickle(1, time.Second), err: blob.ErrStalled, took: 5 * time.Second},
		{name: "not found", effect: origintest.Status(404), err: blob.ErrUnavailable},
		{name: "redirect", effect: origintest.Redirect("http://u.test/token"), err: blob.ErrUnavailable},
		{name: "web page", effect: origintest.HTML(), err: blob.ErrUnavailable},
		{name: "no token", effect: answer(`{}`), err: blob.ErrUnavailable},
		{name: "line break", effect: answer(`{"token":"sesame\r\nX: y"}`), err: blob.ErrUnavailable},
		{name: "broken", effect: answer(`{"token":"sesame`), err: blob.ErrUnavailable},
		{name: "a number", effect: answer(`{"token":5,"x":"sesame"}`), err: blob.ErrUnavailable},
		{name: "endless", effect: answer(`{"token":"` + strings.Repeat("sesame", 20_000) + `"}`), err: blob.ErrUnavailable},
		{name: "padded", effect: answer(`{"token":"sesame"}` + strings.Repeat(" ", 70_000)), err: blob.ErrUnavailable},
		{name: "wrong", effect: answer(`{"token":"sesame"}`), err: blob.ErrDenied},
		{name: "access_token", effect: answer(`{"access_token":"sesame"}`), err: blob.ErrDenied},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
				d := r.AddBlob("lib/x", []byte(data))
				r.Fault(origintest.Fault{Kind: origintest.Token, Effect: tt.effect})
				begin := time.Now()
				_, _, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole)
				took := time.Since(begin)
				if !errors.Is(err, tt.err) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if tt.took != 0 && took != tt.took || took > 5*time.Second {
					t.Errorf("took %v, want %v", took, tt.took)
				}
				if strings.Contains(err.Error()+w.log.String(), "sesame") {
					t.Errorf("the token is told on: %v\n%s", err, w.log.String())
				}
				var resp *origin.ResponseError
				if denied := errors.Is(err, blob.ErrDenied); errors.As(err, &resp) != denied || denied && (resp.Status != 401 || len(resp.Challenge) != 1) {
					t.Errorf("error %#v", resp)
				}
			})
		})
	}
}

func TestATokenEndpointThatHiccupsIsAskedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		t := w.t
		r := w.registry("u.test:80", origintest.Options{Auth: &origintest.TokenAuth{}})
		d := r.AddBlob("lib/x", []byte(data))
		r.Fault(origintest.Fault{Kind: origintest.Token, Times: 1, Effect: origintest.Drop()})
		if _, _, err := read(t.Context(), w.repository("u.test").Blobs(), d, whole); err != nil {
			t.Error(err)
		}
	})
}

func TestHostileChallenges(t *testing.T) {
	tests := []struct {
		name, challenge string
		unlisted        bool
		follows         bool
	}{
		{name: "https", challenge: `Bearer realm="https://auth.pub.com/token"`, follows: true},
		{name: "https, unlisted", challenge: `Bearer realm="https://auth.pub.com/token"`, unlisted: true, follows: true},
		{name: "in clear", challenge: `Bearer realm="http://auth.pub.com/token"`},
		{name: "userinfo", challenge: `Bearer realm="https://me@auth.pub.com/token"`},
		{name: "a file", challenge: `Bearer realm="file:///etc/passwd"`},
		{name: "no realm", challenge: `Bearer service="x"`},
		{name: "basic", challenge: `Basic realm="x"`},
		{name: "private", challenge: `Bearer realm="https://10.0.0.1/token"`, unlisted: true},
		{name: "loopback", challenge: `Bearer realm="https://localhost/token"`, unlisted: true},
		{name: "odd port", challenge: `Bearer realm="https://auth.pub.com:8443/token"`, unlisted: true},
		{name: "a private address", challenge: `Bearer realm="https://inside.pub.com/token"`, unlisted: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				t := w.t
				r := w.secure("reg.pub.com", "8.8.8.8", origintest.Options{})
				inside := w.secure("inside.pub.com", "10.0.0.1", origintest.Options{})
				a := w.secure("auth.pub.com", "8.8.4.4", origintest.Options{Auth: &origintest.TokenAuth{}})
				d := r.AddBlob("lib/x", []byte(data))
				r.Fault(origintest.Fault{Times: 1, Effect: origintest.Challenge(tt.challenge)})
				o := origin.Options{Registries: origin.Registries{"reg.pub.com": {Upstreams: []string{"https://reg.pub.com"}}}}
				if tt.unlisted {
					o = origin.Options{}
				}
				_, _, err := read(t.Context(), w.of(w.client(o), "reg.pub.com", "lib/x").Blobs(), d, whole)
				synctest.Wait()
				if tt.follows != (err == nil) || tt.follows != (len(a.Requests()) == 1) {
					t.Errorf("error %v; %d tokens asked for", err, len(a.Requests()))
				}
				if !tt.follows && !errors.Is(err, blob.ErrDenied) && !errors.Is(err, origin.ErrRegistryRefused) {
					t.Errorf("error %v", err)
				}
				if len(inside.Requests()) != 0 {
					t.Error("a private host was asked")
				}
			})
		})
	}
}
