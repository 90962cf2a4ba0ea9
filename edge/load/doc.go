// Package load is the load lab: real clients drive the product through its edge, it is
// made to suffer, and what it promised is checked against what the clients saw.
//
//   - [Circle] breaks the pool that serves one traffic group and follows the way round:
//     fault, measurement, decision, routes, sockets, release.
//   - [Changes] makes a thousand changes of groups and policy while sockets are open.
//   - [Faults] kills parts in turn.
//   - [Decisions] plays ten faults and holds what is decided against what each asks for.
//   - edge/load/sockets opens many connections and says what one costs.
//   - edge/load/chat has a circle of its own, and breaks it wherever messages pass.
//
// All but the chat's run the same crowds: groups of users in direct conversations who send by
// WebSocket and REST and ask for history. Requests start by the clock, not when the
// one before has ended (an open loop), and latency counts from the moment a request
// was to start; a lab that waits for slow answers hides them ("coordinated omission").
//
// What is judged is kept apart from what is done. [Ledger], the summaries, the timeline
// and the promises are pure and tested by tables; crowds and adapters only collect. The
// ledger does not trust the client SDK: it is told every delivery and compares it with
// what was accepted and with the history, page by page, when all is quiet again.
//
// Samples are kept whole and sorted once at the end (some ten thousand in a minute)
// rather than in a histogram, whose buckets would blur the figures that promises are
// about. A bound on rate times duration keeps that honest ([Config.Validate]).
//
// The lab talks to loopback addresses only and refuses others: it is made to break what
// it is pointed at.
package load
