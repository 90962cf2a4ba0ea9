package chat_test

import (
	"strings"
	"testing"

	"github.com/tracegate/tracegate/core/chat"
)

func TestProfileChange(t *testing.T) {
	for _, c := range []struct {
		name, field, text string
		ok                bool
	}{
		{"a name", "display_name", "Ann 安", true},
		{"no name", "display_name", "", true},
		{"a name in two lines", "display_name", "a\nb", false},
		{"a name of spaces", "display_name", "  ", false},
		{"a name with a space before", "display_name", " a", false},
		{"a name that is no UTF-8", "display_name", "\xff", false},
		{"a long name", "display_name", strings.Repeat("x", chat.MaxDisplayName+1), false},
		{"a file", "avatar", "01890000-0000-7000-8000-000000000001", true},
		{"a URL", "avatar", "https://x.example/a.png", true},
		{"no avatar", "avatar", "", true},
		{"a script", "avatar", "javascript:alert(1)", false},
		{"a URL without TLS", "avatar", "http://x.example/a.png", false},
		{"a URL with a password", "avatar", "https://u:p@x.example/a.png", false},
		{"a URL without a host", "avatar", "https:///a.png", false},
		{"a long URL", "avatar", "https://x.example/" + strings.Repeat("x", chat.MaxAvatar), false},
		{"lines", "about", "a\nb", true},
		{"a bell", "about", "a\a", false},
		{"U+0000", "about", "a\x00", false},
		{"a long text", "about", strings.Repeat("x", chat.MaxAbout+1), false},
	} {
		p := map[string]chat.ProfileChange{"display_name": {DisplayName: &c.text}, "avatar": {Avatar: &c.text}, "about": {About: &c.text}}[c.field]
		if err := p.Check(); (err == nil) != c.ok || err != nil && err.Field != c.field {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := (chat.ProfileChange{}).Check(); err != nil {
		t.Error(err)
	}
}
