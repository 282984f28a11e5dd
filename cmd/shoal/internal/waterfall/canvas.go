package waterfall

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// canvas is an SVG that grows.
type canvas struct{ strings.Builder }

// style are the colours, for light and dark backgrounds, and the fonts. All of a
// hue are told apart by people who see no red or green, too: they differ in
// lightness.
const style = `
:root{--bg:#fff;--ink:#1c2430;--soft:#5d6b7c;--line:#e3e8ee;--track:#e9eef4;--bad:#c62828}
@media (prefers-color-scheme:dark){:root{--bg:#11161d;--ink:#e6ebf2;--soft:#9aa7b6;--line:#27303b;--track:#222b36;--bad:#ff7b72}}
svg{background:var(--bg)}
text{font:12px ui-sans-serif,system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:var(--ink)}
.h{font-size:19px;font-weight:600}.w{font-size:15px}.s{fill:var(--soft)}.m{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:11px}
.e{text-anchor:end}.c{text-anchor:middle}.b{font-weight:600}.bad{fill:var(--bad)}
.line{stroke:var(--line);stroke-width:1}.track{fill:var(--track)}.tick{stroke:var(--ink);stroke-width:1.5}.proof{fill:#16a085}
.row:hover .track{stroke:var(--soft)}
`

// escape makes a text safe in an element and in an attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func (c *canvas) add(format string, args ...any) { _, _ = fmt.Fprintf(c, format+"\n", args...) }

// text writes a line of text with its classes.
func (c *canvas) text(x, y float64, class, s string) {
	c.add(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, escape(s))
}

// area is a rectangle.
type area struct{ x, y, width, height float64 }

func (a area) String() string {
	return fmt.Sprintf(`x="%.1f" y="%.1f" width="%.1f" height="%.1f"`, a.x, a.y, a.width, a.height)
}

// box fills an area with a colour, with what is shown of it when it is pointed at.
func (c *canvas) box(a area, colour, title string) {
	if a.width <= 0 || a.height <= 0 {
		return
	}
	if title == "" {
		c.add(`<rect %s fill="%s"/>`, a, colour)
		return
	}
	c.add(`<rect %s fill="%s"><title>%s</title></rect>`, a, colour, escape(title))
}

// mark draws an area as a class says.
func (c *canvas) mark(a area, class string) { c.add(`<rect %s rx="2" class="%s"/>`, a, class) }

// line draws one of a class.
func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	c.add(`<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`, x1, y1, x2, y2, class)
}

// elide shortens the middle of a text that has more characters than fit.
func elide(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	tail := most / 2
	return string(runes[:most-tail-1]) + "…" + string(runes[len(runes)-tail:])
}
