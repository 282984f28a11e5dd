//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"golang.org/x/sync/errgroup"
)

// What measureSeed has seeded.
const (
	seedRepository = "bench/seed"
	seedImages     = 200
	seedLayers     = 5
	seedLayer      = 8 << 10 // bytes
)

// measureSeed has a new node seed many small images from docker-registry, and
// skopeo copy them to a folder; and has the node look at them again when nothing
// has changed.
func measureSeed(ctx context.Context, b *bench) error {
	if err := b.fast(func() error { return b.pushSeeds(ctx) }); err != nil {
		return err
	}
	config := filepath.Join(b.dir, "seed.yaml")
	text := fmt.Sprintf("seeder: {select: {all: {images: [\"docker.io/%s:*\"], platforms: [all]}}}\n", seedRepository)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	got, err := b.compare(ctx,
		contender{"skopeo", func(ctx context.Context) (sample, error) { return b.skopeoSync(ctx) }},
		contender{"shoal", func(ctx context.Context) (sample, error) { return b.seedOnce(ctx, config) }})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d images of %d layers: ", seedImages, seedLayers)
	b.add(what+"skopeo sync", "s", got["skopeo"]["s"])
	b.add(what+"a node seeds them", "s", got["shoal"]["first"])
	b.add(what+"a node, by skopeo sync", "", ratios(got["shoal"]["first"], got["skopeo"]["s"]), atMost(1.2))
	b.add(what+"a node looks again", "s", got["shoal"]["again"], atMost(5))
	b.add(what+"HEADs of a tag at the second look, for each", "", got["shoal"]["heads"], atMost(1))
	b.add(what+"other requests at the second look", "", got["shoal"]["others"], atMost(1)) // the list of tags
	return nil
}

// pushSeeds makes the images and pushes them.
func (b *bench) pushSeeds(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range seedImages {
		group.Go(func() error {
			img, err := random.Image(seedLayer, seedLayers)
			if err != nil {
				return err
			}
			return b.origin.PushImage(ctx, fmt.Sprintf("%s:v%d", seedRepository, i), img)
		})
	}
	return group.Wait()
}

// skopeoSync copies them to a folder.
func (b *bench) skopeoSync(ctx context.Context) (sample, error) {
	path, err := testhost.Program("skopeo")
	if err != nil {
		return nil, err
	}
	to := filepath.Join(b.dir, "synced")
	seconds, err := timed(func() error {
		_, err := b.machines[0].Run(ctx, testhost.Command{Path: path, Args: []string{
			"--insecure-policy", "sync", "--src", "docker", "--dest", "dir", "--src-tls-verify=false",
			strings.TrimPrefix(b.origin.URL(), "http://") + "/" + seedRepository, to,
		}})
		return err
	})
	return sample{"s": seconds}, errors.Join(err, os.RemoveAll(to))
}

// seedOnce lets a new node seed them, and look again.
func (b *bench) seedOnce(ctx context.Context, config string) (sample, error) {
	n, err := b.nodeWith(ctx, 0, b.origin.URL(), []string{"--config", config})
	if err != nil {
		return nil, err
	}
	first, err := b.awaitRun(ctx, n, 1)
	if err != nil {
		return nil, err
	}
	before := b.origin.Accesses()
	if _, err := n.Host.Run(ctx, testhost.Command{Path: program.Shoal(b.dir), Args: []string{"seeder", "look"}}); err != nil {
		return nil, err
	}
	second, err := b.awaitRun(ctx, n, 2)
	if err != nil {
		return nil, err
	}
	seen := b.origin.Accesses().Since(before)
	heads := len(seen.Where(func(a *program.Access) bool { return a.Method == http.MethodHead }))
	if first.Fetched != seedImages || second.Unchanged != seedImages {
		err = fmt.Errorf("%d images fetched, then %d unchanged, of %d", first.Fetched, second.Unchanged, seedImages)
	}
	return sample{
		"first": first.took(), "again": second.took(), "heads": float64(heads) / seedImages, "others": float64(len(seen) - heads),
	}, errors.Join(err, b.drop(n))
}

// seedRun is what a node says of a run of its seeder.
type seedRun struct {
	Began, Ended       time.Time
	Fetched, Unchanged int
}

func (r seedRun) took() float64 { return r.Ended.Sub(r.Began).Seconds() }

// awaitRun returns the run of that number, counted from 1, when it has ended.
func (b *bench) awaitRun(ctx context.Context, n *program.Node, number int) (run seedRun, err error) {
	err = testhost.Until(ctx, 5*time.Minute, func(ctx context.Context) error {
		out, err := n.Host.Run(ctx, testhost.Command{Path: program.Shoal(b.dir), Args: []string{"seeder", "--json"}})
		if err != nil {
			return err
		}
		var report struct{ Selections []struct{ Runs []seedRun } }
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			return err
		}
		if len(report.Selections) != 1 || len(report.Selections[0].Runs) < number {
			return errors.New("the run has not ended")
		}
		run = report.Selections[0].Runs[0]
		return nil
	})
	return run, err
}
