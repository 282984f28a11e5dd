package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
	"golang.org/x/sync/singleflight"

	"shoal/blobcache/blob"
)

const (
	// helperTime is how long a helper may take. Those of clouds ask a service
	// of theirs.
	helperTime = 10 * time.Second
	// helperMax is the longest answer, in bytes: the longest secrets have some
	// KiB.
	helperMax = 64 << 10
	// helperKeep is how long an answer counts that nobody refuses. Secrets of
	// clouds are valid for an hour or more.
	helperKeep = 5 * time.Minute
	// helperPause is how long any answer counts, a failure too, so that
	// clients who try again and again start no crowd of programs.
	helperPause = time.Second
	// identityUser is the user of a helper whose secret is an identity token.
	identityUser = "<token>"
)

type command struct {
	argv    []string
	helpers *helpers
}

// Command returns what a program says that speaks the protocol of docker's
// credential helpers: it is started with the arguments and "get", reads the
// host from standard input, and prints {"Username": ..., "Secret": ...}. What
// it says to standard error is dropped: it may hold a secret.
func Command(argv []string) (Source, error) {
	c := command{argv: argv, helpers: newHelpers()}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return nil, fmt.Errorf("credential-command: %w", err)
	}
	return c, nil
}

func (c command) Get(ctx context.Context, host, _ string, refused Credential) (Credential, error) {
	return c.helpers.ask(ctx, c.argv, servers(host)[0], refused)
}

// helpers remembers what helpers have said.
type helpers struct {
	limit, pause time.Duration // helperTime and helperPause
	flights      singleflight.Group

	mu    sync.Mutex
	known map[string]answer // by program, arguments and server: as many as the operator has named
}

type answer struct {
	credential Credential
	err        error
	at         time.Time
}

func newHelpers() *helpers {
	return &helpers{limit: helperTime, pause: helperPause, known: map[string]answer{}}
}

// ask returns the credential that a helper has for server.
func (h *helpers) ask(ctx context.Context, argv []string, server string, refused Credential) (Credential, error) {
	key := fmt.Sprintf("%q %q", argv, server)
	h.mu.Lock()
	a, ok := h.known[key]
	h.mu.Unlock()
	age := time.Since(a.at)
	if ok && (age < h.pause || age < helperKeep && a.err == nil && a.credential != refused) {
		return a.credential, a.err
	}
	done := h.flights.DoChan(key, func() (any, error) {
		// Others may wait for it when the first one no longer does.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.limit)
		defer cancel()
		var a answer
		a.credential, a.err = run(ctx, argv, server)
		a.at = time.Now()
		h.mu.Lock()
		h.known[key] = a
		h.mu.Unlock()
		return a.credential, a.err
	})
	select {
	case r := <-done:
		return r.Val.(Credential), r.Err
	case <-ctx.Done():
		return Credential{}, fmt.Errorf("%s: %w", filepath.Base(argv[0]), context.Cause(ctx))
	}
}

// run asks a helper. The client quotes what a helper prints, so its errors go
// no further.
func run(ctx context.Context, argv []string, server string) (Credential, error) {
	p := &program{ctx: ctx, argv: argv}
	got, err := client.Get(p.with, server)
	switch {
	case err == nil && got.Username == identityUser && got.Secret != "":
		return Credential{IdentityToken: got.Secret}, nil
	case err == nil && got.Username != "" && got.Secret != "":
		return Credential{Username: got.Username, Password: got.Secret}, nil
	case credentials.IsErrCredentialsNotFound(err):
		return Credential{}, nil
	case ctx.Err() != nil:
		err = errors.New("it takes too long")
	case p.err != nil:
		err = p.err
	default:
		err = errors.New("its answer is no credential")
	}
	return Credential{}, fmt.Errorf("%w: %s: %w: try it by hand: echo %s | %[2]s ... get", blob.ErrUnavailable, filepath.Base(argv[0]), err, server)
}

// program is one run of a helper, as the client wants it.
type program struct {
	ctx  context.Context // of this run: the client's interface has no room for it
	argv []string
	in   io.Reader
	err  error // of the program, which quotes nothing that it has printed
}

func (p *program) with(args ...string) client.Program {
	p.argv = slices.Concat(p.argv, args)
	return p
}

func (p *program) Input(in io.Reader) { p.in = in }

func (p *program) Output() ([]byte, error) {
	cmd := exec.CommandContext(p.ctx, p.argv[0], p.argv[1:]...)
	var out limited
	cmd.Stdin, cmd.Stdout = p.in, &out
	// If it is ended, so is what it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = helperPause
	if p.err = cmd.Run(); out.err != nil {
		p.err = out.err // and not the signal that told the program
	}
	return out.text.Bytes(), p.err
}

// limited is what a helper has printed. It has no more methods, because a
// ReadFrom would know no limit.
type limited struct {
	text bytes.Buffer
	err  error
}

func (l *limited) Write(b []byte) (int, error) {
	if l.text.Len()+len(b) > helperMax {
		l.err = fmt.Errorf("its answer has more than %d bytes", helperMax)
		return 0, l.err
	}
	return l.text.Write(b)
}
