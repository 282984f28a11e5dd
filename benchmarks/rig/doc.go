// Package rig is what the programs that measure have in common: what the
// computer is and what it is busy with, memory that is warm before a clock
// starts, the turns in which contenders run, medians, nginx, and a client that
// keeps nothing of what it gets. It knows no scenario and no promise.
//
// It has no goroutines of its own; processes belong to their hosts.
package rig

import "slices"

// Machine is the computer on which everything ran.
type Machine struct {
	CPUs   int     `json:"cpus"`
	Model  string  `json:"model"`
	Memory int64   `json:"memory_bytes"`
	Kernel string  `json:"kernel"`
	Go     string  `json:"go"`
	Load   float64 `json:"load"` // average of the minute before the first run
	// Data is where what is stored comes to lie: tmpfs, or a file system's type.
	Data string `json:"data"`
	// WriteCPU is the processor seconds per gigabyte that any program pays for
	// writing new files there.
	WriteCPU float64 `json:"write_cpu"`
}

// Load is what the computer was busy with while a clock ran, as shares of all
// its processors.
type Load struct {
	CPUs   int     `json:"cpus"`
	Busy   float64 `json:"busy"`   // with anything
	Others float64 `json:"others"` // with programs that are not the benchmark's
	Steal  float64 `json:"steal"`  // taken by the host of a virtual machine
}

// Turns returns the contenders in the order of a round, from 1 on: another one
// begins in each, so that nobody always runs after the same one.
func Turns[C any](contenders []C, round int) []C {
	if len(contenders) == 0 {
		return nil
	}
	first := (round - 1) % len(contenders)
	return slices.Concat(contenders[first:], contenders[:first])
}
