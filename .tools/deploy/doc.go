// Package main checks what is in deploy with tools that would add hundreds of
// lines to the module of shoal: the Helm chart, by helm itself and by the types
// of Kubernetes' API. It has no program; "go test" is it.
package main

func main() {}
