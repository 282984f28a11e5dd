//go:build linux

package program

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/testhost"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Addresses of shoal on every host.
const (
	MirrorURL = "http://127.0.0.1:5000"
	adminURL  = "http://127.0.0.1:5050"
	swarmPort = 4001
)

// Node is a shoal on a host. Its data outlive the process.
type Node struct {
	Host    *testhost.Host
	DataDir string
	ID      string // its peer ID
	Process *testhost.Process

	command testhost.Command
	name    string
}

// NodeConfig says how a node is run.
type NodeConfig struct {
	Shoal    string // path of the program
	Name     string // of its folder and log on the host
	SwarmKey string // file
	Upstream string // URL of docker.io
	Join     []*Node
	Args     []string // further ones
	// ResolvConf is what it sees as /etc/resolv.conf; empty is the machine's.
	ResolvConf string
}

// StartNode starts a node on h and waits until it is ready.
func StartNode(ctx context.Context, h *testhost.Host, c NodeConfig) (*Node, error) {
	n, err := NewNode(ctx, h, c)
	if err != nil {
		return nil, err
	}
	return n, n.Start(ctx)
}

// NewNode makes a node on h that does not run yet: Start starts it. Others can
// be told to join it already.
func NewNode(ctx context.Context, h *testhost.Host, c NodeConfig) (*Node, error) {
	n := &Node{Host: h, DataDir: filepath.Join(h.Dir, c.Name), name: c.Name}
	id, err := h.Run(ctx, testhost.Command{Path: c.Shoal, Args: []string{"id", "--data-dir", n.DataDir}})
	if err != nil {
		return nil, err
	}
	n.ID = strings.TrimSpace(id)
	n.command = testhost.Command{Path: c.Shoal, Args: []string{
		"serve", "--data-dir", n.DataDir, "--swarm-key", c.SwarmKey,
		"--swarm", fmt.Sprintf("/ip4/%s/tcp/%d", h.Addr, swarmPort),
		"--registry", "docker.io=" + c.Upstream,
	}}
	if c.ResolvConf != "" {
		n.command.Binds = map[string]string{"/etc/resolv.conf": c.ResolvConf}
	}
	for _, other := range c.Join {
		n.command.Args = append(n.command.Args, "--join", other.Multiaddr())
	}
	n.command.Args = append(n.command.Args, c.Args...)
	return n, nil
}

// Start starts a new node, or one that has ended, and waits until it is ready.
func (n *Node) Start(ctx context.Context) error {
	var err error
	if n.Process, err = n.Host.Start(n.name, n.command); err != nil {
		return err
	}
	return AwaitOK(ctx, n.Host, n.Process, adminURL+"/readyz", 10*time.Second)
}

// Stop ends the node as its operator does. It returns nil if that went well.
func (n *Node) Stop() error { return n.Process.Stop(10 * time.Second) }

// Kill ends the node as a power cut does. One that does not run is left alone.
func (n *Node) Kill() {
	if n.Process != nil {
		n.Process.Kill()
	}
}

// Multiaddr is where others join the node.
func (n *Node) Multiaddr() string {
	return fmt.Sprintf("/ip4/%s/tcp/%d/p2p/%s", n.Host.Addr, swarmPort, n.ID)
}

// BlobFile returns where a whole blob lies on the node's disk.
func (n *Node) BlobFile(hex string) string { return filepath.Join(n.DataDir, "blobs", "sha256", hex) }

// HasBlob tells whether the node's disk holds the blob whole.
func (n *Node) HasBlob(hex string) bool {
	_, err := os.Stat(n.BlobFile(hex))
	return err == nil
}

// Status is what /api/v1/status says, as far as the contract goes.
type Status struct {
	ID     string `json:"id"`
	Joined bool   `json:"joined"`
	Peers  int    `json:"peers"`
	Zone   string `json:"zone"`
	Bytes  struct {
		Origin        int64 `json:"origin"`
		Peers         int64 `json:"peers"`
		CacheHits     int64 `json:"cache_hits"`
		ServedClients int64 `json:"served_clients"`
		ServedPeers   int64 `json:"served_peers"`
	} `json:"bytes"`
	Fills []json.RawMessage `json:"fills"`
}

// Status asks the node for its status.
func (n *Node) Status(ctx context.Context) (Status, error) {
	var s Status
	body, err := n.admin(ctx, "/api/v1/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("status of %s: %w", n.Host.Name, err)
	}
	return s, nil
}

// Pull is what /api/v1/pulls says of a pull.
type Pull struct {
	Image      string  `json:"image"`
	Platform   string  `json:"platform"`
	Result     string  `json:"result"`
	Seconds    float64 `json:"seconds"`
	Bytes      int64   `json:"bytes"`
	FromOrigin int64   `json:"from_origin"`
	FromPeers  int64   `json:"from_peers"`
	FromCache  int64   `json:"from_cache"`
	Bound      float64 `json:"bound"`
	Bottleneck string  `json:"bottleneck"`
	Why        string  `json:"why"`
}

// Pulls asks the node for its reports, the last one first.
func (n *Node) Pulls(ctx context.Context) ([]Pull, error) {
	body, err := n.admin(ctx, "/api/v1/pulls")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Pulls []Pull `json:"pulls"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("pulls of %s: %w", n.Host.Name, err)
	}
	return answer.Pulls, nil
}

// Ways returns in which way the node reaches each member that it is connected to,
// by its ID.
func (n *Node) Ways(ctx context.Context) (map[string]string, error) {
	body, err := n.admin(ctx, "/api/v1/peers")
	if err != nil {
		return nil, err
	}
	var answer struct {
		Peers []struct{ ID, Way string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("peers of %s: %w", n.Host.Name, err)
	}
	ways := map[string]string{}
	for _, p := range answer.Peers {
		ways[p.ID] = p.Way
	}
	return ways, nil
}

// Metric returns the sum of a metric's samples over those that have all the
// labels (name, value, name, value, ...). A metric that is not there is an
// error, a labelled sample that is not there yet counts as zero.
func (n *Node) Metric(ctx context.Context, name string, labels ...string) (float64, error) {
	body, err := n.admin(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		return 0, fmt.Errorf("metrics of %s: %w", n.Host.Name, err)
	}
	family, ok := families[name]
	if !ok {
		return 0, fmt.Errorf("metrics of %s: no %s", n.Host.Name, name)
	}
	var sum float64
	for _, m := range family.GetMetric() {
		if hasLabels(m, labels) {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum, nil
}

// hasLabels tells whether m has all the labels (name, value, ...).
func hasLabels(m *dto.Metric, labels []string) bool {
	has := map[string]string{}
	for _, pair := range m.GetLabel() {
		has[pair.GetName()] = pair.GetValue()
	}
	for i := 0; i < len(labels); i += 2 {
		if has[labels[i]] != labels[i+1] {
			return false
		}
	}
	return true
}

// admin gets a path of the admin API.
func (n *Node) admin(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, adminURL+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := n.Host.Client(5 * time.Second).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Host.Name, err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end or given up
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: GET %s: %s", n.Host.Name, path, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
