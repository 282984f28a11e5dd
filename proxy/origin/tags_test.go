package origin

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"shoal/blobcache/blob"
)

func TestParseTagAge(t *testing.T) {
	for in, want := range map[string]TagAge{
		"*:v*=24h":                {"*:v*", 24 * time.Hour},
		"library/*:latest=0s":     {"library/*:latest", 0},
		"team/app:[0-9]*=1h30m":   {"team/app:[0-9]*", 90 * time.Minute},
		"a:?=8760h":               {"a:?", maxTagAge},
		"*:*=1ns":                 {"*:*", 1},
		"team/*/web:stable-*=90s": {"team/*/web:stable-*", 90 * time.Second},
	} {
		if got, err := ParseTagAge(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{
		"", "*:v*", "=1h", "*=1h", ":v*=1h", "*:=1h", "*:v*=", "*:v*=24", "*:v*=-1s", "*:v*=8761h", "*:[=1h", "[:v*=1h", "/a:b=1h", "a/:b=1h", "a:b/c=1h", "a:b=1h=2h",
	} {
		if got, err := ParseTagAge(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		}
	}
}

// The first pattern that covers a tag counts, and none is always to ask.
func TestTagAges(t *testing.T) {
	var ages []TagAge
	for _, s := range []string{"*:latest=0s", "library/nginx:1.*=1m", "*:1.?=1h", "team:*=2h"} {
		a, err := ParseTagAge(s)
		if err != nil {
			t.Fatal(err)
		}
		ages = append(ages, a)
	}
	c, err := New(Options{Registries: Registries{"a.example": {MaxAge: ages, StaleIfError: time.Hour}, "b.example": {StaleIfError: -1}, DockerHub: {}}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, q := range []struct {
		registry, name, tag string
		maxAge, stale       time.Duration
	}{
		{"a.example", "library/nginx", "latest", 0, time.Hour},
		{"a.example", "library/nginx", "1.27", time.Minute, time.Hour},
		{"a.example", "library/nginx", "1.2", time.Minute, time.Hour},
		{"a.example", "library/redis", "1.2", time.Hour, time.Hour},
		{"a.example", "library/redis", "1.27", 0, time.Hour},
		{"a.example", "team/app/web", "x", 2 * time.Hour, time.Hour},
		{"a.example", "teams/app", "x", 0, time.Hour},
		{"b.example", "library/nginx", "1.2", 0, 0},
		{DockerHub, "library/nginx", "1.2", 0, DefaultStaleIfError},
		{"other.example", "library/nginx", "1.2", 0, DefaultStaleIfError},
	} {
		r, err := c.Repository(q.registry, q.name)
		if err != nil {
			t.Fatal(err)
		}
		if maxAge, stale := r.TagAges(q.tag); maxAge != q.maxAge || stale != q.stale {
			t.Errorf("%s:%s: %v and %v, want %v and %v", r, q.tag, maxAge, stale, q.maxAge, q.stale)
		}
	}
	for _, bad := range []TagAge{{"*", time.Hour}, {"*:v*", -1}, {"*:v*", maxTagAge + 1}} {
		if err := (Registry{MaxAge: []TagAge{bad}}).Check(); err == nil {
			t.Errorf("%+v passes", bad)
		}
	}
}

// When leases count is the operator's to say, and never where only the registry
// knows for whom an answer is.
func TestTagLeases(t *testing.T) {
	c, err := New(Options{Registries: Registries{
		"a.example": {TagLeases: LeasesPrefer}, "b.example": {TagLeases: LeasesOff}, "c.example": {}, "d.example": {Access: AccessClient}, DockerHub: {Access: AccessClient, TagLeases: LeasesOff},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for registry, want := range map[string]string{
		"a.example": LeasesPrefer, "b.example": LeasesOff, "c.example": LeasesOutage, "d.example": LeasesOff, DockerHub: LeasesOff, "other.example": LeasesOutage,
	} {
		r, err := c.Repository(registry, "library/nginx")
		if err != nil {
			t.Fatal(err)
		}
		if got := r.TagLeases(); got != want {
			t.Errorf("%s: %s, want %s", registry, got, want)
		}
	}
	if err := (Registry{TagLeases: "always"}).Check(); err == nil {
		t.Error("another word passes")
	}
}

func TestOutage(t *testing.T) {
	up := &upstream{}
	status := func(code int) error {
		return fmt.Errorf("asking: %w", &ResponseError{Status: code, Err: statusError(code)})
	}
	for _, down := range []error{
		status(500), status(502), status(503), status(504), status(429), status(408),
		fmt.Errorf("%w: connection refused", blob.ErrUnavailable), fmt.Errorf("%w: no headers", blob.ErrStalled), context.DeadlineExceeded,
	} {
		if !Outage(down) {
			t.Errorf("no outage: %v", down)
		}
	}
	for _, answer := range []error{
		nil, status(400), status(401), status(403), status(404), status(406), status(410), status(451), ErrRegistryRefused, ErrRepositoryRefused, context.Canceled,
		lie(up, blob.ErrCorrupt, "x"), blob.ErrTooLarge, errors.New("something else"),
	} {
		if Outage(answer) {
			t.Errorf("an outage: %v", answer)
		}
	}
}

// FuzzParseTagAge: what is accepted is within its bounds, reads the same again,
// and covers what it says without a panic.
func FuzzParseTagAge(f *testing.F) {
	f.Add("*:v*=24h", "library/nginx", "v1")
	f.Add("team/[a-c]?:[^x]=1s", "team/ab", "y")
	f.Add("a:b:c=1h", "a", "c")
	f.Fuzz(func(t *testing.T, text, name, tag string) {
		a, err := ParseTagAge(text)
		if err != nil {
			return
		}
		if again, err := ParseTagAge(a.Pattern + "=" + a.Age.String()); err != nil || again != a || a.Age < 0 || a.Age > maxTagAge {
			t.Errorf("%q: %+v, then %+v, %v", text, a, again, err)
		}
		if repository, tags := a.split(); a.covers(name, tag) && (repository == "" || tags == "") {
			t.Errorf("%q covers %s:%s", text, name, tag)
		}
	})
}
