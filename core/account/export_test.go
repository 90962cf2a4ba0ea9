package account

import "testing"

// Occupy takes a turn to hash and returns what gives it back.
func Occupy(t *testing.T, s *Service) (leave func()) {
	t.Helper()
	leave, err := s.gate.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return leave
}

// Decoy is the hash that unknown users are compared with.
func Decoy(t *testing.T, s *Service) string {
	t.Helper()
	h, err := s.decoy()
	if err != nil {
		t.Fatal(err)
	}
	return h
}
