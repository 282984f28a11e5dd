package origin

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"shoal/blobcache/blob"
)

// ResponseError is an upstream's answer with a status other than success.
type ResponseError struct {
	Upstream string // base URL
	Method   string
	What     string // kind of request, such as "blob"
	Status   int
	// Code is the error code of the distribution specification, such as
	// "MANIFEST_UNKNOWN", if the upstream told one.
	Code string
	// Challenge is the values of WWW-Authenticate.
	Challenge []string
	// RetryAfter is how long the upstream asks to wait; 0 if it does not say.
	RetryAfter time.Duration
	// Advice says what to do about it, for clients too; "" if nothing helps.
	Advice string
	// Err is the sentinel of package blob for the status.
	Err error
}

// Error tells who answered what, in one line.
func (e *ResponseError) Error() string {
	status := strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status)))
	if e.Code != "" {
		status += " (" + e.Code + ")"
	}
	text := fmt.Sprintf("%s: %s %s: %s: %v", e.Upstream, e.Method, e.What, status, e.Err)
	if e.Advice != "" {
		text += ": " + e.Advice
	}
	return text
}

// Unwrap returns the sentinel.
func (e *ResponseError) Unwrap() error { return e.Err }

// statusError returns the sentinel for a status that is no success.
func statusError(status int) error {
	switch status {
	case http.StatusNotFound, http.StatusGone:
		return blob.ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusUnavailableForLegalReasons:
		return blob.ErrDenied
	case http.StatusRequestedRangeNotSatisfiable:
		return blob.ErrTooLarge
	}
	return blob.ErrUnavailable
}

// errLie is in the chain of errors about answers that contradict themselves or
// what was asked; asking the same upstream again would not help.
var errLie = errors.New("wrong answer")

// lie returns an error that is errLie and the sentinel.
func lie(up *upstream, sentinel error, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %w: %s", up.base, sentinel, errLie, fmt.Sprintf(format, args...))
}

// parseRetryAfter reads the header of that name (RFC 9110, section 10.2.3),
// which is a number of seconds or a date; 0 is unreadable, none, or past.
func parseRetryAfter(v string, now time.Time) time.Duration {
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
