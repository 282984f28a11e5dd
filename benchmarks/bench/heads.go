//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"runtime"
	"sync/atomic"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"

	"golang.org/x/sync/errgroup"
)

// measureHeads asks a node for the headers of a cached manifest, by its digest
// and by its tag, and nginx for those of the file in which the node has it.
func measureHeads(ctx context.Context, b *bench) error {
	const (
		connections = 64
		lasts       = 3 * time.Second
	)
	img, err := b.origin.Push(ctx, "bench/manifest", 4, 1<<10)
	if err != nil {
		return err
	}
	n, err := b.node(ctx, 0, b.origin.URL())
	if err != nil {
		return err
	}
	if err := program.Download(ctx, n.Host, program.MirrorURL, img); err != nil {
		return err
	}
	nginx, err := b.serve(ctx, n.Host, loopback(), n.BlobFile(img.Index.Hex))
	if err != nil {
		return err
	}
	mirror := rig.Client{Dial: n.Host.DialContext, Base: program.MirrorURL}
	manifests := "/v2/" + img.Repository + "/manifests/"
	var contenders []contender
	for _, h := range []heads{
		{"shoal, by digest", mirror, manifests + img.Index.String()},
		{"shoal, by tag", mirror, manifests + img.Tag},
		{"nginx", rig.Client{Dial: n.Host.DialContext, Base: nginx}, nginxPath},
	} {
		contenders = append(contenders, contender{h.name, func(ctx context.Context) (sample, error) {
			return h.ask(ctx, connections, lasts)
		}})
	}
	got, err := b.compare(ctx, contenders...)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("HEAD of a manifest, %d clients: ", connections)
	for _, c := range contenders {
		b.add(what+c.name, "1/s", got[c.name]["1/s"])
	}
	for _, c := range contenders {
		b.add(what+c.name+", share of the processors that the clients took", "", got[c.name]["client"])
	}
	for _, c := range contenders[:2] {
		b.add(what+c.name+", by nginx", "", ratios(got[c.name]["1/s"], got["nginx"]["1/s"]), atLeast(0.5))
	}
	return b.drop(n)
}

// heads are requests for the headers of one path.
type heads struct {
	name   string
	client rig.Client
	path   string
}

// ask asks over so many connections, each of which waits for its answer, for a
// while. It does as little as can be done in between: what it costs, the
// servers cannot have.
func (h heads) ask(ctx context.Context, connections int, lasts time.Duration) (sample, error) {
	base, err := url.Parse(h.client.Base)
	if err != nil {
		return nil, err
	}
	request := fmt.Appendf(nil, "HEAD %s HTTP/1.1\r\nHost: %s\r\nAccept: */*\r\n\r\n", h.path, base.Host)
	var answers atomic.Int64
	before, err := ownCPU()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			n, err := h.askOne(ctx, base.Host, request, started.Add(lasts))
			answers.Add(n)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	took := time.Since(started)
	after, err := ownCPU()
	return sample{
		"1/s":    float64(answers.Load()) / took.Seconds(),
		"client": (after - before).Seconds() / took.Seconds() / float64(runtime.NumCPU()),
	}, err
}

// askOne asks over one connection until a moment, and returns how often it was
// answered.
func (h heads) askOne(ctx context.Context, addr string, request []byte, until time.Time) (answers int64, err error) {
	conn, err := h.client.Dial(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	answer := make([]byte, 4<<10)
	for time.Now().Before(until) && ctx.Err() == nil {
		if _, err := conn.Write(request); err != nil {
			return answers, err
		}
		n := 0
		for !bytes.HasSuffix(answer[:n], []byte("\r\n\r\n")) { // the end of headers, and of all
			k, err := conn.Read(answer[n:])
			if err != nil {
				return answers, err
			}
			n += k
		}
		if !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 ")) {
			return answers, fmt.Errorf("HEAD %s: %q", h.path, answer[:n])
		}
		answers++
	}
	return answers, ctx.Err()
}
