//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/benchmarks/rig"
)

// matrixResults are all pairs of a matrix.
type matrixResults struct {
	Started time.Time     `json:"started"`
	Commit  string        `json:"commit"` // of the tree that was measured
	Machine rig.Machine   `json:"machine"`
	Cells   []*cellResult `json:"cells"`
}

// cellResult is what one cell gave.
type cellResult struct {
	Name   string       `json:"name"`
	Peers  peers        `json:"peers"`
	Origin string       `json:"origin"`
	Image  string       `json:"image"`
	Bytes  int64        `json:"bytes"` // of the image
	Pairs  []pairResult `json:"pairs"`
	Error  string       `json:"error,omitempty"` // which ended it
}

// pairResult is a plain pull and one through Shoal, in seconds.
type pairResult struct {
	Direct  float64 `json:"direct"`
	Through float64 `json:"through"`
	// FromOrigin and FromPeers are what the node took, in bytes.
	FromOrigin int64    `json:"from_origin"`
	FromPeers  int64    `json:"from_peers"`
	Load       rig.Load `json:"load"` // during the pull through Shoal
}

// allowed is how much longer a pull through Shoal may take than a plain one.
func allowed(direct float64) float64 { return max(0.1*direct, 0.15) }

// spread returns that of a value over the pairs.
func (r *cellResult) spread(of func(pairResult) float64) rig.Spread {
	var all []float64
	for _, p := range r.Pairs {
		all = append(all, of(p))
	}
	return rig.SpreadOf(all)
}

// missed tells whether the cell is not as promised: what the median pair took
// more than it was allowed, or no result at all.
func (r *cellResult) missed() bool {
	over := r.spread(func(p pairResult) float64 { return p.Through - p.Direct - allowed(p.Direct) })
	return r.Error != "" || over.Count == 0 || over.Median > 0
}

func (r *cellResult) verdict() string {
	if r.missed() {
		return "**MISSED**"
	}
	return "met"
}

// line says in short what the cell gave.
func (r *cellResult) line() string {
	if r.Error != "" {
		return "FAILED: " + r.Error
	}
	return fmt.Sprintf("%6.2f s plain, %6.2f s through, %+5.0f ms of %4.0f, others %2.0f %%  %s",
		r.spread(plainly).Median, r.spread(throughShoal).Median, 1e3*r.spread(longer).Median, 1e3*r.spread(allowance).Median, 100*r.others(), r.verdict())
}

// The values of a pair.
func plainly(p pairResult) float64      { return p.Direct }
func throughShoal(p pairResult) float64 { return p.Through }
func longer(p pairResult) float64       { return p.Through - p.Direct }
func allowance(p pairResult) float64    { return allowed(p.Direct) }

// others returns the largest share of the processors that programs outside of
// the lab took in a pair.
func (r *cellResult) others() float64 {
	return r.spread(func(p pairResult) float64 { return p.Load.Others }).Max
}

// base returns the files' name in a folder, without its ending.
func (r *matrixResults) base(folder string) string {
	return filepath.Join(folder, "matrix-"+r.Started.UTC().Format("20060102T150405Z"))
}

// save writes all pairs and the table into a folder, over what an earlier call
// wrote.
func (r *matrixResults) save(folder string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.base(folder)+".json", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(r.base(folder)+".md", []byte(r.markdown()), 0o644)
}

// markdown returns the table.
func (r *matrixResults) markdown() string {
	var b strings.Builder
	m, missed := r.Machine, 0
	for _, c := range r.Cells {
		if c.missed() {
			missed++
		}
	}
	fmt.Fprintf(&b, "# Never worse than direct, %s\n\n", r.Started.UTC().Format(time.DateTime+" MST"))
	fmt.Fprintf(&b, "Commit %s; %d x %s, %.0f GB; Linux %s, %s; data on %s; load before %.2f.\n\n",
		r.Commit, m.CPUs, m.Model, float64(m.Memory)/1e9, m.Kernel, m.Go, m.Data, m.Load)
	fmt.Fprintf(&b, "%d of %d cells **missed**. Medians of interleaved pairs (least to largest); *longer* and *allowed*, max(10 %%, 150 ms), are of each pair;\n"+
		"*peers* is the share of the image that came from them; *others* the largest share of the processors that programs outside of the lab took.\n\n", missed, len(r.Cells))
	b.WriteString("| peers | origin | image | pairs | plain, s | through Shoal, s | longer, ms | allowed | | peers | others |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, c := range r.Cells {
		over, peers := c.spread(longer), c.spread(func(p pairResult) float64 { return float64(p.FromPeers) / float64(max(1, c.Bytes)) })
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %v | %v | %.0f (%.0f to %.0f) | %.0f | %s | %.0f %% | %.0f %% |\n",
			c.Peers.Name, c.Origin, c.Image, len(c.Pairs), c.spread(plainly), c.spread(throughShoal),
			1e3*over.Median, 1e3*over.Min, 1e3*over.Max, 1e3*c.spread(allowance).Median, c.verdict(), 100*peers.Median, 100*c.others())
	}
	for _, c := range r.Cells {
		if c.Error != "" {
			fmt.Fprintf(&b, "\n* %s failed: %s\n", c.Name, strings.Join(strings.Fields(c.Error), " "))
		}
	}
	b.WriteString("\nThe peers, all of which hold the image:\n\n")
	told := ""
	for _, c := range r.Cells {
		if c.Peers.Name != told {
			fmt.Fprintf(&b, "* %s: %s\n", c.Peers.Name, c.Peers.Purpose)
			told = c.Peers.Name
		}
	}
	return b.String()
}
