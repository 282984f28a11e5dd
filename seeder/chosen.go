package seeder

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	// choiceVersion is that of the files. Newer ones only add fields.
	choiceVersion = 1
	// maxChoice bounds a file, in bytes: maxImages with the longest names that
	// there are take half of it.
	maxChoice = 16 << 20
	choiceEnd = ".json"
	newEnd    = ".new" // of a file that is being written
)

// kept is an image that is chosen.
type kept struct {
	// Listed is when it was chosen last: by a list of its registry, a
	// notification, or because the selection names it.
	Listed time.Time `json:"listed"`
	// Digest is what it was when all of it was here last, if that was ever so.
	Digest digest.Digest `json:"digest,omitempty"`
}

// choice is what a selection chose, by REGISTRY/REPOSITORY:TAG or @DIGEST.
type choice map[string]kept

// oldest returns the first time of all.
func (c choice) oldest() (first time.Time) {
	for _, k := range c {
		first = earlier(first, k.Listed)
	}
	return first
}

// choices are those of all selections, on disk, so that a node that starts while
// a registry is away knows what it kept: DIR/NAME.json each.
type choices struct {
	dir string // "": they are forgotten
}

type choiceFile struct {
	Version int `json:"version"`
	// Selection is which images were asked for: what others came to does not
	// count.
	Selection string `json:"selection"`
	Images    choice `json:"images"`
}

// names tells which images a selection asks for, and nothing of when and where.
func (s Selection) names() string {
	return fmt.Sprintf("%q versions %q newest %d", s.Images, s.Versions, s.Newest)
}

func (c choices) path(name string) string { return filepath.Join(c.dir, name+choiceEnd) }

// read returns what a selection chose last: nothing if that is not known, and if it
// asked for other images then what of these it still asks for. With an error it is
// usable, and empty.
func (c choices) read(r rules) (choice, error) {
	if c.dir == "" {
		return choice{}, nil
	}
	f, err := os.Open(c.path(r.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return choice{}, nil
	}
	if err != nil {
		return choice{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxChoice+1))
	if err != nil {
		return choice{}, err
	}
	images, err := parseChoice(text, r)
	if err != nil {
		return choice{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return images, nil
}

// parseChoice reads the text of a file.
func parseChoice(text []byte, r rules) (choice, error) {
	if len(text) > maxChoice {
		return nil, fmt.Errorf("over %d bytes", maxChoice)
	}
	file := choiceFile{Images: choice{}}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if file.Version < choiceVersion {
		return nil, fmt.Errorf("version %d is none of its own", file.Version)
	}
	if file.Images == nil { // what is chosen later is put into it
		return nil, errors.New("it has no images")
	}
	if file.Selection != r.names() {
		file.Images = r.still(file.Images)
	}
	return file.Images, r.allows(file.Images)
}

// still returns what of a choice that other rules came to these choose, too: as of
// lists that have nothing else. Images by digest are on no list, and left out: they
// are chosen without one.
func (r rules) still(c choice) choice {
	tags := map[string][]string{} // by registry and repository
	for image := range c {
		name := repository(image)
		if tag, ok := strings.CutPrefix(image, name+":"); ok {
			tags[name] = append(tags[name], tag)
		}
	}
	now := choice{}
	for name, tags := range tags {
		for _, p := range r.patterns {
			if !p.coversName(name) {
				continue
			}
			for _, tag := range r.choose(p, tags).tags {
				now[name+":"+tag] = c[name+":"+tag]
			}
		}
	}
	return now
}

// allows returns what of a choice the rules cannot have chosen, or nil.
func (r rules) allows(c choice) error {
	if len(c) > maxImages {
		return fmt.Errorf("%d images", len(c))
	}
	for image, k := range c {
		if !slices.ContainsFunc(r.patterns, func(p pattern) bool { return p.has(image) }) {
			return fmt.Errorf("%.80q is not selected", image)
		}
		if k.Digest != "" && k.Digest.Validate() != nil {
			return fmt.Errorf("%.80q is no digest", k.Digest)
		}
	}
	return nil
}

// write puts what a selection chose in place of what it chose before. What others
// than these selections chose is forgotten.
func (c choices) write(name string, text []byte, selections []Selection) error {
	if len(text) > maxChoice {
		return fmt.Errorf("%s would have %d bytes, %d are the most: use narrower patterns", c.path(name), len(text), maxChoice)
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	if err := replace(c.path(name), text); err != nil {
		return err
	}
	files, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		of, ok := strings.CutSuffix(strings.TrimSuffix(f.Name(), newEnd), choiceEnd)
		if ok && !slices.ContainsFunc(selections, func(s Selection) bool { return s.Name == of }) {
			err = errors.Join(err, os.Remove(filepath.Join(c.dir, f.Name())))
		}
	}
	return err
}

// replace writes a file as a whole: whoever reads it finds this or what was there
// before, also after a crash.
func replace(path string, text []byte) error {
	f, err := os.OpenFile(path+newEnd, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+newEnd, path)
}
