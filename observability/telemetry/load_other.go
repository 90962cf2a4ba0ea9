//go:build !unix

package telemetry

import "time"

// processTime grows smaller, so that it makes no share of anything: nobody knows it here.
func processTime() time.Duration { return -time.Duration(time.Now().UnixNano()) }
