package blobcache

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"shoal/blobcache/blob"
)

// ask is a reader that calls first before the first byte.
type ask struct {
	io.Reader
	first func()
}

func (a *ask) Read(p []byte) (int, error) {
	if a.first != nil {
		a.first()
		a.first = nil
	}
	return a.Reader.Read(p)
}

// A blob whose hashing begins on one goroutine while it is alone, goes on on
// another while others come in, and ends on the first, is hashed in order, and has
// a chain.
func TestPutBesideOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // with more, more blobs are few
	c := open(t, t.TempDir(), Options{})
	long := newSample(3*blob.PieceSize+5, 1)
	var others []sample
	for i := range 4 {
		others = append(others, newSample(blob.PieceSize+hashBlock+i, byte(i+2)))
	}
	others = append(others, newSample(0, 7), newSample(hashBlock, 8), newSample(hashBlock+1, 9))
	begun, half, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	for _, s := range others {
		go func() {
			<-half
			ended <- c.Put(t.Context(), s.Descriptor, &ask{bytesOf(s), func() { begun <- struct{}{} }})
		}()
	}
	wait := func(n int) {
		for range n {
			<-begun
		}
	}
	all := io.MultiReader(
		bytes.NewReader(long.data[:blob.PieceSize+1]),
		&ask{bytes.NewReader(long.data[blob.PieceSize+1 : 2*blob.PieceSize]), func() { close(half); wait(len(others)) }},
		&ask{bytes.NewReader(long.data[2*blob.PieceSize:]), func() {
			for range others {
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		}},
	)
	if err := c.Put(t.Context(), long.Descriptor, all); err != nil {
		t.Fatal(err)
	}
	for _, s := range append(others, long) {
		has(t, c, s)
		if _, ok, err := c.meta.Chain(s.Descriptor); err != nil || !ok && s.Size > blob.PieceSize {
			t.Errorf("%d bytes: chain %t, %v", s.Size, ok, err)
		}
	}
}
