package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"shoal/blobcache/blob"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var challenges = map[string][]Challenge{
	``:                   nil,
	`,, ,`:               nil,
	`Basic`:              {{"basic", map[string]string{}}},
	`Basic realm="a, b"`: {{"basic", map[string]string{"realm": "a, b"}}},
	`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"`: {{"bearer", map[string]string{
		"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:a/b:pull,push",
	}}},
	`BEARER Realm = "x" , SERVICE=y`:              {{"bearer", map[string]string{"realm": "x", "service": "y"}}},
	`Basic realm="x", Bearer realm="y"`:           {{"basic", map[string]string{"realm": "x"}}, {"bearer", map[string]string{"realm": "y"}}},
	`Negotiate, Bearer realm="y"`:                 {{"negotiate", map[string]string{}}, {"bearer", map[string]string{"realm": "y"}}},
	`Bearer realm="a\"b\\c"`:                      {{"bearer", map[string]string{"realm": `a"b\c`}}},
	`Bearer realm=""`:                             {{"bearer", map[string]string{"realm": ""}}},
	`Bearer realm="unfinished`:                    {{"bearer", map[string]string{}}},
	`Bearer realm="unfinished\`:                   {{"bearer", map[string]string{}}},
	`Bearer realm=`:                               {{"bearer", map[string]string{}}},
	`Negotiate YIIB+/==, Bearer realm="y"`:        {{"negotiate", map[string]string{}}},
	`Bearer realm="x" "y", service="z"`:           {{"bearer", map[string]string{"realm": "x"}}},
	`"Bearer" realm="x"`:                          nil,
	`Bearer ` + strings.Repeat("a", challengeMax): nil,
}

func TestParse(t *testing.T) {
	for header, want := range challenges {
		if got := Parse([]string{header}); !reflect.DeepEqual(got, want) {
			t.Errorf("%.60q:\n got %v\nwant %v", header, got, want)
		}
	}
	got := Parse([]string{`Basic realm="x"`, `Bearer realm="y"`})
	if len(got) != 2 || got[0].Scheme != "basic" || got[1].Scheme != "bearer" {
		t.Errorf("two headers are %v", got)
	}
}

func FuzzParse(f *testing.F) {
	for header := range challenges {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		for _, c := range Parse([]string{header}) {
			if c.Scheme == "" || c.Scheme != strings.ToLower(c.Scheme) {
				t.Errorf("scheme %q", c.Scheme)
			}
			for k, v := range c.Params {
				if k == "" || k != strings.ToLower(k) || len(v) > len(header) {
					t.Errorf("parameter %q=%q", k, v)
				}
			}
		}
		if b, err := Find(Parse([]string{header}), false, ""); err == nil && (b.Realm.Scheme != "https" || b.URL().Host == "") {
			t.Errorf("realm %q", b.Realm)
		}
	})
}

func TestFind(t *testing.T) {
	tests := []struct {
		header string
		plain  bool
		url    string // of the token; empty for an error
	}{
		{header: `Bearer realm="https://a.io/token",service="s",scope="x"`, url: "https://a.io/token?scope=x&service=s"},
		{header: `Bearer realm="https://a.io/token"`, url: "https://a.io/token?scope=mine"},
		{header: `Bearer realm="https://a.io/token?account=me#top",scope="x y"`, url: "https://a.io/token?account=me&scope=x+y"},
		{header: `Basic realm="b", Bearer realm="https://a.io/token",scope="x"`, url: "https://a.io/token?scope=x"},
		{header: `Bearer realm="http://a.io/token",scope="x"`, plain: true, url: "http://a.io/token?scope=x"},
		{header: `Bearer realm="http://a.io/token",scope="x"`},
		{header: `Bearer realm="ftp://a.io/token"`, plain: true},
		{header: `Bearer realm="/token"`, plain: true},
		{header: `Bearer realm="https:///token"`},
		{header: `Bearer realm="https://me:word@a.io/token"`},
		{header: `Bearer realm="https://a.io:x/token"`},
		{header: `Bearer service="s"`},
		{header: `Basic realm="b"`},
		{},
	}
	for _, tt := range tests {
		b, err := Find(Parse([]string{tt.header}), tt.plain, "mine")
		if tt.url == "" {
			if !errors.Is(err, ErrChallenge) {
				t.Errorf("%s: error %v", tt.header, err)
			}
			continue
		}
		if err != nil || b.URL().String() != tt.url {
			t.Errorf("%s: %v, %v, want %s", tt.header, b, err, tt.url)
		}
	}
}

func TestHowLongATokenIsValid(t *testing.T) {
	now := time.Unix(1e9, 0)
	for expiresIn, want := range map[string]time.Duration{
		``:                                  54 * time.Second,
		`,"expires_in":0`:                   54 * time.Second,
		`,"expires_in":-5`:                  54 * time.Second,
		`,"expires_in":10`:                  9 * time.Second,
		`,"expires_in":300`:                 290 * time.Second,
		`,"expires_in":9223372036854775807`: time.Hour - 10*time.Second,
	} {
		tok, err := parse([]byte(`{"token":"x"`+expiresIn+`}`), now)
		if err != nil || tok.expires.Sub(now) != want {
			t.Errorf("%s: %v, %v, want %v", expiresIn, tok.expires.Sub(now), err, want)
		}
	}
}

func TestWhatIsNoToken(t *testing.T) {
	for _, raw := range []string{
		``, `{}`, `[]`, `"x"`, `{"token":""}`, `{"token":5}`, `{"token":"a b"}`, `{"token":"a\nb"}`, `{"token":"a\u0000"}`, `{"token":"é"}`,
	} {
		if tok, err := parse([]byte(raw), time.Now()); !errors.Is(err, blob.ErrUnavailable) || tok.value != "" {
			t.Errorf("%s: %v, %v", raw, tok, err)
		}
	}
}

func TestAWaitEndsWithItsContextAndAFetchWithItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Bearer{Realm: &url.URL{Scheme: "https", Host: "a.io"}}
		fetched := make(chan error, 1)
		fetch := func(ctx context.Context, _ Bearer) (*http.Response, error) {
			<-ctx.Done()
			fetched <- context.Cause(ctx)
			return nil, fmt.Errorf("fetch: %w", context.Cause(ctx))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := NewTokens().Get(ctx, "k", "", b, fetch); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("waited %v", took)
		}
		if err := <-fetched; !errors.Is(err, blob.ErrStalled) || time.Since(begin) != tokenTime {
			t.Errorf("fetch ended after %v with %v", time.Since(begin), err)
		}
	})
}

// What is passed on is one bearer challenge, and nothing that a registry could
// hide in it.
func TestForward(t *testing.T) {
	for header, want := range map[string]string{
		`Bearer realm="https://a.test/t",service="s",scope="repository:a/b:pull",error="insufficient_scope",evil="x"`: `Bearer realm="https://a.test/t",service="s",scope="repository:a/b:pull",error="insufficient_scope"`,
		`Basic realm="x", Bearer realm="https://a.test/t"`:                                                            `Bearer realm="https://a.test/t"`,
		`Bearer realm="https://a.test/t", Basic realm="x"`:                                                            `Bearer realm="https://a.test/t"`,
		`Bearer realm="https://a.test/t",service="a\", Basic realm=\"b\\"`:                                            `Bearer realm="https://a.test/t",service="a\", Basic realm=\"b\\"`,
		"Bearer realm=\"https://a.test/t\",service=\"a\r\nX: y\"":                                                     `Bearer realm="https://a.test/t"`,
		`Bearer realm="http://a.test/t"`:                                                                              "",
		`Bearer realm="https://me:word@a.test/t"`:                                                                     "",
		`Basic realm="x"`: "",
		``:                "",
	} {
		got := Forward(Parse([]string{header}), false)
		if got != want {
			t.Errorf("%s\ngot  %s\nwant %s", header, got, want)
		}
		if got != "" && Forward(Parse([]string{got}), false) != got {
			t.Errorf("%s is read as something else", got)
		}
	}
}
