package main

import (
	"fmt"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/cmd/shoal/internal/config"
)

type idCmd struct {
	config.DataDir
	config.Common
}

// Help shows examples.
func (idCmd) Help() string {
	return `The ID is the hash of the node's public key, DIR/identity.key. It is made on first use. The command works beside a running node.

    $ shoal id --data-dir /var/lib/shoal
    12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F

An address to join is made of where the node listens and its ID:

    $ echo /ip4/10.0.0.1/tcp/4001/p2p/$(shoal id)`
}

// Run prints the peer ID.
func (c idCmd) Run(env environment) error {
	cfg, err := config.Load(config.Flags{DataDir: c.DataDir, Common: c.Common}, env.environ)
	if err != nil {
		return err
	}
	key, err := loadIdentity(filepath.Join(cfg.DataDir, identityFile))
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return fmt.Errorf("peer ID: %w", err)
	}
	_, err = fmt.Fprintln(env.stdout, id)
	return err
}
