// Package e2e holds the end-to-end tests: shoal as it is shipped, between
// Debian's docker-registry and real container engines, on hosts made of
// network namespaces. It has no code of its own; package testhost makes the
// hosts and package program starts the programs.
//
// The tests need root and the programs that .ci/install-deps installs. Without
// root they are skipped and say so; as root a missing program is a failure.
package e2e
