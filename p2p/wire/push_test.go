package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestPush(t *testing.T) {
	for _, body := range [][]byte{nil, []byte("body"), make([]byte, MaxPush)} {
		b := AppendPush([]byte("before"), PushInvalidation, body)[len("before"):]
		r := bytes.NewReader(append(b, "behind"...))
		kind, got, err := ReadPush(r)
		if err != nil || kind != PushInvalidation || !bytes.Equal(got, body) || r.Len() != len("behind") {
			t.Errorf("%d bytes: %d, %d bytes, %v; %d are left", len(body), kind, len(got), err, r.Len())
		}
	}
	if got := AppendPush(nil, 7, []byte("x")); string(got) != "\x00\x00\x00\x02\x07x" {
		t.Errorf("a push has another form: %q", got)
	}
}

func TestMalformedPushes(t *testing.T) {
	for name, c := range map[string]struct {
		b    string
		want error
	}{
		"nothing": {"", io.EOF}, "half a head": {"\x00\x00", io.ErrUnexpectedEOF}, "half a body": {"\x00\x00\x00\x03\x01x", io.ErrUnexpectedEOF},
		"no kind": {"\x00\x00\x00\x00\x01", ErrMalformed}, "too long": {"\x00\x00\x10\x02\x01", ErrMalformed}, "four GiB": {"\xff\xff\xff\xff\x01", ErrMalformed},
	} {
		if kind, body, err := ReadPush(bytes.NewReader([]byte(c.b))); !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %q, %v", name, kind, body, err)
		}
	}
}

// FuzzReadPush: what is read prints as it came, and is bounded.
func FuzzReadPush(f *testing.F) {
	f.Add(AppendPush(nil, PushInvalidation, []byte("body")))
	f.Add([]byte("\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, body, err := ReadPush(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := AppendPush(nil, kind, body); !bytes.HasPrefix(b, again) || len(body) > MaxPush {
			t.Errorf("%q prints as %q", b, again)
		}
	})
}
