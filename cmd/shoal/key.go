package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/blobcache/statement"
)

type keyCmd struct {
	New keyNewCmd `cmd:"" help:"Make a key to sign with, and print its public key."`
}

type keyNewCmd struct {
	File string `arg:"" help:"Where to put the key; there must be nothing yet."`
}

// Help shows examples.
func (keyNewCmd) Help() string {
	return `    $ shoal key new signing.key
    ed25519:JAwdsvrBXKlI6cVgvXRLDe9euM1J/5o50IQnUSYcArY=

What is printed goes into trusted-keys of the nodes for which the key shall count; it stands in the file, too. The file stays with who signs: with you, to have the swarm forget, or on a seeder, to have nodes stream before they have proven a blob. Take another key for each: what a seeder signs can do harm that yours cannot ("shoal help proof").

    $ shoal serve --trusted-keys ed25519:JAwdsvrBXKlI6cVgvXRLDe9euM1J/5o50IQnUSYcArY=
    $ shoal serve --signing-key seeder.key
    $ shoal cache invalidate --signing-key signing.key nginx:1.27`
}

// Run makes a key file.
func (c keyNewCmd) Run(env environment) error {
	signer := statement.GenerateSigner()
	if err := createSigningKey(c.File, signer); err != nil {
		return err
	}
	_, err := fmt.Fprintln(env.stdout, signer.Key())
	return err
}

// createSigningKey puts a key at path, whole and durable or not at all.
func createSigningKey(path string, signer *statement.Signer) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists: a key is never overwritten, name another file", path)
	}
	if err != nil {
		return fmt.Errorf("signing key: %w", err)
	}
	_, err = f.Write(signer.Text())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("signing key: %w", err), os.Remove(path))
	}
	return nil
}

// loadSigningKey reads a key file.
func loadSigningKey(path string) (*statement.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w; make one with \"shoal key new FILE\"", err)
	}
	signer, err := statement.ParseSigner(text)
	if err != nil {
		return nil, fmt.Errorf("%s is %w; make one with \"shoal key new FILE\"", path, err)
	}
	return signer, nil
}
