package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestRemedyFor(t *testing.T) {
	full := func() *chatRequest {
		return &chatRequest{
			Model: "m", Messages: []chatMessage{{Role: "developer", Content: textContent("s")}, {Role: "assistant", Content: textContent("a"), ReasoningContent: "r"}},
			Tools: []chatTool{{Type: "function", Function: chatFunction{Name: "f", Strict: json.RawMessage("true")}}}, ToolChoice: json.RawMessage(`"required"`),
			ParallelToolCalls: json.RawMessage("false"), Temperature: json.RawMessage("0.2"), TopP: json.RawMessage("0.5"), TopK: json.RawMessage("64"),
			Seed: json.RawMessage("1"), Stop: json.RawMessage(`["a","b","c","d","e"]`), ReasoningEffort: "minimal", MaxTokens: json.RawMessage("5"),
			ResponseFormat: &responseFormat{Type: "json_schema", JSONSchema: &jsonSchema{Name: "n", Schema: json.RawMessage(`{}`)}},
			User:           "u", StreamOptions: json.RawMessage(`{}`),
		}
	}
	for _, tt := range []struct{ name, err, want string }{
		{"OpenAI's max_tokens", `{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`, "max_tokens"},
		{"an unknown field", `{"error":{"message":"Unrecognized request argument supplied: top_k","type":"invalid_request_error","param":null,"code":null}}`, "top_k"},
		{"FastAPI's own shape", `{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted","input":64}]}`, "top_k"},
		{"FastAPI's, in a message", `{"detail":[{"type":"extra_forbidden","loc":["body","messages",1,"reasoning_content"],"msg":"Extra inputs are not permitted","input":"x"}]}`, "reasoning_content"},
		{"Mistral's", `{"object":"error","message":{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted","input":64}]},"type":"invalid_request_error","param":null,"code":null}`, "top_k"},
		{"a temperature that the client got wrong", `{"error":{"message":"Invalid value for 'temperature': must be between 0 and 2","param":"temperature"}}`, ""},
		{"a top_p that the client got wrong", `{"error":{"message":"Invalid 'top_p': decimal above maximum value. Expected a value <= 1, but got 5 instead.","param":"top_p","code":"decimal_above_max_value"}}`, ""},
		{"FastAPI's", `{"detail":[{"type":"extra_forbidden","loc":["body","top_k"],"msg":"Extra inputs are not permitted: top_k"}]}`, "top_k"},
		{"only the default", `{"error":{"message":"Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.","param":"temperature","code":"unsupported_value"}}`, "temperature"},
		{"a value out of range is the client's", `{"error":{"message":"Invalid value for 'top_k': must be at most 40","param":"top_k"}}`, ""},
		{"an effort that is refused", `{"error":{"message":"Unsupported value: 'reasoning_effort' does not support 'minimal'","param":"reasoning_effort","code":"unsupported_value"}}`, "reasoning_effort"},
		{"a field in a message", `{"error":{"message":"property 'messages.1.reasoning_content' is unsupported"}}`, "reasoning_content"},
		{"a role", `{"error":{"message":"unknown role 'developer'"}}`, "developer"},
		{"a schema", `{"error":{"message":"response_format of type json_schema is not supported"}}`, "response_format"},
		{"a name inside another", `{"error":{"message":"unknown field 'top_kk'"}}`, ""},
		{"a field that was not sent", `{"error":{"message":"unknown field 'verbosity'"}}`, ""},
		{"something else", `{"error":{"message":"model not loaded"}}`, ""},
		{"a forced tool", `{"error":{"message":"tool_choice 'required' is not supported by this server"}}`, "tool_choice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, ok := parseUpstreamError([]byte(tt.err))
			if !ok {
				t.Fatal("not read as an error")
			}
			if got := remedyFor(e, full()); got != tt.want {
				t.Errorf("remedyFor(%s) = %q, want %q", tt.err, got, tt.want)
			}
		})
	}
}

// choosy is an upstream that refuses requests with a field.
func choosy(field, refusal string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if member(body, field) != nil {
			answerJSON(400, refusal)(w, r)
			return
		}
		if string(member(body, "stream")) == "true" {
			answerStream(textChunk("ok"), finishChunk, doneEvent)(w, r)
			return
		}
		answerJSON(200, completion("ok"))(w, r)
	}
}

const (
	refusesTopK = `{"error":{"message":"Unrecognized request argument supplied: top_k","type":"invalid_request_error","param":null,"code":null}}`
	geminiTopK  = `{"contents":[{"role":"user","parts":[{"text":"hi"}]}],"generationConfig":{"topK":64}}`
)

// A field that the upstream refuses is left out, at once and from then on
// (dialects E-30).
func TestLearnOverTheWire(t *testing.T) {
	g := newGateway(t, choosy("top_k", refusesTopK))
	for i, want := range []int{2, 3, 4} { // requests of the upstream in all
		path := []string{geminiPath, geminiSSE, geminiPath}[i]
		res, got := g.post(path, geminiTopK)
		if res.StatusCode != 200 || res.Header.Get("X-APIProxy-Dropped") != "top_k" || !strings.Contains(got, `"text":"ok"`) {
			t.Fatalf("request %d: %d, dropped %q: %s", i, res.StatusCode, res.Header.Get("X-APIProxy-Dropped"), got)
		}
		if n := len(g.upstream.all()); n != want {
			t.Errorf("request %d: the upstream has been asked %d times, want %d", i, n, want)
		}
	}
	before := len(g.upstream.all())
	g.ok(strings.Replace(geminiPath, "/m:", "/n:", 1), geminiTopK)
	if n := len(g.upstream.all()) - before; n != 2 {
		t.Errorf("what one model refuses was not tried with another: %d requests", n)
	}
	g.ok(messagesPath, strings.Replace(anthropicHi, `"max_tokens"`, `"top_k":5,"max_tokens"`, 1))
	wants(t, g.last().Body, map[string]string{"top_k": "", "max_tokens": "9"})
}

// The value moves to the field that the upstream wants.
func TestLearnMaxTokens(t *testing.T) {
	g := newGateway(t, choosy("max_tokens", `{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","type":"invalid_request_error","param":"max_tokens","code":"unsupported_parameter"}}`))
	g.ok(messagesPath, anthropicHi)
	wants(t, g.last().Body, map[string]string{"max_tokens": "", "max_completion_tokens": "9"})
}

// Where nothing can be learned, the client has the error after one try.
func TestLearnNothing(t *testing.T) {
	topK := strings.Replace(anthropicHi, `"max_tokens"`, `"top_k":5,"max_tokens"`, 1)
	for _, tt := range []struct {
		name, refusal, path, body string
		quirks                    []string
	}{
		{"passed through", refusesTopK, "/v1/chat/completions", topK, nil},
		{"the client's own value", `{"error":{"message":"Invalid value for top_k: must be at most 4","param":"top_k"}}`, messagesPath, topK, nil},
		{"something else", `{"error":{"message":"Unknown model m"}}`, messagesPath, topK, nil},
		{"switched off", refusesTopK, messagesPath, topK, []string{"learn:off"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, choosy("top_k", tt.refusal), withQuirks(tt.quirks...))
			res, got := g.post(tt.path, tt.body)
			if n := len(g.upstream.all()); res.StatusCode != 400 || n != 1 || res.Header.Get("X-APIProxy-Dropped") != "" {
				t.Errorf("%d after %d tries, dropped %q: %s", res.StatusCode, n, res.Header.Get("X-APIProxy-Dropped"), got)
			}
		})
	}
}

// What did not help is not remembered, and the error is the client's.
func TestLearnInVain(t *testing.T) {
	g := newGateway(t, answerJSON(400, refusesTopK))
	for i := range 2 {
		res, got := g.post(geminiPath, geminiTopK)
		if n := len(g.upstream.all()); res.StatusCode != 400 || n != 2*(i+1) || !strings.Contains(got, "Unrecognized request argument") {
			t.Errorf("%d after %d tries: %s", res.StatusCode, n, got)
		}
	}
}

// An upstream may refuse several fields one after another, but not without end.
func TestLearnSeveral(t *testing.T) {
	fields := []string{"top_k", "seed", "temperature", "top_p"}
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, f := range fields {
			if member(body, f) != nil {
				answerJSON(422, fmt.Sprintf(`{"error":{"message":"unknown field '%s'"}}`, f))(w, r)
				return
			}
		}
		answerJSON(200, completion("ok"))(w, r)
	})
	const body = `{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"topK":64,"seed":1,"temperature":0.5%s}}`
	res, got := g.post(geminiPath, fmt.Sprintf(body, ""))
	if dropped := res.Header.Get("X-APIProxy-Dropped"); res.StatusCode != 200 || dropped != "top_k,seed,temperature" {
		t.Errorf("%d, dropped %q: %s", res.StatusCode, dropped, got)
	}
	h := newGateway(t, g.upstream.next)
	if res, _ := h.post(geminiPath, fmt.Sprintf(body, `,"topP":0.5`)); res.StatusCode != 400 || len(h.upstream.all()) != 1+maxRemedies {
		t.Errorf("%d after %d tries", res.StatusCode, len(h.upstream.all()))
	}
}

// A compressed refusal is understood too.
func TestLearnCompressed(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if member(body, "top_k") == nil {
			answerJSON(200, completion("ok"))(w, r)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(400)
		z := gzip.NewWriter(w)
		io.WriteString(z, refusesTopK)
		z.Close()
	})
	g.ok(geminiPath, geminiTopK)
}
