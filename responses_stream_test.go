package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// responsesRead is what a client has of a stream once it is over.
type responsesRead struct {
	types  []string
	status string
	object []byte
	text   string // of all messages, joined
	refuse string
	think  string
	calls  []string // name and arguments of each, in output order
}

// sseItem is an item as a client puts it together from events.
type sseItem struct {
	raw              []byte // of output_item.added, then of output_item.done
	typ, id          string
	deltas           strings.Builder // of the open part or of the arguments
	part             string          // type of the open part; "" for none
	parts            int
	said             bool // the open part, or the arguments, are done
	announced, ended bool
}

// checkResponsesStream holds a stream against the grammar of dialects D.7 and
// what the official SDK's accumulator needs, and reads it.
func checkResponsesStream(t *testing.T, sse []byte) responsesRead {
	t.Helper()
	c := responsesChecker{t: t, sse: sse}
	frames := strings.SplitAfter(string(sse), "\n\n")
	if last := len(frames) - 1; frames[last] != "" || last < 2 || frames[last-1] != "data: [DONE]\n\n" {
		c.fail("the stream does not end with [DONE]")
	}
	for _, frame := range frames[:len(frames)-2] {
		name, data, ok := strings.Cut(strings.TrimSuffix(frame, "\n\n"), "\ndata: ")
		name, isEvent := strings.CutPrefix(name, "event: ")
		if !ok || !isEvent || strings.Contains(data, "\n") || checkJSON([]byte(data)) != nil {
			c.fail("a frame is not one event with one line of JSON: %q", frame)
		}
		c.event(name, []byte(data))
	}
	c.end()
	return c.read
}

type responsesChecker struct {
	t     *testing.T
	sse   []byte
	seq   int64
	items []*sseItem
	done  [][]byte // items of output_item.done, by output_index
	read  responsesRead
}

func (c *responsesChecker) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf(format+"\nin the stream:\n%s", append(args, c.sse)...)
}

// event checks one event: the frame, and what may come at this point.
func (c *responsesChecker) event(name string, data []byte) {
	c.t.Helper()
	keys := slices.Collect(func(yield func(string) bool) {
		for k := range members(data) {
			if !yield(string(k)) {
				return
			}
		}
	})
	switch {
	case len(keys) < 2 || keys[0] != "type" || keys[1] != "sequence_number":
		c.fail("%s begins with the members %v", name, keys)
	case text(member(data, "type")) != name:
		c.fail("event %s has the type %s", name, member(data, "type"))
	case string(member(data, "sequence_number")) != fmt.Sprint(c.seq):
		c.fail("%s has the number %s, want %d", name, member(data, "sequence_number"), c.seq)
	case c.read.status != "":
		c.fail("%s comes after the terminal event", name)
	case (c.seq == 0) != (name == "response.created") || (c.seq == 1) != (name == "response.in_progress"):
		c.fail("%s is event %d", name, c.seq)
	}
	c.seq++
	c.read.types = append(c.read.types, name)
	switch {
	case name == "response.created", name == "response.in_progress":
		c.object(member(data, "response"), "in_progress")
	case name == "response.completed", name == "response.incomplete", name == "response.failed":
		c.read.status = strings.TrimPrefix(name, "response.")
		c.read.object = member(data, "response")
		c.object(c.read.object, c.read.status)
	case name == "response.output_item.added":
		c.added(data)
	default:
		c.inItem(name, data)
	}
}

// object checks that a response object has every member.
func (c *responsesChecker) object(o []byte, status string) {
	c.t.Helper()
	if got := text(member(o, "status")); got != status {
		c.fail("the object's status is %q, want %q", got, status)
	}
	for _, key := range []string{
		"id", "object", "created_at", "completed_at", "status", "incomplete_details", "error", "model", "previous_response_id", "instructions",
		"output", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p", "temperature", "presence_penalty",
		"frequency_penalty", "top_logprobs", "reasoning", "usage", "max_output_tokens", "max_tool_calls", "safety_identifier",
		"prompt_cache_key", "store", "background", "service_tier", "metadata",
	} {
		if member(o, key) == nil {
			c.fail("the object lacks %q", key)
		}
	}
	if status == "in_progress" && (string(member(o, "output")) != "[]" || !isNull(member(o, "usage"))) {
		c.fail("the object has an output or a usage before its end")
	}
	if (status == "failed") != isObject(member(o, "error")) || (status == "incomplete") != isObject(member(o, "incomplete_details")) {
		c.fail("error and incomplete_details do not fit the status %s", status)
	}
}

func (c *responsesChecker) added(data []byte) {
	c.t.Helper()
	if got := string(member(data, "output_index")); got != fmt.Sprint(len(c.items)) {
		c.fail("an item is added at %s, want %d (D-122)", got, len(c.items))
	}
	raw := member(data, "item")
	it := &sseItem{raw: raw, typ: text(member(raw, "type")), id: text(member(raw, "id"))}
	for _, other := range c.items {
		if other.id == it.id || it.id == "" {
			c.fail("the item id %q is not its own", it.id)
		}
		if !other.ended && (other.typ == "message" || other.typ == "reasoning") {
			c.fail("a %s is added while a %s is open (D-123)", it.typ, other.typ)
		}
	}
	empty := map[string]string{"message": "content", "reasoning": "summary", "function_call": "arguments", "custom_tool_call": "input"}
	if key, ok := empty[it.typ]; ok {
		if v := string(member(raw, key)); v != "[]" && v != `""` {
			c.fail("a %s is added with %s", it.typ, v)
		}
		if s := text(member(raw, "status")); s != "in_progress" {
			c.fail("a %s is added with the status %q", it.typ, s)
		}
	}
	if member(raw, "encrypted_content") != nil {
		c.fail("a reasoning item is added with what is known at its end: %s", raw)
	}
	if strings.HasSuffix(it.typ, "_call") && !isString(member(raw, "call_id")) {
		c.fail("a call is added without call_id: %s", raw)
	}
	c.items = append(c.items, it)
	c.done = append(c.done, nil)
}

// inItem checks an event of an item.
func (c *responsesChecker) inItem(name string, data []byte) {
	c.t.Helper()
	n := intOf(member(data, "output_index"))
	if member(data, "output_index") == nil || n >= int64(len(c.items)) {
		c.fail("%s is of no item", name)
	}
	it := c.items[n]
	if it.ended {
		c.fail("%s comes after its item's end", name)
	}
	if id := text(member(data, "item_id")); name != "response.output_item.done" && id != it.id {
		c.fail("%s names the item %q, want %q", name, id, it.id)
	}
	switch name {
	case "response.output_item.done":
		c.itemDone(it, int(n), member(data, "item"))
	case "response.content_part.added", "response.reasoning_summary_part.added":
		c.partAdded(it, name, data)
	case "response.content_part.done", "response.reasoning_summary_part.done":
		c.partDone(it, data)
	case "response.output_text.delta", "response.refusal.delta", "response.reasoning_summary_text.delta":
		c.inPart(it, name, data)
		it.deltas.WriteString(text(member(data, "delta")))
	case "response.output_text.done", "response.refusal.done", "response.reasoning_summary_text.done":
		c.inPart(it, name, data)
		key := "text"
		if name == "response.refusal.done" {
			key = "refusal"
		}
		if got := text(member(data, key)); got != it.deltas.String() {
			c.fail("%s says %q, its deltas said %q", name, got, it.deltas.String())
		}
		it.said = true
	case "response.function_call_arguments.delta", "response.custom_tool_call_input.delta":
		c.inCall(it, name)
		it.announced = true
		it.deltas.WriteString(text(member(data, "delta")))
	case "response.function_call_arguments.done", "response.custom_tool_call_input.done":
		c.inCall(it, name)
		key := "arguments"
		if it.typ == "custom_tool_call" {
			key = "input"
		} else if got := text(member(data, "name")); got != text(member(it.raw, "name")) {
			c.fail("%s names the tool %q", name, got)
		}
		if got := text(member(data, key)); got != it.deltas.String() || !it.announced {
			c.fail("%s says %q, its deltas said %q (D-116)", name, got, it.deltas.String())
		}
		it.said = true
	default:
		c.fail("%s is no event that the SDK knows", name)
	}
}

func (c *responsesChecker) inCall(it *sseItem, name string) {
	c.t.Helper()
	want := map[string]string{"function_call": "response.function_call_arguments", "custom_tool_call": "response.custom_tool_call_input"}[it.typ]
	if want == "" || !strings.HasPrefix(name, want) || it.said {
		c.fail("%s comes in a %s", name, it.typ)
	}
}

// inPart checks that an event is of the part that is open.
func (c *responsesChecker) inPart(it *sseItem, name string, data []byte) {
	c.t.Helper()
	want := map[string]string{"output_text": "response.output_text.", "refusal": "response.refusal.", "summary_text": "response.reasoning_summary_text."}[it.part]
	if want == "" || !strings.HasPrefix(name, want) || it.said {
		c.fail("%s comes in a part of type %q", name, it.part)
	}
	if strings.HasPrefix(name, "response.output_text.") && !isArray(member(data, "logprobs")) {
		c.fail("%s lacks logprobs", name)
	}
	c.partIndex(it, data, it.parts-1)
}

func (c *responsesChecker) partIndex(it *sseItem, data []byte, want int) {
	c.t.Helper()
	key := "content_index"
	if it.typ == "reasoning" {
		key = "summary_index"
	}
	if got := string(member(data, key)); got != fmt.Sprint(want) {
		c.fail("%s is %q, want %d", key, got, want)
	}
}

func (c *responsesChecker) partAdded(it *sseItem, name string, data []byte) {
	c.t.Helper()
	part := member(data, "part")
	if it.part != "" || (it.typ == "reasoning") != (name == "response.reasoning_summary_part.added") {
		c.fail("%s comes in a %s with an open part of type %q", name, it.typ, it.part)
	}
	c.partIndex(it, data, it.parts)
	it.part, it.said = text(member(part, "type")), false
	it.parts++
	it.deltas.Reset()
	if want := map[string]string{
		"output_text":  `{"type":"output_text","text":"","annotations":[],"logprobs":[]}`,
		"refusal":      `{"type":"refusal","refusal":""}`,
		"summary_text": `{"type":"summary_text","text":""}`,
	}[it.part]; string(part) != want {
		c.fail("a part is added as %s, want %s", part, want)
	}
}

func (c *responsesChecker) partDone(it *sseItem, data []byte) {
	c.t.Helper()
	part := member(data, "part")
	said := text(member(part, "text")) + text(member(part, "refusal"))
	if !it.said || text(member(part, "type")) != it.part || said != it.deltas.String() {
		c.fail("a part is done as %s", part)
	}
	c.partIndex(it, data, it.parts-1)
	switch it.part {
	case "output_text":
		if !isArray(member(part, "annotations")) || !isArray(member(part, "logprobs")) {
			c.fail("a part lacks annotations or logprobs: %s", part)
		}
		c.read.text += said
	case "refusal":
		c.read.refuse += said
	default:
		c.read.think += said
	}
	it.part = ""
}

func (c *responsesChecker) itemDone(it *sseItem, n int, raw []byte) {
	c.t.Helper()
	if it.part != "" || text(member(raw, "id")) != it.id || text(member(raw, "type")) != it.typ {
		c.fail("the item %s is done as %s", it.raw, raw)
	}
	if s := text(member(raw, "status")); s != "completed" && s != "incomplete" {
		c.fail("an item is done with the status %q", s)
	}
	switch it.typ {
	case "message", "reasoning":
		key := map[string]string{"message": "content", "reasoning": "summary"}[it.typ]
		if got := len(slices.Collect(elements(member(raw, key)))); got != it.parts || got == 0 {
			c.fail("a %s has %d parts, %d were sent", it.typ, got, it.parts)
		}
		if v := member(raw, "encrypted_content"); v != nil && !isString(v) {
			c.fail("encrypted_content is %s (D-81)", v)
		}
	case "function_call", "custom_tool_call":
		got := text(member(raw, "arguments")) + text(member(raw, "input"))
		if !it.said || got != it.deltas.String() {
			c.fail("a call is done with %q, its deltas said %q", got, it.deltas.String())
		}
	default:
		if !bytes.Equal(raw, it.raw) {
			c.fail("a call that comes whole is added as %s and done as %s (D-120)", it.raw, raw)
		}
	}
	it.ended, c.done[n] = true, raw
}

// end checks that the final object is what was streamed.
func (c *responsesChecker) end() {
	c.t.Helper()
	if c.read.status == "" {
		c.fail("there is no terminal event")
	}
	var want [][]byte
	for i, it := range c.items {
		if it.ended {
			want = append(want, c.done[i])
		} else if c.read.status != "failed" {
			c.fail("the item %s is never done", it.raw)
		}
	}
	got := slices.Collect(elements(member(c.read.object, "output")))
	if !slices.EqualFunc(got, want, bytes.Equal) {
		c.fail("the final output is %s, want the items that were done (D-126): %s", got, want)
	}
	if len(got) == 0 && c.read.status != "failed" {
		c.fail("the output is empty (D-86)")
	}
	for i, raw := range got {
		if text(member(raw, "status")) == "incomplete" && (i < len(got)-1 || c.read.status != "incomplete") {
			c.fail("item %d of %d is incomplete in a %s response (D-78)", i, len(got), c.read.status)
		}
		if name := member(raw, "name"); name != nil {
			c.read.calls = append(c.read.calls, text(name)+text(member(raw, "arguments"))+text(member(raw, "input")))
		}
	}
}

// streamed runs chat chunks, the data of one event each, through the encoder.
func streamed(t *testing.T, x *exchange, chunks ...string) []byte {
	t.Helper()
	s := newResponsesStream(x)
	r := newChunkReader(x.quirk)
	r.newID = func() string { return "made00000" }
	var sse []byte
	for _, data := range chunks {
		c := r.read([]byte(data))
		sse = s.chunk(sse, &c)
	}
	if rest := r.flush(); len(rest) > 0 {
		sse = s.chunk(sse, &chatChunk{Deltas: rest})
	}
	return s.finish(sse)
}

// A call without a name can't be given to the client, and is noted (E-17).
func TestResponsesNamelessCall(t *testing.T) {
	for args, want := range map[string]string{`"name":"f","arguments":"{}"`: "", `"arguments":"{}"`: droppedCall} {
		x := responsesExchange(nil)
		upstreamBody(t, x, `{"model":"m","input":"hi","store":false,"stream":true}`)
		checkResponsesStream(t, streamed(t, x, `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","function":{`+args+`}}]},"finish_reason":"tool_calls"}]}`))
		if got := strings.Join(x.dropped, ","); got != want {
			t.Errorf("%s: dropped %q, want %q", args, got, want)
		}
	}
}

func TestResponsesStreamExactly(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi","store":false,"stream":true}`)
	sse := string(streamed(t, x, `{"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}`))
	read := checkResponsesStream(t, []byte(sse))
	want := []string{
		"response.created", "response.in_progress", "response.output_item.added", "response.content_part.added", "response.output_text.delta",
		"response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed",
	}
	if !slices.Equal(read.types, want) {
		t.Errorf("D-131: events %q, want %q", read.types, want)
	}
	const id = `"item_id":"msg_` + testBase + `0001","output_index":0,"content_index":0`
	for _, frame := range []string{
		`event: response.output_item.added` + "\n" + `data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"message","id":"msg_` + testBase + `0001","status":"in_progress","role":"assistant","content":[]}}`,
		`event: response.content_part.added` + "\n" + `data: {"type":"response.content_part.added","sequence_number":3,` + id + `,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}`,
		`event: response.output_text.delta` + "\n" + `data: {"type":"response.output_text.delta","sequence_number":4,` + id + `,"delta":"Hi","logprobs":[]}`,
		`event: response.output_text.done` + "\n" + `data: {"type":"response.output_text.done","sequence_number":5,` + id + `,"text":"Hi","logprobs":[]}`,
		`event: response.content_part.done` + "\n" + `data: {"type":"response.content_part.done","sequence_number":6,` + id + `,"part":{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}}`,
	} {
		if !strings.Contains(sse, frame+"\n\n") {
			t.Errorf("D-108 to D-112: the stream lacks %s:\n%s", frame, sse)
		}
	}
	if u := string(member(read.object, "usage")); !strings.Contains(u, `"input_tokens":3`) || !strings.Contains(u, `"output_tokens":1`) {
		t.Errorf("D-127: usage = %s, want that of the last chunk", u)
	}
}

var update = flag.Bool("update", false, "write what the tests produce to testdata")

// The fixtures NAME.chat.sse in testdata/responses are streams of upstreams, and
// NAME.out.sse what the client gets of them.
func TestResponsesStreamFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/responses/*.chat.sse")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".chat.sse")
		t.Run(name, func(t *testing.T) {
			chat, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			x := responsesExchange(nil)
			upstreamBody(t, x, `{"model":"m","input":"hi","include":["reasoning.encrypted_content"],"tools":[{"type":"function","name":"f"},{"type":"custom","name":"patch"},{"type":"shell"},{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"g"}]}]}`)
			var chunks []string
			var p eventParser
			p.feed(chat, func(e event) {
				if !e.done() {
					chunks = append(chunks, string(e.data))
				}
			})
			got := streamed(t, x, chunks...)
			checkResponsesStream(t, got)
			out := strings.TrimSuffix(file, ".chat.sse") + ".out.sse"
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the client gets\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestResponsesStreamRules(t *testing.T) {
	delta := func(members string) string { return `{"choices":[{"index":0,"delta":{` + members + `}}]}` }
	call := func(index int, id, name, args string) string {
		return delta(fmt.Sprintf(`"tool_calls":[{"index":%d,"id":%q,"function":{"name":%q,"arguments":%s}}]`, index, id, name, quoted(args)))
	}
	const stop = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	const cut = `{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}`
	for _, tt := range []struct {
		name   string
		chunks []string
		status string
		want   string // the output's items
	}{
		{"D-123 reasoning, text, reasoning", []string{delta(`"reasoning_content":"a"`), delta(`"content":"b"`), delta(`"reasoning_content":"c"`), stop}, "completed",
			"reasoning:a message:b reasoning:c"},
		{"E-23 think tags", []string{delta(`"content":"<thi"`), delta(`"content":"nk>a</think>"`), delta(`"content":"\nb"`), stop}, "completed", "reasoning:a message:b"},
		{"AC-1 one chunk with everything", []string{delta(`"reasoning":"r","content":"t","tool_calls":[{"index":0,"id":"c1","function":{"name":"f","arguments":"{}"}}]`), stop}, "completed",
			"reasoning:r message:t function_call:{}"},
		{"H-19 interleaved calls", []string{call(0, "c1", "f", `{"a"`), call(1, "c2", "f", `{"b"`), call(0, "", "", `:1}`), call(1, "", "", `:2}`), stop}, "completed",
			`function_call:{"a":1} function_call:{"b":2}`},
		{"H-20 line break between calls", []string{call(0, "c1", "f", `{}`), delta(`"content":"\n"`), call(1, "c2", "f", `{}`), delta(`"content":"\n"`), stop}, "completed",
			"function_call:{} function_call:{}"},
		{"H-20 line break between calls, then text", []string{delta(`"content":"a"`), call(0, "c1", "f", `{}`), delta(`"content":"\n"`), call(1, "c2", "f", `{}`), delta(`"content":"b"`), stop}, "completed",
			"message:a function_call:{} function_call:{} message:b"},
		{"D-125 white space between reasoning and a call", []string{delta(`"reasoning_content":"a"`), delta(`"content":"\n"`), call(0, "c1", "f", `{}`), stop}, "completed", "reasoning:a function_call:{}"},
		{"D-125 text after a call", []string{call(0, "c1", "f", `{}`), delta(`"content":"\n"`), delta(`"content":"b"`), stop}, "completed", "function_call:{} message:\nb"},
		{"E-16 space before a call", []string{delta(`"content":"\n\n"`), call(0, "c1", "f", `{}`), stop}, "completed", "function_call:{}"},
		{"space alone", []string{delta(`"content":" "`), stop}, "completed", "message: "},
		{"D-124 name after arguments", []string{delta(`"tool_calls":[{"index":0,"id":"c1","function":{"arguments":"{\"a"}}]`), call(0, "", "f", `":1}`), stop}, "completed", `function_call:{"a":1}`},
		{"E-17 no name at all", []string{delta(`"tool_calls":[{"index":0,"id":"c1","function":{"arguments":"{}"}}]`), delta(`"content":"b"`), stop}, "completed", "message:b"},
		{"E-4 H-22 no id", []string{delta(`"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]`), stop}, "completed", `function_call:{"a":1}`},
		{"D-116 no arguments", []string{call(0, "c1", "f", ""), stop}, "completed", "function_call:{}"},
		{"D-114", []string{delta(`"content":"a"`), delta(`"refusal":"n"`), delta(`"refusal":"o"`), stop}, "completed", "message:a,no"},
		{"D-119 H-33", []string{call(0, "c1", "patch", `{"input":"a\n`), call(0, "", "", `\"\\b"}`), stop}, "completed", "custom_tool_call:a\n\"\\b"},
		{"D-120 after the calls that stream", []string{call(0, "c1", "shell", `{"commands":`), call(1, "c2", "f", `{}`), call(0, "", "", `["ls"]}`), stop}, "completed",
			`function_call:{} shell_call:{"commands":["ls"],"timeout_ms":null,"max_output_length":null}`},
		{"text around a shell call", []string{delta(`"content":"a"`), call(0, "c1", "shell", `{"commands":["ls"]}`), delta(`"content":"b"`), stop}, "completed",
			`message:a message:b shell_call:{"commands":["ls"],"timeout_ms":null,"max_output_length":null}`},
		{"H-23 D-76 cut in arguments", []string{call(0, "c1", "f", `{}`), call(1, "c2", "f", `{"a`), cut}, "incomplete", `function_call:{} function_call:{"a!`},
		{"D-76 cut in a shell call", []string{delta(`"content":"a"`), call(0, "c1", "shell", `{"comm`), cut}, "incomplete", `message:a function_call:{"comm!`},
		{"D-76 cut in text", []string{delta(`"reasoning_content":"r"`), delta(`"content":"a"`), cut}, "incomplete", "reasoning:r message:a!"},
		{"E-14 content after the finish", []string{delta(`"content":"a"`), cut, delta(`"content":"b"`), stop}, "incomplete", "message:ab!"},
		{"D-86 nothing", []string{stop}, "completed", "message:"},
		{"0-12 nothing, cut", []string{cut}, "incomplete", "message:!"},
		{"E-45 empty first chunk", []string{`{"id":"","choices":[],"prompt_filter_results":[]}`, delta(`"content":"a"`), stop}, "completed", "message:a"},
		{"E-19 other choices", []string{`{"choices":[{"index":1,"delta":{"content":"x"}},{"index":0,"delta":{"content":"a"}}]}`, stop}, "completed", "message:a"},
		{"E-53 half a surrogate pair", []string{delta(`"content":"\ud83d"`), delta(`"content":"\ude00"`), stop}, "completed", "message:😀"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			upstreamBody(t, x, `{"model":"m","input":"hi","tools":[{"type":"function","name":"f"},{"type":"custom","name":"patch"},{"type":"shell"}]}`)
			read := checkResponsesStream(t, streamed(t, x, tt.chunks...))
			var items []string
			for raw := range elements(member(read.object, "output")) {
				items = append(items, briefItem(raw))
			}
			if got := strings.Join(items, " "); got != tt.want || read.status != tt.status {
				t.Errorf("%s: %s\nwant %s: %s", read.status, got, tt.status, tt.want)
			}
		})
	}
}

// briefItem is an item's type and what it holds, with a ! when it is incomplete.
func briefItem(raw []byte) string {
	said := text(member(raw, "arguments")) + text(member(raw, "input")) + string(member(raw, "action"))
	var parts []string
	for _, key := range []string{"content", "summary"} {
		for p := range elements(member(raw, key)) {
			parts = append(parts, text(member(p, "text"))+text(member(p, "refusal")))
		}
	}
	brief := text(member(raw, "type")) + ":" + said + strings.Join(parts, ",")
	if text(member(raw, "status")) == "incomplete" {
		brief += "!"
	}
	return brief
}

func TestResponsesStreamCallIDs(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi"}`)
	read := checkResponsesStream(t, streamed(t, x, `{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"functions.f:0","function":{"name":"f"}},{"index":1,"function":{"name":"f"}}]}}]}`))
	var ids []string
	for raw := range elements(member(read.object, "output")) {
		ids = append(ids, text(member(raw, "call_id")))
	}
	if want := []string{"functions.f:0", "made00000"}; !slices.Equal(ids, want) {
		t.Errorf("0-11, E-4: call ids %q, want %q", ids, want)
	}
	s := newResponsesStream(responsesExchange(nil))
	s.finish(s.chunk(nil, &chatChunk{Deltas: []chatDelta{{Calls: []callDelta{{Name: "f"}}}}}))
	if id := text(member(member(s.object, "output"), "call_id")); id != "" {
		t.Errorf("call_id = %q", id)
	}
	for raw := range elements(member(s.object, "output")) {
		if id := text(member(raw, "call_id")); len(id) != 9 {
			t.Errorf("0-11: call_id = %q, want nine characters", id)
		}
	}
}

func TestResponsesStreamLogprobs(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi","top_logprobs":0,"include":["message.output_text.logprobs"]}`)
	sse := string(streamed(t, x, `{"choices":[{"index":0,"delta":{"content":" "},"logprobs":{"content":[{"token":" ","logprob":-1,"bytes":[32],"top_logprobs":[]}]}}]}`,
		`{"choices":[{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-2}]}}]}`))
	checkResponsesStream(t, []byte(sse))
	const both = `"logprobs":[{"token":" ","logprob":-1,"bytes":[32],"top_logprobs":[]},{"token":"a","logprob":-2,"bytes":[],"top_logprobs":[]}]`
	if n := strings.Count(sse, both); n != 5 {
		t.Errorf("D-85: logprobs stand %d times, want 5 (delta, text, part, item, object):\n%s", n, sse)
	}
}

// E-24: each reasoning item has the stamp of its own reasoning.
func TestResponsesStreamStamps(t *testing.T) {
	var kept storedResponse
	x := responsesExchange(&kept)
	upstreamBody(t, x, `{"model":"m","input":"hi","include":["reasoning.encrypted_content"]}`)
	read := checkResponsesStream(t, streamed(t, x,
		`{"choices":[{"index":0,"delta":{"reasoning_details":[{"type":"reasoning.text","text":"a"}]}}]}`,
		`{"choices":[{"index":0,"delta":{"content":"b"}}]}`,
		`{"choices":[{"index":0,"delta":{"reasoning_details":[{"type":"reasoning.text","text":"c"},{"type":"reasoning.summary","summary":"d"}]}}]}`))
	want := []string{
		`d a {"type":"reasoning.text","text":"a"}`,
		`d cd {"type":"reasoning.text","text":"c"},{"type":"reasoning.summary","summary":"d"}`,
	}
	var got []string
	for raw := range elements(member(read.object, "output")) {
		if enc := text(member(raw, "encrypted_content")); enc != "" {
			r, _ := unstamp(enc, text(member(slices.Collect(elements(member(raw, "summary")))[0], "text")))
			got = append(got, string(r.Field)+" "+r.Text+" "+string(r.Details))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("stamps hold %q, want %q", got, want)
	}
	if len(kept.Stamps) != 2 {
		t.Errorf("kept %v, want both stamps", kept.Stamps)
	}
}

// The first finish counts, the latest usage, and annotations belong to the text
// before them.
func TestResponsesStreamRemembers(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi"}`)
	s := streamResponses(x)
	var sse []byte
	for _, c := range []chatChunk{
		{Deltas: []chatDelta{{Text: "a", Annotations: []byte(`[{"url_citation":{"url":"u"}}]`)}}, Usage: usage{Known: true, Prompt: 1}},
		{Deltas: []chatDelta{{Reasoning: reasoning{Text: "r", Field: reasoningContent}, Finish: "length"}}, Usage: usage{Known: true, Prompt: 2}},
		{Deltas: []chatDelta{{Text: "b", Finish: "stop"}}},
	} {
		sse = s.chunk(sse, &c)
	}
	read := checkResponsesStream(t, s.finish(sse))
	if got := string(member(member(read.object, "usage"), "input_tokens")); got != "2" {
		t.Errorf("E-41: input_tokens = %s, want 2", got)
	}
	if read.status != "incomplete" {
		t.Errorf("E-14: status = %s, want that of the first finish", read.status)
	}
	if n := bytes.Count(member(read.object, "output"), []byte(`"url":"u"`)); n != 1 {
		t.Errorf("D-84: the citation stands %d times, want once: %s", n, read.object)
	}
}

// D-128: after a failure everything that was finished is there, and nothing else.
func TestResponsesStreamFails(t *testing.T) {
	e := &apiError{Status: 429, Type: "rate_limit_error", Code: "rate_limit_exceeded", Message: "Please try again in 1.5s"}
	for _, tt := range []struct {
		name   string
		chunks []chatChunk
		want   []string
		output string
	}{
		{"before anything", nil, []string{"response.created", "response.in_progress", "response.failed"}, ""},
		{"in the text", []chatChunk{{Deltas: []chatDelta{{Reasoning: reasoning{Text: "r", Field: reasoningContent}, Text: "a"}}}}, nil, "reasoning:r"},
		{"F-10 in a call", []chatChunk{{Deltas: []chatDelta{{Text: "a", Calls: []callDelta{{ID: "c1", Name: "f", Args: "{}"}}}}}}, nil, "message:a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var kept storedResponse
			x := responsesExchange(&kept)
			upstreamBody(t, x, `{"model":"m","input":"hi"}`)
			s := streamResponses(x)
			var sse []byte
			for i := range tt.chunks {
				sse = s.chunk(sse, &tt.chunks[i])
			}
			read := checkResponsesStream(t, s.fail(sse, e))
			if tt.want != nil && !slices.Equal(read.types, tt.want) {
				t.Errorf("events %q, want %q", read.types, tt.want)
			}
			var items []string
			for raw := range elements(member(read.object, "output")) {
				items = append(items, briefItem(raw))
			}
			if got := strings.Join(items, " "); got != tt.output {
				t.Errorf("output %q, want %q", got, tt.output)
			}
			if got, want := string(member(read.object, "error")), `{"code":"rate_limit_exceeded","message":"Please try again in 1.5s"}`; got != want || read.status != "failed" {
				t.Errorf("%s with %s, want failed with %s", read.status, got, want)
			}
			if !isNull(member(read.object, "usage")) || kept.Status != "failed" {
				t.Errorf("usage %s, kept as %q; want null, and the failed response kept (D-140)", member(read.object, "usage"), kept.Status)
			}
		})
	}
}

// design 1.5: the answer is stored before the client sees its end.
func TestResponsesStreamKeepsFirst(t *testing.T) {
	x := responsesExchange(nil)
	var sse []byte
	calls := 0
	x.responses.Keep = func(r storedResponse) bool {
		calls++
		if bytes.Contains(sse, []byte("response.completed")) || string(member(r.Object, "status")) != `"completed"` {
			t.Errorf("kept %s after %s", r.Object, sse)
		}
		return calls > 1
	}
	upstreamBody(t, x, `{"model":"m","input":"hi"}`)
	s := streamResponses(x)
	sse = s.chunk(sse, &chatChunk{Deltas: []chatDelta{{Text: "a"}}})
	read := checkResponsesStream(t, s.finish(sse))
	if calls != 1 || string(member(read.object, "store")) != "false" {
		t.Errorf("kept %d times, and store is %s; want once, and false since that failed", calls, member(read.object, "store"))
	}
}

// playResponses makes a stream of what a script of bytes says, and what must
// come out of it.
func playResponses(t *testing.T, script []byte) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi","tools":[{"type":"function","name":"f"},{"type":"custom","name":"patch"},{"type":"shell"}]}`)
	var s streamEncoder = newResponsesStream(x)
	var sse []byte
	var said, thought, refused string
	names := []string{"f", "f", "patch", "shell", ""}
	args := make([]string, len(names))
	var c chatChunk
	for i, b := range script {
		piece := string(rune('a'+i%26)) + "é\"\n"
		d := chatDelta{}
		switch kind := b % 16; {
		case kind < 4:
			d.Text = piece
			said += piece
		case kind < 5:
			d.Text = "\n"
			said += "\n"
		case kind < 7:
			d.Reasoning = reasoning{Text: piece, Field: reasoningContent}
			thought += piece
		case kind < 8:
			d.Refusal = piece
			refused += piece
		case kind < 13:
			n := int(kind - 8)
			d.Calls = []callDelta{{Call: n, ID: fmt.Sprint("c", n), Name: names[n], Args: piece}}
			args[n] += piece
		case kind < 14:
			d.Finish = []string{"stop", "length", "content_filter", "tool_calls"}[b>>4%4]
		case kind < 15:
			c.Usage = usage{Known: true, Prompt: int64(b)}
		default:
			d.Index = 1
			d.Text = "of another choice"
		}
		c.Deltas = append(c.Deltas, d)
		if b&0x80 == 0 || i == len(script)-1 {
			sse = s.chunk(sse, &c)
			c = chatChunk{}
		}
	}
	if len(script) > 0 && script[0] == 0xff {
		checkResponsesStream(t, s.fail(sse, &apiError{Status: 502, Message: "gone"}))
		return
	}
	read := checkResponsesStream(t, s.finish(sse))
	if read.think != thought || read.refuse != refused || withoutSpace(read.text) != withoutSpace(said) {
		t.Errorf("script %v: read %q, %q, %q; want %q, %q, %q", script, read.think, read.refuse, read.text, thought, refused, said)
	}
	for n, want := range args {
		if want == "" || names[n] == "" {
			continue
		}
		if !slices.Contains(read.calls, names[n]+want) {
			t.Errorf("script %v: calls %q, want one of %s with %q", script, read.calls, names[n], want)
		}
	}
}

// withoutSpace leaves out what may go between calls.
func withoutSpace(s string) string { return strings.ReplaceAll(s, "\n", "") }

// AC-1: whatever the order of text, reasoning and calls, the stream is grammatical
// and what comes out is what went in.
func TestResponsesStreamAnyOrder(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		script := make([]byte, random.IntN(24))
		for i := range script {
			script[i] = byte(random.IntN(256))
		}
		playResponses(t, script)
	}
}

func FuzzResponsesStream(f *testing.F) {
	for _, seed := range [][]byte{{}, {0, 5, 8, 9, 0}, {4, 10, 4, 10}, {11, 12, 0x1d, 14}, {0xff, 0, 8}, {7, 0, 7, 5}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		playResponses(t, script[:min(len(script), 512)])
	})
}

func BenchmarkResponsesStream(b *testing.B) {
	x := responsesExchange(nil)
	if _, err := decodeResponses(x, []byte(`{"model":"m","input":"hi"}`)); err != nil {
		b.Fatal(err)
	}
	s := streamResponses(x)
	c := chatChunk{Deltas: []chatDelta{{Text: " token"}}}
	dst := s.chunk(nil, &c)
	b.ReportAllocs()
	for b.Loop() {
		dst = s.chunk(dst[:0], &c)
	}
}

// The item that a client collects from events is the one that it can send back.
func TestResponsesRoundTrip(t *testing.T) {
	x := responsesExchange(nil)
	request := `{"model":"m","input":[{"role":"user","content":"a"}],"include":["reasoning.encrypted_content"],"tools":[{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"f"}]},{"type":"custom","name":"patch"},{"type":"local_shell"},{"type":"shell"},{"type":"apply_patch"}]}`
	upstreamBody(t, x, request)
	made := []struct{ name, args string }{
		{"mcp__f", `{"b":1,"a":2}`}, {"patch", `{"input":"*** \"p\""}`}, {"local_shell", `{"command":["ls"],"env":{}}`},
		{"shell", `{"commands":["ls"],"timeout_ms":1,"max_output_length":2}`}, {"apply_patch", `{"operation":{"type":"delete_file","path":"p"}}`},
	}
	var calls []chatToolCall
	for i, m := range made {
		calls = append(calls, functionCall(fmt.Sprint("c", i), m.name, m.args))
	}
	s := newResponsesStream(x)
	answer := chatChoice{Reasoning: reasoning{Text: "hm", Field: reasoningPlain}, Text: "ok", Calls: calls}
	read := checkResponsesStream(t, s.finish(s.chunk(nil, &chatChunk{Deltas: []chatDelta{answer.delta()}})))

	output := member(read.object, "output")
	input := `[{"role":"user","content":"a"},` + string(output[1:len(output)-1])
	for i := range made {
		input += fmt.Sprintf(`,{"type":"function_call_output","call_id":"c%d","output":"%d"}`, i, i)
	}
	var q chatRequest
	q.Messages = []chatMessage{{Role: "assistant", Content: textContent("ok"), Reasoning: "hm", ToolCalls: calls}}
	want, err := json.Marshal(q.Messages[0])
	if err != nil {
		t.Fatal(err)
	}
	got := upstreamBody(t, responsesExchange(nil), strings.Replace(request, `[{"role":"user","content":"a"}]`, input+"]", 1))
	if !strings.Contains(got, string(want)) {
		t.Errorf("sent back as\n%s\nwant in it\n%s", got, want)
	}
}
