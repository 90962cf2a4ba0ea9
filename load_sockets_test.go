package main

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/tracegate/tracegate/edge/load/sockets"
)

// TestLoadSockets opens connections to the product as it runs, and holds it to what
// stack a connection's reader has there: 2 KB, and not the 4 that Go would give it.
func TestLoadSockets(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product")
	}
	p := newProduct(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := p.command(ctx, "load", "sockets", "-o", "json", "--connections", "500", "--per-user", "16", "--pings", "500", "--duration", "1s")
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = blockingInput(t), &out, &errOut
	err := cmd.Run()
	var r sockets.Report
	if jerr := json.Unmarshal(out.Bytes(), &r); jerr != nil || err != nil || !r.OK {
		t.Fatalf("%v, %v: %s\n%s", err, jerr, out.String(), errOut.String())
	}
	if r.Opened.Connections != 500 || r.Pings.Answered != 500 || r.Memory.Stacks > 3 {
		t.Errorf("%+v", r)
	}
}

func TestLoadSocketsRefuses(t *testing.T) {
	var out, errOut bytes.Buffer
	cmd := newCommand(&out, &errOut)
	cmd.SetArgs([]string{"load", "sockets", "--through", "wall"})
	if err := cmd.ExecuteContext(t.Context()); err == nil || err.Error() != `through: "wall" is neither core nor edge` {
		t.Errorf("got %v", err)
	}
}
