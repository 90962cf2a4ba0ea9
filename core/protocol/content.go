package protocol

import "time"

// File is what a message says of the file that it carries. Who sees the message may
// download it: GET /v1/files/{id}.
type File struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Type      string `json:"type"`             // MIME, found by the content
	Size      int64  `json:"size"`             // bytes
	Width     int    `json:"width,omitempty"`  // pixels, of an image
	Height    int    `json:"height,omitempty"` // as it is to be shown, turned where the camera was
	Thumbnail bool   `json:"thumbnail,omitempty"`
}

// FileLink is a file with an address to download it by, without a login.
type FileLink struct {
	File
	URL       string    `json:"url"` // may be relative to core's own address
	ExpiresAt time.Time `json:"expires_at"`
}

// FoundPage is what a search finds, newest first.
type FoundPage struct {
	Results []Found `json:"results"`
	Next    string  `json:"next,omitempty"` // cursor of the next page; empty at the end
}

// Found is a message that a search has found.
type Found struct {
	Message Message `json:"message"`
	// Snippet is the part of its text, or of its file's name, with what was looked for.
	Snippet []Piece `json:"snippet"`
}

// Piece is a piece of a text; those with Match are what was looked for.
type Piece struct {
	Text  string `json:"text"`
	Match bool   `json:"match,omitempty"`
}
