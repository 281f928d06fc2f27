package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// What upstreams put into deltas in their own ways, and what is made of it
// (dialects E.1, E.2). Each row is read as a stream, in chunks and byte by byte,
// and, where it stands whole in one message, as an answer too (AC-4).
func TestUpstreamDeltas(t *testing.T) {
	call := func(entry string) string { return `{"tool_calls":[` + entry + `]}` }
	for _, tt := range []struct {
		name   string
		quirk  string
		deltas []string
		want   string // as briefAnswer writes it
	}{
		{"E-1 a name while the call's arguments are whole", "", []string{call(`{"function":{"name":"f","arguments":"{}"}}`), call(`{"function":{"name":"g","arguments":"{}"}}`)}, `made f {}; made g {}`},
		{"E-1 pieces without an index", "", []string{call(`{"id":"a","function":{"name":"f","arguments":"{\"x\""}}`), call(`{"function":{"arguments":":1}"}}`)}, `a f {"x":1}`},
		{"E-1 several without an index", "", []string{call(`{"id":"a","function":{"name":"f","arguments":"1"}},{"id":"b","function":{"name":"f","arguments":"2"}}`)}, `a f 1; b f 2`},
		{"E-2 index 0 for all", "", []string{call(`{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}`), call(`{"index":0,"id":"b","function":{"name":"f","arguments":"2"}}`)}, `a f 1; b f 2`},
		{"E-3 id and name repeated", "", []string{call(`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}`), call(`{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}`)}, `a f {}`},
		{"E-4 no id, empty id", "", []string{call(`{"index":0,"function":{"name":"f","arguments":""}},{"index":1,"id":"","function":{"name":"g","arguments":""}}`)}, `made f ; made g `},
		{"E-4 an id that comes late", "", []string{call(`{"index":0,"function":{"name":"f","arguments":"{"}}`), call(`{"index":0,"id":"a","function":{"arguments":"}"}}`)}, `made f {}`},
		{"E-5 indices with gaps", "", []string{call(`{"index":3,"id":"a","function":{"name":"f","arguments":"1"}}`), call(`{"index":7,"id":"b","function":{"name":"g","arguments":"2"}}`)}, `a f 1; b g 2`},
		{"E-7 pieces that repeat what came before", "args:cumulative", []string{call(`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}`), call(`{"index":0,"function":{"arguments":"{\"x\":"}}`), call(`{"index":0,"function":{"arguments":"{\"x\":1}"}}`)}, `a f {"x":1}`},
		{"E-7 never guessed", "", []string{call(`{"index":0,"id":"a","function":{"name":"f","arguments":"1"}}`), call(`{"index":0,"function":{"arguments":"12"}}`)}, `a f 112`},
		{"E-8 arguments as an object", "", []string{call(`{"index":0,"id":"a","function":{"name":"f","arguments":{"x":1}}}`)}, `a f {"x":1}`},
		{"E-9 a call from before tools", "", []string{`{"function_call":{"name":"f","arguments":"{"}}`, `{"function_call":{"arguments":"}"}}`}, `made f {}`},
		{"E-10 parts", "", []string{`{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"A"}]}`, `{"content":[{"type":"text","text":"B"}]}`}, `(hm t) AB`},
		{"E-11 nothing", "", []string{`{"role":"assistant","content":""}`, `null`, `{"content":null,"tool_calls":null}`, `{"tool_calls":[]}`, `{"content":"A"}`}, `A`},
		{"E-20 the first of the fields", "", []string{`{"reasoning":"hm","reasoning_content":"hm","reasoning_details":[{"type":"reasoning.text","text":"hm"}]}`, `{"content":"A"}`}, `(hm c) A`},
		{"E-20 reasoning alone", "", []string{`{"reasoning_content":"","reasoning":"hm"}`}, `(hm r) `},
		{"E-20 details alone", "", []string{`{"reasoning_details":[{"type":"reasoning.text","text":"h"},{"type":"reasoning.summary","summary":"m"},{"type":"reasoning.encrypted","data":"x"}]}`}, `(hm d) `},
		{"E-20 the tag of an upstream with a field", "", []string{`{"reasoning_content":"hm"}`, `{"content":"<think>A"}`}, `(hm c) <think>A`},
		{"E-21 an object", "", []string{`{"reasoning":{"content":"h"}}`, `{"reasoning":{"text":"m"}}`, `{"reasoning":{"effort":"low"}}`}, `(hm r) `},
		{"E-22 tags", "", []string{`{"content":" <think>hm</think>\n\nA <think>"}`}, `(hm t) A <think>`},
		{"E-22 tags later on are text", "", []string{`{"content":"A<think>hm</think>"}`}, `A<think>hm</think>`},
		{"E-22 begun by the template", "think:prefilled", []string{`{"content":"hm</think> A"}`}, `(hm t) A`},
		{"E-22 switched off", "think:off", []string{`{"content":"<think>hm</think>A"}`}, `<think>hm</think>A`},
		{"E-23 cut into bytes", "", strings.Split(chunksOf("<think>hm</think>A"), "\n"), `(hm t) A`},
		{"E-23 never closed", "", []string{`{"content":"<think>hm</thi"}`}, `(hm</thi t) `},
		{"E-23 a tag that never was one", "", []string{`{"content":"<thin"}`}, `<thin`},
		{"E-53 half a pair in reasoning, and in arguments", "", []string{`{"reasoning_content":"\ud83d"}`, `{"reasoning_content":"\ude00"}`, call(`{"index":0,"id":"a","function":{"name":"f","arguments":"\ud83d"}}`), call(`{"index":0,"function":{"arguments":"\ude00"}}`)}, `(😀 c) ; a f 😀`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := &config{}
			if tt.quirk != "" {
				cfg.Quirks = []string{tt.quirk}
			}
			r := newChunkReader(cfg.quirk)
			r.newID = func() string { return "made" }
			answer := &chatResponse{}
			for _, delta := range tt.deltas {
				data := strings.TrimSuffix(strings.TrimPrefix(chunkOf(delta), "data: "), "\n\n")
				for _, d := range r.read([]byte(data)).Deltas {
					answer.add(d)
				}
			}
			for _, d := range r.flush() {
				answer.add(d)
			}
			answer.settle()
			if got := briefAnswer(answer); got != tt.want {
				t.Errorf("the stream was read as %q, want %q", got, tt.want)
			}
			if len(tt.deltas) > 1 || strings.Contains(tt.want, "made") {
				return
			}
			whole := readCompletion([]byte(`{"choices":[{"index":0,"message":`+tt.deltas[0]+`,"finish_reason":"stop"}]}`), cfg.quirk)
			if got := briefAnswer(whole); got != tt.want {
				t.Errorf("the answer was read as %q, want %q", got, tt.want)
			}
		})
	}
}

// chunksOf are deltas with one byte of a text each.
func chunksOf(s string) string {
	var deltas []string
	for _, c := range bytesOf(s) {
		deltas = append(deltas, `{"content":`+quoted(c)+`}`)
	}
	return strings.Join(deltas, "\n")
}

func briefAnswer(a *chatResponse) string {
	if len(a.Choices) == 0 {
		return ""
	}
	c := a.Choices[0]
	var said []string
	if text := c.Text; c.Reasoning.Text != "" {
		said = append(said, fmt.Sprintf("(%s %c) %s", c.Reasoning.Text, c.Reasoning.Field, text))
	} else if text != "" {
		said = append(said, text)
	}
	for _, call := range c.Calls {
		said = append(said, call.ID+" "+call.Function.Name+" "+call.Function.Arguments)
	}
	return strings.Join(said, "; ")
}

// What chunks and answers hold besides their deltas is read in every spelling.
func TestChunkMembers(t *testing.T) {
	read := func(data string) chatChunk { return newChunkReader((&config{}).quirk).read([]byte(data)) }
	for in, want := range map[string]int64{`1700000000.75`: 1700000000, `"1700000000"`: 0, `null`: 0, `1700000000`: 1700000000} { // E-63
		if got := read(`{"created":` + in + `,"choices":[]}`).Created; got != want {
			t.Errorf("created %s is %d, want %d", in, got, want)
		}
	}
	for in, want := range map[string]string{`"STOP"`: "stop", `"MAX_TOKENS"`: "max_tokens", `""`: "", `null`: ""} { // E.5, capitals
		c := read(`{"choices":[{"index":0,"delta":{},"finish_reason":` + in + `}]}`)
		if c.Deltas[0].Finish != want {
			t.Errorf("finish_reason %s is %q, want %q", in, c.Deltas[0].Finish, want)
		}
	}
	r := newChunkReader((&config{}).quirk) // E-14
	first := r.read([]byte(`{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}`))
	again := r.read([]byte(`{"choices":[{"index":0,"delta":{"content":"late"},"finish_reason":"stop"}]}`))
	if first.Deltas[0].Finish != "length" || again.Deltas[0].Finish != "" || again.Deltas[0].Text != "late" {
		t.Errorf("two finish reasons: %+v, %+v", first, again)
	}
	if c := read(`{"choices":[{"index":0,"content_filter_results":{},"finish_reason":null}]}`); c.Deltas[0].Text+c.Deltas[0].Finish != "" { // E-46
		t.Errorf("a chunk of filter results: %+v", c)
	}
}

// The end that the calls stand for wins over the one that is told, in every
// dialect (E-13), and what capitals say is understood (E.5).
func TestFinishOfCalls(t *testing.T) {
	const named = `{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]}`
	for _, tt := range []struct {
		name, delta, finish          string
		anthropic, gemini, responses string
	}{
		{"calls, and stop", named, "stop", "tool_use", "STOP", "completed"},
		{"no call, and tool_calls", `{"content":"A"}`, "tool_calls", "end_turn", "STOP", "completed"},
		{"in capitals", `{"content":"A"}`, "MAX_TOKENS", "max_tokens", "MAX_TOKENS", "incomplete"},
		{"Cohere's", `{"content":"A"}`, "COMPLETE", "end_turn", "STOP", "completed"},
		{"Mistral's", `{"content":"A"}`, "model_length", "max_tokens", "MAX_TOKENS", "incomplete"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := newGateway(t, answerStream(chunkOf(tt.delta), finishOf(tt.finish), doneEvent))
			whole := newGateway(t, messageAnswer(tt.delta, tt.finish))
			if got := checkAnthropicStream(t, []byte(stream.ok(messagesPath, anthropicHiStream))).stopReason; got != tt.anthropic {
				t.Errorf("Anthropic's stream ends by %q, want %q", got, tt.anthropic)
			}
			if got := checkGeminiStream(t, true, []byte(stream.ok(geminiSSE, geminiHi))).finish[0]; got != tt.gemini {
				t.Errorf("Gemini's stream ends by %q, want %q", got, tt.gemini)
			}
			if got := checkResponsesStream(t, []byte(stream.ok(responsesPath, responsesHiStream))).status; got != tt.responses {
				t.Errorf("the response's stream ends as %q, want %q", got, tt.responses)
			}
			wants(t, whole.ok(messagesPath, anthropicHi), map[string]string{"stop_reason": quoted(tt.anthropic)})
			wants(t, whole.ok(geminiPath, geminiHi), map[string]string{"candidates.0.finishReason": quoted(tt.gemini)})
			wants(t, whole.ok(responsesPath, responsesHi), map[string]string{"status": quoted(tt.responses)})
		})
	}
}

// A call without a name could not be answered: it reaches neither the client nor
// the session, and the log tells (E-17).
func TestNamelessCalls(t *testing.T) {
	const delta = `{"content":"A","tool_calls":[{"index":0,"id":"a","function":{"name":"","arguments":"{}"}},{"index":1,"id":"b","function":{"name":"f","arguments":"{}"}}]}`
	for _, c := range vendorClients {
		for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
			t.Run(c.name+" "+ask[0], func(t *testing.T) {
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					if ask == [2]string{c.path, c.body} {
						messageAnswer(delta, "tool_calls")(w, r)
						return
					}
					answerStream(chunkOf(delta), finishOf("tool_calls"), doneEvent)(w, r)
				})
				if _, got := g.post(ask[0], ask[1], "X-Session-Id: s"); strings.Contains(got, `"a"`) || !strings.Contains(got, `"b"`) {
					t.Errorf("the client got %s", got)
				}
				kept := string(g.context(t, "s", "").Messages)
				if strings.Contains(kept, `"id":"a"`) || !strings.Contains(kept, `"id":"b"`) {
					t.Errorf("the session has %s", kept)
				}
				g.mustLog("without a name")
			})
		}
	}
}
