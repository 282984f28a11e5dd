package demo

import "syscall"

// attributes of a node's process: nothing stays if the demo itself is killed.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
