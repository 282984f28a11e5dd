//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
	"shoal/p2p"
	"shoal/p2p/channel"
	"shoal/p2p/swarmkey"
	"shoal/p2p/wire"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

// measureChannel moves pieces from a node over its piece channel, and the same
// bytes of the same file over plain HTTP with sendfile. Both ends of both are in
// this process and ask as fills do. Nothing is proven.
func measureChannel(ctx context.Context, b *bench) error {
	dir := filepath.Join(b.dir, "channel")
	c, err := blobcache.Open(dir, blobcache.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := putRandom(ctx, c, 64<<20)
	if err != nil {
		return err
	}
	group, running := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(running)
	defer stop()
	pieces, err := servePieces(running, group, c)
	if err != nil {
		return err
	}
	plain, err := servePlain(running, group, blobFile(dir, d))
	if err != nil {
		return err
	}
	err = b.comparePieces(ctx, d, pieces, plain)
	stop()
	return errors.Join(err, group.Wait())
}

func (b *bench) comparePieces(ctx context.Context, d blob.Descriptor, pieces, plain *pieceClient) error {
	for _, streams := range []int{1, 4} {
		got, err := b.compare(ctx,
			contender{"piece channel", func(ctx context.Context) (sample, error) { return pieces.move(ctx, d, streams) }},
			contender{"plain HTTP", func(ctx context.Context) (sample, error) { return plain.move(ctx, d, streams) }},
		)
		if err != nil {
			return err
		}
		what := fmt.Sprintf("pieces over loopback, streams: %d, ", streams)
		for _, name := range []string{"piece channel", "plain HTTP"} {
			b.add(what+name, "MB/s", got[name]["MB/s"])
			b.add(what+name+", both ends", "CPU s/GB", got[name]["CPU s/GB"])
		}
		b.add(what+"piece channel by plain HTTP", "", ratios(got["piece channel"]["MB/s"], got["plain HTTP"]["MB/s"]), atLeast(0.55))
	}
	return nil
}

// pieceClient asks one server for pieces.
type pieceClient struct {
	base string // of URLs
	http *http.Transport
}

// newPieceClient returns one with the buffers and connections of a fill's.
func newPieceClient(base string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *pieceClient {
	return &pieceClient{base, &http.Transport{DialContext: dial, DisableCompression: true, MaxIdleConnsPerHost: 8, ReadBufferSize: 16 << 10}}
}

// moved is how much goes over the streams of a run together, in bytes.
const moved = 2 << 30

// move asks for the pieces of a blob, again and again, over so many streams.
func (c *pieceClient) move(ctx context.Context, d blob.Descriptor, streams int) (sample, error) {
	defer c.http.CloseIdleConnections() // each run has connections of its own
	runs := blob.PieceCount(d.Size) / wire.MaxRun
	var left atomic.Int64
	left.Store(moved / (wire.MaxRun * blob.PieceSize))
	before, err := ownCPU()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range streams {
		group.Go(func() error {
			piece := make([]byte, blob.PieceSize)
			for n := left.Add(-1); n >= 0; n = left.Add(-1) {
				r := wire.Request{Kind: wire.KindPieces, Digest: d.Digest, Size: d.Size, First: int(n) % runs * wire.MaxRun, Count: wire.MaxRun}
				if err := c.get(ctx, r, piece); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(started)
	after, err := ownCPU()
	return sample{"MB/s": moved / 1e6 / took.Seconds(), "CPU s/GB": (after - before).Seconds() / (moved / 1e9)}, err
}

// get reads the pieces of one request, one after the other, into piece.
func (c *pieceClient) get(ctx context.Context, r wire.Request, piece []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+r.Path(), nil)
	if err != nil {
		return err
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("pieces: %s", resp.Status)
	}
	for range r.Count {
		if _, err := io.ReadFull(resp.Body, piece); err != nil {
			return err
		}
	}
	_, err = io.Copy(io.Discard, resp.Body) // its end, or the connection is not kept
	return err
}

// servePieces runs a node that has the cache in group, until ctx ends, and
// returns a client that is another member.
func servePieces(ctx context.Context, group *errgroup.Group, c *blobcache.Cache) (*pieceClient, error) {
	serving, err := newIdentity()
	if err != nil {
		return nil, err
	}
	asking, err := newIdentity()
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	key := swarmkey.New()
	node, err := p2p.New(p2p.Options{ //nolint:contextcheck // it lives until Run ends
		Identity: serving, Cache: c, Key: key, Swarm: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")},
		PieceListener: l, NoMDNS: true, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	group.Go(func() error { return node.Run(ctx) })
	member, err := channel.New(asking, key)
	if err != nil {
		return nil, err
	}
	return newPieceClient("http://member", func(ctx context.Context, _, _ string) (net.Conn, error) {
		return member.Dial(ctx, node.ID(), l.Addr().String())
	}), nil
}

func newIdentity() (crypto.PrivKey, error) {
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return id, err
}

// servePlain serves the pieces of a file over plain HTTP by sendfile in group,
// until ctx ends, and returns a client.
func servePlain(ctx context.Context, group *errgroup.Group, file string) (*pieceClient, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := sendPieces(w, r.URL.Path, file); err != nil {
			panic(http.ErrAbortHandler) // the client will say so
		}
	})}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return newPieceClient("http://"+l.Addr().String(), new(net.Dialer).DialContext), nil
}

func sendPieces(w http.ResponseWriter, path, file string) error {
	r, err := wire.ParseRequest(path)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	part := r.Range()
	if _, err := f.Seek(part.Offset, io.SeekStart); err != nil {
		return err
	}
	w.Header().Set("Content-Length", strconv.FormatInt(part.Length, 10))
	w.Header().Set("Content-Type", "application/octet-stream") // nothing to sniff
	_, err = io.CopyN(w, f, part.Length)
	return err
}
