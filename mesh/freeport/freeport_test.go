package freeport

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain lets the test run itself as another process that draws ports.
func TestMain(m *testing.M) {
	if os.Getenv("FREEPORT_DRAW") == "" {
		os.Exit(m.Run())
	}
	for range 200 {
		addr, err := On("127.0.0.1")
		if err != nil {
			panic(err)
		}
		println(addr)
	}
	println("end")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // holds them until the test ends
}

// TestNobodyGetsAPortTwice draws in three processes at once.
func TestNobodyGetsAPortTwice(t *testing.T) {
	had := map[string]bool{}
	var outs []*bufio.Scanner
	for range 2 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "FREEPORT_DRAW=1")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		outs = append(outs, bufio.NewScanner(out))
	}
	for range 200 {
		had[ForTest(t)] = true
	}
	for _, out := range outs {
		for out.Scan() && out.Text() != "end" {
			if had[out.Text()] || !strings.HasPrefix(out.Text(), "127.0.0.1:") {
				t.Errorf("%q given twice, or no address", out.Text())
			}
			had[out.Text()] = true
		}
	}
	if len(had) != 600 {
		t.Errorf("%d addresses, want 600", len(had))
	}
}

func TestRowIsFree(t *testing.T) {
	first, err := Row("127.0.0.1", 3, 2000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: first + i*2000})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if last := first + 4000; first < lowest || last > highest {
		t.Errorf("row from %d to %d", first, last)
	}
}

// TestOldestIsGivenBack draws more than are held.
func TestOldestIsGivenBack(t *testing.T) {
	for range kept + 10 {
		ForTest(t)
	}
	if n := len(ports.held); n != kept {
		t.Errorf("%d held, want %d", n, kept)
	}
}
