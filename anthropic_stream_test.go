package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

// anthropicSeen is what a client has gathered from a stream.
type anthropicSeen struct {
	blocks     []anthropicSeenBlock
	stopReason string
	usage      map[string]any
	failure    string // the error's type, when the stream ended in one
	pings      int
}

type anthropicSeenBlock struct {
	kind, id, name, signature string
	content                   string // of its deltas
}

func (s *anthropicSeen) all(kind string) string {
	joined := ""
	for _, b := range s.blocks {
		if b.kind == kind {
			joined += b.content
		}
	}
	return joined
}

// checkAnthropicStream holds a stream against the state machine of dialects C.6,
// and against what the official SDK's accumulator relies on.
func checkAnthropicStream(t *testing.T, sse []byte) *anthropicSeen {
	t.Helper()
	seen := &anthropicSeen{}
	const (
		before = iota
		between
		inside
		stopped
		over
	)
	state, signed := before, false
	if len(sse) > 0 && !bytes.HasSuffix(sse, []byte("\n\n")) {
		t.Fatalf("the stream does not end in a blank line:\n%s", sse)
	}
	for n, raw := range strings.Split(strings.TrimSuffix(string(sse), "\n\n"), "\n\n") {
		if raw == "" {
			continue
		}
		fatal := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("event %d, %s: %s; the stream:\n%s", n, raw, fmt.Sprintf(format, args...), sse)
		}
		lines := strings.Split(raw, "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "event: ") || !strings.HasPrefix(lines[1], "data: ") {
			fatal("want one event line and one data line")
		}
		var e struct {
			Type         string
			Index        *int
			Message      map[string]any
			ContentBlock map[string]any `json:"content_block"`
			Delta        map[string]any
			Usage        map[string]any
			Error        struct{ Type, Message string }
		}
		if err := json.Unmarshal([]byte(lines[1][len("data: "):]), &e); err != nil {
			fatal("%v", err)
		}
		if e.Type != lines[0][len("event: "):] {
			fatal("its data has the type %q", e.Type)
		}
		if state == over || state == before && e.Type != "message_start" && e.Type != "error" {
			fatal("it can't be here")
		}
		if strings.HasPrefix(e.Type, "content_block_") {
			want := len(seen.blocks) - 1
			if e.Type == "content_block_start" {
				want++
			}
			if e.Index == nil || *e.Index != want {
				fatal("want the index %d", want)
			}
		}
		switch e.Type {
		case "message_start":
			if state != before {
				fatal("a second one")
			}
			state = between
			if id, _ := e.Message["id"].(string); !strings.HasPrefix(id, "msg_") {
				fatal("the id is %v", e.Message["id"])
			}
			if content, ok := e.Message["content"].([]any); !ok || len(content) > 0 || e.Message["stop_reason"] != nil {
				fatal("want an empty content and no stop_reason")
			}
			checkAnthropicUsage(t, e.Message["usage"])
		case "ping":
			seen.pings++
		case "content_block_start":
			if state != between {
				fatal("another block is open, or the message is over")
			}
			state, signed = inside, false
			seen.blocks = append(seen.blocks, startedBlock(t, e.ContentBlock))
		case "content_block_delta":
			b := &seen.blocks[len(seen.blocks)-1]
			if state != inside || signed {
				fatal("no block is open for it")
			}
			kind, _ := e.Delta["type"].(string)
			key := map[string]string{"text text_delta": "text", "thinking thinking_delta": "thinking", "tool_use input_json_delta": "partial_json", "thinking signature_delta": "signature"}[b.kind+" "+kind]
			piece, ok := e.Delta[key].(string)
			if !ok {
				fatal("it does not fit a block of type %s", b.kind)
			}
			if signed = kind == "signature_delta"; signed {
				b.signature = piece
			} else {
				b.content += piece
				if piece == "" {
					fatal("it is empty")
				}
			}
		case "content_block_stop":
			b := &seen.blocks[len(seen.blocks)-1]
			if state != inside || b.kind == "thinking" && !signed {
				fatal("no block is open, or its signature is missing")
			}
			if b.kind == "tool_use" && !strings.HasPrefix(strings.TrimLeft(b.content, " \t\r\n"), "{") {
				fatal("its input is %q", b.content)
			}
			state = between
		case "message_delta":
			if state != between || len(seen.blocks) == 0 {
				fatal("a block is open, or there was none")
			}
			state, seen.usage = stopped, e.Usage
			seen.stopReason, _ = e.Delta["stop_reason"].(string)
			if seen.stopReason == "" {
				fatal("no stop_reason")
			}
			checkAnthropicUsage(t, e.Usage)
		case "message_stop":
			if state != stopped {
				fatal("no message_delta before it")
			}
			state = over
		case "error":
			if state == stopped || e.Error.Type == "" || e.Error.Message == "" {
				fatal("it is empty, or too late")
			}
			state, seen.failure = over, e.Error.Type
		default:
			fatal("unknown type")
		}
	}
	if state != over && len(sse) > 0 {
		t.Fatalf("the stream does not end in message_stop or error:\n%s", sse)
	}
	return seen
}

func startedBlock(t *testing.T, block map[string]any) anthropicSeenBlock {
	t.Helper()
	b := anthropicSeenBlock{}
	b.kind, _ = block["type"].(string)
	ok := false
	switch b.kind {
	case "text":
		ok = block["text"] == ""
	case "thinking":
		ok = block["thinking"] == "" && block["signature"] == ""
	case "tool_use":
		b.id, _ = block["id"].(string)
		b.name, _ = block["name"].(string)
		input, isObject := block["input"].(map[string]any)
		ok = b.id != "" && b.name != "" && isObject && len(input) == 0
	}
	if !ok {
		t.Fatalf("a block starts as %v", block)
	}
	return b
}

func checkAnthropicUsage(t *testing.T, v any) {
	t.Helper()
	u, _ := v.(map[string]any)
	for _, key := range []string{"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"} {
		if n, ok := u[key].(float64); !ok || n < 0 {
			t.Fatalf("usage.%s is %v", key, u[key])
		}
	}
}

// testAnthropicStream is an encoder whose ids tests can name.
func testAnthropicStream(x *exchange) *anthropicStream {
	s := streamAnthropic(x).(*anthropicStream)
	s.id, s.newCallID = fixedIDs("msg_"), fixedCallID
	return s
}

// streamedAnthropic is the stream that those chunks become, each given as the
// choice's delta, or as a whole chunk.
func streamedAnthropic(x *exchange, chunks ...string) []byte {
	s, r := testAnthropicStream(x), newChunkReader(x.quirk)
	r.newID = fixedCallID
	var out []byte
	for _, c := range chunks {
		if !strings.Contains(c, `"choices"`) && !strings.Contains(c, `"usage"`) {
			c = `{"choices":[{"index":0,"delta":` + c + `}]}`
		}
		read := r.read([]byte(c))
		out = s.chunk(out, &read)
	}
	out = s.chunk(out, &chatChunk{Deltas: r.flush()})
	return s.finish(out)
}

func finishedAs(reason string) string {
	return `{"choices":[{"index":0,"delta":{},"finish_reason":"` + reason + `"}]}`
}

// brief is a stream in one line per event, without message_start and ping.
func brief(t *testing.T, sse []byte) string {
	t.Helper()
	checkAnthropicStream(t, sse)
	var lines []string
	for _, raw := range strings.Split(strings.TrimSpace(string(sse)), "\n\n") {
		name, data, _ := strings.Cut(strings.TrimPrefix(raw, "event: "), "\ndata: ")
		d := []byte(data)
		index := string(member(d, "index"))
		block, delta := member(d, "content_block"), member(d, "delta")
		switch name {
		case "content_block_start":
			line := "start " + index + " " + text(member(block, "type"))
			if id := text(member(block, "id")); id != "" {
				line += " " + id + " " + text(member(block, "name"))
			}
			lines = append(lines, line)
		case "content_block_delta":
			for k, v := range members(delta) {
				if string(k) != "type" {
					lines = append(lines, index+" "+string(k)+" "+text(v))
				}
			}
		case "content_block_stop":
			lines = append(lines, "stop "+index)
		case "message_delta":
			lines = append(lines, "end "+text(member(delta, "stop_reason")))
		}
	}
	return strings.Join(lines, "\n")
}

func TestAnthropicStream(t *testing.T) {
	call := func(index int, id, name, args string) string {
		fields := fmt.Sprintf(`"index":%d`, index)
		if id != "" {
			fields += `,"id":"` + id + `"`
		}
		return `{"tool_calls":[{` + fields + `,"function":{"name":"` + name + `","arguments":` + string(appendQuoted(nil, args)) + `}}]}`
	}
	say := func(s string) string { return `{"content":` + string(appendQuoted(nil, s)) + `}` }
	think := func(s string) string { return `{"reasoning_content":` + string(appendQuoted(nil, s)) + `}` }
	for _, tt := range []struct {
		name   string
		chunks []string
		want   string
	}{
		{"C-130", []string{`{"role":"assistant","content":""}`, think("hm"), say("A"), finishedAs("stop"), `{"choices":[],"usage":{"prompt_tokens":1}}`},
			"start 0 thinking\n0 thinking hm\n0 signature apx1.c.\nstop 0\nstart 1 text\n1 text A\nstop 1\nend end_turn"},
		{"C-129", []string{call(0, "a", "f", ""), call(1, "b", "g", ""), call(0, "", "", `{"x"`), call(1, "", "", `{}`), call(0, "", "", `:1}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"x\"\n0 partial_json :1}\nstop 0\nstart 1 tool_use b g\n1 partial_json {}\nstop 1\nend tool_use"},
		{"C-112 reasoning after text", []string{say("A"), think("hm"), say("B"), finishedAs("stop")},
			"start 0 text\n0 text A\nstop 0\nstart 1 thinking\n1 thinking hm\n1 signature apx1.c.\nstop 1\nstart 2 text\n2 text B\nstop 2\nend end_turn"},
		{"C-112 reasoning in a call", []string{call(0, "a", "f", `{"x"`), think("hm"), call(0, "", "", `:1}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"x\"\n0 partial_json :1}\nstop 0\nstart 1 thinking\n1 thinking hm\n1 signature apx1.c.\nstop 1\nend tool_use"},
		{"C-112 reasoning after a whole call", []string{call(0, "a", "f", `{}`), think("hm"), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 thinking\n1 thinking hm\n1 signature apx1.c.\nstop 1\nend tool_use"},
		{"C-115 empty deltas open nothing", []string{say(""), say(""), call(0, "a", "f", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nend tool_use"},
		{"C-116 white space between calls", []string{call(0, "a", "f", `{}`), say("\n"), call(1, "b", "f", `{}`), say("\n"), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b f\n1 partial_json {}\nstop 1\nend tool_use"},
		{"C-116 E-16 white space before a call", []string{say("\n"), call(0, "a", "f", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nend tool_use"},
		{"C-116 white space before a call, text after it", []string{think("hm"), say("\n"), call(0, "a", "f", `{}`), say("B"), finishedAs("tool_calls")},
			"start 0 thinking\n0 thinking hm\n0 signature apx1.c.\nstop 0\nstart 1 tool_use a f\n1 partial_json {}\nstop 1\nstart 2 text\n2 text B\nstop 2\nend tool_use"},
		{"C-117 text after a whole call", []string{call(0, "a", "f", `{}`), say("\n"), say("B"), say("C"), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 text\n1 text \nB\n1 text C\nstop 1\nend tool_use"},
		{"C-117 text in a call", []string{call(0, "a", "f", `{"x"`), say("B"), say(" "), call(0, "", "", `:1}`), say("C"), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"x\"\n0 partial_json :1}\nstop 0\nstart 1 text\n1 text B C\nstop 1\nend tool_use"},
		{"C-117 text in a call, then another call", []string{call(0, "a", "f", `{"x"`), say("B"), call(0, "", "", `:1}`), call(1, "b", "g", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"x\"\n0 partial_json :1}\nstop 0\nstart 1 text\n1 text B\nstop 1\nstart 2 tool_use b g\n2 partial_json {}\nstop 2\nend tool_use"},
		{"C-114 white space in a text", []string{say("A"), say(" "), say("\n"), call(0, "a", "f", `{}`), finishedAs("tool_calls")},
			"start 0 text\n0 text A\n0 text  \n0 text \n\nstop 0\nstart 1 tool_use a f\n1 partial_json {}\nstop 1\nend tool_use"},
		{"C-118 name comes late", []string{`{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{"}}]}`, say("T"), call(0, "", "f", `}`), finishedAs("tool_calls")},
			"start 0 text\n0 text T\nstop 0\nstart 1 tool_use a f\n1 partial_json {}\nstop 1\nend tool_use"},
		{"C-118 no id", []string{call(0, "", "f", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use made00001 f\n0 partial_json {}\nstop 0\nend tool_use"},
		{"C-119 empty fragments", []string{call(0, "a", "f", ``), call(0, "", "", ``), call(0, "", "", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nend tool_use"},
		{"C-120 switch when whole", []string{call(0, "a", "f", `{}`), call(1, "b", "g", `{"y"`), call(2, "c", "h", `{}`), call(1, "", "", `:2}`), call(2, "", "", ` `), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b g\n1 partial_json {\"y\"\n1 partial_json :2}\nstop 1\nstart 2 tool_use c h\n2 partial_json {} \nstop 2\nend tool_use"},
		{"C-121 after its end", []string{call(0, "a", "f", `{}`), call(1, "b", "g", `{}`), call(0, "", "", `x`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b g\n1 partial_json {}\nstop 1\nend tool_use"},
		{"C-126 no arguments", []string{call(0, "a", "f", ``), finishedAs("stop")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nend tool_use"},
		{"C-127 no name", []string{say("T"), `{"tool_calls":[{"index":0,"id":"a","function":{"arguments":"{}"}}]}`, finishedAs("tool_calls")},
			"start 0 text\n0 text T\nstop 0\nend end_turn"},
		{"C-128 nothing", []string{`{"role":"assistant"}`, finishedAs("stop")}, "start 0 text\nstop 0\nend end_turn"},
		{"C-128 not even a chunk", nil, "start 0 text\nstop 0\nend end_turn"},
		{"white space alone", []string{say("\n"), finishedAs("stop")}, "start 0 text\n0 text \n\nstop 0\nend end_turn"},
		{"E-2 one index for all", []string{call(0, "a", "f", `{}`), call(0, "b", "g", `{}`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {}\nstop 0\nstart 1 tool_use b g\n1 partial_json {}\nstop 1\nend tool_use"},
		{"E-8 an object as text", []string{call(0, "a", "f", `"{\"x\`), call(0, "", "", `":1}"`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"x\":1}\nstop 0\nend tool_use"},
		{"E-8 no object", []string{call(0, "a", "f", `[1]`), finishedAs("tool_calls")},
			"start 0 tool_use a f\n0 partial_json {\"_raw_arguments\":\"[1]\"}\nstop 0\nend tool_use"},
		{"H-22 a whole call, finish stop", []string{`{"content":"","tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}`, finishedAs("stop")},
			"start 0 tool_use made00001 f\n0 partial_json {\"a\":1}\nstop 0\nend tool_use"},
		{"H-23 cut in the arguments", []string{call(0, "a", "f", `{"x":"`), finishedAs("length")},
			"start 0 tool_use a f\n0 partial_json {\"x\":\"\nstop 0\nend max_tokens"},
		{"C-87 refusal", []string{say("A"), `{"refusal":"no"}`, finishedAs("stop")}, "start 0 text\n0 text A\n0 text no\nstop 0\nend refusal"},
		{"E-6 E-14 all in one chunk, and more after the finish", []string{`{"choices":[{"index":0,"delta":{"reasoning":"r","content":"A","tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`, say("B"), finishedAs("length")},
			"start 0 thinking\n0 thinking r\n0 signature apx1.r.\nstop 0\nstart 1 text\n1 text A\nstop 1\nstart 2 tool_use a f\n2 partial_json {}\nstop 2\nstart 3 text\n3 text B\nstop 3\nend tool_use"},
		{"C-122 the finish is remembered", []string{say("A"), finishedAs("length"), say("B")}, "start 0 text\n0 text A\n0 text B\nstop 0\nend max_tokens"},
		{"E-19 other choices", []string{say("A"), `{"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":"length"}]}`, finishedAs("stop")},
			"start 0 text\n0 text A\nstop 0\nend end_turn"},
		{"E-22 tags", []string{say("<thi"), say("nk>hm</think>\n"), say("A"), finishedAs("stop")},
			"start 0 thinking\n0 thinking hm\n0 signature \nstop 0\nstart 1 text\n1 text A\nstop 1\nend end_turn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic.ShowThinking = true
			if got := brief(t, streamedAnthropic(x, tt.chunks...)); got != tt.want {
				t.Errorf("the stream is\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// The bytes of every event, as C.6 has them.
func TestAnthropicStreamBytes(t *testing.T) {
	x := anthropicExchange()
	x.anthropic = &anthropicRequest{ShowThinking: true, StopSequences: []string{"END"}}
	const tail = `"output_tokens_details":null,"cache_creation":null,"server_tool_use":null,"service_tier":null,"inference_geo":null,"speed":null}`
	got := string(streamedAnthropic(x, `{"reasoning":"h<m>"}`, `{"content":"A\"\n"}`,
		`{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{\"x\":1}"}}]}`,
		`{"choices":[{"index":0,"delta":{"refusal":null},"finish_reason":"stop","stop_reason":"END"}]}`,
		`{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}`, `{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":8}}}`))
	want := strings.Join([]string{
		`message_start` + "\ndata: " + `{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"diagnostics":null,"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,` + tail + `}}`,
		`ping` + "\ndata: " + `{"type":"ping"}`,
		`content_block_start` + "\ndata: " + `{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}`,
		`content_block_delta` + "\ndata: " + `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h<m>"}}`,
		`content_block_delta` + "\ndata: " + `{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"apx1.r."}}`,
		`content_block_stop` + "\ndata: " + `{"type":"content_block_stop","index":0}`,
		`content_block_start` + "\ndata: " + `{"type":"content_block_start","index":1,"content_block":{"type":"text","text":"","citations":null}}`,
		`content_block_delta` + "\ndata: " + `{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"A\"\n"}}`,
		`content_block_stop` + "\ndata: " + `{"type":"content_block_stop","index":1}`,
		`content_block_start` + "\ndata: " + `{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"a","name":"f","input":{},"caller":{"type":"direct"}}}`,
		`content_block_delta` + "\ndata: " + `{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}`,
		`content_block_stop` + "\ndata: " + `{"type":"content_block_stop","index":2}`,
		`message_delta` + "\ndata: " + `{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null,"stop_details":null,"container":null},"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":8,"output_tokens":5,` + tail + `}`,
		`message_stop` + "\ndata: " + `{"type":"message_stop"}`,
	}, "\n\nevent: ")
	if got != "event: "+want+"\n\n" {
		t.Errorf("the stream is\n%s\nwant\nevent: %s", got, want)
	}
}

func TestAnthropicStreamEnds(t *testing.T) {
	for _, tt := range []struct{ name, last, want string }{
		{"C-89 stop_sequence", `{"choices":[{"index":0,"delta":{},"finish_reason":"stop","stop_reason":"END"}]}`, `"delta":{"stop_reason":"stop_sequence","stop_sequence":"END","stop_details":null,"container":null}`},
		{"C-89 in a chunk before the last", `{"choices":[{"index":0,"delta":{"content":"8"},"stop_reason":"END"}]}`, `"delta":{"stop_reason":"stop_sequence","stop_sequence":"END","stop_details":null,"container":null}`},
		{"C-87 refusal", finishedAs("content_filter"), `"delta":{"stop_reason":"refusal","stop_sequence":null,"stop_details":{"type":"refusal","category":null,"explanation":null},"container":null}`},
		{"E-43 no usage", finishedAs("stop"), `"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2,`},
		{"C-92 cache", `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":100,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":90},"completion_tokens_details":{"reasoning_tokens":3}}}`,
			`"usage":{"input_tokens":10,"cache_creation_input_tokens":0,"cache_read_input_tokens":90,"output_tokens":5,"output_tokens_details":{"thinking_tokens":3}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic.StopSequences = []string{"END"}
			got := streamedAnthropic(x, `{"content":"1234567"}`, tt.last, `{"role":"assistant"}`)
			checkAnthropicStream(t, got)
			if !bytes.Contains(got, []byte(tt.want)) {
				t.Errorf("the stream is\n%s\nwant it to have\n%s", got, tt.want)
			}
		})
	}
}

// What of a call can't be given to the client is noted (C-121, C-127, E-17).
func TestAnthropicDroppedCalls(t *testing.T) {
	piece := func(fields string) string { return `{"tool_calls":[{` + fields + `}]}` }
	for _, tt := range []struct {
		name   string
		chunks []string
		want   string
	}{
		{"C-121 after its end", []string{piece(`"index":0,"id":"a","function":{"name":"f","arguments":"{}"}`), piece(`"index":1,"id":"b","function":{"name":"f","arguments":"{}"}`), piece(`"index":0,"function":{"arguments":"x"}`)}, droppedCall},
		{"C-121 white space", []string{piece(`"index":0,"id":"a","function":{"name":"f","arguments":"{}"}`), piece(`"index":1,"id":"b","function":{"name":"f","arguments":"{}"}`), piece(`"index":0,"function":{"arguments":" "}`)}, ""},
		{"C-127 no name", []string{piece(`"index":0,"id":"a","function":{"arguments":"{}"}`)}, droppedCall},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			checkAnthropicStream(t, streamedAnthropic(x, append(tt.chunks, finishedAs("tool_calls"))...))
			if got := strings.Join(x.dropped, ","); got != tt.want {
				t.Errorf("dropped %q, want %q", got, tt.want)
			}
		})
	}
	x := anthropicExchange()
	encodedAnthropic(t, x, `{"choices":[{"message":{"content":"t","tool_calls":[{"id":"x","function":{"name":"","arguments":"{}"}}]}}]}`)
	if got := strings.Join(x.dropped, ","); got != droppedCall {
		t.Errorf("E-17: dropped %q", got)
	}
}

func TestAnthropicStreamThinking(t *testing.T) {
	chunks := []string{`{"reasoning_content":"h"}`, `{"reasoning_content":"m"}`, `{"content":"A"}`, `{"reasoning_content":"!"}`, finishedAs("stop")}
	for _, tt := range []struct {
		name       string
		show, omit bool
		want       string
	}{
		{"C-81 not asked for", false, false, "start 0 text\n0 text A\nstop 0\nend end_turn"},
		{"C-25 omitted", true, true, "start 0 thinking\n0 signature apx1.c.aG0\nstop 0\nstart 1 text\n1 text A\nstop 1\nstart 2 thinking\n2 signature apx1.c.IQ\nstop 2\nend end_turn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.anthropic = &anthropicRequest{ShowThinking: tt.show, OmitThinking: tt.omit}
			if got := brief(t, streamedAnthropic(x, chunks...)); got != tt.want {
				t.Errorf("the stream is\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// Nothing is written before there is something to say, so that an error that
// comes first can still have its own status (0-8).
func TestAnthropicStreamBeginsLate(t *testing.T) {
	s, r := testAnthropicStream(anthropicExchange()), newChunkReader(func(string) string { return "" })
	var out []byte
	for _, c := range []string{`{"choices":[],"prompt_filter_results":[]}`, `{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}`, `{"choices":[],"usage":{"prompt_tokens":1}}`} {
		read := r.read([]byte(c))
		out = s.chunk(out, &read)
	}
	if len(out) > 0 {
		t.Errorf("before the first content there is %q", out)
	}
	read := r.read([]byte(`{"choices":[{"index":0,"delta":{"reasoning":"hidden"}}]}`))
	if out = s.chunk(out, &read); !bytes.HasPrefix(out, []byte("event: message_start\n")) {
		t.Errorf("reasoning that is not shown begins the message too: %q", out)
	}
}

func TestAnthropicStreamFails(t *testing.T) {
	const event = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"gone\"},\"request_id\":\"req_1\"}\n\n"
	e := upstreamFailure(502, "", "gone", nil)
	x := anthropicExchange()
	x.id = "req_1"
	for _, tt := range []struct {
		name  string
		delta chatDelta
	}{
		{"before anything", chatDelta{}},
		{"in text", chatDelta{Text: "A"}},
		{"in a call", chatDelta{Calls: []callDelta{{Name: "f", Args: "{"}}}},
		{"after the finish", chatDelta{Text: "A", Finish: "stop"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := testAnthropicStream(x)
			out := s.fail(s.chunk(nil, &chatChunk{Deltas: []chatDelta{tt.delta}}), e)
			if seen := checkAnthropicStream(t, out); seen.failure != "api_error" || !bytes.HasSuffix(out, []byte(event)) {
				t.Errorf("C-107: the stream is\n%s\nwant it to end in\n%s", out, event)
			}
		})
	}
	if got := string(failEventAnthropic(nil, &apiError{Status: 503, Message: "m"})); got != "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"},\"request_id\":null}\n\n" {
		t.Errorf("failEventAnthropic = %q", got)
	}
	if e.RequestID != "" {
		t.Error("fail changed the caller's error")
	}
}

// Whatever the order of what the upstream sends, the stream is grammatical and
// holds all of it (AC-1).
func TestAnthropicStreamAnyOrder(t *testing.T) {
	for seed := range int64(3000) {
		rnd := rand.New(rand.NewSource(seed))
		pieces := func(s string) []string {
			var list []string
			for s != "" {
				n := 1 + rnd.Intn(len(s))
				list, s = append(list, s[:n]), s[n:]
			}
			return list
		}
		wantText, wantThought := "", ""
		var lanes [][]chatDelta // each in its order; they are mixed
		lane := func(n int, delta func(i int) chatDelta) {
			var l []chatDelta
			for i := range n {
				l = append(l, delta(i))
			}
			lanes = append(lanes, l)
		}
		if rnd.Intn(3) > 0 {
			wantText = "one <two> three"
			p := pieces(wantText)
			lane(len(p), func(i int) chatDelta { return chatDelta{Text: p[i]} })
		}
		if rnd.Intn(2) > 0 {
			wantThought = "let me think"
			p := pieces(wantThought)
			lane(len(p), func(i int) chatDelta { return chatDelta{Reasoning: reasoning{Text: p[i], Field: reasoningContent}} })
		}
		calls := rnd.Intn(4)
		args := []string{`{"a":[1,{"b":"}"}]}`, `{}`, `{"n":9007199254740993}`}
		for k := range calls {
			p := pieces(args[k])
			lane(len(p), func(i int) chatDelta {
				return chatDelta{Calls: []callDelta{{Call: k, ID: fmt.Sprint("id", k), Name: fmt.Sprint("f", k), Args: p[i]}}}
			})
		}
		x := anthropicExchange()
		x.anthropic.ShowThinking = true
		s := testAnthropicStream(x)
		var out []byte
		for len(lanes) > 0 {
			i := rnd.Intn(len(lanes))
			out = s.chunk(out, &chatChunk{Deltas: lanes[i][:1]})
			if lanes[i] = lanes[i][1:]; len(lanes[i]) == 0 {
				lanes = append(lanes[:i], lanes[i+1:]...)
			}
		}
		out = s.finish(out)
		seen := checkAnthropicStream(t, out)
		squeeze := func(s string) string { return strings.Join(strings.Fields(s), "") }
		gotText := seen.all("text")
		if calls > 0 { // white space beside calls may go
			gotText, wantText = squeeze(gotText), squeeze(wantText)
		}
		if gotText != wantText || seen.all("thinking") != wantThought {
			t.Fatalf("seed %d: text %q, thinking %q, want %q, %q; the stream:\n%s", seed, gotText, seen.all("thinking"), wantText, wantThought, out)
		}
		found := 0
		for _, b := range seen.blocks {
			if b.kind != "tool_use" {
				continue
			}
			found++
			k := int(b.id[2] - '0')
			if b.name != fmt.Sprint("f", k) || b.content != args[k] {
				t.Fatalf("seed %d: call %s has the input %s, want %s; the stream:\n%s", seed, b.id, b.content, args[k], out)
			}
		}
		wantStop := "end_turn"
		if calls > 0 {
			wantStop = "tool_use"
		}
		if found != calls || seen.stopReason != wantStop {
			t.Fatalf("seed %d: %d calls and %s, want %d and %s; the stream:\n%s", seed, found, seen.stopReason, calls, wantStop, out)
		}
	}
}

// FuzzAnthropicStream makes deltas of bytes: each begins with a kind.
func FuzzAnthropicStream(f *testing.F) {
	f.Add("ta b\x00rhm\x000{\"a\"\x001{}\x000:1}\x00t\n\x00fstop\x00", false)
	f.Add("n0\x000{}\x00t\n\x001x\x00R\x00flength\x00tlate\x00", true)
	f.Add("r\x00\x00t<\x00c2{\x00E", false)
	f.Fuzz(func(t *testing.T, script string, omit bool) {
		x := anthropicExchange()
		x.anthropic = &anthropicRequest{ShowThinking: true, OmitThinking: omit}
		s := testAnthropicStream(x)
		var out []byte
		for _, step := range strings.Split(script, "\x00") {
			if step == "" {
				continue
			}
			kind, rest := step[0], step[1:]
			var d chatDelta
			switch kind {
			case 'r':
				d.Reasoning = reasoning{Text: rest, Field: reasoningPlain}
			case 'd':
				d.Reasoning = reasoning{Text: rest, Field: reasoningList, Details: []byte("{}")}
			case 'R':
				d.Refusal = rest
			case 'f':
				d.Finish = rest
			case '0', '1', '2', '3':
				d.Calls = []callDelta{{Call: int(kind - '0'), ID: "id", Name: "f", Args: rest}}
			case 'n':
				d.Calls = []callDelta{{Call: len(rest) % 4, Args: rest}}
			case 'u':
				out = s.chunk(out, &chatChunk{Usage: usage{Known: true, Prompt: int64(len(rest)), Cached: 3}})
			case 'E':
				checkAnthropicStream(t, s.fail(out, upstreamFailure(502, "", "gone", nil)))
				return
			default:
				d.Text = step
				d.Reasoning = reasoning{Text: strings.TrimLeft(rest, "t"), Field: reasoningInText}
			}
			out = s.chunk(out, &chatChunk{Deltas: []chatDelta{d, {Index: 1, Text: "no"}}})
		}
		checkAnthropicStream(t, s.finish(out))
	})
}

func BenchmarkAnthropicStream(b *testing.B) {
	x := anthropicExchange()
	s := streamAnthropic(x)
	c := &chatChunk{Deltas: []chatDelta{{Text: " token"}}}
	buf := s.chunk(nil, c)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.chunk(buf[:0], c)
	}
}
