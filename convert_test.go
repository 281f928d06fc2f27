package main

import (
	"net/http"
	"strings"
	"testing"
)

// aliased gives a gateway under test model aliases.
func aliased(pairs ...string) func(*config) {
	return func(c *config) {
		for _, p := range pairs {
			pattern, model, _ := strings.Cut(p, "=")
			c.Aliases = append(c.Aliases, modelAlias{pattern, model})
		}
	}
}

const uglyBody = " {\r\n\t\"z\" : 1e2 ,\"messages\":[ {\"role\":\"user\",\"content\":\"\\u00e9 \\/ \\ud800 \\u0000 é\"} ],\"seed\":12345678901234567890,\"x\":1,\"x\":2," +
	"\"n\":-0,\"f\":1.0,\"g\":1e-7,\"deep\":{\"model\":\"a\",\"stream\":1,\"b\":1.0,\"a\":[ ]},\"model\" :\t\"a\" } \n"

// What reaches the upstream is what was sent, but for the bytes that had to be
// put in.
func TestChatBytesUpstream(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		headers    []string
		want       string // "" = the body itself
		fidelity   string
	}{
		{"ugly JSON", strings.ReplaceAll(uglyBody, `"a" }`, `"m" }`), nil, "", "exact"},
		{"no model", `{"messages":[]}`, nil, "", "exact"},
		{"a model that is null", `{"messages":[],"model":null}`, nil, "", "exact"},
		{"unknown keys at any depth", `{"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}],"chat_template_kwargs":{"enable_thinking":false},"guided_json":{"b":1,"a":2}}`, nil, "", "exact"},
		{"usage is not asked for", `{"messages":[],"stream":true}`, nil, "", "exact"},
		{"usage is left asked for", `{"messages":[],"stream":true,"stream_options":{"include_usage":true}}`, nil, "", "exact"},
		{"a byte order mark goes", "\ufeff" + `{"messages":[]}`, nil, `{"messages":[]}`, "exact"},

		{"G-20", `{"z":1,"model":"a","messages":[],"seed":9007199254740993,"x":{"b":1.0,"a":"\u00e9"}}`, nil,
			`{"z":1,"model":"b","messages":[],"seed":9007199254740993,"x":{"b":1.0,"a":"\u00e9"}}`, "spliced"},
		{"G-21", `{"metadata":{"model":"a"},"model" : "a","messages":[]}`, nil, `{"metadata":{"model":"a"},"model" : "b","messages":[]}`, "spliced"},
		{"ugly JSON and an alias", uglyBody, nil, strings.Replace(uglyBody, "\t\"a\" }", "\t\"b\" }", 1), "spliced"},
		{"a model written with escapes", `{"model":"\u0061","messages":[]}`, nil, `{"model":"b","messages":[]}`, "spliced"},
		{"a key written with escapes", `{"mod\u0065l":"a","messages":[]}`, nil, `{"mod\u0065l":"b","messages":[]}`, "spliced"},
		{"an alias with a star", `{"model":"claude-x/y","messages":[]}`, nil, `{"model":"qwen \"3\"","messages":[]}`, "spliced"},
		{"an alias for itself", `{"model":"same","messages":[]}`, nil, "", "exact"},

		{"a stream by Accept", `{"messages":[]}`, []string{"Accept: text/event-stream"}, `{"stream":true,"messages":[]}`, "spliced"},
		{"a stream by Accept, and null", `{"messages":[],"stream" : null}`, []string{"Accept: text/event-stream"}, `{"messages":[],"stream" : true}`, "spliced"},
		{"a stream by Accept, and an alias", ` { "model":"a","messages":[]}`, []string{"Accept: text/event-stream"}, ` {"stream":true, "model":"b","messages":[]}`, "spliced"},
		{"no stream, whatever Accept says", `{"messages":[],"stream":false}`, []string{"Accept: text/event-stream"}, "", "exact"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerJSON(200, completion("hi")), aliased("a=b", "claude-*=qwen \"3\"", "claude-x*=never", "same=same"))
			res, body := g.chat(tt.body, tt.headers...)
			if res.StatusCode != 200 {
				t.Fatalf("status %d: %s", res.StatusCode, body)
			}
			want := tt.want
			if want == "" {
				want = tt.body
			}
			if got := g.last().Body; got != want {
				t.Errorf("the upstream got\n%q, want\n%q", got, want)
			}
			if got := res.Header.Get("X-APIProxy-Fidelity"); got != tt.fidelity {
				t.Errorf("X-APIProxy-Fidelity %q, want %q", got, tt.fidelity)
			}
		})
	}
}

func TestWantsStream(t *testing.T) {
	for _, tt := range []struct {
		stream string // in the body; "" = absent
		accept []string
		want   bool
	}{
		{"true", nil, true},
		{"true", []string{"application/json"}, true},
		{"false", []string{"text/event-stream"}, false},
		{"", nil, false},
		{"", []string{"*/*"}, false},
		{"", []string{"application/json"}, false},
		{"", []string{"text/event-stream"}, true},
		{"", []string{"Text/Event-Stream; charset=utf-8"}, true},
		{"", []string{"text/event-stream, */*"}, true},
		{"", []string{"application/json, text/event-stream"}, false},
		{"", []string{"text/event-stream", "application/json"}, false},
		{"null", nil, false},
		{"null", []string{"text/event-stream"}, true},
	} {
		if got := wantsStream([]byte(tt.stream), http.Header{"Accept": tt.accept}); got != tt.want {
			t.Errorf("stream %q with Accept %q streams: %v, want %v", tt.stream, tt.accept, got, tt.want)
		}
	}
}

// A request that the gateway can't act on is refused, by the field, and does not
// reach the upstream.
func TestChatRefuses(t *testing.T) {
	for _, tt := range []struct{ name, body, param, code, message string }{
		{"G-22", `{"model":"a","model":"a","messages":[]}`, "model", "duplicate_key", `the key "model" is there twice`},
		{"messages twice", `{"messages":[],"messages":[]}`, "messages", "duplicate_key", "send it once"},
		{"stream twice, once with an escape", `{"messages":[],"stream":true,"strea\u006d":false}`, "stream", "duplicate_key", "send it once"},
		{"no messages", `{"model":"a"}`, "messages", "missing_required_parameter", "'messages'"},
		{"messages null", `{"messages":null}`, "messages", "missing_required_parameter", "'messages'"},
		{"messages as text", `{"messages":"hi"}`, "messages", "invalid_type", "expected an array of messages, but got a string"},
		{"messages as an object", `{"messages":{}}`, "messages", "invalid_type", "but got an object"},
		{"model as a number", `{"messages":[],"model":1}`, "model", "invalid_type", "expected a string, but got a number"},
		{"stream as text", `{"messages":[],"stream":"true"}`, "stream", "invalid_type", "expected true or false, but got a string"},
		{"stream_options as a list", `{"messages":[],"stream_options":[]}`, "stream_options", "invalid_type", "expected an object, but got an array"},
		{"stream_options as a boolean", `{"messages":[],"stream_options":true}`, "stream_options", "invalid_type", "but got a boolean"},
		{"cut off", `{"messages":[`, "", "invalid_json", "cut off"},
		{"more after it", `{"messages":[]}{}`, "", "invalid_json", "unexpected data"},
		{"an array", `[]`, "", "invalid_json", "JSON object"},
		{"no body", ``, "", "invalid_json", "empty"},
		{"not UTF-8", "{\"messages\":[\"\xff\"]}", "", "invalid_json", "UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerJSON(200, completion("hi")))
			res, body := g.chat(tt.body)
			e := member([]byte(body), "error")
			if res.StatusCode != 400 || text(member(e, "type")) != "invalid_request_error" {
				t.Errorf("status %d, %s", res.StatusCode, body)
			}
			if text(member(e, "param")) != tt.param || text(member(e, "code")) != tt.code || !strings.Contains(text(member(e, "message")), tt.message) {
				t.Errorf("%s: want param %q, code %q and a message with %q", body, tt.param, tt.code, tt.message)
			}
			if n := len(g.upstream.all()); n != 0 {
				t.Errorf("%d requests went upstream", n)
			}
		})
	}
}

func TestMatchesPattern(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"gpt-4o", "gpt-4o", true}, {"gpt-4o", "gpt-4o-mini", false}, {"gpt-*", "gpt-4o", true}, {"gpt-*", "gpt-", true}, {"gpt-*", "xgpt-", false},
		{"*", "anything", true}, {"*-mini", "gpt-mini", true}, {"*-mini", "gpt-mini2", false}, {"a*b*c", "a1b2c", true}, {"a*b*c", "a1c2b", false}, {"**", "", true},
	} {
		if got := matchesPattern(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q fits %q: %v, want %v", tt.name, tt.pattern, got, tt.want)
		}
	}
}
