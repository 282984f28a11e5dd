//go:build linux

package rig

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// nginxPatience is how long nginx may take until it answers.
const nginxPatience = 30 * time.Second

// Nginx says how an nginx serves files, by sendfile and with Debian's other
// defaults for them.
type Nginx struct {
	Dir     string // for its own files
	Listen  netip.AddrPort
	Workers string // a number, or auto: one for each processor
	HTTP    string // further lines of the http block
	Server  string // the locations
	Ready   string // path that is answered with 200
}

// Config returns nginx's configuration. With worker processes of its own nginx
// can be told to end when the last connection has.
func (n Nginx) Config() string {
	return fmt.Sprintf(`daemon off; worker_processes %[2]s; user root; pid %[1]s/pid; error_log stderr;
events { worker_connections 4096; }
http {
	%[3]s
	sendfile on; tcp_nopush on; keepalive_requests 100000000;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server {
		listen %[4]v backlog=1024;
%[5]s	}
}
`, n.Dir, n.Workers, n.HTTP, n.Listen, n.Server)
}

// URL returns where it answers.
func (n Nginx) URL() string { return "http://" + n.Listen.String() }

// Start starts it on h and waits until it answers. Its end is Stop: killed, it
// would leave its workers behind.
func (n Nginx) Start(ctx context.Context, h *testhost.Host) (*testhost.Process, error) {
	path, err := testhost.Program("nginx")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(n.Dir, "nginx.conf")
	if err := os.WriteFile(config, []byte(n.Config()), 0o644); err != nil {
		return nil, err
	}
	p, err := h.Start("nginx", testhost.Command{Path: path, Args: []string{"-e", "stderr", "-c", config}})
	if err != nil {
		return nil, err
	}
	return p, program.AwaitOK(ctx, h, p, n.URL()+n.Ready, nginxPatience)
}
