package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"weak"

	"shoal/blobcache/blob"
	"shoal/proxy/origin"
	"shoal/proxy/policy"
)

// maxTokens is how many tokens are at hand for the fills of a repository: if
// the newest ones are all refused, older ones have hardly a chance.
const maxTokens = 8

// wallets are the tokens of clients that wait for something, by repository. A
// fill may outlive the token that began it, and goes on with another's. They
// are kept by whoever uses them, a request, a prefetch or a fill, and are gone
// with the last of these: what stands here keeps none.
type wallets struct {
	book *policy.Book

	mu   sync.Mutex
	open map[string]weak.Pointer[wallet]
}

// wallet is the tokens of one repository. The registry has accepted each.
type wallet struct {
	repo *origin.Repository
	book *policy.Book

	mu      sync.Mutex
	tokens  []string // Authorization headers, the newest first
	refusal error    // of the last token that was refused
}

func newWallets(book *policy.Book) *wallets {
	return &wallets{book: book, open: map[string]weak.Pointer[wallet]{}}
}

// of returns the wallet of a repository, with that token in it.
func (ws *wallets) of(repo *origin.Repository, token string) *wallet {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.open[repo.String()].Value()
	if w == nil {
		for name, p := range ws.open {
			if p.Value() == nil {
				delete(ws.open, name)
			}
		}
		w = &wallet{repo: repo.As(""), book: ws.book, refusal: fmt.Errorf("%w: no client's token is at hand", blob.ErrDenied)}
		ws.open[repo.String()] = weak.Make(w)
	}
	w.add(token)
	return w
}

func (w *wallet) add(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(token)
	w.tokens = slices.Insert(w.tokens, 0, token)
	w.tokens = w.tokens[:min(len(w.tokens), maxTokens)]
}

func (w *wallet) drop(token string, refusal error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(token)
	w.refusal = refusal
}

func (w *wallet) remove(token string) {
	w.tokens = slices.DeleteFunc(w.tokens, func(t string) bool { return t == token })
}

// all returns the tokens, and what to say when none is left.
func (w *wallet) all() ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.tokens), w.refusal
}

// source returns what as makes of the repository, with one token after the
// other.
func (w *wallet) source(as func(*origin.Repository) blob.Source) blob.Source {
	return walletSource{w, as}
}

type walletSource struct {
	*wallet
	as func(*origin.Repository) blob.Source
}

// String names the repository, as its own sources do.
func (s walletSource) String() string { return s.repo.String() }

// Open is of blob.Source. A token that is refused is not tried again until its
// client comes back.
func (s walletSource) Open(ctx context.Context, d blob.Descriptor, rng blob.Range) (*blob.Stream, error) {
	tokens, err := s.all()
	for _, token := range tokens {
		var stream *blob.Stream
		if stream, err = s.as(s.repo.As(token)).Open(ctx, d, rng); err == nil {
			s.book.Confirm(policy.Place{Repository: s.String(), Digest: d.Digest})
			return stream, nil
		}
		if !errors.Is(err, blob.ErrDenied) {
			return nil, err
		}
		s.drop(token, err)
	}
	return nil, err
}
