package waterfall

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"shoal/proxy/pull"
)

var update = flag.Bool("update", false, "write testdata anew, to be looked at")

const mib = 1 << 20

func ptr(x float64) *float64 { return &x }

// row is a layer that is asked for at start and has come by end, from sources in
// equal parts, one after the other.
func row(i int, start, end float64, bytes int64, sources ...int) pull.Row {
	w := pull.Row{
		Kind: pull.KindLayer, Digest: "sha256:" + strings.Repeat(fmt.Sprintf("%016x", uint64(i+1)*0x9e3779b97f4a7c15), 4), Size: bytes, Sent: bytes, Requests: 1,
		Start: start, First: ptr(start + (end-start)/4), End: end, Fetched: ptr(start - .02), Proven: ptr(end + .01), Result: pull.OK,
	}
	const steps = 12
	w.Flow.Step = (end - start) / steps
	for k, s := range sources {
		w.From = append(w.From, pull.Share{Source: s, Bytes: bytes / int64(len(sources))})
		came := make([]int64, steps)
		for j := range came {
			if j%len(sources) == k || j > steps*3/4 {
				came[j] = bytes / steps
			}
		}
		w.Flow.Came = append(w.Flow.Came, came)
	}
	return w
}

// flow makes the report's from its rows.
func flow(r *pull.Report) {
	const steps = 120
	r.Flow = pull.Flow{Step: r.Seconds / steps, Came: make([][]int64, len(r.Sources))}
	for n := range r.Flow.Came {
		r.Flow.Came[n] = make([]int64, steps)
	}
	for _, w := range r.Rows {
		for k, came := range w.Flow.Came {
			for j, bytes := range came {
				const parts = 64
				for i := range parts {
					at := int((*w.Fetched + w.Flow.Step*(float64(j)+float64(i)/parts)) / r.Flow.Step)
					r.Flow.Came[w.From[k].Source][min(max(0, at), steps-1)] += bytes / parts
				}
			}
		}
	}
}

func report(seconds float64) pull.Report {
	return pull.Report{
		Summary: pull.Summary{
			Version: pull.Version, ID: 17, Image: "docker.io/library/nginx:1.27", Platform: "linux/amd64", Client: "127.0.0.1 docker/28.5.2",
			Began: time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC), Seconds: seconds, Bytes: 129 * mib, FromOrigin: 80 * mib, FromPeers: 40 * mib, FromCache: 9 * mib, Result: pull.OK, Bound: seconds / 1.3, Ratio: 1.3,
			Bottleneck: pull.Registry, Why: "docker.io gave 25MiB/s and was busy 94 % of the time",
		},
		Sources: []pull.Source{
			{Kind: pull.OriginSource, Name: "docker.io/library/nginx", Bytes: 80 * mib, Rate: 25 * mib, Busy: .94},
			{Kind: pull.PeerSource, Name: "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F", Zone: "berlin", Bytes: 40 * mib, Rate: 31 * mib, Busy: .4},
			{Kind: pull.CacheSource, Bytes: 9 * mib},
		},
		Waits: []pull.Wait{{For: pull.Registry, Seconds: .6 * seconds}, {For: pull.Peers, Seconds: .2 * seconds}, {For: pull.Client, Seconds: .1 * seconds}, {For: pull.Idle, Seconds: .1 * seconds}},
	}
}

func small(kind string, i int, start, end float64) pull.Row {
	w := row(i, start, end, 1500)
	w.Kind, w.Flow, w.From, w.Fetched, w.Proven = kind, pull.Flow{}, []pull.Share{{Source: 2, Bytes: 1500}}, nil, nil
	return w
}

// pictures are reports that are hard to draw, by name.
func pictures() map[string]pull.Report {
	usual := report(5)
	usual.Rows = []pull.Row{
		small(pull.KindTag, 1, 0, .05), small(pull.KindIndex, 2, .06, .12), small(pull.KindManifest, 3, .13, .2), small(pull.KindConfig, 4, .22, .3),
		row(5, .25, 1.2, 20*mib, 0), row(6, .25, 2.8, 44*mib, 1, 0), row(7, .25, 4.9, 56*mib, 0, 1),
	}
	cached := row(8, 2.9, 3.4, 9*mib)
	cached.Flow, cached.From, cached.Fetched, cached.Proven = pull.Flow{}, []pull.Share{{Source: 2, Bytes: 9 * mib}}, nil, nil
	usual.Rows = append(usual.Rows, cached)
	flow(&usual)

	many := report(42)
	many.Image = "registry.example.com:8443/a-team-with-a-long-name/and-a-project/with-many-parts/in-its-name/some-service-of-it:2026.11.26-build.123456789-release-candidate.1"
	many.Zones = []pull.Zone{{Bytes: mib}, {Zone: "berlin", Bytes: 40 * mib}, {Zone: "paris", Bytes: 90 * mib}}
	for i := range 9 {
		many.Sources = append(many.Sources, pull.Source{Kind: pull.PeerSource, Name: fmt.Sprintf("12D3KooWmember%07d", i), Zone: "paris", Bytes: 10 * mib, Rate: 12 * mib, Busy: .2})
	}
	many.Sources = append(many.Sources, pull.Source{Kind: pull.PeerSource, Name: "others", Bytes: 10 * mib, Rate: mib, Busy: .3})
	for i := range 60 {
		many.Rows = append(many.Rows, row(i, .1+.6*float64(i), 3+.65*float64(i), int64(i+1)*mib/2, i%2, 3+i%10))
	}
	flow(&many)

	one := report(.004)
	one.Rows = []pull.Row{small(pull.KindManifest, 1, 0, .004)}
	one.Sources, one.Bound, one.Ratio, one.Bytes, one.FromOrigin, one.FromPeers, one.FromCache = one.Sources[2:], 0, 0, 1500, 0, 0, 1500
	one.Rows[0].From[0].Source = 0

	failed := report(9)
	failed.Result, failed.Error, failed.Bottleneck, failed.Waits = pull.Failed, "layer: not to be had now; the mirror's log says why", pull.Lookup, []pull.Wait{{For: pull.Lookup, Seconds: 9}}
	failed.Why = "failed: " + failed.Error
	failed.Sources, failed.Bytes, failed.FromOrigin, failed.FromPeers, failed.FromCache = nil, 0, 0, 0, 0
	bad := row(2, .1, 9, 0)
	bad.Flow, bad.From, bad.Fetched, bad.Proven, bad.First, bad.Result, bad.Error = pull.Flow{}, nil, nil, nil, nil, pull.Failed, "not to be had now"
	failed.Rows = []pull.Row{bad}

	hostile := one
	hostile.Image = `x<script>alert("1")</script>&amp;'` + "\x01"
	hostile.Client = `"><image href="http://evil.example/"/>`
	hostile.Sources = []pull.Source{{Kind: pull.OriginSource, Name: "</text><script>", Bytes: 1}}
	return map[string]pull.Report{"usual": usual, "many": many, "one": one, "failed": failed, "hostile": hostile}
}

// TestGolden compares what is drawn with testdata. After a change: go test -update,
// and look at the pictures.
func TestGolden(t *testing.T) {
	for name, r := range pictures() {
		var text strings.Builder
		if err := Text(&text, r); err != nil {
			t.Fatal(err)
		}
		for ending, got := range map[string]string{".txt": text.String(), ".svg": SVG(r)} {
			path := filepath.Join("testdata", name+ending)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is drawn differently; go test -update, and look at it", path)
			}
		}
	}
}

// What is drawn is XML, whatever names hold; it runs nothing and loads nothing; and
// all of it is inside of the picture.
func TestSVGIsSafeAndWhole(t *testing.T) {
	number := regexp.MustCompile(`^-?[0-9.]+$`)
	for name, r := range pictures() {
		dec := xml.NewDecoder(strings.NewReader(SVG(r)))
		high := 0.0
		for {
			token, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			e, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			attr := map[string]float64{}
			for _, a := range e.Attr {
				if strings.HasPrefix(a.Name.Local, "on") || strings.Contains(a.Name.Local, "href") {
					t.Errorf("%s: <%s %s>", name, e.Name.Local, a.Name.Local)
				}
				if number.MatchString(a.Value) {
					attr[a.Name.Local], _ = strconv.ParseFloat(a.Value, 64)
				}
			}
			switch e.Name.Local {
			case "svg":
				high = attr["height"]
			case "style", "g", "title", "polygon":
			case "rect", "text", "line":
				right, bottom := max(attr["x"]+attr["width"], attr["x2"]), max(attr["y"]+attr["height"], attr["y2"])
				if right > width || bottom > high || attr["x"] < 0 || attr["y"] < 0 {
					t.Errorf("%s: %s %v is outside of %v x %v", name, e.Name.Local, e.Attr, width, high)
				}
			default:
				t.Errorf("%s: <%s>", name, e.Name.Local)
			}
		}
	}
}

// No line of text is so long that a terminal breaks it, but for names.
func TestTextFits(t *testing.T) {
	for name, r := range pictures() {
		var text strings.Builder
		if err := Text(&text, r); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text.String()) {
			if len(line) > 130 && !strings.HasPrefix(line, "image") {
				t.Errorf("%s: %d characters: %s", name, len(line), line)
			}
		}
	}
}

func TestTicks(t *testing.T) {
	for span, want := range map[float64]string{.004: "0.5 ms", .05: "10 ms", .8: "0.1 s", 2.9: "0.5 s", 5: "1 s", 42: "10 s", 3600: "500 s"} {
		step := tick(span)
		if got := tickText(step, step); got != want {
			t.Errorf("%v s: %s, want %s", span, got, want)
		}
	}
}
