package images

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

func id(name string) digest.Digest { return digest.FromString(name) }

// world builds blobs of "NAME:SIZE[@USED][!][ -> NAME,NAME]".
func blobs(t *testing.T, lines ...string) (all []Blob, names map[digest.Digest]string) {
	t.Helper()
	names = map[digest.Digest]string{}
	for _, line := range lines {
		head, refs, _ := strings.Cut(line, " -> ")
		var name string
		var size, used int64
		busy := strings.HasSuffix(head, "!")
		head = strings.TrimSuffix(head, "!")
		if n, _ := fmt.Sscanf(strings.NewReplacer(":", " ", "@", " ").Replace(head), "%s %d %d", &name, &size, &used); n < 2 {
			t.Fatalf("%q", line)
		}
		b := Blob{Descriptor: blob.Descriptor{Digest: id(name), Size: size}, Used: time.Unix(used, 0), InUse: busy}
		for r := range strings.SplitSeq(refs, ",") {
			if r != "" {
				b.Refs = append(b.Refs, id(r))
				names[id(r)] = r
			}
		}
		names[id(name)] = name
		all = append(all, b)
	}
	return all, names
}

// Two tags of one index, an image that shares its base, one without a name, one
// that is not all here, and blobs of none.
func TestFind(t *testing.T) {
	all, names := blobs(t,
		"index:10@5 -> amd64,arm64", "amd64:20@7 -> config,base,top", "config:1", "base:100", "top:200!",
		"other:20@3 -> config2,base", "config2:2", "untagged:30@9 -> top,gone", "stray:7")
	set := Find(all, []Name{
		{"docker.io/a:1", id("index")},
		{"docker.io/a:latest", id("index")},
		{"docker.io/a@" + string(id("amd64")), id("amd64")},
		{"docker.io/b@" + string(id("other")), id("other")},
		{"docker.io/c:1", id("never here")},
	})
	var got []string
	for _, img := range set.Images {
		var parts []string
		for _, d := range img.Blobs {
			parts = append(parts, names[d])
		}
		got = append(got, fmt.Sprintf("%s %d names %v size %d unique %d used %d busy %v missing %d", names[img.Manifest.Digest], len(img.Names), parts, img.Size, img.Unique, img.Used.Unix(), img.InUse, img.Missing))
	}
	want := []string{
		"untagged 0 names [untagged top] size 230 unique 30 used 9 busy true missing 1",
		"index 2 names [index amd64 config base top] size 331 unique 31 used 7 busy true missing 0",
		"other 1 names [other config2 base] size 122 unique 22 used 3 busy false missing 0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if len(set.Loose) != 1 || names[set.Loose[0].Digest] != "stray" || set.Shared != 300 {
		t.Errorf("loose %v, shared %d", set.Loose, set.Shared)
	}
	var going []string
	for _, d := range set.Without(func(i Image) bool { return len(i.Names) > 0 }) {
		going = append(going, names[d])
	}
	if want := []string{"index", "amd64", "config", "base", "other", "config2"}; !reflect.DeepEqual(going, want) {
		t.Errorf("without the named ones %v go, want %v", going, want)
	}
}

// A manifest that an index names is an image of its own if it has a tag.
func TestTaggedChild(t *testing.T) {
	all, names := blobs(t, "index:1 -> child", "child:1 -> layer", "layer:1")
	set := Find(all, []Name{{"r/a:1", id("index")}, {"r/a:child", id("child")}})
	if len(set.Images) != 2 {
		t.Fatal(set.Images)
	}
	gone := set.Without(func(i Image) bool { return i.Manifest.Digest == id("index") })
	if len(gone) != 1 || names[gone[0]] != "index" {
		t.Errorf("%v go", gone)
	}
}

func TestAlone(t *testing.T) {
	for name, c := range map[string]struct {
		refs string // of a -> b,c; ...
		want string
	}{
		"a leaf":                  {"", "a"},
		"an image":                {"a -> b,c", "a b c"},
		"a shared layer":          {"a -> b,c; z -> c", "a b"},
		"an index":                {"a -> b,c; b -> d,e; c -> e,f", "a b c d e f"},
		"a child of another, too": {"a -> b; b -> c; z -> b", "a"},
		"what names itself":       {"a -> b; b -> a", "a b"},
		"a root of others":        {"z -> a; a -> b", "a b"},
	} {
		refs, parents := map[digest.Digest][]digest.Digest{}, map[digest.Digest][]digest.Digest{}
		for part := range strings.SplitSeq(c.refs, "; ") {
			from, to, _ := strings.Cut(part, " -> ")
			for r := range strings.SplitSeq(to, ",") {
				refs[digest.Digest(from)] = append(refs[digest.Digest(from)], digest.Digest(r))
				parents[digest.Digest(r)] = append(parents[digest.Digest(r)], digest.Digest(from))
			}
		}
		l := Links{
			Refs:    func(d digest.Digest) []digest.Digest { return refs[d] },
			Parents: func(d digest.Digest) []digest.Digest { return parents[d] },
		}
		var got []string
		for _, d := range l.Alone("a") {
			got = append(got, string(d))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}
