package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxAnswerSize bounds what a client takes from whatever listens on the
// address: 16 MiB hold 20,000 members.
const maxAnswerSize = 16 << 20

// Fetch asks the node whose admin endpoint is at addr (HOST:PORT; an
// unspecified host means this machine) for its status. It returns the JSON as
// it came, and what it says.
func Fetch(ctx context.Context, addr string) ([]byte, Status, error) {
	return query(ctx, addr, "status", func(s Status) bool { return s.ID != "" })
}

// FetchPeers is Fetch for the members that the node knows.
func FetchPeers(ctx context.Context, addr string) ([]byte, Peers, error) {
	return query(ctx, addr, "peers", func(p Peers) bool { return p.Peers != nil })
}

// query asks for /api/v1/NAME.
func query[T any](ctx context.Context, addr, name string, plausible func(T) bool) ([]byte, T, error) {
	var answer T
	text, err := get(ctx, "http://"+dialable(addr)+"/api/v1/"+name)
	if err != nil {
		return nil, answer, err
	}
	if err := json.Unmarshal(text, &answer); err != nil || !plausible(answer) {
		return nil, answer, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return text, answer, nil
}

// Alive asks the node whose admin endpoint is at addr whether it is there.
func Alive(ctx context.Context, addr string) error {
	_, err := get(ctx, "http://"+dialable(addr)+"/healthz")
	return err
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	status, text, err := send(single(), req)
	if err == nil && status != http.StatusOK {
		err = &statusError{url, status}
	}
	return text, err
}

// statusError is an answer that is not 200.
type statusError struct {
	url    string
	status int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: %d %s", e.url, e.status, http.StatusText(e.status))
}

// single returns a client for a single request, with a connection for it alone. Not
// by the environment's HTTP proxy: the node is this machine's or a neighbour's.
func single() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

// open returns the body of a good answer to a request; the caller closes it.
func open(req *http.Request) (io.ReadCloser, error) {
	resp, err := single().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerSize))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return nil, refusal(resp.StatusCode, text)
}

// send returns the status and the body of the answer to a request by client.
func send(client *http.Client, req *http.Request) (status int, text []byte, err error) {
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerSize)); err != nil {
		return 0, nil, fmt.Errorf("read answer: %w", err)
	}
	return resp.StatusCode, text, nil
}

// dialable turns an address to listen on into one to connect to.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
