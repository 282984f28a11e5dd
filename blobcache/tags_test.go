package blobcache

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"shoal/blobcache/blob"
)

// What is forgotten of tags is not back after a crash, though nothing else was
// written meanwhile.
func TestForgottenTagsStayForgotten(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir, Options{})
	tag := Tag{Manifest: blob.Descriptor{Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Size: 3}, At: time.Unix(5, 0).UTC()}
	for _, key := range []string{"a:1", "a:2", "b:1"} {
		c.KeepTag(key, tag)
	}
	if n, err := c.ForgetTags("a:", func(got Tag) bool { return got == tag }); n != 2 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	// A copy of the file is what a crash leaves.
	text, err := os.ReadFile(filepath.Join(dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	after := t.TempDir()
	if err := os.WriteFile(filepath.Join(after, "meta.db"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	c = open(t, after, Options{})
	if all := c.Tags(""); len(all) != 1 || all["b:1"] != tag {
		t.Errorf("after a crash: %v", all)
	}
	if _, ok := c.Tag("a:1"); ok {
		t.Error("it is back")
	}
}

// What is dropped is gone at once, and whoever reads it reads on.
func TestDrop(t *testing.T) {
	c := open(t, t.TempDir(), Options{})
	s := newSample(1000, 1)
	put(t, c, s)
	b, err := c.Get(t.Context(), s.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Drop(s.Digest) || c.Drop(s.Digest) {
		t.Error("it was here once")
	}
	if _, ok := c.Stat(s.Digest); ok {
		t.Error("it is still here")
	}
	if got, err := io.ReadAll(b.File()); err != nil || !bytes.Equal(got, s.data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	put(t, c, s)
	has(t, c, s)
	if c.used != s.Size {
		t.Errorf("%d bytes are counted", c.used)
	}
}
