//go:build linux

package main

import (
	_ "embed" // of the matrix
	"fmt"
	"regexp"
	"time"

	"shoal/benchmarks/scenario"
	"shoal/p2p/p2ptest"
)

// grid is what the matrix is made of, as matrix.yaml has it: each line of one
// list is played with each line of the others.
type grid struct {
	Peers   []peers      `yaml:"peers"`
	Origins []originLine `yaml:"origins"`
	Images  []imageLine  `yaml:"images"`
}

// peers are the members that hold the image, and what is wrong with them.
type peers struct {
	Name    string        `yaml:"name" json:"name"`
	Purpose string        `yaml:"purpose" json:"purpose"`
	Count   int           `yaml:"count" json:"count"`
	Link    scenario.Rate `yaml:"link" json:"link"`     // 0: that of the origin
	Delay   time.Duration `yaml:"delay" json:"delay"`   // of every packet, each way
	Loss    float64       `yaml:"loss" json:"loss"`     // share of the packets, each way
	Frozen  bool          `yaml:"frozen" json:"frozen"` // just before the clock
	Killed  float64       `yaml:"killed" json:"killed"` // when, as a share of the plain pull; 0: never
	Lie     p2ptest.Lie   `yaml:"lie" json:"lie"`       // empty: a real node
}

type originLine struct {
	Name string        `yaml:"name"`
	Link scenario.Rate `yaml:"link"`
}

type imageLine struct {
	Name   string                   `yaml:"name"`
	Layers int                      `yaml:"layers"`
	Size   map[string]scenario.Size `yaml:"size"` // of each layer, by the origin's name
}

// cell is one place of the matrix.
type cell struct {
	peers
	origin originLine
	image  imageLine
}

// name is what -only looks at, and what the cell is called in results.
func (c cell) name() string { return c.Name + "/" + c.origin.Name + "/" + c.image.Name }

// link returns the rate of the peers' links.
func (c cell) link() scenario.Rate {
	if c.Link == 0 {
		return c.origin.Link
	}
	return c.Link
}

// scenario returns the cell as the store and the origin understand it.
func (c cell) scenario() *scenario.Scenario {
	s := &scenario.Scenario{
		Name:   c.origin.Name + "-" + c.image.Name, // the same image for all peers
		Nodes:  scenario.Nodes{Count: 1, Link: c.origin.Link},
		Origin: scenario.Origin{Link: c.origin.Link},
		Image:  scenario.Image{Parallel: 3},
	}
	for range c.image.Layers {
		s.Image.Layers = append(s.Image.Layers, c.image.Size[c.origin.Name])
	}
	return s
}

//go:embed matrix.yaml
var matrixFile []byte

// cells returns those whose names only matches, those of the same peers
// together.
func cells(only *regexp.Regexp) ([]cell, error) {
	var g grid
	if err := scenario.Decode("matrix.yaml", matrixFile, &g); err != nil {
		return nil, err
	}
	var all []cell
	for _, p := range g.Peers {
		for _, o := range g.Origins {
			for _, i := range g.Images {
				if c := (cell{p, o, i}); only.MatchString(c.name()) {
					all = append(all, c)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cell matches %q: their names are as none/fast/one-blob", only)
	}
	return all, nil
}
