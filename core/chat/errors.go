package chat

import "errors"

// What a store may answer besides being out of reach. Any other error of a store is
// taken as temporary.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrLimit    = errors.New("limit reached")
	// ErrUnstorable says that the data itself was refused: trying again cannot help.
	ErrUnstorable = errors.New("refused by the database")
)
