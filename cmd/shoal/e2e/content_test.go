//go:build linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
)

// Ports on the origin's host: of a docker-registry that takes schema 1 and layers
// that are elsewhere, and of where those are.
const (
	lenientPort   = 7300
	elsewherePort = 7301
)

// TestFormatsOfImages: an image in the formats that real programs make of it is
// pulled through a node by those that can read it, and has its files.
func TestFormatsOfImages(t *testing.T) {
	ctx, l := scenario(t)
	img := l.push(ctx, t, 35, 3)
	settings := documented(t, "[[registry]]\n", filepath.Join(l.dir, "formats.conf"))
	n := l.swarm(ctx, t, 1)[0]
	registry, layout := "docker://"+l.backend()+"/"+img.Repository, "oci:"+filepath.Join(t.TempDir(), "layout")
	check(t, l.origin.PushUncompressed(ctx, img.Repository+":plain", img))
	l.skopeo(ctx, t, l.origin.Host, "--format", "v2s2", registry+":latest", registry+":v2s2")
	l.skopeo(ctx, t, l.origin.Host, "--dest-compress-format", "zstd", registry+":plain", layout) // what is compressed already would stay so
	l.skopeo(ctx, t, l.origin.Host, "--preserve-digests", layout, registry+":zstd")
	podman := newPodman(t, n.Host, settings)
	for tag, mediaType := range map[string]types.MediaType{"v2s2": types.DockerLayer, "zstd": types.OCILayerZStd, "plain": types.OCIUncompressedLayer} {
		t.Run(tag, func(t *testing.T) {
			_, manifest := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+img.Repository+"/manifests/"+tag)
			if !strings.Contains(manifest, `"`+string(mediaType)+`"`) {
				t.Fatalf("not the format that this is about: %s", manifest)
			}
			ref := "docker.io/" + img.Repository + ":" + tag
			if tag != "zstd" { // dockerd 20.10 cannot unpack it
				check(t, l.machines[0].pull(ctx, ref))
				out := must(l.machines[0].docker.Docker(ctx, "run", "--rm", "--network", "none", ref, "/bin/busybox", "sha256sum", "/data/0"))(t)
				if !strings.HasPrefix(out, img.Files["/data/0"]) {
					t.Errorf("in dockerd's container: %s", out)
				}
			}
			out := podman.run(ctx, t, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
				ref, "/bin/busybox", "sha256sum", "/data/0")
			if !strings.HasPrefix(out, img.Files["/data/0"]) {
				t.Errorf("in podman's container: %s", out)
			}
			must(n.Host.Run(ctx, l.fetch(t, ref)))(t)
		})
	}
}

// TestOtherContents: artifacts, layers that are empty or to be had elsewhere,
// digests of sha512, lists of referrers, and what is refused.
func TestOtherContents(t *testing.T) {
	ctx, l := scenario(t)
	dir := t.TempDir()
	l.listens(ctx, t, lenientPort, must(l.origin.Registry("lenient", fmt.Sprintf(`http: {addr: "%v:%d", secret: none}
compatibility: {schema1: {enabled: true}}
validation: {manifests: {urls: {allow: ["^http://"]}}}`, l.origin.Host.Addr, lenientPort)))(t))
	n := l.swarm(ctx, t, 1, "--registry", fmt.Sprintf("old.example=http://%v:%d", l.origin.Host.Addr, lenientPort))[0]
	const repository = "shoal/contents"
	empty, layer, foreign := content(nil), content([]byte("an uncompressed layer")), content([]byte("a layer from elsewhere"))
	config, long := content([]byte(`{}`)), content(bytes.Repeat([]byte("a layer by sha512"), 100_000))
	for _, c := range []content{empty, layer, config} {
		l.put(ctx, t, repository, c.sha256(), c)
	}
	l.put(ctx, t, repository, long.sha512(), long)
	manifest := func(fields string) content {
		return content(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` + fields + `}`)
	}
	configured := `"config":` + config.descriptor(config.sha256(), "application/vnd.oci.empty.v1+json")

	t.Run("an artifact with an empty layer", func(t *testing.T) {
		artifact := manifest(`"artifactType":"application/vnd.example",` + configured + `,"layers":[` +
			layer.descriptor(layer.sha256(), "application/vnd.example.text") + "," + empty.descriptor(empty.sha256(), "application/vnd.example.nothing") + `]`)
		l.putManifest(ctx, t, repository, "artifact", "application/vnd.oci.image.manifest.v1+json", artifact)
		l.skopeo(ctx, t, n.Host, "docker://127.0.0.1:5000/"+repository+":artifact", "dir:"+dir)
		for _, c := range []content{layer, empty, config} {
			got, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(c.sha256(), "sha256:")))
			if err != nil || !bytes.Equal(got, c) {
				t.Errorf("%q, %v; want %q", got, err, c)
			}
		}
	})
	t.Run("referrers", func(t *testing.T) {
		subject := content("subject").sha256()
		signature := manifest(configured + `,"layers":[]`)
		index := content(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
			signature.descriptor(signature.sha256(), "application/vnd.oci.image.manifest.v1+json") + `]}`)
		l.putManifest(ctx, t, repository, signature.sha256(), "application/vnd.oci.image.manifest.v1+json", signature)
		l.putManifest(ctx, t, repository, strings.Replace(subject, ":", "-", 1), "application/vnd.oci.image.index.v1+json", index)
		if status, body := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+repository+"/referrers/"+subject); status != http.StatusOK || body != string(index) {
			t.Errorf("answer %d, %s", status, body)
		}
	})
	t.Run("a layer that is to be had elsewhere", func(t *testing.T) {
		elsewhere := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(foreign) }), ReadHeaderTimeout: time.Second}
		t.Cleanup(func() { _ = elsewhere.Close() })
		listener := must(l.origin.Host.Listen(ctx, l.origin.Host.Addr, elsewherePort))(t)
		go func() { _ = elsewhere.Serve(listener) }() // ends by Close
		m := manifest(configured + `,"layers":[` + strings.TrimSuffix(foreign.descriptor(foreign.sha256(), "application/vnd.oci.image.layer.nondistributable.v1.tar"), "}") +
			fmt.Sprintf(`,"urls":["http://%v:%d/layer"]}]`, l.origin.Host.Addr, elsewherePort))
		l.send(ctx, t, http.MethodPut, fmt.Sprintf("http://%v:%d/v2/%s/manifests/foreign", l.origin.Host.Addr, lenientPort, repository),
			"application/vnd.oci.image.manifest.v1+json", m, http.StatusCreated)
		before := l.origin.Accesses()
		l.skopeo(ctx, t, n.Host, "docker://127.0.0.1:5000/"+repository+":foreign", "dir:"+dir)
		if got, err := os.ReadFile(filepath.Join(dir, strings.TrimPrefix(foreign.sha256(), "sha256:"))); err != nil || !bytes.Equal(got, foreign) {
			t.Errorf("%q, %v", got, err)
		}
		if asked := l.origin.Accesses().Since(before).Gets(foreign.sha256()); len(asked) > 0 {
			t.Errorf("the registry was asked for it: %v", asked)
		}
	})
	t.Run("sha512", func(t *testing.T) {
		m := manifest(configured + `,"layers":[` + long.descriptor(long.sha512(), "application/vnd.oci.image.layer.v1.tar") + `]`)
		l.putManifest(ctx, t, repository, "long", "application/vnd.oci.image.manifest.v1+json", m)
		// Neither containerd 1.6 nor skopeo 1.9 stores what has such a digest.
		for _, path := range []string{"/manifests/long", "/blobs/" + long.sha512()} {
			status, body := ask(ctx, t, n, http.MethodGet, program.MirrorURL+"/v2/"+repository+path)
			if status != http.StatusOK || body != string(m) && body != string(long) {
				t.Errorf("%s: answer %d, %d bytes", path, status, len(body))
			}
		}
		if n.HasBlob(strings.TrimPrefix(long.sha512(), "sha512:")) {
			t.Error("it is in the cache")
		}
	})
	t.Run("schema 1", func(t *testing.T) {
		img := l.push(ctx, t, 36, 1)
		old := fmt.Sprintf("%v:%d/%s:old", l.origin.Host.Addr, lenientPort, img.Repository)
		l.skopeo(ctx, t, l.origin.Host, "--format", "v2s1", "docker://"+l.backend()+"/"+img.Ref(), "docker://"+old)
		const why = "the image is in Docker's schema 1, which this mirror does not serve: push it again with a current client"
		ref := "127.0.0.1:5000/old.example/" + img.Repository + ":old"
		if _, err := l.machines[0].docker.Docker(ctx, "pull", ref); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("dockerd says %v", err)
		}
		podman := newPodman(t, n.Host, documented(t, "[[registry]]\n", filepath.Join(l.dir, "old.conf")))
		podman.command.Args = append(podman.command.Args, "pull", "--tls-verify=false", ref)
		if _, err := n.Host.Run(ctx, podman.command); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("podman says %v", err)
		}
	})
}

// content is a blob or manifest.
type content []byte

func (c content) sha256() string {
	sum := sha256.Sum256(c)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (c content) sha512() string {
	sum := sha512.Sum512(c)
	return "sha512:" + hex.EncodeToString(sum[:])
}

func (c content) descriptor(digest, mediaType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, len(c))
}

// put uploads a blob to the registry itself.
func (l *lab) put(ctx context.Context, t *testing.T, repository, digest string, c content) {
	t.Helper()
	begun := l.send(ctx, t, http.MethodPost, l.origin.Backend()+"/v2/"+repository+"/blobs/uploads/", "", nil, http.StatusAccepted)
	l.send(ctx, t, http.MethodPut, begun.Get("Location")+"&digest="+digest, "application/octet-stream", c, http.StatusCreated)
}

func (l *lab) putManifest(ctx context.Context, t *testing.T, repository, ref, mediaType string, c content) {
	t.Helper()
	l.send(ctx, t, http.MethodPut, l.origin.Backend()+"/v2/"+repository+"/manifests/"+ref, mediaType, c, http.StatusCreated)
}

func (l *lab) send(ctx context.Context, t *testing.T, method, url, mediaType string, body []byte, want int) http.Header {
	t.Helper()
	req := must(http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body)))(t)
	req.Header.Set("Content-Type", mediaType)
	resp, err := l.origin.Host.Client(0).Do(req)
	check(t, err)
	said, err := io.ReadAll(resp.Body)
	check(t, err)
	check(t, resp.Body.Close())
	if resp.StatusCode != want {
		t.Fatalf("%s %s: %s: %s", method, url, resp.Status, said)
	}
	return resp.Header
}

// backend is the registry itself, for programs on its host.
func (l *lab) backend() string { return strings.TrimPrefix(l.origin.Backend(), "http://") }

// skopeo copies on a host.
func (l *lab) skopeo(ctx context.Context, t *testing.T, h *testhost.Host, args ...string) {
	t.Helper()
	must(h.Run(ctx, testhost.Command{
		Path: must(testhost.Program("skopeo"))(t), Args: append([]string{"--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"}, args...),
	}))(t)
}

// fetch has the first machine's containerd fetch an image through the mirror.
func (l *lab) fetch(t *testing.T, ref string) testhost.Command {
	t.Helper()
	certs := filepath.Join(l.dir, "certs.d")
	check(t, os.MkdirAll(filepath.Join(certs, "_default"), 0o755))
	documented(t, "[host.", filepath.Join(certs, "_default", "hosts.toml"))
	return testhost.Command{
		Path: must(testhost.Program("ctr"))(t),
		Args: []string{"--address", l.machines[0].docker.Containerd(), "content", "fetch", "--hosts-dir", certs, ref},
	}
}
