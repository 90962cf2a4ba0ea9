package page_test

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/tracegate/tracegate/mesh/webpage/browsertest"
)

// sunset is a picture that one can tell from others.
func sunset(w, h int) image.Image {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetNRGBA(x, y, color.NRGBA{R: uint8(255 - y*120/h), G: uint8(90 + y*110/h), B: uint8(60 + x*150/w), A: 255})
		}
	}
	return m
}

// TestFilesOnThePage: files come by button, paste and drop; the other side sees pictures
// and names, also after a reload, and may open them; a recall takes them away.
func TestFilesOnThePage(t *testing.T) {
	b := browsertest.Start(t) // skips before anything is started
	c := newCircle(t, "baseline")
	bob := enter(t, b, c.URL, "bob", browsertest.Desktop())
	ada := enter(t, b, c.URL, "ada", browsertest.Phone())
	ada.Type("#with", "bob")
	ada.Press("\r")
	ada.UntilText("#peer", "bob")
	dir := t.TempDir()
	photo, report := filepath.Join(dir, "sunset.png"), filepath.Join(dir, "report.pdf")
	w, err := os.Create(photo)
	if err != nil {
		t.Fatal(err)
	}
	if err := png.Encode(w, sunset(900, 600)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := os.WriteFile(report, []byte("%PDF-1.7\nreport"), 0o600); err != nil {
		t.Fatal(err)
	}
	ada.Do(chromedp.SetUploadFiles(chromedp.CSS("#file"), []string{photo, report}))
	ada.Until(`document.querySelectorAll('.attachment[data-state="ready"]').length === 2`)
	ada.Screenshot("chat-files-composer")
	ada.Type("#text", "From the roof")
	ada.Press("\r")
	bob.UntilText("#conversations", "ada")
	bob.Click("#conversations button")
	bob.Until(`document.querySelectorAll(".message").length === 2`)
	bob.Until(`document.querySelector(".picture img")?.naturalWidth === 480`)
	bob.UntilText(".document", "report.pdf")
	bob.UntilText("#messages", "From the roof")

	// Paste and drop, of what a page of its own makes: a text and a picture.
	bob.Eval(`(() => {
		const data = new DataTransfer();
		data.items.add(new File(["hello"], "notes.txt", { type: "text/html" }));
		document.getElementById("text").dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
	})()`, nil)
	bob.Until(`document.querySelectorAll('.attachment[data-state="ready"]').length === 1`)
	bob.Eval(`(async () => {
		const canvas = new OffscreenCanvas(64, 64);
		canvas.getContext("2d").fillRect(16, 16, 32, 32);
		const data = new DataTransfer();
		data.items.add(new File([await canvas.convertToBlob()], "square.png"));
		document.querySelector(".chat").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
	})()`, nil)
	bob.Until(`document.querySelectorAll('.attachment[data-state="ready"]').length === 2`)
	bob.Click("#composer .primary")
	ada.Until(`document.querySelectorAll(".message").length === 4`)
	ada.Until(`[...document.querySelectorAll(".picture img")].filter((i) => i.naturalWidth === 64).length === 1`)

	// What the server refuses is said, and nothing is attached.
	bob.Allow("status of 400")
	bob.Eval(`(() => {
		const data = new DataTransfer();
		data.items.add(new File(["<html><script>alert(1)</scr" + "ipt>"], "innocent.png"));
		document.getElementById("text").dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
	})()`, nil)
	bob.UntilText("#toast", "not allowed")
	bob.Until(`document.querySelectorAll(".attachment").length === 0`)

	bob.Open(c.URL + "/")
	bob.UntilText("#conversations", "square.png")
	bob.Click("#conversations button")
	bob.Until(`[...document.querySelectorAll(".picture img")].filter((i) => i.complete && i.naturalWidth > 0).length === 2`)
	bob.Accessible("files")
	bob.Screenshot("chat-files")
	ada.Screenshot("chat-files-phone")
	var status string
	bob.Eval(`fetch(document.querySelector(".picture").href).then((r) => r.status + " " + r.headers.get("content-type") + " " + r.headers.get("content-disposition"))`, &status)
	if want := "200 image/png inline; filename=sunset.png"; status != want {
		t.Errorf("opening the picture: %q, want %q", status, want)
	}
	bob.Eval(`fetch("/v1/conversations").then((r) => r.json()).then(({ conversations }) => fetch("/v1/conversations/" + conversations[0].id + "/messages/3", { method: "DELETE" })).then((r) => r.status)`, nil)
	for name, tab := range map[string]*browsertest.Tab{"ada": ada, "bob": bob} {
		tab.UntilText("#messages", "Message recalled")
		var left int
		tab.Eval(`document.querySelectorAll(".picture, .document").length`, &left)
		if left != 3 {
			t.Errorf("%s sees %d files after a recall", name, left)
		}
	}
}
