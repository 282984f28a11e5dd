//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	blobRepository = "bench/blob"
	nginxPort      = 8080
)

// blobURL is where a client asks the node on its machine for a blob.
func blobURL(b v1.Descriptor) string {
	return program.MirrorURL + "/v2/" + blobRepository + "/blobs/" + b.Digest.String()
}

// curl gets url from h and returns how long that took. Anything but all size
// bytes is an error.
func curl(ctx context.Context, h *testhost.Host, url string, size int64) (time.Duration, error) {
	path, err := testhost.Program("curl")
	if err != nil {
		return 0, err
	}
	out, err := h.Run(ctx, testhost.Command{Path: path, Args: []string{
		"--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", "%{time_total} %{size_download}", url,
	}})
	if err != nil {
		return 0, err
	}
	var seconds float64
	var got int64
	if _, err := fmt.Sscan(out, &seconds, &got); err != nil {
		return 0, fmt.Errorf("curl said %q: %w", out, err)
	}
	if got != size {
		return 0, fmt.Errorf("curl got %d bytes of %s, not %d", got, url, size)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// whole waits until the node has the blob on its disk.
func whole(ctx context.Context, n *program.Node, b v1.Descriptor) error {
	return testhost.Until(ctx, time.Minute, func(context.Context) error {
		if !n.HasBlob(b.Digest.Hex) {
			return errors.New("the blob is not whole")
		}
		return nil
	})
}

// nginx serves one file.
type nginx struct {
	process *testhost.Process
	url     string
}

// startNginx starts an nginx on h that serves file.
func startNginx(ctx context.Context, h *testhost.Host, file string) (*nginx, error) {
	path, err := testhost.Program("nginx")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(h.Dir, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`daemon off; master_process off; user root; pid %[1]s/pid; error_log stderr;
events {}
http {
	access_log off; sendfile on; tcp_nopush on;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen %[2]s:%[3]d; location = /blob { alias %[4]s; } }
}
`, dir, h.Addr, nginxPort, file)
	name := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(name, []byte(config), 0o644); err != nil {
		return nil, err
	}
	n := &nginx{url: fmt.Sprintf("http://%s:%d/blob", h.Addr, nginxPort)}
	if n.process, err = h.Start("nginx", testhost.Command{Path: path, Args: []string{"-e", "stderr", "-c", name}}); err != nil {
		return nil, err
	}
	return n, testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
		c, err := h.DialContext(ctx, "tcp", fmt.Sprintf("%s:%d", h.Addr, nginxPort))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// measureLink compares what curl gets through one cold node from one that
// holds the blob with what it gets from nginx, over the same link.
func measureLink(ctx context.Context, l *lab) error {
	const size = 512 << 20
	b, err := l.origin.PutBlob(blobRepository, 1, size)
	if err != nil {
		return err
	}
	holder, err := l.node(ctx, 0, l.origin.URL())
	if err != nil {
		return err
	}
	err = l.fast(func() error {
		_, err := curl(ctx, holder.Host, blobURL(b), size)
		return errors.Join(err, whole(ctx, holder, b))
	})
	if err != nil {
		return err
	}
	nginx, err := startNginx(ctx, holder.Host, holder.BlobFile(b.Digest.Hex))
	if err != nil {
		return err
	}
	if err := l.compareLink(ctx, "link", holder, nginx, b); err != nil {
		return err
	}
	// What is charged to the nodes by the second rather than by the byte goes
	// down when the same bytes take less time.
	for _, m := range l.machines {
		if err := m.Shape(0); err != nil {
			return err
		}
	}
	if err := l.compareLink(ctx, "link without a limit", holder, nginx, b); err != nil {
		return err
	}
	for _, m := range l.machines {
		if err := m.Shape(machineLink); err != nil {
			return err
		}
	}
	nginx.process.Kill()
	return l.drop(holder)
}

// compareLink gets the blob from nginx and through the swarm, in turn, and
// reports the figures of what is measured.
func (l *lab) compareLink(ctx context.Context, what string, holder *program.Node, n *nginx, b v1.Descriptor) error {
	var plain, shoal, ratio, nginxCPU, writerCPU, cpu, rest []float64
	megabytes, gigabytes := float64(b.Size)/1e6, float64(b.Size)/1e9
	for range l.pairs {
		before, err := n.process.CPU()
		if err != nil {
			return err
		}
		direct, err := curl(ctx, l.machines[1], n.url, b.Size)
		if err != nil {
			return err
		}
		after, err := n.process.CPU()
		if err != nil {
			return err
		}
		written, err := writeFile(ctx, filepath.Join(l.dir, "file"), b.Size, direct)
		if err != nil {
			return err
		}
		through, used, err := l.throughSwarm(ctx, holder, b)
		if err != nil {
			return err
		}
		plain = append(plain, megabytes/direct.Seconds())
		shoal = append(shoal, megabytes/through.Seconds())
		ratio = append(ratio, direct.Seconds()/through.Seconds())
		nginxCPU = append(nginxCPU, (after-before).Seconds()/gigabytes)
		writerCPU = append(writerCPU, written.Seconds()/gigabytes)
		cpu = append(cpu, used.Seconds()/gigabytes)
		rest = append(rest, (used-written).Seconds()/gigabytes)
	}
	l.report.add(what+": curl from nginx", "MB/s", "", plain)
	l.report.add(what+": curl from a cold node, one holder", "MB/s", "", shoal)
	l.report.add(what+": share of nginx's speed", "", "at least 0.85 at 1 Gbit/s", ratio)
	l.report.add(what+": processor time of both nodes", "s/GB", "below 4.5", cpu)
	l.report.add(what+": processor time of writing such a file at that pace", "s/GB", "", writerCPU)
	l.report.add(what+": processor time of both nodes, less that", "s/GB", "", rest)
	l.report.add(what+": processor time of nginx", "s/GB", "", nginxCPU)
	return nil
}

// writeFile writes size bytes to a new file, evenly over the given time, and
// removes it. It returns the processor time that this took: a virtual machine
// gives free memory back to its host, and the first use of each page, here by
// the page cache, is charged to whoever writes. The slower the writing, the
// more of it is memory that had been given back.
func writeFile(ctx context.Context, file string, size int64, over time.Duration) (cpu time.Duration, err error) {
	runtime.LockOSThread() // for its own processor time
	defer runtime.UnlockOSThread()
	f, err := os.Create(file)
	if err != nil {
		return 0, err
	}
	defer os.Remove(file)
	defer f.Close()
	block := make([]byte, 1<<20)
	blocks := size / int64(len(block))
	cpu = -threadCPU()
	pace := time.NewTicker(max(1, over/time.Duration(blocks)))
	defer pace.Stop()
	for range blocks {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
	}
	return cpu + threadCPU(), nil
}

// threadCPU returns the processor time of the calling thread so far.
func threadCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err) // its arguments are right
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// throughSwarm gets the blob through a new node, and returns how long that
// took and the processor time that it and the holder used until it was stored.
func (l *lab) throughSwarm(ctx context.Context, holder *program.Node, b v1.Descriptor) (took, cpu time.Duration, err error) {
	before := len(l.origin.Accesses().Blobs())
	puller, err := l.node(ctx, 1, l.origin.URL(), holder)
	if err != nil {
		return 0, 0, err
	}
	used := func() time.Duration {
		of1, err1 := holder.Process.CPU()
		of2, err2 := puller.Process.CPU()
		err = errors.Join(err, err1, err2)
		return of1 + of2
	}
	cpu = -used()
	took, curlErr := curl(ctx, puller.Host, blobURL(b), b.Size)
	err = errors.Join(err, curlErr, whole(ctx, puller, b))
	cpu += used()
	if asked := len(l.origin.Accesses().Blobs()) - before; asked > 0 {
		err = errors.Join(err, fmt.Errorf("the origin was asked for the blob %d times", asked))
	}
	return took, cpu, errors.Join(err, l.drop(puller))
}
