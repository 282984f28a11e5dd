package main

import (
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"shoal": main})
}

// TestScripts runs testdata/script: what each verb prints, writes and exits
// with. Beyond the standard commands there are
//
//	exit CODE WORDS...       runs shoal WORDS and wants that exit code and, if
//	                         it is not 0, one line on standard error
//	origin                   starts a registry with the image shoal/demo:latest
//	                         and sets ORIGIN, INDEX, MANIFEST and LAYER
//	ready DIR                waits for the node with that data directory, and
//	                         sets MIRROR, ADMIN, ADDR, SWARMPORT and ID
//	cached DIR DIGEST        waits until the node there has committed the blob
//	get STATUS URL [DIGEST]  wants that answer
//	written FILE REGEXP      waits until the file matches
//	gone TEXT                waits until no process has the text in its command
//	                         line
//	term, hangup             send SIGTERM and SIGHUP to all background programs
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit": cmdExit, "origin": cmdOrigin, "ready": cmdReady, "cached": cmdCached, "written": cmdWritten, "gone": cmdGone, "get": cmdGet, "term": sends(syscall.SIGTERM), "hangup": sends(syscall.SIGHUP),
		},
	})
}
