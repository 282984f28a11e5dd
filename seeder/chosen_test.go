package seeder

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const v100, v110 = "r.io/team/app:v1.0.0", "r.io/team/app:v1.1.0"

// choosing is a selection that needs lists of repositories and of tags.
func choosing(change func(*Selection)) Config {
	s := Selection{Name: "team", Images: []string{"r.io/team/*:v*"}, Platforms: []string{"all"}, Every: time.Hour}
	if change != nil {
		change(&s)
	}
	return Config{CheckEvery: time.Minute, Selections: []Selection{s}}
}

// away has the registry answer nothing, or again. Members have what they had.
func (w *world) away(err error) {
	for _, what := range []string{"catalog r.io", "tags r.io/team/app", v100, v110} {
		w.setFail(what, err)
	}
}

var errAway = fmt.Errorf("%w: no route to it", blob.ErrUnavailable)

// TestChoiceOutlivesTheNode: a seeder that starts while its registry is away knows
// what it had chosen, says of when that is, and has members hold it; what a list
// no longer names is gone then, also after a restart.
func TestChoiceOutlivesTheNode(t *testing.T) {
	o := Options{Chosen: filepath.Join(t.TempDir(), "seeder")}
	c := choosing(func(s *Selection) { s.MinHolders = 2 })
	bubble(t, func(t *testing.T, w *world) {
		t.Helper()
		o.Swarm = newCrowd("a/x")
		listed := time.Now().UTC().Format(time.RFC3339)
		_, stop := w.seeder(t, o, c)
		stop()

		w.away(errAway)
		pass(48 * time.Hour)
		crowd := newCrowd("b/x")
		o.Swarm = crowd
		s, stop := w.seeder(t, o, c)
		pass(2 * time.Minute)
		r := s.Report().Selections[0]
		want := "the repositories of r.io: unavailable: no route to it; images that stay chosen as of " + listed + ": 2"
		if len(r.Runs) != 1 || r.Runs[0].Chosen != 2 || len(r.Runs[0].Errors) != 1 || r.Runs[0].Errors[0] != want || r.Chosen != 2 || r.Listed.Format(time.RFC3339) != listed {
			t.Errorf("after a start without the registry: %+v, want %s", r, want)
		}
		ordered := strings.Join(crowd.ordered, "\n")
		if r.Holders == nil || r.Holders.Images != 2 || r.Holders.ShortImages != 0 || len(crowd.ordered) != 2 || !strings.Contains(ordered, "b r.io/team/app@"+w.manifests[v100].Digest.String()) {
			t.Errorf("members hold too little: %+v, ordered\n%s", r.Holders, ordered)
		}
		// It lists again, and says of no tag yet what it is.
		w.setFail("catalog r.io", nil)
		w.setFail("tags r.io/team/app", nil)
		pass(time.Hour)
		if r := s.Report().Selections[0]; len(r.Runs[0].Errors) != 0 || r.Runs[0].Failed != 2 || len(s.all()[0].digests()) != 2 {
			t.Errorf("with lists only: %+v", r)
		}
		// It is back, and has one less.
		w.away(nil)
		w.mu.Lock()
		delete(w.manifests, v110)
		w.mu.Unlock()
		pass(time.Hour)
		if r := s.Report().Selections[0]; r.Chosen != 1 || r.Runs[0].Chosen != 1 || len(r.Runs[0].Errors) != 0 || time.Since(r.Listed) > 2*time.Hour {
			t.Errorf("one has gone: %+v", r)
		}
		stop()
		w.away(errAway)
		s, stop = w.seeder(t, o, c)
		defer stop()
		pass(time.Minute)
		if r := s.Report().Selections[0]; r.Runs[0].Chosen != 1 || r.Holders == nil || r.Holders.Images != 1 {
			t.Errorf("one that has gone is chosen after a restart: %+v", r)
		}
	})
}

// TestChoiceIsOfItsSelection: what others came to does not count, and of what the
// selection came to before it was changed what it still asks for; when to look is no
// matter of what.
func TestChoiceIsOfItsSelection(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Selection)
		want   int
	}{
		{"another time", func(s *Selection) { s.Every, s.Follow, s.Platforms = 2*time.Hour, time.Minute, []string{"linux/amd64"} }, 2},
		{"fewer images", func(s *Selection) { s.Images = []string{"r.io/team/*:v1.1*"} }, 1},
		{"more images", func(s *Selection) { s.Images = []string{"r.io/*/*:*"} }, 2},
		{"other images", func(s *Selection) { s.Images = []string{"r.io/crew/*:v*"} }, 0},
		{"fewer versions", func(s *Selection) { s.Versions = "<1.1" }, 1},
		{"all versions", func(s *Selection) { s.Versions = ">=1" }, 2},
		{"fewer of each", func(s *Selection) { s.Newest = 1 }, 1},
		{"more of each", func(s *Selection) { s.Newest = 5 }, 2},
		{"another name", func(s *Selection) { s.Name = "tea" }, 0},
	} {
		bubble(t, func(t *testing.T, w *world) {
			t.Helper()
			o := Options{Chosen: t.TempDir()}
			s, stop := w.seeder(t, o, choosing(nil))
			w.away(errAway)
			if err := s.Apply(choosing(tt.change)); err != nil { // while it runs
				t.Fatal(err)
			}
			pass(time.Minute)
			if r := s.Report().Selections[0].Runs[0]; r.Chosen != tt.want || len(r.Errors) != 1 || strings.HasSuffix(r.Errors[0], "; none of it was chosen before") != (tt.want == 0) {
				t.Errorf("%s: %+v", tt.name, r)
			}
			stop()
			s, stop = w.seeder(t, o, choosing(tt.change))
			defer stop()
			pass(time.Minute)
			if r := s.Report().Selections[0].Runs[0]; r.Chosen != tt.want {
				t.Errorf("%s, after a restart: %+v", tt.name, r)
			}
			if files, err := os.ReadDir(o.Chosen); err != nil || len(files) != 1 {
				t.Errorf("%s: %d files, %v", tt.name, len(files), err)
			}
		})
	}
}

// TestDamagedChoice: of a file that is not whole, not its own or too much nothing
// counts, which the log says; the seeder starts, and the next list heals it.
func TestDamagedChoice(t *testing.T) {
	names := choosing(nil).Selections[0].names()
	text := func(images string) string {
		return fmt.Sprintf(`{"version":1,"selection":%q,"images":{%s}}`, names, images)
	}
	many := make([]string, maxImages+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"r.io/team/app:v%d":{}`, i)
	}
	for _, tt := range []struct {
		name, file string
		chosen     int
		warning    string // part of it
	}{
		{"good", text(`"` + v100 + `":{"listed":"2026-11-27T02:00:00Z"}`), 1, ""},
		{"of a newer version", strings.Replace(text(`"`+v100+`":{"listed":"2026-11-27T02:00:00Z","more":1}`), `:1,`, `:2,"new":[],`, 1), 1, ""},
		{"of nothing", text(""), 0, ""},
		{"without images", strings.Replace(text(""), "{}", "null", 1), 0, "it has no images"},
		{"empty", "", 0, "unexpected end of JSON input"},
		{"cut off", text(`"` + v100 + `":{"lis`), 0, "unexpected end of JSON input"},
		{"foreign", `{"looked":{}}`, 0, "version 0 is none of its own"},
		{"of images that are not selected", text(`"r.io/other/db:v9.0.0":{}`), 0, `\"r.io/other/db:v9.0.0\" is not selected`},
		{"with no digest", text(`"` + v100 + `":{"digest":"x"}`), 0, `\"x\" is no digest`},
		{"of too many", text(strings.Join(many, ",")), 0, "10001 images"},
		{"too large", text(`"`+v100+`":{}`) + strings.Repeat(" ", maxChoice), 0, "over 16777216 bytes"},
	} {
		bubble(t, func(t *testing.T, w *world) {
			t.Helper()
			var log bytes.Buffer
			o := Options{Chosen: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
			if err := os.WriteFile(filepath.Join(o.Chosen, "team.json"), []byte(tt.file), 0o600); err != nil {
				t.Fatal(err)
			}
			w.away(errAway)
			s, stop := w.seeder(t, o, choosing(nil))
			defer stop()
			pass(time.Minute)
			if r := s.Report().Selections[0]; len(r.Runs) != 1 || r.Runs[0].Chosen != tt.chosen {
				t.Errorf("%s: %+v", tt.name, r)
			}
			const warning = `level=WARN msg="what a selection chose before is not known until its registries list it" selection=team error=`
			if said := strings.Contains(log.String(), warning); said != (tt.warning != "") || !strings.Contains(log.String(), tt.warning) {
				t.Errorf("%s: want a warning of %q:\n%s", tt.name, tt.warning, log.String())
			}
			w.away(nil)
			pass(time.Hour)
			r, err := choosing(nil).Selections[0].compile()
			if err != nil {
				t.Fatal(err)
			}
			if c, err := s.chosen.read(r); err != nil || len(c) != 2 || c[v100].Digest != w.manifests[v100].Digest {
				t.Errorf("%s: after a list %v, %v", tt.name, c, err)
			}
		})
	}
}

// TestChoiceIsWrittenAsAWhole: what is there is never changed in its place, stays
// if the new one cannot be written, and goes when its selection does.
func TestChoiceIsWrittenAsAWhole(t *testing.T) {
	var log bytes.Buffer
	o := Options{Chosen: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	file, before := filepath.Join(o.Chosen, "team.json"), filepath.Join(o.Chosen, "before")
	seed(t, o, choosing(nil), func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		old, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Link(file, before); err != nil {
			t.Fatal(err)
		}
		w.add("r.io/team/app:v1.2.0", "config", "the newest layer")
		pass(time.Hour)
		now, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(now, []byte("v1.2.0")) {
			t.Errorf("not written: %s, %v", now, err)
		}
		if text, err := os.ReadFile(before); err != nil || !bytes.Equal(text, old) {
			t.Errorf("written in place: %s, %v", text, err)
		}
		if err := os.Mkdir(file+newEnd, 0o700); err != nil {
			t.Fatal(err)
		}
		w.add("r.io/team/app:v1.3.0", "config", "a newer one")
		pass(time.Hour)
		if text, err := os.ReadFile(file); err != nil || !bytes.Equal(text, now) || !strings.Contains(log.String(), "level=ERROR msg=\"what a selection chose will not be known after a restart\" selection=team") {
			t.Errorf("%s, %v\n%s", text, err, log.String())
		}
		if err := os.Remove(file + newEnd); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(choosing(func(s *Selection) { s.Name = "other" })); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if files, err := filepath.Glob(filepath.Join(o.Chosen, "*")); err != nil || len(files) != 2 || filepath.Base(files[1]) != "other.json" {
			t.Errorf("%v, %v", files, err)
		}
	})
}

// TestChoiceIsWrittenAtOnce: what is chosen is on disk before it is here.
func TestChoiceIsWrittenAtOnce(t *testing.T) {
	o := Options{Chosen: t.TempDir(), Busy: func() bool { return true }}
	seed(t, o, choosing(nil), func(t *testing.T, _ *world, s *Seeder) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(o.Chosen, "team.json"))
		if s.Report().Selections[0].Running == nil || err != nil || !bytes.Contains(text, []byte(v110)) {
			t.Errorf("%+v; %s, %v", s.Report(), text, err)
		}
	})
}

// TestFailedListsShrinkNothing: in a seeder that runs, what a list that fails would
// have named stays, and what another one no longer names goes.
func TestFailedListsShrinkNothing(t *testing.T) {
	c := choosing(func(s *Selection) { s.Images = []string{"r.io/*/*:v*", "r.io/fixed/image:v1"} })
	seed(t, Options{}, c, func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.add("r.io/fixed/image:v1", "config")
		chosen := func(what, want string) {
			t.Helper()
			pass(time.Hour)
			if got := strings.Join(s.all()[0].chosen(), " "); got != want {
				t.Errorf("%s: chosen %s", what, got)
			}
		}
		const all = "r.io/fixed/image:v1 r.io/other/db:v9.0.0 " + v100 + " " + v110
		chosen("all lists", all)
		w.setFail("tags r.io/team/app", errAway)
		w.mu.Lock()
		delete(w.manifests, v110)
		w.mu.Unlock()
		chosen("no tags of one", all)
		w.mu.Lock()
		w.manifests["r.io/other/db:v9.1.0"] = w.manifests["r.io/other/db:v9.0.0"]
		delete(w.manifests, "r.io/other/db:v9.0.0")
		w.mu.Unlock()
		chosen("no tags of one, other tags of another", strings.Replace(all, "v9.0.0", "v9.1.0", 1))
		if r := s.Report().Selections[0]; len(r.Runs[0].Errors) != 1 || !strings.HasSuffix(r.Runs[0].Errors[0], ": 2") || time.Since(r.Listed) != 2*time.Hour {
			t.Errorf("%+v", r)
		}
		w.setFail("catalog r.io", errAway)
		chosen("no repositories", strings.Replace(all, "v9.0.0", "v9.1.0", 1))
		w.setFail("catalog r.io", nil)
		w.setFail("tags r.io/team/app", nil)
		chosen("all lists again", "r.io/fixed/image:v1 r.io/other/db:v9.1.0 "+v100)
	})
}

// TestNotificationsWithoutLists: what is pushed and chosen already is fetched, also
// if its registry lists nothing; how much is chosen so has a bound, too.
func TestNotificationsWithoutLists(t *testing.T) {
	seed(t, Options{}, choosing(nil), func(t *testing.T, w *world, s *Seeder) {
		t.Helper()
		w.setFail("tags r.io/team/app", errAway)
		w.add(v100, "config", "pushed again")
		s.Notify([]Event{{"team/app", "v1.0.0"}})
		pass(settle)
		if r := s.Report().Selections[0]; r.Chosen != 2 || r.Runs[0].Why != ByNotification || r.Runs[0].Fetched != 1 || len(r.Runs[0].Errors) != 1 {
			t.Errorf("%+v", r)
		}
		w.setFail("tags r.io/team/app", nil)
		r := s.all()[0]
		r.mu.Lock()
		for i := range maxImages - len(r.choice) {
			r.choice[fmt.Sprintf("r.io/team/app:v0.%d", i)] = kept{}
		}
		r.mu.Unlock()
		w.add("r.io/team/app:v2.0.0", "config", "one more")
		s.Notify([]Event{{"team/app", "v2.0.0"}})
		pass(settle)
		if now := s.Report().Selections[0]; now.Chosen != maxImages || now.Runs[0].Fetched != 1 {
			t.Errorf("%d chosen, %+v", now.Chosen, now.Runs[0])
		}
	})
}

// TestFollowsAfterARestart: the tags that were chosen are followed, also if the next
// look is far.
func TestFollowsAfterARestart(t *testing.T) {
	o := Options{Chosen: t.TempDir()}
	c := choosing(func(s *Selection) { s.Every, s.Schedule, s.Follow = 0, "30 2 * * *", time.Minute })
	bubble(t, func(t *testing.T, w *world) {
		t.Helper()
		_, stop := w.seeder(t, o, c)
		pass(3 * time.Hour)
		stop()
		w.forget()
		s, stop := w.seeder(t, o, c)
		defer stop()
		if pass(time.Second); w.forget() != "" || s.Report().Selections[0].Chosen != 2 {
			t.Errorf("at the start: %+v", s.Report())
		}
		if pass(time.Minute); w.forget() != v100+"\n"+v110 {
			t.Error("not followed")
		}
	})
}

func TestPatternHas(t *testing.T) {
	d := "sha256:" + digest.FromString("x").Encoded()
	for _, tt := range []struct {
		pattern, image string
		want           bool
	}{
		{"r.io/team/*:v*", v100, true},
		{"r.io:5000/team/*:v*", "r.io:5000/team/app:v1", true},
		{"r.io/team/*:v*", "r.io/team/app:edge", false},
		{"r.io/team/*:v*", "r.io/team/app", false},
		{"r.io/team/*:v*", "r.io/team/app@" + d, false},
		{"r.io/team/*:v*", "r.io/other/app:v1", false},
		{"r.io/team/*:v*", "s.io/team/app:v1", false},
		{"r.io/team/app@" + d, "r.io/team/app@" + d, true},
		{"r.io/team/app@" + d, "r.io/team/app:v1", false},
		{"r.io/team/app@" + d, "r.io/team/app@" + d + "x", false},
	} {
		p, err := parsePattern(tt.pattern, "latest")
		if err != nil {
			t.Fatal(err)
		}
		if got := p.has(tt.image); got != tt.want {
			t.Errorf("%s has %s: %v", tt.pattern, tt.image, got)
		}
	}
}
