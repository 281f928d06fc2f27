package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// terminalText is what a handler writes of a record, without its time.
func terminalText(h *terminalHandler, level slog.Level, message string, attrs ...slog.Attr) string {
	var b bytes.Buffer
	h.w, h.mu, h.layout = &b, &sync.Mutex{}, "TIME"
	slog.New(h).LogAttrs(context.Background(), level, message, attrs...)
	return b.String()
}

func TestTerminalRequests(t *testing.T) {
	answer := []slog.Attr{
		slog.String("id", "req_1"), slog.String("method", "POST"), slog.String("route", "/v1/chat/completions"), slog.Int("status", 200), slog.String("outcome", "ok"),
		slog.String("key", "alice"), slog.String("model", "demo"), slog.Bool("stream", true), slog.Float64("first_byte_ms", 31.4), slog.Float64("duration_ms", 1842),
		slog.Int64("prompt_tokens", 12), slog.Int64("completion_tokens", 345),
	}
	with := func(more ...slog.Attr) []slog.Attr {
		attrs := append([]slog.Attr{}, answer...)
		for _, a := range more {
			for i := range attrs {
				if attrs[i].Key == a.Key {
					attrs[i] = a
				}
			}
		}
		return append(attrs, more...)
	}
	for _, tt := range []struct {
		name  string
		level slog.Level
		attrs []slog.Attr
		want  string
	}{
		{"a stream", slog.LevelInfo, answer,
			"TIME  200    POST /v1/chat/completions    demo                    1.84s  ttft 31ms      12→345 tok  ok\n"},
		{"no stream, no model", slog.LevelInfo, []slog.Attr{slog.Int("status", 200), slog.String("method", "GET"), slog.String("route", "/v1/models"), slog.String("outcome", "ok"), slog.Float64("duration_ms", 0.07)},
			"TIME  200    GET  /v1/models              -                       0.1ms                             ok\n"},
		{"a failure", slog.LevelInfo, with(slog.Int("status", 502), slog.String("outcome", "upstream_error"), slog.String("error", "refused\x1b[2J\nTIME  200 forged")),
			"TIME  502    POST /v1/chat/completions    demo                    1.84s  ttft 31ms      12→345 tok  upstream_error: refused\ufffd[2J\ufffdTIME  200 forged  id=req_1\n"},
		{"the client's failure", slog.LevelInfo, with(slog.Int("status", 400), slog.String("error", "not JSON")),
			"TIME  400    POST /v1/chat/completions    demo                    1.84s  ttft 31ms      12→345 tok  not JSON  id=req_1\n"},
		{"a long model", slog.LevelInfo, with(slog.String("model", "provider-3/a-model-with-a-long-name")),
			"TIME  200    POST /v1/chat/completions    provider-3/a-model-…    1.84s  ttft 31ms      12→345 tok  ok\n"},
		{"debug", slog.LevelDebug, with(slog.String("traceparent", "00-a-b-01")),
			"TIME  200    POST /v1/chat/completions    demo                    1.84s  ttft 31ms      12→345 tok  ok  id=req_1  key=alice  traceparent=00-a-b-01\n"},
		{"bodies", slog.LevelInfo, with(slog.String("request_body", "{\"a\":\"\u001b\"}")),
			"TIME  200    POST /v1/chat/completions    demo                    1.84s  ttft 31ms      12→345 tok  ok  request_body=\"{\\\"a\\\":\\\"\\x1b\\\"}\"\n"},
	} {
		if got := terminalText(&terminalHandler{level: tt.level}, slog.LevelInfo, requestMessage, tt.attrs...); got != tt.want {
			t.Errorf("%s:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}

func TestTerminalRecords(t *testing.T) {
	h := &terminalHandler{level: slog.LevelInfo}
	for _, tt := range []struct {
		h     slog.Handler
		level slog.Level
		attrs []slog.Attr
		want  string
	}{
		{h, slog.LevelInfo, []slog.Attr{slog.String("addr", "127.0.0.1:8000")}, "TIME  INFO   listening\x07?  addr=127.0.0.1:8000\n"},
		{h, slog.LevelWarn, []slog.Attr{slog.Any("err", errors.New("no such host")), slog.String("empty", "")}, "TIME  WARN   listening\x07?  err=\"no such host\"  empty=\"\"\n"},
		{h, slog.LevelError, []slog.Attr{slog.Any("key", secret("x")), slog.Group("g", "a", 1)}, "TIME  ERROR  listening\x07?  key=[secret]  g.a=1\n"},
		{h, slog.LevelDebug, nil, ""},
		{h.WithAttrs([]slog.Attr{slog.Int("n", 1)}).WithGroup("g"), slog.LevelInfo, []slog.Attr{slog.Int("m", 2)}, "TIME  INFO   listening\x07?  n=1  g.m=2\n"},
		{h, slog.LevelError, []slog.Attr{slog.String("stack", "main()\n\tmain.go:1\n")}, "TIME  ERROR  listening\x07?\n    main()\n      main.go:1\n"},
	} {
		want := strings.Replace(tt.want, "\x07?", "\ufffd?", 1)
		if got := terminalText(tt.h.(*terminalHandler), tt.level, "listening\x07?", tt.attrs...); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

var colours = regexp.MustCompile("\x1b\\[[0-9]+m")

// With colours, the text is the same but for them.
func TestTerminalColours(t *testing.T) {
	for status, colour := range map[int]string{200: green, 404: yellow, 502: red} {
		attrs := []slog.Attr{slog.Int("status", status), slog.String("outcome", "ok"), slog.String("model", "m\x1b[31m")}
		plain := terminalText(&terminalHandler{}, slog.LevelInfo, requestMessage, attrs...)
		coloured := terminalText(&terminalHandler{colour: true}, slog.LevelInfo, requestMessage, attrs...)
		if colours.ReplaceAllString(coloured, "") != plain || !strings.Contains(coloured, "\x1b["+colour+"m") || strings.Contains(plain, "\x1b") {
			t.Errorf("with colours %q, without %q", coloured, plain)
		}
	}
	for _, tt := range []struct {
		env  map[string]string
		want bool
	}{
		{map[string]string{"TERM": "xterm"}, true},
		{map[string]string{"TERM": "xterm", "NO_COLOR": ""}, true},
		{map[string]string{"TERM": "xterm", "NO_COLOR": "0"}, false},
		{map[string]string{"TERM": "dumb"}, false},
		{map[string]string{}, false},
	} {
		if got := wantsColour(tt.env); got != tt.want {
			t.Errorf("%v: colours %t", tt.env, got)
		}
	}
	var b bytes.Buffer
	if h := newTerminalHandler(&b, slog.LevelInfo, map[string]string{"TERM": "xterm"}); h.colour || h.layout != dateLayout {
		t.Errorf("for what is no terminal: colours %t, times as %s", h.colour, h.layout)
	}
}

func TestShortDuration(t *testing.T) {
	for ms, want := range map[float64]string{0: "0.0ms", 9.94: "9.9ms", 10: "10ms", 999: "999ms", 1000: "1.00s", 59_990: "59.99s", 60_000: "1m00s", 3_725_000: "62m05s"} {
		if got := shortDuration(ms); got != want {
			t.Errorf("%v ms is %q, want %q", ms, got, want)
		}
	}
}

// FuzzTerminal: whatever a record holds makes one line, in which there is nothing
// that a terminal obeys.
func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"", "plain", "a\x1b]0;title\x07", "\u009b31m", "\u202ertl", "line\nforged", "\xff\xfe", "\u2028", "a\tb", "\ufeff"} {
		f.Add(s, s, true)
	}
	f.Fuzz(func(t *testing.T, name, value string, request bool) {
		message := name
		if request {
			message = requestMessage
		}
		line := terminalText(&terminalHandler{level: slog.LevelDebug}, slog.LevelInfo, message,
			slog.String("model", value), slog.String("error", value), slog.String("route", value), slog.String("method", value), slog.String("outcome", value),
			slog.String("request_body", value), slog.String("x"+name, value), slog.Time("t", time.Unix(0, 0)))
		text, ended := strings.CutSuffix(line, "\n")
		if !ended || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != unicode.ReplacementChar }) {
			t.Errorf("%q", line)
		}
	})
}
