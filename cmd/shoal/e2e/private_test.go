//go:build linux

package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// Ports on the origin's host of what this test starts there.
const (
	privatePort = 7301
	realmPort   = 7302
)

// TestPrivateImagesStayPrivate: Docker Hub is asked in the name of each client.
// A dockerd and a podman that are logged in there pull an image through the
// mirror; who is not gets nothing, neither from a node that has it nor from
// another member of the swarm that asks it, and not after a restart.
func TestPrivateImagesStayPrivate(t *testing.T) {
	ctx, l := scenario(t)
	img, open := l.push(ctx, t, 35, 4, 2), l.push(ctx, t, 36, 2)
	first, second := l.withClients(ctx, t)
	m := l.machines[0]
	layer := img.Layers[0].Digest.String()

	t.Run("dockerd", func(t *testing.T) {
		before := l.origin.Accesses()
		logIn(t, filepath.Join(m.Dir, "docker-client", "config.json"), "https://index.docker.io/v1/")
		check(t, m.pull(ctx, img.Ref()))
		m.checkImage(ctx, t, img.Ref(), img)
		assertNoHub(t, l.origin.Accesses().Since(before))
		awaitWhole(ctx, t, first, img)
	})
	t.Run("dockerd without a login", func(t *testing.T) {
		before := l.origin.Accesses()
		check(t, l.machines[1].pullInTries(ctx, img.Ref())) // from the Hub itself, which is open here
		past := l.origin.Accesses().Since(before).Blobs()
		if past.Bytes() < img.Layers[0].Size || second.HasBlob(img.Layers[0].Digest.Hex) {
			t.Errorf("%d bytes came past the mirror:\n%v", past.Bytes(), past)
		}
	})
	t.Run("podman", func(t *testing.T) {
		settings := documented(t, "[[registry]]\n", filepath.Join(l.dir, "private.conf"))
		logIn(t, filepath.Join(l.dir, "private.json"), "127.0.0.1:5000")
		podman := newPodman(t, second.Host, settings)
		if out, err := podman.host.Run(ctx, podman.with("pull", "--quiet", "docker.io/"+img.Ref())); err == nil {
			t.Errorf("pulled without a login: %s", out)
		}
		podman.command.Env = append(podman.command.Env, "REGISTRY_AUTH_FILE="+filepath.Join(l.dir, "private.json"))
		podman.run(ctx, t, "pull", "--quiet", "docker.io/"+img.Ref())
		awaitWhole(ctx, t, second, img)
		if s := must(second.Status(ctx))(t); s.Bytes.Peers != 0 {
			t.Errorf("%d bytes came from a member", s.Bytes.Peers)
		}
	})

	t.Run("containerd", func(t *testing.T) {
		certs := filepath.Join(t.TempDir(), "certs.d")
		check(t, os.MkdirAll(filepath.Join(certs, "_default"), 0o755))
		documented(t, "[host.", filepath.Join(certs, "_default", "hosts.toml"))
		fetch := testhost.Command{Path: must(testhost.Program("ctr"))(t), Args: []string{
			"--address", m.docker.Containerd(), "content", "fetch", "--hosts-dir", certs, "docker.io/" + img.Ref(),
		}}
		if out, err := m.Run(ctx, fetch); err == nil {
			t.Errorf("fetched without a login: %s", out)
		}
		before := must(first.Status(ctx))(t).Bytes
		fetch.Args = slices.Insert(fetch.Args, 4, "--user", user+":"+password)
		must(m.Run(ctx, fetch))(t)
		after := must(first.Status(ctx))(t).Bytes
		// All images have the first layer, and containerd may have it from another.
		if served := after.ServedClients - before.ServedClients; served < img.BlobBytes()-img.Layers[0].Size || after.Origin != before.Origin {
			t.Errorf("%d bytes came from the mirror, and it took %d from the registry", served, after.Origin-before.Origin)
		}
	})

	refused := func(t *testing.T, when string, n *program.Node) {
		t.Helper()
		for path, want := range map[string]int{
			"docker.io/" + img.Repository + "/blobs/" + layer:     http.StatusUnauthorized,
			img.Repository + "/manifests/" + img.Tag:              http.StatusUnauthorized,
			"open.example/" + open.Repository + "/blobs/" + layer: http.StatusNotFound,
			"dead.example/" + img.Repository + "/blobs/" + layer:  http.StatusNotFound,
		} {
			if status, _ := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+path); status != want {
				t.Errorf("%s: %s: status %d, want %d", when, path, status, want)
			}
		}
	}
	refused(t, "who has it", first)
	// A member that has nothing of it, and knows the digest.
	check(t, second.Stop())
	check(t, os.RemoveAll(filepath.Join(second.DataDir, "blobs")))
	check(t, os.RemoveAll(filepath.Join(second.DataDir, "meta.db")))
	check(t, second.Start(ctx))
	awaitConnected(ctx, t, []*program.Node{first, second})
	blob := func(n *program.Node, registry string) int {
		status, _ := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+registry+"/"+open.Repository+"/blobs/"+open.Layers[0].Digest.String())
		return status
	}
	if here, there := blob(first, "open.example"), blob(second, "dead.example"); here != http.StatusOK || there != http.StatusOK {
		t.Errorf("an open image: %d, and from the member that has it %d", here, there)
	}
	refused(t, "another member", second)
	check(t, first.Stop())
	check(t, first.Start(ctx))
	awaitConnected(ctx, t, []*program.Node{first, second})
	refused(t, "after a restart", first)
	refused(t, "another member after a restart", second)
	if s := must(first.Status(ctx))(t); s.Bytes.ServedPeers != 0 {
		t.Errorf("%d bytes went to members after the restart", s.Bytes.ServedPeers)
	}
	for _, n := range []*program.Node{first, second} {
		silent(ctx, t, n, "", password)
	}
}

// withClients starts a registry that wants tokens, and two nodes to which it is
// Docker Hub and which ask it in the name of clients. To them open.example is
// the origin, and dead.example is there no more.
func (l *lab) withClients(ctx context.Context, t *testing.T) (first, second *program.Node) {
	t.Helper()
	dir, host := t.TempDir(), l.origin.Host
	ca, key := newPKI(t, dir, host.Addr.AsSlice())
	issue(t, must(host.Listen(ctx, host.Addr, realmPort))(t), func() string { return password }, func(claims map[string]any) string { return sign(t, ca, key, claims) })
	registry := must(l.origin.Registry("private", fmt.Sprintf(`http: {addr: "%v:%d", secret: none}
auth: {token: {realm: "http://%[1]v:%[3]d/token", service: lab, issuer: lab, rootcertbundle: %[4]s/ca.pem}}`,
		host.Addr, privatePort, realmPort, dir)))(t)
	l.listens(ctx, t, privatePort, registry)
	file := filepath.Join(dir, "shoal.yaml")
	check(t, os.WriteFile(file, []byte(fmt.Sprintf(`registry:
  docker.io: {access: client, credentials-in-clear: true}
  open.example: {upstreams: ['%s']}
  dead.example: {upstreams: ['http://%v:1']}
`, l.origin.URL(), host.Addr)), 0o600))
	private := *l
	private.upstream = fmt.Sprintf("http://%v:%d", host.Addr, privatePort)
	nodes := private.swarm(ctx, t, 2, "--config", file, "--log-level", "debug")
	return nodes[0], nodes[1]
}

// logIn writes what "docker login" and "podman login" do, until the test ends.
func logIn(t *testing.T, file, registry string) {
	t.Helper()
	text := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, registry, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	check(t, os.MkdirAll(filepath.Dir(file), 0o755))
	check(t, os.WriteFile(file, []byte(text), 0o600))
	t.Cleanup(func() { check(t, os.Remove(file)) })
}
