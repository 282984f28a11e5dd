package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

const (
	layoutText = `{"imageLayoutVersion":"1.0.0"}`
	blobText   = "some bytes"
)

var blobDigest = digest.FromString(blobText)

func indexText(annotations string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{%s}}]}`, blobDigest, len(blobText), annotations)
}

// entry is a file of a tar, or with a type something else.
type entry struct {
	name, text string
	kind       byte
	size       int64 // that the header claims; 0: that of text
	pax        map[string]string
}

func archiveOf(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: 0o600, Size: int64(len(e.text)), PAXRecords: e.pax}
		if e.kind == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.size > 0 {
			h.Size = e.size
		}
		if h.Typeflag != tar.TypeReg {
			h.Linkname = "/etc/passwd"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush() // fails where a header claims more than there is
	if len(entries) > 0 && entries[len(entries)-1].size == 0 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// usual is a whole archive, with more in front.
func usual(more ...entry) []entry {
	return append(more, entry{name: "oci-layout", text: layoutText}, entry{name: "blobs/", kind: tar.TypeDir},
		entry{name: "blobs/sha256/" + blobDigest.Encoded(), text: blobText}, entry{name: "index.json", text: indexText(`"io.containerd.image.name":"docker.io/library/a:1","org.opencontainers.image.ref.name":"1"`)})
}

// take proves what an archive has.
func take(d blob.Descriptor, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err == nil && (digest.FromBytes(body) != d.Digest || int64(len(body)) != d.Size) {
		err = blob.ErrCorrupt
	}
	return err
}

func packed(t *testing.T, plain []byte, by string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if by == "zstd" {
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readers are what data may be read from.
func readers(data []byte) map[string]io.Reader {
	return map[string]io.Reader{"file": bytes.NewReader(data), "stream": struct{ io.Reader }{bytes.NewReader(data)}}
}

// Of a plain file, from where it stands, blobs can be read when all of it was gone
// through, in any order; of others they cannot.
func TestReadApart(t *testing.T) {
	more := "more bytes"
	plain := archiveOf(t, usual(entry{name: "blobs/sha256/" + digest.FromString(more).Encoded(), text: more})...)
	file := bytes.NewReader(append([]byte("before"), plain...))
	if _, err := file.Seek(6, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var later []func() error
	if _, err := Read(file, 1000, func(d blob.Descriptor, r io.Reader) error {
		section, ok := r.(*io.SectionReader)
		if !ok {
			t.Fatalf("%s is no part of a file", d.Digest)
		}
		later = append(later, func() error { return take(d, section) })
		return nil
	}); err != nil || len(later) != 2 {
		t.Fatalf("%d blobs, %v", len(later), err)
	}
	for i := len(later) - 1; i >= 0; i-- {
		if err := later[i](); err != nil {
			t.Errorf("blob %d: %v", i, err)
		}
	}
	for name, r := range map[string]io.Reader{
		"stream": struct{ io.Reader }{bytes.NewReader(plain)}, "gzip": bytes.NewReader(packed(t, plain, "gzip")), "zstd": bytes.NewReader(packed(t, plain, "zstd")),
	} {
		if _, err := Read(r, 1000, func(d blob.Descriptor, r io.Reader) error {
			if _, ok := r.(*io.SectionReader); ok {
				t.Errorf("%s: a blob is said to be part of a file", name)
			}
			return take(d, r)
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRead(t *testing.T) {
	want := []Named{{blob.Descriptor{Digest: blobDigest, Size: int64(len(blobText)), MediaType: "application/vnd.oci.image.manifest.v1+json"}, "docker.io/library/a:1"}}
	plain := archiveOf(t, usual(entry{name: "./repositories", text: "{}"}, entry{name: "manifest.json", text: "[]"}, entry{name: "x/layer.tar", kind: tar.TypeSymlink})...)
	for name, data := range map[string][]byte{"plain": plain, "zstd": packed(t, plain, "zstd"), "gzip": packed(t, plain, "gzip")} {
		for how, r := range readers(data) {
			got, err := Read(r, 1000, take)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s, %s: %+v, %v", name, how, got, err)
			}
		}
	}
	for annotations, want := range map[string]string{
		``: "", `"org.opencontainers.image.ref.name":"1"`: "", `"org.opencontainers.image.ref.name":"quay.io/a/b:1"`: "quay.io/a/b:1",
	} {
		entries := usual()
		entries[3].text = indexText(annotations)
		if got, err := Read(bytes.NewReader(archiveOf(t, entries...)), 1000, take); err != nil || got[0].Image != want {
			t.Errorf("%s: %+v, %v", annotations, got, err)
		}
	}
}

// What is hostile or broken is refused in one line that says what.
func TestHostileArchives(t *testing.T) {
	blobName := "blobs/sha256/" + blobDigest.Encoded()
	whole := archiveOf(t, usual()...)
	bomb := archiveOf(t, usual(entry{name: "padding", text: strings.Repeat("\x00", 100<<20)})...)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":               {nil, "it is empty, or cut off"},
		"no tar":                {bytes.Repeat([]byte("no tar "), 200), "it is no tar"},
		"cut in a header":       {whole[:1200], "it is cut off"},
		"cut in a blob":         {archiveOf(t, entry{name: blobName, text: "some", size: 10}), "it is cut off"},
		"cut zstd":              {packed(t, whole, "zstd")[:100], "it is cut off"},
		"broken zstd":           {append(packed(t, nil, "zstd")[:4], bytes.Repeat([]byte{0xff}, 50)...), "read: "},
		"cut gzip":              {packed(t, whole, "gzip")[:100], "it is cut off"},
		"a bomb":                {packed(t, bomb, "zstd"), "it expands to more than 100 times its size"},
		"a bomb by gzip":        {packed(t, bomb, "gzip"), "it expands to more than 100 times its size"},
		"a way out":             {archiveOf(t, usual(entry{name: "../../etc/passwd", text: "x"})...), `a file is called "../../etc/passwd"`},
		"a way out in between":  {archiveOf(t, usual(entry{name: "blobs/sha256/../../../x", text: "x"})...), "a file is called"},
		"an absolute way":       {archiveOf(t, usual(entry{name: "/etc/passwd", text: "x"})...), "a file is called"},
		"a link":                {archiveOf(t, usual(entry{name: blobName, kind: tar.TypeSymlink})...), "is no plain file"},
		"a hard link":           {archiveOf(t, usual(entry{name: blobName, kind: tar.TypeLink})...), "is no plain file"},
		"no digest":             {archiveOf(t, usual(entry{name: "blobs/sha256/abc", text: "x"})...), "is no name of a blob"},
		"wrong bytes":           {archiveOf(t, usual(entry{name: "blobs/sha256/" + digest.FromString("x").Encoded(), text: "y"})...), blob.ErrCorrupt.Error()},
		"too much":              {archiveOf(t, entry{name: blobName, text: blobText, size: 1 << 40}), "more bytes than the cache may take"},
		"too much in all":       {archiveOf(t, usual(entry{name: "blobs/sha256/" + digest.FromString(strings.Repeat("a", 995)).Encoded(), text: strings.Repeat("a", 995)})...), "more bytes than the cache may take"},
		"a long index":          {archiveOf(t, entry{name: "index.json", text: "{}", size: maxText + 1}), "index.json has"},
		"no index":              {archiveOf(t, usual()[:3]...), "there is no index.json"},
		"of docker alone":       {archiveOf(t, entry{name: "manifest.json", text: "[]"}), `"docker save" without an OCI layout`},
		"an index that is none": {archiveOf(t, append(usual()[:3], entry{name: "index.json", text: "[]"})...), "index.json: json"},
		"an empty index":        {archiveOf(t, append(usual()[:3], entry{name: "index.json", text: "{}"})...), "names no image"},
		"an index of nonsense":  {archiveOf(t, append(usual()[:3], entry{name: "index.json", text: `{"manifests":[{"digest":"sha256:00"}]}`})...), "index.json names"},
		"no layout":             {archiveOf(t, usual()[1:]...), "oci-layout is missing"},
		"another layout":        {archiveOf(t, append([]entry{{name: "oci-layout", text: `{"imageLayoutVersion":"9"}`}}, usual()[1:]...)...), `of a version that is not known: "9"`},
		"a sparse file":         {sparseArchive(t), "is a sparse file"},
	} {
		for how, r := range readers(c.data) {
			_, err := Read(r, 1000, take)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || !errors.Is(err, ErrInvalid) && !errors.Is(err, blob.ErrCorrupt) {
				t.Errorf("%s, %s: %v, want %s", name, how, err, c.want)
			}
		}
	}
	many := make([]entry, maxEntries+1)
	for i := range many {
		many[i] = entry{name: "x"}
	}
	if _, err := Read(bytes.NewReader(archiveOf(t, many...)), 1000, take); !errors.Is(err, ErrInvalid) {
		t.Errorf("many files: %v", err)
	}
}

// sparseArchive is a blob of zeros that takes nothing of the archive.
func sparseArchive(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join("blobs", "sha256", digest.FromBytes(make([]byte, 900)).Encoded())
	if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, name), 900); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "--sparse", "--format=posix", "-cf", "-", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// What is written is read again, of the size that was told, with files of zero,
// block and odd lengths.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	var l Layout
	for _, n := range []int{0, 1, 511, 512, 513, 70_000} {
		data := bytes.Repeat([]byte{byte(n)}, n)
		path := filepath.Join(dir, fmt.Sprint(n))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		l.Blobs = append(l.Blobs, Content{blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(n)}, f})
	}
	l.Index.Add("docker.io/library/a:1", l.Blobs[0].Descriptor)
	l.Index.Add("", l.Blobs[1].Descriptor)
	l.Docker = []DockerImage{{Config: BlobPath(l.Blobs[1].Descriptor), RepoTags: []string{"docker.io/library/a:1"}}}
	size, err := l.Size()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := l.Write(&b); err != nil || int64(b.Len()) != size {
		t.Fatalf("%d bytes, %d were told, %v", b.Len(), size, err)
	}
	n := 0
	got, err := Read(&b, size, func(d blob.Descriptor, r io.Reader) error { n++; return take(d, r) })
	if err != nil || n != len(l.Blobs) || len(got) != 2 || got[0].Image != "docker.io/library/a:1" || got[1].Image != "" {
		t.Errorf("%d blobs, %+v, %v", n, got, err)
	}
}

// FuzzRead: whatever a file holds, it is an archive or an error of one line, and
// no blob is taken twice as long as it says.
func FuzzRead(f *testing.F) {
	var t testing.T
	f.Add(archiveOf(&t, usual()...))
	f.Add(archiveOf(&t, usual(entry{name: "a", kind: tar.TypeSymlink})...))
	f.Add(packed(&t, archiveOf(&t, usual()...), "zstd"))
	f.Add(packed(&t, archiveOf(&t, usual()...), "gzip"))
	f.Fuzz(func(t *testing.T, data []byte) {
		total := int64(0)
		_, err := Read(bytes.NewReader(data), 1<<20, func(d blob.Descriptor, r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			if total += n; err == nil && n != d.Size {
				t.Errorf("%d bytes of %d", n, d.Size)
			}
			return err
		})
		if total > 1<<20 {
			t.Errorf("%d bytes", total)
		}
		if err != nil && (!errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%q", err)
		}
	})
}
