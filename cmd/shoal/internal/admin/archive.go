package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"shoal/cmd/shoal/internal/handover"
)

const (
	exportPath = cachePath + "/export"
	importPath = cachePath + "/import"
	// tarType is what an archive is sent as, compressed or not: no browser sends
	// it to another site unasked.
	tarType = "application/x-tar"
	// leastRate is how slow an archive may be sent or taken, in bytes a second,
	// beside lineTime.
	leastRate = 1 << 20
	// drainTime is how long the rest of an archive that is refused may take.
	drainTime = 10 * time.Second
)

// Export asks for an archive of images.
type Export struct {
	Images    []string `json:"images"`
	Platforms []string `json:"platforms,omitempty"` // OS/ARCH[/VARIANT]; none: those that are here
	Zstd      bool     `json:"zstd,omitempty"`
}

// Archive is what an Export came to.
type Archive struct {
	Size  int64 // in bytes, negative if it is not known
	Write func(io.Writer) error
	Close func()
}

// Import is what is said with an archive.
type Import struct {
	Name string // of its image, if the archive has no name for it
}

// Imported is what an archive had.
type Imported struct {
	Images []string `json:"images"` // names, or the digest of what has none
	Blobs  int      `json:"blobs"`  // that were not here before
	Bytes  int64    `json:"bytes"`  // of them
}

// serveExport answers with the archive.
func (o Options) serveExport(w http.ResponseWriter, r *http.Request) {
	var ask Export
	if !forPrograms(w, r, jsonType) {
		return
	}
	if err := decode(w, r, &ask); err != nil || len(ask.Images) == 0 {
		http.Error(w, "use {\"images\": [NAME, ...]}", http.StatusBadRequest)
		return
	}
	// What was not proven for long is proven before the headers go out.
	control := http.NewResponseController(w)
	unhurried(control)
	archive, err := o.Cache.Export(r.Context(), ask)
	if err != nil {
		o.failed(w, r.URL.Path, err)
		return
	}
	defer archive.Close()
	if file, ok := handover.File(r.Context()); ok {
		o.writeTo(w, r, archive, file)
		return
	}
	w.Header().Set("Content-Type", tarType)
	w.Header().Set("Cache-Control", "no-store")
	if archive.Size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(archive.Size, 10))
	}
	if err := archive.Write(patient{w, control}); err != nil {
		if r.Context().Err() == nil {
			o.Logger.Error("export was broken off", "error", err)
		}
		panic(http.ErrAbortHandler) // no clean end
	}
}

// unhurried lifts the deadlines of small requests; whoever leaves is noticed.
func unhurried(control *http.ResponseController) {
	// Where there are none nobody is late.
	_ = control.SetReadDeadline(time.Time{})
	_ = control.SetWriteDeadline(time.Time{})
}

// patient moves the deadline as the client takes what it is sent.
type patient struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (p patient) await(n int64) {
	// Where there is no deadline none is late.
	_ = p.control.SetWriteDeadline(time.Now().Add(lineTime + time.Duration(n/leastRate)*time.Second))
}

// Write is of io.Writer.
func (p patient) Write(b []byte) (int, error) {
	p.await(int64(len(b)))
	return p.ResponseWriter.Write(b)
}

// ReadFrom is of io.ReaderFrom, for sendfile.
func (p patient) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok {
		p.await(l.N)
	}
	return io.Copy(p.ResponseWriter, r)
}

// serveImport takes an archive.
func (o Options) serveImport(w http.ResponseWriter, r *http.Request) {
	if !forPrograms(w, r, tarType) {
		return
	}
	control := http.NewResponseController(w)
	unhurried(control)
	var archive io.Reader = steady{r.Body, control}
	if file, ok := handover.File(r.Context()); ok {
		archive = file
	}
	done, err := o.Cache.Import(r.Context(), Import{Name: r.URL.Query().Get("name")}, archive)
	if err != nil {
		// Who is cut off while he sends does not hear why.
		_ = control.SetReadDeadline(time.Now().Add(drainTime))
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Connection", "close")
		o.failed(w, r.URL.Path, err)
		return
	}
	o.writeJSON(w, done)
}

// steady moves the deadline as the client sends.
type steady struct {
	r       io.Reader
	control *http.ResponseController
}

// Read is of io.Reader.
func (s steady) Read(p []byte) (int, error) {
	_ = s.control.SetReadDeadline(time.Now().Add(lineTime)) // as above
	n, err := s.r.Read(p)
	if errors.Is(err, io.EOF) { // what is left to do is the node's
		unhurried(s.control)
	}
	return n, err
}

// Do has the node send the archive; the caller closes it. Its end is clean only
// if it is whole.
func (e Export) Do(ctx context.Context, addr string) (io.ReadCloser, error) {
	req, err := newPost(ctx, addr, exportPath, e)
	if err != nil {
		return nil, err
	}
	return open(req)
}

// Do brings an archive to the node: a file by handing it over, if that works, or
// by sending what is in it.
func (i Import) Do(ctx context.Context, addr string, archive *os.File) (text []byte, done Imported, err error) {
	var body io.Reader = archive
	client := handTo(ctx, addr, archive)
	if client == nil {
		client = single()
	} else {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+dialable(addr)+importPath+"?"+url.Values{"name": {i.Name}}.Encode(), body)
	if err != nil {
		return nil, done, err
	}
	req.Header.Set("Content-Type", tarType)
	if info, err := archive.Stat(); body != nil && err == nil && info.Mode().IsRegular() {
		req.ContentLength = info.Size() // so that the kernel moves the bytes
	}
	status, text, err := send(client, req)
	if err == nil {
		err = refusal(status, text)
	}
	if err != nil {
		return nil, done, err
	}
	if json.Unmarshal(text, &done) != nil || done.Images == nil {
		return nil, done, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return text, done, nil
}
