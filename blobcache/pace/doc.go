// Package pace keeps what passes to a number of bytes a second: rules that say
// which rate counts at which hour, a limiter that shares it out, and a reader
// that keeps to it. It knows nothing of what the bytes are, and does no I/O of
// its own.
//
// # What always holds
//
// Over any time t not more than rate*(t+0.1 s) bytes are let through (or 4 KiB
// more, if that is more), and as many while somebody waits. What is let through
// at once is small: each of those who wait gets a part of what passes in 25 ms,
// so that everybody has some bytes every few hundred milliseconds, however many
// they are, and nobody takes a sender that is limited for a dead one. What is not
// next in the order of its flow gets 1 KiB each 200 ms.
//
// Flows that wait share the rate: each gets the same (start-time fair queueing,
// Goyal, Vin and Cheng, SIGCOMM 1996), however many wait in its name. All that
// is done in the background is one flow together, which gets a quarter of what
// one flow of the foreground gets.
//
// A Limiter has no goroutine but that of a timer, which runs while somebody
// waits.
package pace
