// Package chat is the load lab's part for messaging: it checks what core promises about
// messages, with users who are connected to several processes by several devices each.
//
//   - [Scenarios] asks for one promise after the other, in seconds: order, exactly once to
//     the reader, what a resume brings, devices that converge, presence, close codes,
//     groups, edits and recalls.
//   - [Faults] has users chat for a while, during which parts are killed and networks are
//     made bad, as a seed says. What was acknowledged must then be stored, and delivered
//     to each device once, in order and without a gap.
//
// Devices are no clients of the SDK. They hold core to what it says of the wire: on each
// connection the entries after the position that was resumed from, each once and in order;
// an SDK would put in order what is not. They come in by the edge and by each process
// directly, hang up without notice, and come back elsewhere.
//
// What was seen is kept in a [Book], which is pure and judges at the end, when all is quiet
// again. It trusts neither the devices, nor the store, nor the answers: each is held
// against the others.
//
// A seed gives the order of faults and what users do, not the moment at which a packet
// meets a fault; a run cannot be repeated to the microsecond, but its faults can.
//
// The package does not start anything: who calls it says where core is, and how to make
// trouble ([Fault]).
package chat
