package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// The cases that are most likely to break an implementation, by their numbers in
// dialects H, each through the gateway.

// post sends a body and returns the answer with its body read.
func (g *gateway) post(path, body string, headers ...string) (*http.Response, string) {
	g.t.Helper()
	res := g.do("POST", path, body, headers...)
	return res, readAll(g.t, res)
}

// ok is post for requests that must be answered with 200.
func (g *gateway) ok(path, body string, headers ...string) string {
	g.t.Helper()
	res, got := g.post(path, body, headers...)
	if res.StatusCode != http.StatusOK {
		g.t.Fatalf("POST %s: %d %s", path, res.StatusCode, got)
	}
	return got
}

// sent is a member of the last body that the upstream got; "" when there is none.
func (g *gateway) sent(key string) string {
	g.t.Helper()
	return string(member([]byte(g.last().Body), key))
}

// at is the raw value at a path of keys and indexes: "a.0.b".
func at(t *testing.T, raw, path string) string {
	t.Helper()
	v := []byte(raw)
	for step := range strings.SplitSeq(path, ".") {
		if !isArray(v) {
			v = member(v, step)
			continue
		}
		n := 0
		var found []byte
		for e := range elements(v) {
			if fmt.Sprint(n) == step {
				found = e
			}
			n++
		}
		v = found
	}
	return string(v)
}

// wants checks values of a JSON text by their paths.
func wants(t *testing.T, raw string, values map[string]string) {
	t.Helper()
	for path, want := range values {
		if got := at(t, raw, path); got != want {
			t.Errorf("%s is %s, want %s, in\n%s", path, got, want, raw)
		}
	}
}

// chunkOf is a stream's event whose one choice has that delta.
func chunkOf(delta string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":` + delta + `,"finish_reason":null}]}` + "\n\n"
}

// finishOf is the event that ends a choice.
func finishOf(reason string) string {
	return `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}` + "\n\n"
}

const usageEvent = `data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":6}}}` + "\n\n"

// messageAnswer is an upstream that answers with one message.
func messageAnswer(message, finish string) http.HandlerFunc {
	return answerJSON(200, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":`+message+`,"finish_reason":"`+finish+
		`"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":6}}}`)
}

// Paths and the simplest requests of the dialects that are converted.
const (
	messagesPath  = "/v1/messages"
	responsesPath = "/v1/responses"
	geminiPath    = "/v1beta/models/m:generateContent"
	geminiSSE     = "/v1beta/models/m:streamGenerateContent?alt=sse"
	geminiArray   = "/v1beta/models/m:streamGenerateContent"

	anthropicHi = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
	responsesHi = `{"model":"m","input":"hi"}`
	geminiHi    = `{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}`

	anthropicHiStream = `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
	responsesHiStream = `{"model":"m","stream":true,"input":"hi"}`
)

// An OpenAI body is left alone, whatever a converter has left on it (1, 2).
func TestCase01And02LeftAlone(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	for _, tt := range []struct{ name, body, header string }{
		{"01 another vendor's header", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"prompt_cache_key":"k"}`, "Anthropic-Version: 2023-06-01"},
		{"02 thinking of an OpenAI client", `{"model":"m","messages":[{"role":"user","content":"hi"}],"thinking":{"type":"enabled"}}`, "X-A: b"},
		{"02 Mistral's thinking", `{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]}]},{"role":"user","content":"hi"}]}`, "X-A: b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, got := g.post("/v1/chat/completions", tt.body, tt.header)
			if g.last().Body != tt.body || got != completion("ok") {
				t.Errorf("sent %s\nand answered %s", g.last().Body, got)
			}
			if h := res.Header; h.Get("X-APIProxy-Fidelity") != "exact" || h.Get("X-APIProxy-Dialect") != "openai" {
				t.Errorf("headers %v", h)
			}
		})
	}
}

// A body in another dialect on the chat path is converted, and answered as chat
// (3, 4, 5).
func TestCase03To05OnTheChatPath(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	for _, tt := range []struct{ name, body, dialect, messages string }{
		{"03 a tool result is all the evidence", `{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"}]}]}`,
			"anthropic", `[{"role":"tool","tool_call_id":"a","content":"1"}]`},
		{"04 a list with Gemini's role", `{"model":"m","input":[{"role":"model","content":[{"type":"text","text":"x"}]}]}`,
			"responses", `[{"role":"assistant","content":"x"}]`},
		{"05 messages decide", `{"messages":[{"role":"user","content":"a"}],"contents":[{"parts":[{"text":"b"}]}]}`,
			"openai", `[{"role":"user","content":"a"}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, got := g.post("/v1/chat/completions", tt.body)
			if res.StatusCode != 200 || res.Header.Get("X-APIProxy-Dialect") != tt.dialect {
				t.Fatalf("%d, dialect %q: %s", res.StatusCode, res.Header.Get("X-APIProxy-Dialect"), got)
			}
			if got := g.sent("messages"); got != tt.messages {
				t.Errorf("sent %s, want %s", got, tt.messages)
			}
			wants(t, got, map[string]string{"object": `"chat.completion"`, "choices.0.message.content": `"ok"`})
		})
	}
}

func TestCase06LastColonSplits(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(member(body, "stream")) == "true" {
			answerStream(textChunk("ok"), finishChunk, doneEvent)(w, r)
			return
		}
		answerJSON(200, completion("ok"))(w, r)
	})
	for path, model := range map[string]string{
		"/v1beta/models/qwen3:8b:streamGenerateContent": "qwen3:8b",
		"/v1beta/models/org%2Fm:generateContent":        "org/m",
		"/v1/models/org/m:generateContent":              "org/m",
		"/v1alpha/models/m:generateContent":             "m",
	} {
		got := g.ok(path, geminiHi)
		if sent := g.sent("model"); sent != `"`+model+`"` {
			t.Errorf("%s: the upstream was asked for %s", path, sent)
		}
		if !strings.Contains(got, `"modelVersion":"`+model+`"`) {
			t.Errorf("%s: answered %s", path, got)
		}
	}
}

func TestCase07SnakeCase(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	g.ok(geminiPath, `{"systemInstruction":{"parts":[{"text":"s"}]},"generationConfig":{"maxOutputTokens":5,"topP":0.5},"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"AA=="}},{"text":"x"}]}]}`)
	camel := g.last().Body
	g.ok(geminiPath, `{"system_instruction":{"parts":[{"text":"s"}]},"generation_config":{"max_output_tokens":5,"top_p":0.5},"contents":[{"role":"user","parts":[{"inline_data":{"mime_type":"image/png","data":"AA=="}},{"text":"x"}]}]}`)
	if snake := g.last().Body; snake != camel {
		t.Errorf("snake case became\n%s\ncamel case\n%s", snake, camel)
	}
	wants(t, camel, map[string]string{"max_tokens": "5", "messages.0.content": `"s"`, "messages.1.content.0.image_url.url": `"data:image/png;base64,AA=="`})
}

func TestCase08Schema(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	g.ok(geminiPath, `{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true},"n":{"type":"ARRAY","maxItems":"3","items":{"type":"INTEGER"}}}}}]}]}`)
	const want = `{"type":"object","properties":{"type":{"type":["string","null"]},"n":{"type":"array","maxItems":3,"items":{"type":"integer"}}}}`
	wants(t, g.last().Body, map[string]string{"tools.0.function.parameters": want})
}

// twoCalls is a conversation with two calls of one function, without ids.
func twoCalls(results string) string {
	return `{"contents":[{"role":"user","parts":[{"text":"x"}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":1}}},{"functionCall":{"name":"f","args":{"a":2}}}]},` + results +
		`],"tools":[{"functionDeclarations":[{"name":"f"}]}]}`
}

func TestCase09CallsWithoutIDs(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	one, two := `{"functionResponse":{"name":"f","response":{"r":1}}}`, `{"functionResponse":{"name":"f","response":{"r":2}}}`
	for name, results := range map[string]string{
		"in one turn":  `{"role":"user","parts":[` + one + `,` + two + `]}`,
		"in two turns": `{"role":"user","parts":[` + one + `]},{"role":"user","parts":[` + two + `]}`,
	} {
		g.ok(geminiPath, twoCalls(results))
		body := g.last().Body
		ids := []string{at(t, body, "messages.1.tool_calls.0.id"), at(t, body, "messages.1.tool_calls.1.id")}
		if ids[0] == "" || ids[0] == ids[1] {
			t.Errorf("%s: ids %v", name, ids)
		}
		wants(t, body, map[string]string{
			"messages.2.role": `"tool"`, "messages.2.tool_call_id": ids[0], "messages.3.role": `"tool"`, "messages.3.tool_call_id": ids[1], "messages.4": "",
		})
		if !strings.Contains(at(t, body, "messages.2.content"), "1") || !strings.Contains(at(t, body, "messages.3.content"), "2") {
			t.Errorf("%s: results are with the wrong calls: %s", name, body)
		}
	}
}

// A prompt cache finds the beginning again (AC-9).
func TestCase10LongerBeginsWithShorter(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	results := `{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"r":1}}},{"functionResponse":{"name":"f","response":{"r":2}}}]}`
	for _, tt := range []struct{ path, shorter, longer string }{
		{geminiPath, twoCalls(results), twoCalls(results + `,{"role":"model","parts":[{"text":"ok"}]},{"role":"user","parts":[{"text":"y"}]}`)},
		{messagesPath, anthropicHi, strings.Replace(anthropicHi, `"hi"}`, `"hi"},{"role":"assistant","content":[{"type":"text","text":"a"}]},{"role":"user","content":"b"}`, 1)},
		{responsesPath, `{"model":"m","instructions":"s","input":[{"role":"user","content":"a"}]}`, `{"model":"m","instructions":"s","input":[{"role":"user","content":"a"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"b"}]},{"role":"user","content":"c"}]}`},
	} {
		g.ok(tt.path, tt.shorter)
		head := g.last().Body
		head = strings.TrimSuffix(head, afterMessages(head))
		g.ok(tt.path, tt.longer)
		if body := g.last().Body; len(head) < 40 || !strings.HasPrefix(body, head) {
			t.Errorf("%s: the shorter request begins\n%s\nthe longer one is\n%s", tt.path, head, body)
		}
	}
}

// afterMessages is what stands after a request's messages: "]" and the rest.
func afterMessages(body string) string {
	messages := string(member([]byte(body), "messages"))
	_, rest, _ := strings.Cut(body, messages)
	return "]" + rest
}

func TestCase11ArgumentsAreKept(t *testing.T) {
	const args = `{"b":1,"a":12345678901234567}`
	g := newGateway(t, messageAnswer(`{"role":"assistant","content":null,"tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":`+string(appendQuoted(nil, args))+`}}]}`, "tool_calls"))
	got := g.ok(geminiPath, `{"contents":[{"role":"user","parts":[{"text":"x"}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":`+args+`}}]},{"role":"user","parts":[{"functionResponse":{"name":"f","response":{}}}]}],"tools":[{"functionDeclarations":[{"name":"f"}]}]}`)
	wants(t, g.last().Body, map[string]string{"messages.1.tool_calls.0.function.arguments": string(appendQuoted(nil, args))})
	wants(t, got, map[string]string{"candidates.0.content.parts.0.functionCall.args": args, "candidates.0.content.parts.0.functionCall.id": `"abcdefghi"`})
}

func TestCase12AllowedFunctions(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	g.ok(geminiPath, `{"contents":[{"parts":[{"text":"x"}]}],"tools":[{"functionDeclarations":[{"name":"f"},{"name":"g"},{"name":"h"}]}],"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f","h"]}}}`)
	wants(t, g.last().Body, map[string]string{"tool_choice": `"required"`, "tools.0.function.name": `"f"`, "tools.1.function.name": `"h"`, "tools.2": ""})
}

func TestCase13GeminiStream(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("A"), textChunk("B"), finishChunk, usageEvent, doneEvent))
	res, got := g.post(geminiSSE, geminiHi)
	read := checkGeminiStream(t, true, []byte(got))
	if read.text[0] != "AB" || read.finish[0] != "STOP" || !strings.Contains(got, `"promptTokenCount":10`) || strings.Contains(got, "DONE") {
		t.Errorf("the stream is %s", got)
	}
	if ct := res.Header.Get("Content-Type"); ct != "text/event-stream; charset=utf-8" {
		t.Errorf("Content-Type %q", ct)
	}
	wants(t, g.last().Body, map[string]string{"stream": "true", "stream_options": `{"include_usage":true}`})
}

func TestCase14ArrayCutByAnError(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("A"), textChunk("B"), textChunk("C"), `data: {"error":{"message":"too busy","code":503}}`+"\n\n"))
	res, got := g.post(geminiArray, geminiHi)
	if read := checkGeminiStream(t, false, []byte(got)); read.errorCode != 503 || !strings.HasPrefix("ABC", read.text[0]) || read.text[0] == "" {
		t.Errorf("the array is %s", got)
	}
	if ct := res.Header.Get("Content-Type"); res.StatusCode != 200 || ct != "application/json" {
		t.Errorf("%d, Content-Type %q", res.StatusCode, ct)
	}
}

func TestCase15ThinkingBudgets(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	for config, want := range map[string]string{
		`"thinkingBudget":0`: `"none"`, `"thinkingBudget":-1`: "", `"thinkingBudget":512`: `"low"`, `"thinkingLevel":"HIGH","thinkingBudget":512`: `"high"`,
	} {
		g.ok(geminiPath, `{"contents":[{"parts":[{"text":"x"}]}],"generationConfig":{"thinkingConfig":{`+config+`}}}`)
		if got := g.sent("reasoning_effort"); got != want {
			t.Errorf("%s: reasoning_effort %s, want %s", config, got, want)
		}
	}
}

func TestCase16To18AnthropicTurns(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	for _, tt := range []struct{ name, body, want string }{
		{"16 text before two results, one with a picture",
			`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"w?"},{"role":"assistant","content":[{"type":"text","text":"see"},{"type":"tool_use","id":"t1","name":"f","input":{"z":1,"a":2}},{"type":"tool_use","id":"t2","name":"g","input":{}}]},{"role":"user","content":[{"type":"text","text":"and?"},{"type":"tool_result","tool_use_id":"t1","content":"1"},{"type":"tool_result","tool_use_id":"t2","is_error":true,"content":[{"type":"text","text":"no"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}}]}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":"w?"},{"role":"assistant","content":"see","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"z\":1,\"a\":2}"}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]},{"role":"tool","tool_call_id":"t1","content":"1"},{"role":"tool","tool_call_id":"t2","content":"Error: no"},{"role":"user","content":[{"type":"text","text":"Attachment of tool call t2:"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},{"type":"text","text":"and?"}]}],"max_tokens":9}`},
		{"17 text after a call",
			`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"tool_use","id":"t1","name":"f","input":{}},{"type":"text","text":"y"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"1"}]}]}`,
			`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"xy","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"t1","content":"1"}],"max_tokens":9}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g.ok(messagesPath, tt.body)
			if got := g.last().Body; got != tt.want {
				t.Errorf("sent\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
	t.Run("18 what a server tool did", func(t *testing.T) {
		g.ok(messagesPath, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"server_tool_use","id":"s1","name":"web_search","input":{"query":"q"}},{"type":"web_search_tool_result","tool_use_id":"s1","content":[{"type":"web_search_result","title":"T","url":"https://t.example"}]},{"type":"text","text":"found"}]},{"role":"user","content":"b"}]}`)
		body := g.last().Body
		if got := at(t, body, "messages.1.content"); !strings.Contains(got, "[web_search]") || !strings.Contains(got, "found") {
			t.Errorf("the assistant said %s", got)
		}
		if strings.Contains(body, "tool_calls") || strings.Contains(body, `"role":"tool"`) {
			t.Errorf("a call that nobody answers: %s", body)
		}
	})
}

// What upstreams stream, and what Anthropic's clients see of it (19 to 23).
func TestCase19To23AnthropicStreams(t *testing.T) {
	call := func(entry string) string { return chunkOf(`{"tool_calls":[` + entry + `]}`) }
	for _, tt := range []struct {
		name, upstream, want string
	}{
		{"19 interleaved calls", call(`{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}`) + call(`{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}`) +
			call(`{"index":0,"function":{"arguments":"{\"x\""}}`) + call(`{"index":1,"function":{"arguments":"{}"}}`) + call(`{"index":0,"function":{"arguments":":1}"}}`) + finishOf("tool_calls"),
			"start 0 tool_use a f\n0 partial_json {\"x\"\n0 partial_json :1}\nstop 0\nstart 1 tool_use b g\n1 partial_json {}\nstop 1\nend tool_use"},
		{"20 a blank line between calls, and text after them", call(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`) + chunkOf(`{"content":"\n"}`) +
			call(`{"index":1,"id":"b","function":{"name":"g","arguments":"{}"}}`) + chunkOf(`{"content":"done"}`) + finishOf("tool_calls"),
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b g\n1 partial_json {}\nstop 1\nstart 2 text\n2 text \ndone\nstop 2\nend tool_use"},
		{"21 all calls at index 0", call(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`) + call(`{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}`) + finishOf("tool_calls"),
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b f\n1 partial_json {}\nstop 1\nend tool_use"},
		{"21 calls without an index", call(`{"id":"a","function":{"name":"f","arguments":"{"}},{"id":"b","function":{"name":"g","arguments":"{}"}}`) + finishOf("tool_calls"), ""},
		{"23 cut in the middle of arguments", call(`{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":"}}`) + finishOf("length"),
			"start 0 tool_use a f\n0 partial_json {\"x\":\nstop 0\nend max_tokens"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerStream(tt.upstream, doneEvent))
			got := g.ok(messagesPath, anthropicHiStream)
			if lines := brief(t, []byte(got)); tt.want != "" && lines != tt.want {
				t.Errorf("the client saw\n%s\nwant\n%s", lines, tt.want)
			}
			if tt.want == "" && strings.Count(got, `"type":"tool_use"`) != 2 {
				t.Errorf("want two calls in\n%s", got)
			}
		})
	}
	t.Run("22 Ollama's calls", func(t *testing.T) {
		g := newGateway(t, answerStream(chunkOf(`{"tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]}`)+finishOf("stop"), doneEvent))
		seen := checkAnthropicStream(t, []byte(g.ok(messagesPath, anthropicHiStream)))
		if len(seen.blocks) != 1 || len(seen.blocks[0].id) != 9 || seen.blocks[0].content != `{"x":1}` || seen.stopReason != "tool_use" {
			t.Errorf("the client saw %+v", seen)
		}
	})
}

func TestCase24EveryEventIsNamed(t *testing.T) {
	g := newGateway(t, answerStream(chunkOf(`{"reasoning_content":"hm"}`), textChunk("A"), finishChunk, usageEvent, doneEvent))
	got := g.ok(messagesPath, strings.Replace(anthropicHiStream, `"stream"`, `"thinking":{"type":"enabled","budget_tokens":1024},"stream"`, 1))
	for _, event := range strings.Split(strings.TrimSuffix(got, "\n\n"), "\n\n") {
		name, data, ok := strings.Cut(event, "\ndata: ")
		if !ok || name != "event: "+text(member([]byte(data), "type")) {
			t.Errorf("an event that the SDK does not see: %q", event)
		}
	}
	if brief(t, []byte(got)); !strings.Contains(got, "thinking_delta") {
		t.Errorf("no thinking in %s", got)
	}
}

// Usage, wherever it stands, is counted once (25), in the terms of each dialect
// (26).
func TestCase25And26Usage(t *testing.T) {
	every := func(s string, completion int) string {
		return strings.Replace(s, `"finish_reason"`, `"x":0,"finish_reason"`, 1)[:len(s)-3+len(`"x":0,`)] + fmt.Sprintf(`,"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":6}}}`, completion) + "\n\n"
	}
	streams := map[string]string{
		"in the last chunk": textChunk("A") + finishChunk + usageEvent,
		"in every chunk":    every(textChunk("A"), 1) + every(finishChunk, 4),
		"in neither":        textChunk("A") + finishChunk,
	}
	for name, stream := range streams {
		t.Run("25 "+name, func(t *testing.T) {
			g := newGateway(t, answerStream(stream, doneEvent))
			seen := checkAnthropicStream(t, []byte(g.ok(messagesPath, anthropicHiStream)))
			in, out := fmt.Sprint(seen.usage["input_tokens"]), fmt.Sprint(seen.usage["output_tokens"])
			if name != "in neither" && (in != "4" || out != "4") || name == "in neither" && (in == "0" || out == "0") {
				t.Errorf("usage %v", seen.usage)
			}
		})
	}
	g := newGateway(t, messageAnswer(`{"role":"assistant","content":"A"}`, "stop"))
	wants(t, g.ok(messagesPath, anthropicHi), map[string]string{"usage.input_tokens": "4", "usage.cache_read_input_tokens": "6", "usage.output_tokens": "4"})
	wants(t, g.ok(responsesPath, responsesHi), map[string]string{"usage.input_tokens": "10", "usage.input_tokens_details.cached_tokens": "6", "usage.output_tokens": "4", "usage.total_tokens": "14"})
	wants(t, g.ok(geminiPath, geminiHi), map[string]string{"usageMetadata.promptTokenCount": "10", "usageMetadata.cachedContentTokenCount": "6", "usageMetadata.candidatesTokenCount": "4", "usageMetadata.totalTokenCount": "14"})
}

// What makes a request long counts (AC-21).
func TestCase27CountsGrow(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	count := func(result, description string) int64 {
		body := `{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"` + result + `"}]}],"tools":[{"name":"f","description":"` + description + `","input_schema":{"type":"object"}}]}`
		res, got := g.post("/v1/messages/count_tokens", body)
		if res.StatusCode != 200 || res.Header.Get("X-APIProxy-Token-Count") != "estimate" {
			t.Fatalf("%d %v %s", res.StatusCode, res.Header, got)
		}
		return intOf(member([]byte(got), "input_tokens"))
	}
	long := strings.Repeat("many words ", 400)
	small, results, tools := count("1", "d"), count(long, "d"), count("1", long)
	if small < 20 || results < small+500 || tools < small+500 {
		t.Errorf("counted %d, with a long result %d, with a long tool %d", small, results, tools)
	}
	if n := len(g.upstream.all()); n != 0 {
		t.Errorf("the upstream was asked %d times", n)
	}
}

// One list, in the shape of who asks (AC-25).
func TestCase28ModelsInThreeShapes(t *testing.T) {
	g := newGateway(t, answerJSON(200, `{"object":"list","data":[{"id":"m","object":"model","created":1,"owned_by":"o"}]}`))
	get := func(path string, headers ...string) string { return readAll(t, g.do("GET", path, "", headers...)) }
	wants(t, get("/v1/models"), map[string]string{"object": `"list"`, "data.0.object": `"model"`})
	wants(t, get("/v1/models", "Anthropic-Version: 2023-06-01"), map[string]string{"object": "", "data.0.type": `"model"`, "has_more": "false", "first_id": `"m"`})
	wants(t, get("/v1beta/models"), map[string]string{"models.0.name": `"models/m"`})
	wants(t, get("/v1/models", "X-Goog-Api-Key: "+testKey, "Authorization: "), map[string]string{"models.0.name": `"models/m"`})
}

func TestCase29Overflow(t *testing.T) {
	g := newGateway(t, answerJSON(400, `{"error":{"message":"This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.","type":"invalid_request_error","param":"messages","code":null}}`))
	_, got := g.post(messagesPath, anthropicHi)
	wants(t, got, map[string]string{"error.type": `"invalid_request_error"`, "error.message": `"prompt is too long: 9000 tokens > 8192 maximum"`})
	_, got = g.post(responsesPath, responsesHi)
	wants(t, got, map[string]string{"error.code": `"context_length_exceeded"`})
	res, got := g.post(geminiPath, geminiHi)
	wants(t, got, map[string]string{"error.status": `"INVALID_ARGUMENT"`, "error.code": "400"})
	if res.StatusCode != 400 || !strings.Contains(got, "exceeds the maximum number of tokens") {
		t.Errorf("%d %s", res.StatusCode, got)
	}
}

// An upstream that fails before it has said anything gets a status (30, AC-11).
func TestCase30EarlyErrorInAStream(t *testing.T) {
	for _, c := range vendorClients {
		t.Run(c.name, func(t *testing.T) {
			for status, want := range map[int]int{429: 429, 503: map[bool]int{true: 529, false: 503}[c.name == "anthropic"], 400: 400} {
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Retry-After", "17")
					answerStream(": hello\n\n", fmt.Sprintf(`data: {"error":{"message":"no","code":%d}}`+"\n\n", status))(w, r)
				})
				res, got := g.post(c.streamPath, c.streamBody)
				if res.StatusCode != want || res.Header.Get("Retry-After") != "17" || !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
					t.Errorf("%d: got %d %v %s", status, res.StatusCode, res.Header, got)
				}
				if strings.Contains(got, "data:") || checkJSON([]byte(got)) != nil {
					t.Errorf("%d: the body is %s", status, got)
				}
			}
		})
	}
}

// An error after the beginning is a frame, and nothing after it says that all is
// well (31).
func TestCase31LateErrorInAStream(t *testing.T) {
	ten := strings.Repeat(textChunk("word "), 10)
	for _, c := range vendorClients {
		for what, end := range map[string]string{
			"error": `data: {"error":{"message":"too busy","code":503}}` + "\n\n",
			"event": "event: error\ndata: {\"message\":\"too busy\",\"code\":503}\n\n",
			"cut":   "",
		} {
			t.Run(c.name+" "+what, func(t *testing.T) {
				g := newGateway(t, answerStream(ten, end))
				_, got := g.post(c.streamPath, c.streamBody, "X-Session-Id: s")
				if said := c.check(t, got); !said.failed || !strings.HasPrefix(said.text, "word word") {
					t.Errorf("the client read %+v of\n%s", said, got)
				}
				if res := g.do("GET", "/context/s", ""); res.StatusCode != 404 { // AC-10
					t.Errorf("a turn that failed is kept: %d", res.StatusCode)
				}
				eventually(t, "the log line", func() bool { return strings.Contains(g.log.String(), `"outcome":"incomplete"`) })
			})
		}
	}
}

func TestCase32Ends(t *testing.T) {
	for _, c := range vendorClients {
		for what, tt := range map[string]struct {
			end    string
			quirks []string
			failed bool
		}{
			"nothing":                 {"", nil, true},
			"finish alone":            {finishChunk, nil, false},
			"nothing, leniently":      {"", []string{"lenient_eof:on"}, false},
			"a cut call, leniently":   {chunkOf(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"a"}}]}`), []string{"lenient_eof:on"}, true},
			"a whole call, leniently": {chunkOf(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`), []string{"lenient_eof:on"}, false},
		} {
			t.Run(c.name+" "+what, func(t *testing.T) {
				g := newGateway(t, answerStream(textChunk("A"), tt.end), func(cfg *config) { cfg.Quirks = tt.quirks })
				got := g.ok(c.streamPath, c.streamBody)
				if said := c.check(t, got); said.failed != tt.failed {
					t.Errorf("failed: %t, want %t, in\n%s", said.failed, tt.failed, got)
				}
			})
		}
	}
}

// A patch comes out as it went in (AC-23).
func TestCase33Patch(t *testing.T) {
	const patch = "*** Begin Patch\n+say \"a\\b\"\n\\\n*** End Patch\n"
	args := string(appendQuoted(nil, `{"input":`+string(appendQuoted(nil, patch))+`}`))
	call := func(args string) string {
		return `{"tool_calls":[{"index":0,"id":"abcdefghi","type":"function","function":{"name":"apply_patch","arguments":` + args + `}}]}`
	}
	g := newGateway(t, answerStream(chunkOf(call(args[:20]+`"`)), chunkOf(strings.Replace(call(`"`+args[20:]), `"id":"abcdefghi","type":"function",`, "", 1)), finishOf("tool_calls"), doneEvent))
	got := g.ok(responsesPath, `{"model":"m","stream":true,"input":"x","tools":[{"type":"custom","name":"apply_patch","format":{"type":"grammar","syntax":"lark","definition":"start: X"}}]}`)
	read := checkResponsesStream(t, []byte(got))
	wants(t, string(read.object), map[string]string{"output.0.type": `"custom_tool_call"`, "output.0.input": string(appendQuoted(nil, patch)), "output.0.name": `"apply_patch"`})
	wants(t, g.last().Body, map[string]string{"tools.0.function.name": `"apply_patch"`, "tools.0.function.parameters.required": `["input"]`})
}

func TestCase34Namespace(t *testing.T) {
	g := newGateway(t, messageAnswer(`{"role":"assistant","content":null,"tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"mcp__files__read","arguments":"{}"}}]}`, "tool_calls"))
	const tools = `"tools":[{"type":"namespace","name":"mcp__files","description":"d","tools":[{"type":"function","name":"read","parameters":{"type":"object","properties":{}}}]}]`
	got := g.ok(responsesPath, `{"model":"m","input":"x",`+tools+`}`)
	wants(t, got, map[string]string{"output.0.type": `"function_call"`, "output.0.name": `"read"`, "output.0.namespace": `"mcp__files"`})
	g.ok(responsesPath, `{"model":"m","input":[{"role":"user","content":"x"},`+at(t, got, "output.0")+`,{"type":"function_call_output","call_id":"abcdefghi","output":"1"}],`+tools+`}`)
	wants(t, g.last().Body, map[string]string{"messages.1.tool_calls.0.function.name": `"mcp__files__read"`, "messages.2.tool_call_id": `"abcdefghi"`})
}

func TestCase35TextBetweenCallAndResult(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	g.ok(responsesPath, `{"model":"m","input":[{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"role":"assistant","content":"wait"},{"type":"function_call_output","call_id":"c1","output":"1"},{"type":"function_call","call_id":"c2","name":"f","arguments":"{}"},{"role":"user","content":"go on"}]}`)
	const want = `[{"role":"assistant","content":"wait","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"1"},` +
		`{"role":"assistant","content":null,"tool_calls":[{"id":"c2","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c2","content":"[no output]"},{"role":"user","content":"go on"}]`
	if got := g.sent("messages"); got != want {
		t.Errorf("sent\n%s\nwant\n%s", got, want)
	}
}

func TestCase36ResponsesStream(t *testing.T) {
	g := newGateway(t, answerStream(chunkOf(`{"reasoning_content":"hm"}`), textChunk("A"), textChunk("B"),
		chunkOf(`{"tool_calls":[{"index":0,"id":"abcdefghi","function":{"name":"f","arguments":"{}"}}]}`), finishOf("tool_calls"), usageEvent, doneEvent))
	got := g.ok(responsesPath, `{"model":"m","stream":true,"input":"hi","tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{}}}]}`)
	read := checkResponsesStream(t, []byte(got))
	if read.status != "completed" || read.text != "AB" || len(read.calls) != 1 || !strings.HasSuffix(got, "data: [DONE]\n\n") {
		t.Errorf("the client read %+v", read)
	}
}

func TestCase37UnknownPreviousResponse(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	create := func(body string) string { return text(member([]byte(g.ok(responsesPath, body)), "id")) }
	kept, gone, unkept := create(responsesHi), create(responsesHi), create(`{"model":"m","input":"hi","store":false}`)
	if res := g.do("DELETE", responsesPath+"/"+gone, ""); res.StatusCode != 200 {
		t.Fatalf("DELETE: %d", res.StatusCode)
	}
	for name, ask := range map[string][2]string{
		"another key": {kept, "Authorization: Bearer " + otherKey}, "deleted": {gone, "X-A: b"}, "not stored": {unkept, "X-A: b"},
	} {
		res, got := g.post(responsesPath, `{"model":"m","input":"and?","previous_response_id":"`+ask[0]+`"}`, ask[1])
		if res.StatusCode != 400 && res.StatusCode != 404 || at(t, got, "error.code") != `"previous_response_not_found"` {
			t.Errorf("%s: %d %s", name, res.StatusCode, got)
		}
	}
	g.ok(responsesPath, `{"model":"m","input":"and?","previous_response_id":"`+kept+`"}`)
	if got := g.sent("messages"); got != `[{"role":"user","content":"hi"},{"role":"assistant","content":"ok"},{"role":"user","content":"and?"}]` {
		t.Errorf("sent %s", got)
	}
}

// The cases of the Open Responses suite, twice at once (38).
func TestCase38Compliance(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		message := `{"role":"assistant","content":"ok"}`
		if choice := member(body, "tool_choice"); len(choice) > 0 && string(choice) != `"none"` {
			message = callsMsg("abcdefghi")
		}
		answerMessage(w, message, string(member(body, "stream")) == "true")
	})
	const tool = `"tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{}}}],"tool_choice":"required"`
	for name, body := range map[string]string{
		"basic":         `{"model":"m","input":[{"type":"message","role":"user","content":"hi"}]}`,
		"stream":        `{"model":"m","stream":true,"input":[{"type":"message","role":"user","content":"hi"}]}`,
		"system":        `{"model":"m","input":[{"type":"message","role":"system","content":"s"},{"type":"message","role":"user","content":"hi"}]}`,
		"tools":         `{"model":"m","input":"hi",` + tool + `}`,
		"tools, stream": `{"model":"m","stream":true,"input":"hi",` + tool + `}`,
		"picture":       `{"model":"m","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}]}`,
		"file":          `{"model":"m","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"x"},{"type":"input_file","filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}]}]}`,
		"turns":         `{"model":"m","input":[{"type":"message","role":"user","content":"a"},{"type":"message","role":"assistant","content":"b"},{"type":"message","role":"user","content":"c"}]}`,
	} {
		for range 2 {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				res, got := g.post(responsesPath, body)
				object := got
				if strings.Contains(body, `"stream":true`) {
					object = string(checkResponsesStream(t, []byte(got)).object)
				}
				wants(t, object, map[string]string{"status": `"completed"`, "object": `"response"`, "error": "null", "incomplete_details": "null"})
				for _, key := range responseKeys {
					if member([]byte(object), key) == nil {
						t.Errorf("no %s in %s", key, object)
					}
				}
				kind := `"message"`
				if strings.Contains(body, "tools") {
					kind = `"function_call"`
				}
				if res.StatusCode != 200 || at(t, object, "output.0.type") != kind {
					t.Errorf("%d %s", res.StatusCode, object)
				}
			})
		}
	}
}

// responseKeys are what the suite's schema of a response demands.
var responseKeys = []string{
	"id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id", "instructions", "output", "error", "tools",
	"tool_choice", "truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning",
	"usage", "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier", "prompt_cache_key",
}

// thoughtfulUpstream calls a tool first, with reasoning, and then refuses the
// call without it, as DeepSeek does.
func thoughtfulUpstream(reasons bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct {
				Role      string
				Reasoning string            `json:"reasoning_content"`
				Calls     []json.RawMessage `json:"tool_calls"`
			}
		}
		json.NewDecoder(r.Body).Decode(&q)
		for _, m := range q.Messages {
			if m.Role != "assistant" || len(m.Calls) == 0 {
				continue
			}
			if reasons && m.Reasoning != "because" {
				answerJSON(400, `{"error":{"message":"Missing reasoning_content field in the assistant message","type":"invalid_request_error"}}`)(w, r)
				return
			}
			if !reasons && m.Reasoning != "" {
				answerJSON(400, `{"error":{"message":"messages.1.reasoning_content: Extra inputs are not permitted"}}`)(w, r)
				return
			}
			answerJSON(200, completion("done"))(w, r)
			return
		}
		thought := ""
		if reasons {
			thought = `"reasoning_content":"because",`
		}
		messageAnswer(`{"role":"assistant","content":null,`+thought+`"tool_calls":[{"id":"abcdefghi","type":"function","function":{"name":"f","arguments":"{}"}}]}`, "tool_calls")(w, r)
	}
}

func TestCase39ReasoningComesBack(t *testing.T) {
	const (
		tools  = `"tools":[{"name":"f","input_schema":{"type":"object"}}]`
		result = `{"role":"user","content":[{"type":"tool_result","tool_use_id":"abcdefghi","content":"1"}]}`
	)
	for _, reasons := range []bool{true, false} {
		for _, thinking := range []string{"", `"thinking":{"type":"enabled","budget_tokens":1024},`} {
			t.Run(fmt.Sprintf("anthropic, reasons %t, %s", reasons, thinking), func(t *testing.T) {
				g := newGateway(t, thoughtfulUpstream(reasons))
				ask := func(more string) string {
					return `{"model":"m","max_tokens":2048,` + thinking + tools + `,"messages":[{"role":"user","content":"x"}` + more + `]}`
				}
				first := g.ok(messagesPath, ask(""))
				g.ok(messagesPath, ask(`,{"role":"assistant","content":`+at(t, first, "content")+`},`+result))
			})
		}
		t.Run(fmt.Sprintf("responses, reasons %t", reasons), func(t *testing.T) {
			g := newGateway(t, thoughtfulUpstream(reasons))
			ask := func(more string) string {
				return `{"model":"m","store":false,"include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"f","parameters":{"type":"object","properties":{}}}],"input":[{"role":"user","content":"x"}` + more + `]}`
			}
			first := g.ok(responsesPath, ask(""))
			output := strings.TrimSuffix(strings.TrimPrefix(at(t, first, "output"), "["), "]")
			g.ok(responsesPath, ask(`,`+output+`,{"type":"function_call_output","call_id":"abcdefghi","output":"1"}`))
		})
	}
}

func TestCase40AliasedPassThrough(t *testing.T) {
	const stream = ": c\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\\ud83d\"},\"finish_reason\":null}]}\r\n\r\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\r\n\r\ndata: [DONE]\r\n\r\n"
	g := newGateway(t, answerStream(stream), func(c *config) { c.Aliases = []modelAlias{{"fast", "big/model"}} })
	body := `{ "messages":[{"role":"user","content":"\u00e9 \ud800","model":"fast","x":{"a":1,"a":2}}] ,"n":1.0,"seed":12345678901234567890,"model" : "fast","metadata":{"model":"fast"},"stream":true}`
	got := g.ok("/v1/chat/completions", body)
	if want := strings.Replace(body, `"model" : "fast"`, `"model" : "big/model"`, 1); g.last().Body != want {
		t.Errorf("sent\n%s\nwant\n%s", g.last().Body, want)
	}
	if got != stream {
		t.Errorf("answered %q, want %q", got, stream)
	}
}
