package fault_test

import (
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tracegate/tracegate/core/fault"
)

func TestFaultEndsByItself(t *testing.T) {
	now := time.Unix(1000, 0)
	i := fault.New(func() time.Time { return now })
	if d, fail := i.Roll(); d != 0 || fail {
		t.Error("trouble before any was set")
	}
	i.Set(fault.Fault{Latency: time.Second, ErrorRatio: 1, For: time.Minute})
	if d, fail := i.Roll(); d != time.Second || !fail {
		t.Errorf("got %v, %v", d, fail)
	}
	now = now.Add(time.Minute + 1)
	if d, fail := i.Roll(); d != 0 || fail {
		t.Error("trouble after its end")
	}
	i.Set(fault.Fault{Latency: time.Second, For: time.Minute})
	i.Clear()
	if d, _ := i.Roll(); d != 0 {
		t.Error("trouble after it was cleared")
	}
}

func TestDependencyIsDialed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := fault.New(time.Now)
	if err := i.Dial(t.Context()); err != nil {
		t.Errorf("no fault is on: %v", err)
	}
	i.Set(fault.Fault{Dial: l.Addr().String(), For: time.Minute})
	if err := i.Dial(t.Context()); err != nil {
		t.Error(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close()
	if err := i.Dial(t.Context()); err == nil {
		t.Error("nobody listens, and Dial does not mind")
	}
}

func TestErrorRatioIsMet(t *testing.T) {
	i := fault.New(time.Now)
	i.Set(fault.Fault{ErrorRatio: 0.3, For: time.Minute})
	failed := 0
	for range 10_000 {
		if _, fail := i.Roll(); fail {
			failed++
		}
	}
	if failed < 2500 || failed > 3500 { // ten standard deviations
		t.Errorf("%d of 10000 failed", failed)
	}
}

func TestValidateNamesTheField(t *testing.T) {
	ok := fault.Fault{Latency: time.Second, ErrorRatio: 0.5, For: time.Minute}
	if err := ok.Validate(); err != nil {
		t.Error(err)
	}
	for want, edit := range map[string]func(*fault.Fault){
		"latency_ms: must":      func(f *fault.Fault) { f.Latency = -1 },
		"latency_ms: or":        func(f *fault.Fault) { f.Latency, f.ErrorRatio = 0, 0 },
		"error_ratio: must":     func(f *fault.Fault) { f.ErrorRatio = 1.1 },
		"dial: must be a loopb": func(f *fault.Fault) { f.Dial = "192.0.2.1:80" },
		"dial: must":            func(f *fault.Fault) { f.Dial = "127.0.0.1" },
		"error_ratio: must b":   func(f *fault.Fault) { f.ErrorRatio = math.NaN() },
		"for_ms: must":          func(f *fault.Fault) { f.For = time.Hour },
	} {
		f := ok
		edit(&f)
		if err := f.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
