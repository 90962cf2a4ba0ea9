// Package sockets is the load lab's part for connections: what a core process pays for
// many of them that are idle, and for pings.
//
// [Run] registers users with a conversation each, opens connections from several loopback
// addresses (one address has some 28,000 ports), each logged in, greeted and resumed, and
// then pings them at a rate. What the processes use is asked of their admin interface
// after a collection: before, idle, and after the pings. Kernel memory, which is not in a
// process's RSS, is read of the machine and said apart; it has both ends.
//
// The clients are in this process, on gorilla/websocket: a goroutine and 512 bytes to read
// into for each. What they cost is not in any figure, but they share the machine's CPUs, so
// ping times are of both. core/bench compares the same with other servers, in processes of
// their own and without core's store; this is the product as it runs.
//
// Connections are bounded by what a process may open (`ulimit -Hn`): more are refused with
// that number, before anything is opened.
package sockets
