package main

import (
	"context"
	"errors"
	"fmt"

	"shoal/blobcache/statement"
	"shoal/cmd/shoal/internal/admin"
	"shoal/p2p"
	"shoal/proxy/request"
)

// invalidate forgets what the operator asks for, and tells the swarm if a
// trusted key has signed it.
func (s *service) invalidate(ctx context.Context, ask admin.Invalidate) (admin.Invalidated, error) {
	if len(ask.Statement) == 0 {
		return s.forget(ask.Image)
	}
	said, err := statement.ParseInvalidation(ask.Statement)
	if err != nil {
		return admin.Invalidated{}, fmt.Errorf("%w: %w", admin.ErrRefused, err)
	}
	told, err := s.node.Spread(ctx, ask.Statement)
	switch {
	case errors.Is(err, p2p.ErrUntrusted):
		return admin.Invalidated{}, fmt.Errorf("%w: %w: add %s to its trusted-keys", admin.ErrRefused, err, said.Signer)
	case errors.Is(err, statement.ErrTime), errors.Is(err, statement.ErrSignature), errors.Is(err, p2p.ErrKnown):
		return admin.Invalidated{}, fmt.Errorf("%w: %w", admin.ErrRefused, err)
	case err != nil:
		return admin.Invalidated{}, err
	}
	done, err := s.forget(said.Image)
	done.Members = told
	return done, err
}

// obey forgets what another member tells that a trusted key has signed. It is
// not called before Run, when there is a proxy.
func (s *service) obey(said statement.Invalidation) {
	if _, err := s.forget(said.Image); err != nil {
		s.log.Error("not forgotten, though a trusted key has signed it", "image", said.Image, "error", err)
	}
}

// lease takes in what another member tells that a trusted key has signed of a tag.
// It is not called before Run, when there is a proxy.
func (s *service) lease(said statement.Lease) { s.proxy.TakeLease(said) }

// forget drops what this node knows of an image.
func (s *service) forget(name string) (admin.Invalidated, error) {
	image, err := request.ParseImage(name)
	if err != nil {
		return admin.Invalidated{}, fmt.Errorf("%w: %w", admin.ErrRefused, err)
	}
	n, err := s.proxy.Forget(image)
	if err == nil {
		s.log.Info("forgotten", "image", image.String(), "things", n)
	}
	return admin.Invalidated{Image: image.String(), Forgotten: n}, err
}
