package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// identityFile is the name of the private key in the data directory.
const identityFile = "identity.key"

// identityHeader is the first line of the key file, and its version. The
// second line is libp2p's encoding of the private key in base64.
const identityHeader = "shoal-identity/1"

// loadIdentity reads the private key at path, or makes one if there is none.
// Of several processes that make one at once, all get the same.
func loadIdentity(path string) (crypto.PrivKey, error) {
	key, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := createIdentity(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create the node's key: %w; the data directory must be writable, name another with --data-dir", err)
	}
	return readIdentity(path)
}

func readIdentity(path string) (crypto.PrivKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	header, body, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	raw, err := base64.StdEncoding.DecodeString(body)
	if header != identityHeader || err != nil {
		return nil, fmt.Errorf("%s is no key of a node (%s): restore it, or remove it for a new identity", path, identityHeader)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: restore it, or remove it for a new identity", path, err)
	}
	return key, nil
}

// createIdentity puts a new key at path unless there is one (fs.ErrExist). The
// file appears whole and durable or not at all.
func createIdentity(path string) error {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, identityFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = fmt.Fprintf(f, "%s\n%s\n", identityHeader, base64.StdEncoding.EncodeToString(raw))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	// Unlike rename, link fails if somebody else was faster.
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes new names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
