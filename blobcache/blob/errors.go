package blob

import "errors"

// What can go wrong with a blob. Packages wrap these with the operation and
// the party; only the proxy turns them into statuses.
var (
	// ErrNotFound: nobody asked has the blob, or it may not be had.
	ErrNotFound = errors.New("not found")
	// ErrDenied: the upstream refused with 401 or 403.
	ErrDenied = errors.New("denied by the registry")
	// ErrUnavailable: no answer that settles the matter (refused connection,
	// time out, 429, 5xx); asking again later may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrCorrupt: bytes that do not match the digest.
	ErrCorrupt = errors.New("content does not match the digest")
	// ErrStalled: no progress within the deadline.
	ErrStalled = errors.New("no progress")
	// ErrNoSpace: the disk or the cache budget has no room.
	ErrNoSpace = errors.New("no space in the cache")
	// ErrTooLarge: over a limit on what is accepted.
	ErrTooLarge = errors.New("too large")
	// ErrDigestInvalid: not a digest that can be served.
	ErrDigestInvalid = errors.New("invalid digest")
)
