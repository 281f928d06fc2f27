package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// demoReplyBody is what a client reads of an answer, a whole one or a chunk.
type demoReplyBody struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Model   string `json:"model"`
	Choices []struct {
		Index        int                `json:"index"`
		Text         string             `json:"text"`
		Message      demoReplyMessage   `json:"message"`
		Delta        demoReplyMessage   `json:"delta"`
		FinishReason *string            `json:"finish_reason"`
		Logprobs     *demoReplyLogprobs `json:"logprobs"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens            int `json:"prompt_tokens"`
		CompletionTokens        int `json:"completion_tokens"`
		TotalTokens             int `json:"total_tokens"`
		CompletionTokensDetails struct {
			ReasoningTokens int `json:"reasoning_tokens"`
		} `json:"completion_tokens_details"`
	} `json:"usage"`
	Error *struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

type demoReplyMessage struct {
	Role             string  `json:"role"`
	Content          *string `json:"content"`
	ReasoningContent string  `json:"reasoning_content"`
	ToolCalls        []struct {
		Index    int    `json:"index"`
		ID       string `json:"id"`
		Type     string `json:"type"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

type demoReplyLogprobs struct {
	Content []struct {
		Token       string  `json:"token"`
		Logprob     float64 `json:"logprob"`
		Bytes       []int   `json:"bytes"`
		TopLogprobs []struct {
			Token   string  `json:"token"`
			Logprob float64 `json:"logprob"`
		} `json:"top_logprobs"`
	} `json:"content"`
}

// demoPost sends a body to a demo upstream that does not wait, and returns the
// status and the answer's bytes as far as they came.
func demoPost(t *testing.T, path, body string) (*http.Response, []byte, error) {
	t.Helper()
	srv := httptest.NewServer(newDemoUpstream(0))
	defer srv.Close()
	resp, err := http.Post(srv.URL+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// demoWhole posts a chat request and decodes the one object it answers.
func demoWhole(t *testing.T, body string) demoReplyBody {
	t.Helper()
	resp, b, err := demoPost(t, "/v1/chat/completions", body)
	var got demoReplyBody
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("POST %s: status %d, error %v, body %s", body, resp.StatusCode, err, b)
	}
	return got
}

// demoChunks posts a streaming request and decodes its events; done says whether
// [DONE] came last.
func demoChunks(t *testing.T, path, body string) (chunks []demoReplyBody, done bool, err error) {
	t.Helper()
	resp, b, err := demoPost(t, path, body)
	if ct := resp.Header.Get("Content-Type"); ct != "text/event-stream; charset=utf-8" {
		t.Fatalf("POST %s: content type %q, body %s", body, ct, b)
	}
	for event := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok || done {
			t.Fatalf("event %q is not one data line, or comes after [DONE]", event)
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var c demoReplyBody
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("event %q: %v", event, err)
		}
		chunks = append(chunks, c)
	}
	return chunks, done, err
}

// demoGather joins a stream's deltas into text, reasoning and arguments of
// choice number index.
func demoGather(chunks []demoReplyBody, index int) (text, reasoning, finish string, args []string) {
	for _, c := range chunks {
		for _, choice := range c.Choices {
			if choice.Index != index {
				continue
			}
			if choice.Delta.Content != nil {
				text += *choice.Delta.Content
			}
			text += choice.Text
			reasoning += choice.Delta.ReasoningContent
			for _, call := range choice.Delta.ToolCalls {
				if call.ID != "" {
					args = append(args, call.Function.Name+" ")
				}
				args[call.Index] += call.Function.Arguments
			}
			if choice.FinishReason != nil {
				finish = *choice.FinishReason
			}
		}
	}
	return text, reasoning, finish, args
}

// A stream carries the same answer as the whole object, for every kind of it.
func TestDemoStreamEqualsWhole(t *testing.T) {
	const tools = `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}]`
	for _, request := range []string{
		`"model":"demo","messages":[{"role":"user","content":"line one\nline <two> & 你好 😀"}]`,
		`"model":"demo","n":3,"messages":[{"role":"user","content":"hi"}]`,
		`"model":"demo","max_tokens":3,"messages":[{"role":"user","content":"count to 9"}]`,
		`"model":"demo","stop":["5"],"messages":[{"role":"user","content":"count to 9"}]`,
		`"model":"demo-slow","messages":[{"role":"user","content":"hi"}]`,
		`"model":"demo-reasoning","messages":[{"role":"user","content":"hi"}]`,
		`"model":"demo-reasoning","max_tokens":4,"messages":[{"role":"user","content":"hi"}]`,
		`"model":"demo-tools",` + tools + `,"messages":[{"role":"user","content":"weather in Paris"}]`,
	} {
		t.Run(request, func(t *testing.T) {
			whole := demoWhole(t, "{"+request+"}")
			chunks, done, err := demoChunks(t, "/v1/chat/completions", `{"stream":true,"stream_options":{"include_usage":true},`+request+"}")
			if err != nil || !done {
				t.Fatalf("stream ends with error %v, [DONE] %v", err, done)
			}
			for i, w := range whole.Choices {
				text, reasoning, finish, args := demoGather(chunks, i)
				if want := w.Message.Content; want != nil && text != *want || want == nil && text != "" {
					t.Errorf("choice %d: streamed text %q, whole %v", i, text, want)
				}
				if reasoning != w.Message.ReasoningContent || finish != *w.FinishReason {
					t.Errorf("choice %d: streamed reasoning %q, finish %q; whole %q, %q", i, reasoning, finish, w.Message.ReasoningContent, *w.FinishReason)
				}
				var want []string
				for _, c := range w.Message.ToolCalls {
					want = append(want, c.Function.Name+" "+c.Function.Arguments)
				}
				if !slices.Equal(args, want) {
					t.Errorf("choice %d: streamed calls %q, whole %q", i, args, want)
				}
			}
			last := chunks[len(chunks)-1]
			if last.Usage == nil || *last.Usage != *whole.Usage || len(last.Choices) != 0 {
				t.Errorf("last chunk %+v, want the whole's usage %+v and no choices", last, whole.Usage)
			}
			if chunks[0].Object != "chat.completion.chunk" || whole.Object != "chat.completion" || chunks[0].ID != last.ID || chunks[0].ID == whole.ID {
				t.Errorf("objects %q and %q, ids %q, %q, %q", chunks[0].Object, whole.Object, chunks[0].ID, last.ID, whole.ID)
			}
		})
	}
}

func TestDemoUsageChunk(t *testing.T) {
	const body = `{"model":"demo","stream":true,%s"messages":[{"role":"user","content":"hi"}]}`
	_, plain, _ := demoPost(t, "/v1/chat/completions", fmt.Sprintf(body, ""))
	if bytes.Contains(plain, []byte("usage")) {
		t.Errorf("usage nobody asked for: %s", plain)
	}
	_, asked, _ := demoPost(t, "/v1/chat/completions", fmt.Sprintf(body, `"stream_options":{"include_usage":true},`))
	events := strings.Split(string(asked), "\n\n")
	for _, e := range events[:len(events)-3] {
		if !strings.HasSuffix(e, `"usage":null}`) {
			t.Errorf("event without a null usage: %s", e)
		}
	}
	if e := events[len(events)-3]; !strings.Contains(e, `"choices":[],"usage":{"prompt_tokens":5,`) {
		t.Errorf("usage event is %s", e)
	}
}

func TestDemoFinish(t *testing.T) {
	for _, tt := range []struct {
		name, extra, text, finish string
		tokens                    int
	}{
		{"whole", ``, "1 2 3 4 5 6", "stop", 6},
		{"stop string", `"stop":"4",`, "1 2 3 ", "stop", 4},
		{"first of several stops", `"stop":["5","3"],`, "1 2 ", "stop", 3},
		{"stop at the start", `"stop":"1",`, "", "stop", 0},
		{"no such stop", `"stop":["x"],`, "1 2 3 4 5 6", "stop", 6},
		{"max_tokens", `"max_tokens":2,`, "1 2", "length", 2},
		{"max_completion_tokens", `"max_completion_tokens":3,`, "1 2 3", "length", 3},
		{"enough tokens", `"max_tokens":6,`, "1 2 3 4 5 6", "stop", 6},
		{"null", `"max_tokens":null,"stop":null,"n":null,"tool_choice":null,`, "1 2 3 4 5 6", "stop", 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := demoWhole(t, `{"model":"demo",`+tt.extra+`"messages":[{"role":"user","content":"count to 6"}]}`)
			c := got.Choices[0]
			if *c.Message.Content != tt.text || *c.FinishReason != tt.finish {
				t.Errorf("%s: %q, %q; want %q, %q", tt.extra, *c.Message.Content, *c.FinishReason, tt.text, tt.finish)
			}
			if n := tt.tokens; got.Usage.CompletionTokens != n || got.Usage.TotalTokens != got.Usage.PromptTokens+n || got.Usage.PromptTokens != 7 {
				t.Errorf("%s: usage %+v, want %d completion tokens", tt.extra, *got.Usage, n)
			}
		})
	}
}

func TestDemoChoices(t *testing.T) {
	got := demoWhole(t, `{"model":"demo","n":2,"messages":[{"role":"user","content":"hi"}]}`)
	if len(got.Choices) != 2 || got.Choices[1].Index != 1 {
		t.Fatalf("n=2 gives %+v", got.Choices)
	}
	if a, b := *got.Choices[0].Message.Content, *got.Choices[1].Message.Content; b != "Choice 2: "+a {
		t.Errorf("second choice %q, first %q", b, a)
	}
}

func TestDemoLogprobs(t *testing.T) {
	got := demoWhole(t, `{"model":"demo","logprobs":true,"top_logprobs":2,"messages":[{"role":"user","content":"count to 3"}]}`)
	var text string
	for _, l := range got.Choices[0].Logprobs.Content {
		text += l.Token
		if l.Logprob > 0 || len(l.Bytes) != len(l.Token) || len(l.TopLogprobs) != 2 {
			t.Errorf("token %+v", l)
		}
		if l.TopLogprobs[0].Token != l.Token || l.TopLogprobs[1].Logprob >= l.Logprob {
			t.Errorf("token %q: alternatives %+v", l.Token, l.TopLogprobs)
		}
	}
	if text != *got.Choices[0].Message.Content {
		t.Errorf("tokens join to %q, content is %q", text, *got.Choices[0].Message.Content)
	}
	chunks, _, _ := demoChunks(t, "/v1/chat/completions", `{"model":"demo","stream":true,"logprobs":true,"messages":[{"role":"user","content":"count to 3"}]}`)
	if l := chunks[1].Choices[0].Logprobs; l == nil || l.Content[0].Token != *chunks[1].Choices[0].Delta.Content {
		t.Errorf("streamed logprobs %+v", l)
	}
}

// A schema that contains itself ends, with as many lists and alternatives open
// as it takes.
func TestDemoBroken(t *testing.T) {
	const body = `{"model":"demo-broken",%s"messages":[{"role":"user","content":"hi"}]}`
	for _, extra := range []string{`"stream":true,`, `"stream":true,"max_tokens":1,`, `"stream":true,"stream_options":{"include_usage":true},"max_tokens":1,`} {
		chunks, done, err := demoChunks(t, "/v1/chat/completions", fmt.Sprintf(body, extra))
		_, _, finish, _ := demoGather(chunks, 0)
		if err == nil || done || finish != "" || len(chunks) == 0 {
			t.Errorf("%s: error %v, [DONE] %v, finish %q, %d chunks", extra, err, done, finish, len(chunks))
		}
	}
	resp, b, err := demoPost(t, "/v1/chat/completions", fmt.Sprintf(body, ""))
	if err == nil || resp.StatusCode != 200 || len(b) == 0 || json.Valid(b) {
		t.Errorf("whole: status %d, error %v, body %s", resp.StatusCode, err, b)
	}
}

func TestDemoErrors(t *testing.T) {
	const hi = `"messages":[{"role":"user","content":"hi"}]`
	const call = `{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}`
	for _, tt := range []struct {
		name, path, body string
		status           int
		param, code      string
		message          string
	}{
		{"not JSON", "/v1/chat/completions", `{"model":`, 400, "", "", "could not parse the JSON"},
		{"no model", "/v1/chat/completions", `{` + hi + `}`, 400, "", "", "you must provide a model"},
		{"unknown model", "/v1/chat/completions", `{"model":"x",` + hi + `}`, 404, "", "model_not_found", "`x`"},
		{"no messages", "/v1/chat/completions", `{"model":"demo"}`, 400, "messages", "missing_required_parameter", "'messages'"},
		{"empty messages", "/v1/chat/completions", `{"model":"demo","messages":[]}`, 400, "messages", "empty_array", "'messages'"},
		{"messages of a wrong type", "/v1/chat/completions", `{"model":"demo","messages":"hi"}`, 400, "messages", "invalid_type", "string"},
		{"unknown role", "/v1/chat/completions", `{"model":"demo","messages":[{"role":"boss","content":"hi"}]}`, 400, "messages[0].role", "invalid_value", "'boss'"},
		{"unknown part", "/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":[{"type":"smell"}]}]}`, 400, "messages", "invalid_value", "'smell'"},
		{"damaged image", "/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAE"}}]}]}`, 400, "messages", "invalid_image_url", "image"},
		{"n", "/v1/chat/completions", `{"model":"demo","n":0,` + hi + `}`, 400, "n", "invalid_value", "'n'"},
		{"max_tokens", "/v1/chat/completions", `{"model":"demo","max_tokens":0,` + hi + `}`, 400, "max_tokens", "integer_below_min_value", "'max_tokens'"},
		{"stream_options without stream", "/v1/chat/completions", `{"model":"demo","stream_options":{"include_usage":true},` + hi + `}`, 400, "stream_options", "", "stream"},
		{"top_logprobs without logprobs", "/v1/chat/completions", `{"model":"demo","top_logprobs":1,` + hi + `}`, 400, "top_logprobs", "", "'logprobs'"},
		{"unknown tool", "/v1/chat/completions", `{"model":"demo","tool_choice":{"type":"function","function":{"name":"g"}},` + hi + `}`, 400, "tool_choice", "", "'g'"},
		{"tool message without a call", "/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"hi"},{"role":"tool","tool_call_id":"a","content":"1"}]}`, 400, "messages[1].role", "", "'tool_calls'"},
		{"tool message for another call", "/v1/chat/completions", `{"model":"demo","messages":[` + call + `,{"role":"tool","tool_call_id":"b","content":"1"}]}`, 400, "messages[1].role", "", "'tool_calls'"},
		{"call without an answer", "/v1/chat/completions", `{"model":"demo","messages":[` + call + `,{"role":"user","content":"hi"}]}`, 400, "messages[1]", "", "response messages: a"},
		{"call at the end", "/v1/chat/completions", `{"model":"demo","messages":[` + call + `]}`, 400, "messages", "", "response messages: a"},
		{"rate limit", "/v1/chat/completions", `{"model":"demo-429",` + hi + `}`, 429, "", "rate_limit_exceeded", "Rate limit"},
		{"rate limit, streaming", "/v1/chat/completions", `{"model":"demo-429","stream":true,` + hi + `}`, 429, "", "rate_limit_exceeded", "Rate limit"},
		{"unknown path", "/v1/nothing", `{}`, 404, "", "", "Invalid URL (POST /v1/nothing)"},
		{"wrong method", "/v1/models", `{}`, 405, "", "", "Not allowed to POST on /v1/models"},
		{"empty embedding input", "/v1/embeddings", `{"model":"demo","input":["a",""]}`, 400, "input", "invalid_value", "empty"},
		{"no embedding input", "/v1/embeddings", `{"model":"demo"}`, 400, "input", "missing_required_parameter", "'input'"},
		{"dimensions", "/v1/embeddings", `{"model":"demo","input":"a","dimensions":-1}`, 400, "dimensions", "invalid_value", "-1"},
		{"unknown model for embeddings", "/v1/embeddings", `{"model":"x","input":"a"}`, 404, "", "model_not_found", "`x`"},
		{"legacy completion without a model", "/v1/completions", `{"prompt":"a"}`, 400, "", "", "you must provide a model"},
		{"legacy completion with n", "/v1/completions", `{"model":"demo","prompt":"a","n":500}`, 400, "n", "invalid_value", "500"},
		{"upload that is not a form", "/v1/files", `{}`, 400, "", "", "multipart"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, b, _ := demoPost(t, tt.path, tt.body)
			var got demoReplyBody
			if err := json.Unmarshal(b, &got); err != nil || got.Error == nil {
				t.Fatalf("status %d, body %s", resp.StatusCode, b)
			}
			e := got.Error
			if resp.StatusCode != tt.status || !strings.Contains(e.Message, tt.message) || !demoSame(e.Param, tt.param) || !demoSame(e.Code, tt.code) {
				t.Errorf("status %d, body %s; want %d, param %q, code %q, message with %q", resp.StatusCode, b, tt.status, tt.param, tt.code, tt.message)
			}
			if retry := resp.Header.Get("Retry-After"); (retry == "1") != (tt.status == 429) {
				t.Errorf("Retry-After %q with status %d", retry, resp.StatusCode)
			}
		})
	}
}

// demoSame reports whether a nullable string is want; "" means null.
func demoSame(got *string, want string) bool {
	return got == nil && want == "" || got != nil && *got == want && want != ""
}

func TestDemoModels(t *testing.T) {
	srv := httptest.NewServer(newDemoUpstream(0))
	defer srv.Close()
	get := func(path string) (int, string) {
		resp, err := http.Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	status, list := get("/v1/models")
	for _, id := range []string{"demo", "demo-tools", "demo-reasoning", "demo-slow", "demo-429", "demo-broken", "demo-echo"} {
		object := `{"id":"` + id + `","object":"model","created":1767225600,"owned_by":"apiproxy-demo"}`
		if status != 200 || !strings.Contains(list, object) {
			t.Errorf("status %d, list %s; want %s in it", status, list, object)
		}
		if status, one := get("/v1/models/" + id); status != 200 || one != object {
			t.Errorf("model %s: status %d, body %s", id, status, one)
		}
	}
	if status, body := get("/v1/models/org/x"); status != 404 || !strings.Contains(body, "`org/x`") {
		t.Errorf("unknown model: status %d, body %s", status, body)
	}
}

func TestDemoEmbeddings(t *testing.T) {
	embed := func(body string) [][]float32 {
		resp, b, err := demoPost(t, "/v1/embeddings", body)
		var got struct {
			Data []struct {
				Embedding json.RawMessage `json:"embedding"`
			} `json:"data"`
		}
		if err == nil {
			err = json.Unmarshal(b, &got)
		}
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%s: status %d, error %v, body %s", body, resp.StatusCode, err, b)
		}
		var vectors [][]float32
		for _, d := range got.Data {
			vectors = append(vectors, demoReadVector(t, d.Embedding))
		}
		return vectors
	}
	v := embed(`{"model":"demo","input":["the cat sat","the cat ran","blue cars"],"dimensions":64}`)
	packed := embed(`{"model":"demo","input":["the cat sat","the cat ran","blue cars"],"dimensions":64,"encoding_format":"base64"}`)
	for i := range v {
		if len(v[i]) != 64 || !slices.Equal(v[i], packed[i]) || math.Abs(demoDot(v[i], v[i])-1) > 1e-5 {
			t.Errorf("vector %d: %v, in base64 %v", i, v[i], packed[i])
		}
	}
	if demoDot(v[0], v[1]) <= demoDot(v[0], v[2]) {
		t.Errorf("like texts are %v apart, unlike ones %v", demoDot(v[0], v[1]), demoDot(v[0], v[2]))
	}
	for _, tt := range []struct {
		input string
		want  int
	}{{`"one"`, 1}, {`[1,2,3]`, 1}, {`[[1,2],[3]]`, 2}} {
		if got := embed(`{"model":"demo","input":` + tt.input + `}`); len(got) != tt.want || len(got[0]) != 16 {
			t.Errorf("input %s gives %v", tt.input, got)
		}
	}
}

func demoReadVector(t *testing.T, raw json.RawMessage) []float32 {
	t.Helper()
	var v []float32
	if raw[0] == '[' {
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	var b []byte
	if err := json.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	v = make([]float32, len(b)/4)
	if _, err := binary.Decode(b, binary.LittleEndian, v); err != nil {
		t.Fatal(err)
	}
	return v
}

func demoDot(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestDemoCompletions(t *testing.T) {
	_, b, _ := demoPost(t, "/v1/completions", `{"model":"demo","prompt":["count to 3","count to 2"],"max_tokens":2}`)
	var whole demoReplyBody
	if err := json.Unmarshal(b, &whole); err != nil || len(whole.Choices) != 2 {
		t.Fatalf("error %v, body %s", err, b)
	}
	if whole.Object != "text_completion" || whole.Choices[0].Text != "1 2" || *whole.Choices[0].FinishReason != "length" || *whole.Choices[1].FinishReason != "stop" || whole.Usage.CompletionTokens != 4 {
		t.Errorf("body %s", b)
	}
	chunks, done, _ := demoChunks(t, "/v1/completions", `{"model":"demo","prompt":"count to 3","stream":true,"stream_options":{"include_usage":true}}`)
	if text, _, finish, _ := demoGather(chunks, 0); text != "1 2 3" || finish != "stop" || !done || chunks[len(chunks)-1].Usage == nil {
		t.Errorf("stream gives %q, finish %q, [DONE] %v", text, finish, done)
	}
}

func TestDemoFiles(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	var form bytes.Buffer
	mw := multipart.NewWriter(&form)
	fw, _ := mw.CreateFormFile("file", "a.jsonl")
	_, _ = fw.Write(content)
	_ = mw.WriteField("purpose", "batch")
	_ = mw.Close()
	upload := func(body []byte) (int, map[string]any) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("POST", "/v1/files", bytes.NewReader(body))
		r.Header.Set("Content-Type", mw.FormDataContentType())
		newDemoUpstream(0).ServeHTTP(w, r)
		var got map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		return w.Code, got
	}
	sum := sha256.Sum256(content)
	status, got := upload(form.Bytes())
	if status != 200 || got["bytes"] != float64(len(content)) || got["filename"] != "a.jsonl" || got["purpose"] != "batch" || got["id"] != "file-"+hex.EncodeToString(sum[:])[:24] {
		t.Errorf("status %d, file %v", status, got)
	}
	if status, got := upload(form.Bytes()[:form.Len()/2]); status != 400 {
		t.Errorf("half a form: status %d, body %v", status, got)
	}
}

// At its real pace a first token takes 160 ms and each further one 20 ms;
// demo-slow takes 3 s. Every event is flushed by itself.
func TestDemoPace(t *testing.T) {
	for _, tt := range []struct {
		model string
		first time.Duration
	}{{"demo", 160 * time.Millisecond}, {"demo-slow", 3 * time.Second}, {"demo-echo", 0}} {
		t.Run(tt.model, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &demoFlushes{ResponseRecorder: httptest.NewRecorder(), start: time.Now()}
				demoUpstream().ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions",
					strings.NewReader(`{"model":"`+tt.model+`","stream":true,"messages":[{"role":"user","content":"count to 5"}]}`)))
				// The headers, role, tokens, finish, and [DONE] at once after that.
				events := strings.Count(w.Body.String(), "\n\n")
				if len(w.at) != events+1 || w.at[0] != 0 || w.at[1] != tt.first {
					t.Fatalf("%d events flushed at %v, want the first at %v", events, w.at, tt.first)
				}
				for i := 2; i < events; i++ {
					if gap := w.at[i] - w.at[i-1]; gap != 20*time.Millisecond {
						t.Errorf("event %d comes %v after the one before", i, gap)
					}
				}
			})
		})
	}
}

// demoFlushes notes when each flush came.
type demoFlushes struct {
	*httptest.ResponseRecorder
	start time.Time
	at    []time.Duration
}

func (w *demoFlushes) Flush() { w.at = append(w.at, time.Since(w.start)) }

func TestDemoStopsWhenClientLeaves(t *testing.T) {
	for _, body := range []string{
		`{"model":"demo","stream":true,"messages":[{"role":"user","content":"count to 1000"}]}`,
		`{"model":"demo-slow","messages":[{"role":"user","content":"hi"}]}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, leave := context.WithTimeout(t.Context(), time.Second)
			defer leave()
			w := httptest.NewRecorder()
			start := time.Now()
			demoUpstream().ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body)).WithContext(ctx))
			if d := time.Since(start); d != time.Second {
				t.Errorf("%s: ended after %v, want 1s", body, d)
			}
			if strings.Contains(w.Body.String(), "[DONE]") {
				t.Errorf("%s: the answer was ended", body)
			}
		})
	}
}

// A token is what the stream sends at once: together they are the text, and
// none is long or cuts a character.
// Whatever the schema, what it is filled with is JSON.
