package p2ptest

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"

	"shoal/blobcache/statement"
	"shoal/p2p/p2ptest/forge"
	"shoal/p2p/wire"
)

// forger answers for an honest handler and lies about what stands for pieces.
type forger struct {
	lie    forge.Lie
	signer *statement.Signer
	honest http.Handler
}

func (f forger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req, err := wire.ParseRequest(r.URL.Path)
	if err != nil || req.Kind != wire.KindPieces {
		f.honest.ServeHTTP(w, r)
		return
	}
	body, code := f.honestly(r, r.URL.Path)
	if code != http.StatusOK {
		w.WriteHeader(code)
		return
	}
	chain, _ := f.honestly(r, wire.Request{Kind: wire.KindChain, Digest: req.Digest, Size: req.Size}.Path())
	forge.Forger{Lie: f.lie, Signer: f.signer, Chain: sha256.Sum256(chain)}.Answer(req, w.Header(), body)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// honestly returns what the honest handler would answer to a request like r of
// that path.
func (f forger) honestly(r *http.Request, path string) (body []byte, code int) {
	r = r.Clone(r.Context())
	r.URL.Path = path
	rec := httptest.NewRecorder()
	f.honest.ServeHTTP(rec, r)
	return rec.Body.Bytes(), rec.Code
}

func signer(tb testing.TB, id crypto.PrivKey) *statement.Signer {
	tb.Helper()
	raw, err := id.Raw()
	if err != nil {
		tb.Fatal(err)
	}
	s, err := statement.NewSigner(raw)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}
