//go:build linux

package program

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// PutBlob makes a blob of random bytes and puts it into the registry's storage,
// in the layout of docker-registry 2: an upload of gigabytes takes minutes. It
// may be larger than the memory. The same seed makes the same blob.
func (o *Origin) PutBlob(repository string, seed byte, size int64) (v1.Descriptor, error) {
	d, err := o.putBlob(repository, seed, size)
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("put a blob into %s: %w", repository, err)
	}
	return d, nil
}

func (o *Origin) putBlob(repository string, seed byte, size int64) (v1.Descriptor, error) {
	root := filepath.Join(o.Storage(), "docker", "registry", "v2")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return v1.Descriptor{}, err
	}
	file, err := os.CreateTemp(root, "blob")
	if err != nil {
		return v1.Descriptor{}, err
	}
	hash := sha256.New()
	content := io.LimitReader(rand.NewChaCha8(sha256.Sum256([]byte{seed})), size)
	_, err = io.Copy(io.MultiWriter(file, hash), content)
	if err := errors.Join(err, file.Close()); err != nil {
		return v1.Descriptor{}, err
	}
	digest := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
	data := filepath.Join(root, "blobs", "sha256", digest.Hex[:2], digest.Hex)
	link := filepath.Join(root, "repositories", repository, "_layers", "sha256", digest.Hex)
	for _, dir := range []string{data, link} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return v1.Descriptor{}, err
		}
	}
	err = errors.Join(
		os.Rename(file.Name(), filepath.Join(data, "data")),
		os.WriteFile(filepath.Join(link, "link"), []byte(digest.String()), 0o644),
	)
	return v1.Descriptor{Digest: digest, Size: size}, err
}

// Contents returns what a repository of the registry has, from its storage: its
// tags, and the digests of its manifests and blobs.
func (o *Origin) Contents(repository string) (tags, manifests, blobs []string, err error) {
	all := filepath.Join(o.Storage(), "docker", "registry", "v2")
	root := filepath.Join(all, "repositories", repository)
	list := func(folder, prefix string) (names []string) {
		entries, failed := os.ReadDir(filepath.Join(root, folder))
		if !errors.Is(failed, fs.ErrNotExist) {
			err = errors.Join(err, failed)
		}
		for _, e := range entries {
			names = append(names, prefix+e.Name())
		}
		return names
	}
	tags = list("_manifests/tags", "")
	for _, algorithm := range []string{"sha256", "sha512"} {
		manifests = append(manifests, list("_manifests/revisions/"+algorithm, algorithm+":")...)
		for _, digest := range list("_layers/"+algorithm, algorithm+":") {
			// An upload that was refused leaves a link to nothing.
			link, failed := os.ReadFile(filepath.Join(root, "_layers", strings.Replace(digest, ":", "/", 1), "link"))
			err = errors.Join(err, failed)
			to, sum, _ := strings.Cut(string(link), ":")
			if _, failed := os.Stat(filepath.Join(all, "blobs", to, sum[:min(2, len(sum))], sum, "data")); failed == nil {
				blobs = append(blobs, digest)
			}
		}
	}
	return tags, manifests, blobs, err
}
