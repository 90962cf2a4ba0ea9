package file

import (
	"errors"
	"io"
	"mime"
	"path"
	"slices"
	"strings"

	"github.com/gabriel-vasile/mimetype"

	"github.com/tracegate/tracegate/core/chat"
	"github.com/tracegate/tracegate/core/protocol"
)

// headSize is how much of a file decides what it is; mimetype looks at no more.
const headSize = 3072

// pictures are those that thumbnails are made of; browsers may show them.
var pictures = []string{"image/png", "image/jpeg", "image/gif", "image/webp"}

// documents are other types that are allowed if nothing else is said. Not among them is
// what runs (programs, HTML, SVG, scripts) and what cannot be told.
var documents = []string{
	"image/heic", "image/heif", "image/avif", "image/bmp", "image/tiff", "image/apng",
	"text/plain", "text/csv", "application/json", "application/pdf", "application/rtf", "text/rtf", "application/epub+zip",
	"application/zip", "application/gzip", "application/x-7z-compressed", "application/x-tar", "application/zstd", "application/ogg",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation",
	"application/vnd.oasis.opendocument.text", "application/vnd.oasis.opendocument.spreadsheet", "application/vnd.oasis.opendocument.presentation",
	"application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint",
}

// readHead reads what decides about the type.
func readHead(r io.Reader) ([]byte, error) {
	head := make([]byte, headSize)
	n, err := io.ReadFull(r, head)
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		return nil, protocol.NewError(protocol.CodeInvalidArgument, "file", "file must not be empty")
	case err == nil || errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errTooLarge):
		return head[:n], nil
	default:
		return nil, err
	}
}

// typeOf finds the MIME type by the content alone, without parameters, and says what is in
// the way where it is not allowed.
func (f *Files) typeOf(head []byte) (string, *protocol.Error) {
	found := baseType(mimetype.Detect(head).String())
	class, _, _ := strings.Cut(found, "/")
	if slices.Contains(f.cfg.Types, found) || slices.Contains(f.cfg.Types, class+"/*") {
		return found, nil
	}
	return "", protocol.NewError(protocol.CodeInvalidArgument, "file", "file is by its content "+found+", which is not allowed")
}

func baseType(full string) string {
	base, _, err := mime.ParseMediaType(full)
	if err != nil {
		return "application/octet-stream"
	}
	return base
}

// texts are endings that a text keeps: nothing runs by a double click on them.
var texts = []string{".txt", ".md", ".log", ".csv", ".tsv", ".json", ".yaml", ".yml", ".toml", ".xml", ".go", ".c", ".h", ".rs", ".sql", ".diff", ".patch", ".ini"}

// fileName is the name to save a file under. Its ending is one of the found type: what
// calls itself cv.exe and is a PDF becomes cv.exe.pdf.
func fileName(name, found string) string {
	name = chat.CleanFileName(name)
	ext := strings.ToLower(path.Ext(name))
	want := ""
	if m := mimetype.Lookup(found); m != nil {
		want = m.Extension()
	}
	switch {
	case ext == want && ext != "",
		strings.HasPrefix(found, "text/") && slices.Contains(texts, ext),
		ext != "" && baseType(mime.TypeByExtension(ext)) == found:
		return name
	}
	return chat.CleanFileName(name + want) // which may be too long by its ending
}
