package meta

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"shoal/blobcache/blob"
)

// What was kept of tags is there at once, after a flush and after another
// start; what was forgotten is not, wherever it stood.
func TestTags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "meta.db")
	s := open(t, path)
	put := func(key, name string) Tag {
		t.Helper()
		tag := Tag{Manifest: desc(name, 7), At: time.Unix(5, 6).UTC()}
		if err := s.PutTag(key, tag); err != nil {
			t.Fatal(err)
		}
		return tag
	}
	check := func(when string, prefix string, want map[string]Tag) {
		t.Helper()
		got, err := s.Tags(prefix)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v (%v), want %v", when, got, err, want)
		}
		for key, tag := range want {
			if one, ok, err := s.Tag(key); err != nil || !ok || one != tag {
				t.Errorf("%s: %s is %v %v %v", when, key, one, ok, err)
			}
		}
	}
	put("a:1\nx", "old")
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	want := map[string]Tag{"a:1\nx": put("a:1\nx", "one"), "a:1\ny": put("a:1\ny", "two"), "a:2\nx": put("a:2\nx", "one")}
	put("b:1\nx", "one")
	check("before a flush", "a:", want)
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	check("after a flush", "a:", want)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	check("after a start", "a:", want)

	one := func(tag Tag) bool { return tag.Manifest.Digest == desc("one", 7).Digest }
	if n, err := s.DeleteTags("a:1\n", one); n != 1 || err != nil {
		t.Errorf("forgot %d, %v", n, err)
	}
	delete(want, "a:1\nx")
	put("a:3\nx", "one")
	if n, err := s.DeleteTags("a:3", one); n != 1 || err != nil {
		t.Errorf("forgot %d of what is not on disk, %v", n, err)
	}
	for _, when := range []string{"forgotten", "forgotten on disk"} {
		check(when, "a:", want)
		if _, ok, err := s.Tag("a:1\nx"); ok || err != nil {
			t.Errorf("%s: it is there (%v)", when, err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path)
	check("forgotten, after a start", "a:", want)
	if all, err := s.Tags(""); err != nil || len(all) != 3 {
		t.Errorf("all: %v %v", slices.Sorted(maps.Keys(all)), err)
	}
}

// A value that rotted is no answer.
func TestRottenTags(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "meta.db"))
	for key, value := range map[string]string{"json": "{", "digest": `{"digest":"sha256:00","size":1}`, "none": `{"size":1}`} {
		err := s.db.Update(func(tx *bbolt.Tx) error { return ringTags().put(tx, key, []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
		if tag, ok, err := s.Tag(key); ok || err == nil {
			t.Errorf("%s: %v", key, tag)
		}
	}
	if all, err := s.Tags(""); err != nil || len(all) > 0 {
		t.Errorf("%v %v", all, err)
	}
}

// When nothing can be written, what is to be forgotten is not forgotten.
func TestTagsThatWait(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "meta.db"))
	if err := s.PutTag("a", Tag{Manifest: desc("one", 7)}); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteTags("a", func(Tag) bool { return true }); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxPending {
		if err := s.Remember(blob.Descriptor{Digest: desc("x", 1).Digest, Size: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 * maxPending {
		if err := s.PutTag(string(rune('b'+i)), Tag{Manifest: desc("one", 7)}); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.pending.len(); n > maxPending {
		t.Errorf("%d changes wait", n)
	}
	if _, ok, err := s.Tag("a"); ok || err != nil {
		t.Errorf("it is back (%v)", err)
	}
}
