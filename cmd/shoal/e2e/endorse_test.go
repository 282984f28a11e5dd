//go:build linux

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestStreamOnTrust: a blob that only a seeder holds. A node that trusts its key
// lets the first bytes out long before the blob is whole, and before the registry
// was asked; one that does not waits until it is whole.
func TestStreamOnTrust(t *testing.T) {
	ctx, l := scenario(t)
	const size = 128 << 20
	blob := must(l.origin.PutBlob("shoal/trust", 42, size))(t)
	key := filepath.Join(t.TempDir(), "seeder.key")
	public := strings.TrimSpace(must(l.machines[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"key", "new", key}}))(t))
	swarm := filepath.Join(l.dir, t.Name()+".key")
	text := must(l.machines[0].Run(ctx, testhost.Command{Path: l.shoal, Args: []string{"swarm-key", "new"}}))(t)
	check(t, os.WriteFile(swarm, []byte(text), 0o600))
	start := func(number int, join []*program.Node, args ...string) *program.Node {
		t.Helper()
		n := must(program.StartNode(ctx, l.hosts[number], program.NodeConfig{
			Shoal: l.shoal, Name: "shoal-trust", SwarmKey: swarm, Upstream: l.origin.URL(), Join: join, Args: append(args, "--no-mdns"),
		}))(t)
		t.Cleanup(n.Kill)
		return n
	}
	seeder := start(0, nil, "--signing-key", key)
	check(t, l.origin.Host.Shape(0))
	check(t, program.DownloadBlob(ctx, seeder.Host, program.MirrorURL, "shoal/trust", blob))
	check(t, l.origin.Host.Shape(originLink))
	for number, args := range map[int][]string{1: {"--trusted-keys", public}, 2: nil} {
		n := start(number, []*program.Node{seeder}, args...)
		awaitConnected(ctx, t, []*program.Node{n, seeder})
		before := l.origin.Accesses()
		first, rest := firstPiece(ctx, t, n, blob)
		had := must(taken(ctx, n))(t)
		if asked := l.origin.Accesses().Since(before); args != nil && len(asked) > 0 {
			t.Errorf("the registry was asked before the client had a piece:\n%v", asked)
		}
		hash := sha256.New()
		_, _ = hash.Write(first)
		check(t, func() error { _, err := io.Copy(hash, rest); return err }())
		if sum := hex.EncodeToString(hash.Sum(nil)); sum != blob.Digest.Hex {
			t.Errorf("the body's digest is %s, want %s", sum, blob.Digest.Hex)
		}
		t.Logf("%v: of %d bytes the node had %d when the client had the first piece", args, size, had)
		if trusts := args != nil; trusts != (had < size/2) {
			t.Errorf("%v: of %d bytes the node had %d when the client had the first piece", args, size, had)
		}
		n.Kill() // the next one has it from the seeder alone
	}
}

// firstPiece returns the first MiB that the node's mirror gives of the blob, and
// what follows.
func firstPiece(ctx context.Context, t *testing.T, n *program.Node, b v1.Descriptor) ([]byte, io.Reader) {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, http.MethodGet, program.MirrorURL+"/v2/shoal/trust/blobs/"+b.Digest.String(), nil))(t)
	resp, err := n.Host.Client(0).Do(req)
	check(t, err)
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	first := make([]byte, 1<<20)
	_, err = io.ReadFull(resp.Body, first)
	check(t, err)
	return first, resp.Body
}
