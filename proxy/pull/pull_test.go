package pull

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/trace"
)

var t0 = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

func d(name string) digest.Digest { return digest.FromString(name) }

// ask is a request in a script: who asks when for what, and what comes of it.
type ask struct {
	from, to int // ms
	what     string
	change   func(*Request)
}

// request reads "HEAD tag", "GET index", "GET child", "GET config" and so on: of
// the image app:1, whose index names child for linux/amd64 and foreign for
// linux/386; child names config, layer1 and layer2, other config2 and layer2.
func (a ask) request() *Request {
	method, what, _ := strings.Cut(a.what, " ")
	q := &Request{Client: Asker{"10.0.0.1", "docker/28"}, Repository: "docker.io/library/app", Head: method == "HEAD", Begun: at(a.from), Source: FromFill, Digest: d(what)}
	switch what {
	case "tag":
		q.Manifest, q.Tag, q.Digest = true, "1", ""
	case "index", "child", "foreign", "other":
		q.Manifest = true
	}
	return q
}

// answer fills in what a good answer holds.
func (a ask) answer(q *Request) {
	q.Ended, q.Status = at(a.to), 200
	if q.Tag != "" {
		q.Digest = d("index")
	}
	switch {
	case q.Head:
	case q.Digest == d("index"):
		q.Children = []Child{{d("child"), "linux/amd64"}, {d("foreign"), "linux/386"}}
	case q.Digest == d("child"):
		q.Blobs = []digest.Digest{d("config"), d("layer1"), d("layer2")}
	case q.Digest == d("foreign"):
		q.Blobs = []digest.Digest{d("config3"), d("layer3")}
	case q.Digest == d("other"):
		q.Blobs = []digest.Digest{d("config2"), d("layer2")}
	}
	if !q.Head {
		q.Size, q.Sent, q.First = 100, 100, at(a.from+1)
	}
	if a.change != nil {
		a.change(q)
	}
}

// reuse writes over a request that is not needed any more, as its next user does: no
// report may show it.
func reuse(spare *Request) {
	if spare != nil {
		*spare = Request{Client: Asker{Agent: "somebody else"}, Digest: d("other"), Begun: t0.Add(-time.Hour), Size: -1, Sent: -1, Err: "reused"}
	}
}

// play has a Recogniser see all requests, in order of time, and look for pulls that
// have ended every second, for a minute more.
func play(asks ...ask) []*Pull {
	type event struct {
		at time.Time
		do func(*Recogniser)
	}
	var events []event
	last := t0
	for _, a := range asks {
		q := a.request()
		if a.change != nil {
			a.change(q)
		}
		events = append(events,
			event{at(a.from), func(r *Recogniser) { r.Begin(q) }},
			event{at(a.to), func(r *Recogniser) { a.answer(q); reuse(r.End(q)) }})
		if at(a.to).After(last) {
			last = at(a.to)
		}
	}
	r := NewRecogniser()
	var over []*Pull
	for now := t0.Add(time.Second); now.Before(last.Add(time.Minute)); now = now.Add(time.Second) {
		events = append(events, event{now, func(r *Recogniser) { over = append(over, r.Ended(now)...) }})
	}
	slices.SortStableFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
	for _, e := range events {
		e.do(r)
	}
	return append(over, r.Close()...)
}

// describe tells of each pull what it was.
func describe(over []*Pull) string {
	var all []string
	for _, p := range over {
		r := Analyse(p, func(digest.Digest) *trace.Fill { return nil })
		var rows []string
		for _, w := range r.Rows {
			rows = append(rows, w.Kind)
		}
		all = append(all, fmt.Sprintf("%s %s %s %.0fms %s: %s", strings.TrimPrefix(r.Image, "docker.io/library/"), r.Platform, r.Result, 1000*r.Seconds, r.Bottleneck, strings.Join(rows, " ")))
	}
	return strings.Join(all, "\n")
}

func TestRecognise(t *testing.T) {
	fail := func(status int) func(*Request) {
		return func(q *Request) { q.Status, q.Err, q.Sent, q.Size, q.First = status, "why", 0, 0, time.Time{} }
	}
	failTag := func(q *Request) { fail(404)(q); q.Digest = "" }
	part := func(from, sent int64, left bool) func(*Request) {
		return func(q *Request) { q.Size, q.From, q.Sent, q.Left = 100, from, sent, left }
	}
	client := func(name string) func(*Request) { return func(q *Request) { q.Client.Agent = name } }
	elsewhere := func(q *Request) { q.Repository = "docker.io/library/b" }
	for _, tt := range []struct {
		name string
		asks []ask
		want string
	}{
		{"dockerd", []ask{
			{0, 10, "HEAD tag", nil},
			{20, 30, "GET index", nil},
			{40, 50, "GET child", nil},
			{60, 70, "GET config", nil},
			{60, 400, "GET layer1", nil},
			{61, 1000, "GET layer2", nil},
		}, "app:1 linux/amd64 ok 1000ms origin: tag index manifest config layer layer"},
		{"a client that looks once more while it pulls", []ask{
			{0, 10, "HEAD tag", nil},
			{20, 30, "GET index", nil},
			{32, 35, "HEAD tag", nil},
			{36, 39, "HEAD tag", nil},
			{40, 50, "GET child", nil},
			{60, 1000, "GET layer1", nil},
		}, "app:1 linux/amd64 ok 1000ms origin: tag index manifest layer"},
		{"containerd, which fetches the manifests and configs of all platforms", []ask{
			{0, 10, "HEAD tag", nil},
			{20, 30, "GET index", nil},
			{40, 50, "GET foreign", nil},
			{40, 51, "GET child", nil},
			{55, 65, "GET config3", nil},
			{60, 70, "GET config", nil},
			{60, 400, "GET layer1", nil},
			{61, 1000, "GET layer2", nil},
		}, "app:1 linux/amd64 ok 1000ms origin: tag index manifest manifest config config layer layer"},
		{"podman", []ask{
			{0, 10, "GET tag", nil},
			{40, 50, "GET child", nil},
			{60, 70, "GET config", nil},
			{60, 400, "GET layer1", nil},
			{61, 1000, "GET layer2", nil},
		}, "app:1 linux/amd64 ok 1000ms origin: index manifest config layer layer"},
		{"podman again, for which nothing is new", []ask{
			{0, 10, "GET tag", nil}, {40, 50, "GET child", nil}, {60, 70, "GET config", nil},
		}, "app:1 linux/amd64 ok 70ms idle: index manifest config"},
		{"by digest", []ask{
			{0, 10, "HEAD child", nil}, {20, 30, "GET child", nil}, {60, 1000, "GET layer1", nil},
		}, "app@" + d("child").String() + "  ok 1000ms origin: tag manifest layer"},
		{"somebody looks for changes", []ask{{0, 10, "HEAD tag", nil}, {9000, 9010, "HEAD tag", nil}}, ""},
		{"no such tag", []ask{{0, 10, "HEAD tag", failTag}, {20, 30, "HEAD tag", failTag}}, "app:1  failed 30ms origin: tag"},
		{"a token is wanted first", []ask{
			{0, 10, "HEAD tag", func(q *Request) { fail(401)(q) }}, {20, 30, "HEAD tag", nil}, {30, 40, "GET index", nil},
		}, "app:1  ok 20ms origin: tag index"},
		{"a layer that nobody has", []ask{{0, 10, "GET child", nil}, {20, 500, "GET layer1", fail(404)}}, "app@" + d("child").String() + "  failed 500ms origin: manifest layer"},
		{"the client leaves", []ask{{0, 10, "GET child", nil}, {20, 500, "GET layer1", part(0, 50, true)}}, "app@" + d("child").String() + "  aborted 500ms origin: manifest layer"},
		{"a cut layer is resumed after 20 s", []ask{
			{0, 10, "GET child", nil}, {20, 500, "GET layer1", part(0, 50, true)}, {20500, 21000, "GET layer1", part(50, 50, false)},
		}, "app@" + d("child").String() + "  ok 21000ms idle: manifest layer"},
		{"ranges of which the client reads a part", []ask{
			{0, 10, "GET child", nil}, {20, 500, "GET layer1", part(0, 60, true)}, {20, 500, "GET layer1", part(50, 50, false)},
		}, "app@" + d("child").String() + "  ok 500ms origin: manifest layer"},
		{"twice, one after the other", []ask{
			{0, 10, "GET tag", nil},
			{20, 30, "GET child", nil},
			{40, 50, "GET layer1", nil},
			{1000, 1010, "GET tag", nil},
			{1020, 1030, "GET child", nil},
			{1040, 1050, "GET layer1", nil},
		}, "app:1 linux/amd64 ok 50ms origin: index manifest layer\napp:1 linux/amd64 ok 50ms origin: index manifest layer"},
		{"two images at once that share a layer", []ask{
			{0, 10, "GET child", nil}, {0, 11, "GET other", elsewhere}, {20, 30, "GET layer1", nil}, {40, 500, "GET layer2", nil},
		}, "app@" + d("child").String() + "  ok 500ms origin: manifest layer layer\nb@" + d("other").String() + "  ok 500ms origin: manifest layer"},
		{"two clients at once", []ask{
			{0, 10, "GET child", nil}, {0, 11, "GET child", client("b")}, {20, 30, "GET layer1", nil}, {40, 500, "GET layer1", client("b")},
		}, "app@" + d("child").String() + "  ok 30ms origin: manifest layer\napp@" + d("child").String() + "  ok 500ms origin: manifest layer"},
		{"blobs of which nobody has seen a manifest", []ask{
			{0, 10, "GET layer1", nil}, {20, 30, "GET layer2", nil}, {20, 40, "GET layer3", elsewhere},
		}, "app  ok 30ms origin: blob blob\nb  ok 20ms origin: blob"},
		{"a long layer, behind which nothing comes", []ask{
			{0, 10, "GET child", nil}, {20, 60000, "GET layer1", nil}, {60001, 61000, "GET layer2", nil},
		}, "app@" + d("child").String() + "  ok 61000ms origin: manifest layer layer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := describe(play(tt.asks...)); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What strangers ask for does not grow without bounds.
func TestLimits(t *testing.T) {
	r := NewRecogniser()
	var ended []*Pull
	for i := range MaxOpen + 10 {
		q := &Request{Client: Asker{Agent: fmt.Sprint(i)}, Repository: "a", Digest: d("x"), Begun: at(i), Status: 200}
		r.Begin(q)
		ended = append(ended, r.Ended(at(i))...)
	}
	if len(r.open) != MaxOpen || len(ended) != 10 || ended[0].Client.Agent != "0" {
		t.Errorf("%d are open, %d have ended", len(r.open), len(ended))
	}
	p := newPull(&Request{Begun: t0})
	for i := range MaxRows + 50 {
		for range maxRequests + 5 {
			p.add(&Request{Digest: d(fmt.Sprint(i)), Begun: at(i), Ended: at(i + 1), Size: 1, Sent: 1, Status: 200})
		}
	}
	last := p.rows[MaxRows]
	if len(p.rows) != MaxRows+1 || last.kind != KindOthers || len(last.requests) != maxRequests || last.count != 50*(maxRequests+5) {
		t.Errorf("%d rows, the last is %q with %d of %d requests", len(p.rows), last.kind, len(last.requests), last.count)
	}
	got := Analyse(p, func(digest.Digest) *trace.Fill { return nil })
	if want := int64((MaxRows + 50) * (maxRequests + 5)); got.Bytes != want {
		t.Errorf("%d bytes went out, want %d", got.Bytes, want)
	}
	for i := range 2 * maxNamed {
		p.name(&Request{Blobs: []digest.Digest{d(fmt.Sprint("n", i))}})
	}
	if len(p.named) != maxNamed {
		t.Errorf("%d names", len(p.named))
	}
}

// A request that is answered when its pull has been told already changes nothing.
func TestTooLate(t *testing.T) {
	r := NewRecogniser()
	q := ask{0, 10, "GET layer1", nil}.request()
	r.Begin(q)
	over := r.Ended(t0.Add(Longest))
	if len(over) != 1 {
		t.Fatalf("%d have ended after %v", len(over), Longest)
	}
	ask{0, 10, "GET layer1", nil}.answer(q)
	if r.End(q); len(over[0].rows) > 0 || len(r.Close()) > 0 {
		t.Error("what was told has changed")
	}
}

// To record costs no memory once a row tells no more requests apart: the Recogniser
// gives them back.
func TestRecordingDoesNotAllocate(t *testing.T) {
	for _, what := range []string{"GET layer1", "HEAD tag", "HEAD layer1"} {
		a := ask{0, 10, what, nil}
		asked, answered := a.request(), a.request()
		a.answer(answered)
		r := NewRecogniser()
		become := func(q, other *Request) {
			pulls := q.pulls
			*q = *other
			q.pulls = pulls
		}
		record := func(q *Request) (spare *Request) {
			become(q, asked)
			r.Begin(q)
			become(q, answered)
			return r.End(q)
		}
		for range maxRequests {
			record(&Request{})
		}
		spare := record(&Request{})
		if got := testing.AllocsPerRun(100, func() {
			if spare == nil {
				t.Fatalf("%s: nothing is given back", what)
			}
			spare = record(spare)
		}); got != 0 {
			t.Errorf("%s: %v allocations", what, got)
		}
	}
}

// Each of two pulls that share a layer counts all requests for it, once.
func TestSharedRest(t *testing.T) {
	asks := []ask{
		{0, 10, "GET child", nil},
		{0, 10, "GET other", nil},
		{20, 30, "GET config", nil},
		{20, 30, "GET config2", nil},
	}
	for i := range 3 * maxRequests {
		asks = append(asks, ask{100 + i, 101 + i, "GET layer2", func(q *Request) { q.Size, q.Sent = 100, 1 }})
	}
	for _, p := range play(asks...) {
		i := slices.IndexFunc(p.rows, func(w *row) bool { return w.digest == d("layer2") })
		if i < 0 {
			t.Fatalf("%s has no row of the layer", p.Digest)
		}
		sent := int64(0)
		for _, q := range p.rows[i].requests {
			sent += q.Sent
		}
		if w := p.rows[i]; sent != 3*maxRequests || w.count != 3*maxRequests || len(w.requests) != maxRequests {
			t.Errorf("%s: %d bytes in %d of %d requests", p.Digest, sent, len(w.requests), w.count)
		}
	}
}

// A request that was used is as empty as a new one.
func TestUsedRequests(t *testing.T) {
	r := NewRecorder(nil)
	a := ask{0, 10, "GET layer1", nil}
	for i := range 5 * maxRequests {
		q := r.Request()
		if q.Client != (Asker{}) || q.Digest != "" || q.Sent != 0 || q.Status != 0 || len(q.pulls) > 0 || q.Writing.Total() != 0 {
			t.Fatalf("request %d is not empty: %+v", i, q)
		}
		answered := a.request()
		q.Client, q.Repository, q.Digest, q.Begun = answered.Client, answered.Repository, answered.Digest, answered.Begun
		r.Begin(q)
		if a.answer(q); q.Writing == nil {
			q.Writing = new(trace.Series)
		}
		q.Writing.AddSpan(0, time.Minute)
		r.End(q)
	}
}
