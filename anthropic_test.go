package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fixedIDs makes ids that tests can name.
func fixedIDs(prefix string) string { return prefix + "1" }

func fixedCallID() string { return "made00001" }

func encodedAnthropic(t *testing.T, x *exchange, completion string) string {
	t.Helper()
	c := readCompletion([]byte(completion), x.quirk)
	b, err := marshal(newAnthropicAnswer(x, c, fixedIDs, fixedCallID))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const anthropicNulls = `"output_tokens_details":null,"cache_creation":null,"server_tool_use":null,"service_tier":null,"inference_geo":null,"speed":null}}`

func TestEncodeAnthropic(t *testing.T) {
	call := func(id, args string) string {
		return `{"id":"` + id + `","type":"function","function":{"name":"f","arguments":` + args + `}}`
	}
	use := func(input string) string {
		return `{"type":"tool_use","id":"a","name":"f","input":` + input + `,"caller":{"type":"direct"}}`
	}
	said := func(text string) string { return `{"type":"text","text":"` + text + `"}` }
	for _, tt := range []struct{ name, message, finish, content, stop string }{
		{"C-82 text", `{"content":"a <b>"}`, `"stop"`, said("a <b>"), `"end_turn"`},
		{"C-80 order", `{"content":"t","reasoning":"r","tool_calls":[` + call("a", `"{}"`) + `]}`, `"tool_calls"`,
			`{"type":"thinking","thinking":"r","signature":"apx1.r."},` + said("t") + `,` + use(`{}`), `"tool_use"`},
		{"C-81 details", `{"content":"t","reasoning_details":[{"type":"reasoning.text","text":"r"}]}`, `"stop"`,
			`{"type":"thinking","thinking":"r","signature":"apx1.d.W3sidHlwZSI6InJlYXNvbmluZy50ZXh0IiwidGV4dCI6InIifV0"},` + said("t"), `"end_turn"`},
		{"C-81 tags", `{"content":"<think>r</think>t"}`, `"stop"`, `{"type":"thinking","thinking":"r","signature":""},` + said("t"), `"end_turn"`},
		{"C-82 white space beside calls", `{"content":"\n","tool_calls":[` + call("a", `"{}"`) + `]}`, `"stop"`, use(`{}`), `"tool_use"`},
		{"C-82 white space alone", `{"content":"\n"}`, `"stop"`, said(`\n`), `"end_turn"`},
		{"C-83 digits and order", `{"tool_calls":[` + call("a", `"{\"b\":9007199254740993,\"a\":1.0}"`) + `]}`, `null`, use(`{"b":9007199254740993,"a":1.0}`), `"tool_use"`},
		{"E-8 an object", `{"tool_calls":[` + call("a", `{"b":1}`) + `]}`, `"stop"`, use(`{"b":1}`), `"tool_use"`},
		{"E-8 no arguments", `{"tool_calls":[` + call("a", `""`) + `]}`, `"stop"`, use(`{}`), `"tool_use"`},
		{"E-8 wrapped once", `{"tool_calls":[` + call("a", `"\"{\\\"b\\\":1}\""`) + `]}`, `"stop"`, use(`{"b":1}`), `"tool_use"`},
		{"E-8 no JSON", `{"tool_calls":[` + call("a", `"{b"`) + `]}`, `"stop"`, use(`{"_raw_arguments":"{b"}`), `"tool_use"`},
		{"E-17 no name", `{"content":"t","tool_calls":[{"id":"x","function":{"name":"","arguments":"{}"}}]}`, `"stop"`, said("t"), `"end_turn"`},
		{"C-84 C-87 refusal", `{"content":null,"refusal":"no"}`, `"stop"`, said("no"), `"refusal"`},
		{"C-87 content_filter", `{"content":"a"}`, `"content_filter"`, said("a"), `"refusal"`},
		{"C-86 length", `{"content":"a"}`, `"length"`, said("a"), `"max_tokens"`},
		{"C-86 model_length", `{"content":"a"}`, `"model_length"`, said("a"), `"max_tokens"`},
		{"C-86 capitals", `{"content":"a"}`, `"MAX_TOKENS"`, said("a"), `"max_tokens"`},
		{"C-86 before calls", `{"tool_calls":[` + call("a", `"{}"`) + `]}`, `"length"`, use(`{}`), `"max_tokens"`},
		{"C-88 finish stop", `{"tool_calls":[` + call("a", `"{}"`) + `]}`, `"stop"`, use(`{}`), `"tool_use"`},
		{"C-90 no finish", `{"content":"a"}`, `null`, said("a"), `"end_turn"`},
		{"E-13 calls that are none", `{"content":"a","tool_calls":[]}`, `"tool_calls"`, said("a"), `"end_turn"`},
		{"0-12 nothing", `{"content":null}`, `"stop"`, said(""), `"end_turn"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic.ShowThinking = true
			got := encodedAnthropic(t, x, `{"choices":[{"index":0,"message":`+tt.message+`,"finish_reason":`+tt.finish+`}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`)
			details := "null"
			if tt.stop == `"refusal"` {
				details = `{"type":"refusal","category":null,"explanation":null}`
			}
			want := `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[` + tt.content + `],"stop_reason":` + tt.stop +
				`,"stop_sequence":null,"stop_details":` + details + `,"container":null,"diagnostics":null,"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2,` + anthropicNulls
			if got != want {
				t.Errorf("encodeAnthropic(%s) =\n%s\nwant\n%s", tt.message, got, want)
			}
		})
	}
}

func TestEncodeAnthropicThinking(t *testing.T) {
	const completion = `{"choices":[{"message":{"content":"t","reasoning_content":"hm"}}]}`
	for _, tt := range []struct {
		name       string
		show, omit bool
		want       string
	}{
		{"C-81 not asked for", false, false, `"content":[{"type":"text"`},
		{"C-81 asked for", true, false, `"content":[{"type":"thinking","thinking":"hm","signature":"apx1.c."},{"type":"text"`},
		{"C-25 omitted", true, true, `"content":[{"type":"thinking","thinking":"","signature":"apx1.c.aG0"},{"type":"text"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic = &anthropicRequest{ShowThinking: tt.show, OmitThinking: tt.omit}
			if got := encodedAnthropic(t, x, completion); !strings.Contains(got, tt.want) {
				t.Errorf("encodeAnthropic = %s, want it to have %s", got, tt.want)
			}
		})
	}
}

// What was answered with hidden or shown reasoning comes back into the same
// field (E-24).
func TestAnthropicThinkingRoundTrip(t *testing.T) {
	for _, field := range []string{`"reasoning_content":"hm"`, `"reasoning":"hm"`, `"reasoning_details":[{"type":"reasoning.text","text":"hm"}]`} {
		for _, omit := range []bool{false, true} {
			x := anthropicExchange()
			x.anthropic = &anthropicRequest{ShowThinking: true, OmitThinking: omit}
			var answer struct{ Content json.RawMessage }
			if err := json.Unmarshal([]byte(encodedAnthropic(t, x, `{"choices":[{"message":{"content":"t",`+field+`}}]}`)), &answer); err != nil {
				t.Fatal(err)
			}
			got := decodedAnthropic(t, anthropicExchange(), `{"messages":[{"role":"assistant","content":`+string(answer.Content)+`}]}`)
			if want := `{"messages":[{"role":"assistant","content":"t",` + field + `}]}`; got != want {
				t.Errorf("omit %v: %s came back as %s, want %s", omit, field, got, want)
			}
		}
	}
}

func TestEncodeAnthropicStopSequence(t *testing.T) {
	for _, tt := range []struct{ name, stopReason, want string }{
		{"C-89 one of them", `"END"`, `"stop_reason":"stop_sequence","stop_sequence":"END"`},
		{"C-89 another", `"</s>"`, `"stop_reason":"end_turn","stop_sequence":null`},
		{"C-89 a token's number", `151645`, `"stop_reason":"end_turn","stop_sequence":null`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic.StopSequences = []string{"A", "END"}
			got := encodedAnthropic(t, x, `{"choices":[{"message":{"content":"t"},"finish_reason":"stop","stop_reason":`+tt.stopReason+`}]}`)
			if !strings.Contains(got, tt.want) {
				t.Errorf("encodeAnthropic = %s, want it to have %s", got, tt.want)
			}
		})
	}
}

func TestEncodeAnthropicUsage(t *testing.T) {
	for _, tt := range []struct{ name, usage, want string }{
		{"C-92", `{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":90}}`, `"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":90,"output_tokens":5,"output_tokens_details":null`},
		{"cache writes", `{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":50,"cache_write_tokens":40}}`, `"input_tokens":10,"cache_creation_input_tokens":40,"cache_read_input_tokens":50,"output_tokens":5`},
		{"floor", `{"prompt_tokens":10,"completion_tokens":5,"prompt_cache_hit_tokens":64}`, `"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":64`},
		{"thinking", `{"prompt_tokens":10,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":4}}`, `"output_tokens":5,"output_tokens_details":{"thinking_tokens":4}`},
		{"E-43 none", `null`, `"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2,`},
		{"E-43 prompt_tokens 0", `{"prompt_tokens":0,"completion_tokens":5}`, `"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":5,`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := encodedAnthropic(t, anthropicExchange(), `{"choices":[{"message":{"content":"1234567"}}],"usage":`+tt.usage+`}`)
			if !strings.Contains(got, tt.want) {
				t.Errorf("encodeAnthropic(usage %s) = %s, want it to have %s", tt.usage, got, tt.want)
			}
		})
	}
}

func TestEncodeAnthropicNames(t *testing.T) {
	x := anthropicExchange()
	long := strings.Repeat("long.name", 10)
	short := x.safeToolName(long)
	got := encodedAnthropic(t, x, `{"choices":[{"message":{"tool_calls":[{"function":{"name":"`+short+`","arguments":"{}"}}]}}]}`)
	if want := `"name":"` + long + `"`; !strings.Contains(got, want) {
		t.Errorf("C-74: encodeAnthropic = %s, want it to have %s", got, want)
	}
	c := &chatResponse{Choices: []chatChoice{{Calls: []chatToolCall{functionCall("", "f", "{}")}}}}
	b, err := marshal(newAnthropicAnswer(x, c, fixedIDs, fixedCallID))
	if want := `"id":"made00001"`; err != nil || !strings.Contains(string(b), want) {
		t.Errorf("E-4: encodeAnthropic = %s, %v, want it to have %s", b, err, want)
	}
}

func TestFailAnthropic(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    apiError
		status int
		want   string
	}{
		{"400", apiError{Status: 400, Message: "m"}, 400, `{"type":"invalid_request_error","message":"m"}`},
		{"401", apiError{Status: 401, Message: "m"}, 401, `{"type":"authentication_error","message":"m"}`},
		{"402", apiError{Status: 402, Message: "m"}, 402, `{"type":"billing_error","message":"m"}`},
		{"403", apiError{Status: 403, Message: "m"}, 403, `{"type":"permission_error","message":"m"}`},
		{"404", apiError{Status: 404, Message: "m"}, 404, `{"type":"not_found_error","message":"m"}`},
		{"405", apiError{Status: 405, Message: "m"}, 405, `{"type":"invalid_request_error","message":"m"}`},
		{"408", apiError{Status: 408, Message: "m"}, 504, `{"type":"timeout_error","message":"m"}`},
		{"409", apiError{Status: 409, Message: "m"}, 409, `{"type":"conflict_error","message":"m"}`},
		{"413", apiError{Status: 413, Message: "m"}, 413, `{"type":"request_too_large","message":"m"}`},
		{"422", apiError{Status: 422, Message: "m"}, 400, `{"type":"invalid_request_error","message":"m"}`},
		{"429", apiError{Status: 429, Message: "m"}, 429, `{"type":"rate_limit_error","message":"m"}`},
		{"500", apiError{Status: 500, Message: "m"}, 500, `{"type":"api_error","message":"m"}`},
		{"501", apiError{Status: 501, Message: "m"}, 500, `{"type":"api_error","message":"m"}`},
		{"502", apiError{Status: 502, Message: "m"}, 502, `{"type":"api_error","message":"m"}`},
		{"503", apiError{Status: 503, Message: "m"}, 529, `{"type":"overloaded_error","message":"m"}`},
		{"504", apiError{Status: 504, Message: "m"}, 504, `{"type":"timeout_error","message":"m"}`},
		{"529", apiError{Status: 529, Message: "m"}, 529, `{"type":"overloaded_error","message":"m"}`},
		{"content filter", apiError{Status: 400, Code: "content_filter", Message: "m"}, 400, `{"type":"invalid_request_error","message":"m"}`},
		{"C-140 numbers", apiError{Status: 400, Code: "context_length_exceeded", Message: "This model's maximum context length is 200000 tokens. However, you requested 210000 tokens (200500 in the messages, 9500 in the completion)."}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}`},
		{"C-140 two numbers", apiError{Status: 400, Code: "context_length_exceeded", Message: "The input has 9,000 tokens, and there is room for 8,192."}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: 9000 tokens > 8192 maximum"}`},
		{"C-140 status 500", apiError{Status: 500, Code: "context_length_exceeded", Message: "Context size has been exceeded."}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: Context size has been exceeded."}`},
		{"C-140 llama.cpp", apiError{Status: 400, Code: "context_length_exceeded", Message: "request (5123 tokens) exceeds the available context size (4096 tokens), try increasing it"}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: 5123 tokens > 4096 maximum"}`},
		{"C-140 a model's name", apiError{Status: 400, Code: "context_length_exceeded", Message: "gpt-4-32768 takes input of 8,192 tokens at most"}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: gpt-4-32768 takes input of 8,192 tokens at most"}`},
		{"C-140 already said", apiError{Status: 400, Code: "context_length_exceeded", Message: "Prompt is too long: 3 tokens > 2 maximum"}, 400,
			`{"type":"invalid_request_error","message":"prompt is too long: 3 tokens > 2 maximum"}`},
		{"C-140 the larger is the maximum", apiError{Status: 400, Code: "context_length_exceeded", Message: "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"}, 400,
			"{\"type\":\"invalid_request_error\",\"message\":\"prompt is too long: input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000\"}"},
		{"C-29", *threadUnsupported(), 400, `{"type":"invalid_request_error","message":"thread: this gateway keeps no server-side threads; send the whole conversation in messages","details":{"error_code":"thread_unsupported_request","unsupported":["thread"]}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.err.RequestID = "req_1"
			status, body := failAnthropic(&tt.err)
			b, err := marshal(body)
			if want := `{"type":"error","error":` + tt.want + `,"request_id":"req_1"}`; err != nil || status != tt.status || string(b) != want {
				t.Errorf("failAnthropic = %d, %s, %v; want %d, %s", status, b, err, tt.status, want)
			}
		})
	}
}

func TestAnthropicRateLimits(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 600e6, time.UTC)
	for _, tt := range []struct{ name, in, want string }{
		{"duration", "6m0s", "2026-01-02T03:10:06Z"},
		{"fraction", "1.5s", "2026-01-02T03:04:08Z"},
		{"milliseconds", "250ms", "2026-01-02T03:04:06Z"},
		{"seconds", "60", "2026-01-02T03:05:06Z"},
		{"Unix time", "1767323100", "2026-01-02T03:05:00Z"},
		{"instant", "2026-01-02T03:05:00Z", "2026-01-02T03:05:00Z"},
		{"nonsense", "soon", ""},
		{"endless", "1e300", ""},
		{"no number", "NaN", ""},
		{"past", "-5s", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := http.Header{}
			h.Set("x-ratelimit-limit-requests", "10")
			h.Set("x-ratelimit-remaining-tokens", "99")
			h.Set("x-ratelimit-reset-tokens", tt.in)
			renameRateLimits(h, now)
			if got := h.Get("anthropic-ratelimit-tokens-reset"); got != tt.want {
				t.Errorf("reset %s = %q, want %q", tt.in, got, tt.want)
			}
			if h.Get("anthropic-ratelimit-requests-limit") != "10" || h.Get("anthropic-ratelimit-tokens-remaining") != "99" || h.Get("x-ratelimit-reset-tokens") != "" {
				t.Errorf("headers = %v, want limit and remaining under their new names alone", h)
			}
		})
	}
}

func TestEncodeAnthropicMakesIDs(t *testing.T) {
	x := anthropicExchange()
	c := &chatResponse{Choices: []chatChoice{{Text: "a"}}}
	a, ok := encodeAnthropic(x, c).(*anthropicAnswer)
	if !ok || len(a.ID) != len("msg_")+32 || !strings.HasPrefix(a.ID, "msg_") {
		t.Errorf("0-11: the id is %q, want msg_ and 32 hex digits", a.ID)
	}
}
