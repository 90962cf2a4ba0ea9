package engine

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
)

// frameSize is how much of a result goes into one compressed block.
const frameSize = 1 << 20

// output writes a result, compressed as the client asked: ClickHouse's block framing
// or gzip.
type output struct {
	w       http.ResponseWriter
	gz      *gzip.Writer
	blocks  *compress.Writer
	started bool // bytes have been written: the status can no longer change
}

func newOutput(w http.ResponseWriter, r request, acceptEncoding string) *output {
	o := &output{w: w}
	switch {
	case r.compress && r.method == "ZSTD":
		o.blocks = compress.NewWriter(0, compress.ZSTD)
	case r.compress && r.method == "NONE":
		o.blocks = compress.NewWriter(0, compress.None)
	case r.compress:
		o.blocks = compress.NewWriter(0, compress.LZ4)
	case strings.Contains(acceptEncoding, "gzip"):
		o.gz = gzip.NewWriter(w)
	}
	return o
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	if !o.started && o.gz != nil {
		o.w.Header().Set("Content-Encoding", "gzip")
	}
	o.started = true
	switch {
	case o.blocks != nil:
		return o.writeBlocks(p)
	case o.gz != nil:
		return o.gz.Write(p)
	}
	return o.w.Write(p)
}

func (o *output) writeBlocks(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), frameSize)
		if err := o.blocks.Compress(p[:n]); err != nil {
			return written, err
		}
		if _, err := o.w.Write(o.blocks.Data); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, nil
}

// close ends the encoding.
func (o *output) close() error {
	if o.gz != nil && o.started {
		return o.gz.Close()
	}
	return nil
}

// abort tells of an error after the status has gone out: the exception in ClickHouse's
// in-band frame, then a connection cut short by a panic, so that no client takes the
// result for whole. It does not return.
func (o *output) abort(e *exception) {
	// clickhouse-go looks for the frame where decoding it as a block fails; were it so
	// short that decoding meets its end first, it would be taken for the result's end.
	frame := fmt.Appendf(nil, "\r\n__exception__\r\n%-512s\r\n", e.message)
	if o.gz != nil {
		_, _ = o.gz.Write(frame)
		_ = o.gz.Flush()
	} else {
		_, _ = o.w.Write(frame)
	}
	_ = http.NewResponseController(o.w).Flush()
	panic(http.ErrAbortHandler)
}
