package request

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	"shoal/blobcache/blob"
)

func TestBytes(t *testing.T) {
	const size = 100
	whole := blob.Range{Length: size}
	for _, c := range []struct {
		header  string
		want    blob.Range
		partial bool
		err     error
	}{
		{"", whole, false, nil},
		{"bytes=0-", blob.Range{Offset: 0, Length: 100}, true, nil},
		{"bytes=0-0", blob.Range{Offset: 0, Length: 1}, true, nil},
		{"bytes=10-19", blob.Range{Offset: 10, Length: 10}, true, nil},
		{"bytes=10-1000", blob.Range{Offset: 10, Length: 90}, true, nil},
		{"bytes=99-", blob.Range{Offset: 99, Length: 1}, true, nil},
		{"bytes= 10-19 ", blob.Range{Offset: 10, Length: 10}, true, nil},
		{"bytes=10-99999999999999999999", blob.Range{Offset: 10, Length: 90}, true, nil},
		{"bytes=-1", blob.Range{Offset: 99, Length: 1}, true, nil},
		{"bytes=-1000", blob.Range{Offset: 0, Length: 100}, true, nil},
		{"bytes=100-", blob.Range{}, false, ErrRange},
		{"bytes=100-200", blob.Range{}, false, ErrRange},
		{"bytes=99999999999999999999-", blob.Range{}, false, ErrRange},
		{"bytes=-0", blob.Range{}, false, ErrRange},
		// Ignored: more than one part, another unit, no meaning.
		{"bytes=0-1,5-6", whole, false, nil},
		{"items=0-1", whole, false, nil},
		{"bytes=", whole, false, nil},
		{"bytes=-", whole, false, nil},
		{"bytes=5", whole, false, nil},
		{"bytes=9-5", whole, false, nil},
		{"bytes=+1-5", whole, false, nil},
		{"bytes=1--5", whole, false, nil},
		{"bytes=0x1-5", whole, false, nil},
	} {
		h := http.Header{}
		if c.header != "" {
			h.Set("Range", c.header)
		}
		got, partial, err := Bytes(h, sum, size)
		if got != c.want || partial != c.partial || !errors.Is(err, c.err) {
			t.Errorf("Bytes(%q) = %+v, %v, %v; want %+v, %v, %v",
				c.header, got, partial, err, c.want, c.partial, c.err)
		}
	}
}

func TestBytesOfNothing(t *testing.T) {
	if _, _, err := Bytes(http.Header{"Range": {"bytes=0-"}}, sum, 0); !errors.Is(err, ErrRange) {
		t.Errorf("a range of an empty blob: %v, want %v", err, ErrRange)
	}
	if got, partial, err := Bytes(http.Header{}, sum, 0); got.Length != 0 || partial || err != nil {
		t.Errorf("an empty blob: %+v, %v, %v", got, partial, err)
	}
}

func TestBytesTwoHeaders(t *testing.T) {
	h := http.Header{"Range": {"bytes=0-1", "bytes=5-6"}}
	if got, partial, err := Bytes(h, sum, 100); got.Length != 100 || partial || err != nil {
		t.Errorf("two Range headers: %+v, %v, %v; want the whole", got, partial, err)
	}
}

func TestIfRange(t *testing.T) {
	for value, partial := range map[string]bool{
		`"` + sum + `"`:                 true,
		`W/"` + sum + `"`:               false, // RFC 9110 section 13.1.5: strong comparison
		`"sha256:other"`:                false,
		"Mon, 23 Nov 2026 10:00:00 GMT": false,
	} {
		h := http.Header{"Range": {"bytes=1-2"}, "If-Range": {value}}
		if _, got, err := Bytes(h, sum, 100); got != partial || err != nil {
			t.Errorf("If-Range: %s gives partial %v, %v", value, got, err)
		}
	}
}

func TestUnchanged(t *testing.T) {
	for value, want := range map[string]bool{
		`"` + sum + `"`:         true,
		`W/"` + sum + `"`:       true,
		`"a", "` + sum + `"`:    true,
		`*`:                     true,
		`"a"`:                   false,
		``:                      false,
		`"` + sum[:len(sum)-1]:  false,
		`"a` + "," + sum + `"x`: false,
	} {
		if got := Unchanged(http.Header{"If-None-Match": {value}}, sum); got != want {
			t.Errorf("If-None-Match: %s gives %v, want %v", value, got, want)
		}
	}
}

// FuzzBytes: a Range that is followed means what it means to net/http, but for
// numbers that no int64 holds, which net/http refuses, and for empty contents,
// which it sends whole.
func FuzzBytes(f *testing.F) {
	huge := regexp.MustCompile(`[0-9]{19}`)
	for _, seed := range []string{"bytes=0-", "bytes=5-9", "bytes=5-99", "bytes=10-", "bytes=-3", "bytes=1-2,3-4", "bytes=9223372036854775807-", "bytes=-9223372036854775808"} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || size > blob.MaxSize {
			return
		}
		r, partial, err := Bytes(http.Header{"Range": {header}}, sum, size)
		if err != nil {
			nothing := fmt.Sprintf("bytes %d-%d/%d", size, size-1, size) // for bytes=-0, which RFC 9110 calls unsatisfiable
			if code, told := reference(header, size); code != http.StatusRequestedRangeNotSatisfiable && told != nothing && size > 0 {
				t.Fatalf("Bytes(%q, %d) = %v; net/http answers %d", header, size, err, code)
			}
			return
		}
		if code, told := reference(header, size); partial && !huge.MatchString(header) && (code != http.StatusPartialContent || told != fmt.Sprintf("bytes %d-%d/%d", r.Offset, r.Offset+r.Length-1, size)) {
			t.Fatalf("Bytes(%q, %d) = %+v; net/http answers %d, %s", header, size, r, code, told)
		}
		if r.Offset < 0 || r.Length < 0 || r.Offset+r.Length > size || partial && r.Length == 0 {
			t.Fatalf("Bytes(%q, %d) = %+v, %v", header, size, r, partial)
		}
		if !partial && (r.Offset != 0 || r.Length != size) {
			t.Fatalf("Bytes(%q, %d) = %+v is not the whole", header, size, r)
		}
	})
}

// reference answers as http.ServeContent does: the status and Content-Range.
func reference(header string, size int64) (code int, contentRange string) {
	r := httptest.NewRequest(http.MethodHead, "/", http.NoBody)
	r.Header["Range"] = []string{header}
	w := httptest.NewRecorder()
	http.ServeContent(w, r, "x.bin", time.Time{}, io.NewSectionReader(nil, 0, size))
	return w.Code, w.Header().Get("Content-Range")
}
