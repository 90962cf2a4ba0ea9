package search

import (
	"strings"
	"unicode"

	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/lang/cjk"
	"github.com/blevesearch/bleve/v2/analysis/token/lowercase"
	unicodetokens "github.com/blevesearch/bleve/v2/analysis/tokenizer/unicode"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"
)

// term is a word of a text, or a character or a pair of characters where words are not
// kept apart by spaces.
type term struct {
	text       string
	start, end int // bytes of the text
}

// analyze takes a text apart, the same way for what is searched and what is searched for:
// words by Unicode's rules, without case, width and, in Latin script, accents; Chinese,
// Japanese and Korean in single characters and pairs of them, each character followed by
// the pair that begins with it. So what stands side by side in a query stands side by
// side in a text that has it.
func analyze(text string) []term {
	tokens := unicodetokens.NewUnicodeTokenizer().Tokenize(spaced(text))
	for _, f := range []analysis.TokenFilter{
		hangul{}, cjk.NewCJKWidthFilter(), lowercase.NewLowerCaseFilter(), fold{}, cjk.NewCJKBigramFilter(true),
	} {
		tokens = f.Filter(tokens)
	}
	out := make([]term, 0, len(tokens))
	for _, t := range tokens {
		// Marks are no words, and the indexed form is taken apart at spaces.
		if word := string(t.Term); len(word) <= maxTerm && strings.IndexFunc(word, isWord) >= 0 && strings.IndexFunc(word, unicode.IsSpace) < 0 {
			out = append(out, term{text: word, start: t.Start, end: t.End})
		}
	}
	return out
}

// spaced has spaces where names of files and hosts have marks that Unicode takes as a part
// of a word: who looks for plan finds plan.txt. Numbers keep theirs, and all its place.
func spaced(text string) []byte {
	b := []byte(text)
	digit := func(i int) bool { return i >= 0 && i < len(b) && '0' <= b[i] && b[i] <= '9' }
	for i, c := range b {
		number := digit(i-1) && digit(i+1)
		if !number && (c == '.' || c == '_' || c == ':') {
			b[i] = ' '
		}
	}
	return b
}

// maxTerm is in bytes; what is longer is no word.
const maxTerm = 256

func isWord(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r)
}

// joined is the form of a text in the index.
func joined(terms []term) string {
	var b strings.Builder
	for i, t := range terms {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(t.text)
	}
	return b.String()
}

// hangul has Korean words taken apart like Chinese ones: a particle at the end of a word
// would hide it otherwise.
type hangul struct{}

// Filter implements [analysis.TokenFilter].
func (hangul) Filter(in analysis.TokenStream) analysis.TokenStream {
	for _, t := range in {
		if t.Type == analysis.AlphaNumeric && strings.IndexFunc(string(t.Term), func(r rune) bool { return !unicode.Is(unicode.Hangul, r) }) < 0 {
			t.Type = analysis.Ideographic
		}
	}
	return in
}

// fold takes the accents off Latin letters. (Elsewhere marks make another letter.)
type fold struct{}

// Filter implements [analysis.TokenFilter].
func (fold) Filter(in analysis.TokenStream) analysis.TokenStream {
	for _, t := range in {
		word := string(t.Term)
		if strings.IndexFunc(word, func(r rune) bool { return r >= 0x80 && unicode.Is(unicode.Latin, r) || unicode.Is(unicode.Mn, r) }) < 0 ||
			strings.IndexFunc(word, func(r rune) bool { return unicode.IsLetter(r) && !unicode.Is(unicode.Latin, r) }) >= 0 {
			continue
		}
		plain, _, err := transform.String(transform.Chain(norm.NFKD, runes.Remove(runes.In(unicode.Mn)), norm.NFC), word)
		if err == nil {
			t.Term = []byte(plain)
		}
	}
	return in
}
