//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	blobRepository = "bench/blob"
	gigabyte       = 1e9
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

// startNginx starts an nginx on h that serves file, at the URL it returns.
func startNginx(ctx context.Context, h *testhost.Host, file string) (string, error) {
	path, err := testhost.Program("nginx")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(h.Dir, "nginx")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	config := fmt.Sprintf(`daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log stderr;
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
		return "", err
	}
	if _, err := h.Start("nginx", testhost.Command{Path: path, Args: []string{"-e", "stderr", "-c", name}}); err != nil {
		return "", err
	}
	url := fmt.Sprintf("http://%s:%d/blob", h.Addr, nginxPort)
	return url, testhost.Until(ctx, 10*time.Second, func(ctx context.Context) error {
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
	var plain, shoal, ratio, cpu, disk []float64
	for range l.pairs {
		direct, err := curl(ctx, l.machines[1], nginx, size)
		if err != nil {
			return err
		}
		through, used, err := l.throughSwarm(ctx, holder, b)
		if err != nil {
			return err
		}
		written, err := writeFile(ctx, filepath.Join(l.dir, "file"), size)
		if err != nil {
			return err
		}
		plain = append(plain, size/1e6/direct.Seconds())
		shoal = append(shoal, size/1e6/through.Seconds())
		ratio = append(ratio, direct.Seconds()/through.Seconds())
		cpu = append(cpu, used.Seconds()/(size/gigabyte))
		disk = append(disk, written.Seconds()/(size/gigabyte))
	}
	l.report.add("link: curl from nginx", "MB/s", "", plain)
	l.report.add("link: curl from a cold node, one holder", "MB/s", "", shoal)
	l.report.add("link: share of nginx's speed", "", "at least 0.85", ratio)
	l.report.add("link: processor time of both nodes", "s/GB", "below 4.5", cpu)
	l.report.add("link: of it, what dd takes to write such a file here", "s/GB", "", disk)
	return l.drop(holder)
}

// writeFile writes size zero bytes to a new file, removes it, and returns the
// processor time that this took: in a virtual machine the first use of memory,
// here by the page cache, can cost more than everything else that a node does.
func writeFile(ctx context.Context, file string, size int64) (time.Duration, error) {
	const block = 1 << 20
	dd := exec.CommandContext(ctx, "dd", "if=/dev/zero", "of="+file, fmt.Sprintf("bs=%d", block), fmt.Sprintf("count=%d", size/block))
	if out, err := dd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("dd: %w: %s", err, out)
	}
	return dd.ProcessState.UserTime() + dd.ProcessState.SystemTime(), os.Remove(file)
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
