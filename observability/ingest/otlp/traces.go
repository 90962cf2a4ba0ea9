package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tracegate/tracegate/mesh/group"
	"github.com/tracegate/tracegate/observability/semconv"
	"github.com/tracegate/tracegate/observability/store"
)

// Attribute names of OpenTelemetry that become columns.
const (
	serviceName = "service.name"
	httpRoute   = "http.route"
)

// source is what all spans of one resource and scope share.
type source struct {
	service, scopeName, scopeVersion string
	resource                         map[string]string
}

// message says that the fields of a message that are read are all text, bytes or messages;
// spanTypes and the like are for those of several types.
func message(protowire.Number) protowire.Type { return protowire.BytesType }

// traces is the conversion of one message.
type traces struct {
	Converter
	r      *Result
	now    time.Time
	groups map[group.Group]group.ID // of this message: an id is a hash
}

// Traces turns the spans of an ExportTraceServiceRequest into rows. It fails where that is
// no such message. Rows share its memory.
func (c Converter) Traces(raw string, now time.Time) (*Result, error) {
	t := traces{Converter: c, r: newResult(Traces), now: now, groups: map[group.Group]group.ID{}}
	return t.r, fields(raw, message, func(f field) error {
		if f.num == 1 {
			return t.resourceSpans(f.text)
		}
		return nil
	})
}

func (t *traces) resourceSpans(m string) error {
	src := source{resource: map[string]string{}}
	var scopes []string // the resource may stand behind them
	err := fields(m, message, func(f field) error {
		switch f.num {
		case 1:
			return fields(f.text, message, func(f field) error {
				if f.num == 1 {
					return t.attribute(src.resource, f.text)
				}
				return nil
			})
		case 2:
			scopes = append(scopes, f.text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	src.service = t.r.clip(src.resource[serviceName], t.Limits.Name)
	for _, scope := range scopes {
		if err := t.scopeSpans(src, scope); err != nil {
			return err
		}
	}
	return nil
}

func (t *traces) scopeSpans(src source, m string) error {
	var spans []string
	err := fields(m, message, func(f field) error {
		switch f.num {
		case 1:
			return fields(f.text, message, func(f field) (err error) {
				switch f.num {
				case 1:
					src.scopeName, err = t.name(f)
				case 2:
					src.scopeVersion, err = t.name(f)
				}
				return err
			})
		case 2:
			spans = append(spans, f.text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.r.Spans = slices.Grow(t.r.Spans, len(spans))
	for _, m := range spans {
		n := len(t.r.Spans)
		t.r.Spans = append(t.r.Spans, store.Span{})
		row := &t.r.Spans[n] // filled where it stays: it is large
		s, err := t.read(row, m)
		if err != nil {
			return err
		}
		t.r.Received++
		if reason := t.span(row, src, s); reason != "" {
			t.r.Dropped[reason]++
			t.r.Spans = t.r.Spans[:n]
		}
	}
	return nil
}

func (t *traces) name(f field) (string, error) {
	s, err := utf8Text(f)
	return t.r.clip(s, t.Limits.Name), err
}

// value is text of any length.
func (t *traces) value(f field) (string, error) {
	s, err := utf8Text(f)
	return t.r.clip(s, t.Limits.Value), err
}

// wireSpan is what of a span as it was sent needs further thought.
type wireSpan struct {
	traceID, spanID, parentID string // bytes
	start, end                uint64
}

func spanTypes(n protowire.Number) protowire.Type {
	switch n {
	case 6, 10, 12, 14:
		return protowire.VarintType
	case 7, 8:
		return protowire.Fixed64Type
	case 16:
		return protowire.Fixed32Type
	}
	return protowire.BytesType
}

// read fills in what needs none.
func (t *traces) read(row *store.Span, m string) (s wireSpan, err error) {
	row.Kind, row.Status, row.Attributes = kind(0), status(0), make(map[string]string, attributesHint)
	err = fields(m, spanTypes, func(f field) (err error) {
		switch f.num {
		case 1:
			s.traceID = f.text
		case 2:
			s.spanID = f.text
		case 3:
			row.TraceState, err = t.value(f)
		case 4:
			s.parentID = f.text
		case 5:
			row.Name, err = t.name(f)
		case 6:
			row.Kind = kind(tracev1.Span_SpanKind(f.value))
		case 7:
			s.start = f.value
		case 8:
			s.end = f.value
		case 9:
			err = t.attribute(row.Attributes, f.text)
		case 11:
			err = t.event(row, f.text)
		case 13:
			err = t.link(row, f.text)
		case 15:
			row.Status, row.StatusText, err = t.status(f.text)
		}
		return err
	})
	return s, err
}

// attributesHint is how many attributes are made room for.
const attributesHint = 12

// span completes a row, or gives the reason why there is none.
func (t *traces) span(row *store.Span, src source, s wireSpan) Reason {
	traceID, spanID, parentID, reason := t.ids(s)
	if reason != "" {
		return reason
	}
	start, ok := nano(s.start)
	if !ok {
		return TooOld
	}
	if reason, late := t.late(start, t.now); late {
		return reason
	}
	row.Timestamp, row.TraceID, row.SpanID, row.ParentSpanID, row.Duration = start, traceID, spanID, parentID, t.r.duration(start, s.end)
	row.Service, row.Resource, row.ScopeName, row.ScopeVersion = src.service, src.resource, src.scopeName, src.scopeVersion
	either := func(key string) string {
		if v := row.Attributes[key]; v != "" {
			return v
		}
		return src.resource[key]
	}
	row.Traffic = t.placeKnown(traceID, either(semconv.Color), either(semconv.Env), either(semconv.Tenant), t.groups)
	row.Traffic.Service = src.service
	row.Traffic.Pool = t.r.clip(either(semconv.Pool), t.Limits.Name)
	row.Traffic.Entry = row.Attributes[semconv.Entry] == "true"
	row.Traffic.Route = t.r.clip(row.Attributes[httpRoute], t.Limits.Name)
	if row.Traffic.Route == "" && row.Traffic.Entry {
		row.Traffic.Route = row.Name
	}
	return ""
}

// ids are the three of a span in hex, parts of one string.
func (t *traces) ids(s wireSpan) (traceID, spanID, parentID string, reason Reason) {
	switch {
	case len(s.traceID) != 16 || zero(s.traceID):
		return "", "", "", BadTraceID
	case len(s.spanID) != 8 || zero(s.spanID):
		return "", "", "", BadSpanID
	}
	var raw [32]byte
	n := copy(raw[:], s.traceID)
	n += copy(raw[n:], s.spanID)
	if len(s.parentID) == 8 && !zero(s.parentID) {
		n += copy(raw[n:], s.parentID)
	} else if len(s.parentID) > 0 {
		t.r.Cut[CutParent]++
	}
	var digits [64]byte
	hex.Encode(digits[:], raw[:n])
	all := string(digits[:2*n])
	return all[:32], all[32:48], all[48:], ""
}

func zero(s string) bool { return strings.Trim(s, "\x00") == "" }

func (r *Result) duration(start time.Time, end uint64) time.Duration {
	t, ok := nano(end)
	if !ok || t.Before(start) {
		r.Cut[CutDuration]++
		return 0
	}
	return t.Sub(start)
}

func timeTypes(n protowire.Number) protowire.Type {
	if n == 1 {
		return protowire.Fixed64Type
	}
	return protowire.BytesType
}

func (t *traces) event(row *store.Span, m string) error {
	if len(row.Events) == t.Limits.Events {
		t.r.Cut[CutEvents]++
		return nil
	}
	e := store.Event{Timestamp: time.Unix(0, 0).UTC(), Attributes: map[string]string{}}
	err := fields(m, timeTypes, func(f field) (err error) {
		switch f.num {
		case 1:
			if at, ok := nano(f.value); ok {
				e.Timestamp = at
			}
		case 2:
			e.Name, err = t.name(f)
		case 3:
			err = t.attribute(e.Attributes, f.text)
		}
		return err
	})
	row.Events = append(row.Events, e)
	return err
}

func (t *traces) link(row *store.Span, m string) error {
	l := store.Link{Attributes: map[string]string{}}
	var okTrace, okSpan bool
	err := fields(m, message, func(f field) (err error) {
		switch f.num {
		case 1:
			l.TraceID, okTrace = id([]byte(f.text), 16)
		case 2:
			l.SpanID, okSpan = id([]byte(f.text), 8)
		case 3:
			l.TraceState, err = t.value(f)
		case 4:
			err = t.attribute(l.Attributes, f.text)
		}
		return err
	})
	if !okTrace || !okSpan || len(row.Links) == t.Limits.Links {
		t.r.Cut[CutLinks]++
		return err
	}
	row.Links = append(row.Links, l)
	return err
}

func statusTypes(n protowire.Number) protowire.Type {
	if n == 3 {
		return protowire.VarintType
	}
	return protowire.BytesType
}

func (t *traces) status(m string) (code, text string, err error) {
	code = status(0)
	err = fields(m, statusTypes, func(f field) (err error) {
		switch f.num {
		case 2:
			text, err = t.value(f)
		case 3:
			code = status(tracev1.Status_StatusCode(f.value))
		}
		return err
	})
	return code, text, err
}

// attribute adds a KeyValue to attrs. The first of a repeated key wins.
func (t *traces) attribute(attrs map[string]string, m string) error {
	var key, value string
	err := fields(m, message, func(f field) (err error) {
		switch f.num {
		case 1:
			key, err = utf8Text(f)
		case 2:
			value, err = anyText(f.text)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.r.put(attrs, key, value, t.Limits)
	return nil
}

func anyTypes(n protowire.Number) protowire.Type {
	switch n {
	case 2, 3:
		return protowire.VarintType
	case 4:
		return protowire.Fixed64Type
	}
	return protowire.BytesType
}

// anyText is an AnyValue as [text] writes it; the last of its fields counts.
func anyText(m string) (value string, err error) {
	err = fields(m, anyTypes, func(f field) (err error) {
		switch f.num {
		case 1:
			value, err = utf8Text(f)
		case 2:
			value = strconv.FormatBool(f.value != 0)
		case 3:
			value = strconv.FormatInt(int64(f.value), 10)
		case 4:
			value = strconv.FormatFloat(double(f.value), 'g', -1, 64)
		case 7:
			value = base64.StdEncoding.EncodeToString([]byte(f.text))
		case 5, 6: // a list or a map: rare, and written as JSON
			var v commonv1.AnyValue
			if err := proto.Unmarshal([]byte(m), &v); err != nil {
				return fmt.Errorf("attribute: %w", err)
			}
			value = text(&v)
		}
		return err
	})
	return value, err
}

// kind and status are spelled as the collector's exporter does.
func kind(k tracev1.Span_SpanKind) string {
	switch k {
	case tracev1.Span_SPAN_KIND_INTERNAL:
		return "Internal"
	case tracev1.Span_SPAN_KIND_SERVER:
		return "Server"
	case tracev1.Span_SPAN_KIND_CLIENT:
		return "Client"
	case tracev1.Span_SPAN_KIND_PRODUCER:
		return "Producer"
	case tracev1.Span_SPAN_KIND_CONSUMER:
		return "Consumer"
	}
	return "Unspecified"
}

func status(c tracev1.Status_StatusCode) string {
	switch c {
	case tracev1.Status_STATUS_CODE_OK:
		return "Ok"
	case tracev1.Status_STATUS_CODE_ERROR:
		return "Error"
	}
	return "Unset"
}
