package main

import (
	"bytes"
	cryptorand "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/tracegate/tracegate/wasm/color"
)

// compile reads a policy. Nothing at all is the zero policy; a field that this
// filter does not know is an error, since it may have been meant to restrict.
func compile(raw []byte) (*color.Assigner, error) {
	var p color.Policy
	if len(bytes.TrimSpace(raw)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&p); err != nil {
			return nil, fmt.Errorf("read policy: %w", err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, errors.New("read policy: something follows it")
		}
	}
	return color.Compile(p)
}

// randomness is drawn in stock: most requests then only move on to the next.
type randomness struct {
	source *rand.ChaCha8
	stock  [64]color.Random
	used   int
}

// newRandom is seeded by the host (WASI's random_get), so that no two VMs give the
// same ids.
func newRandom() (*randomness, error) {
	var seed [32]byte
	if _, err := cryptorand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("seed random numbers: %w", err)
	}
	r := &randomness{source: rand.NewChaCha8(seed)}
	r.used = len(r.stock)
	return r, nil
}

// next is valid until the stock is used up: for one request.
func (r *randomness) next() *color.Random {
	if r.used == len(r.stock) {
		r.draw()
	}
	r.used++
	return &r.stock[r.used-1]
}

//go:noinline
func (r *randomness) draw() {
	for i := range r.stock {
		_, _ = r.source.Read(r.stock[i][:]) // never fails
	}
	r.used = 0
}
