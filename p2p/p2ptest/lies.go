package p2ptest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// pieces begins the paths of requests for bytes of a blob (package wire).
const pieces = "/shoal/1/pieces/"

// Lie is how a hostile or broken member answers requests for pieces. Its other
// answers are honest, so that it gets asked.
type Lie string

// The lies.
const (
	// TooMuch appends bytes that nobody asked for, and says so in the length.
	TooMuch Lie = "too much"
	// TooLittle promises everything and closes the connection half way.
	TooLittle Lie = "too little"
	// Short is a complete answer that has fewer bytes than were asked for.
	Short Lie = "short"
	// WrongPiece sends bytes of the right length that are not those.
	WrongPiece Lie = "wrong piece"
	// OneBit changes one bit, in the last byte.
	OneBit Lie = "one bit"
	// Garbage is not HTTP at all.
	Garbage Lie = "garbage"
	// Endless sends a header and then a body without end or length.
	Endless Lie = "endless"
	// Nothing takes the request and never answers.
	Nothing Lie = "nothing"
	// Refuses answers every request with 404, though it announced the blob.
	Refuses Lie = "refuses"
	// RefusesPieces is honest about what it has, and answers every request for
	// it with 404.
	RefusesPieces Lie = "refuses pieces"
)

// Lies are all of them, for tests that go through the list.
func Lies() []Lie {
	return []Lie{TooMuch, TooLittle, Short, WrongPiece, OneBit, Garbage, Endless, Nothing, Refuses, RefusesPieces}
}

// Wrap returns a handler that lies in place of an honest one.
func (l Lie) Wrap(honest http.Handler) http.Handler { return liar{l, honest} }

// liar answers for an honest handler.
type liar struct {
	lie    Lie
	honest http.Handler
}

func (l liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.lie == Refuses {
		http.NotFound(w, r)
		return
	}
	if !strings.HasPrefix(r.URL.Path, pieces) {
		l.honest.ServeHTTP(w, r)
		return
	}
	switch l.lie {
	case RefusesPieces:
		http.NotFound(w, r)
		return
	case Nothing:
		<-r.Context().Done()
		return
	case Garbage:
		l.garbage(w)
		return
	}
	honest := httptest.NewRecorder()
	l.honest.ServeHTTP(honest, r)
	if honest.Code != http.StatusOK {
		w.WriteHeader(honest.Code)
		return
	}
	l.answer(w, r, honest.Body.Bytes())
}

func (l liar) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	whole := len(body)
	switch l.lie {
	case TooMuch:
		body = append(body, make([]byte, 100_000)...)
		whole = len(body)
	case TooLittle:
		body = body[:len(body)/2]
	case Short:
		body = body[:len(body)-1]
		whole = len(body)
	case WrongPiece:
		for i := range body {
			body[i] ^= 0xff
		}
	case OneBit:
		body[len(body)-1] ^= 1
	case Endless:
		for r.Context().Err() == nil {
			if _, err := w.Write(body); err != nil {
				return
			}
		}
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(whole))
	_, _ = w.Write(body)
	if len(body) < whole {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // closes the connection
	}
}

func (liar) garbage(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, strings.Repeat("\x00\xff this is no answer \r\n\r\n", 1000))
}
