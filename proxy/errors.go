package proxy

import (
	"encoding/json"
	"errors"
	"net/http"

	"shoal/blobcache/blob"
	"shoal/proxy/manifest"
	"shoal/proxy/origin"
	"shoal/proxy/request"
)

// errReadOnly: a method that would change something.
var errReadOnly = errors.New("this mirror is read-only")

// failure is how an error is told to a client: a status and an error code of
// the OCI distribution specification. The message is fixed text, because the
// errors of upstreams can quote URLs that hold signatures, or advice about
// settings.
type failure struct {
	status  int
	code    string
	message string
}

// explain is the one table of errors. Whatever keeps a content from being
// served is 404, because dockerd goes on to its next endpoint at once on 404
// but waits 75 s on a 429 or 5xx; the log has the reason. Only a registry other
// than Docker Hub, which may have no other endpoint, gets its own 401 and 403
// through, and never with a challenge: nobody may send credentials here.
func explain(err error, req request.Request) failure {
	unknown := map[request.Kind]string{
		request.Manifest: "MANIFEST_UNKNOWN", request.Referrers: "MANIFEST_UNKNOWN",
		request.Blob: "BLOB_UNKNOWN", request.Tags: "NAME_UNKNOWN",
	}[req.Kind]
	switch {
	case errors.Is(err, errReadOnly):
		return failure{http.StatusMethodNotAllowed, "UNSUPPORTED", "this mirror is read-only: push to the registry itself"}
	case errors.Is(err, request.ErrNoRoute):
		return failure{http.StatusNotFound, "UNSUPPORTED", "no such endpoint; this mirror serves manifests, blobs, tags/list and referrers"}
	case errors.Is(err, request.ErrNameInvalid):
		return failure{http.StatusBadRequest, "NAME_INVALID", "invalid repository or registry name"}
	case errors.Is(err, request.ErrTagInvalid):
		return failure{http.StatusNotFound, unknown, "invalid tag"}
	case errors.Is(err, blob.ErrDigestInvalid):
		return failure{http.StatusBadRequest, "DIGEST_INVALID", "invalid digest"}
	case errors.Is(err, request.ErrRange):
		return failure{http.StatusRequestedRangeNotSatisfiable, "RANGE_INVALID", "the range starts behind the end"}
	case errors.Is(err, blob.ErrDenied) && req.Registry != request.DockerHub:
		return denied(err)
	case errors.Is(err, manifest.ErrSchema1): // dockerd, podman and skopeo show this code's message
		return failure{http.StatusNotFound, "UNSUPPORTED", "the image is in Docker's schema 1, which this mirror does not serve: push it again with a current client"}
	case errors.Is(err, manifest.ErrInvalid):
		return failure{http.StatusNotFound, "MANIFEST_INVALID", "what the registry holds there is no manifest"}
	case errors.Is(err, blob.ErrTooLarge):
		return failure{http.StatusNotFound, "SIZE_INVALID", "larger than this mirror accepts; how large a manifest may be, --manifest-size says"}
	case errors.Is(err, origin.ErrRegistryRefused):
		return failure{http.StatusNotFound, "NAME_UNKNOWN", "this registry is neither listed (--registry) nor a public DNS name"}
	case errors.Is(err, origin.ErrRepositoryRefused):
		return failure{http.StatusNotFound, "NAME_UNKNOWN", "the configuration of this mirror does not let it serve this repository"}
	case errors.Is(err, blob.ErrNotFound):
		return failure{http.StatusNotFound, unknown, "not known to the registry, nor to a member of the swarm"}
	case errors.Is(err, blob.ErrDenied):
		return failure{http.StatusNotFound, unknown, advice(err)}
	default:
		return failure{http.StatusNotFound, unknown, "not to be had now; the mirror's log says why"}
	}
}

// denied passes the status of a registry's refusal on.
func denied(err error) failure {
	var response *origin.ResponseError
	if errors.As(err, &response) && response.Status == http.StatusUnauthorized {
		return failure{http.StatusUnauthorized, "UNAUTHORIZED", advice(err)}
	}
	return failure{http.StatusForbidden, "DENIED", advice(err)}
}

// advice tells of a registry's refusal and, if it is about credentials, what
// the operator can do.
func advice(err error) string {
	const refusal = "the registry denied it to this mirror"
	var response *origin.ResponseError
	if errors.As(err, &response) && response.Advice != "" {
		return refusal + ": " + response.Advice
	}
	return refusal
}

// body returns the failure as the JSON of the specification's "Error Codes".
func (f failure) body() []byte {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(struct {
		Errors []one `json:"errors"`
	}{[]one{{f.code, f.message}}})
	if err != nil {
		panic(err) // two strings always marshal
	}
	return body
}
