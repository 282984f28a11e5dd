//go:build linux

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"

	"shoal/blobcache"
	"shoal/cmd/shoal/e2e/program"
	"shoal/cmd/shoal/e2e/testhost"
	"shoal/p2p"
	"shoal/p2p/p2ptest"
	"shoal/p2p/swarmkey"
)

// liarCommand is the first argument of the program when it is a peer that lies:
// a member of the swarm as any other, but for how it answers on the piece
// channel.
const liarCommand = "liar"

// startLiar lets a liar take the place of a node that has ended: its data, its
// identity and its address.
func startLiar(n *program.Node, key string, lie p2ptest.Lie) (*testhost.Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return n.Host.Start(liarCommand, testhost.Command{Path: exe, Args: []string{
		liarCommand, "-data-dir", n.DataDir, "-swarm-key", key, "-swarm", strings.TrimSuffix(n.Multiaddr(), "/p2p/"+n.ID), "-lie", string(lie),
	}})
}

// runLiar is a liar until ctx is done.
func runLiar(ctx context.Context, args []string, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet(liarCommand, flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("data-dir", "", "of a node that does not run")
	keyFile := flags.String("swarm-key", "", "file")
	swarm := flags.String("swarm", "", "multiaddr to listen on")
	lie := flags.String("lie", "", "how it answers (package p2ptest)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	identity, err := readIdentity(filepath.Join(*dir, "identity.key"))
	if err != nil {
		return err
	}
	key, err := swarmkey.Load(*keyFile)
	if err != nil {
		return err
	}
	addr, err := ma.NewMultiaddr(*swarm)
	if err != nil {
		return err
	}
	cache, err := blobcache.Open(*dir, blobcache.Options{Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	n, err := p2p.New(p2p.Options{ //nolint:contextcheck // it lives until Run ends
		Identity: identity, Cache: cache, Key: key, Swarm: []ma.Multiaddr{addr}, NoMDNS: true, Logger: log,
		WrapPieces: p2ptest.Lie(*lie).Wrap,
	})
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// readIdentity reads the key file of a node: a header and the key in base64.
func readIdentity(file string) (crypto.PrivKey, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	_, body, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return crypto.UnmarshalPrivateKey(raw)
}
