package search

import (
	"cmp"
	"slices"
	"unicode/utf8"

	"github.com/tracegate/tracegate/core/protocol"
)

// What a snippet has of a text, in bytes.
const (
	snippetSize   = 240
	snippetBefore = 60
)

// matches says whether a text has what is looked for, and where: ranges of bytes.
func matches(terms []term, phrases []phrase) (spans [][2]int, ok bool) {
	for _, p := range phrases {
		places := p.places(terms)
		if (len(places) > 0) == p.not {
			return nil, false
		}
		for _, at := range places {
			end := 0
			for _, t := range terms[at : at+len(p.terms)] {
				end = max(end, t.end)
			}
			spans = append(spans, [2]int{terms[at].start, end})
		}
	}
	return merge(spans), true
}

// merge joins ranges that overlap.
func merge(spans [][2]int) [][2]int {
	slices.SortFunc(spans, func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	var out [][2]int
	for _, s := range spans {
		if n := len(out); n > 0 && s[0] <= out[n-1][1] {
			out[n-1][1] = max(out[n-1][1], s[1])
			continue
		}
		out = append(out, s)
	}
	return out
}

// snippet cuts the part of a text out in which the first match stands.
func snippet(text string, spans [][2]int) []protocol.Piece {
	from, to := 0, len(text)
	if len(spans) > 0 && to > snippetSize {
		from = boundary(text, max(0, min(spans[0][0]-snippetBefore, to-snippetSize)))
	}
	to = boundary(text, min(to, from+snippetSize))
	var out []protocol.Piece
	add := func(piece string, match bool) {
		if piece != "" {
			out = append(out, protocol.Piece{Text: piece, Match: match})
		}
	}
	at := from
	if from > 0 {
		add("…", false)
	}
	for _, s := range spans {
		start, end := min(max(s[0], at), to), min(s[1], to)
		if end <= start {
			continue
		}
		add(text[at:start], false)
		add(text[start:end], true)
		at = end
	}
	add(text[at:to], false)
	if to < len(text) {
		add("…", false)
	}
	return out
}

// boundary moves back to where a character begins.
func boundary(text string, at int) int {
	for at > 0 && at < len(text) && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}
