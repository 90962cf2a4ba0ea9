// Package freeport finds addresses for processes that are started next. It is a leaf.
package freeport

import (
	"fmt"
	"net"
)

// On is an address of a host that nobody listened on just now. Another process may take it
// before it is listened on; then whoever was to listen does not start, and another is drawn.
func On(host string) (addr string, err error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
