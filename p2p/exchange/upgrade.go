package exchange

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"

	"shoal/p2p/wire"
)

// upgrade opens a connection on which h is followed. The reader is that of the
// connection.
func (c *client) upgrade(ctx context.Context, h Holder) (*link, *bufio.Reader, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c.know(h)
	conn, err := c.reach(ctx, h.Peer, h.Pieces, true)
	if err != nil {
		return nil, nil, err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	r, err := handshake(ctx, conn, h)
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("follow %s: %w", h.Peer, err)
	}
	return conn, r, nil
}

// handshake asks for the upgrade and reads the answer.
func handshake(ctx context.Context, conn net.Conn, h Holder) (*bufio.Reader, error) {
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "http", Host: host(h.Peer), Path: wire.FollowPath}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", wire.FollowProtocol)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: conn, N: maxAnswerHeader}
	r := bufio.NewReader(limited)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close() // nothing of a 101; of others the connection is closed
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
		limited.N = math.MaxInt64
		return r, conn.SetDeadline(time.Time{})
	case http.StatusBadRequest:
		return nil, errNoFollow
	case http.StatusNotFound:
		return nil, errGone
	case http.StatusServiceUnavailable:
		return nil, errBusy
	}
	return nil, fmt.Errorf("%w: status %d", errLie, resp.StatusCode)
}
