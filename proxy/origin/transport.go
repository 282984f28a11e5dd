package origin

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"time"

	"shoal/proxy/origin/public"
)

// proxyFunc names the proxy for a request, or nil, as http.Transport wants it.
type proxyFunc = func(*http.Request) (*url.URL, error)

// transport returns an HTTP/1.1 transport: one stream for each connection has
// no window to be throttled by, and ranges of one blob are spread over several.
// The Client closes its idle connections.
func (c *Client) transport(dial DialFunc, proxy proxyFunc, config *tls.Config) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	t := &http.Transport{
		DialContext:            dial,
		Proxy:                  proxy,
		TLSClientConfig:        config.Clone(),
		TLSHandshakeTimeout:    c.o.HeaderTimeout,
		Protocols:              protocols,
		DisableCompression:     true, // what is hashed is what was sent
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         32 << 10,
	}
	c.transports = append(c.transports, t)
	return t
}

// transports carry the requests of an upstream.
type transports struct {
	own  http.RoundTripper // to itself
	away http.RoundTripper // to where it redirects to, and to token endpoints
}

// listed returns the transports for a listed registry; those that nothing is
// said about have the same.
func (c *Client) listed(r Registry) (transports, error) {
	proxy, err := r.proxy(c.o.Proxy)
	if err != nil {
		return transports{}, err
	}
	own, away, err := r.tls(c.o.TLS)
	if err != nil {
		return transports{}, err
	}
	return transports{c.transport(c.o.Dial, proxy, own), c.transport(c.o.Dial, proxy, away)}, nil
}

// guarded carries requests of registries that nobody listed, to public
// addresses only. Where the environment names a proxy, that one looks the name
// up, and what it lets through is its own business.
type guarded struct {
	direct, proxied *http.Transport
}

func (c *Client) guarded() guarded {
	return guarded{
		direct:  c.transport(public.NewDialer(c.o.Resolver, c.o.Dial, dialTimeout).DialContext, nil, c.o.TLS),
		proxied: c.transport(c.o.Dial, c.o.Proxy, c.o.TLS),
	}
}

// RoundTrip is of http.RoundTripper.
func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	proxy, err := g.proxied.Proxy(r)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		return g.proxied.RoundTrip(r)
	}
	return g.direct.RoundTrip(r)
}
