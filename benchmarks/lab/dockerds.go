//go:build linux

package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"shoal/benchmarks/lab/report"
	"shoal/benchmarks/rig"
	"shoal/benchmarks/scenario"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// dockerdsName selects the measurement of docker pull, among scenarios.
const dockerdsName = "dockerds"

// The ways in which dockerds pull.
const (
	wayDirect = "from the origin"
	wayCold   = "through shoal, cold"
	wayCached = "through shoal, all in its cache (unpacking only)"
)

const (
	// pullRounds is how often at most dockerds pull: each round takes a minute.
	pullRounds = 3
	// pullOrigin and pullLink are the links.
	pullOrigin = 200 * testhost.Mbit
	pullLink   = testhost.Gbit
	// pullImage is the name of the image that they pull.
	pullImage = "lab/real"
	// pullLayers and pullLayerSize are the layers of it, before compression.
	pullLayers    = 4
	pullLayerSize = 50 << 20
)

// dockerPrograms are what is run for it.
func dockerPrograms() []string {
	return []string{"dockerd", "docker", "containerd", "runc", "docker-registry"}
}

// estimatePulls guesses how long pullAll takes.
func (p *plan) estimatePulls() time.Duration {
	const setUp, round = 30 * time.Second, time.Minute
	return setUp + time.Duration(min(p.runs, pullRounds))*round
}

// pulling is what dockerds need.
type pulling struct {
	*lab
	origin   *program.Origin
	ref      string
	bytes    int64 // of the image's blobs
	direct   []*program.Dockerd
	mirrored []*program.Dockerd
	nodes    []*testhost.Host // of the mirrored ones
}

// pullAll lets dockerds pull a real image at once: from the origin, through
// cold nodes, and once more through the same nodes.
func (l *lab) pullAll(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("docker pull: %w", err), l.keepLogs(dockerdsName))
		}
		err = errors.Join(err, l.clean(filepath.Join(l.data, "run")))
	}()
	p := &pulling{lab: l, ref: pullImage + ":" + tag, nodes: l.nodes[dockerdHosts : 2*dockerdHosts]}
	if err := p.build(ctx); err != nil {
		return err
	}
	rounds := min(l.runs, pullRounds)
	for round := 1; round <= rounds; round++ {
		pulls, err := p.round(ctx)
		for _, pull := range pulls {
			pull.Round = round
			l.results.Pulls = append(l.results.Pulls, pull)
			fmt.Fprintf(l.say, "%-20s %d/%d  %-50s %.1f s  copies %.2f %s\n", dockerdsName, round, rounds, pull.Way, pull.Seconds, pull.Copies, pull.Error)
		}
		if err := errors.Join(err, l.results.Save(l.file)); err != nil {
			return err
		}
	}
	return nil
}

// build makes the origin with its image, and the dockerds.
func (p *pulling) build(ctx context.Context) (err error) {
	for _, h := range append([]*testhost.Host{p.lab.origin}, p.lab.nodes[:2*dockerdHosts]...) {
		if err := errors.Join(h.Plug(), h.Shape(pullLink)); err != nil {
			return err
		}
	}
	if p.origin, err = program.StartOrigin(ctx, p.lab.origin); err != nil {
		return err
	}
	img, err := realImage()
	if err != nil {
		return err
	}
	if err := p.origin.PushImage(ctx, p.ref, img); err != nil {
		return err
	}
	manifest, err := img.Manifest()
	if err != nil {
		return err
	}
	p.bytes = manifest.Config.Size
	for _, l := range manifest.Layers {
		p.bytes += l.Size
	}
	p.direct, p.mirrored = make([]*program.Dockerd, dockerdHosts), make([]*program.Dockerd, dockerdHosts)
	var group errgroup.Group
	for i := range dockerdHosts {
		group.Go(func() (err error) {
			if p.direct[i], err = program.StartDockerd(ctx, p.lab.nodes[i], "", p.origin); err != nil {
				return err
			}
			p.mirrored[i], err = program.StartDockerd(ctx, p.nodes[i], program.MirrorURL, p.origin)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	p.results.Versions["dockerd"] = p.direct[0].Version
	return p.lab.origin.Shape(pullOrigin)
}

// round pulls in every way once.
func (p *pulling) round(ctx context.Context) ([]report.Pull, error) {
	pulls := []report.Pull{p.pull(ctx, wayDirect, p.direct)}
	c, err := shoal{}.crew(ctx, &stage{scenario: &scenario.Scenario{}, nodes: p.nodes, shoal: p.shoal, key: p.key, upstream: p.origin.URL()})
	if err != nil {
		return pulls, err
	}
	defer func() {
		for i := range p.nodes {
			if process := c.process(i); process != nil {
				process.Kill()
			}
		}
	}()
	var group errgroup.Group
	for i := range p.nodes {
		group.Go(func() error { return c.start(ctx, i) })
	}
	if err := group.Wait(); err != nil {
		return pulls, err
	}
	if err := c.connected(ctx); err != nil {
		return pulls, err
	}
	if err := rig.Sleep(ctx, shoal{}.idle()); err != nil {
		return pulls, err
	}
	pulls = append(pulls, p.pull(ctx, wayCold, p.mirrored), p.pull(ctx, wayCached, p.mirrored))
	for _, n := range p.nodes {
		if err := os.RemoveAll(filepath.Join(n.Dir, "shoal")); err != nil {
			return pulls, err
		}
	}
	return pulls, ctx.Err()
}

// pull lets the dockerds pull at once, and forget what they got.
func (p *pulling) pull(ctx context.Context, way string, dockerds []*program.Dockerd) report.Pull {
	result := report.Pull{Way: way, Bytes: p.bytes, Seconds: make([]float64, len(dockerds))}
	before := p.origin.Accesses()
	started := time.Now()
	group, pullCtx := errgroup.WithContext(ctx)
	for i, d := range dockerds {
		group.Go(func() error {
			_, err := d.Docker(pullCtx, "pull", "--quiet", p.ref)
			result.Seconds[i] = time.Since(started).Seconds()
			return err
		})
	}
	err := group.Wait()
	result.Copies = float64(p.origin.Accesses().Since(before).Blobs().Bytes()) / float64(p.bytes)
	for _, d := range dockerds {
		if err == nil {
			_, err = d.Docker(ctx, "image", "rm", p.ref)
		}
	}
	if err != nil {
		result.Error = err.Error()
	}
	return result
}

// realImage makes an image of this machine's own programs and libraries, so
// that unpacking it costs what it does in life.
func realImage() (v1.Image, error) {
	layers, err := filesBelow("/usr")
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}}); err != nil {
		return nil, err
	}
	for _, files := range layers {
		open := func() (io.ReadCloser, error) {
			r, w := io.Pipe()
			go func() { w.CloseWithError(writeArchive(w, files)) }() // ends when the reader is closed
			return r, nil
		}
		layer, err := tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// filesBelow returns the regular files below a folder as layers of the wanted
// size.
func filesBelow(folder string) ([][]string, error) {
	var layers [][]string
	var size int64 = pullLayerSize // of the last layer: there is none yet
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if size >= pullLayerSize {
			if len(layers) == pullLayers {
				return fs.SkipAll
			}
			layers, size = append(layers, nil), 0
		}
		layers[len(layers)-1] = append(layers[len(layers)-1], path)
		size += info.Size()
		return nil
	})
	return layers, err
}

// writeArchive writes files as a tar archive.
func writeArchive(to io.Writer, files []string) error {
	w := tar.NewWriter(to)
	for _, path := range files {
		if err := writeFile(w, path); err != nil {
			return err
		}
	}
	return w.Close()
}

func writeFile(w *tar.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: path[1:], Mode: int64(info.Mode().Perm()), Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, info.Size())
	return err
}
