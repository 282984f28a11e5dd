package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/cmd/shoal/internal/admin"
	"shoal/cmd/shoal/internal/archive"
	"shoal/proxy/request"
)

// intake is an archive on its way into the cache. What is in it is held until it
// is closed; what it brought and is not to stay goes again then.
type intake struct {
	s      *service
	ctx    context.Context        // of the call
	commit *errgroup.Group        // of blobs that are not on the disk yet
	going  context.Context        // of commit: ends with the first that fails
	begun  map[digest.Digest]bool // blobs that were not here; of Read's goroutine
	stays  map[digest.Digest]bool // part of an image that is all here

	mu    sync.Mutex
	held  map[digest.Digest]*blobcache.Blob
	fresh []digest.Digest // not here before
}

// commitsAtOnce bounds the blobs that are read, written and written out at the same
// time: the disk is one. Of two processors that each had one blob both were idle
// now and then, with four in all less so (benchmarks/results/import-20261126.txt).
const commitsAtOnce = 4

// importImages takes an archive, all of it or nothing.
func (s *service) importImages(ctx context.Context, ask admin.Import, r io.Reader) (done admin.Imported, err error) {
	var given request.Image
	if ask.Name != "" {
		if given, err = parseImage(ask.Name); err == nil && given.Tag == "" {
			err = fmt.Errorf("%w: --name is to be a tag, as nginx:1.27", admin.ErrRefused)
		}
		if err != nil {
			return done, err
		}
	}
	in := &intake{s: s, ctx: ctx, begun: map[digest.Digest]bool{}, held: map[digest.Digest]*blobcache.Blob{}}
	defer in.close()
	in.commit, in.going = errgroup.WithContext(ctx)
	in.commit.SetLimit(commitsAtOnce)
	all, err := archive.Read(r, s.budget, in.take)
	if errCommit := in.commit.Wait(); err == nil {
		err = errCommit
	}
	if err != nil {
		return done, importError(err)
	}
	if given.Tag != "" && len(all) != 1 {
		return done, fmt.Errorf("%w: --name is for an archive of one image, this one names %d", admin.ErrRefused, len(all))
	}
	parts := map[digest.Digest]bool{}
	for _, root := range all {
		if err := in.complete(root.Descriptor, 0, parts); err != nil {
			return done, importError(err)
		}
	}
	in.stays = parts
	done.Images = []string{}
	for _, root := range all {
		done.Images = append(done.Images, in.name(root, given))
	}
	if err := s.cache.Flush(); err != nil { // what is said to be imported outlives a crash
		return done, err
	}
	for _, d := range in.fresh {
		if parts[d] {
			done.Blobs, done.Bytes = done.Blobs+1, done.Bytes+in.held[d].Descriptor().Size
		}
	}
	s.log.Info("imported", "images", done.Images, "blobs", done.Blobs, "bytes", done.Bytes)
	return done, nil
}

// importError says what is wrong with an archive to who sent it.
func importError(err error) error {
	for _, theirs := range []error{archive.ErrInvalid, blob.ErrCorrupt, blob.ErrNoSpace, blob.ErrTooLarge} {
		if errors.Is(err, theirs) {
			return fmt.Errorf("%w: nothing was imported: %w", admin.ErrRefused, err)
		}
	}
	return err
}

// take proves a blob of the archive and keeps it, unless it is here. It returns
// when the next one can be read; what comes of it is known when commit has ended.
func (in *intake) take(d blob.Descriptor, r io.Reader) error {
	if in.going.Err() != nil {
		return context.Cause(in.going)
	}
	in.mu.Lock()
	n := len(in.held)
	in.mu.Unlock()
	if n >= maxExported {
		return fmt.Errorf("%w: more than %d blobs", blob.ErrTooLarge, maxExported)
	}
	if _, here := in.s.cache.Stat(d.Digest); here || in.begun[d.Digest] {
		proof := d.Digest.Verifier()
		if _, err := io.Copy(proof, r); err != nil {
			return err
		}
		if !proof.Verified() {
			return fmt.Errorf("%s: %w", d.Digest, blob.ErrCorrupt)
		}
		if in.begun[d.Digest] { // a second time in the archive
			return nil
		}
		return in.hold(d.Digest)
	}
	in.begun[d.Digest] = true
	if _, apart := r.(*io.SectionReader); apart {
		in.commit.Go(func() error { return in.put(d, r) })
		return nil
	}
	read, ended := &toEnd{r: r, end: make(chan struct{})}, make(chan error, 1)
	in.commit.Go(func() error {
		err := in.put(d, read)
		ended <- err
		return err
	})
	select {
	case <-read.end:
		return nil
	case err := <-ended:
		return err
	}
}

// put brings a blob into the cache and holds it.
func (in *intake) put(d blob.Descriptor, r io.Reader) error {
	if err := in.s.cache.Put(in.going, d, r); err != nil {
		return err
	}
	in.mu.Lock()
	in.fresh = append(in.fresh, d.Digest)
	in.mu.Unlock()
	return in.hold(d.Digest)
}

// toEnd closes end when r has been read to its end, and does not read it again: it
// goes on with the next file then.
type toEnd struct {
	r   io.Reader
	end chan struct{}
	is  bool // at the end
}

// Read is of io.Reader.
func (t *toEnd) Read(p []byte) (int, error) {
	if t.is {
		return 0, io.EOF
	}
	n, err := t.r.Read(p)
	if t.is = errors.Is(err, io.EOF); t.is {
		close(t.end)
	}
	return n, err
}

// hold keeps a blob of the cache from going before the end.
func (in *intake) hold(d digest.Digest) error {
	in.mu.Lock()
	had := in.held[d] != nil
	in.mu.Unlock()
	if had {
		return nil
	}
	b, err := in.s.cache.Get(in.ctx, d)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.held[d] != nil { // twice in the archive
		return b.Close()
	}
	in.held[d] = b
	return nil
}

// complete adds to parts what the manifest d leads to, all of which must be here;
// of an index one manifest is enough.
func (in *intake) complete(d blob.Descriptor, depth int, parts map[digest.Digest]bool) error {
	if err := in.part(d, d.Digest, parts); err != nil {
		return err
	}
	in.s.cache.Remember(d) // its media type, which its own bytes may not state
	m, _, err := in.s.proxy.Stored(in.ctx, d.Digest)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", archive.ErrInvalid, d.Digest, err)
	case depth > maxNesting:
		return fmt.Errorf("%w: indexes of indexes of indexes", archive.ErrInvalid)
	}
	for _, b := range m.Blobs {
		if err := in.part(b, d.Digest, parts); err != nil {
			return err
		}
	}
	found := false
	for _, c := range m.Children {
		if _, here := in.s.cache.Stat(c.Digest); here {
			found = true
			if err := in.complete(c.Descriptor, depth+1, parts); err != nil {
				return err
			}
		}
	}
	if len(m.Children) > 0 && !found {
		return fmt.Errorf("%w: it lacks all manifests of the index %s", archive.ErrInvalid, d.Digest)
	}
	return nil
}

// part adds a blob that of names.
func (in *intake) part(d blob.Descriptor, of digest.Digest, parts map[digest.Digest]bool) error {
	err := in.hold(d.Digest)
	switch {
	case errors.Is(err, blob.ErrNotFound):
		return fmt.Errorf("%w: it lacks %s, which %s names", archive.ErrInvalid, d.Digest, of)
	case err != nil:
		return err
	case in.held[d.Digest].Descriptor().Size != d.Size:
		return fmt.Errorf("%w: %s has another size than %s says", archive.ErrInvalid, d.Digest, of)
	}
	parts[d.Digest] = true
	return nil
}

// name has the image known by what the operator or the archive calls it, and
// returns that; without a name it is its digest.
func (in *intake) name(root archive.Named, given request.Image) string {
	i, err := given, error(nil)
	if given.Tag == "" && root.Image != "" {
		i, err = request.ParseImage(root.Image)
	}
	if err != nil || i.Tag == "" {
		return root.Digest.String()
	}
	in.s.proxy.Assert(i, root.Descriptor)
	return i.String()
}

// close gives back what was held.
func (in *intake) close() {
	for _, b := range in.held {
		b.Close()
	}
	var gone []digest.Digest
	for _, d := range in.fresh {
		if !in.stays[d] {
			gone = append(gone, d)
		}
	}
	in.s.cache.Remove(gone, time.Time{}, false)
}
