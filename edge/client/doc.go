// Package client is the Go SDK of core: it talks to the messaging API through the
// edge, by REST and by WebSocket (core/protocol), and hides what a network does.
//
// A [Client] is an address and a transport. [Client.Login] gives a [User], whose
// methods are the REST calls. [User.Session] gives a [Session]: one user's live
// connection, which reconnects, resumes and moves by itself.
//
// What it promises:
//   - Send is repeated under the same client id while the outcome is temporary or
//     unknown, so that it takes effect once; when it gives up without knowing,
//     the error is [ErrUnknownOutcome].
//   - Messages reach the callback in seq order of their conversation, each once,
//     however often the connection broke; what a connection missed is asked for by
//     resume positions, and what resume cannot give by paging the history. Where the
//     server has another history now, [Reset] says that all begins anew.
//   - A Reconnect push is handled make-before-break: the new connection is open and
//     resumed before the old one is closed, and replies still due on the old one are
//     waited for.
//   - Access tokens are short; a new one is got by the refresh token before the old one
//     ends, and when core says that it has ended. One session has one refresh token at a
//     time, so copies of a User share it.
//
// What it does not: keep messages (a callback that blocks holds back the socket,
// and the server closes a slow one with a resumable code), log in again when a session
// has ended, or choose a color (the edge does; Config.Header carries what it matches on).
//
// A connection costs one goroutine, its reader. There is no writer goroutine: a
// send is written by its caller under a mutex with a deadline. The alternative, a
// goroutine that owns all state and is fed by channels, was left because every
// message would cross two goroutines more and a blocked callback would then need a
// queue with a bound and a rule of its own; TCP has both.
//
// Callers: edge/load, edge/e2e, and programs of other people.
package client
