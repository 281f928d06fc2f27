package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// A geminiRead is what a client has put together of a stream.
type geminiRead struct {
	text, thoughts map[int]string // by candidate
	calls          map[int]string // name(args) of each
	finish         map[int]string
	errorCode      int
	blocked        bool // the prompt was refused
	chunks         int
}

// checkGeminiStream checks a finished stream against the grammar of dialects
// B.7, and reads it as the official SDK does.
func checkGeminiStream(t *testing.T, sse bool, stream []byte) *geminiRead {
	t.Helper()
	r := &geminiRead{text: map[int]string{}, thoughts: map[int]string{}, calls: map[int]string{}, finish: map[int]string{}}
	chunks := geminiChunks(t, sse, stream)
	withUsage := false
	for i, chunk := range chunks {
		if err := checkJSON(chunk); err != nil {
			t.Fatalf("chunk %d: %v in %s", i, err, chunk)
		}
		last := i == len(chunks)-1
		if e := member(chunk, "error"); e != nil {
			r.errorCode = int(intOf(member(e, "code")))
			if !last || r.errorCode < 400 || r.errorCode > 599 || text(member(e, "status")) == "" {
				t.Fatalf("B-112: chunk %d of %d is the error %s", i, len(chunks), chunk)
			}
			return r
		}
		if member(chunk, "promptFeedback") != nil {
			if len(chunks) != 1 {
				t.Fatalf("B-90: promptFeedback in a stream of %d chunks", len(chunks))
			}
			r.blocked = true
			return r
		}
		if withUsage = member(chunk, "usageMetadata") != nil; withUsage != last {
			t.Fatalf("B-105: usage in chunk %d of %d: %s", i, len(chunks), chunk)
		}
		if text(member(chunk, "modelVersion")) != "m" || text(member(chunk, "responseId")) != text(member(chunks[0], "responseId")) {
			t.Fatalf("B-103: model or id of chunk %d: %s", i, chunk)
		}
		r.add(t, chunk)
	}
	for index := range r.text {
		if r.finish[index] == "" {
			t.Fatalf("B-107: candidate %d has no finishReason", index)
		}
	}
	return r
}

// geminiChunks takes the framing off.
func geminiChunks(t *testing.T, sse bool, stream []byte) [][]byte {
	t.Helper()
	var chunks [][]byte
	if !sse {
		if err := checkJSON(stream); err != nil || !isArray(stream) {
			t.Fatalf("B-102: %v in %s", err, stream)
		}
		for c := range elements(stream) {
			chunks = append(chunks, c)
		}
		return chunks
	}
	if !bytes.HasSuffix(stream, []byte("\r\n\r\n")) {
		t.Fatalf("B-101: the stream ends in %q", stream[max(0, len(stream)-20):])
	}
	for _, frame := range strings.Split(strings.TrimSuffix(string(stream), "\r\n\r\n"), "\r\n\r\n") {
		data, ok := strings.CutPrefix(frame, "data: ")
		if !ok || strings.ContainsAny(data, "\r\n") || data == "[DONE]" {
			t.Fatalf("B-100: frame %q", frame)
		}
		chunks = append(chunks, []byte(data))
	}
	return chunks
}

func (r *geminiRead) add(t *testing.T, chunk []byte) {
	t.Helper()
	var c struct {
		Candidates []struct {
			Content struct {
				Role  string
				Parts []struct {
					Text             *string
					Thought          bool
					ThoughtSignature string
					FunctionCall     *struct {
						ID, Name string
						Args     json.RawMessage
					}
				}
			}
			FinishReason string
			Index        *int
		}
	}
	if err := json.Unmarshal(chunk, &c); err != nil {
		t.Fatalf("%v in %s", err, chunk)
	}
	if len(c.Candidates) != 1 || c.Candidates[0].Index == nil || len(c.Candidates[0].Content.Parts) == 0 || c.Candidates[0].Content.Role != "model" {
		t.Fatalf("B-107: a chunk has one candidate with parts: %s", chunk)
	}
	r.chunks++
	cand := c.Candidates[0]
	i := *cand.Index
	if r.finish[i] != "" {
		t.Fatalf("B-105: a chunk after the last of its candidate: %s", chunk)
	}
	r.finish[i] = cand.FinishReason
	r.text[i] += "" // the candidate is known
	for _, p := range cand.Content.Parts {
		switch {
		case p.FunctionCall != nil:
			if cand.FinishReason == "" || p.FunctionCall.ID == "" || p.FunctionCall.Name == "" || !isObject(p.FunctionCall.Args) {
				t.Fatalf("B-104: a call in %s", chunk)
			}
			r.calls[i] += p.FunctionCall.Name + "(" + string(p.FunctionCall.Args) + ")"
		case p.Text == nil:
			t.Fatalf("an empty part in %s", chunk)
		case p.Thought:
			r.thoughts[i] += *p.Text
		default:
			if *p.Text == "" && cand.FinishReason == "" {
				t.Fatalf("B-103: empty text in %s", chunk)
			}
			r.text[i] += *p.Text
		}
	}
}

// runGeminiStream sends chunks through an encoder and ends it.
func runGeminiStream(x *exchange, chunks []chatChunk) []byte {
	s := newGeminiStream(x)
	var out []byte
	for i := range chunks {
		out = s.chunk(out, &chunks[i])
	}
	return s.finish(out)
}

// geminiStreamOf reads an upstream's stream, one event a line, and encodes it.
func geminiStreamOf(x *exchange, upstream string) []byte {
	r := newChunkReader(x.quirk)
	var chunks []chatChunk
	for line := range strings.Lines(strings.TrimSpace(upstream)) {
		chunks = append(chunks, r.read([]byte(strings.TrimSpace(line))))
	}
	return runGeminiStream(x, append(chunks, chatChunk{Deltas: r.flush()}))
}

func TestGeminiStream(t *testing.T) {
	const meta = `,"modelVersion":"m","responseId":"c1"}`
	const usage = `,"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5,"promptTokensDetails":[{"modality":"TEXT","tokenCount":3}]}` + meta
	part := func(p string) string {
		return `{"candidates":[{"content":{"role":"model","parts":[` + p + `]},"index":0}]` + meta
	}
	last := func(parts, finish string) string {
		return `{"candidates":[{"content":{"role":"model","parts":[` + parts + `]},"finishReason":"` + finish + `","index":0}]` + usage
	}
	delta := func(d string) string { return `{"id":"c1","choices":[{"index":0,"delta":` + d + `}]}` + "\n" }
	finish := func(f string) string {
		return `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"` + f + `"}]}` + "\n" + `{"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}`
	}
	for _, tt := range []struct {
		name, in string
		want     []string
		g        geminiRequest
	}{
		{name: "B-109 H-13", in: delta(`{"role":"assistant","content":""}`) + delta(`{"content":"He"}`) + delta(`{"content":"llo"}`) + finish("stop"),
			want: []string{part(`{"text":"He"}`), part(`{"text":"llo"}`), last(`{"text":""}`, "STOP")}},
		{name: "B-104 calls in pieces, interleaved", in: delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":"}},{"index":1,"id":"b","function":{"name":"g"}}]}`) +
			delta(`{"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]}`) + delta(`{"tool_calls":[{"index":0,"function":{"arguments":"9007199254740993}"}}]}`) + finish("tool_calls"),
			want: []string{last(`{"functionCall":{"id":"a","name":"f","args":{"x":9007199254740993}}},{"functionCall":{"id":"b","name":"g","args":{}}}`, "STOP")}},
		{name: "B-85", in: delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}]}`) + finish("stop"),
			want: []string{last(`{"functionCall":{"id":"a","name":"f","args":{}},"thoughtSignature":"c2ln"}`, "STOP")}},
		{name: "B-103 thoughts", g: geminiRequest{IncludeThoughts: true}, in: delta(`{"reasoning_content":"h"}`) + delta(`{"reasoning_content":"m"}`) + delta(`{"content":"a"}`) + finish("stop"),
			want: []string{part(`{"text":"h","thought":true}`), part(`{"text":"m","thought":true}`), part(`{"text":"","thought":true,"thoughtSignature":"YXB4MS5jLg=="}`), part(`{"text":"a"}`), last(`{"text":""}`, "STOP")}},
		{name: "B-81 thoughts before calls", g: geminiRequest{IncludeThoughts: true}, in: delta(`{"reasoning":"h"}`) + delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`) + finish("tool_calls"),
			want: []string{part(`{"text":"h","thought":true}`), part(`{"text":"","thought":true,"thoughtSignature":"YXB4MS5yLg=="}`), last(`{"functionCall":{"id":"a","name":"f","args":{}}}`, "STOP")}},
		{name: "B-81 not asked for", in: delta(`{"reasoning_content":"h"}`) + delta(`{"content":"a"}`) + finish("stop"),
			want: []string{part(`{"text":"a"}`), last(`{"text":""}`, "STOP")}},
		{name: "all in one chunk", g: geminiRequest{IncludeThoughts: true},
			in:   `{"id":"c1","choices":[{"index":0,"delta":{"reasoning_content":"h","content":"a","tool_calls":[{"id":"a","function":{"name":"f","arguments":{}}}]},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`,
			want: []string{part(`{"text":"h","thought":true}`), part(`{"text":"","thought":true,"thoughtSignature":"YXB4MS5jLg=="}`), part(`{"text":"a"}`), last(`{"functionCall":{"id":"a","name":"f","args":{}}}`, "STOP")}},
		{name: "E-16 white space around calls", in: delta(`{"content":"\n"}`) + delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`) + delta(`{"content":"\n"}`) + finish("tool_calls"),
			want: []string{last(`{"functionCall":{"id":"a","name":"f","args":{}}}`, "STOP")}},
		{name: "white space is text without calls", in: delta(`{"content":"\n"}`) + finish("stop"), want: []string{part(`{"text":"\n"}`), last(`{"text":""}`, "STOP")}},
		{name: "white space before text", in: delta(`{"content":"\n"}`) + delta(`{"content":"a"}`) + delta(`{"content":" "}`) + delta(`{"content":"b"}`) + finish("stop"),
			want: []string{part(`{"text":"\na"}`), part(`{"text":" "}`), part(`{"text":"b"}`), last(`{"text":""}`, "STOP")}},
		{name: "H-20 text after a call", in: delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`) + delta(`{"content":"\n"}`) + delta(`{"content":"a"}`) + finish("tool_calls"),
			want: []string{part(`{"text":"\na"}`), last(`{"functionCall":{"id":"a","name":"f","args":{}}}`, "STOP")}},
		{name: "B-83", in: delta(`{"refusal":"no"}`) + finish("stop"), want: []string{part(`{"text":"no"}`), last(`{"text":""}`, "SAFETY")}},
		{name: "H-23 cut off arguments", in: delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x"}}]}`) + finish("length"),
			want: []string{last(`{"functionCall":{"id":"a","name":"f","args":{"_raw_arguments":"{\"x"}}}`, "MAX_TOKENS")}},
		{name: "E-14 text after the finish reason", in: delta(`{"content":"a"}`) + `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}` + "\n" + delta(`{"content":"b"}`) + finish("stop"),
			want: []string{part(`{"text":"a"}`), part(`{"text":"b"}`), last(`{"text":""}`, "MAX_TOKENS")}},
		{name: "an enum's value is bare", g: geminiRequest{Enum: true}, in: delta(`{"content":"\"a"}`) + delta(`{"content":"b\""}`) + finish("stop"),
			want: []string{part(`{"text":"ab"}`), last(`{"text":""}`, "STOP")}},
		{name: "0-12 nothing", in: finish("stop"), want: []string{last(`{"text":""}`, "STOP")}},
		{name: "E-17 no name", in: delta(`{"tool_calls":[{"index":0,"id":"a","function":{"name":"","arguments":"{}"}}]}`) + finish("stop"), want: []string{last(`{"text":""}`, "STOP")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, sse := range []bool{true, false} {
				x := geminiExchange()
				tt.g.SSE = sse
				x.gemini = &tt.g
				got := geminiStreamOf(x, tt.in)
				want := "data: " + strings.Join(tt.want, "\r\n\r\ndata: ") + "\r\n\r\n"
				if !sse {
					want = "[" + strings.Join(tt.want, ",\r\n") + "]"
				}
				if string(got) != want {
					t.Errorf("SSE %v\n got %s\nwant %s", sse, got, want)
				}
				checkGeminiStream(t, sse, got)
			}
		})
	}
}

func TestGeminiStreamOfTwoCandidates(t *testing.T) {
	x := geminiExchange()
	x.gemini.SSE = true
	got := geminiStreamOf(x, `
		{"id":"c1","created":1700000000,"choices":[{"index":1,"delta":{"content":"b"}}]}
		{"id":"c1","choices":[{"index":0,"delta":{"content":"a"}}]}
		{"id":"c1","choices":[{"index":1,"delta":{},"finish_reason":"length"}]}
		{"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}
		{"id":"c1","choices":[{"index":0,"delta":{"content":"c"},"finish_reason":"stop"}]}
		{"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}`)
	r := checkGeminiStream(t, true, got)
	if r.text[0] != "ac" || r.text[1] != "b" || r.finish[0] != "STOP" || r.finish[1] != "MAX_TOKENS" || !strings.Contains(string(got), `"totalTokenCount":7`) {
		t.Errorf("B-107: %+v in %s", r, got)
	}
	if n := strings.Count(string(got), `"createTime":"2023-11-14T22:13:20Z"`); n != r.chunks {
		t.Errorf("B-88: %d of %d chunks have the time", n, r.chunks)
	}
}

func TestGeminiStreamLogprobs(t *testing.T) {
	x := geminiExchange()
	x.gemini.SSE = true
	got := string(geminiStreamOf(x, `
		{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-1}]}}]}
		{"choices":[{"index":0,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b","logprob":-2}]},"finish_reason":"stop"}]}`))
	if want := `"avgLogprobs":-1.5,"logprobsResult":{"chosenCandidates":[{"token":"a","logProbability":-1},{"token":"b","logProbability":-2}]`; !strings.Contains(got, want) {
		t.Errorf("B-86: no %s in %s", want, got)
	}
	checkGeminiStream(t, true, []byte(got))
}

func TestGeminiStreamUsage(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"H-25 in every chunk", `{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}
			{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`, `"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5`},
		{"H-25 none", `{"choices":[{"index":0,"delta":{"content":"four "}}]}
			{"choices":[{"index":0,"delta":{"content":"tokens or so"},"finish_reason":"stop"}]}`, `"promptTokenCount":7,"candidatesTokenCount":5,"totalTokenCount":12`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			x.gemini.SSE, x.estimate = true, 7
			got := geminiStreamOf(x, tt.in)
			checkGeminiStream(t, true, got)
			if !strings.Contains(string(got), tt.want) {
				t.Errorf("no %s in %s", tt.want, got)
			}
		})
	}
}

func TestGeminiStreamIDs(t *testing.T) {
	x := geminiExchange()
	s := newGeminiStream(x).(*geminiStream)
	s.newID = func() string { return "made00001" }
	out := s.chunk(nil, &chatChunk{}) // E-45: the first chunk may have no id
	out = s.chunk(out, &chatChunk{ID: "c1", Deltas: []chatDelta{{Text: "a"}}})
	out = s.chunk(out, &chatChunk{ID: "c2", Deltas: []chatDelta{{Text: "b", Calls: []callDelta{{Name: "f"}}}}})
	out = s.finish(out)
	if n := strings.Count(string(out), `"responseId":"c1"`); n != 3 {
		t.Errorf("B-103: c1 is in %d of three chunks: %s", n, out)
	}
	if !strings.Contains(string(out), `"functionCall":{"id":"made00001","name":"f","args":{}}`) {
		t.Errorf("E-4: no made id in %s", out)
	}
	checkGeminiStream(t, false, out)
}

func TestGeminiStreamEnds(t *testing.T) {
	failure := &apiError{Status: 502, Message: "gone"}
	const errorBody = `{"error":{"code":503,"message":"gone","status":"UNAVAILABLE"}}`
	hi := chatChunk{Deltas: []chatDelta{{Text: "a"}}}
	const said = `{"candidates":[{"content":{"role":"model","parts":[{"text":"a"}]},"index":0}],"modelVersion":"m"}`
	calls := chatChunk{Deltas: []chatDelta{{Calls: []callDelta{{ID: "x", Name: "f", Args: "{}"}}, Finish: "tool_calls"}}}
	refused := &apiError{Status: 400, Code: "content_filter", Message: "no"}
	const blocked = `{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":0,"totalTokenCount":0},"modelVersion":"m"}`
	for _, tt := range []struct {
		name   string
		chunks []chatChunk
		err    *apiError
		want   []string
	}{
		{"B-112 at once", nil, failure, []string{errorBody}},
		{"B-112 H-14 after two chunks", []chatChunk{hi, hi}, failure, []string{said, said, errorBody}},
		{"F-10 after whole calls", []chatChunk{hi, calls}, failure, []string{said, errorBody}},
		{"B-90 at once", nil, refused, []string{blocked}},
		{"B-90 too late", []chatChunk{hi}, refused, []string{said, `{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, sse := range []bool{true, false} {
				x := geminiExchange()
				x.gemini.SSE = sse
				s := newGeminiStream(x)
				var got []byte
				for i := range tt.chunks {
					got = s.chunk(got, &tt.chunks[i])
				}
				got = s.fail(got, tt.err)
				want := "data: " + strings.Join(tt.want, "\r\n\r\ndata: ") + "\r\n\r\n"
				if !sse {
					want = "[" + strings.Join(tt.want, ",\r\n") + "]"
				}
				if string(got) != want {
					t.Errorf("SSE %v\n got %s\nwant %s", sse, got, want)
				}
				checkGeminiStream(t, sse, got)
			}
		})
	}
	t.Run("B-102 empty array", func(t *testing.T) {
		if got := string(newGeminiStream(geminiExchange()).finish(nil)); got != "[]" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("B-108 lenient_eof", func(t *testing.T) {
		if got := string(runGeminiStream(geminiExchange("lenient_eof:on"), []chatChunk{hi})); !strings.Contains(got, `"finishReason":"OTHER"`) {
			t.Errorf("got %s", got)
		}
	})
}

// geminiScript makes a chat stream of bytes, and what a client must end up with.
type geminiScript struct {
	chunks         []chatChunk
	text, thoughts map[int]string
	calls          map[int]string
}

func newGeminiScript(ops []byte) *geminiScript {
	s := &geminiScript{text: map[int]string{}, thoughts: map[int]string{}, calls: map[int]string{}}
	var args [2][3]string // of each call of each candidate
	var begun [2]int      // calls of each candidate
	for i, op := range ops {
		index := int(op>>3) % 2
		piece := strconv.Itoa(i) + "\"\n<" // of which nothing may get lost
		d := chatDelta{Index: index}
		switch op % 8 {
		case 0, 1:
			d.Text = piece
		case 2:
			d.Reasoning = reasoning{Text: piece, Field: reasoningContent}
		case 3:
			call := int(op>>4) % 3
			if call >= begun[index] {
				call = begun[index]
				if call == len(args[index]) {
					continue
				}
				begun[index]++
			}
			args[index][call] += "[" + piece
			d.Calls = []callDelta{{Call: call, ID: "id", Name: "f", Args: "[" + piece}}
		case 4:
			d.Finish = "stop"
		case 5:
			s.chunks = append(s.chunks, chatChunk{Usage: usage{Known: true, Prompt: int64(op)}})
			continue
		case 6:
			d.Text, d.Reasoning = piece, reasoning{Text: piece, Field: reasoningPlain}
		case 7:
			d.Text = " " // white space may be held
			if begun[index] > 0 {
				d.Text = ""
			}
		}
		s.text[index] += d.Text
		s.thoughts[index] += d.Reasoning.Text
		s.chunks = append(s.chunks, chatChunk{ID: "c" + strconv.Itoa(i), Deltas: []chatDelta{d}})
	}
	for index := range begun {
		for call := range begun[index] {
			raw, _ := marshal(args[index][call])
			s.calls[index] += `f({"_raw_arguments":` + string(raw) + `})`
		}
		if begun[index] > 0 && isBlank(s.text[index]) {
			s.text[index] = ""
		}
	}
	return s
}

// check runs the script in both forms.
func (s *geminiScript) check(t *testing.T) {
	t.Helper()
	for _, sse := range []bool{true, false} {
		x := geminiExchange()
		x.gemini.SSE, x.gemini.IncludeThoughts = sse, true
		got := runGeminiStream(x, s.chunks)
		if len(s.chunks) == 0 && !sse {
			continue
		}
		r := checkGeminiStream(t, sse, got)
		for index := range 2 {
			if r.text[index] != s.text[index] || r.thoughts[index] != s.thoughts[index] || r.calls[index] != s.calls[index] {
				t.Fatalf("candidate %d\n got %q, %q, %q\nwant %q, %q, %q\nof %s", index, r.text[index], r.thoughts[index], r.calls[index],
					s.text[index], s.thoughts[index], s.calls[index], got)
			}
		}
	}
}

func TestGeminiStreamOfAnyOrder(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			ops := make([]byte, random.IntN(40))
			for i := range ops {
				ops[i] = byte(random.Uint32())
			}
			newGeminiScript(ops).check(t)
		})
	}
}

func FuzzGeminiStream(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 2, 3, 4, 5})
	f.Add([]byte{7, 3, 7, 0, 11, 19, 3, 6, 2, 12, 4})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 1000 {
			return
		}
		newGeminiScript(ops).check(t)
	})
}

func BenchmarkGeminiStream(b *testing.B) {
	x := geminiExchange()
	x.gemini.SSE = true
	s := newGeminiStream(x)
	c := chatChunk{ID: "chatcmpl-1", Deltas: []chatDelta{{Text: " tokens"}}}
	dst := s.chunk(nil, &c)
	b.ReportAllocs()
	b.SetBytes(int64(len(dst)))
	for b.Loop() {
		dst = s.chunk(dst[:0], &c)
	}
}
