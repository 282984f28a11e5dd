// Package channel is the connection on which members of a swarm move pieces:
// mutual TLS 1.3 with the libp2p identity certificate, then a proof by both
// sides that they hold the swarm key. What it yields are plain net.Conn and
// net.Listener for HTTP/1.1; it knows nothing about blobs, DHT or addresses.
//
// Always: no byte of the application is sent or delivered on a connection
// before both sides proved their identity and their membership; a dialled
// connection ends at the peer that was asked for, or it is an error; the
// handshake takes at most HandshakeTimeout.
//
// # Membership proof
//
// After the TLS handshake the dialler sends 33 bytes and the listener, once it
// has checked them, answers with 33 bytes: a version (1) and
//
//	HMAC-SHA-256(membership key, label NUL exporter dialler-ID NUL listener-ID)
//
// label is "shoal/1 pieces dialler" or "shoal/1 pieces listener", so that a
// proof cannot be sent back to its author; exporter is 32 bytes of keying
// material of this TLS session (RFC 9266 style, RFC 8446 section 7.5), so that
// it cannot be used on another connection; the IDs are those of the
// certificates as each side sees them. A listener tells a stranger nothing but
// its certificate.
//
// The handshake runs in the goroutine of the first Read or Write, on the
// dialling side within Dial. The package starts no goroutines of its own.
package channel
