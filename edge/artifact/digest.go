package artifact

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// verify reads the file and compares; a mismatch is [ErrChecksum].
func verify(path, digest string) error {
	h, want, err := parseDigest(digest)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := h.Sum(nil); string(got) != string(want) {
		return fmt.Errorf("%w: want %x, got %x", ErrChecksum, want, got)
	}
	return nil
}

func parseDigest(s string) (hash.Hash, []byte, error) {
	if v, ok := strings.CutPrefix(s, "sha256:"); ok {
		sum, err := hex.DecodeString(v)
		if err != nil || len(sum) != sha256.Size {
			return nil, nil, fmt.Errorf("digest %q: want 64 hex digits", s)
		}
		return sha256.New(), sum, nil
	}
	if v, ok := strings.CutPrefix(s, "sha512-"); ok {
		sum, err := base64.StdEncoding.DecodeString(v)
		if err != nil || len(sum) != sha512.Size {
			return nil, nil, fmt.Errorf("digest %q: want 64 bytes in base64", s)
		}
		return sha512.New(), sum, nil
	}
	return nil, nil, errors.New("digest: want sha256:<hex> or sha512-<base64>")
}
