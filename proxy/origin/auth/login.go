package auth

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strings"

	"shoal/blobcache/blob"
)

// passwordMax is the longest password, in bytes: tokens of clouds that stand
// for one have some KiB.
const passwordMax = 16 << 10

// Login is a user, and the file that holds the password. It holds no secret
// itself: the file is read whenever it is needed, so that it can be renewed.
type Login struct {
	Username string
	File     string
}

// Basic returns the header that logs the user in (RFC 7617). The password is
// the file without line breaks at its end. The error, which quotes nothing of
// it, is blob.ErrUnavailable.
func (l Login) Basic() (string, error) {
	f, err := os.Open(l.File)
	if err != nil {
		return "", fmt.Errorf("%w: password-file: %w", blob.ErrUnavailable, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, passwordMax+1))
	if err != nil {
		return "", fmt.Errorf("%w: password-file: %w", blob.ErrUnavailable, err)
	}
	password := strings.TrimRight(string(raw), "\r\n")
	if password == "" || len(raw) > passwordMax {
		return "", fmt.Errorf("%w: password-file %s must hold 1 to %d bytes", blob.ErrUnavailable, l.File, passwordMax)
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(l.Username+":"+password)), nil
}

// WantsBasic tells whether a user's name and password are among what cs ask
// for.
func WantsBasic(cs []Challenge) bool {
	for _, c := range cs {
		if c.Scheme == "basic" {
			return true
		}
	}
	return false
}
