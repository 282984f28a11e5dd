package credential

import (
	"context"
	"fmt"
	"strings"

	"shoal/blobcache/blob"
)

// passwordMax is the longest password, in bytes: tokens of clouds that stand
// for one have some KiB.
const passwordMax = 16 << 10

type password struct{ username, file string }

// Password returns a user whose password is in a file, without line breaks at
// its end, for any host.
func Password(username, file string) (Source, error) {
	p := password{username, file}
	_, err := p.read()
	return p, err
}

func (p password) Get(context.Context, string, string, Credential) (Credential, error) {
	return p.read()
}

func (p password) read() (Credential, error) {
	raw, err := readFile(p.file, passwordMax)
	if err != nil {
		return Credential{}, fmt.Errorf("%w: password-file: %w", blob.ErrUnavailable, err)
	}
	text := strings.TrimRight(string(raw), "\r\n")
	if text == "" {
		return Credential{}, fmt.Errorf("%w: password-file %s is empty", blob.ErrUnavailable, p.file)
	}
	return Credential{Username: p.username, Password: text}, nil
}
