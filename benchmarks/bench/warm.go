//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"shoal/benchmarks/rig"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// lanPort is where a docker-registry on the origin's host listens for clients
// that pull directly.
const lanPort = 5100

// measureWarm compares a pull through a node that has the image with one from a
// docker-registry on the local network, by dockerd, containerd and podman; and
// then the same pull again, when only the tag is asked for.
func measureWarm(ctx context.Context, b *bench) error {
	img, err := b.origin.Push(ctx, "bench/warm", 6, 2<<20, 5<<20, 10<<20, 20<<20, 30<<20)
	if err != nil {
		return err
	}
	if err := b.origin.Host.Shape(machineLink); err != nil {
		return err
	}
	lan := fmt.Sprintf("%v:%d", b.origin.Host.Addr, lanPort)
	registry, err := b.origin.Registry("lan", fmt.Sprintf(`http: {addr: "%s", secret: none}`, lan))
	if err != nil {
		return err
	}
	defer registry.Kill()
	if err := program.AwaitOK(ctx, b.origin.Host, registry, "http://"+lan+"/v2/", 10*time.Second); err != nil {
		return err
	}
	n, err := b.node(ctx, 1, b.origin.URL())
	if err != nil {
		return err
	}
	if err := program.Download(ctx, n.Host, program.MirrorURL, img); err != nil {
		return err
	}
	direct, err := b.startRuntimes(ctx, b.machines[0], place{"http://" + lan, lan}, img)
	if err != nil {
		return err
	}
	through, err := b.startRuntimes(ctx, n.Host, place{program.MirrorURL, "127.0.0.1:5000/docker.io"}, img)
	if err != nil {
		return err
	}
	for _, name := range []string{"dockerd", "containerd", "podman"} {
		if err := b.compareWarm(ctx, name, direct.ways[name], through.ways[name]); err != nil {
			return err
		}
	}
	return errors.Join(direct.stop(), through.stop(), b.drop(n), b.origin.Host.Shape(originLink))
}

// compareWarm lets one program take turns in both ways.
func (b *bench) compareWarm(ctx context.Context, name string, direct, through way) error {
	got, err := b.compare(ctx,
		contender{"direct", func(ctx context.Context) (sample, error) { return b.pullTwice(ctx, direct) }},
		contender{"through", func(ctx context.Context) (sample, error) { return b.pullTwice(ctx, through) }})
	if err != nil {
		return err
	}
	b.add(name+", pull of 67 MiB, directly", "s", got["direct"]["s"])
	b.add(name+", pull of 67 MiB, through a node that has it", "s", got["through"]["s"])
	b.add(name+", pull of 67 MiB, through a node, by a direct one", "", ratios(got["through"]["s"], got["direct"]["s"]), atMost(1.05))
	var over []float64
	for i, seconds := range got["through"]["again"] {
		over = append(over, 1e3*(seconds-got["direct"]["again"][i]))
	}
	b.add(name+", pull again, directly", "s", got["direct"]["again"])
	b.add(name+", pull again, through a node, longer by", "ms", over, atMost(50))
	b.add(name+", pull again, through a node, HEADs at the origin", "", got["through"]["heads"], atLeast(1), atMost(1))
	b.add(name+", pull again, through a node, other requests at the origin", "", got["through"]["others"], atMost(0))
	return nil
}

// pullTwice pulls an image that is not there, and then again, when the answer on
// its tag is good no more.
func (b *bench) pullTwice(ctx context.Context, w way) (sample, error) {
	first, err := timed(w.get)
	if err != nil {
		return nil, err
	}
	if err := rig.Sleep(ctx, 1500*time.Millisecond); err != nil {
		return nil, err
	}
	before := b.origin.Accesses()
	again, err := timed(w.get)
	if err != nil {
		return nil, err
	}
	seen := b.origin.Accesses().Since(before)
	heads := seen.Where(func(a *program.Access) bool { return a.Method == http.MethodHead })
	return sample{"s": first, "again": again, "heads": float64(len(heads)), "others": float64(len(seen) - len(heads))}, w.forget()
}

// runtimes are dockerd, containerd and podman on one host, which get what is at
// docker.io from one place.
type runtimes struct {
	ways map[string]way
	stop func() error
}

// place is where docker.io is had from: a URL, and the same in podman's words.
type place struct{ base, location string }

// startRuntimes starts the runtimes on h, which get what is at docker.io from one
// place.
func (b *bench) startRuntimes(ctx context.Context, h *testhost.Host, from place, img *program.Image) (*runtimes, error) {
	dir := filepath.Join(h.Dir, "warm")
	files := map[string]string{
		"certs/_default/hosts.toml": fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", from.base),
		"registries.conf":           fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = %q\ninsecure = true\n", from.location),
		"containerd.toml": fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
			dir+"/root", dir+"/state", dir+"/sock"),
	}
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			return nil, err
		}
	}
	dockerd, err := program.StartDockerd(ctx, h, from.base, b.origin)
	if err != nil {
		return nil, err
	}
	containerd, err := h.Start("containerd", testhost.Command{Path: "/usr/bin/containerd", Args: []string{"--config", dir + "/containerd.toml"}})
	if err != nil {
		return nil, err
	}
	ctr := func(args ...string) error {
		_, err := h.Run(ctx, testhost.Command{Path: "/usr/bin/ctr", Args: append([]string{"--address", dir + "/sock"}, args...)})
		return err
	}
	podman := func(args ...string) error {
		_, err := h.Run(ctx, testhost.Command{
			Path: "/usr/bin/podman",
			Args: append([]string{
				"--root", dir + "/podman/root", "--runroot", dir + "/podman/run", "--tmpdir", dir + "/podman/tmp",
				"--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none",
			}, args...),
			Env: []string{"CONTAINERS_REGISTRIES_CONF=" + dir + "/registries.conf"},
		})
		return err
	}
	ref := "docker.io/" + img.Ref()
	return &runtimes{
		ways: map[string]way{
			"dockerd": {
				get:    func() error { return docker(ctx, dockerd, "pull", "--quiet", img.Ref()) },
				forget: func() error { return docker(ctx, dockerd, "image", "rm", img.Ref()) },
			},
			"containerd": {
				get:    func() error { return ctr("images", "pull", "--hosts-dir", dir+"/certs", ref) },
				forget: func() error { return ctr("images", "rm", "--sync", ref) },
			},
			"podman": {
				get:    func() error { return podman("pull", "--quiet", ref) },
				forget: func() error { return podman("rmi", "--force", ref) },
			},
		},
		stop: func() error { return errors.Join(dockerd.Stop(), containerd.Stop(10*time.Second)) },
	}, testhost.Until(ctx, 20*time.Second, func(context.Context) error { return ctr("version") })
}
