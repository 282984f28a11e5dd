// Package credential gets at the node's own credentials for upstream
// registries: in a file with a password, in a config.json of docker, or from a
// program that speaks the protocol of docker's credential helpers, as those of
// the clouds do. It sends none to anybody; who may have one is for its user to
// know.
//
// What always holds: a secret stands in no error, and in no argument and no
// variable of a program. Files are read when they are needed, so that they can
// be renewed. A program has ten seconds, and is ended then with all that it has
// started; it is asked once however many want to know at the same time, and goes
// on in a goroutine of its own when the one who asked first gives up.
//
// authn.DefaultKeychain of go-containerregistry reads the same files, but only
// the one that the environment of the process names, and lets helpers take as
// long, write to standard error, and have quoted in errors what they like. What it
// is made of is used here: docker's reader of the file, and docker's client of
// helpers.
package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
)

// Source knows credentials. It is safe for concurrent use.
type Source interface {
	// Get returns the credential for a repository at a host (with a port if
	// it is not HTTPS's), or the zero value if there is none. One that was
	// refused is returned again if there is still no other. Errors, in one
	// line, say what is wrong with the source; they are blob.ErrUnavailable.
	Get(ctx context.Context, host, repository string, refused Credential) (Credential, error)
}

// Credential logs in somewhere. The zero value does not.
type Credential struct {
	Username, Password string
	// IdentityToken is given to a token endpoint instead of them, as the
	// refresh token of OAuth 2 (RFC 6749, section 6).
	IdentityToken string
	// RegistryToken is sent with each request, as Bearer has it (RFC 6750).
	RegistryToken string
}

// Header returns the Authorization that says it to a registry or, without an
// identity token, to a token endpoint; "" if it has none.
func (c Credential) Header() string {
	switch {
	case c.RegistryToken != "":
		return "Bearer " + c.RegistryToken
	case c.Username == "" && c.Password == "":
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// String tells nothing, so that no log and no error does by mistake.
func (c Credential) String() string { return "(a credential)" }

// GoString is String for %#v.
func (c Credential) GoString() string { return c.String() }

// readFile reads a file of at most limit bytes.
func readFile(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", file, limit)
	}
	return raw, err
}
