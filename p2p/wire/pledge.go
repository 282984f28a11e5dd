package wire

import (
	"encoding/base64"
	"fmt"
	"strings"

	"shoal/blobcache/statement"
)

// Headers of requests and answers about pieces and chains.
const (
	// VouchersHeader of a request says that the asker takes what is not proven
	// if somebody answers for it; its value is VouchersVersion. In the answer
	// to a pieces request it holds Pledges. Without it every piece is pledged
	// to be proven: members before this header sent nothing else.
	VouchersHeader  = "Shoal-Vouchers"
	VouchersVersion = "1"
	// ChainHeader holds the voucher of a chain: the one in the body, or the one
	// that pieces are pledged to agree with.
	ChainHeader = "Shoal-Chain"
	// EndorsementHeader of a request for a chain says that the asker takes one
	// that has not closed where it comes from, and for which no member has
	// vouched, if it is endorsed; its value is EndorsementVersion. In the answer
	// it holds a statement.Endorsement of the chain in the body.
	EndorsementHeader  = "Shoal-Endorsement"
	EndorsementVersion = "1"
)

// Pledge is what the sender of a piece says about it. With neither field set
// it is said to be proven; whoever says more than is so has lied.
type Pledge struct {
	// Linked: it agrees with the chain in ChainHeader.
	Linked bool
	// Voucher is that of the piece, not checked yet.
	Voucher *statement.Voucher
}

// The forms of a pledge. A voucher is base64 (RFC 4648, URL alphabet, without
// padding), and longer.
const (
	pledgeProven = "p"
	pledgeLinked = "c"
)

// PrintPledges prints the pledges of the pieces of a run, in their order.
func PrintPledges(ps []Pledge) string {
	words := make([]string, len(ps))
	for i, p := range ps {
		switch {
		case p.Voucher != nil:
			words[i] = PrintVoucher(*p.Voucher)
		case p.Linked:
			words[i] = pledgeLinked
		default:
			words[i] = pledgeProven
		}
	}
	return strings.Join(words, ",")
}

// ParsePledges reads the pledges of n pieces, at most MaxRun. An empty s, for a
// header that is not there, pledges all of them to be proven. Anything that
// PrintPledges does not print is ErrMalformed.
func ParsePledges(s string, n int) ([]Pledge, error) {
	ps := make([]Pledge, min(n, MaxRun))
	if s == "" {
		return ps, nil
	}
	rest := s
	for i := range ps {
		word, more, found := strings.Cut(rest, ",")
		if found != (i+1 < len(ps)) {
			return nil, fmt.Errorf("%w: not one pledge for each of %d pieces", ErrMalformed, n)
		}
		rest = more
		switch word {
		case pledgeProven:
		case pledgeLinked:
			ps[i].Linked = true
		default:
			v, err := ParseVoucher(word)
			if err != nil {
				return nil, err
			}
			ps[i].Voucher = &v
		}
	}
	return ps, nil
}

// PrintVoucher prints v for a header.
func PrintVoucher(v statement.Voucher) string {
	return base64.RawURLEncoding.EncodeToString(v.Marshal())
}

// ParseVoucher is the inverse of PrintVoucher. Anything else is ErrMalformed.
// The signature is not checked.
func ParseVoucher(s string) (statement.Voucher, error) {
	return parseSigned(s, statement.Size, statement.Parse)
}

// PrintEndorsement prints e for a header, as PrintVoucher does.
func PrintEndorsement(e statement.Endorsement) string {
	return base64.RawURLEncoding.EncodeToString(e.Marshal())
}

// ParseEndorsement is the inverse of PrintEndorsement. Anything else is
// ErrMalformed. The signature is not checked.
func ParseEndorsement(s string) (statement.Endorsement, error) {
	return parseSigned(s, statement.EndorsementSize, statement.ParseEndorsement)
}

// parseSigned reads a statement of size bytes.
func parseSigned[S any](s string, size int, parse func([]byte) (S, error)) (none S, err error) {
	// Exactly so long: the decoder skips line breaks.
	if len(s) != base64.RawURLEncoding.EncodedLen(size) {
		return none, fmt.Errorf("%w: a statement of %d characters", ErrMalformed, len(s))
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return none, fmt.Errorf("%w: a statement: %w", ErrMalformed, err)
	}
	v, err := parse(b)
	if err != nil {
		return none, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return v, nil
}
