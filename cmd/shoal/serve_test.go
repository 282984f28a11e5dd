package main

import (
	"os"
	"syscall"
	"testing"
)

func TestInterruptsAreCounted(t *testing.T) {
	stop, hurry, release := interrupts(t.Context())
	defer release()
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGTERM)
	<-stop.Done()
	if hurry.Err() != nil {
		t.Fatal("one signal counted twice")
	}
	signal(syscall.SIGINT)
	<-hurry.Done()
}

func TestReleaseEndsWaitingForInterrupts(t *testing.T) {
	stop, hurry, release := interrupts(t.Context())
	release()
	if stop.Err() == nil || hurry.Err() == nil {
		t.Error("contexts go on")
	}
}
