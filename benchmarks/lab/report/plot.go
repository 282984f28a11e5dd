package report

import (
	"fmt"
	"image/color"
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
	if !slices.ContainsFunc(r.Summaries(), func(s Summary) bool { return s.Failed < s.Runs }) {
		return nil, nil
	}
	for _, p := range []struct {
		figure      Figure
		file, label string
	}{
		{figure: Proven, file: "makespan", label: "seconds until all is proven / bound"},
		{figure: Copies, file: "copies", label: "copies that left the origin"},
	} {
		file := base + "-" + p.file + ".svg"
		if err := r.plot(p.figure, p.label, file); err != nil {
			return nil, fmt.Errorf("plot %s: %w", file, err)
		}
		files = append(files, file)
	}
	return files, nil
}

// plot writes bars of one figure.
func (r *Results) plot(f Figure, label, file string) error {
	summaries := r.Summaries()
	var scenarios, contenders []string
	for _, s := range summaries {
		if !slices.Contains(scenarios, s.Scenario) {
			scenarios = append(scenarios, s.Scenario)
		}
		if !slices.Contains(contenders, s.Contender) {
			contenders = append(contenders, s.Contender)
		}
	}
	p := plot.New()
	p.Title.Text = label
	p.Y.Min = 0
	p.X.Tick.Label.Rotation = 0.5
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = text.XRight, text.YCenter
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	const width = 12 // points
	for i, contender := range contenders {
		values := make(plotter.Values, len(scenarios))
		var labels plotter.XYLabels
		offset := width * (vg.Length(i) - vg.Length(len(contenders)-1)/2)
		for _, s := range summaries {
			if s.Contender != contender || s.Figures[f].Count == 0 {
				continue
			}
			x := slices.Index(scenarios, s.Scenario)
			values[x] = s.Figures[f].Median
			labels.XYs = append(labels.XYs, plotter.XY{X: float64(x), Y: values[x]})
			labels.Labels = append(labels.Labels, fmt.Sprintf("%.2f", values[x]))
		}
		bars, err := plotter.NewBarChart(values, width)
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width, bars.Offset = plotutil.Color(i), 0, offset
		numbers, err := plotter.NewLabels(labels)
		if err != nil {
			return err
		}
		numbers.Offset.X = offset
		for j := range numbers.TextStyle {
			numbers.TextStyle[j].Rotation, numbers.TextStyle[j].XAlign = 1.57, text.XLeft
			numbers.TextStyle[j].YAlign, numbers.TextStyle[j].Color = text.YCenter, color.Black
			numbers.TextStyle[j].Font.Size = 8
		}
		p.Add(bars, numbers)
		p.Legend.Add(contender, bars)
	}
	p.NominalX(scenarios...)
	p.Y.Max *= 1.15 // room for the numbers
	return p.Save(vg.Length(max(400, 60+len(scenarios)*(len(contenders)*width+40))), 320, file)
}
