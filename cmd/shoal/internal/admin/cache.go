package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The endpoints of the cache.
const (
	cachePath  = "/api/v1/cache"
	pinPath    = cachePath + "/pin"
	rmPath     = cachePath + "/rm"
	prunePath  = cachePath + "/prune"
	verifyPath = cachePath + "/verify"
)

// lineTime is how long a client may take for a line of an answer that goes on
// and on.
const lineTime = 30 * time.Second

// CacheVerbs are what can be done with the cache. Errors: ErrRefused among others.
type CacheVerbs struct {
	List   func() Images
	Pin    func(context.Context, Pin) (Pinned, error)
	Remove func(context.Context, Remove) (Removed, error)
	Prune  func(context.Context, Prune) (Removed, error)
	// Export returns what is to be exported: Close is called in the end.
	Export func(context.Context, Export) (*Archive, error)
	// Import takes what Export wrote, or another OCI layout in a tar.
	Import func(context.Context, Import, io.Reader) (Imported, error)
	// Verify calls tell now and then, and with what it came to at last.
	Verify func(ctx context.Context, ask Verify, tell func(Verified)) error
}

// Images is the answer of /api/v1/cache. Fields are added, never renamed or
// removed. Sizes are in bytes.
type Images struct {
	Images []Image `json:"images"` // the last used ones first
	// Pins are the names that are pinned, also those of which nothing is here.
	Pins    []string `json:"pins"`
	Loose   Loose    `json:"loose"`
	Shared  int64    `json:"shared"`  // that several images have, each counted once
	Partial int64    `json:"partial"` // of blobs that are not whole
	Bytes   int64    `json:"bytes"`   // in all
	Budget  int64    `json:"budget"`
}

// Image is an image in the cache.
type Image struct {
	Names   []string  `json:"names"` // none: nobody has called it anything
	Digest  string    `json:"digest"`
	Blobs   int       `json:"blobs"`
	Size    int64     `json:"size"`
	Unique  int64     `json:"unique"` // what it would free
	Used    time.Time `json:"used"`
	InUse   bool      `json:"in_use"`
	Pinned  bool      `json:"pinned"`
	Missing int       `json:"missing"` // blobs that it names and that are not here
}

// Loose are the blobs of no image.
type Loose struct {
	Blobs int   `json:"blobs"`
	Size  int64 `json:"size"`
}

// Pin pins images by name, or unpins them.
type Pin struct {
	Images []string `json:"images"`
	Unpin  bool     `json:"unpin,omitempty"`
}

// Pinned is what came of a Pin.
type Pinned struct {
	Images []string `json:"images"` // with registry and all
	// Absent are those of which nothing is here yet, or that were not pinned.
	Absent []string `json:"absent"`
}

// Remove removes images by name.
type Remove struct {
	Images []string `json:"images"`
	DryRun bool     `json:"dry_run,omitempty"`
}

// Prune removes what was not used for some time.
type Prune struct {
	UnusedFor float64 `json:"unused_for"` // seconds
	DryRun    bool    `json:"dry_run,omitempty"`
}

// Removed is what was removed.
type Removed struct {
	Images []string `json:"images"` // the names that are gone
	Blobs  int      `json:"blobs"`
	Bytes  int64    `json:"bytes"`
	DryRun bool     `json:"dry_run"`
}

// Verify reads blobs from the disk and proves them.
type Verify struct {
	Images []string `json:"images,omitempty"`           // none: all that is here
	Rate   int64    `json:"bytes_per_second,omitempty"` // at most; 0: as fast as the disk
}

// Verified is how far a Verify has come.
type Verified struct {
	Blobs   int      `json:"blobs"`
	Bytes   int64    `json:"bytes"`
	OfBlobs int      `json:"of_blobs"`
	OfBytes int64    `json:"of_bytes"`
	Rotten  []Rotten `json:"rotten"`
	Done    bool     `json:"done"`
}

// Rotten is a blob that is not what it was.
type Rotten struct {
	Digest string   `json:"digest"`
	Images []string `json:"images"` // that have it
}

func (o Options) handleCache(mux *http.ServeMux) {
	mux.HandleFunc("GET "+cachePath, func(w http.ResponseWriter, _ *http.Request) { o.writeJSON(w, o.Cache.List()) })
	mux.HandleFunc("POST "+pinPath, handle(o, o.Cache.Pin))
	mux.HandleFunc("POST "+rmPath, handle(o, o.Cache.Remove))
	mux.HandleFunc("POST "+prunePath, handle(o, o.Cache.Prune))
	mux.HandleFunc("POST "+verifyPath, o.serveVerify)
	mux.HandleFunc("POST "+exportPath, o.serveExport)
	mux.HandleFunc("POST "+importPath, o.serveImport)
}

// serveVerify answers with a line of JSON now and then.
func (o Options) serveVerify(w http.ResponseWriter, r *http.Request) {
	var ask Verify
	if !forPrograms(w, r, jsonType) {
		return
	}
	if err := decode(w, r, &ask); err != nil {
		http.Error(w, "no request that is known: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	control := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	err := o.Cache.Verify(r.Context(), ask, func(v Verified) {
		// A client that went away ends the context.
		_ = control.SetWriteDeadline(time.Now().Add(lineTime))
		_ = enc.Encode(v)
		_ = control.Flush()
	})
	if err != nil && r.Context().Err() == nil {
		o.failed(w, r.URL.Path, err)
	}
}

// FetchImages asks the node for the images of its cache.
func FetchImages(ctx context.Context, addr string) ([]byte, Images, error) {
	return query(ctx, addr, "cache", func(i Images) bool { return i.Images != nil })
}

// Do has the node pin or unpin.
func (p Pin) Do(ctx context.Context, addr string) (Pinned, error) {
	_, done, err := tell(ctx, addr, pinPath, p, func(p Pinned) bool { return p.Images != nil })
	return done, err
}

// Do has the node remove, and returns its JSON, too.
func (r Remove) Do(ctx context.Context, addr string) ([]byte, Removed, error) {
	return tell(ctx, addr, rmPath, r, func(r Removed) bool { return r.Images != nil })
}

// Do has the node prune, and returns its JSON, too.
func (p Prune) Do(ctx context.Context, addr string) ([]byte, Removed, error) {
	return tell(ctx, addr, prunePath, p, func(r Removed) bool { return r.Images != nil })
}

// Do has the node verify, and returns what it came to. progress is called with
// each step.
func (v Verify) Do(ctx context.Context, addr string, progress func(Verified)) (last Verified, err error) {
	req, err := newPost(ctx, addr, verifyPath, v)
	if err != nil {
		return last, err
	}
	body, err := open(req)
	if err != nil {
		return last, err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswerSize)
	for lines.Scan() {
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			return last, fmt.Errorf("%s does not answer like a shoal node", addr)
		}
		progress(last)
	}
	if err := lines.Err(); err != nil || last.Done {
		return last, err
	}
	return last, errors.New("it was cut off: the node has stopped, or see its log")
}
