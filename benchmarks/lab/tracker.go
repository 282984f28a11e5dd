//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
)

// announceInterval is how often in seconds BitTorrent clients ask the tracker
// again: those that asked before others came hear of them from these.
const announceInterval = 2

// tracker is a BitTorrent tracker over HTTP (BEP 3, compact answers of BEP 23).
// It names everybody who ever asked for a torrent.
type tracker struct {
	mu    sync.Mutex
	peers map[string]map[netip.AddrPort]bool // by the torrent's hash
}

// ServeHTTP answers an announcement.
func (t *tracker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	port, portErr := strconv.ParseUint(query.Get("port"), 10, 16)
	if err != nil || portErr != nil || !remote.Addr().Is4() {
		http.Error(w, "bad announcement", http.StatusBadRequest)
		return
	}
	self, torrent := netip.AddrPortFrom(remote.Addr(), uint16(port)), query.Get("info_hash")
	t.mu.Lock()
	defer t.mu.Unlock()
	var others []byte
	for peer := range t.peers[torrent] {
		if peer != self {
			others = binary.BigEndian.AppendUint16(append(others, peer.Addr().AsSlice()...), peer.Port())
		}
	}
	if t.peers[torrent] == nil {
		t.peers[torrent] = map[netip.AddrPort]bool{}
	}
	t.peers[torrent][self] = true
	fmt.Fprintf(w, "d8:intervali%de12:min intervali%de5:peers%d:%se", announceInterval, announceInterval, len(others), others)
}
