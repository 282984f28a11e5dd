package statement

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func orders() []Preheat {
	ids := slices.Repeat([]string{strings.Repeat("A", 52)}, MaxMembers)
	return []Preheat{
		{Image: "docker.io/library/app:v1", To: ToAll},
		{Image: "r.io/a@sha256:00", Platforms: "linux/amd64,linux/arm/v7", To: ToZone("hamburg/1")},
		{Image: "r.io/" + strings.Repeat("a", MaxImage-5), Platforms: strings.Repeat("p", maxPlatforms), To: ToMembers(ids...)},
	}
}

func TestPreheat(t *testing.T) {
	s := GenerateSigner()
	now := time.Now()
	for _, want := range orders() {
		said, err := s.Preheat(want, now)
		if err != nil {
			t.Fatal(err)
		}
		b := said.Marshal()
		got, err := ParsePreheat(b)
		if err != nil || got != said || len(b) > MaxPreheat || got.Image != want.Image || got.To != want.To || got.Platforms != want.Platforms {
			t.Fatalf("%+v, %v", got, err)
		}
		for at, want := range map[time.Duration]error{0: nil, Validity + Skew: nil, Validity + Skew + time.Second: ErrTime, -Skew: nil, -Skew - time.Second: ErrTime} {
			if err := got.Check(got.Issued.Add(at)); !errors.Is(err, want) || want == nil && err != nil {
				t.Errorf("after %v: %v", at, err)
			}
		}
		for i := range b {
			altered := bytes.Clone(b)
			altered[i] ^= 1
			if a, err := ParsePreheat(altered); err == nil && a.Check(now) == nil {
				t.Errorf("altered at %d of %d", i, len(b))
			}
		}
	}
}

// A line that says two things at once would be one order for another.
func TestBadPreheats(t *testing.T) {
	s := GenerateSigner()
	for name, p := range map[string]Preheat{
		"no image":       {To: ToAll},
		"lines":          {Image: "r.io/a:v1\n", To: ToAll},
		"platforms":      {Image: "r.io/a:v1", Platforms: "linux/amd64\nall", To: ToAll},
		"for nobody":     {Image: "r.io/a:v1"},
		"for others":     {Image: "r.io/a:v1", To: "some"},
		"many platforms": {Image: "r.io/a:v1", Platforms: strings.Repeat("p", maxPlatforms+1), To: ToAll},
		"many members":   {Image: "r.io/a:v1", To: ToMembers(slices.Repeat([]string{"A"}, MaxMembers+1)...)},
		"a long zone":    {Image: "r.io/a:v1", To: ToZone(strings.Repeat("z", maxTo))},
	} {
		if got, err := s.Preheat(p, time.Now()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		p.Signer, p.Issued = s.Key(), time.Now()
		if got, err := ParsePreheat(p.Marshal()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s, parsed: %+v, %v", name, got, err)
		}
	}
}

func TestPreheatFor(t *testing.T) {
	for _, c := range []struct {
		to, id, zone string
		want         bool
	}{
		{ToAll, "A", "", true},
		{ToZone("x"), "A", "x", true},
		{ToZone("x"), "A", "xy", false},
		{ToZone(""), "A", "", true},
		{ToMembers("A", "B"), "B", "", true},
		{ToMembers("AB"), "A", "", false},
		{ToMembers("A"), "", "A", false},
	} {
		if got := (Preheat{To: c.to}).For(c.id, c.zone); got != c.want {
			t.Errorf("%s for %s in %q: %v", c.to, c.id, c.zone, got)
		}
	}
}

func FuzzParsePreheat(f *testing.F) {
	s := GenerateSigner()
	for _, p := range orders() {
		said, err := s.Preheat(p, time.Now())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(said.Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePreheat(b)
		if err == nil && !bytes.Equal(p.Marshal(), b) {
			t.Error("two forms of one preheat")
		}
	})
}
