//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/testhost"

	"golang.org/x/sys/unix"
)

// origin is nginx that serves images as a registry does, from files by
// sendfile, so that it takes as little of the shared processors as can be.
// Each run has its own, with its own log.
type origin struct {
	host    *testhost.Host
	dir     string
	process *testhost.Process
	// from and to are the part of the log that is looked at: what happened
	// before the clock is not. A to of zero is its end.
	from, to int64
}

// originPort is where the registry is.
const originPort = 5000

// drainTime is how long the origin's connections may last after their clients
// were killed.
const drainTime = 10 * time.Second

// readyTime is how long a program may take until it answers.
const readyTime = 30 * time.Second

// meterPath is of what the plain download gets.
const meterPath = "/meter"

// url returns the origin's address as an upstream.
func (o *origin) url() string { return "http://" + o.listen().String() }

func (o *origin) listen() netip.AddrPort { return netip.AddrPortFrom(o.host.Addr, originPort) }

// startOrigin starts an origin for the image on h, with its files in dir.
func startOrigin(ctx context.Context, h *testhost.Host, dir string, img *image, ignoresRange bool) (*origin, error) {
	o := &origin{host: h, dir: dir}
	p, err := o.nginx(img, ignoresRange).Start(ctx, h)
	if p == nil {
		return nil, err
	}
	o.process = p // also of one that does not answer: it is to be ended
	return o, err
}

func (o *origin) logFile() string { return filepath.Join(o.dir, "access.log") }

// nginx returns what it is. It ends when the last connection has, with
// everything in the log.
func (o *origin) nginx(img *image, ignoresRange bool) rig.Nginx {
	ranges := ""
	if ignoresRange {
		ranges = "max_ranges 0;"
	}
	var locations strings.Builder
	serve := func(path, mediaType string, b blobFile) {
		fmt.Fprintf(&locations, "\t\tlocation = %s { alias %s; types {} default_type %s; add_header Docker-Content-Digest %s; }\n",
			path, b.file, mediaType, b.digest())
	}
	for _, reference := range []string{tag, img.manifest.digest()} {
		serve(img.path("manifests", reference), "application/vnd.oci.image.manifest.v1+json", img.manifest)
	}
	for _, b := range img.blobs {
		serve(img.path("blobs", b.digest()), "application/octet-stream", b)
	}
	serve(meterPath, "application/octet-stream", img.meter)
	return rig.Nginx{
		Dir: o.dir, Listen: o.listen(), Workers: "1", Ready: "/v2/",
		HTTP:   fmt.Sprintf("log_format lab '%s'; access_log %s lab; %s", logFormat, o.logFile(), ranges),
		Server: "\t\tlocation = /v2/ { default_type application/json; return 200 '{}'; }\n" + locations.String(),
	}
}

// startCounting makes what was asked for until now no part of the traffic.
func (o *origin) startCounting() (err error) {
	o.from, err = o.logged()
	return err
}

// stopCounting makes what ends from now on no part of the traffic.
func (o *origin) stopCounting() (err error) {
	o.to, err = o.logged()
	return err
}

// logged returns the size of the log in bytes.
func (o *origin) logged() (int64, error) {
	info, err := os.Stat(o.logFile())
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// stop waits until the origin's connections have ended, whose clients must
// have gone, ends it, and returns what it has sent since startCounting.
func (o *origin) stop() (traffic, error) {
	// nginx's own word for "end when the last answer has been given".
	if err := o.process.Signal(unix.SIGQUIT); err != nil {
		return traffic{}, err
	}
	select {
	case <-o.process.Ended():
	case <-time.After(drainTime):
		o.process.Kill()
		return traffic{}, fmt.Errorf("the origin still had connections after %v: its log is not complete", drainTime)
	}
	file, err := os.Open(o.logFile())
	if err != nil {
		return traffic{}, err
	}
	defer file.Close()
	if o.to == 0 {
		if o.to, err = o.logged(); err != nil {
			return traffic{}, err
		}
	}
	return parseLog(io.NewSectionReader(file, o.from, o.to-o.from))
}

// abandon ends the origin at once, if it still runs. Killed, nginx would leave
// its worker behind.
func (o *origin) abandon() {
	_ = o.process.Stop(drainTime) // how it ends is no matter any more
}

// logFormat is of the lines that parseLog reads.
const logFormat = "$remote_addr $request_method $status $body_bytes_sent $request_uri"

// traffic is what the origin was asked for and has sent.
type traffic struct {
	blobBytes    int64 // body bytes of blobs
	manifestGets int   // GET requests for manifests
}

// parseLog adds up an access log.
func parseLog(log io.Reader) (traffic, error) {
	var t traffic
	for lines := bufio.NewScanner(log); ; {
		if !lines.Scan() {
			return t, lines.Err()
		}
		fields := strings.Fields(lines.Text())
		if len(fields) != len(strings.Fields(logFormat)) {
			return t, fmt.Errorf("origin's log: %q", lines.Text())
		}
		method, path := fields[1], fields[4]
		bytes, err := strconv.ParseInt(fields[3], 10, 64)
		if err != nil {
			return t, fmt.Errorf("origin's log: %q: %w", lines.Text(), err)
		}
		switch {
		case strings.Contains(path, "/blobs/"):
			t.blobBytes += bytes
		case method == http.MethodGet && strings.Contains(path, "/manifests/"):
			t.manifestGets++
		}
	}
}
