package push

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tracegate/tracegate/mesh/secret"
	"github.com/tracegate/tracegate/mesh/webhook"
)

// Webhook is a Sender that posts each notification to one URL, signed as Standard Webhooks
// says. Its receiver hands it on to FCM, APNs or the like.
type Webhook struct {
	url    string
	key    []byte
	client *http.Client
	now    func() time.Time
}

// NewWebhook checks the URL and the secret.
func NewWebhook(url string, s secret.Text, now func() time.Time) (*Webhook, error) {
	if err := webhook.CheckURL(url); err != nil {
		return nil, fmt.Errorf("push webhook: %w", err)
	}
	key, err := webhook.Key(s)
	if err != nil {
		return nil, fmt.Errorf("push webhook: %w", err)
	}
	return &Webhook{url: url, key: key, client: webhook.NewClient(10 * time.Second), now: now}, nil
}

// Message is what a receiver gets.
type Message struct {
	Type string `json:"type"` // "message.created"
	Data Data   `json:"data"`
}

// Data is a notification; Text is cut to its first [Preview] bytes.
type Data struct {
	User         string    `json:"user"` // name of who is notified
	Device       Device    `json:"device"`
	Conversation string    `json:"conversation"`
	Seq          int64     `json:"seq"`
	Sender       string    `json:"sender"`
	Text         string    `json:"text"`
	SentAt       time.Time `json:"sent_at"`
}

// Device is how a device is reached, as it has said itself.
type Device struct {
	Session  string `json:"session"`
	Platform string `json:"platform"`
	Token    string `json:"token"`
}

// Preview bounds the text of a notification in bytes: push services take 4 KiB in all.
const Preview = 256

// Send implements Sender. An answer of 410 says that the token is not good any more, 429 or
// 503 that the receiver takes none for now.
func (w *Webhook) Send(ctx context.Context, n Notification) error {
	body, err := json.Marshal(Message{Type: "message.created", Data: Data{
		User: n.Device.User.Name, Device: Device{Session: n.Device.Session, Platform: n.Device.Platform, Token: n.Device.Token},
		Conversation: n.Conversation, Seq: n.Message.Seq, Sender: n.Message.Sender, Text: preview(n.Message.Text), SentAt: n.Message.SentAt,
	}})
	if err != nil {
		return fmt.Errorf("encode notification: %w", err)
	}
	status, err := webhook.Post(ctx, w.client, w.url, w.key, id(n), w.now(), body)
	switch {
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case err == nil || webhook.Again(status):
		return err
	case status == http.StatusGone:
		return fmt.Errorf("%w: %w", ErrGone, err)
	default:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
}

// id is the same whenever the same is sent.
func id(n Notification) string {
	sum := sha256.Sum256([]byte(n.Device.Session + "/" + n.Conversation + "/" + strconv.FormatInt(n.Message.Seq, 10)))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// preview cuts a text between two characters.
func preview(text string) string {
	if len(text) <= Preview {
		return text
	}
	end := Preview
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}
