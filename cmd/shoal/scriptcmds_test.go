package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/multiformats/go-multiaddr"
	"github.com/rogpeppe/go-internal/testscript"

	"shoal/cmd/shoal/internal/runfile"
	"shoal/proxy/origin/origintest"
)

// patience is for things that take tenths of a second on an idle machine, and
// for the demo, which takes ten seconds.
const patience = 60 * time.Second

// eventually polls cond.
func eventually(ts *testscript.TestScript, what string, cond func() bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// cmdExit runs shoal and checks how it ends.
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exit CODE WORDS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec("shoal", args[1:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("shoal: %v", err)
		}
		code = exit.ExitCode()
	}
	if code != want {
		ts.Fatalf("shoal %s: exit %d, want %d", strings.Join(args[1:], " "), code, want)
	}
	if stderr := ts.ReadFile("stderr"); want != exitOK && strings.Count(stderr, "\n") != 1 {
		ts.Fatalf("want one line on standard error, got %q", stderr)
	}
}

// cmdOrigin starts a registry with the image shoal/demo:latest.
func cmdOrigin(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: origin")
	}
	registry := origintest.New(origintest.Options{})
	image := registry.AddImage("shoal/demo", "latest", origintest.Image{Seed: 3, Layers: origintest.Layers(3_000_000, 1000)})
	s, err := origintest.Listen("127.0.0.1:0", registry)
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Setenv("ORIGIN", s.URL)
	ts.Setenv("INDEX", image.Index.Digest.String())
	ts.Setenv("MANIFEST", image.Platforms[0].Manifest.Digest.String())
	ts.Setenv("LAYER", image.Platforms[0].Layers[0].Digest.String())
}

// cmdReady waits for the node with that data directory.
func cmdReady(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ready DIR")
	}
	var l runfile.Listening
	eventually(ts, "listening", func() (ok bool) {
		var err error
		l, err = runfile.Read(ts.MkAbs(args[0]))
		return err == nil
	})
	eventually(ts, "ready", func() bool {
		code, _, err := get("http://" + l.Admin + "/readyz")
		return err == nil && code == http.StatusOK
	})
	ts.Setenv("MIRROR", l.Mirror)
	ts.Setenv("ADMIN", l.Admin)
	ts.Setenv("ADDR", l.Addrs[0])
	ts.Setenv("ID", l.ID)
	addr, err := multiaddr.NewMultiaddr(l.Addrs[0])
	ts.Check(err)
	port, err := addr.ValueForProtocol(multiaddr.P_TCP)
	ts.Check(err)
	ts.Setenv("SWARMPORT", port)
}

// cmdCached waits for a blob to be whole and proven on disk.
func cmdCached(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: cached DIR DIGEST")
	}
	path := filepath.Join(ts.MkAbs(args[0]), "blobs", strings.ReplaceAll(args[1], ":", "/"))
	eventually(ts, path, func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
}

// cmdGet makes a request and checks the status and, if given, the digest of
// the body.
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: get STATUS URL [DIGEST]")
	}
	code, body, err := get(args[1])
	ts.Check(err)
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("status %d, want %s: %s", code, args[0], body)
	}
	sum := sha256.Sum256(body)
	if got := "sha256:" + hex.EncodeToString(sum[:]); len(args) == 3 && got != args[2] {
		ts.Fatalf("%d bytes with digest %s", len(body), got)
	}
	if utf8.Valid(body) {
		_, err = ts.Stdout().Write(body)
		ts.Check(err)
	}
}

func get(url string) (int, []byte, error) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// sends returns the command that sends a signal to the background programs.
func sends(signal syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 0 {
			ts.Fatalf("no arguments are wanted")
		}
		for _, cmd := range ts.BackgroundCmds() {
			if err := cmd.Process.Signal(signal); !errors.Is(err, os.ErrProcessDone) {
				ts.Check(err)
			}
		}
	}
}

// cmdWritten waits for a program to write something.
func cmdWritten(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: written FILE REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	eventually(ts, args[1], func() bool {
		text, err := os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && want.Match(text)
	})
}

// cmdGone looks for processes that were left behind.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone TEXT")
	}
	eventually(ts, "processes are gone", func() bool {
		lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
		ts.Check(err)
		return !slices.ContainsFunc(lines, func(line string) bool {
			// A process that cannot be read has ended meanwhile.
			text, err := os.ReadFile(line)
			return err == nil && strings.Contains(string(text), args[0])
		})
	})
}
