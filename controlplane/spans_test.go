package controlplane

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/tracegate/tracegate/controlplane/decide"
	"github.com/tracegate/tracegate/controlplane/xds"
)

func TestDecisionsAreTracedFromDecisionToAcknowledgement(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tracer := tracer(sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)))
	decided := time.Unix(1000, 0)
	p := &programming{
		snapshot: &xds.Snapshot{Version: "v1"}, since: decided.Add(time.Millisecond),
		decisions: []decide.Decision{{ID: "d1", Action: decide.Isolate, Time: decided, Group: "78fdd2", By: decide.ByPolicy, ToPool: "isolated"}},
	}
	traceProgrammed(tracer, p, decided.Add(9*time.Millisecond))
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "carry out isolate" || got[1].Name != "program edges" {
		t.Fatalf("spans: %+v", got)
	}
	if took := got[0].EndTime.Sub(got[0].StartTime); took != 9*time.Millisecond {
		t.Errorf("the decision took %v", took)
	}
	if took := got[1].EndTime.Sub(got[1].StartTime); took != 8*time.Millisecond {
		t.Errorf("programming took %v", took)
	}
	if got[0].Parent.SpanID() != got[1].SpanContext.SpanID() {
		t.Error("the decision is not part of the programming that carries it")
	}
}
