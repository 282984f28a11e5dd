//go:build linux

package program

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

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
	root := filepath.Join(o.storage(), "docker", "registry", "v2")
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
