package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestTokenize(t *testing.T) {
	llama := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/apply-template":
			answerJSON(200, `{"prompt":"<|user|>hi\n"}`)(w, r)
		case "/tokenize":
			if string(body) != `{"content":"<|user|>hi\n","add_special":true,"parse_special":true}` {
				answerJSON(200, `{"tokens":[]}`)(w, r)
				return
			}
			answerJSON(200, `{"tokens":[1,2,3]}`)(w, r)
		}
	}
	vllm := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path != "/tokenize" || !strings.Contains(string(body), `"messages":[{"role":"user","content":"hi"}]`) {
			answerJSON(404, `{"detail":"Not Found"}`)(w, r)
			return
		}
		answerJSON(200, `{"count":17,"max_model_len":4096,"tokens":[1]}`)(w, r)
	}
	for _, tt := range []struct {
		name     string
		quirks   []string
		upstream http.HandlerFunc
		want     string
		kind     string
	}{
		{"llama.cpp", []string{"tokenize:on"}, llama, `{"input_tokens":3}`, "exact"},
		{"vLLM", []string{"tokenize:on"}, vllm, `{"input_tokens":17}`, "exact"},
		{"an upstream that can't", []string{"tokenize:on"}, answerJSON(404, `{}`), `{"input_tokens":5}`, "estimate"},
		{"not asked for", nil, llama, `{"input_tokens":5}`, "estimate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream, func(c *config) { c.Quirks = tt.quirks })
			res := g.do("POST", "/v1/messages/count_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
			if body := readAll(t, res); body != tt.want || res.Header.Get("X-APIProxy-Token-Count") != tt.kind {
				t.Errorf("%s (%s), want %s (%s)", body, res.Header.Get("X-APIProxy-Token-Count"), tt.want, tt.kind)
			}
			if len(tt.quirks) > 0 && g.last().Header.Get("Authorization") != "Bearer "+testUpstream {
				t.Errorf("the upstream was asked without its key: %v", g.last().Header)
			}
		})
	}
}

// The quirk usage_inject asks for the usage of every stream, and keeps it from
// clients that did not ask (AC-14).
func TestUsageInject(t *testing.T) {
	const usageChunk = `data: {"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}` + "\n\n"
	for _, tt := range []struct{ name, quirk, body, sent, want string }{
		{"off", "usage_inject:off", `{"stream":true,"messages":[]}`, `{"stream":true,"messages":[]}`, textChunk("a") + finishChunk + usageChunk + doneEvent},
		{"on", "usage_inject:on", `{"stream":true,"messages":[]}`, `{"stream_options":{"include_usage":true},"stream":true,"messages":[]}`, textChunk("a") + finishChunk + doneEvent},
		{"the client asks itself", "usage_inject:on", `{"stream":true,"stream_options":{"include_usage":true},"messages":[]}`,
			`{"stream":true,"stream_options":{"include_usage":true},"messages":[]}`, textChunk("a") + finishChunk + usageChunk + doneEvent},
		{"the client says no", "usage_inject:on", `{"stream":true,"stream_options":{ "include_usage":false},"messages":[]}`,
			`{"stream":true,"stream_options":{"include_usage":true},"messages":[]}`, textChunk("a") + finishChunk + doneEvent},
		{"no stream", "usage_inject:on", `{"messages":[]}`, `{"messages":[]}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.want == "" {
					answerJSON(200, completion("a"))(w, r)
					return
				}
				answerStream(textChunk("a"), finishChunk+usageChunk[:30], usageChunk[30:]+doneEvent)(w, r)
			}, func(c *config) { c.Quirks = []string{tt.quirk} })
			_, body := g.chat(tt.body)
			if g.last().Body != tt.sent {
				t.Errorf("the upstream got %s, want %s", g.last().Body, tt.sent)
			}
			if tt.want != "" && body != tt.want {
				t.Errorf("the client got %q, want %q", body, tt.want)
			}
			if tt.quirk == "usage_inject:on" {
				eventually(t, "the usage in the log", func() bool { return strings.Contains(g.log.String(), `"prompt_tokens":3`) })
			}
		})
	}
}
