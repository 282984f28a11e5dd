package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"shoal/cmd/shoal/internal/handover"
)

// Archives are files, mostly, and the node and who asks it on one machine: then
// the open file is handed over, and the node reads or writes it by itself.
// Through a connection each byte is moved three times instead of once.

// ErrBrokenOff means that not all of an archive was written, for the reason that
// the error tells in one line.
var ErrBrokenOff = errors.New("export was broken off")

// exported is the answer to an Export whose file was handed over.
type exported struct {
	Bytes int64 `json:"bytes"`
}

// attendedBytes is how much is written to a file before it is looked whether its
// asker has left.
const attendedBytes = 64 << 20

// attended is a file that was handed over, until its asker leaves.
type attended struct {
	ctx  context.Context
	file *os.File
}

// Write is of io.Writer.
func (a attended) Write(b []byte) (int, error) {
	if err := a.ctx.Err(); err != nil {
		return 0, err
	}
	return a.file.Write(b)
}

// ReadFrom is of io.ReaderFrom: between files the kernel moves the bytes.
func (a attended) ReadFrom(r io.Reader) (n int64, err error) {
	l, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{a}, r)
	}
	for err == nil && l.N > 0 {
		if err = a.ctx.Err(); err == nil {
			var m int64
			m, err = io.CopyN(a.file, l.R, min(l.N, attendedBytes))
			n, l.N = n+m, l.N-m
		}
	}
	return n, err
}

// writeTo writes an archive to a file that was handed over.
func (o Options) writeTo(w http.ResponseWriter, r *http.Request, archive *Archive, file *os.File) {
	err := archive.Write(attended{r.Context(), file})
	var at int64
	if err == nil {
		at, err = file.Seek(0, io.SeekCurrent)
	}
	switch {
	case err == nil:
		o.writeJSON(w, exported{at})
	case r.Context().Err() == nil: // who asked is told, and can do something about his file
		http.Error(w, fmt.Errorf("%w: %w: %w", ErrRefused, ErrBrokenOff, err).Error(), http.StatusForbidden)
	}
}

// handTo returns a client whose one connection brings file to the node whose admin
// endpoint is at addr; nil if that does not work, as from another machine.
func handTo(ctx context.Context, addr string, file *os.File) *http.Client {
	if !handover.IsRegular(file) {
		return nil
	}
	_, status, err := Fetch(ctx, addr)
	if err != nil {
		return nil // it will be said of the request itself
	}
	conn, err := handover.Dial(ctx, status.Socket, file)
	if err != nil {
		return nil
	}
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
}

// copyBuffer is large enough that a system call costs little beside it.
const copyBuffer = 1 << 20

// To has the node write the archive to file, and returns its length.
func (e Export) To(ctx context.Context, addr string, file *os.File) (n int64, err error) {
	near := handTo(ctx, addr, file)
	if near == nil {
		body, err := e.Do(ctx, addr)
		if err != nil {
			return 0, err
		}
		defer func() { _ = body.Close() }()
		n, err = io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{body}, make([]byte, copyBuffer))
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrBrokenOff, err)
		}
		return n, err
	}
	req, err := newPost(ctx, addr, exportPath, e)
	if err != nil {
		return 0, err
	}
	status, text, err := send(near, req)
	if err == nil {
		err = refusal(status, text)
	}
	if err != nil {
		return 0, err
	}
	var done exported
	if json.Unmarshal(text, &done) != nil || done.Bytes == 0 {
		return 0, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return done.Bytes, nil
}
