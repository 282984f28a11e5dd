package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/origin"
	"shoal/proxy/request"
)

// answered is the error of an upstream that denies with a status.
func answered(status int) error {
	return &origin.ResponseError{Status: status, Err: blob.ErrDenied}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err      error
		kind     request.Kind
		registry string
		status   int
		code     string
	}{
		{errReadOnly, request.Unknown, "", 405, "UNSUPPORTED"},
		{request.ErrNoRoute, request.Unknown, "", 404, "UNSUPPORTED"},
		{request.ErrNameInvalid, request.Manifest, "", 400, "NAME_INVALID"},
		{request.ErrTagInvalid, request.Manifest, "docker.io", 404, "MANIFEST_UNKNOWN"},
		{blob.ErrDigestInvalid, request.Blob, "docker.io", 400, "DIGEST_INVALID"},
		{request.ErrRange, request.Blob, "docker.io", 416, "RANGE_INVALID"},
		{manifest.ErrInvalid, request.Manifest, "docker.io", 404, "MANIFEST_INVALID"},
		{manifest.ErrSchema1, request.Manifest, "ghcr.io", 404, "UNSUPPORTED"},
		{blob.ErrTooLarge, request.Manifest, "docker.io", 404, "SIZE_INVALID"},
		{blob.ErrNotFound, request.Manifest, "docker.io", 404, "MANIFEST_UNKNOWN"},
		{blob.ErrNotFound, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{blob.ErrNotFound, request.Tags, "docker.io", 404, "NAME_UNKNOWN"},
		{blob.ErrNotFound, request.Referrers, "docker.io", 404, "MANIFEST_UNKNOWN"},
		{blob.ErrUnavailable, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{blob.ErrStalled, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{blob.ErrCorrupt, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{blob.ErrNoSpace, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{errors.New("anything"), request.Blob, "ghcr.io", 404, "BLOB_UNKNOWN"},
		{blob.ErrUnavailable, request.Manifest, "ghcr.io", 404, "MANIFEST_UNKNOWN"},
		{origin.ErrRegistryRefused, request.Manifest, "10.0.0.1", 404, "NAME_UNKNOWN"},
		{origin.ErrRepositoryRefused, request.Blob, "ghcr.io", 404, "NAME_UNKNOWN"},
		{blob.ErrDenied, request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{answered(401), request.Blob, "docker.io", 404, "BLOB_UNKNOWN"},
		{answered(401), request.Blob, "ghcr.io", 401, "UNAUTHORIZED"},
		{answered(403), request.Manifest, "ghcr.io", 403, "DENIED"},
		{answered(451), request.Manifest, "ghcr.io", 403, "DENIED"},
	} {
		f := explain(fmt.Errorf("wrapped: %w", c.err), request.Request{Kind: c.kind, Registry: c.registry})
		if f.status != c.status || f.code != c.code {
			t.Errorf("%v of a %v at %s: %d %s, want %d %s", c.err, c.kind, c.registry, f.status, f.code, c.status, c.code)
		}
		var doc struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(f.body(), &doc); err != nil || len(doc.Errors) != 1 || doc.Errors[0].Code != c.code || doc.Errors[0].Message == "" {
			t.Errorf("%v: body %s", c.err, f.body())
		}
	}
}

// TestAdvice: what the operator can do about a refusal stands in the answer.
func TestAdvice(t *testing.T) {
	const message = "the registry denied it to this mirror: no credentials for harbor.example"
	err := fmt.Errorf("wrapped: %w", &origin.ResponseError{Status: 401, Advice: "no credentials for harbor.example", Err: blob.ErrDenied})
	for _, registry := range []string{"docker.io", "harbor.example"} {
		if f := explain(err, request.Request{Kind: request.Manifest, Registry: registry}); f.message != message {
			t.Errorf("%s: %s", registry, f.message)
		}
	}
}
