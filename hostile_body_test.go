package main

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Bodies that attack the reader of JSON, in every dialect.

// inDialects are the same text of a user's message in each dialect; TEXT is its
// JSON.
var inDialects = []struct{ name, path, body string }{
	{"chat", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":TEXT}]}`},
	{"anthropic", messagesPath, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":TEXT}]}`},
	{"responses", responsesPath, `{"model":"m","input":[{"role":"user","content":TEXT}]}`},
	{"gemini", geminiPath, `{"contents":[{"role":"user","parts":[{"text":TEXT}]}]}`},
}

// TestHostileBodies: what is not one clear request is a 400 in the client's dialect,
// and leaves no trace; what is odd but clear goes on.
func TestHostileBodies(t *testing.T) {
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	for _, tt := range []struct {
		name  string
		make  func(body string) string
		taken bool
	}{
		{"cut off", func(b string) string { return b[:len(b)-2] }, false},
		{"trailing data", func(b string) string { return b + "x" }, false},
		{"two objects", func(b string) string { return b + b }, false},
		{"a NUL at the end", func(b string) string { return b + "\x00" }, false},
		{"an array", func(b string) string { return "[" + b + "]" }, false},
		{"a string", func(b string) string { return `"x"` }, false},
		{"nothing", func(b string) string { return "" }, false},
		{"100,000 deep", func(b string) string { return strings.Replace(b, "TEXT", deep, 1) }, false},
		{"100,000 deep, in an unknown field", func(b string) string { return strings.Replace(b, "{", `{"x":`+deep+`,`, 1) }, false},
		{"100,000 deep, never closed", func(b string) string { return strings.Repeat(`{"a":`, 100_000) }, false},
		{"invalid UTF-8", func(b string) string { return strings.Replace(b, "TEXT", "\"a\xc3\x28\xff\"", 1) }, false},
		{"an overlong form", func(b string) string { return strings.Replace(b, "TEXT", "\"\xc0\xaf\"", 1) }, false},
		{"a surrogate in UTF-8", func(b string) string { return strings.Replace(b, "TEXT", "\"\xed\xa0\x80\"", 1) }, false},
		{"a raw control character", func(b string) string { return strings.Replace(b, "TEXT", "\"a\x01b\"", 1) }, false},
		{"a raw line break", func(b string) string { return strings.Replace(b, "TEXT", "\"a\nb\"", 1) }, false},
		{"a bad escape", func(b string) string { return strings.Replace(b, "TEXT", `"\x41"`, 1) }, false},
		{"half an escape", func(b string) string { return strings.Replace(b, "TEXT", `"\u00"`, 1) }, false},
		{"a number with a leading zero", func(b string) string { return strings.Replace(b, "{", `{"temperature":01,`, 1) }, false},
		{"NaN", func(b string) string { return strings.Replace(b, "{", `{"temperature":NaN,`, 1) }, false},
		{"a comment", func(b string) string { return strings.Replace(b, "{", `{/* x */`, 1) }, false},
		{"a trailing comma", func(b string) string { return b[:len(b)-1] + ",}" }, false},
		{"single quotes", func(b string) string { return strings.ReplaceAll(b, `"`, `'`) }, false},
		{"messages twice", func(b string) string {
			for _, key := range []string{`"messages":`, `"input":`, `"contents":`} {
				if strings.Contains(b, key) {
					return strings.Replace(b, key, key+"[],"+key, 1)
				}
			}
			return b
		}, false},
		{"text a number", func(b string) string { return strings.Replace(b, "TEXT", "7", 1) }, false},

		{"a lone surrogate", func(b string) string { return strings.Replace(b, "TEXT", `"a\ud800b"`, 1) }, true},
		{"an escaped NUL", func(b string) string { return strings.Replace(b, "TEXT", `"a\u0000b"`, 1) }, true},
		{"the largest characters", func(b string) string { return strings.Replace(b, "TEXT", "\"\U0010ffff\ufffe\u2028\"", 1) }, true},
		{"a huge number in an unknown field", func(b string) string {
			return strings.Replace(b, "{", `{"x_unknown":1`+strings.Repeat("0", 100_000)+`,`, 1)
		}, true},
		{"space everywhere", func(b string) string { return strings.NewReplacer(":", " :\r\n\t ", ",", " , ").Replace(b) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, echoPath)
			for _, d := range inDialects {
				if d.name == "chat" && tt.name == "text a number" {
					continue // for the upstream to judge
				}
				body := strings.Replace(tt.make(d.body), "TEXT", `"hi"`, 1)
				before := len(g.upstream.all())
				began := time.Now()
				res := g.do("POST", d.path, body, "X-Session-Id: hostile")
				got := readAll(t, res)
				if tt.taken {
					if res.StatusCode != 200 || checkJSON([]byte(g.last().Body)) != nil {
						t.Errorf("%s: %d %.300s; upstream %.300q", d.name, res.StatusCode, got, g.last().Body)
					}
					continue
				}
				if res.StatusCode != 400 || member([]byte(got), "error") == nil || time.Since(began) > 5*time.Second {
					t.Errorf("%s: after %v %d %.300s", d.name, time.Since(began), res.StatusCode, got)
				}
				if name := strings.Replace(d.name, "chat", "responses", 1); res.StatusCode == 400 {
					errorOf(t, name, got)
				}
				if len(g.upstream.all()) != before {
					t.Errorf("%s: went upstream", d.name)
				}
			}
			if res := g.do("GET", "/context/hostile", ""); !tt.taken && res.StatusCode != 404 {
				t.Errorf("it left a trace in the session: %d", res.StatusCode)
			}
		})
	}
}

// TestManyTinyMessages: a million of them in one body, or a million parts in one
// message, are forwarded as they are or refused, before they cost what they would
// when converted.
func TestManyTinyMessages(t *testing.T) {
	const n = 1_000_000
	list := func(one string) string { return "[" + strings.Repeat(one+",", n-1) + one + "]" }
	message, part := `{"role":"user","content":"x"}`, `{"type":"text","text":"x"}`
	g := newGateway(t, nil, unread(t, answerJSON(200, completion("hi"))))
	for _, tt := range []struct {
		name, path, body string
		status           int
	}{
		{"chat", "/v1/chat/completions", `{"model":"m","messages":` + list(message) + `}`, 200},
		{"anthropic", messagesPath, `{"model":"m","max_tokens":9,"messages":` + list(message) + `}`, 400},
		{"anthropic parts", messagesPath, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":` + list(part) + `}]}`, 400},
		{"responses", responsesPath, `{"model":"m","input":` + list(message) + `}`, 400},
		{"responses parts", responsesPath, `{"model":"m","input":[{"role":"user","content":` + list(`{"type":"input_text","text":"x"}`) + `}]}`, 400},
		{"gemini", geminiPath, `{"contents":` + list(`{"parts":[{"text":"x"}]}`) + `}`, 400},
		{"gemini parts", geminiPath, `{"contents":[{"parts":` + list(`{"text":"x"}`) + `}]}`, 400},
		{"on the chat path", "/v1/chat/completions", `{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":` + list(`{"type":"tool_result","tool_use_id":"t"}`) + `}]}`, 400},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		res := g.do("POST", tt.path, tt.body)
		got, _ := io.ReadAll(res.Body)
		runtime.ReadMemStats(&after)
		allocated := (after.TotalAlloc - before.TotalAlloc) / uint64(len(tt.body))
		if res.StatusCode != tt.status || time.Since(began) > 20*time.Second || allocated > 8 {
			t.Errorf("%s: %d after %v, with %d bytes for each: %.200s", tt.name, res.StatusCode, time.Since(began), allocated, got)
		}
		if tt.status == 400 && !strings.Contains(string(got), "more than 100000 messages") {
			t.Errorf("%s does not say why: %.300s", tt.name, got)
		}
	}
}

// TestManyKeys: objects and lists of a million small things, where a dialect has
// room for them.
func TestManyKeys(t *testing.T) {
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"k%d":1,`, i)
		}
		return b.String()
	}
	unknown, tools := keys(300_000), strings.Repeat(`{"name":"f","input_schema":{}},`, 100_000)
	g := newGateway(t, nil, unread(t, answerJSON(200, completion("hi"))))
	for _, d := range inDialects {
		for name, put := range map[string]string{"unknown fields": unknown, "metadata": `"metadata":{` + strings.TrimSuffix(unknown, ",") + "},", "tools": `"tools":[` + strings.TrimSuffix(tools, ",") + "],",
			"stop": `"stop":[` + strings.Repeat(`"x",`, 300_000) + `"y"],"stop_sequences":[` + strings.Repeat(`"x",`, 300_000) + `"y"],`} {
			body := strings.Replace(strings.Replace(d.body, "TEXT", `"hi"`, 1), "{", "{"+put, 1)
			began := time.Now()
			res := g.do("POST", d.path, body)
			got, _ := io.ReadAll(res.Body)
			if took := time.Since(began); took > 10*time.Second || res.StatusCode >= 500 {
				t.Errorf("%s, %s: %d after %v %.200s", d.name, name, res.StatusCode, took, got)
			}
		}
	}
}
