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

// newRandom is seeded by the host (WASI's random_get), so that no two VMs give the
// same ids.
func newRandom() (*rand.ChaCha8, error) {
	var seed [32]byte
	if _, err := cryptorand.Read(seed[:]); err != nil {
		return nil, fmt.Errorf("seed random numbers: %w", err)
	}
	return rand.NewChaCha8(seed), nil
}
