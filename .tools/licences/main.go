// Command licences collects the licences of everything that the binary of a
// package is made of: "licences DIR PACKAGE" lists the packages behind PACKAGE
// for the platform of the environment (GOOS, GOARCH), copies the licence and
// notice files that hold for them into DIR, one folder for each module, and
// writes DIR/modules.txt with path, version and licences of each. A module
// without a licence, or with one that is not on the list below, is an error.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are the licences of dependencies, by their SPDX names, that a binary
// under Apache-2.0 can be passed on with. All but the last ask for no more than
// their text; MPL-2.0 also wants people to be told where the source is, and
// modules.txt does.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// minCover is how much of a licence file, in percent, must be text of known
// licences: the rest is names and years, and no further conditions.
const minCover = 75

var (
	licenceFile = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|patents|copyright|authors)`)
	// Neither is in the binary: code, and the documentation of go-digest.
	otherFile = regexp.MustCompile(`(?i)\.(go|docs)$`)
	// choice is how a file names licences instead of spelling them out.
	choice = regexp.MustCompile(`SPDX-License-Identifier: ([\w.-]+(?: OR [\w.-]+)*)`)
)

// pkg is what "go list -json" says of a package.
type pkg struct {
	Dir      string
	Standard bool
	Module   *module
}

type module struct {
	Path, Version, Dir string
	Main               bool
}

// collector copies what holds for one module after the other.
type collector struct {
	out     string
	modules map[module]map[string]bool // the licences of each
	done    map[string]bool            // folders that were looked at
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "licences: use licences DIR PACKAGE")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(out, target string) error {
	packages, err := list(target)
	if err != nil {
		return err
	}
	c := collector{out: out, modules: map[module]map[string]bool{}, done: map[string]bool{}}
	var bad []error
	for _, p := range packages {
		if p.Module == nil || !p.Module.Main {
			bad = append(bad, c.add(p))
		}
	}
	var lines strings.Builder
	for _, m := range slices.SortedFunc(maps.Keys(c.modules), func(a, b module) int { return strings.Compare(a.Path, b.Path) }) {
		licences := slices.Sorted(maps.Keys(c.modules[m]))
		if len(licences) == 0 && errors.Join(bad...) == nil {
			bad = append(bad, fmt.Errorf("%s %s has no licence: do not use it, or ask its authors for one", m.Path, m.Version))
		}
		fmt.Fprintln(&lines, m.Path, m.Version, strings.Join(licences, ","))
	}
	return errors.Join(append(bad, os.WriteFile(filepath.Join(out, "modules.txt"), []byte(lines.String()), 0o644))...)
}

// list returns the packages that target is made of.
func list(target string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,Standard,Module", target)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", target, err)
	}
	// The standard library is a module like the others, in all but name.
	toolchain, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	root, version, _ := strings.Cut(strings.TrimSpace(string(toolchain)), "\n")
	std := &module{Path: "std", Version: version, Dir: root}
	var packages []pkg
	for dec := json.NewDecoder(strings.NewReader(string(b))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list %s: %w", target, err)
		}
		if p.Standard {
			p.Module, p.Dir = std, root // what else lies there is not linked
		}
		packages = append(packages, p)
	}
}

// add collects what holds for p: the files in its folder and in those above it,
// up to that of its module.
func (c *collector) add(p pkg) error {
	if p.Module == nil {
		return fmt.Errorf("%s belongs to no module", p.Dir)
	}
	if c.modules[*p.Module] == nil {
		c.modules[*p.Module] = map[string]bool{}
	}
	var bad []error
	for dir := p.Dir; !c.done[dir]; dir = filepath.Dir(dir) {
		c.done[dir] = true
		bad = append(bad, c.look(*p.Module, dir))
		if dir == p.Module.Dir {
			break
		}
	}
	return errors.Join(bad...)
}

// look copies the licences and notices in a folder of a module.
func (c *collector) look(m module, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(m.Dir, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		isLicence := licenceFile.MatchString(e.Name())
		if !e.Type().IsRegular() || otherFile.MatchString(e.Name()) || !isLicence && !noticeFile.MatchString(e.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		if isLicence {
			if err := c.judge(m, text); err != nil {
				return fmt.Errorf("%s %s: %s: %w", m.Path, m.Version, filepath.Join(rel, e.Name()), err)
			}
		}
		to := filepath.Join(c.out, filepath.FromSlash(m.Path), rel)
		if err := os.MkdirAll(to, 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// judge finds out which licences a text is, and whether they are allowed.
func (c *collector) judge(m module, text []byte) error {
	found := licensecheck.Scan(text)
	if found.Percent < minCover {
		if named := choice.FindSubmatch(text); named != nil {
			return c.choose(m, strings.Split(string(named[1]), " OR "))
		}
		return fmt.Errorf("only %.0f %% of it is text of known licences: read it, and decide", found.Percent)
	}
	for _, match := range found.Match {
		if err := c.choose(m, []string{match.ID}); err != nil {
			return err
		}
	}
	return nil
}

// choose takes those of the offered licences that are allowed.
func (c *collector) choose(m module, offered []string) error {
	taken := slices.DeleteFunc(slices.Clone(offered), func(id string) bool { return !slices.Contains(allowed, id) })
	if len(taken) == 0 {
		return fmt.Errorf("%s is none of %s: do not use it, or allow it in .tools/licences", strings.Join(offered, " or "), strings.Join(allowed, ", "))
	}
	for _, id := range taken {
		c.modules[m][id] = true
	}
	return nil
}
