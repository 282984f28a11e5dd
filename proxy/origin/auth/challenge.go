// Package auth gets at upstream registries as they ask for it: it reads
// challenges (RFC 9110, section 11) and runs the bearer-token flow of the
// distribution specification, as Docker Hub and most registries want it. It
// knows no credentials and no transport; whoever uses it gives it a function
// that asks a token endpoint.
//
// What always holds: a token is sent to nobody by this package, stands in no
// error and no log line, and is fetched once however many ask for it at the
// same time. Fetching goes on in a goroutine of its own when the one who asked
// first gives up, and ends within the deadline of its answer.
package auth

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// challengeMax bounds what is read of one WWW-Authenticate header, in bytes.
const challengeMax = 8 << 10

// ErrChallenge is a challenge that cannot or must not be followed.
var ErrChallenge = errors.New("unusable challenge")

// Challenge is one challenge of a WWW-Authenticate header.
type Challenge struct {
	Scheme string            // in lower case, such as "bearer"
	Params map[string]string // names in lower case
}

// Parse reads the values of all WWW-Authenticate headers of an answer. What it
// cannot read ends the header it stands in; challenges before that count.
func Parse(headers []string) []Challenge {
	var out []Challenge
	for _, h := range headers {
		if len(h) <= challengeMax {
			out = append(out, parseHeader(h)...)
		}
	}
	return out
}

// parseHeader reads a list of challenges. Its grammar is ambiguous only on the
// surface: after a comma, a token followed by "=" is one more parameter, and
// any other token is a new scheme.
func parseHeader(s string) []Challenge {
	var out []Challenge
	for {
		s = strings.TrimLeft(s, " \t,")
		scheme, rest := cutToken(s)
		if scheme == "" {
			return out
		}
		c := Challenge{Scheme: strings.ToLower(scheme), Params: map[string]string{}}
		s = rest
		for {
			key, value, rest, ok := cutParam(strings.TrimLeft(s, " \t,"))
			if !ok {
				break
			}
			c.Params[strings.ToLower(key)] = value
			s = rest
		}
		out = append(out, c)
		// Behind a challenge there is a comma, or something unreadable (a
		// token68, a quotation without end).
		if trimmed := strings.TrimLeft(s, " \t"); trimmed != "" && trimmed[0] != ',' {
			return out
		}
	}
}

// cutParam cuts a name=value off s; the value is a token or a quotation.
func cutParam(s string) (key, value, rest string, ok bool) {
	key, rest = cutToken(s)
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
	if key == "" || !ok {
		return "", "", s, false
	}
	rest = strings.TrimLeft(rest, " \t")
	if !strings.HasPrefix(rest, `"`) {
		value, rest = cutToken(rest)
		return key, value, rest, value != ""
	}
	var b strings.Builder
	for i := 1; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return key, b.String(), rest[i+1:], true
		case '\\':
			i++
			if i == len(rest) {
				return "", "", s, false
			}
		}
		b.WriteByte(rest[i])
	}
	return "", "", s, false
}

// cutToken cuts a token of RFC 9110, section 5.6.2, off s.
func cutToken(s string) (token, rest string) {
	i := 0
	for i < len(s) && isTokenByte(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func isTokenByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// Bearer is a bearer challenge that may be followed.
type Bearer struct {
	Realm   *url.URL // of the token endpoint
	Service string
	Scope   string // such as "repository:library/alpine:pull"
}

// Find returns the bearer challenge among cs. The realm must be an https URL,
// or http where the upstream itself was asked by plain HTTP; a registry could
// otherwise make its clients talk in clear to whom it likes. scope stands in
// where the challenge names none.
func Find(cs []Challenge, plain bool, scope string) (Bearer, error) {
	for _, c := range cs {
		if c.Scheme != "bearer" {
			continue
		}
		realm, err := url.Parse(c.Params["realm"])
		if err != nil || realm.Host == "" || realm.User != nil {
			return Bearer{}, fmt.Errorf("%w: realm is not a plain URL", ErrChallenge)
		}
		if realm.Scheme != "https" && (realm.Scheme != "http" || !plain) {
			return Bearer{}, fmt.Errorf("%w: realm must be https", ErrChallenge)
		}
		b := Bearer{Realm: realm, Service: c.Params["service"], Scope: c.Params["scope"]}
		if b.Scope == "" {
			b.Scope = scope
		}
		return b, nil
	}
	return Bearer{}, fmt.Errorf("%w: no bearer challenge", ErrChallenge)
}

// WantsBasic tells whether a user's name and password are among what cs ask
// for.
func WantsBasic(cs []Challenge) bool {
	return slices.ContainsFunc(cs, func(c Challenge) bool { return c.Scheme == "basic" })
}

// Forward returns the bearer challenge among cs as a header for somebody else to
// follow, or "". Nothing else of them is told on; plain is as for Find.
func Forward(cs []Challenge, plain bool) string {
	for _, c := range cs {
		if _, err := Find([]Challenge{c}, plain, ""); err != nil {
			continue
		}
		var params []string
		for _, key := range []string{"realm", "service", "scope", "error"} {
			value, ok := c.Params[key]
			if ok && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
				params = append(params, key+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
			}
		}
		return "Bearer " + strings.Join(params, ",")
	}
	return ""
}

// URL returns where the token is to be had, without credentials.
func (b Bearer) URL() *url.URL {
	u := *b.Realm
	q := u.Query()
	if b.Service != "" {
		q.Set("service", b.Service)
	}
	if b.Scope != "" {
		q.Set("scope", b.Scope)
	}
	u.RawQuery, u.Fragment = q.Encode(), ""
	return &u
}

// Form returns what is posted to the realm for a token by an identity token,
// which is a refresh token of OAuth 2 (RFC 6749, section 6).
func (b Bearer) Form(identityToken, client string) string {
	q := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {identityToken}, "client_id": {client}}
	if b.Service != "" {
		q.Set("service", b.Service)
	}
	if b.Scope != "" {
		q.Set("scope", b.Scope)
	}
	return q.Encode()
}
