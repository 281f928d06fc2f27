package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// testBase is the base of all ids in these tests.
const testBase = "0123456789abcdef0123456789ab"

// responsesExchange is an exchange on the vendor's path whose ids and clock are
// fixed, and which keeps what is to be stored in *kept, if that is not nil.
func responsesExchange(kept *storedResponse, quirks ...string) *exchange {
	now := int64(1700000000)
	x := &exchange{dialect: &responses, cfg: &config{Quirks: quirks}, header: http.Header{}, estimate: 7}
	x.responses = &responsesRequest{
		ids: itemIDs{base: testBase},
		now: func() time.Time { now++; return time.Unix(now, 0) },
		Keep: func(r storedResponse) bool {
			if kept != nil {
				*kept = r
			}
			return true
		},
	}
	return x
}

// decodedBody decodes a request and gives what goes upstream.
func decodedBody(x *exchange, body string) (string, error) {
	q, err := decodeResponses(x, []byte(body))
	if err != nil {
		return "", err
	}
	b, err := q.body()
	return string(b), err
}

// upstreamBody decodes a request that must be right.
func upstreamBody(t *testing.T, x *exchange, body string) string {
	t.Helper()
	got, err := decodedBody(x, body)
	if err != nil {
		t.Fatalf("decodeResponses(%s): %v", body, err)
	}
	return got
}

// wantRefusal checks that a request is refused as the client's own mistake.
func wantRefusal(t *testing.T, err error, param, code string) {
	t.Helper()
	e, ok := err.(*apiError)
	if !ok {
		t.Fatalf("error = %v, want an apiError", err)
	}
	if e.Status != 400 || e.Type != "invalid_request_error" || e.Param != param || e.Code != code {
		t.Errorf("refused with %d %q, param %q, code %q (%s); want 400, param %q, code %q", e.Status, e.Type, e.Param, e.Code, e.Message, param, code)
	}
}

const userHi = `"messages":[{"role":"user","content":"hi"}]`

func TestDecodeResponses(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string
		quirk, dropped string
	}{
		{"D-11 string", `{"model":"m","input":"hi"}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-12 empty list with instructions", `{"model":"m","input":[],"instructions":"be kind"}`, `{"model":"m","messages":[{"role":"system","content":"be kind"}]}`, "", ""},
		{"D-13 instructions", `{"model":"m","input":"hi","instructions":"be kind"}`, `{"model":"m","messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hi"}]}`, "", ""},
		{"D-15 parallel without tools", `{"model":"m","input":"hi","parallel_tool_calls":false}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-16", `{"model":"m","input":"hi","max_output_tokens":16}`, `{"model":"m",` + userHi + `,"max_tokens":16}`, "", ""},
		{"D-16 E-12", `{"model":"m","input":"hi","max_output_tokens":16}`, `{"model":"m",` + userHi + `,"max_completion_tokens":16}`, "max_tokens_field:max_completion_tokens", ""},
		{"D-17 number text", `{"model":"m","input":"hi","temperature":1.0,"top_p":0.50,"presence_penalty":-0,"frequency_penalty":1e0}`,
			`{"model":"m",` + userHi + `,"temperature":1.0,"top_p":0.50,"presence_penalty":-0,"frequency_penalty":1e0}`, "", ""},
		{"D-18 top_logprobs", `{"model":"m","input":"hi","top_logprobs":3}`, `{"model":"m",` + userHi + `,"logprobs":true,"top_logprobs":3}`, "", ""},
		{"D-18 include", `{"model":"m","input":"hi","include":["message.output_text.logprobs"]}`, `{"model":"m",` + userHi + `,"logprobs":true}`, "", ""},
		{"D-19", `{"model":"m","input":"hi","text":{"format":{"type":"text"}}}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-20", `{"model":"m","input":"hi","text":{"format":{"type":"json_object"}}}`, `{"model":"m",` + userHi + `,"response_format":{"type":"json_object"}}`, "", ""},
		{"D-21", `{"model":"m","input":"hi","text":{"format":{"type":"json_schema","name":"n","schema":{"z":1,"a":9007199254740993},"strict":true,"description":"d"}}}`,
			`{"model":"m",` + userHi + `,"response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d","schema":{"z":1,"a":9007199254740993},"strict":true}}}`, "", ""},
		{"D-21 no name", `{"model":"m","input":"hi","text":{"format":{"type":"json_schema","schema":{}}}}`,
			`{"model":"m",` + userHi + `,"response_format":{"type":"json_schema","json_schema":{"name":"response","schema":{}}}}`, "", ""},
		{"D-22", `{"model":"m","input":"hi","text":{"verbosity":"low"}}`, `{"model":"m",` + userHi + `,"verbosity":"low"}`, "", ""},
		{"D-22 medium", `{"model":"m","input":"hi","text":{"verbosity":"medium"}}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-23 D-24", `{"model":"m","input":"hi","reasoning":{"effort":"xhigh","summary":"auto"}}`, `{"model":"m",` + userHi + `,"reasoning_effort":"xhigh"}`, "", ""},
		{"D-25 D-26 D-31 D-32 D-34", `{"model":"m","input":"hi","include":["reasoning.encrypted_content"],"store":true,"truncation":"auto","metadata":{"a":"b"},"max_tool_calls":2}`,
			`{"model":"m",` + userHi + `}`, "", ""},
		{"D-30 false", `{"model":"m","input":"hi","background":false}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-33", `{"model":"m","input":"hi","prompt_cache_key":"k","prompt_cache_retention":"24h","safety_identifier":"s","user":"u","service_tier":"flex"}`,
			`{"model":"m",` + userHi + `,"service_tier":"flex","user":"u","safety_identifier":"s","prompt_cache_key":"k","prompt_cache_retention":"24h"}`, "", ""},
		{"D-33 auto", `{"model":"m","input":"hi","service_tier":"auto"}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"D-35 D-36", `{"model":"m","input":"hi","stream":true,"stream_options":{"include_obfuscation":true}}`,
			`{"model":"m",` + userHi + `,"stream":true,"stream_options":{"include_usage":true}}`, "", ""},
		{"D-37 plain", `{"model":"m","input":"hi","moderation":1,"context_management":[],"prompt_cache_options":{},"client_metadata":{"a":"b"}}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"AC-7 chat's own", `{"model":"m","input":"hi","max_tokens":5,"seed":1}`, `{"model":"m",` + userHi + `}`, "", "max_tokens,seed"},
		{"D-31 disabled", `{"model":"m","input":"hi","truncation":"disabled"}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"AC-7 unknown", `{"model":"m","input":"hi","top_k":4,"odd":null}`, `{"model":"m",` + userHi + `}`, "", "top_k"},
		{"0-4 nulls", `{"model":"m","input":"hi","instructions":null,"previous_response_id":null,"conversation":null,"prompt":null,"background":null,"store":null,"stream":null,"tools":null,"tool_choice":null,"temperature":null,"max_output_tokens":null,"text":null,"reasoning":null,"metadata":null,"user":null,"include":null,"parallel_tool_calls":null,"truncation":null,"service_tier":null}`,
			`{"model":"m",` + userHi + `}`, "", ""},
		{"0-4 nulls inside", `{"model":"m","input":"hi","text":{"format":null,"verbosity":null},"reasoning":{"effort":null,"summary":null}}`, `{"model":"m",` + userHi + `}`, "", ""},
		{"A-27 string", `{"model":"m","input":"hi","system_instruction":"s","instructions":"i"}`, `{"model":"m","messages":[{"role":"system","content":"i\n\ns"},{"role":"user","content":"hi"}]}`, "", ""},
		{"A-27 parts", `{"model":"m","input":"hi","system_instruction":{"parts":[{"text":"a"},{"text":"b"}]}}`, `{"model":"m","messages":[{"role":"system","content":"a\n\nb"},{"role":"user","content":"hi"}]}`, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil, tt.quirk)
			if got := upstreamBody(t, x, tt.in); got != tt.want {
				t.Errorf("decodeResponses(%s)\n = %s\nwant %s", tt.in, got, tt.want)
			}
			if got := strings.Join(x.dropped, ","); got != tt.dropped {
				t.Errorf("dropped %q, want %q", got, tt.dropped)
			}
		})
	}
}

func TestDecodeResponsesRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, param, code string }{
		{"D-10", `{"input":"hi"}`, "model", "missing_required_parameter"},
		{"D-12", `{"model":"m"}`, "input", "missing_required_parameter"},
		{"D-12 null", `{"model":"m","input":null}`, "input", "missing_required_parameter"},
		{"A-28 empty", `{"model":"m","input":[]}`, "input", ""},
		{"A-28 number", `{"model":"m","input":5}`, "input", "invalid_type"},
		{"A-28 bool", `{"model":"m","input":true}`, "input", "invalid_type"},
		{"A-28 numbers", `{"model":"m","input":[1,2]}`, "input", "invalid_type"},
		{"D-16", `{"model":"m","input":"hi","max_output_tokens":0}`, "max_output_tokens", ""},
		{"D-16 fraction", `{"model":"m","input":"hi","max_output_tokens":1.5}`, "max_output_tokens", ""},
		{"D-16 type", `{"model":"m","input":"hi","max_output_tokens":"16"}`, "max_output_tokens", "invalid_type"},
		{"D-17 type", `{"model":"m","input":"hi","temperature":"hot"}`, "temperature", "invalid_type"},
		{"D-21 type", `{"model":"m","input":"hi","text":{"format":{"type":"xml"}}}`, "text.format.type", "invalid_value"},
		{"0-4 path", `{"model":"m","input":"hi","text":{"format":{"type":"json_schema","name":5}}}`, "text.format.name", "invalid_type"},
		{"0-4 nested", `{"model":"m","input":"hi","reasoning":{"effort":5}}`, "reasoning.effort", "invalid_type"},
		{"0-4 model", `{"model":5,"input":"hi"}`, "model", "invalid_type"},
		{"0-4 stream", `{"model":"m","input":"hi","stream":"yes"}`, "stream", "invalid_type"},
		{"D-27 unknown", `{"model":"m","input":"hi","previous_response_id":"resp_x"}`, "previous_response_id", "previous_response_not_found"},
		{"0-4 stream_options", `{"model":"m","input":"hi","stream_options":[]}`, "stream_options", "invalid_type"},
		{"D-28", `{"model":"m","input":"hi","conversation":"conv_1"}`, "conversation", "unsupported_parameter"},
		{"D-28 with previous", `{"model":"m","input":"hi","conversation":{"id":"c"},"previous_response_id":"resp_x"}`, "conversation", "unsupported_parameter"},
		{"D-29", `{"model":"m","input":"hi","prompt":{"id":"p"}}`, "prompt", "unsupported_parameter"},
		{"D-30", `{"model":"m","input":"hi","background":true}`, "background", "unsupported_parameter"},
		{"D-31", `{"model":"m","input":"hi","truncation":"all"}`, "truncation", ""},
		{"D-32 keys", `{"model":"m","input":"hi","metadata":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":"","10":"","11":"","12":"","13":"","14":"","15":"","16":"","17":""}}`, "metadata", ""},
		{"D-32 long key", `{"model":"m","input":"hi","metadata":{"` + strings.Repeat("k", 65) + `":""}}`, "metadata", ""},
		{"D-32 long value", `{"model":"m","input":"hi","metadata":{"k":"` + strings.Repeat("v", 513) + `"}}`, "metadata.k", ""},
		{"D-32 number", `{"model":"m","input":"hi","metadata":{"k":1}}`, "metadata.k", "invalid_type"},
		{"D-32 list", `{"model":"m","input":"hi","metadata":[]}`, "metadata", "invalid_type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodedBody(responsesExchange(nil), tt.in)
			wantRefusal(t, err, tt.param, tt.code)
		})
	}
}

// The fixtures NAME.in.json in testdata/responses are requests as clients send
// them, and NAME.chat.json what goes upstream.
func TestDecodeResponsesFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/responses/*.in.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in.json"), func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := json.Indent(&got, []byte(upstreamBody(t, responsesExchange(nil), string(in))), "", "  "); err != nil {
				t.Fatal(err)
			}
			got.WriteByte('\n')
			out := strings.TrimSuffix(file, ".in.json") + ".chat.json"
			if *update {
				if err := os.WriteFile(out, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(want) {
				t.Errorf("goes upstream as\n%s\nwant\n%s", got.String(), want)
			}
		})
	}
}

// On the chat path a body with an input list may come from any maker, and
// members that are chat's own go on.
func TestDecodeResponsesOnChatPath(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"chat's members", `{"model":"m","input":"hi","max_tokens":5,"stop":["x"],"n":2,"seed":12345678901234567890}`,
			`{"model":"m",` + userHi + `,"max_tokens":5,"stop":["x"],"n":2,"seed":12345678901234567890}`},
		{"its own win", `{"model":"m","input":"hi","max_tokens":5,"max_output_tokens":6}`, `{"model":"m",` + userHi + `,"max_tokens":6}`},
		{"its own other names win", `{"model":"m","input":"hi","max_completion_tokens":5,"max_output_tokens":6,"reasoning_effort":"low","reasoning":{"effort":"high"},"verbosity":"low","response_format":{"type":"text"},"text":{"verbosity":"high","format":{"type":"json_object"}},"logprobs":false,"top_logprobs":2,"n":null}`,
			`{"model":"m",` + userHi + `,"logprobs":true,"top_logprobs":2,"reasoning_effort":"high","verbosity":"high","max_tokens":6,"response_format":{"type":"json_object"}}`},
		{"A-41 without usage", `{"model":"m","input":"hi","stream":true}`, `{"model":"m",` + userHi + `,"stream":true}`},
		{"A-41 with usage", `{"model":"m","input":"hi","stream":true,"stream_options":{"include_usage":true}}`,
			`{"model":"m",` + userHi + `,"stream":true,"stream_options":{"include_usage":true}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			x.dialect = &openai
			if got := upstreamBody(t, x, tt.in); got != tt.want {
				t.Errorf("decodeResponses(%s)\n = %s\nwant %s", tt.in, got, tt.want)
			}
			if len(x.dropped) > 0 {
				t.Errorf("dropped %q, want nothing", x.dropped)
			}
		})
	}
}

func TestResponsesStreamWish(t *testing.T) {
	for _, tt := range []struct {
		name, body, accept string
		want               bool
	}{
		{"true", `{"model":"m","input":"hi","stream":true}`, "", true},
		{"false", `{"model":"m","input":"hi","stream":false}`, "text/event-stream", false},
		{"by Accept", `{"model":"m","input":"hi"}`, "text/event-stream", true},
		{"absent", `{"model":"m","input":"hi"}`, "*/*", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			x.header.Set("Accept", tt.accept)
			upstreamBody(t, x, tt.body)
			if x.stream != tt.want {
				t.Errorf("stream = %v, want %v", x.stream, tt.want)
			}
		})
	}
}

// answerOf encodes a whole answer to a request, as the client gets it.
func answerOf(t *testing.T, x *exchange, request, completion string) string {
	t.Helper()
	upstreamBody(t, x, request)
	c := readCompletion([]byte(completion), x.quirk)
	b, err := marshal(encodeResponses(x, c))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// D.5: every key is there, whatever the request left out, and in the same order.
func TestEncodeResponsesObject(t *testing.T) {
	const completion = `{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`
	got := answerOf(t, responsesExchange(nil), `{"model":"m","input":"hi"}`, completion)
	want := `{"id":"resp_` + testBase + `0000","object":"response","created_at":1700000001,"completed_at":1700000002,"status":"completed",` +
		`"incomplete_details":null,"error":null,"model":"m","previous_response_id":null,"instructions":null,` +
		`"output":[{"type":"message","id":"msg_` + testBase + `0002","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}],` +
		`"tools":[],"tool_choice":"auto","truncation":"disabled","parallel_tool_calls":true,"text":{"format":{"type":"text"}},"top_p":1,"temperature":1,` +
		`"presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,"reasoning":{"effort":null,"summary":null},` +
		`"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":1,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":4},` +
		`"max_output_tokens":null,"max_tool_calls":null,"safety_identifier":null,"prompt_cache_key":null,"store":true,"background":false,"service_tier":"default","metadata":{}}`
	if got != want {
		t.Errorf("object\n = %s\nwant %s", got, want)
	}
	request := `{"model":"m","input":"hi","instructions":"i","tool_choice":"none","truncation":"auto","parallel_tool_calls":false,
		"text":{"format":{"type":"json_schema","name":"n","schema":{"b":1,"a":2}},"verbosity":"low"},"top_p":0.5,"temperature":0,"presence_penalty":1,"frequency_penalty":2,
		"top_logprobs":3,"reasoning":{"effort":"low","generate_summary":"concise"},"max_output_tokens":9,"max_tool_calls":4,"safety_identifier":"s","prompt_cache_key":"k",
		"store":false,"metadata":{"a":"<b>"},"user":"u","tools":[{"type":"function","name":"f","parameters":{"type":"object"}}, {"type":"custom","name":"c"}]}`
	got = answerOf(t, responsesExchange(nil), request, completion)
	for _, part := range []string{
		`"instructions":"i"`, `"tool_choice":"none"`, `"truncation":"auto"`, `"parallel_tool_calls":false`,
		`"text":{"format":{"type":"json_schema","name":"n","schema":{"b":1,"a":2}},"verbosity":"low"}`, `"top_p":0.5`, `"temperature":0`, `"presence_penalty":1`,
		`"frequency_penalty":2`, `"top_logprobs":3`, `"reasoning":{"effort":"low","summary":"concise"}`, `"max_output_tokens":9`, `"max_tool_calls":4`,
		`"safety_identifier":"s"`, `"prompt_cache_key":"k"`, `"store":false`, `"metadata":{"a":"<b>"}`, `"user":"u"`,
		`"tools":[{"type":"function","name":"f","parameters":{"type":"object"},"description":null,"strict":null},{"type":"custom","name":"c"}]`,
	} {
		if !strings.Contains(got, part) {
			t.Errorf("object lacks %s: %s", part, got)
		}
	}
}

// outputItems are the items of an answer without their ids.
func outputItems(t *testing.T, object string) string {
	t.Helper()
	var list []string
	for item := range elements(member([]byte(object), "output")) {
		if !isString(member(item, "id")) {
			t.Errorf("an item without an id: %s", item)
		}
		out := []byte{'{'}
		for k, v := range members(item) {
			if string(k) != "id" {
				out = appendMember(out, k, v)
			}
		}
		list = append(list, string(closeObject(out)))
	}
	return strings.Join(list, "\n")
}

func TestEncodeResponses(t *testing.T) {
	const said = `{"type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}`
	for _, tt := range []struct {
		name, request, choice string // members of the choice
		status, want          string
	}{
		{"D-80", ``, `"message":{"content":"Hi"},"finish_reason":"stop"`, "completed", said},
		{"E-15 no finish", ``, `"message":{"content":"Hi"}`, "completed", said},
		{"D-75 unknown finish", ``, `"message":{"content":"Hi"},"finish_reason":"eos"`, "completed", said},
		{"D-76", ``, `"message":{"content":"Hi"},"finish_reason":"length"`, "incomplete max_output_tokens", strings.Replace(said, "completed", "incomplete", 1)},
		{"D-76 Mistral", ``, `"message":{"content":"Hi"},"finish_reason":"model_length"`, "incomplete max_output_tokens", strings.Replace(said, "completed", "incomplete", 1)},
		{"D-77", ``, `"message":{"content":"Hi"},"finish_reason":"content_filter"`, "incomplete content_filter", strings.Replace(said, "completed", "incomplete", 1)},
		{"D-81", ``, `"message":{"reasoning_content":"hm","content":"Hi"},"finish_reason":"stop"`, "completed",
			`{"type":"reasoning","status":"completed","summary":[{"type":"summary_text","text":"hm"}]}` + "\n" + said},
		{"D-25 E-24", `"include":["reasoning.encrypted_content"]`, `"message":{"reasoning_content":"hm","content":"Hi"},"finish_reason":"stop"`, "completed",
			`{"type":"reasoning","status":"completed","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"apx1.c.aG0"}` + "\n" + said},
		{"E-24 in text", `"include":["reasoning.encrypted_content"]`, `"message":{"content":"<think>hm</think>Hi"},"finish_reason":"stop"`, "completed",
			`{"type":"reasoning","status":"completed","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"apx1.t."}` + "\n" + said},
		{"D-82", ``, `"message":{"content":null,"refusal":"no"},"finish_reason":"stop"`, "completed",
			`{"type":"message","status":"completed","role":"assistant","content":[{"type":"refusal","refusal":"no"}]}`},
		{"D-83", ``, `"message":{"content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":12345678901234567}"}}]},"finish_reason":"tool_calls"`, "completed",
			`{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"b\":1,\"a\":12345678901234567}","status":"completed"}`},
		{"E-13", ``, `"message":{"content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":""}}]},"finish_reason":"stop"`, "completed",
			`{"type":"function_call","call_id":"c1","name":"f","arguments":"{}","status":"completed"}`},
		{"D-87 E-8 object", ``, `"message":{"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":{"a":1}}}]},"finish_reason":"tool_calls"`, "completed",
			`{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}","status":"completed"}`},
		{"E-16", ``, `"message":{"content":"\n","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"`, "completed",
			`{"type":"function_call","call_id":"c1","name":"f","arguments":"{}","status":"completed"}`},
		{"D-76 in arguments", ``, `"message":{"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a"}}]},"finish_reason":"length"`, "incomplete max_output_tokens",
			`{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a","status":"incomplete"}`},
		{"D-84", ``, `"message":{"content":"Hi","annotations":[{"type":"url_citation","url_citation":{"title":"t","url":"u","start_index":1,"end_index":2}},{"type":"other"}]},"finish_reason":"stop"`, "completed",
			`{"type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[{"type":"url_citation","start_index":1,"end_index":2,"url":"u","title":"t"}],"logprobs":[]}]}`},
		{"D-85 asked", `"top_logprobs":1`, `"message":{"content":"Hi"},"logprobs":{"content":[{"token":"Hi","logprob":-0.5,"bytes":null,"top_logprobs":[{"token":"Ho","logprob":-1,"bytes":[72]}]}]},"finish_reason":"stop"`, "completed",
			`{"type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[{"token":"Hi","logprob":-0.5,"bytes":[],"top_logprobs":[{"token":"Ho","logprob":-1,"bytes":[72]}]}]}]}`},
		{"D-85 not asked", ``, `"message":{"content":"Hi"},"logprobs":{"content":[{"token":"Hi","logprob":-0.5}]},"finish_reason":"stop"`, "completed", said},
		{"D-86", ``, `"message":{"content":null},"finish_reason":"stop"`, "completed", strings.Replace(said, "Hi", "", 1)},
		{"E-19", ``, `"message":{"content":"Hi"},"finish_reason":"stop"},{"index":1,"message":{"content":"Ho"},"finish_reason":"length"`, "completed", said},
	} {
		t.Run(tt.name, func(t *testing.T) {
			request := `{"model":"m","input":"hi"}`
			if tt.request != "" {
				request = `{"model":"m","input":"hi",` + tt.request + `}`
			}
			got := answerOf(t, responsesExchange(nil), request, `{"choices":[{"index":0,`+tt.choice+`}]}`)
			if items := outputItems(t, got); items != tt.want {
				t.Errorf("output\n = %s\nwant %s", items, tt.want)
			}
			status := text(member([]byte(got), "status"))
			if reason := text(member(member([]byte(got), "incomplete_details"), "reason")); reason != "" {
				status += " " + reason
			}
			if status != tt.status {
				t.Errorf("status = %s, want %s", status, tt.status)
			}
			if completed := member([]byte(got), "completed_at"); isNull(completed) != (tt.status != "completed") {
				t.Errorf("completed_at = %s with status %s", completed, tt.status)
			}
		})
	}
}

func TestResponsesUsage(t *testing.T) {
	for _, tt := range []struct{ name, usage, want string }{
		{"H-26 cached inside", `{"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":2},"completion_tokens_details":{"reasoning_tokens":3}}`,
			`{"input_tokens":10,"input_tokens_details":{"cached_tokens":4,"cache_write_tokens":2},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":3},"total_tokens":15}`},
		{"E-43 prompt_tokens 0", `{"prompt_tokens":0,"completion_tokens":5}`,
			`{"input_tokens":7,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":12}`},
		{"E-43 estimated", `null`,
			`{"input_tokens":7,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":1,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":8}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := answerOf(t, responsesExchange(nil), `{"model":"m","input":"hi"}`, `{"choices":[{"message":{"content":"Hi"}}],"usage":`+tt.usage+`}`)
			if u := string(member([]byte(got), "usage")); u != tt.want {
				t.Errorf("usage = %s, want %s", u, tt.want)
			}
		})
	}
}

// D-140: the answer is stored with its own input alone, and what could not be
// stored says so.
func TestResponsesKeep(t *testing.T) {
	const completion = `{"choices":[{"message":{"reasoning_content":"hm","content":"Hi"},"finish_reason":"stop"}]}`
	var kept storedResponse
	x := responsesExchange(&kept)
	x.responses.Chain = []storedResponse{{ID: "resp_before", Status: "completed", Input: []json.RawMessage{[]byte(`{"role":"user","content":"one"}`)}, Object: []byte(`{"output":[]}`)}}
	got := answerOf(t, x, `{"model":"m","input":"two","previous_response_id":"resp_before"}`, completion)
	if kept.ID != "resp_"+testBase+"0000" || kept.Previous != "resp_before" || kept.Status != "completed" || string(kept.Object) != got {
		t.Errorf("kept %+v, want the object that the client got: %s", kept, got)
	}
	if want := `{"type":"message","id":"msg_` + testBase + `0001","status":"completed","role":"user","content":[{"type":"input_text","text":"two"}]}`; len(kept.Input) != 1 || string(kept.Input[0]) != want {
		t.Errorf("kept input %s, want %s", kept.Input, want)
	}
	if want := []reasoningStamp{{"rs_" + testBase + "0002", "apx1.c."}}; !reflect.DeepEqual(kept.Stamps, want) {
		t.Errorf("kept stamps %v, want %v (D-144)", kept.Stamps, want)
	}
	if strings.Contains(got, "encrypted_content") {
		t.Errorf("the client gets a stamp that it has not asked for: %s", got)
	}

	for _, tt := range []struct {
		name, store string
		keep        func(storedResponse) bool
	}{
		{"D-143 store:false", "false", func(storedResponse) bool { t.Error("an answer is stored though store is false"); return true }},
		{"D-140 store down", "true", func(storedResponse) bool { return false }},
		{"nobody to store it", "true", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			x.responses.Keep = tt.keep
			got := answerOf(t, x, `{"model":"m","input":"hi","store":`+tt.store+`}`, completion)
			if v := string(member([]byte(got), "store")); v != "false" {
				t.Errorf("store = %s, want false", v)
			}
		})
	}
}

func TestFailResponses(t *testing.T) {
	for _, tt := range []struct {
		name   string
		e      apiError
		status int
		body   string
	}{
		{"H-29", apiError{Status: 400, Type: "invalid_request_error", Code: "context_length_exceeded", Message: "too long"}, 400,
			`{"error":{"message":"too long","type":"invalid_request_error","param":null,"code":"context_length_exceeded"}}`},
		{"F.2 422", apiError{Status: 422, Type: "invalid_request_error", Param: "input", Message: "no"}, 400,
			`{"error":{"message":"no","type":"invalid_request_error","param":"input","code":null}}`},
		{"F.2 429", apiError{Status: 429, Type: "rate_limit_error", Code: "rate_limit_exceeded", Message: "slow"}, 429,
			`{"error":{"message":"slow","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, v := failResponses(&tt.e)
			body, err := marshal(v)
			if status != tt.status || string(body) != tt.body || err != nil {
				t.Errorf("failResponses = %d %s, want %d %s", status, body, tt.status, tt.body)
			}
		})
	}
}

func TestFailEventResponses(t *testing.T) {
	e := &apiError{Status: 503, Type: "server_error", Code: "server_is_overloaded", Message: "a \"busy\" day"}
	want := "event: error\ndata: " + `{"type":"error","sequence_number":0,"code":"server_is_overloaded","message":"a \"busy\" day","param":null,` +
		`"error":{"type":"server_error","code":"server_is_overloaded","message":"a \"busy\" day","param":null}}` + "\n\ndata: [DONE]\n\n"
	if got := string(failEventResponses(nil, e)); got != want {
		t.Errorf("D-129: event = %s, want %s", got, want)
	}
}

func TestResponseErrorCode(t *testing.T) {
	for _, tt := range []struct {
		e    apiError
		want string
	}{
		{apiError{Status: 400, Code: "context_length_exceeded"}, "context_length_exceeded"},
		{apiError{Status: 429, Type: "rate_limit_error"}, "rate_limit_exceeded"},
		{apiError{Status: 429, Code: "insufficient_quota"}, "insufficient_quota"},
		{apiError{Status: 402}, "insufficient_quota"},
		{apiError{Status: 429, Type: "insufficient_quota"}, "insufficient_quota"},
		{apiError{Status: 502, Code: "rate_limit_exceeded"}, "rate_limit_exceeded"},
		{apiError{Status: 500, Code: "server_is_overloaded"}, "server_is_overloaded"},
		{apiError{Status: 500, Code: "invalid_prompt"}, "invalid_prompt"},
		{apiError{Status: 503}, "server_is_overloaded"},
		{apiError{Status: 400, Code: "content_filter"}, "invalid_prompt"},
		{apiError{Status: 404, Code: "model_not_found"}, "invalid_prompt"},
		{apiError{Status: 502, Code: "upstream_malformed"}, "server_error"},
		{apiError{Status: 504, Code: "500"}, "server_error"},
		{apiError{Status: 409}, "server_error"},
	} {
		if got := responseErrorCode(&tt.e); got != tt.want {
			t.Errorf("D-128: code of %+v = %q, want %q", tt.e, got, tt.want)
		}
	}
}

func TestItemIDs(t *testing.T) {
	ids := itemIDs{base: testBase}
	if got := ids.next("msg_"); len(got) != len("msg_")+32 || responseOf(got) != ids.response() {
		t.Errorf("id = %q, which leads to %q, want one of 32 digits that leads to %q", got, responseOf(got), ids.response())
	}
	for _, id := range []string{"", "msg_1", "msg_" + strings.Repeat("g", 32), "rs_" + strings.Repeat("a", 48), strings.Repeat("a", 32)} {
		if got := responseOf(id); got != "" {
			t.Errorf("responseOf(%q) = %q, want none", id, got)
		}
	}
	a, b := newResponsesRequest(nil), newResponsesRequest(nil)
	if a.ids.response() == b.ids.response() || len(a.ids.response()) != len("resp_")+32 {
		t.Errorf("ids %q and %q, want two of 32 digits", a.ids.response(), b.ids.response())
	}
}

func FuzzDecodeResponses(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","input":"hi"}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}],"stream":true}`,
		`{"model":"m","input":[{"type":"reasoning","summary":[{"text":"t"}],"encrypted_content":"apx1.c.aG0"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"role":"assistant","content":"wait"},{"type":"function_call_output","call_id":"c1","output":[{"type":"input_image","image_url":"u"}]}]}`,
		`{"model":"m","input":[{"role":"user","parts":[{"text":"a"}]},{"type":"text","text":"b"}],"system_instruction":{"parts":[{"text":"s"}]}}`,
		`{"model":"m","input":"hi","tools":[{"type":"namespace","name":"n","tools":[{"type":"custom","name":"c","format":{"type":"grammar","syntax":"lark","definition":"x"}}]},{"type":"local_shell"},{"type":"web_search"}],"tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"namespace","name":"n"}]}}`,
		`{"model":"m","input":[{"type":"shell_call","call_id":"s","action":{"commands":["ls"]}},{"type":"shell_call_output","call_id":"s","output":[{"stdout":"a","outcome":{"type":"exit","exit_code":1}}]},{"type":"local_shell_call_output","id":"s","output":"x"},{"id":"msg_1"}]}`,
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, body []byte, chatPath bool) {
		if _, err := peek(body); err != nil {
			return
		}
		decode := func() (string, error) {
			x := responsesExchange(nil)
			if chatPath {
				x.dialect = &openai
			}
			got, err := decodedBody(x, string(body))
			for i, raw := range x.responses.Input {
				if checkJSON(raw) != nil || !isString(member(raw, "id")) {
					t.Errorf("input item %d is stored as %s", i, raw)
				}
			}
			return got, err
		}
		got, err := decode()
		if err != nil {
			if e, ok := err.(*apiError); !ok || e.Status < 400 || e.Status > 499 {
				t.Errorf("error = %v, want one of the client's", err)
			}
			return
		}
		if err := checkJSON([]byte(got)); err != nil {
			t.Errorf("what goes upstream is no JSON: %v: %s", err, got)
		}
		if again, _ := decode(); again != got {
			t.Errorf("decoded again to %s, first to %s", again, got)
		}
	})
}
