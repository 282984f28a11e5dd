package blob

import (
	"context"
	"io"
)

// Source is somewhere that bytes of blobs can be had: an upstream repository,
// or a fake in tests.
type Source interface {
	// Open starts to read r of the blob d. It returns as soon as the source
	// has committed itself to the answer, before the body; reading goes on as
	// the body is read and obeys ctx until it is closed. The bytes are
	// unproven. Errors: ErrNotFound, ErrDenied, ErrUnavailable, ErrStalled
	// (all wrapped); ErrTooLarge if r starts behind the end.
	Open(ctx context.Context, d Descriptor, r Range) (*Stream, error)
}

// Stream is an open answer of a Source. The caller closes Body.
type Stream struct {
	// Body yields exactly Range.Length bytes and io.EOF, or an error that is
	// never io.EOF: a body that ends early is io.ErrUnexpectedEOF, one without
	// progress is ErrStalled.
	Body io.ReadCloser
	// Range is what Body really holds. It may differ from what was asked for:
	// an upstream that ignores Range answers with the whole. Length is
	// negative while Size is unknown.
	Range Range
	// Size is the length of the whole blob as this source tells it, or
	// UnknownSize.
	Size int64
	// Identity names where the bytes come from and which version they are
	// (upstream, ETag and total). Two streams with the same Identity, none
	// empty, continue one another.
	Identity string
}
