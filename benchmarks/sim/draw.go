package main

import (
	"cmp"
	"fmt"
	"image/color"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// curve is one line of the picture.
type curve struct {
	name   string
	color  color.Color
	glyph  draw.GlyphDrawer
	of     func(*outcome) float64
	target float64 // dashed; what a thousand nodes shall keep
}

func curves() []curve {
	blue, red := color.RGBA{R: 0x1f, G: 0x5f, B: 0xb4, A: 0xff}, color.RGBA{R: 0xc2, G: 0x3b, B: 0x22, A: 0xff}
	return []curve{
		{"makespan / bound", blue, draw.CircleGlyph{}, func(o *outcome) float64 { return o.Result.Ratio }, 1.10},
		{"copies that left the origin", red, draw.SquareGlyph{}, func(o *outcome) float64 { return o.Result.Copies }, 1.05},
	}
}

// draw draws the medians over the size of the crowd.
func (r *report) draw(file string) error {
	p := plot.New()
	p.Title.Text = "All nodes cold at once\n" + r.subject()
	p.X.Label.Text, p.Y.Label.Text = "nodes", "1 is what no protocol can beat"
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, sizes(r.Runs)
	p.Y.Min = 1
	p.Y.Tick.Marker = hundredths{}
	p.Legend.Top = true
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0xe0}, color.Gray{0xe0}
	p.Add(grid)
	for _, c := range curves() {
		line, points, err := plotter.NewLinePoints(r.medians(c.of))
		if err != nil {
			return err
		}
		line.Color, line.Width = c.color, vg.Points(2)
		points.Color, points.Shape, points.Radius = c.color, c.glyph, vg.Points(4)
		target := plotter.NewFunction(func(float64) float64 { return c.target })
		target.Color, target.Dashes = c.color, []vg.Length{vg.Points(6), vg.Points(4)}
		p.Add(target, line, points)
		p.Legend.Add(c.name, line, points)
		p.Legend.Add(fmt.Sprintf("at most %.2f for 1,000 nodes", c.target), target)
		p.Y.Max = max(p.Y.Max, line.XYs[len(line.XYs)-1].Y, c.target)
	}
	p.Y.Max += 0.35 * (p.Y.Max - p.Y.Min) // for the legend
	p.X.Max *= 1.6                        // for half of the last label, in any font
	p.Legend.Padding, p.Legend.Left = vg.Points(3), true
	for _, style := range []*draw.TextStyle{&p.X.Label.TextStyle, &p.Y.Label.TextStyle} {
		style.Font.Size = vg.Points(13)
	}
	p.Title.TextStyle.Font.Size = vg.Points(14)
	p.Title.Padding = vg.Points(8)
	return p.Save(18*vg.Centimeter, 12*vg.Centimeter, file)
}

// subject says what is drawn.
func (r *report) subject() string {
	s := r.Runs[0].Scenario
	return fmt.Sprintf("%v, origin %v, links %v, latency %v", s.Image.Layers[0], s.Origin.Link, s.Nodes.Link, s.Latency)
}

// medians returns the median of each size of the crowd, by size.
func (r *report) medians(of func(*outcome) float64) plotter.XYs {
	by := map[int][]float64{}
	for _, o := range r.Runs {
		by[o.Scenario.Nodes.Count] = append(by[o.Scenario.Nodes.Count], of(o))
	}
	var all plotter.XYs
	for n, values := range by {
		slices.Sort(values)
		k := len(values)
		all = append(all, plotter.XY{X: float64(n), Y: (values[(k-1)/2] + values[k/2]) / 2})
	}
	slices.SortFunc(all, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
	return all
}

// hundredths are the ticks of shares that differ little.
type hundredths struct{}

func (hundredths) Ticks(lowest, highest float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(lowest, highest)
	for i := range ticks {
		if !ticks[i].IsMinor() {
			ticks[i].Label = strconv.FormatFloat(ticks[i].Value, 'f', 2, 64)
		}
	}
	return ticks
}

// sizes are the ticks: the sizes of the crowd.
func sizes(runs []*outcome) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for _, o := range runs {
		n := o.Scenario.Nodes.Count
		ticks = append(ticks, plot.Tick{Value: float64(n), Label: strconv.Itoa(n)})
	}
	return ticks
}
