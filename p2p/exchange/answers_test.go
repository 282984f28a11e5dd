package exchange

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"shoal/p2p/wire"
	"shoal/proxy/origin/origintest"
)

// twister is a member that has a blob and answers about it as a script says:
// three bytes for each answer, as it should be when the script is at its end.
type twister struct {
	mu     sync.Mutex
	script []byte
}

func (s *twister) next() (how, where, what byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.script) < 3 {
		s.script = nil
		return 0, 0, 0
	}
	how, where, what = s.script[0], s.script[1], s.script[2]
	s.script = s.script[3:]
	return how, where, what
}

func (s *twister) wrap(honest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		how, where, what := s.next()
		if r.URL.Path == wire.FollowPath {
			if how%2 == 0 {
				honest.ServeHTTP(w, r)
			} else {
				w.WriteHeader(http.StatusBadRequest) // too old to be followed
			}
			return
		}
		rec := httptest.NewRecorder()
		honest.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		at := len(body) * int(where) / 256
		switch how % 8 {
		case 1:
			if at < len(body) {
				body[at] ^= what
			}
		case 2:
			body = body[:at]
		case 3:
			body = append(body, body[:min(at, 1<<10)]...)
		case 4:
			rec.Code = []int{200, 204, 206, 302, 400, 404, 500, 503}[what%8]
		case 5:
			w.Header().Set(wire.VouchersHeader, string([]byte{'p', 'c', ',', 'A'}[what%4]))
		case 6:
			rec.Header().Del(wire.VouchersHeader)
			rec.Header().Del(wire.ChainHeader)
		}
		for name, values := range rec.Header() {
			if name != "Content-Length" && w.Header().Get(name) == "" {
				w.Header()[name] = values
			}
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body) // whoever asked may have gone
	})
}

// FuzzAnswers: whatever a member answers, the blob comes out right and in time,
// and nobody else is banned for it.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 1, 128, 1, 1, 255, 1, 2, 100, 0, 3, 9, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 1, 200, 7, 1, 3, 255, 1, 90, 1})
	f.Add([]byte{1, 0, 0, 4, 0, 1, 4, 0, 7, 4, 0, 5, 5, 0, 1, 6, 0, 0, 2, 0, 0})
	f.Add(append([]byte{0, 0, 0}, bytes.Repeat([]byte{1, 128, 1}, 16)...)) // every piece is wrong
	f.Add(append([]byte{0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte{1, 200, 4}, 16)...))
	data := content(1, 3*mib+9)
	reg := newRegistry(f, origintest.Options{}, data)
	f.Fuzz(func(t *testing.T, script []byte) {
		mesh := newMesh(t)
		liar, honest, m := mesh.member((&twister{script: script}).wrap), mesh.member(nil), mesh.member(nil)
		liar.seed(data)
		honest.seed(data)
		m.mustPull(data, reg.src)
		if m.bans.Holds(honest.id, time.Now()) {
			t.Errorf("an honest member is banned:\n%s", m.log)
		}
	})
}
