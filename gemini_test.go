package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestCutGeminiCall(t *testing.T) {
	for _, tt := range []struct {
		in, model, verb string
		ok              bool
	}{
		{"gemini-pro:generateContent", "gemini-pro", "generateContent", true},
		{"qwen3:8b:generateContent", "qwen3:8b", "generateContent", true},
		{"org%2Fname:generateContent", "org/name", "generateContent", true},
		{"org/name:streamGenerateContent", "org/name", "streamGenerateContent", true},
		{"m%3AcountTokens", "m", "countTokens", true},
		{"models/m:generateContent", "m", "generateContent", true},
		{"m", "", "", false},
		{":generateContent", "", "generateContent", false},
		{"m:", "m", "", false},
		{"a:b/c", "a", "b/c", false},
		{"%zz:generateContent", "", "", false},
	} {
		model, verb, ok := cutGeminiCall(tt.in)
		if model != tt.model || verb != tt.verb || ok != tt.ok {
			t.Errorf("B-6: cutGeminiCall(%q) = %q, %q, %v; want %q, %q, %v", tt.in, model, verb, ok, tt.model, tt.verb, tt.ok)
		}
	}
}

// encodeGeminiTo encodes a whole chat answer.
func encodeGeminiTo(t *testing.T, x *exchange, completion string) string {
	t.Helper()
	if err := checkJSON([]byte(completion)); err != nil {
		t.Fatal(err)
	}
	b, err := marshal(encodeGemini(x, readCompletion([]byte(completion), x.quirk)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEncodeGemini(t *testing.T) {
	const usage = `"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}`
	const counted = `"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"totalTokenCount":13,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}]},"modelVersion":"m"`
	for _, tt := range []struct {
		name, in, want string
		g              geminiRequest
	}{
		{name: "B-91", in: `{"id":"c1","choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":null,"tool_calls":[{"id":"x1","type":"function","function":{"name":"f","arguments":"{\"n\":9007199254740993}"}}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"x1","name":"f","args":{"n":9007199254740993}}}]},"finishReason":"STOP","index":0}],` + counted + `,"responseId":"c1"}`},
		{name: "B-82 B-88", in: `{"id":"c1","created":1700000000,"choices":[{"finish_reason":"stop","message":{"content":"a <b>"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a <b>"}]},"finishReason":"STOP","index":0}],` + counted + `,"createTime":"2023-11-14T22:13:20Z","responseId":"c1"}`},
		{name: "0-12 nothing", in: `{"choices":[{"message":{"content":""}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "B-81 shown and stamped", g: geminiRequest{IncludeThoughts: true},
			in:   `{"choices":[{"finish_reason":"stop","message":{"reasoning_content":"hm","content":"a"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"hm","thought":true,"thoughtSignature":"YXB4MS5jLg=="},{"text":"a"}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "B-81 from tags has no stamp", g: geminiRequest{IncludeThoughts: true},
			in:   `{"choices":[{"finish_reason":"stop","message":{"content":"<think>hm</think>a"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"hm","thought":true},{"text":"a"}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "B-81 not asked for", in: `{"choices":[{"finish_reason":"stop","message":{"reasoning_content":"hm","content":"a"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "B-83", in: `{"choices":[{"finish_reason":"stop","message":{"content":null,"refusal":"no"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"no"}]},"finishReason":"SAFETY","index":0}],` + counted + `}`},
		{name: "B-84 B-85 text and calls", in: `{"choices":[{"finish_reason":"stop","message":{"content":"so","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}},{"id":"b","function":{"name":"g","arguments":""}}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"so"},{"functionCall":{"id":"a","name":"f","args":{}},"thoughtSignature":"c2ln"},{"functionCall":{"id":"b","name":"g","args":{}}}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "E-8 cut off arguments", in: `{"choices":[{"finish_reason":"length","message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{\"x"}}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"a","name":"f","args":{"_raw_arguments":"{\"x"}}}]},"finishReason":"MAX_TOKENS","index":0}],` + counted + `}`},
		{name: "E-16 white space beside calls", in: `{"choices":[{"finish_reason":"tool_calls","message":{"content":"\n","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"id":"a","name":"f","args":{}}}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "E-17 no name", in: `{"choices":[{"finish_reason":"tool_calls","message":{"tool_calls":[{"id":"a","function":{"name":"","arguments":"{}"}}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "B-86", in: `{"choices":[{"finish_reason":"stop","message":{"content":"ab"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"top_logprobs":[{"token":"a","logprob":-0.5},{"token":"A","logprob":-2}]},{"token":"b","logprob":-1.0}]}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"ab"}]},"finishReason":"STOP","index":0,"avgLogprobs":-0.75,"logprobsResult":{"chosenCandidates":[{"token":"a","logProbability":-0.5},{"token":"b","logProbability":-1.0}],"topCandidates":[{"candidates":[{"token":"a","logProbability":-0.5},{"token":"A","logProbability":-2}]},{"candidates":[]}]}}],` + counted + `}`},
		{name: "B-80 two candidates", in: `{"choices":[{"index":0,"finish_reason":"stop","message":{"content":"a"}},{"index":1,"finish_reason":"length","message":{"content":"b"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0},{"content":{"role":"model","parts":[{"text":"b"}]},"finishReason":"MAX_TOKENS","index":1}],` + counted + `}`},
		{name: "an enum's value is bare", g: geminiRequest{Enum: true}, in: `{"choices":[{"finish_reason":"stop","message":{"content":"\"a\""}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "an enum's answer that is no JSON string", g: geminiRequest{Enum: true}, in: `{"choices":[{"finish_reason":"stop","message":{"content":"a"}}],` + usage + `}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],` + counted + `}`},
		{name: "H-26 cached and thought tokens", in: `{"choices":[{"finish_reason":"stop","message":{"content":"a"}}],"usage":{"prompt_tokens":100,"completion_tokens":30,"total_tokens":130,"prompt_tokens_details":{"cached_tokens":60},"completion_tokens_details":{"reasoning_tokens":20}}}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":10,"totalTokenCount":130,"cachedContentTokenCount":60,"promptTokensDetails":[{"modality":"TEXT","tokenCount":100}],"thoughtsTokenCount":20},"modelVersion":"m"}`},
		{name: "B.6 the upstream's total", in: `{"choices":[{"finish_reason":"stop","message":{"content":"a"}}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":33}}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":4,"totalTokenCount":33,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}]},"modelVersion":"m"}`},
		{name: "B.6 no total, no negative count", in: `{"choices":[{"finish_reason":"content_filter","message":{"content":"a"}}],"usage":{"prompt_tokens":9,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":5}}}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"SAFETY","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":0,"totalTokenCount":13,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":5},"modelVersion":"m"}`},
		{name: "E-43 no prompt tokens", in: `{"choices":[{"finish_reason":"eos","message":{"content":"a"}}],"usage":{"prompt_tokens":0,"completion_tokens":4,"total_tokens":4}}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":4,"totalTokenCount":11,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]},"modelVersion":"m"}`},
		{name: "E-43 no usage", in: `{"choices":[{"finish_reason":"stop","message":{"content":"four tokens or so"}}]}`,
			want: `{"candidates":[{"content":{"role":"model","parts":[{"text":"four tokens or so"}]},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":5,"totalTokenCount":12,"promptTokensDetails":[{"modality":"TEXT","tokenCount":7}]},"modelVersion":"m"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			x.gemini, x.estimate = &tt.g, 7
			if got := encodeGeminiTo(t, x, tt.in); got != tt.want {
				t.Errorf("encode(%s)\n got %s\nwant %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestEncodeGeminiMapsNamesBack(t *testing.T) {
	x := geminiExchange()
	short := x.safeToolName("a.b")
	got := encodeGeminiTo(t, x, `{"choices":[{"message":{"tool_calls":[{"id":"i","function":{"name":"`+short+`","arguments":"{}"}}]}}]}`)
	if !strings.Contains(got, `"name":"a.b"`) {
		t.Errorf("C-74: %s has no a.b", got)
	}
}

func TestGeminiCallWithoutID(t *testing.T) {
	p := geminiCallPart(geminiExchange(), &chatToolCall{Function: chatFunctionCall{Name: "f"}})
	if len(p.FunctionCall.ID) != 9 {
		t.Errorf("0-11: id %q, want nine characters", p.FunctionCall.ID)
	}
}

func TestGeminiFinish(t *testing.T) {
	for want, finishes := range map[string]string{
		"STOP":       "stop eos tool_calls function_call complete",
		"MAX_TOKENS": "length model_length max_tokens",
		"SAFETY":     "content_filter",
		"OTHER":      "error abort insufficient_system_resource recitation",
	} {
		for _, f := range strings.Fields(finishes) {
			if got := geminiFinish(f, false); got != want {
				t.Errorf("B.6: finish_reason %q = %s, want %s", f, got, want)
			}
		}
	}
	if got := geminiFinish("", false); got != "STOP" {
		t.Errorf("B.6: no finish_reason = %s, want STOP", got)
	}
}

func TestGeminiStampComesBack(t *testing.T) {
	for _, r := range []reasoning{
		{Text: "hm", Field: reasoningContent},
		{Text: "hm", Field: reasoningPlain},
		{Text: "hm", Field: reasoningList, Details: []byte(`{"type":"reasoning.text","text":"hm"}`)},
	} {
		stamp, ok := readGeminiStamp(geminiStamp(r))
		back, ok2 := unstamp(stamp, "hm")
		if !ok || !ok2 || back.Field != r.Field || back.Text != r.Text || string(back.Details) != string(r.Details) {
			t.Errorf("E-24: %+v came back as %+v", r, back)
		}
	}
	for _, foreign := range []string{"", "c2ln", "YXB4MS", "YXB4MSx4", "skip_thought_signature_validator"} {
		if _, ok := readGeminiStamp(foreign); ok {
			t.Errorf("E-24: %q is taken for a stamp", foreign)
		}
	}
}

func TestFailGemini(t *testing.T) {
	for _, tt := range []struct {
		name string
		e    apiError
		code int
		want string
	}{
		{"400", apiError{Status: 400, Message: "no <x>"}, 400, `{"error":{"code":400,"message":"no <x>","status":"INVALID_ARGUMENT"}}`},
		{"401", apiError{Status: 401}, 401, `{"error":{"code":401,"message":"","status":"UNAUTHENTICATED"}}`},
		{"402", apiError{Status: 402}, 400, `{"error":{"code":400,"message":"","status":"FAILED_PRECONDITION"}}`},
		{"403", apiError{Status: 403}, 403, `{"error":{"code":403,"message":"","status":"PERMISSION_DENIED"}}`},
		{"404", apiError{Status: 404}, 404, `{"error":{"code":404,"message":"","status":"NOT_FOUND"}}`},
		{"405 with Allow", apiError{Status: 405}, 405, `{"error":{"code":405,"message":"","status":"INVALID_ARGUMENT"}}`},
		{"408", apiError{Status: 408}, 504, `{"error":{"code":504,"message":"","status":"DEADLINE_EXCEEDED"}}`},
		{"409", apiError{Status: 409}, 409, `{"error":{"code":409,"message":"","status":"ABORTED"}}`},
		{"413 upstream", apiError{Status: 413, Code: "request_too_large"}, 400, `{"error":{"code":400,"message":"","status":"INVALID_ARGUMENT"}}`},
		{"413 own", *bodyTooLarge(5), 413, `{"error":{"code":413,"message":"the request body is larger than the 5 bytes that this gateway accepts; send less, or have MAX_BODY_BYTES raised","status":"INVALID_ARGUMENT"}}`},
		{"422", apiError{Status: 422}, 400, `{"error":{"code":400,"message":"","status":"INVALID_ARGUMENT"}}`},
		{"B-111", apiError{Status: 429, RetryAfter: 16*time.Second + time.Millisecond}, 429, `{"error":{"code":429,"message":"","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"17s"}]}}`},
		{"499", apiError{Status: 499}, 499, `{"error":{"code":499,"message":"","status":"CANCELLED"}}`},
		{"500", apiError{Status: 500}, 500, `{"error":{"code":500,"message":"","status":"INTERNAL"}}`},
		{"501", apiError{Status: 501}, 501, `{"error":{"code":501,"message":"","status":"UNIMPLEMENTED"}}`},
		{"502", apiError{Status: 502}, 503, `{"error":{"code":503,"message":"","status":"UNAVAILABLE"}}`},
		{"503", apiError{Status: 503}, 503, `{"error":{"code":503,"message":"","status":"UNAVAILABLE"}}`},
		{"529", apiError{Status: 529}, 503, `{"error":{"code":503,"message":"","status":"UNAVAILABLE"}}`},
		{"504", apiError{Status: 504}, 504, `{"error":{"code":504,"message":"","status":"DEADLINE_EXCEEDED"}}`},
		{"other 4xx", apiError{Status: 418}, 400, `{"error":{"code":400,"message":"","status":"INVALID_ARGUMENT"}}`},
		{"B-90", apiError{Status: 400, Code: "content_filter"}, 200, `{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":0,"totalTokenCount":0}}`},
		{"H-29", apiError{Status: 400, Code: "context_length_exceeded", Message: "The model qwen-250714's maximum context length is 8,192 tokens, however you requested 9001."}, 400,
			`{"error":{"code":400,"message":"The input token count (9001) exceeds the maximum number of tokens allowed (8192).","status":"INVALID_ARGUMENT"}}`},
		{"F-20 without numbers", apiError{Status: 500, Code: "context_length_exceeded", Message: "too long for model 4"}, 400,
			`{"error":{"code":400,"message":"The input token count exceeds the maximum number of tokens allowed.","status":"INVALID_ARGUMENT"}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := failGemini(&tt.e)
			got, err := marshal(body)
			if err != nil || code != tt.code || string(got) != tt.want {
				t.Errorf("fail(%+v)\n got %d %s, %v\nwant %d %s", tt.e, code, got, err, tt.code, tt.want)
			}
		})
	}
}

func TestGeminiPromptBlocked(t *testing.T) {
	got, _ := marshal(geminiPromptBlocked("m"))
	if want := `{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":0,"totalTokenCount":0},"modelVersion":"m"}`; string(got) != want {
		t.Errorf("B-90: got %s, want %s", got, want)
	}
}

func TestFailEventGemini(t *testing.T) {
	got := string(failEventGemini(nil, &apiError{Status: 502, Message: "gone"}))
	if want := "data: {\"error\":{\"code\":503,\"message\":\"gone\",\"status\":\"UNAVAILABLE\"}}\r\n\r\n"; got != want {
		t.Errorf("B-112: got %q, want %q", got, want)
	}
}

func TestGeminiCount(t *testing.T) {
	got, _ := marshal(geminiCount(8))
	if want := `{"totalTokens":8,"promptTokensDetails":[{"modality":"TEXT","tokenCount":8}]}`; string(got) != want {
		t.Errorf("B.9: got %s, want %s", got, want)
	}
}

func TestGeminiModels(t *testing.T) {
	named := func(raw string) model { return model{ID: text(member([]byte(raw), "id")), Raw: []byte(raw)} }
	list := []model{
		named(`{"id":"org/a:1","context_length":1000,"top_provider":{"max_completion_tokens":50}}`),
		named(`{"id":"b","max_model_len":2000,"max_output_tokens":60}`),
		named(`{"id":"c","meta":{"n_ctx_train":3000},"max_completion_tokens":70}`),
		named(`{"id":"d","context_length":null,"context_window":4000}`),
		named(`{"id":"e"}`),
	}
	view := func(id, in, out string) string {
		return `{"name":"models/` + id + `","baseModelId":"` + id + `","version":"001","displayName":"` + id + `","description":"","inputTokenLimit":` + in + `,"outputTokenLimit":` + out + `,"supportedGenerationMethods":["generateContent","streamGenerateContent","countTokens"]}`
	}
	a, b, c, d, e := view("org/a:1", "1000", "50"), view("b", "2000", "60"), view("c", "3000", "70"), view("d", "4000", "8192"), view("e", "131072", "8192")
	for _, tt := range []struct{ name, query, want string }{
		{"all", "", `{"models":[` + strings.Join([]string{a, b, c, d, e}, ",") + `]}`},
		{"first page", "pageSize=2", `{"models":[` + a + `,` + b + `],"nextPageToken":"2"}`},
		{"next page", "pageSize=2&pageToken=2", `{"models":[` + c + `,` + d + `],"nextPageToken":"4"}`},
		{"last page", "pageSize=2&pageToken=4", `{"models":[` + e + `]}`},
		{"past the end", "pageToken=99", `{"models":[]}`},
		{"a page that takes all", "pageSize=1000", `{"models":[` + strings.Join([]string{a, b, c, d, e}, ",") + `]}`},
		{"nonsense", "pageSize=-1&pageToken=x", `{"models":[` + strings.Join([]string{a, b, c, d, e}, ",") + `]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			query, err := url.ParseQuery(tt.query)
			if err != nil {
				t.Fatal(err)
			}
			got, err := marshal(geminiModels(list, query))
			if err != nil || string(got) != tt.want {
				t.Errorf("B.10: ?%s\n got %s, %v\nwant %s", tt.query, got, err, tt.want)
			}
		})
	}
}

// What Gemini's clients may ask for beside generateContent.
func TestGeminiRoutes(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			answerJSON(200, `{"data":[{"id":"org/m:1","context_length":1000},{"id":"n"}]}`)(w, r)
			return
		}
		answerJSON(200, completion("ok"))(w, r)
	}, aliased("mine=theirs"))
	const key = "X-Goog-Api-Key: " + testKey
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     map[string]string
	}{
		{"B-1 alias, 0-10", "POST", "/v1beta/models/mine:generateContent", geminiHi, 200, map[string]string{"modelVersion": `"mine"`, "candidates.0.finishReason": `"STOP"`}},
		{"B-4 B.9", "POST", "/v1beta/models/n:countTokens", geminiHi, 200, map[string]string{"totalTokens": "5", "promptTokensDetails.0.tokenCount": "5"}},
		{"B.9 a whole request", "POST", "/v1/models/n:countTokens", `{"generateContentRequest":` + geminiHi + `}`, 200, map[string]string{"totalTokens": "5"}},
		{"B-5", "GET", "/v1beta/models", "", 200, map[string]string{"models.0.name": `"models/org/m:1"`, "models.0.inputTokenLimit": "1000", "models.1.name": `"models/n"`}},
		{"B-5 a page", "GET", "/v1alpha/models?pageSize=1", "", 200, map[string]string{"models.1": "", "nextPageToken": `"1"`}},
		{"B-5 under v1", "GET", "/v1/models/org/m:1", "", 200, map[string]string{"name": `"models/org/m:1"`}},
		{"B-5 escaped", "GET", "/v1beta/models/org%2Fm:1", "", 200, map[string]string{"name": `"models/org/m:1"`}},
		{"B.10 unknown", "GET", "/v1beta/models/none", "", 404, map[string]string{"error.code": "404", "error.status": `"NOT_FOUND"`, "error.message": `"models/none is not found"`}},
		{"B.10 unknown, under v1", "GET", "/v1/models/none", "", 404, map[string]string{"error.message": `"models/none is not found"`}},
		{"B-6 unknown method", "POST", "/v1beta/models/n:explain", geminiHi, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8", "POST", "/v1beta/models/n:embedContent", `{"content":{}}`, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8 batch", "POST", "/v1beta/models/n:batchEmbedContents", `{}`, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8 predict", "POST", "/v1/models/n:predict", `{}`, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8 files", "GET", "/v1beta/files", "", 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8 uploads", "POST", "/upload/v1beta/files", `{}`, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
		{"B-8 caches", "POST", "/v1beta/cachedContents", `{}`, 404, map[string]string{"error.status": `"NOT_FOUND"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res := g.do(tt.method, tt.path, tt.body, "Authorization: ", key)
			got := readAll(t, res)
			if res.StatusCode != tt.status {
				t.Errorf("%d %s", res.StatusCode, got)
			}
			wants(t, got, tt.want)
			if counted := strings.HasSuffix(tt.path, "countTokens"); counted != (res.Header.Get("X-APIProxy-Token-Count") == "estimate") {
				t.Errorf("headers %v", res.Header)
			}
		})
	}
	if sent := at(t, g.upstream.all()[0].Body, "model"); sent != `"theirs"` {
		t.Errorf("B-10: the upstream was asked for %s", sent)
	}
}

// E-63: an answer has an id, and all chunks of a stream the same.
func TestGeminiResponseID(t *testing.T) {
	anonymous := func(s string) string { return strings.ReplaceAll(s, `"id":"c1",`, "") }
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(member(body, "stream")) == "true" {
			answerStream(anonymous(textChunk("A")), anonymous(textChunk("B")), finishChunk, doneEvent)(w, r)
			return
		}
		answerJSON(200, anonymous(completion("ok")))(w, r)
	})
	if got := g.ok(geminiPath, geminiHi); len(at(t, got, "responseId")) < 8 {
		t.Errorf("answered %s", got)
	}
	got := g.ok(geminiSSE, geminiHi)
	if checkGeminiStream(t, true, []byte(got)); !strings.Contains(got, `"responseId":"req_`) {
		t.Errorf("streamed %s", got)
	}
}
