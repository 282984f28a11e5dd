package exchange

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/blobcache/blob"
	"shoal/blobcache/proof"
	"shoal/blobcache/statement"
	"shoal/p2p/channel"
	"shoal/p2p/wire"
)

const (
	// idleConns is how many connections to one member are kept warm: as many
	// as one fill uses at once, twice. A fresh connection is slow to start.
	idleConns = 8
	// idleTimeout is less than that of the serving side, so that it is always
	// this side that closes an idle connection.
	idleTimeout = 90 * time.Second
	// dialTimeout bounds the attempt to reach one address.
	dialTimeout = 3 * time.Second
	// askTimeout bounds a question about a blob: a round trip or two.
	askTimeout = 3 * time.Second
	// chainTimeout bounds the transfer of a chain: 32 KiB for each GiB.
	chainTimeout = 15 * time.Second
	// maxAnswerHeader bounds the headers of an answer, in bytes.
	maxAnswerHeader = 8 << 10
)

// What a member can answer beside what was asked for.
var (
	errBusy = errors.New("member is busy")
	errGone = errors.New("member does not have it")
	errLie  = errors.New("answer does not follow the protocol")
)

// client asks other members, over connections that it keeps.
type client struct {
	life    context.Context // ends dials that nobody waits for any more
	ch      *channel.Channel
	met     *acquaintances
	streams Streams // nil: none
	http    *http.Transport

	mu    sync.Mutex
	addrs map[string][]string   // addresses of members by the host in their URLs
	deaf  map[peer.ID]time.Time // members whose addresses did not answer, until when that is believed
}

func newClient(life context.Context, o Options, met *acquaintances) *client {
	c := &client{life: life, ch: o.Channel, met: met, streams: o.Streams, addrs: make(map[string][]string), deaf: make(map[peer.ID]time.Time)}
	c.http = &http.Transport{
		DialContext:            c.dial,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxAnswerHeader,
		ReadBufferSize:         16 << 10,
	}
	return c
}

func (c *client) close() { c.http.CloseIdleConnections() }

// host is the name of a member in a URL.
func host(id peer.ID) string { return fmt.Sprintf("%x.member", string(id)) }

// dial connects to the member that addr ("HEX.member:80") names.
func (c *client) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.life, cancel)() //nolint:contextcheck // the exchange's life, beside the request's
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	id, err := peerOf(name)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	addrs := c.addrs[name]
	c.mu.Unlock()
	return c.reach(ctx, id, addrs, false)
}

func peerOf(name string) (peer.ID, error) {
	var raw []byte
	if _, err := fmt.Sscanf(name, "%x.member", &raw); err != nil {
		return "", fmt.Errorf("host %q: %w", name, err)
	}
	return peer.IDFromBytes(raw)
}

// know notes where a member is reached.
func (c *client) know(h Holder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(h.Pieces) > 0 { // who names none is reached by streams, or as before
		c.addrs[host(h.Peer)] = h.Pieces
	}
}

// drop forgets where a member is reached.
func (c *client) drop(id peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.addrs, host(id))
}

// get asks a member. The answer has status 200 and a known length of most
// bytes at most; the caller closes its body.
func (c *client) get(ctx context.Context, id peer.ID, r wire.Request, most int64) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: host(id), Path: r.Path()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(wire.VouchersHeader, wire.VouchersVersion)
	if r.Kind == wire.KindChain {
		req.Header.Set(wire.EndorsementHeader, wire.EndorsementVersion)
	}
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", id, err)
	}
	err = nil
	switch {
	case resp.StatusCode == http.StatusNotFound:
		err = errGone
	case resp.StatusCode == http.StatusServiceUnavailable:
		err = errBusy
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("%w: status %d", errLie, resp.StatusCode)
	case resp.ContentLength < 0 || resp.ContentLength > most:
		err = fmt.Errorf("%w: a body of %d bytes", errLie, resp.ContentLength)
	}
	if err != nil {
		discard(resp.Body)
		return nil, fmt.Errorf("ask %s: %w", id, err)
	}
	return resp, nil
}

// discard reads the short text of an error, so that the connection can be used
// again, and closes the body.
func discard(body io.ReadCloser) {
	const most = 4 << 10
	io.CopyN(io.Discard, body, most) //nolint:errcheck // the connection is closed then
	body.Close()
}

// info asks what a member has of a blob.
func (c *client) info(ctx context.Context, h Holder, d blob.Descriptor) (wire.Info, error) {
	c.know(h)
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	body, _, err := c.read(ctx, h.Peer, wire.Request{Kind: wire.KindInfo, Digest: d.Digest}, wire.MaxInfo)
	if err != nil {
		return wire.Info{}, err
	}
	info, err := wire.ParseInfo(body)
	if err != nil {
		return wire.Info{}, fmt.Errorf("ask %s: %w", h.Peer, err)
	}
	return info, nil
}

// offered is a chain as a member gives it. Nothing of it is checked.
type offered struct {
	proof.Chain
	voucher *statement.Voucher // of who answers for it; nil if there is none
	// endorsement is what somebody signed who may be trusted; nil if there is
	// none, or none that this version knows.
	endorsement *statement.Endorsement
}

// chain asks for the chain of d, whose size must be known.
func (c *client) chain(ctx context.Context, id peer.ID, d blob.Descriptor) (offered, error) {
	ctx, cancel := context.WithTimeout(ctx, chainTimeout)
	defer cancel()
	most := int64(blob.PieceCount(d.Size)) * proof.StateSize
	body, head, err := c.read(ctx, id, wire.Request{Kind: wire.KindChain, Digest: d.Digest, Size: d.Size}, most)
	if err != nil {
		return offered{}, err
	}
	var o offered
	if o.Chain, err = proof.ParseChain(body, d.Size); err != nil {
		return offered{}, fmt.Errorf("ask %s: %w: %w", id, errLie, err)
	}
	if o.voucher, err = chainVoucher(head); err != nil {
		return offered{}, fmt.Errorf("ask %s: %w: %w", id, errLie, err)
	}
	if e, err := wire.ParseEndorsement(head.Get(wire.EndorsementHeader)); err == nil {
		o.endorsement = &e
	}
	return o, nil
}

// chainVoucher returns the voucher of a chain that the headers of an answer
// hold, nil if there is none.
func chainVoucher(head http.Header) (*statement.Voucher, error) {
	s := head.Get(wire.ChainHeader)
	if s == "" {
		return nil, nil
	}
	v, err := wire.ParseVoucher(s)
	if err != nil {
		return nil, err
	}
	return &v, nil
}

// read asks for something short. What it allocates grows with what comes.
func (c *client) read(ctx context.Context, id peer.ID, r wire.Request, most int64) ([]byte, http.Header, error) {
	resp, err := c.get(ctx, id, r, most)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, nil, fmt.Errorf("ask %s: %w", id, err)
	}
	return body, resp.Header, nil
}

// pledged are pieces on their way in, with what their sender says about them.
type pledged struct {
	body    io.ReadCloser      // not longer than the pieces are
	pledges []wire.Pledge      // one for each
	chain   *statement.Voucher // of the chain that some are pledged to agree with
}

// pieces asks for a run of pieces. The caller closes the body.
func (c *client) pieces(ctx context.Context, id peer.ID, r wire.Request) (pledged, error) {
	resp, err := c.get(ctx, id, r, r.Range().Length)
	if err != nil {
		return pledged{}, err
	}
	p := pledged{body: resp.Body}
	p.pledges, err = wire.ParsePledges(resp.Header.Get(wire.VouchersHeader), r.Count)
	if err == nil {
		p.chain, err = chainVoucher(resp.Header)
	}
	for _, pledge := range p.pledges {
		if err == nil && pledge.Linked && p.chain == nil {
			err = errors.New("pieces of a chain, and no word which")
		}
	}
	if err != nil {
		resp.Body.Close()
		return pledged{}, fmt.Errorf("ask %s: %w: %w", id, errLie, err)
	}
	return p, nil
}
