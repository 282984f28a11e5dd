package waterfall

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"shoal/proxy/pull"
)

// The layout, in pixels.
const (
	width     = 1120.0
	margin    = 24.0
	plotLeft  = 264.0 // where the axis of time begins
	plotRight = width - margin - 8
	flowHigh  = 84.0
	barHigh   = 14.0
	rowHigh   = 20.0
	maxTicks  = 8
)

// picture is an SVG in the making.
type picture struct {
	canvas
	r        pull.Report
	from, to float64 // seconds that the axis shows
	y        float64 // what is drawn next
}

// SVG returns the report as a picture. Browsers show more of what is pointed at.
func SVG(r pull.Report) string {
	p := &picture{r: r, from: begin(r), to: end(r), y: margin}
	p.head()
	p.waits()
	p.sources()
	if len(r.Rows) > 0 {
		plot := &picture{r: r, from: p.from, to: p.to, y: p.y + 22}
		plot.flow()
		plot.rows()
		p.axis(p.y+22, plot.y) // below what is drawn
		p.WriteString(plot.String())
		p.key()
	}
	var out canvas
	high := math.Ceil(p.y + margin/2)
	out.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img" aria-label="%s">`,
		width, high, width, high, escape("Pull of "+r.Image+": "+r.Why))
	out.add("<style>%s</style>", style)
	out.add(`<rect width="100%%" height="100%%" fill="var(--bg)"/>`)
	out.WriteString(p.String())
	out.add("</svg>")
	return out.String()
}

// x is the place of a time.
func (p *picture) x(seconds float64) float64 {
	t := min(1, max(0, (seconds-p.from)/(p.to-p.from)))
	return plotLeft + t*(plotRight-plotLeft)
}

// head writes what was pulled, how it went, and why so.
func (p *picture) head() {
	r := p.r
	p.y += 14
	p.add(`<g><title>%s</title>`, escape(r.Image))
	p.text(margin, p.y, "h", elide(r.Image, 80))
	p.add(`</g>`)
	p.y += 22
	parts := []string{fmt.Sprintf("pull %d", r.ID), r.Platform, r.Client, r.Began.UTC().Format(time.DateTime) + " UTC"}
	line := ""
	for _, s := range parts {
		if s != "" {
			line += "  ·  " + s
		}
	}
	p.text(margin, p.y, "s", elide(strings.TrimPrefix(line, "  ·  "), 150))
	p.y += 28
	class := "w b"
	if r.Result != pull.OK {
		class += " bad"
	}
	p.text(margin, p.y, class, elide(r.Why, 108))
	p.y += 22
	p.text(margin, p.y, "", fmt.Sprintf("%s in %s, %s", size(r.Bytes), Seconds(r.Seconds), bound(r)))
	p.y += 18
}

// waits draws a bar of what the time went by with.
func (p *picture) waits() {
	p.y += 16
	p.text(margin, p.y, "b", "where the time went")
	p.y += 8
	x := margin
	for _, w := range p.r.Waits {
		share := w.Seconds / p.r.Seconds
		wide := share * (width - 2*margin)
		p.box(area{x, p.y, wide, 14}, causeColour(w.For), fmt.Sprintf("waited for %s: %s, %s", causeText(w.For), Seconds(w.Seconds), percent(share)))
		x += wide
	}
	p.y += 32
	p.legend(func(yield func(colour, text string)) {
		for _, w := range p.r.Waits {
			if share := w.Seconds / p.r.Seconds; share >= 0.005 {
				yield(causeColour(w.For), fmt.Sprintf("%s for %s", Seconds(w.Seconds), causeText(w.For)))
			}
		}
	})
}

// sources says which colour is whose, and what each gave.
func (p *picture) sources() {
	if len(p.r.Sources) == 0 {
		return
	}
	p.y += 8
	p.text(margin, p.y, "b", "who gave the bytes")
	p.y += 20
	p.legend(func(yield func(colour, text string)) {
		for i, s := range p.r.Sources {
			text := sourceName(s)
			if s.Zone != "" {
				text += " (" + s.Zone + ")"
			}
			if text += ": " + size(s.Bytes); s.Rate > 0 {
				text += fmt.Sprintf(", %s, busy %s", rate(s.Rate), percent(s.Busy))
			}
			yield(p.colour(i), text)
		}
	})
}

// legend writes colours and what they mean, in as many lines as it takes.
func (p *picture) legend(items func(yield func(colour, text string))) {
	x := margin
	items(func(colour, text string) {
		wide := 34 + 6.6*float64(len([]rune(text)))
		if x+wide > width-margin && x > margin {
			x, p.y = margin, p.y+20
		}
		p.box(area{x, p.y - 10, 12, 12}, colour, "")
		p.text(x+18, p.y, "", text)
		x += wide
	})
	p.y += 20
}

// flow draws what came from whom over time.
func (p *picture) flow() {
	f := p.r.Flow
	if f.Step <= 0 || len(f.Came) == 0 {
		return
	}
	top, sums := 0.0, make([]float64, len(f.Came[0]))
	for _, came := range f.Came {
		for j, n := range came {
			sums[j] += float64(n) / f.Step
			top = max(top, sums[j])
		}
	}
	if top == 0 {
		return
	}
	base := p.y + flowHigh
	p.text(plotLeft-12, p.y+10, "s e", rate(top))
	p.text(plotLeft-12, base, "s e", "0")
	p.text(margin, p.y+10, "b", "what came when")
	p.line(plotLeft, p.y, plotRight, p.y, "line")
	clear(sums)
	for i, came := range f.Came {
		var upper, lower []string
		for j, n := range came {
			below := sums[j]
			sums[j] += float64(n) / f.Step
			left, right := p.x(float64(j)*f.Step), p.x(float64(j+1)*f.Step)
			high, low := base-flowHigh*sums[j]/top, base-flowHigh*below/top
			upper = append(upper, fmt.Sprintf("%.1f,%.1f %.1f,%.1f", left, high, right, high))
			lower = append(lower, fmt.Sprintf("%.1f,%.1f %.1f,%.1f", right, low, left, low))
		}
		slices.Reverse(lower)
		p.add(`<polygon points="%s %s" fill="%s"><title>%s</title></polygon>`, strings.Join(upper, " "), strings.Join(lower, " "),
			p.colour(i), escape(sourceName(p.r.Sources[i])))
	}
	p.line(plotLeft, base, plotRight, base, "line")
	p.y = base + 14
}

// rows draws the manifests and blobs.
func (p *picture) rows() {
	for _, w := range p.r.Rows {
		p.add(`<g class="row"><title>%s</title>`, escape(p.story(w)))
		mid := p.y + barHigh - 3
		p.text(margin, mid, class(w, ""), w.Kind)
		p.text(margin+62, mid, class(w, "m s"), short(w.Digest))
		p.text(plotLeft-12, mid, "s e", size(w.Size))
		p.track(w)
		p.add(`</g>`)
		p.y += rowHigh
	}
}

// class marks the text of a row that did not end well.
func class(w pull.Row, usual string) string {
	if w.Result != pull.OK {
		return strings.TrimSpace(usual + " bad")
	}
	return usual
}

// track draws the bar of a row: while it was asked for, what came meanwhile, the
// proof, and the first byte.
func (p *picture) track(w pull.Row) {
	from := p.x(w.Start)
	p.mark(area{from, p.y, max(2, p.x(w.End)-from), barHigh}, "track")
	switch {
	case len(w.Flow.Came) > 0:
		p.came(w)
	case len(w.From) > 0 && w.First != nil:
		p.box(area{p.x(*w.First), p.y, max(2, p.x(w.End)-p.x(*w.First)), barHigh}, p.colour(w.From[0].Source), "")
	}
	if w.Proven != nil {
		p.mark(area{p.x(*w.Proven) - 1.5, p.y - 2, 3, barHigh + 4}, "proof")
	}
	if w.First != nil {
		p.line(p.x(*w.First), p.y-1, p.x(*w.First), p.y+barHigh+1, "tick")
	}
	if w.Result != pull.OK {
		p.text(min(p.x(w.End)+5, plotRight-60), p.y+barHigh-3, "bad b", "✕ "+string(w.Result))
	}
}

// came draws what came of a row: each step as high as the row, shared by sources.
func (p *picture) came(w pull.Row) {
	steps := 0
	for _, came := range w.Flow.Came {
		steps = max(steps, len(came))
	}
	for j := 0; j < steps; {
		shares, next := mix(w.Flow, j), j+1
		for next < steps && slices.Equal(mix(w.Flow, next), shares) {
			next++ // one bar is smoother than many
		}
		left, right := p.x(*w.Fetched+float64(j)*w.Flow.Step), p.x(*w.Fetched+float64(next)*w.Flow.Step)
		y := p.y
		for k, share := range shares {
			p.box(area{left, y, max(1.5, right-left), barHigh * share}, p.colour(w.From[k].Source), "")
			y += barHigh * share
		}
		j = next
	}
}

// mix returns the share of each source in what came in a step.
func mix(f pull.Flow, step int) []float64 {
	shares, all := make([]float64, len(f.Came)), 0.0
	for k, came := range f.Came {
		shares[k] = at(came, step)
		all += shares[k]
	}
	for k := range shares {
		shares[k] /= max(1, all)
	}
	return shares
}

// at is what came in a step; nothing after the last.
func at(came []int64, step int) float64 {
	if step < len(came) {
		return float64(came[step])
	}
	return 0
}

// story tells all of a row.
func (p *picture) story(w pull.Row) string {
	lines := []string{
		w.Kind + " " + w.Digest,
		fmt.Sprintf("%s, of which %s went to the client in %d requests", size(w.Size), size(w.Sent), w.Requests),
		fmt.Sprintf("asked for at %s, the last byte at %s", Seconds(w.Start), Seconds(w.End)),
	}
	if w.First != nil {
		lines = append(lines, "first byte at "+Seconds(*w.First))
	}
	if w.Fetched != nil {
		lines = append(lines, "fetched from "+Seconds(*w.Fetched))
	}
	if w.Proven != nil {
		lines = append(lines, "proven at "+Seconds(*w.Proven))
	}
	for _, s := range w.From {
		lines = append(lines, size(s.Bytes)+" from "+sourceName(p.r.Sources[s.Source]))
	}
	if w.Error != "" {
		lines = append(lines, string(w.Result)+": "+w.Error)
	}
	return strings.Join(lines, "\n")
}

// axis draws the times above and below, and lines between.
func (p *picture) axis(top, bottom float64) {
	step := tick(p.to - p.from)
	for t := math.Ceil(p.from/step) * step; t <= p.to+step/1000; t += step {
		p.line(p.x(t), top-6, p.x(t), bottom, "line")
		for _, y := range []float64{top - 10, bottom + 14} {
			p.text(p.x(t), y, "s c", tickText(t, step))
		}
	}
	p.y = bottom + 20
}

// tick returns a round distance for marks on an axis of so many seconds.
func tick(span float64) float64 {
	step := math.Pow(10, math.Floor(math.Log10(span/maxTicks)))
	for _, factor := range []float64{1, 2, 5, 10} {
		if span/(step*factor) <= maxTicks {
			return step * factor
		}
	}
	return step * 10
}

// tickText is the time at a mark.
func tickText(t, step float64) string {
	unit, scale := "s", 1.0
	if step < 0.1 {
		unit, scale = "ms", 1000
	}
	if math.Abs(t) < step/2 {
		return "0"
	}
	digits := max(0, int(-math.Floor(math.Log10(step*scale)+1e-9)))
	return fmt.Sprintf("%.*f %s", digits, t*scale, unit)
}

// key says what the marks of a row mean.
func (p *picture) key() {
	p.y += 14
	x := plotLeft
	sign := func(wide float64, text string, draw func()) {
		draw()
		p.text(x+22, p.y, "s", text)
		x += wide
	}
	sign(190, "the client waits for it", func() { p.mark(area{x, p.y - 10, 16, 12}, "track") })
	sign(200, "first byte to the client", func() { p.line(x+8, p.y-11, x+8, p.y+3, "tick") })
	sign(110, "all of it is proven", func() { p.mark(area{x + 7, p.y - 11, 3, 14}, "proof") })
	p.y += 6
}

// colour is that of a source of the report.
func (p *picture) colour(n int) string {
	switch s := p.r.Sources[n]; {
	case s.Kind == pull.OriginSource:
		return "#e07b39"
	case s.Kind == pull.CacheSource:
		return "#8896a8"
	case s.Name == "others":
		return "#b08bbf"
	}
	members := []string{"#2f7fd6", "#3bb3c3", "#7a5cd0", "#6fb04a", "#d05c9b", "#1f5aa0", "#2c8577", "#a99a2c", "#9d7be8", "#5d9cec"}
	i := 0
	for _, s := range p.r.Sources[:n] {
		if s.Kind == pull.PeerSource {
			i++
		}
	}
	return members[i%len(members)]
}

// causeColour is that of something that is waited for.
func causeColour(c pull.Cause) string {
	switch c {
	case pull.Lookup:
		return "#e3b93c"
	case pull.Connect:
		return "#b565c9"
	case pull.Registry:
		return "#e07b39"
	case pull.Peers:
		return "#2f7fd6"
	case pull.Proof:
		return "#16a085"
	case pull.Disk:
		return "#8d6748"
	case pull.Client:
		return "#d6568f"
	}
	return "#8896a8"
}
