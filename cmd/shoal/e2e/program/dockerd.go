//go:build linux

package program

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/testhost"
)

// Dockerd is a container engine on a host. The one setting of it that has to
// do with images is its registry mirror.
type Dockerd struct {
	Host    *testhost.Host
	Process *testhost.Process
	Version string

	client string // path of the docker command
	socket string
}

// StartDockerd starts a dockerd whose registry mirror is mirror (a URL; empty
// for none) and to which origin is Docker Hub, and waits until it answers.
func StartDockerd(ctx context.Context, h *testhost.Host, mirror string, origin *Origin) (*Dockerd, error) {
	client, err := testhost.Program("docker")
	if err != nil {
		return nil, err
	}
	path, err := testhost.Program("dockerd")
	if err != nil {
		return nil, err
	}
	d := &Dockerd{Host: h, client: client, socket: filepath.Join(h.Dir, "docker.sock")}
	dir := filepath.Join(h.Dir, "dockerd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	settings := map[string]any{}
	if mirror != "" {
		settings["registry-mirrors"] = []string{mirror}
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return nil, err
	}
	hosts := fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", origin.Host.Addr, HubName)
	for name, content := range map[string]string{"daemon.json": string(config), "hosts": hosts, "resolv.conf": "# no name server\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	d.Process, err = h.Start("dockerd", testhost.Command{
		Path: path,
		// Everything but the configuration file keeps the daemon in its
		// folder and away from the machine's network and cgroup set-up.
		Args: []string{
			"--config-file", filepath.Join(dir, "daemon.json"),
			"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
			"--pidfile", filepath.Join(dir, "pid"), "--host", "unix://" + d.socket,
			"--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false",
			"--exec-opt", "native.cgroupdriver=cgroupfs",
		},
		Env:   []string{"SSL_CERT_FILE=" + origin.CA, "SSL_CERT_DIR=/nonexistent"},
		Binds: map[string]string{"/etc/hosts": filepath.Join(dir, "hosts"), "/etc/resolv.conf": filepath.Join(dir, "resolv.conf")},
	})
	if err != nil {
		return nil, err
	}
	return d, testhost.Until(ctx, 30*time.Second, func(ctx context.Context) error {
		select {
		case <-d.Process.Ended():
			return fmt.Errorf("dockerd on %s ended by itself: %w", h.Name, testhost.ErrGone)
		default:
		}
		version, err := d.Docker(ctx, "version", "--format", "{{.Server.Version}}")
		d.Version = strings.TrimSpace(version)
		return err
	})
}

// Docker runs the docker command on the daemon and returns its standard
// output. When ctx ends, so does the command; the daemon may go on.
func (d *Dockerd) Docker(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, d.client, append([]string{"--host", "unix://" + d.socket}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+filepath.Join(d.Host.Dir, "docker-client"))
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	if err != nil {
		return string(out), fmt.Errorf("docker %s on %s: %w", strings.Join(args, " "), d.Host.Name, err)
	}
	return string(out), nil
}

// Containerd returns the socket of the daemon's containerd.
func (d *Dockerd) Containerd() string {
	return filepath.Join(d.Host.Dir, "dockerd", "exec", "containerd", "containerd.sock")
}

// Stop ends the daemon and what it started.
func (d *Dockerd) Stop() error { return d.Process.Stop(15 * time.Second) }
