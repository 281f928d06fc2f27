package main

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"
)

func TestPromptTokens(t *testing.T) {
	user := func(s string) chatRequest {
		return chatRequest{Messages: []chatMessage{{Role: "user", Content: textContent(s)}}}
	}
	for _, tt := range []struct {
		name string
		q    chatRequest
		want float64
	}{
		{"C-145", user("hello world"), 8},
		{"digits and symbols", user("12345+"), 7},
		{"Chinese", user("你好"), 7},
		{"other scripts", user("приве"), 7},
		{"empty", user(""), 4},
		{"a call and its result", chatRequest{Messages: []chatMessage{
			{Role: "assistant", Content: chatContent{Null: true}, ToolCalls: []chatToolCall{functionCall("ignored", "ffff", "{}")}},
			{Role: "tool", ToolCallID: "ignored", Content: textContent("abcd")},
		}}, 4 + 8 + 2 + 1 + 4 + 8 + 2},
		{"a picture by address", chatRequest{Messages: []chatMessage{{Role: "user", Content: chatContent{Parts: []chatPart{partImage("https://h/i.png", "")}}}}}, 1604},
		{"a small file", chatRequest{Messages: []chatMessage{{Role: "user", Content: chatContent{Parts: []chatPart{partFile("f", "data:application/pdf;base64,AAAA")}}}}}, 2004},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.q.promptTokens(); got != tt.want {
				t.Errorf("promptTokens = %v, want %v", got, tt.want)
			}
		})
	}
	long := chatRequest{Messages: []chatMessage{{Role: "tool", Content: textContent(strings.Repeat("a", 36_000))}}}
	if n := long.promptTokens(); n <= 9000 {
		t.Errorf("36,000 letters count as %v tokens, want more than 9000", n)
	}
	tool := chatTool{Type: "function", Function: chatFunction{Name: "f", Parameters: []byte(`{"type":"object"}`)}}
	q := user("x")
	before := q.promptTokens()
	q.Tools = []chatTool{tool}
	if grown := q.promptTokens() - before; grown < 70 {
		t.Errorf("a tool adds %v tokens, want at least 70", grown)
	}
}

func TestImageTokens(t *testing.T) {
	picture := image.NewGray(image.Rect(0, 0, 600, 500))
	encode := func(f func(*bytes.Buffer) error) string {
		var b bytes.Buffer
		if err := f(&b); err != nil {
			t.Fatal(err)
		}
		return "data:image/x;base64," + base64.StdEncoding.EncodeToString(b.Bytes())
	}
	webp := func(head string) string {
		b := append([]byte("RIFF\x00\x00\x00\x00WEBP"), head...)
		return "data:image/webp;base64," + base64.StdEncoding.EncodeToString(append(b, make([]byte, 20)...))
	}
	for _, tt := range []struct {
		name, url string
		want      float64
	}{
		{"png", encode(func(b *bytes.Buffer) error { return png.Encode(b, picture) }), 400},
		{"jpeg", encode(func(b *bytes.Buffer) error { return jpeg.Encode(b, picture, nil) }), 400},
		{"gif", encode(func(b *bytes.Buffer) error { return gif.Encode(b, picture, nil) }), 400},
		{"webp, extended", webp("VP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x57\x02\x00\xf3\x01\x00"), 400},
		{"webp, lossless", webp("VP8L\x0a\x00\x00\x00\x2f\x57\xc2\x7c\x00"), 400},
		{"webp, lossy", webp("VP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a\x58\x02\xf4\x01"), 400},
		{"unreadable", "data:image/png;base64,AA==", 1600},
		{"an address", "https://h/i.png", 1600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := imageTokens(tt.url); got != tt.want {
				t.Errorf("imageTokens = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCalibration(t *testing.T) {
	var c calibration
	for range calibrateAfter - 1 {
		c.learn("m", 100, 150)
	}
	if got := c.correct("m", 100); got != 100 {
		t.Errorf("after %d samples: %d, want 100: too few to go by", calibrateAfter-1, got)
	}
	c.learn("m", 100, 150)
	if got := c.correct("m", 100); got != 150 {
		t.Errorf("after %d samples: %d, want 150", calibrateAfter, got)
	}
	for range 200 {
		c.learn("m", 100, 1000)
	}
	if got := c.correct("m", 100); got != 160 {
		t.Errorf("far off: %d, want 160, the most that is believed", got)
	}
	if got := c.correct("other", 10.2); got != 11 {
		t.Errorf("another model: %d, want 11", got)
	}
}
