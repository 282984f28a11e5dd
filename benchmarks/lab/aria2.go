//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/testhost"
)

// aria2 is a BitTorrent swarm of Debian's aria2, a torrent for each layer, with
// the origin as the web seed of all (BEP 19). Its nodes have the torrents, and
// a tracker that everybody can reach, which is more than a registry gives.
type aria2 struct {
	// torrents are made once for each layer and origin.
	torrents map[string]string
}

// Ports of the swarm.
const (
	trackerPort = 6969
	rpcPort     = 6800
)

func (*aria2) name() string    { return "aria2" }
func (*aria2) needs() []string { return []string{"aria2c", "mktorrent"} }

// idle is short, as nobody is connected before there is a torrent.
func (*aria2) idle() time.Duration               { return time.Second }
func (*aria2) expect(*scenario.Scenario) float64 { return 1.4 }

func (*aria2) versions(ctx context.Context) map[string]string {
	return map[string]string{"aria2": rig.FirstLine(ctx, "aria2c", "--version")}
}

func (a *aria2) crew(ctx context.Context, st *stage) (crew, error) {
	c := &aria2Crew{stage: st, processes: make([]*testhost.Process, len(st.nodes))}
	l, err := st.center.Listen(ctx, st.center.Addr, trackerPort)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: &tracker{peers: map[string]map[netip.AddrPort]bool{}}}
	go func() { _ = server.Serve(l) }() // ends with the run
	context.AfterFunc(ctx, func() { _ = server.Close() })
	for _, b := range st.image.layers() {
		torrent, err := a.torrent(ctx, st, b, "http://"+l.Addr().String()+"/announce")
		if err != nil {
			return nil, err
		}
		c.torrents = append(c.torrents, torrent)
	}
	return c, nil
}

// torrent makes the torrent of a layer, of pieces of 1 MiB.
func (a *aria2) torrent(ctx context.Context, st *stage, b blobFile, announce string) (string, error) {
	seed := st.upstream + st.image.path("blobs", b.digest())
	if torrent, ok := a.torrents[seed]; ok {
		return torrent, nil
	}
	path, err := testhost.Program("mktorrent")
	if err != nil {
		return "", err
	}
	file := filepath.Join(st.dir, b.hex+".torrent")
	out, err := exec.CommandContext(ctx, path, "-l", "20", "-a", announce, "-w", seed, "-o", file, b.file).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mktorrent: %w: %s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	a.torrents[seed] = base64.StdEncoding.EncodeToString(content)
	return a.torrents[seed], nil
}

// aria2Crew is an aria2c with an RPC interface on every machine.
type aria2Crew struct {
	*stage
	torrents  []string // of the layers, in base64
	processes []*testhost.Process
}

func (c *aria2Crew) nodeDir(node int) string { return filepath.Join(c.dir, strconv.Itoa(node)) }

func (c *aria2Crew) start(ctx context.Context, node int) error {
	path, err := testhost.Program("aria2c")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.nodeDir(node), 0o755); err != nil {
		return err
	}
	host := c.nodes[node]
	c.processes[node], err = host.Start("aria2c", testhost.Command{Path: path, Args: []string{
		"--no-conf", "--quiet", "--enable-rpc", "--rpc-listen-port=" + strconv.Itoa(rpcPort),
		"--dir=" + c.nodeDir(node), "--listen-port=6881", "--bt-external-ip=" + host.Addr.String(),
		"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
		"--max-concurrent-downloads=" + strconv.Itoa(c.image.parallel), "--bt-detach-seed-only=true", "--seed-ratio=0.0",
		// Nobody may be left out as one of too many.
		"--bt-max-peers=0", "--bt-request-peer-speed-limit=1000M",
		// The disk is not measured, and files that begin sparse are faster.
		"--file-allocation=none", "--disk-cache=64M",
	}})
	if err != nil {
		return err
	}
	process := c.processes[node]
	return testhost.Until(ctx, readyTime, func(ctx context.Context) error {
		select {
		case <-process.Ended():
			return fmt.Errorf("aria2c on %s ended by itself: %w", host.Name, testhost.ErrGone)
		default:
		}
		var version any
		return c.call(ctx, c.web(node), "aria2.getVersion", []any{}, &version)
	})
}

func (c *aria2Crew) connected(context.Context) error { return nil }

// pull adds the torrents and waits until aria2 seeds all of them: then it has
// compared every piece with its sum.
func (c *aria2Crew) pull(ctx context.Context, node int) error {
	web := c.web(node)
	defer web.CloseIdleConnections()
	for _, torrent := range c.torrents {
		var gid string
		if err := c.call(ctx, web, "aria2.addTorrent", []any{torrent}, &gid); err != nil {
			return err
		}
	}
	tick := time.NewTicker(storedInterval)
	defer tick.Stop()
	for {
		var active []struct {
			Seeder string `json:"seeder"`
		}
		if err := c.call(ctx, web, "aria2.tellActive", []any{[]string{"seeder"}}, &active); err != nil {
			return err
		}
		whole := 0
		for _, download := range active {
			if download.Seeder == "true" {
				whole++
			}
		}
		if whole == len(c.torrents) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// web returns an HTTP client on the node's machine that keeps its connection.
func (c *aria2Crew) web(node int) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: c.nodes[node].DialContext}}
}

// call calls a method of aria2's JSON-RPC interface.
func (c *aria2Crew) call(ctx context.Context, web *http.Client, method string, params []any, result any) error {
	request, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": "lab", "method": method, "params": params})
	if err != nil {
		return err
	}
	url := fmt.Sprintf("http://127.0.0.1:%d/jsonrpc", rpcPort)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(request))
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read to its end or given up
	answer := struct {
		Result json.RawMessage
		Error  *struct{ Message string }
	}{}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %w", method, errors.New(answer.Error.Message))
	}
	return json.Unmarshal(answer.Result, result)
}

// stored has no answer: files lie in their places from the beginning.
func (c *aria2Crew) stored(int, blobFile) (string, bool) { return "", false }

func (c *aria2Crew) verify(_ context.Context, node int) error {
	for _, b := range c.image.layers() {
		if err := b.check(filepath.Join(c.nodeDir(node), b.hex)); err != nil {
			return err
		}
	}
	return nil
}

func (c *aria2Crew) process(node int) *testhost.Process { return c.processes[node] }
