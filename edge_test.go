package main

import (
	"reflect"
	"testing"

	"github.com/tracegate/tracegate/edge/bootstrap"
)

// TestEdgeIsBounded: the limits of an edge are the configuration's, and by default those that
// edge/bootstrap has.
func TestEdgeIsBounded(t *testing.T) {
	cfg := defaultConfig()
	if got, want := edgeConfig(cfg).Bootstrap, bootstrap.DefaultConfig(); !reflect.DeepEqual(got, want) {
		t.Errorf("by default %+v, want %+v", got, want)
	}
	cfg.Edge.MaxHeapBytes, cfg.Edge.MaxConnections = 1<<28, 7
	if got := edgeConfig(cfg).Bootstrap; got.MaxHeapBytes != 1<<28 || got.MaxConnections != 7 {
		t.Errorf("%d bytes, %d connections", got.MaxHeapBytes, got.MaxConnections)
	}
}
