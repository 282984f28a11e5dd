package report

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// Plots writes bars of makespan / bound and of copies, for each scenario and
// contender, to SVG files whose names begin with base. It returns their names.
// There is nothing to draw if no run has figures.
func (r *Results) Plots(base string) ([]string, error) {
	var files []string
	for _, p := range []struct {
		figure      Figure
		file, label string
	}{
		{figure: Proven, file: "makespan", label: "seconds until all is proven / bound"},
		{figure: Copies, file: "copies", label: "copies that left the origin"},
	} {
		if len(r.groups(p.figure)) == 0 {
			continue
		}
		file := base + "-" + p.file + ".svg"
		if err := r.plot(p.figure, p.label, file); err != nil {
			return nil, fmt.Errorf("plot %s: %w", file, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// barWidth is that of a bar, in points.
const barWidth = 14

// plot writes bars of one figure, side by side for each scenario, and a line at
// one: the bound, or one copy.
func (r *Results) plot(f Figure, label, file string) error {
	p := plot.New()
	p.Title.Text = label
	p.Y.Min = 0
	p.X.Tick.Label.Rotation = 0.5
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = text.XRight, text.YCenter
	p.Legend.Top, p.Legend.XOffs = true, vg.Points(-8)
	one := plotter.NewFunction(func(float64) float64 { return 1 })
	one.Dashes = plotutil.Dashes(1)
	p.Add(plotter.NewGrid(), one)
	var scenarios, contenders []string
	for _, group := range r.groups(f) {
		for i, s := range group {
			known := slices.Contains(contenders, s.Contender)
			if !known {
				contenders = append(contenders, s.Contender)
			}
			bars, numbers, err := bar(len(scenarios), s.Figures[f].Median)
			if err != nil {
				return err
			}
			bars.Color = plotutil.Color(slices.Index(contenders, s.Contender))
			bars.Offset = barWidth * (vg.Length(i) - vg.Length(len(group)-1)/2)
			numbers.Offset.X = bars.Offset
			p.Add(bars, numbers)
			if !known {
				p.Legend.Add(s.Contender, bars)
			}
		}
		scenarios = append(scenarios, group[0].Scenario)
	}
	p.NominalX(scenarios...)
	p.X.Min, p.X.Max = -0.5, float64(len(scenarios))-0.5
	p.Y.Max = max(p.Y.Max, 1) * 1.15 // room for the numbers
	return p.Save(vg.Length(max(400, 120+90*len(scenarios))), 360, file)
}

// groups returns the summaries that have the figure, by scenario.
func (r *Results) groups(f Figure) [][]Summary {
	var groups [][]Summary
	for _, s := range r.Summaries() {
		if s.Figures[f].Count == 0 {
			continue
		}
		if last := len(groups) - 1; last >= 0 && groups[last][0].Scenario == s.Scenario {
			groups[last] = append(groups[last], s)
			continue
		}
		groups = append(groups, []Summary{s})
	}
	return groups
}

// bar returns a bar at the place x, and its value above it.
func bar(x int, value float64) (*plotter.BarChart, *plotter.Labels, error) {
	bars, err := plotter.NewBarChart(plotter.Values{value}, barWidth)
	if err != nil {
		return nil, nil, err
	}
	bars.XMin, bars.LineStyle.Width = float64(x), 0
	numbers, err := plotter.NewLabels(plotter.XYLabels{
		XYs: []plotter.XY{{X: float64(x), Y: value}}, Labels: []string{fmt.Sprintf(" %.2f", value)},
	})
	if err != nil {
		return nil, nil, err
	}
	style := &numbers.TextStyle[0]
	style.Rotation, style.XAlign, style.YAlign = math.Pi/2, text.XLeft, text.YCenter
	style.Font.Size = 8
	return bars, numbers, nil
}
