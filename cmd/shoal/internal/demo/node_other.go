//go:build !linux

package demo

import "syscall"

// attributes of a node's process: here it stays if the demo itself is killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
