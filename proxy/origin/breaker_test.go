package origin

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"testing"
	"time"

	"shoal/blobcache/blob"
)

// even is the chance that leaves pauses as they are.
const even = 0.5

func TestBreaker(t *testing.T) {
	type step struct {
		after time.Duration // since the step before
		what  evidence
		rest  time.Duration
		pause time.Duration // that is left; 0 is closed
	}
	const s = time.Second
	for name, steps := range map[string][]step{
		"works":               {{what: works}, {what: works}},
		"opens at once":       {{what: fails, pause: s}},
		"works again":         {{what: fails, pause: s}, {after: s, what: works}},
		"a late failure":      {{what: fails, pause: 4 * s, rest: 4 * s}, {after: s, what: fails, rest: 9 * s, pause: 3 * s}},
		"pauses grow":         {{what: fails, pause: s}, {after: s, what: fails, pause: 2 * s}, {after: 5 * s, what: fails, pause: 4 * s}},
		"but not for ever":    {{what: fails, rest: 9 * s, pause: 9 * s}, {9 * s, fails, 0, 2 * s}, {9 * s, fails, 0, 4 * s}, {9 * s, fails, 0, 8 * s}, {9 * s, fails, 0, 16 * s}, {99 * s, fails, 0, 32 * s}, {99 * s, fails, 0, 60 * s}, {99 * s, fails, 0, 60 * s}},
		"relapse":             {{what: fails, pause: s}, {after: s, what: works}, {after: 5 * s, what: fails, pause: 2 * s}},
		"another failure":     {{what: fails, pause: s}, {after: s, what: works}, {after: 7 * s, what: fails, pause: s}},
		"Retry-After":         {{what: fails, rest: 20 * s, pause: 20 * s}},
		"a long Retry-After":  {{what: fails, rest: 20 * time.Hour, pause: time.Hour}},
		"some 500":            {{what: doubtful}, {what: doubtful}, {what: works}, {what: doubtful}, {what: doubtful}},
		"the third 500":       {{what: doubtful}, {what: doubtful}, {what: doubtful, pause: s}},
		"500 to a probe":      {{what: fails, pause: s}, {after: s, what: doubtful, pause: 2 * s}},
		"success in the open": {{what: fails, pause: s}, {what: works}},
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			now := time.Unix(1e9, 0)
			for i, st := range steps {
				now = now.Add(st.after)
				b.note(now, b.era, st.what, st.rest, even)
				var left time.Duration
				if b.open {
					left = b.until.Sub(now)
				}
				if left != st.pause {
					t.Fatalf("step %d: pause of %v, want %v", i, left, st.pause)
				}
			}
		})
	}
}

func TestWhatWasAskedBeforeTellsNothing(t *testing.T) {
	now := time.Unix(1e9, 0)
	var b breaker
	b.note(now, 0, fails, 0, even)
	open := b
	if b.note(now, 0, works, 0, even); b != open {
		t.Error("an answer to what was asked before closed it")
	}
	b.note(now, b.era, works, 0, even)
	closed := b
	if b.note(now, open.era, fails, 0, even); b != closed {
		t.Error("a failure of what was asked before opened it")
	}
}

func TestOneProbeAtATime(t *testing.T) {
	now := time.Unix(1e9, 0)
	h := &health{}
	h.breaker.note(now, 0, fails, 0, even)
	if h.probe(now.Add(restFirst - 1)) {
		t.Error("probed during the pause")
	}
	now = now.Add(restFirst)
	if !h.probe(now) || h.probe(now) {
		t.Error("want one probe after the pause")
	}
	h.breaker.note(now, h.breaker.era, fails, 0, even)
	if now = h.breaker.until; !h.probe(now) {
		t.Error("no probe after the next pause")
	}
}

func TestOrder(t *testing.T) {
	now := time.Unix(1e9, 0)
	open := func(d time.Duration) breaker { return breaker{open: true, until: now.Add(d)} }
	probing := breaker{open: true, until: now, probing: true}
	works := breaker{}
	for i, tt := range []struct {
		states  []breaker
		line    []int
		working int
		due     []int
	}{
		{states: nil},
		{states: []breaker{works, works}, line: []int{0, 1}, working: 2},
		{states: []breaker{open(1), works}, line: []int{1, 0}, working: 1},
		{states: []breaker{open(0), works}, line: []int{1, 0}, working: 1, due: []int{0}},
		{states: []breaker{probing, works, open(-1)}, line: []int{1, 2, 0}, working: 1, due: []int{2}},
		{states: []breaker{open(5), open(3), open(3)}, line: []int{1, 2, 0}},
		{states: []breaker{open(0)}, line: []int{0}}, // asked, not probed
	} {
		line, working, due := order(tt.states, now)
		if !reflect.DeepEqual(line, tt.line) || working != tt.working || !reflect.DeepEqual(due, tt.due) {
			t.Errorf("%d: order %v, %d work, due %v; want %v, %d, %v", i, line, working, due, tt.line, tt.working, tt.due)
		}
	}
}

func TestWeigh(t *testing.T) {
	status := func(code int) error {
		return fmt.Errorf("wrapped: %w", &ResponseError{Status: code, RetryAfter: time.Minute, Err: statusError(code)})
	}
	up := &upstream{base: mustBase("http://u")}
	for _, tt := range []struct {
		err  error
		what evidence
		rest time.Duration
	}{
		{nil, works, 0},
		{status(400), works, 0},
		{status(401), works, 0},
		{status(403), works, 0},
		{status(404), works, 0},
		{status(416), works, 0},
		{status(429), fails, time.Minute},
		{status(500), doubtful, 0},
		{status(501), works, 0},
		{status(502), fails, time.Minute},
		{status(503), fails, time.Minute},
		{status(504), fails, time.Minute},
		{lie(up, blob.ErrUnavailable, "a web page"), works, 0},
		{lie(up, blob.ErrCorrupt, "another digest"), works, 0},
		{ErrRegistryRefused, works, 0},
		{fmt.Errorf("%w: refused", blob.ErrUnavailable), fails, 0},
		{fmt.Errorf("%w: silent", blob.ErrStalled), fails, 0},
		{fmt.Errorf("%w: large", blob.ErrTooLarge), works, 0},
		{errors.New("of the caller"), works, 0},
	} {
		if what, rest := weigh(tt.err); what != tt.what || rest != tt.rest {
			t.Errorf("%v: %v, %v, want %v, %v", tt.err, what, rest, tt.what, tt.rest)
		}
	}
}

func mustBase(s string) *url.URL {
	u, err := parseBase(s)
	if err != nil {
		panic(err)
	}
	return u
}
