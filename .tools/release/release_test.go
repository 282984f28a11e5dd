// Package release holds the test of .ci/release, which is no part of the main
// module's tests: it builds for every platform.
package release

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	repository = "../.."
	tag        = "v0.0.1"
	name       = "shoal-" + tag + "-linux-amd64"
)

// run executes a command in dir and returns what it prints.
func run(t *testing.T, dir string, env []string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// tree copies the files of the repository, changed ones included, into dir, as
// a repository with one tagged commit.
func tree(t *testing.T, dir string) {
	t.Helper()
	run(t, repository, []string{"TO=" + dir}, "sh", "-c", `tar -c --exclude=./.git --exclude=./bin --exclude=./dist . | tar -x --no-same-owner -C "$TO"`)
	const when = "2026-01-02T03:04:05Z"
	for _, command := range []string{"init -q", "add -A", "commit -qm release", "tag " + tag} {
		run(t, dir, []string{"GIT_AUTHOR_DATE=" + when, "GIT_COMMITTER_DATE=" + when}, append([]string{
			"git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false", "-c", "core.autocrlf=false",
		}, strings.Fields(command)...)...)
	}
}

// release builds one in dir and returns its files by name.
func release(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	tree(t, dir)
	run(t, dir, nil, ".ci/release", "linux/amd64")
	files := map[string][]byte{}
	entries, err := os.ReadDir(filepath.Join(dir, "dist"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, "dist", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestRelease builds one twice, in folders of different names.
func TestRelease(t *testing.T) {
	one := release(t, t.TempDir())
	elsewhere := filepath.Join(t.TempDir(), "some", "where else")
	if err := os.MkdirAll(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	two := release(t, elsewhere)
	want := []string{"SHA256SUMS", name + ".cdx.json", name + ".tar.gz"}
	if got := slices.Sorted(maps.Keys(one)); !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	for file := range one {
		if !bytes.Equal(one[file], two[file]) {
			t.Errorf("%s: %x here, %x elsewhere", file, sha256.Sum256(one[file]), sha256.Sum256(two[file]))
		}
	}
	var sums strings.Builder
	for _, file := range want[1:] {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(one[file]), file)
	}
	if string(one["SHA256SUMS"]) != sums.String() {
		t.Errorf("SHA256SUMS:\n%s, want\n%s", one["SHA256SUMS"], &sums)
	}
	files := unpack(t, one[name+".tar.gz"])
	checkBinary(t, files["shoal"])
	checkMaterials(t, one[name+".cdx.json"], string(files["licences/modules.txt"]))
	for _, file := range []string{"LICENSE", "README.md", "licences/std/LICENSE", "licences/github.com/libp2p/go-libp2p/LICENSE"} {
		if len(files[file]) == 0 {
			t.Errorf("%s is not in the archive", file)
		}
	}
}

// unpack returns the files of an archive, which tell nothing of who made it,
// and when.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("gzip says %s, %q", z.ModTime, z.Name)
	}
	files := map[string][]byte{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) || h.Mode&0o022 != 0 {
			t.Errorf("%s: %o, %d %d %q %q, %s", h.Name, h.Mode, h.Uid, h.Gid, h.Uname, h.Gname, h.ModTime)
		}
		path, ok := strings.CutPrefix(h.Name, name+"/")
		if !ok {
			t.Errorf("%s lies outside of %s", h.Name, name)
		}
		if files[path], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// checkBinary runs it.
func checkBinary(t *testing.T, b []byte) {
	t.Helper()
	checkStatic(t, b)
	path := filepath.Join(t.TempDir(), "shoal")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	said := run(t, ".", nil, path, "version")
	if want := regexp.MustCompile(`^shoal ` + tag + ` go1\S+ linux/amd64 commit [0-9a-f]{12} libp2p v0\S+\n$`); !want.MatchString(said) {
		t.Errorf("it says %q, want %s", said, want)
	}
}

func checkStatic(t *testing.T, b []byte) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("not static: has %s", p.Type)
		}
	}
}

// checkMaterials compares the bill of materials with the list of licences: two
// programs have found the same modules.
func checkMaterials(t *testing.T, bill []byte, licences string) {
	t.Helper()
	var doc struct {
		BOMFormat, SerialNumber string
		Metadata                struct{ Timestamp string }
		Components              []struct{ Name, Version string }
	}
	if err := json.Unmarshal(bill, &doc); err != nil || doc.BOMFormat != "CycloneDX" || doc.SerialNumber != "" || doc.Metadata.Timestamp != "" {
		t.Errorf("bill of materials: %+v, %v", doc, err)
	}
	billed, licensed := map[string]bool{}, map[string]bool{}
	for _, c := range doc.Components {
		billed[c.Name+" "+c.Version] = true
	}
	for line := range strings.Lines(licences) {
		words := strings.Fields(line)
		if len(words) != 3 {
			t.Fatalf("modules.txt: %q", line)
		}
		licensed[words[0]+" "+words[1]] = true
	}
	if len(billed) < 50 || !maps.Equal(billed, licensed) {
		t.Errorf("modules in the bill\n%q\nwith a licence\n%q", slices.Sorted(maps.Keys(billed)), slices.Sorted(maps.Keys(licensed)))
	}
}

// TestOtherPlatforms builds for those that cannot be run here: for PLATFORMS, or
// if that is empty for one with another system and another processor, as each
// takes 180 s of processor time when nothing is compiled yet.
func TestOtherPlatforms(t *testing.T) {
	for _, platform := range strings.Fields(cmp.Or(os.Getenv("PLATFORMS"), "darwin/arm64")) {
		t.Run(platform, func(t *testing.T) {
			system, processor, _ := strings.Cut(platform, "/")
			path := filepath.Join(t.TempDir(), "shoal")
			run(t, repository, []string{"CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOOS=" + system, "GOARCH=" + processor},
				"go", "build", "-buildvcs=false", "-o", path, "./cmd/shoal")
			if system == "linux" {
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				checkStatic(t, b)
			}
		})
	}
}
