// Package coretest is core and its edge in memory, for tests of clients: it speaks
// core/protocol and the REST API as core does, gives groups and pools by a function
// instead of a filter, and can misbehave at chosen moments (connections cut before or
// after a message is taken, pushes doubled, reordered, lost or slow, pools that are
// slow or fail).
//
// It keeps nothing and checks no password; it is no substitute for tests against the
// real core, which edge/e2e and `tracegate load circle` are.
package coretest
