package file

import (
	"context"
	"errors"
	"io"
)

var (
	errSlow  = errors.New("it takes too long")
	errScans = errors.New("it has too many scans")
)

const (
	portion = 512     // bytes
	minScan = 1 << 12 // pixels; a scan of fewer takes as long
)

// portions reads a picture for its decoder. What is small may keep that busy for long: in a
// progressive JPEG some 30 bytes are a scan, which passes over all of the picture. So a
// decoder gets little at a time, nothing after the end of ctx, and no more scans than fit.
type portions struct {
	ctx  context.Context //nolint:containedctx // as in cancelable
	r    io.Reader
	scan int64 // pixels of one; 0 where there are none
	left int64 // pixels that may be passed over
	last byte
}

func (p *portions) Read(b []byte) (int, error) {
	if p.ctx.Err() != nil {
		return 0, context.Cause(p.ctx)
	}
	n, err := p.r.Read(b[:min(len(b), portion)])
	if p.scan == 0 {
		return n, err
	}
	for _, c := range b[:n] {
		if p.last == 0xff && c == 0xda { // a scan begins; inside of one, a zero comes after 0xff
			p.left -= p.scan
		}
		p.last = c
	}
	if p.left < 0 {
		return 0, errScans
	}
	return n, err
}
