package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"shoal/blobcache/blob"
)

// script is a blob.Source that gives one answer after the other.
type script []func(r blob.Range) (*blob.Stream, error)

func (s *script) Open(_ context.Context, _ blob.Descriptor, r blob.Range) (*blob.Stream, error) {
	if len(*s) == 0 {
		return nil, blob.ErrUnavailable
	}
	next := (*s)[0]
	*s = (*s)[1:]
	return next(r)
}

// gives answers with data from the wanted offset on; after n bytes of it the
// body fails with err, if that is set.
func gives(data []byte, identity string, n int, err error) func(blob.Range) (*blob.Stream, error) {
	return func(r blob.Range) (*blob.Stream, error) {
		var body io.Reader = bytes.NewReader(data[r.Offset:])
		if err != nil {
			body = io.MultiReader(io.LimitReader(body, int64(n)), iotest.ErrReader(err))
		}
		size := int64(len(data))
		return &blob.Stream{
			Body: io.NopCloser(body), Range: blob.Range{Offset: r.Offset, Length: size - r.Offset},
			Size: size, Identity: identity,
		}, nil
	}
}

// ignoresRange answers with everything.
func ignoresRange(data []byte, identity string) func(blob.Range) (*blob.Stream, error) {
	return func(blob.Range) (*blob.Stream, error) {
		return gives(data, identity, 0, nil)(blob.Range{})
	}
}

func fails(err error) func(blob.Range) (*blob.Stream, error) {
	return func(blob.Range) (*blob.Stream, error) { return nil, err }
}

// random returns n bytes that follow from the seed.
func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // it never fails
	return b
}

func TestPass(t *testing.T) {
	data := random(1, 3*blob.PieceSize+100)
	size := int64(len(data))
	wrong := bytes.Clone(data)
	wrong[5] ^= 1
	whole := blob.Range{Length: size}
	cut := io.ErrUnexpectedEOF
	for _, c := range []struct {
		name    string
		want    blob.Range
		sent    int64
		compare []byte
		source  script
		err     error
		out     []byte
	}{
		{name: "whole", want: whole, source: script{gives(data, "a", 0, nil)}, out: data},
		{name: "range", want: blob.Range{Offset: 10, Length: 2 << 20}, source: script{gives(data, "a", 0, nil)}, out: data[10 : 10+2<<20]},
		{name: "last byte", want: blob.Range{Offset: size - 1, Length: 1}, source: script{gives(data, "a", 0, nil)}, out: data[size-1:]},
		{
			name: "goes on after a cut", want: whole,
			source: script{gives(data, "a", 100, cut), gives(data, "a", 2<<20, cut), gives(data, "a", 0, nil)}, out: data,
		},
		{
			name: "goes on without ranges", want: whole,
			source: script{gives(data, "a", 2<<20, cut), ignoresRange(data, "a")}, out: data,
		},
		{
			name: "last piece is held", want: whole, source: script{gives(wrong, "a", 0, nil)},
			err: blob.ErrCorrupt, out: wrong[:size-blob.PieceSize],
		},
		{
			name: "last piece of a range is held", want: blob.Range{Offset: 3, Length: 100}, source: script{gives(wrong, "a", 0, nil)},
			err: blob.ErrCorrupt, out: nil,
		},
		{
			name: "another upstream in the middle", want: whole,
			source: script{gives(data, "a", 2<<20, cut), gives(data, "b", 0, nil)}, err: blob.ErrCorrupt, out: data[:2<<20],
		},
		{
			name: "another size", want: whole, source: script{gives(append(bytes.Clone(data), 0), "a", 0, nil)},
			err: blob.ErrCorrupt,
		},
		{
			name: "no progress", want: whole,
			source: script{gives(data, "a", 100, cut), fails(blob.ErrUnavailable), fails(blob.ErrStalled), gives(data, "a", 0, nil)},
			err:    blob.ErrStalled, out: data[:100],
		},
		{
			name: "gone in the middle", want: whole,
			source: script{gives(data, "a", 100, cut), fails(blob.ErrNotFound), gives(data, "a", 0, nil)},
			err:    blob.ErrNotFound, out: data[:100],
		},
		{
			name: "behind a fill", want: blob.Range{Offset: 7, Length: size - 7}, sent: 2 << 20, compare: data,
			source: script{gives(data, "a", 0, nil)}, out: data[7+2<<20:],
		},
		{
			name: "behind a fill that held all but a byte", want: whole, sent: size - 1, compare: data,
			source: script{gives(data, "a", 0, nil)}, out: data[size-1:],
		},
		{
			name: "behind a fill of wrong bytes", want: whole, sent: 2 << 20, compare: wrong,
			source: script{gives(data, "a", 0, nil)}, err: blob.ErrCorrupt, out: nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				p := &pass{
					source: &c.source, desc: blob.Descriptor{Digest: digest.FromBytes(data), Size: size},
					want: c.want, out: &out, sent: c.sent, compare: bytes.NewReader(c.compare),
				}
				if err := p.run(t.Context()); !errors.Is(err, c.err) {
					t.Errorf("%v, want %v", err, c.err)
				}
				if !bytes.Equal(out.Bytes(), c.out) {
					t.Errorf("%d bytes went out, want %d", out.Len(), len(c.out))
				}
			})
		})
	}
}

func TestPassOfNothing(t *testing.T) {
	var out bytes.Buffer
	p := &pass{
		source: &script{gives(nil, "a", 0, nil)}, out: &out,
		desc: blob.Descriptor{Digest: digest.FromBytes(nil)},
	}
	if err := p.run(t.Context()); err != nil || out.Len() != 0 {
		t.Errorf("an empty blob: %v, %d bytes", err, out.Len())
	}
}

func TestPassEndsWithTheClient(t *testing.T) {
	data := random(1, 2*blob.PieceSize)
	source := script{gives(data, "a", 0, nil), gives(data, "a", 0, nil)}
	r, w := io.Pipe()
	r.CloseWithError(io.ErrClosedPipe)
	p := &pass{
		source: &source, out: w, want: blob.Range{Length: int64(len(data))},
		desc: blob.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))},
	}
	if err := p.run(t.Context()); !errors.Is(err, errClient) {
		t.Errorf("%v, want %v", err, errClient)
	}
	if len(source) != 1 {
		t.Error("the origin was asked again for a client that has left")
	}
}
