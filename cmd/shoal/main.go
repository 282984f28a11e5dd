// Command shoal is the registry mirror and swarm member that runs on each
// machine.
package main

func main() {}
