package seeder

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// rulesOf compiles a selection.
func rulesOf(t *testing.T, s Selection) rules {
	t.Helper()
	if s.Name == "" {
		s.Name = "x"
	}
	r, err := s.compile()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestChoose(t *testing.T) {
	tags := []string{"latest", "1.9.1", "1.27", "1.27.3", "1.27.3-alpine", "1.27.10", "1.27.10-alpine", "v2.0.0", "2.1.0-rc.1", "1.25.0", "stable", "1.27", "edge-alpine"}
	for name, c := range map[string]struct {
		s       Selection
		want    string
		leftOut map[string]int
	}{
		"a pattern":        {Selection{Images: []string{"r.io/app:1.2*"}}, "1.25.0 1.27 1.27.10 1.27.10-alpine 1.27.3 1.27.3-alpine", nil},
		"any tag":          {Selection{Images: []string{"r.io/app:*alpine"}}, "1.27.10-alpine 1.27.3-alpine edge-alpine", nil},
		"nothing":          {Selection{Images: []string{"r.io/app:9*"}}, "", nil},
		"a range":          {Selection{Images: []string{"r.io/app"}, Versions: ">=1.25 <2"}, "1.27.10 1.27.3 1.27 1.25.0", map[string]int{"no version": 3, "not in the range of versions": 5}},
		"the newest":       {Selection{Images: []string{"r.io/app"}, Newest: 2}, "v2.0.0 1.27.10", map[string]int{"no version": 3, "not in the range of versions": 3, "older than the newest": 4}},
		"before a release": {Selection{Images: []string{"r.io/app"}, Versions: ">=2.0.0-0", Newest: 1}, "2.1.0-rc.1", map[string]int{"no version": 3, "not in the range of versions": 8, "older than the newest": 1}},
		"of a variant":     {Selection{Images: []string{"r.io/app:*-alpine"}, Newest: 1}, "1.27.10-alpine", map[string]int{"no version": 1, "older than the newest": 1}},
		"a range of tags":  {Selection{Images: []string{"r.io/app:1.27.[0-9]*"}, Newest: 5}, "1.27.10 1.27.3", map[string]int{"not in the range of versions": 2}},
	} {
		r := rulesOf(t, c.s)
		got := r.choose(r.patterns[0], tags)
		if strings.Join(got.tags, " ") != c.want || !maps.Equal(got.leftOut, c.leftOut) {
			t.Errorf("%s: %q, left out %v; want %q, %v", name, got.tags, got.leftOut, c.want, c.leftOut)
		}
	}
}

func TestPatterns(t *testing.T) {
	for s, want := range map[string]pattern{
		"docker.io/library/nginx":      {"docker.io", "library/nginx", "latest", ""},
		"docker.io/library/nginx:1.2*": {"docker.io", "library/nginx", "1.2*", ""},
		"LOCALHOST:5000/a":             {"localhost:5000", "a", "latest", ""},
		"ghcr.io/org/*:v[12]":          {"ghcr.io", "org/*", "v[12]", ""},
		"ghcr.io/a/b@sha256:00":        {"ghcr.io", "a/b", "", "sha256:00"},
	} {
		if got, err := parsePattern(s, "latest"); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, bad := range []string{
		"", "nginx", "library/nginx", "*.io/a", "docker.io/", "docker.io/a:", "docker.io/a@", "docker.io/a[:v1", "docker.io/a:[", "docker.io/*@sha256:00", "docker.io/a b",
		"docker.io/" + strings.Repeat("a", maxPattern),
	} {
		if got, err := parsePattern(bad, "latest"); err == nil || strings.Contains(err.Error(), "\n") || len(err.Error()) > 300 {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
	p := pattern{repository: "team/*"}
	for name, want := range map[string]bool{"team/app": true, "team/app/db": false, "team": false, "steam/app": false} {
		if p.covers(name) != want {
			t.Errorf("team/* covers %s: %v", name, !want)
		}
	}
}

func TestBadSelections(t *testing.T) {
	good := Selection{Name: "x", Images: []string{"r.io/a"}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(s *Selection){
		"no name of a selection":   func(s *Selection) { s.Name = "a b" },
		"names no images":          func(s *Selection) { s.Images = nil },
		"use at most 1000":         func(s *Selection) { s.Images = slices.Repeat(s.Images, maxPatterns+1) },
		"no range of versions":     func(s *Selection) { s.Versions = "new" },
		"keep one of them":         func(s *Selection) { s.Schedule, s.Every = "@daily", time.Hour },
		"no schedule, which":       func(s *Selection) { s.TimeZone = "UTC" },
		"no schedule: use minute":  func(s *Selection) { s.Schedule = "at three" },
		"no time zone of this":     func(s *Selection) { s.Schedule, s.TimeZone = "@daily", "Middle/Earth" },
		"looks every 1s: use 1m0s": func(s *Selection) { s.Every = time.Second },
		"follows every 1s: use 5s": func(s *Selection) { s.Follow = time.Second },
		"is no platform":           func(s *Selection) { s.Platforms = []string{"amd64"} },
	} {
		s := good
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	if err := (Config{Webhook: Webhook{Listen: ":1"}}).Check(); err == nil {
		t.Error("a webhook without a secret passes")
	}
}

func TestNext(t *testing.T) {
	at := func(s string) time.Time {
		t.Helper()
		if s == "" {
			return time.Time{}
		}
		when, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	const began = "2026-03-28T12:00:00Z"
	for name, c := range map[string]struct {
		s          Selection
		last, want string
	}{
		"once":                     {Selection{}, "", began},
		"and no more":              {Selection{}, began, ""},
		"at the start":             {Selection{Every: time.Hour}, "", began},
		"an hour later":            {Selection{Every: time.Hour}, "2026-03-28T13:00:01Z", "2026-03-28T14:00:01Z"},
		"at three":                 {Selection{Schedule: "0 3 * * *"}, "", "2026-03-29T03:00:00Z"},
		"at three in Berlin":       {Selection{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"}, "", "2026-03-29T01:00:00Z"}, // summer begins
		"and the day after":        {Selection{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"}, "2026-03-27T02:00:00Z", "2026-03-28T02:00:00Z"},
		"an hour that is not":      {Selection{Schedule: "30 2 * * *", TimeZone: "Europe/Berlin"}, "", "2026-03-30T00:30:00Z"},
		"on the first":             {Selection{Schedule: "@monthly"}, "", "2026-04-01T00:00:00Z"},
		"while it ran it was late": {Selection{Schedule: "*/5 * * * *"}, "2026-03-28T12:01:00Z", "2026-03-28T12:05:00Z"},
	} {
		c.s.Images = []string{"r.io/a"}
		if got := rulesOf(t, c.s).next(at(began), at(c.last)); !got.Equal(at(c.want)) {
			t.Errorf("%s: %v, want %s", name, got.UTC(), c.want)
		}
	}
}

func TestParseNotification(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []Event
		bad  bool
	}{
		"distribution": {body: `{"events":[
			{"id":"1","action":"push","target":{"mediaType":"application/vnd.docker.distribution.manifest.v2+json","digest":"sha256:00","repository":"team/app","tag":"v1"},"request":{"host":"r:5000"}},
			{"action":"push","target":{"repository":"team/app","digest":"sha256:00"}},
			{"action":"pull","target":{"repository":"team/app","tag":"v1"}},
			{"action":"delete","target":{"repository":"team/app","tag":"v0"}}]}`, want: []Event{{"team/app", "v1"}}},
		"Harbor": {body: `{"type":"PUSH_ARTIFACT","occur_at":1586922308,"operator":"admin","event_data":{"resources":[
			{"digest":"sha256:00","tag":"latest","resource_url":"hub.example/team/app:latest"},{"digest":"sha256:01"}],
			"repository":{"name":"app","namespace":"team","repo_full_name":"team/app","repo_type":"private"}}}`, want: []Event{{"team/app", "latest"}}},
		"Harbor's other": {body: `{"type":"DELETE_ARTIFACT","event_data":{"resources":[{"tag":"v1"}],"repository":{"repo_full_name":"a"}}}`},
		"none":           {body: `{"events":[]}`},
		"another":        {body: `{"hello":"world"}`, bad: true},
		"a list":         {body: `[]`, bad: true},
		"text":           {body: `push`, bad: true},
	} {
		got, err := ParseNotification([]byte(c.body))
		if (err != nil) != c.bad || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func FuzzParseNotification(f *testing.F) {
	f.Add([]byte(`{"events":[{"action":"push","target":{"repository":"a","tag":"b"}}]}`))
	f.Add([]byte(`{"type":"PUSH_ARTIFACT","event_data":{"resources":[{"tag":"b"}],"repository":{"repo_full_name":"a"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		events, err := ParseNotification(body)
		for _, e := range events {
			if err != nil || e.Repository == "" || e.Tag == "" {
				t.Errorf("%+v, %v", e, err)
			}
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add("docker.io/library/nginx:1.2*", "1.27.3")
	f.Add("localhost:5000/a/*@sha256:00", "v1")
	f.Fuzz(func(t *testing.T, s, tag string) {
		r, err := Selection{Name: "x", Images: []string{s}, Newest: 1}.compile()
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		p := r.patterns[0]
		if c := r.choose(p, []string{tag, tag}); len(c.tags) > 1 {
			t.Errorf("%q of one", c.tags)
		}
		p.covers(tag)
	})
}
