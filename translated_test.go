package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// However an upstream frames its answer, a client of any dialect reads the same
// (dialects E.3).
func TestUpstreamForms(t *testing.T) {
	accent := textChunk("é")
	cut := strings.Index(accent, "é") + 1 // in the middle of the character
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"E-47 no end marker", answerStream(textChunk("A"), finishChunk), "A"},
		{"E-48 more after the end", answerStream(textChunk("A"), finishChunk, doneEvent, textChunk("B")), "A"},
		{"E-49 comments and other lines", answerStream(": PROCESSING\n\n", "id: 1\nretry: 5\n"+textChunk("A"), "\n\n", finishChunk, doneEvent), "A"},
		{"E-50 CRLF", answerStream(strings.ReplaceAll(textChunk("A")+finishChunk+doneEvent, "\n", "\r\n")), "A"},
		{"E-50 no space", answerStream(strings.ReplaceAll(textChunk("A")+finishChunk+doneEvent, "data: ", "data:")), "A"},
		{"E-51 no last blank line", answerStream(textChunk("A"), strings.TrimRight(finishChunk, "\n")), "A"},
		{"E-52 byte order mark", answerStream("\ufeff"+textChunk("A"), finishChunk, doneEvent), "A"},
		{"E-53 a character cut in two", answerStream(accent[:cut], accent[cut:], finishChunk, doneEvent), "é"},
		{"E-53 a surrogate pair cut in two", answerStream(chunkOf(`{"content":"\ud83d"}`), chunkOf(`{"content":"\ude00"}`), finishChunk, doneEvent), "😀"},
		{"E-54 a large event", answerStream(textChunk(strings.Repeat("x", 5<<20)), finishChunk, doneEvent), strings.Repeat("x", 5<<20)},
		{"E-55 JSON for a stream", answerJSON(200, completion("A")), "A"},
		{"E-57 no type", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, textChunk("A")+finishChunk+doneEvent)
		}, "A"},
		{"E-11 empty deltas", answerStream(chunkOf(`{"role":"assistant","content":null,"tool_calls":null}`), chunkOf(`null`), `data: {"choices":null}`+"\n\n", textChunk("A"), finishChunk, doneEvent), "A"},
		{"E-45 Azure's first chunk", answerStream(`data: {"id":"","model":"","choices":[],"prompt_filter_results":[]}`+"\n\n", textChunk("A"), finishChunk, doneEvent), "A"},
		{"F-14 one event of nonsense", answerStream(textChunk("A"), "data: {oops\n\n", textChunk("B"), finishChunk, doneEvent), "AB"},
		{"E-22 thoughts in tags", answerStream(textChunk("<th"), textChunk("ink>hm</thi"), textChunk("nk>\nA"), finishChunk, doneEvent), "A"},
	} {
		for _, c := range vendorClients {
			t.Run(tt.name+", "+c.name, func(t *testing.T) {
				g := newGateway(t, tt.answer)
				got := g.ok(c.streamPath, c.streamBody)
				if said := c.check(t, got); said.failed || said.text != tt.want {
					t.Errorf("the client read %.200q, failed %t", said.text, said.failed)
				}
			})
		}
	}
}

func TestTwoEventsOfNonsense(t *testing.T) {
	for _, c := range vendorClients {
		for name, end := range map[string]string{"two": "data: {oops\n\ndata: {oops\n\n" + finishChunk + doneEvent, "the last": "data: {oops\n\n"} {
			g := newGateway(t, answerStream(textChunk("A"), end))
			if said := c.check(t, g.ok(c.streamPath, c.streamBody)); !said.failed {
				t.Errorf("%s, %s: the client read %+v", c.name, name, said)
			}
		}
	}
}

// An answer that was not to be a stream is one JSON value, whatever the upstream
// sent (E-56).
func TestStreamForWhole(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("A"), textChunk("B"), finishChunk, usageEvent, doneEvent))
	wants(t, g.ok(messagesPath, anthropicHi), map[string]string{"content.0.text": `"AB"`, "stop_reason": `"end_turn"`, "usage.output_tokens": "4"})
	wants(t, g.ok(geminiPath, geminiHi), map[string]string{"candidates.0.content.parts.0.text": `"AB"`, "candidates.0.finishReason": `"STOP"`})
	wants(t, g.ok(responsesPath, responsesHi), map[string]string{"output.0.content.0.text": `"AB"`, "status": `"completed"`})
}

// Usage that the upstream does not tell is a guess, and the answer says so
// (E-43).
func TestUsageIsEstimated(t *testing.T) {
	for _, usage := range []string{``, `,"usage":null`, `,"usage":{}`, `,"usage":{"prompt_tokens":0,"completion_tokens":3,"total_tokens":3}`} {
		g := newGateway(t, answerJSON(200, `{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"A few words"},"finish_reason":"stop"}]`+usage+`}`))
		for path, body := range map[string]string{messagesPath: anthropicHi, geminiPath: geminiHi, responsesPath: responsesHi} {
			res, got := g.post(path, body)
			if res.Header.Get("X-APIProxy-Usage") != "estimate" || strings.Contains(got, `"input_tokens":0`) || strings.Contains(got, `"promptTokenCount":0`) {
				t.Errorf("%s, %s: %v %s", path, usage, res.Header, got)
			}
		}
	}
}

// A refusal reaches each client in its own way (B-83, C-84, D-82).
func TestRefusal(t *testing.T) {
	g := newGateway(t, messageAnswer(`{"role":"assistant","content":null,"refusal":"no"}`, "stop"))
	wants(t, g.ok(messagesPath, anthropicHi), map[string]string{"content.0.text": `"no"`, "stop_reason": `"refusal"`})
	wants(t, g.ok(geminiPath, geminiHi), map[string]string{"candidates.0.content.parts.0.text": `"no"`, "candidates.0.finishReason": `"SAFETY"`})
	wants(t, g.ok(responsesPath, responsesHi), map[string]string{"output.0.content.0.type": `"refusal"`, "output.0.content.0.refusal": `"no"`})
}

// Two answers go to Gemini alone; they may come interleaved (B-107, E-19).
func TestTwoChoices(t *testing.T) {
	choice := func(index int, text string) string {
		return strings.Replace(textChunk(text), `"index":0`, fmt.Sprintf(`"index":%d`, index), 1)
	}
	g := newGateway(t, answerStream(choice(0, "a"), choice(1, "x"), choice(0, "b"), choice(1, "y"), finishChunk, strings.Replace(finishChunk, `"index":0`, `"index":1`, 1), doneEvent))
	got := g.ok(geminiSSE, strings.Replace(geminiHi, `{"contents"`, `{"generationConfig":{"candidateCount":2},"contents"`, 1))
	if read := checkGeminiStream(t, true, []byte(got)); read.text[0] != "ab" || read.text[1] != "xy" {
		t.Errorf("the client read %v", read.text)
	}
	wants(t, g.last().Body, map[string]string{"n": "2"})
}

// A finish reason that stands for a failure is one (F-13).
func TestFailedFinish(t *testing.T) {
	for _, c := range vendorClients {
		g := newGateway(t, answerStream(textChunk("A"), finishOf("error"), doneEvent))
		if said := c.check(t, g.ok(c.streamPath, c.streamBody)); !said.failed || said.text != "A" {
			t.Errorf("%s: the client read %+v", c.name, said)
		}
		g = newGateway(t, messageAnswer(`{"role":"assistant","content":""}`, "insufficient_system_resource"))
		if res, got := g.post(c.path, c.body); res.StatusCode < 500 {
			t.Errorf("%s: %d %s", c.name, res.StatusCode, got)
		}
	}
}

// Headers tell what was done to a request, and how an event stream is to be
// handled (dialects 0-7).
func TestConvertedHeaders(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("A"), finishChunk, doneEvent))
	for _, c := range vendorClients {
		res, _ := g.post(c.streamPath, c.streamBody)
		dialect, _, _ := strings.Cut(c.name, " ")
		h := res.Header
		if h.Get("X-APIProxy-Fidelity") != "converted" || h.Get("X-APIProxy-Dialect") != dialect {
			t.Errorf("%s: headers %v", c.name, h)
		}
		if h.Get("Cache-Control") != "no-cache" || h.Get("X-Accel-Buffering") != "no" || h.Get("Content-Length") != "" {
			t.Errorf("%s: headers %v", c.name, h)
		}
	}
	res, _ := g.post(messagesPath, strings.Replace(anthropicHi, `{`, `{"context_management":{},"speed_up":1,`, 1))
	if got := res.Header.Get("X-APIProxy-Dropped"); !strings.Contains(got, "speed_up") {
		t.Errorf("dropped %q", got)
	}
}

// 0-6: a read never ends within an event that it could have left out.
func TestWholeEvents(t *testing.T) {
	for _, tt := range []struct {
		out  string
		most int
		want string
	}{
		{"data: a\n\ndata: b\n\n", 18, "data: a\n\ndata: b\n\n"},
		{"data: a\n\ndata: b\n\n", 17, "data: a\n\n"},
		{"data: a\n\ndata: b\n\n", 9, "data: a\n\n"},
		{"data: a\n\ndata: b\n\n", 8, "data: a\n"},
		{"data: a\r\n\r\ndata: b\r\n\r\n", 15, "data: a\r\n\r\n"},
		{"[{},\r\n{\"a\":1}", 8, "[{},\r\n"},
		{"", 5, ""},
	} {
		if got := string(wholeEvents([]byte(tt.out), tt.most)); got != tt.want {
			t.Errorf("of %q, %d bytes take %q, want %q", tt.out, tt.most, got, tt.want)
		}
	}
}
