package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A speaker is a client of one dialect, as far as a conversation with one tool
// needs it. All of them can ask, answer a call, and read what comes.
type speaker struct {
	name string
	path func(stream bool) string
	// body is a request with those messages, which are in the dialect.
	body func(stream bool, messages ...string) string
	user func(text string) string
	// result is what the tool says to a call.
	result func(call chatToolCall, said string) string
	// read makes one form of an answer.
	read func(t *testing.T, stream bool, body string) spoken
}

// spoken is an answer as every dialect can say it.
type spoken struct {
	id      string
	text    string
	thought string
	calls   []chatToolCall
	items   []string // what the client sends back of it, in its dialect
}

const weatherSchema = `{"type":"object","properties":{"city":{"type":"string"}}}`

var speakers = []speaker{
	{
		name: "chat",
		path: func(bool) string { return "/v1/chat/completions" },
		body: func(stream bool, messages ...string) string {
			return `{"model":"m","stream":` + strconv.FormatBool(stream) + `,"messages":` + arrayOf(messages...) +
				`,"tools":[{"type":"function","function":{"name":"weather","parameters":` + weatherSchema + `}}]}`
		},
		user:   userMsg,
		result: func(call chatToolCall, said string) string { return toolMsg(call.ID, said) },
		read:   hearChat,
	},
	{
		name: "anthropic",
		path: func(bool) string { return "/v1/messages" },
		body: func(stream bool, messages ...string) string {
			return `{"model":"m","max_tokens":100,"stream":` + strconv.FormatBool(stream) + `,"messages":` + arrayOf(messages...) +
				`,"tools":[{"name":"weather","input_schema":` + weatherSchema + `}]}`
		},
		user: userMsg,
		result: func(call chatToolCall, said string) string {
			return `{"role":"user","content":[{"type":"tool_result","tool_use_id":"` + call.ID + `","content":"` + said + `"}]}`
		},
		read: hearAnthropic,
	},
	geminiSpeaker,
	geminiWithoutIDs(),
	{
		name: "responses",
		path: func(bool) string { return "/v1/responses" },
		body: func(stream bool, messages ...string) string {
			return `{"model":"m","stream":` + strconv.FormatBool(stream) + `,"input":` + arrayOf(messages...) +
				`,"tools":[{"type":"function","name":"weather","parameters":` + weatherSchema + `}]}`
		},
		user: userMsg,
		result: func(call chatToolCall, said string) string {
			return `{"type":"function_call_output","call_id":"` + call.ID + `","output":"` + said + `"}`
		},
		read: hearResponses,
	},
}

var geminiSpeaker = speaker{
	name: "gemini",
	path: func(stream bool) string {
		if stream {
			return "/v1beta/models/m:streamGenerateContent?alt=sse"
		}
		return "/v1beta/models/m:generateContent"
	},
	body: func(stream bool, messages ...string) string {
		return `{"contents":` + arrayOf(messages...) + `,"tools":[{"functionDeclarations":[{"name":"weather","parameters":` + weatherSchema + `}]}]}`
	},
	user: func(text string) string { return `{"role":"user","parts":[{"text":"` + text + `"}]}` },
	result: func(call chatToolCall, said string) string {
		return `{"role":"user","parts":[{"functionResponse":{"id":"` + call.ID + `","name":"` + call.Function.Name + `","response":{"output":"` + said + `"}}}]}`
	},
	read: hearGemini,
}

// geminiWithoutIDs leaves the ids of calls out, as LangChain and older SDKs do.
func geminiWithoutIDs() speaker {
	s := geminiSpeaker
	s.name = "gemini without ids"
	s.result = func(call chatToolCall, said string) string {
		return strings.Replace(geminiSpeaker.result(call, said), `"id":"`+call.ID+`",`, "", 1)
	}
	s.read = func(t *testing.T, stream bool, body string) spoken {
		said := hearGemini(t, stream, body)
		for _, call := range said.calls {
			said.items[0] = strings.ReplaceAll(said.items[0], `"id":"`+call.ID+`",`, "")
		}
		return said
	}
	return s
}

func speakerOf(name string) speaker {
	return speakers[slices.IndexFunc(speakers, func(s speaker) bool { return s.name == name })]
}

func hearChat(t *testing.T, stream bool, body string) spoken {
	t.Helper()
	if stream {
		whole, err := gather(strings.NewReader(body), func() {})
		if err != nil {
			t.Fatalf("%v in the stream %s", err, body)
		}
		body = string(whole)
	}
	var c struct {
		ID      string
		Choices []struct{ Message json.RawMessage }
	}
	parse(t, body, &c)
	said := spoken{id: c.ID, text: text(member(c.Choices[0].Message, "content")), items: []string{string(c.Choices[0].Message)}}
	parse(t, string(orDefault(member(c.Choices[0].Message, "tool_calls"), "[]")), &said.calls)
	return said
}

func hearAnthropic(t *testing.T, stream bool, body string) spoken {
	t.Helper()
	var blocks []string
	if stream {
		for _, b := range checkAnthropicStream(t, []byte(body)).blocks {
			switch b.kind {
			case "text":
				blocks = append(blocks, `{"type":"text","text":`+quoted(b.content)+`}`)
			case "thinking":
				blocks = append(blocks, `{"type":"thinking","thinking":`+quoted(b.content)+`,"signature":`+quoted(b.signature)+`}`)
			case "tool_use":
				blocks = append(blocks, `{"type":"tool_use","id":`+quoted(b.id)+`,"name":`+quoted(b.name)+`,"input":`+b.content+`}`)
			}
		}
	} else {
		for b := range elements(member([]byte(body), "content")) {
			blocks = append(blocks, string(b))
		}
	}
	said := spoken{id: text(member([]byte(body), "id")), items: []string{`{"role":"assistant","content":` + arrayOf(blocks...) + `}`}}
	for _, raw := range blocks {
		b := []byte(raw)
		said.text += text(member(b, "text"))
		said.thought += text(member(b, "thinking"))
		if text(member(b, "type")) == "tool_use" {
			said.calls = append(said.calls, functionCall(text(member(b, "id")), text(member(b, "name")), string(compact(member(b, "input")))))
		}
	}
	return said
}

func hearGemini(t *testing.T, stream bool, body string) spoken {
	t.Helper()
	chunks := [][]byte{[]byte(body)}
	if stream {
		checkGeminiStream(t, true, []byte(body))
		chunks = geminiChunks(t, true, []byte(body))
	}
	var said spoken
	var parts []string
	for _, chunk := range chunks {
		for c := range elements(member(chunk, "candidates")) {
			for p := range elements(member(member(c, "content"), "parts")) {
				parts = append(parts, string(p))
				if string(member(p, "thought")) == "true" {
					said.thought += text(member(p, "text"))
					continue
				}
				said.text += text(member(p, "text"))
				if call := member(p, "functionCall"); call != nil {
					said.calls = append(said.calls, functionCall(text(member(call, "id")), text(member(call, "name")), string(compact(member(call, "args")))))
				}
			}
		}
	}
	said.items = []string{`{"role":"model","parts":` + arrayOf(parts...) + `}`}
	return said
}

func hearResponses(t *testing.T, stream bool, body string) spoken {
	t.Helper()
	object := []byte(body)
	if stream {
		object = checkResponsesStream(t, object).object
	}
	said := spoken{id: text(member(object, "id"))}
	for item := range elements(member(object, "output")) {
		said.items = append(said.items, string(item))
		switch text(member(item, "type")) {
		case "message":
			for p := range elements(member(item, "content")) {
				said.text += text(member(p, "text"))
			}
		case "reasoning":
			for p := range elements(member(item, "summary")) {
				said.thought += text(member(p, "text"))
			}
		case "function_call":
			said.calls = append(said.calls, functionCall(text(member(item, "call_id")), text(member(item, "name")), text(member(item, "arguments"))))
		}
	}
	return said
}

func parse(t *testing.T, body string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
}

// say sends messages in a speaker's dialect and reads the answer.
func (g *gateway) say(s speaker, stream bool, messages []string, headers ...string) spoken {
	g.t.Helper()
	return g.sayBody(s, stream, s.body(stream, messages...), headers...)
}

func (g *gateway) sayBody(s speaker, stream bool, body string, headers ...string) spoken {
	g.t.Helper()
	res := g.do("POST", s.path(stream), body, headers...)
	got := readAll(g.t, res)
	if res.StatusCode != 200 {
		g.t.Fatalf("%s (stream %t): status %d %s\nafter %s", s.name, stream, res.StatusCode, got, body)
	}
	return s.read(g.t, stream, got)
}

// strictMessages refuses a history that strict upstreams refuse: each call is
// followed by its result, no result stands without a call, and the first to
// speak is the user.
func strictMessages(messages []chatSeen) error {
	var open []string
	for i, m := range messages {
		if len(open) > 0 && m.Role != "tool" {
			return fmt.Errorf("message %d is the %s's, while the calls %q are open", i, m.Role, open)
		}
		switch m.Role {
		case "system":
			if i > 0 {
				return fmt.Errorf("message %d is a later system message", i)
			}
		case "user":
		case "assistant":
			if i == 0 || messages[i-1].Role == "assistant" {
				return fmt.Errorf("message %d is the assistant's, after the %q", i, messages[max(i-1, 0)].Role)
			}
			for _, c := range m.ToolCalls {
				if c.ID == "" || c.Type != "function" || checkJSON([]byte(c.Function.Arguments)) != nil {
					return fmt.Errorf("message %d has the call %+v", i, c)
				}
				open = append(open, c.ID)
			}
		case "tool":
			at := slices.Index(open, m.ToolCallID)
			if at < 0 {
				return fmt.Errorf("message %d answers the call %q; open are %q", i, m.ToolCallID, open)
			}
			open = slices.Delete(open, at, at+1)
		default:
			return fmt.Errorf("message %d has the role %q", i, m.Role)
		}
	}
	if len(messages) == 0 || len(open) > 0 {
		return fmt.Errorf("the calls %q are open at the end of %d messages", open, len(messages))
	}
	return nil
}

// chatSeen is a message as the upstream reads it.
type chatSeen struct {
	Role             string         `json:"role"`
	Content          any            `json:"content"`
	ToolCallID       string         `json:"tool_call_id"`
	ToolCalls        []chatToolCall `json:"tool_calls"`
	ReasoningContent *string        `json:"reasoning_content"`
}

// briefly is a message in a few words.
func (m chatSeen) briefly() string {
	s := m.Role + ":"
	if content, ok := m.Content.(string); ok {
		s += content
	}
	for _, c := range m.ToolCalls {
		s += " " + c.ID + "=" + c.Function.Name + c.Function.Arguments
	}
	if m.ToolCallID != "" {
		s += "(" + m.ToolCallID + ")"
	}
	return s
}

func brieflyAll(messages []chatSeen) string {
	var list []string
	for _, m := range messages {
		list = append(list, m.briefly())
	}
	return strings.Join(list, "\n")
}

// weatherUpstream answers a user with a call of its tool, and a tool's result
// with a text. It is strict.
func weatherUpstream(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Stream   bool
		Messages []chatSeen
		Tools    []chatTool
	}
	body, _ := io.ReadAll(r.Body)
	err := json.Unmarshal(body, &q)
	if err == nil {
		err = strictMessages(q.Messages)
	}
	if err == nil && (len(q.Tools) != 1 || q.Tools[0].Function.Name != "weather") {
		err = fmt.Errorf("the tools are %+v", q.Tools)
	}
	if err != nil {
		w.WriteHeader(400)
		io.WriteString(w, `{"error":{"message":`+quoted(err.Error())+`,"type":"invalid_request_error"}}`)
		return
	}
	last := q.Messages[len(q.Messages)-1]
	switch n := strconv.Itoa(len(q.Messages)); {
	case last.Role == "tool":
		answerMessage(w, assistantMsg("it is "+fmt.Sprint(last.Content)), q.Stream)
	case strings.HasPrefix(fmt.Sprint(last.Content), "weather in "):
		city := strings.TrimPrefix(last.Content.(string), "weather in ")
		answerMessage(w, `{"role":"assistant","content":null,"tool_calls":[{"id":"call`+n+`","type":"function","function":{"name":"weather","arguments":"{\"city\":\"`+city+`\"}"}}]}`, q.Stream)
	default:
		answerMessage(w, assistantMsg("re: "+fmt.Sprint(last.Content)), q.Stream)
	}
}

// A conversation with a tool, begun in one dialect, goes on in each other one:
// the second answers the first one's call, each of them calls once more for the
// other, and the upstream always sees the whole history.
func TestRoundTrip(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, a := range speakers {
			for _, b := range speakers {
				t.Run(fmt.Sprintf("%s to %s, stream %t", a.name, b.name, stream), func(t *testing.T) {
					t.Parallel()
					roundTrip(t, a, b, stream)
				})
			}
		}
	}
}

func roundTrip(t *testing.T, a, b speaker, stream bool) {
	g := newGateway(t, weatherUpstream)
	id := "X-Session-Id: trip"
	callOf := func(said spoken, want string) chatToolCall {
		t.Helper()
		if len(said.calls) != 1 || said.calls[0].Function.Name != "weather" || said.calls[0].Function.Arguments != want || said.calls[0].ID == "" {
			t.Fatalf("the answer is %+v, want a call with %s", said, want)
		}
		return said.calls[0]
	}
	textOf := func(said spoken, want string) {
		t.Helper()
		if !strings.Contains(said.text, want) || len(said.calls) > 0 {
			t.Fatalf("the answer is %+v, want %q", said, want)
		}
	}
	one := callOf(g.say(a, stream, []string{a.user("weather in Oslo")}, id), `{"city":"Oslo"}`)
	textOf(g.say(b, stream, []string{b.result(one, "cold")}, id), "cold")
	two := callOf(g.say(b, stream, []string{b.user("weather in Rome")}, id), `{"city":"Rome"}`)
	textOf(g.say(a, stream, []string{a.result(two, "warm")}, id), "warm")
	textOf(g.say(a, stream, []string{a.user("thanks")}, id), "re: thanks")
	textOf(g.say(b, stream, []string{b.user("bye")}, id), "re: bye")

	var sent struct{ Messages []chatSeen }
	parse(t, g.last().Body, &sent)
	want := []string{
		"user:weather in Oslo", "assistant: " + one.ID + `=weather{"city":"Oslo"}`, "tool:", "assistant:it is ",
		"user:weather in Rome", "assistant: " + two.ID + `=weather{"city":"Rome"}`, "tool:", "assistant:it is ",
		"user:thanks", "assistant:re: thanks", "user:bye",
	}
	check := func(where string, got []chatSeen, want []string) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s are %d messages, want %d:\n%s", where, len(got), len(want), brieflyAll(got))
		}
		for i := range want {
			if !strings.HasPrefix(got[i].briefly(), want[i]) {
				t.Errorf("%s, message %d is %q, want %q", where, i, got[i].briefly(), want[i])
			}
		}
	}
	check("sent", sent.Messages, want)
	if sent.Messages[2].ToolCallID != one.ID || sent.Messages[6].ToolCallID != two.ID {
		t.Errorf("the results are of %q and %q, want %q and %q", sent.Messages[2].ToolCallID, sent.Messages[6].ToolCallID, one.ID, two.ID)
	}
	view := g.context(t, "trip", "")
	var kept []chatSeen
	parse(t, string(view.Messages), &kept)
	check("kept", kept, append(want, "assistant:re: bye"))
	if len(view.Threads) != 0 {
		t.Errorf("the session has %d more threads", len(view.Threads))
	}
}

// A client of another dialect that keeps the history itself joins a session: the
// whole of it is recognised, and nothing is kept twice.
func TestRoundTripManaged(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, s := range speakers {
			t.Run(fmt.Sprintf("%s, stream %t", s.name, stream), func(t *testing.T) {
				g := newGateway(t, weatherUpstream)
				id := "X-Session-Id: trip"
				messages := []string{s.user("weather in Oslo")}
				said := g.say(s, stream, messages, id)
				messages = append(messages, said.items...)
				messages = append(messages, s.result(said.calls[0], "cold"))
				said = g.say(s, stream, messages, id)
				messages = append(append(messages, said.items...), s.user("thanks"))
				if said = g.say(s, stream, messages, id); said.text != "re: thanks" {
					t.Fatalf("the answer is %+v", said)
				}
				var kept []chatSeen
				view := g.context(t, "trip", "")
				parse(t, string(view.Messages), &kept)
				turns := 3
				if s.name == "gemini without ids" { // its ids are others each time, so the history is written anew
					turns = 2
				}
				if len(kept) != 6 || view.Turns != turns || len(view.Threads) != 0 || strictMessages(kept[:5]) != nil {
					t.Errorf("%d turns, %d messages and %d more threads are kept:\n%s", view.Turns, len(kept), len(view.Threads), brieflyAll(kept))
				}
			})
		}
	}
}

// parallelUpstream answers a user with two calls of its tool, whose pieces come
// interleaved in a stream, and the results with a text.
func parallelUpstream(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Stream   bool
		Messages []chatSeen
	}
	body, _ := io.ReadAll(r.Body)
	err := json.Unmarshal(body, &q)
	if err == nil {
		err = strictMessages(q.Messages)
	}
	if err != nil {
		answerJSON(400, `{"error":{"message":`+quoted(err.Error())+`,"type":"invalid_request_error"}}`)(w, r)
		return
	}
	n := strconv.Itoa(len(q.Messages))
	call := func(index, entry string) string {
		return chunkOf(`{"tool_calls":[{"index":` + index + `,` + entry + `}]}`)
	}
	begin := func(index string) string {
		return call(index, `"id":"call`+n+index+`","type":"function","function":{"name":"weather","arguments":"{\"city\":"}`)
	}
	var answer assembler
	pieces := []string{begin("0"), begin("1"), call("0", `"function":{"arguments":"\"Oslo\"}"}`), call("1", `"function":{"arguments":"\"Rome\"}"}`), finishOf("tool_calls")}
	if q.Messages[len(q.Messages)-1].Role == "tool" {
		pieces = []string{textChunk("both"), finishChunk}
	}
	if q.Stream {
		answerStream(append(pieces, doneEvent)...)(w, r)
		return
	}
	for _, p := range pieces {
		answer.add([]byte(strings.TrimPrefix(strings.TrimSpace(p), "data: ")))
	}
	answerJSON(200, string(answer.completion()))(w, r)
}

// Two calls at once, made to a client of one dialect and answered by one of
// another, stay two, each with its own arguments and its own result (AC-2).
func TestRoundTripParallel(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, a := range speakers {
			for _, b := range speakers {
				t.Run(fmt.Sprintf("%s to %s, stream %t", a.name, b.name, stream), func(t *testing.T) {
					t.Parallel()
					g := newGateway(t, parallelUpstream)
					said := g.say(a, stream, []string{a.user("weather in both")}, "X-Session-Id: trip")
					if len(said.calls) != 2 {
						t.Fatalf("%s heard %+v", a.name, said)
					}
					for i, want := range []string{`{"city":"Oslo"}`, `{"city":"Rome"}`} {
						if got := said.calls[i]; got.Function.Arguments != want || got.ID != "call1"+strconv.Itoa(i) {
							t.Errorf("call %d is %+v, want %s", i, got, want)
						}
					}
					results := []string{b.result(said.calls[0], "cold"), b.result(said.calls[1], "warm")}
					if said = g.say(b, stream, results, "X-Session-Id: trip"); said.text != "both" {
						t.Errorf("%s heard %+v", b.name, said)
					}
					var sent struct{ Messages []chatSeen }
					parse(t, g.last().Body, &sent)
					if m := sent.Messages; len(m) != 4 || m[2].ToolCallID != "call10" || m[3].ToolCallID != "call11" ||
						!strings.Contains(fmt.Sprint(m[2].Content), "cold") || !strings.Contains(fmt.Sprint(m[3].Content), "warm") {
						t.Errorf("the upstream got\n%s", brieflyAll(sent.Messages))
					}
				})
			}
		}
	}
}
