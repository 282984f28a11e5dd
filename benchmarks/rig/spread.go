package rig

import (
	"fmt"
	"slices"
)

// Spread is the median of some values, and the least and the largest of them.
type Spread struct {
	Median, Min, Max float64
	Count            int // of values; the rest is 0 if there are none
}

// SpreadOf returns the spread of values.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], Count: n}
}

// String returns "median (min-max)".
func (s Spread) String() string {
	switch s.Count {
	case 0:
		return "-"
	case 1:
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Min, s.Max)
}
