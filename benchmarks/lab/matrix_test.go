//go:build linux

package main

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestCells(t *testing.T) {
	o, err := parseMatrixOptions(nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range o.cells {
		if seen[c.name()] {
			t.Errorf("%s twice", c.name())
		}
		seen[c.name()] = true
		if len(c.scenario().Image.Layers) == 0 || c.scenario().Image.Layers[0] == 0 || c.origin.Link == 0 || c.Purpose == "" {
			t.Errorf("%+v", c)
		}
		if (c.Count > 0) != (c.Name != "none") {
			t.Errorf("%s has %d peers", c.name(), c.Count)
		}
	}
	if len(o.cells) != 9*2*3 || !seen["dying/slow/ten-layers"] {
		t.Errorf("%d cells", len(o.cells))
	}
	if o, err = parseMatrixOptions([]string{"-only", "^(far|wrong)/slow"}, io.Discard); err != nil || len(o.cells) != 6 {
		t.Errorf("%d cells, %v", len(o.cells), err)
	}
	for _, bad := range [][]string{{"-only", "("}, {"-only", "nothing"}, {"-runs", "0"}, {"more"}} {
		if _, err := parseMatrixOptions(bad, io.Discard); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestMatrixVerdicts(t *testing.T) {
	pair := func(direct, through float64) pairResult { return pairResult{Direct: direct, Through: through} }
	for name, c := range map[string]struct {
		cell   cellResult
		missed bool
	}{
		"within 150 ms":        {cellResult{Pairs: []pairResult{pair(1, 1.14), pair(1, 1.16), pair(1, 1.1)}}, false},
		"within 10 %":          {cellResult{Pairs: []pairResult{pair(10, 10.9)}}, false},
		"over 150 ms":          {cellResult{Pairs: []pairResult{pair(1, 1.14), pair(1, 1.16), pair(1, 1.2)}}, true},
		"over 10 %":            {cellResult{Pairs: []pairResult{pair(10, 11.1)}}, true},
		"nothing was measured": {cellResult{}, true},
		"failed":               {cellResult{Pairs: []pairResult{pair(1, 1)}, Error: errors.New("broken").Error()}, true},
	} {
		c.cell.Name, c.cell.Peers.Name = "x", "x"
		r := &matrixResults{Cells: []*cellResult{&c.cell}}
		if c.cell.missed() != c.missed || strings.Contains(r.markdown(), "| **MISSED** |") != c.missed {
			t.Errorf("%s: missed %v\n%s", name, c.cell.missed(), r.markdown())
		}
	}
}
