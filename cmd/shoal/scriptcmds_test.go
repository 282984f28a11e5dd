package main

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

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
