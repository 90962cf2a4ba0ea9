// Package browsertest drives pages in a real Chromium for their tests: it starts the
// browser, opens tabs (each a person of its own, with its own cookies), waits for
// conditions instead of sleeping, keeps screenshots and fails a test for what a
// visitor would not see: script errors, violations of the content policy, requests
// to other hosts.
//
// It is imported by tests only. A machine without Chromium skips the tests, unless
// CI=true. Chromium is found by TRACEGATE_CHROMIUM or on PATH. axe-core is the only thing
// that is fetched (edge/artifact/engine); nothing of this project contains it.
package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Patience is how long a condition may take to become true.
const Patience = time.Minute

// Browser is one Chromium process of a test.
type Browser struct {
	ctx context.Context //nolint:containedctx // chromedp keeps the browser in its context
	axe func() (string, error)
}

// Start starts a browser that ends with the test (and with the test's process).
func Start(t *testing.T) *Browser {
	t.Helper()
	path := find()
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("no Chromium on PATH and CI=true: install the package chromium or set TRACEGATE_CHROMIUM")
		}
		t.Skip("no Chromium: install the package chromium or set TRACEGATE_CHROMIUM")
	}
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(time.Minute),
		chromedp.Env("TMPDIR="+scratch(t)), chromedp.Flag("headless", true), chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("no-first-run", true), chromedp.Flag("hide-scrollbars", true),
	)
	alloc, stop := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx: ctx, axe: sync.OnceValues(func() (string, error) { return axeSource(t) })}
}

// scratch is a folder for what a browser that is killed leaves behind.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium") //nolint:usetesting // a test's folder may be too long for the path of a socket
	if err != nil {
		t.Fatalf("make folder for temporary files: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func find() string {
	names := []string{os.Getenv("TRACEGATE_CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}
	for _, name := range names {
		if path, err := exec.LookPath(name); name != "" && err == nil {
			return path
		}
	}
	return ""
}

// Size is what a tab pretends to be shown on.
type Size struct {
	Name          string
	Width, Height int64
	Phone         bool
}

// Desktop and Phone are the two sizes that pages are tested at.
func Desktop() Size { return Size{Name: "desktop", Width: 1280, Height: 800} }

// Phone is a small one of today: 360 pixels wide, touch, two device pixels a pixel.
func Phone() Size { return Size{Name: "phone", Width: 360, Height: 740, Phone: true} }

// Tab is a page of a person.
type Tab struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // chromedp keeps the tab in its context
	axe  func() (string, error)
	host string

	mu     sync.Mutex
	faults []string
	allow  []string
}

// Tab opens an empty tab with cookies and storage of its own. When the test ends,
// it fails for every fault the tab has seen and that Allow does not name.
func (b *Browser) Tab(t *testing.T, size Size) *Tab {
	t.Helper()
	return open(b.ctx, t, size, b.axe, chromedp.WithNewBrowserContext())
}

func open(parent context.Context, t *testing.T, size Size, axe func() (string, error), options ...chromedp.ContextOption) *Tab {
	t.Helper()
	tab := &Tab{t: t, axe: axe}
	ctx, cancel := chromedp.NewContext(parent, append(options, chromedp.WithListener(tab.watch))...)
	tab.ctx = ctx
	t.Cleanup(func() {
		cancel()
		tab.mu.Lock()
		defer tab.mu.Unlock()
		for _, fault := range tab.faults {
			if !tab.allowed(fault) {
				t.Errorf("fault in the page: %s", fault)
			}
		}
	})
	tab.Do() // opens it
	call(tab, log.Enable, cdp.Empty{})
	call(tab, network.Enable, network.EnableParams{})
	tab.Resize(size)
	return tab
}

// Sibling opens another tab of the same person: the same cookies and local storage.
func (tab *Tab) Sibling(size Size) *Tab {
	tab.t.Helper()
	return open(tab.ctx, tab.t, size, tab.axe)
}

// Allow excepts faults that contain text, such as "401" where a test provokes one.
func (tab *Tab) Allow(text string) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.allow = append(tab.allow, text)
}

func (tab *Tab) allowed(fault string) bool {
	for _, text := range tab.allow {
		if strings.Contains(fault, text) {
			return true
		}
	}
	return false
}

func (tab *Tab) watch(event any) {
	var fault string
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			fault += " " + e.ExceptionDetails.Exception.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			fault = fmt.Sprintf("%s: %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			fault = fmt.Sprintf("console: %v", e.Args)
		}
	case *network.EventRequestWillBeSent:
		tab.mu.Lock()
		host := tab.host
		tab.mu.Unlock()
		if u, err := url.Parse(e.Request.URL); err == nil && u.Host != host && (u.Scheme == "http" || u.Scheme == "https") {
			fault = "request to another host: " + e.Request.URL
		}
	}
	if fault != "" {
		tab.mu.Lock()
		tab.faults = append(tab.faults, fault)
		tab.mu.Unlock()
	}
}

// Do runs actions and fails the test with the first error.
func (tab *Tab) Do(actions ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	if err := chromedp.Do(tab.ctx, actions...); err != nil {
		tab.t.Fatalf("drive browser: %v", err)
	}
}

func call[P, R any](tab *Tab, command cdp.Command[P, R], params P) {
	tab.t.Helper()
	if _, err := chromedp.Call(tab.ctx, command, params); err != nil {
		tab.t.Fatalf("drive browser: %s: %v", command.Method, err)
	}
}

// Open goes to address, the only host that the tab may ask from now on.
func (tab *Tab) Open(address string) {
	tab.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		tab.t.Fatalf("parse address: %v", err)
	}
	tab.mu.Lock()
	tab.host = u.Host
	tab.mu.Unlock()
	tab.Do(chromedp.Navigate(address))
}

// Location is the address shown.
func (tab *Tab) Location() string {
	tab.t.Helper()
	var address string
	tab.Eval("location.href", &address)
	return address
}

// Resize changes the size.
func (tab *Tab) Resize(size Size) {
	tab.t.Helper()
	scale := 1.0
	if size.Phone {
		scale = 2
	}
	call(tab, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
		Width: size.Width, Height: size.Height, DeviceScaleFactor: scale, Mobile: size.Phone,
	})
	call(tab, emulation.SetTouchEmulationEnabled, emulation.SetTouchEmulationEnabledParams{Enabled: size.Phone})
}

// Dark switches between the dark and the light theme of the system.
func (tab *Tab) Dark(dark bool) {
	tab.t.Helper()
	value := "light"
	if dark {
		value = "dark"
	}
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: value}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}})
}

// Eval evaluates a JavaScript expression, or the promise it gives, into out (which
// may be nil).
func (tab *Tab) Eval(script string, out any) {
	tab.t.Helper()
	if err := tab.eval(script, out); err != nil {
		tab.t.Fatalf("evaluate %s: %v", script, err)
	}
}

func (tab *Tab) eval(script string, out any) error {
	// Through JSON, so that undefined and cyclic values are plain errors.
	wrapped := "(async () => JSON.stringify((await (" + script + ")) ?? null))()"
	text, err := chromedp.Run(tab.ctx, chromedp.Evaluate[string](wrapped, chromedp.EvalAwaitPromise))
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal([]byte(text), out)
}

// Until waits until a JavaScript expression is true.
func (tab *Tab) Until(condition string) {
	tab.t.Helper()
	deadline := time.Now().Add(Patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var ok bool
		err := tab.eval("Boolean("+condition+")", &ok)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			var text string
			_ = tab.eval("document.body.innerText.slice(0, 2000)", &text)
			tab.Screenshot("failed-" + strings.ReplaceAll(tab.t.Name(), "/", "-"))
			tab.t.Fatalf("not true within %s: %s (error %v); the page says:\n%s", Patience, condition, err, text)
		}
		<-tick.C
	}
}

// UntilSeen waits until an element is there and visible.
func (tab *Tab) UntilSeen(selector string) {
	tab.t.Helper()
	tab.Until("document.querySelector(" + quote(selector) + ")?.checkVisibility()")
}

// Click clicks the element as a person would, once it is visible.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.UntilSeen(selector)
	tab.Do(chromedp.Click(chromedp.CSS(selector)))
}

// Type puts text into a field by the keyboard; what was there is replaced.
func (tab *Tab) Type(selector, text string) {
	tab.t.Helper()
	tab.UntilSeen(selector)
	tab.Do(chromedp.Focus(chromedp.CSS(selector)))
	tab.Eval("document.querySelector("+quote(selector)+").select()", nil)
	tab.Do(chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Text is the text of an element as it is shown.
func (tab *Tab) Text(selector string) string {
	tab.t.Helper()
	var text string
	tab.Eval("document.querySelector("+quote(selector)+")?.innerText ?? ''", &text)
	return text
}

// UntilText waits until an element's text contains want.
func (tab *Tab) UntilText(selector, want string) {
	tab.t.Helper()
	tab.Until("document.querySelector(" + quote(selector) + ")?.innerText.includes(" + quote(want) + ")")
}

// Press presses one key, such as kb.Tab, on whatever has the focus.
func (tab *Tab) Press(key string) {
	tab.t.Helper()
	tab.Do(chromedp.KeyEvent(key))
}

// Screenshot keeps a picture as name.png in the folder TRACEGATE_SCREENSHOTS; without
// one it does nothing.
func (tab *Tab) Screenshot(name string) {
	tab.t.Helper()
	dir := os.Getenv("TRACEGATE_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(tab.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		tab.t.Fatalf("take screenshot: %v", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tab.t.Fatalf("keep screenshot: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		tab.t.Fatalf("keep screenshot: %v", err)
	}
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return `""` // strings always encode
	}
	return string(b)
}
