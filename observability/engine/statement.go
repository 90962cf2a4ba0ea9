package engine

import "strings"

// kind is how a statement can be run: the engine streams reads and inserts, and
// buffers the result of everything else.
type kind string

const (
	kindRead   kind = "read"   // SELECT, WITH
	kindInsert kind = "insert" // INSERT INTO ... FORMAT x, without inline data
	kindOther  kind = "other"
)

// statement is SQL as far as it must be understood here.
type statement struct {
	kind kind
	// head is the text up to a trailing FORMAT clause; format is that clause's name.
	head, format string
}

// parseStatement looks at the first keyword and a FORMAT clause at the end. It never
// fails: what it does not recognize is kindOther, and the engine judges it.
func parseStatement(sql string) statement {
	s := statement{kind: kindOther, head: sql}
	trimmed := strings.TrimRight(sql, " \t\r\n;")
	if i := strings.LastIndexAny(trimmed, " \t\r\n"); i > 0 {
		before := strings.TrimRight(trimmed[:i], " \t\r\n")
		if n := len(before); n >= 6 && strings.EqualFold(before[n-6:], "FORMAT") && (n == 6 || !isWord(before[n-7])) && isName(trimmed[i+1:]) {
			s.head, s.format = before[:n-6], trimmed[i+1:]
		}
	}
	switch word := firstWord(sql); {
	case strings.EqualFold(word, "SELECT"), strings.EqualFold(word, "WITH"):
		s.kind = kindRead
	case strings.EqualFold(word, "INSERT") && s.format != "":
		s.kind = kindInsert
	}
	return s
}

// firstWord skips space, comments and opening brackets.
func firstWord(sql string) string {
	for {
		sql = strings.TrimLeft(sql, " \t\r\n(")
		var end string
		switch {
		case strings.HasPrefix(sql, "--"), strings.HasPrefix(sql, "#!"):
			end = "\n"
		case strings.HasPrefix(sql, "/*"):
			end = "*/"
		default:
			n := 0
			for n < len(sql) && isWord(sql[n]) {
				n++
			}
			return sql[:n]
		}
		_, rest, ok := strings.Cut(sql[2:], end)
		if !ok {
			return ""
		}
		sql = rest
	}
}

func isName(s string) bool {
	for i := range len(s) {
		if !isWord(s[i]) {
			return false
		}
	}
	return s != ""
}

func isWord(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z'
}
