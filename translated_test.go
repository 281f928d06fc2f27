package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// However an upstream frames its answer, a client of any dialect reads the same
// (dialects E.3, AC-16).
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
		{"E-53 a text cut into bytes", answerStream(bytesOf(textChunk("漢字 👍🏽 é") + finishChunk + doneEvent)...), "漢字 👍🏽 é"},
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

// An error that an upstream streams under status 200 is one in whatever shape it
// comes, before anything was said and after (E-60).
func TestErrorShapesInStreams(t *testing.T) {
	for _, tt := range []struct {
		shape  string
		status int // in the terms of dialects F-4
	}{
		{`{"error":{"message":"too busy","code":429}}`, 429},
		{`{"object":"error","message":"too busy","code":429}`, 429},
		{`[{"error":{"message":"too busy","code":429,"status":"RESOURCE_EXHAUSTED"}}]`, 429},
		{`{"message":"too busy","code":429}`, 429},
		{`{"detail":"too busy"}`, 502},
		{`{"error":"too busy","choices":[]}`, 502},
	} {
		for _, c := range vendorClients {
			t.Run(c.name+" "+tt.shape, func(t *testing.T) {
				alone := newGateway(t, answerStream("data: "+tt.shape+"\n\n"))
				for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
					res, got := alone.post(ask[0], ask[1])
					want := tt.status
					if strings.HasPrefix(c.name, "gemini") && want == 502 {
						want = 503
					}
					if res.StatusCode != want || !strings.Contains(got, "too busy") {
						t.Errorf("%s: status %d, want %d: %s", ask[0], res.StatusCode, want, got)
					}
				}
				late := newGateway(t, answerStream(textChunk("A"), "data: "+tt.shape+"\n\n"))
				got := late.ok(c.streamPath, c.streamBody)
				if said := c.check(t, got); !said.failed || said.text != "A" || !strings.Contains(got, "too busy") {
					t.Errorf("the client read %+v of\n%s", said, got)
				}
			})
		}
	}
}

// Each event is with the client before the upstream sends the next one (AC-3),
// and a stream may last longer than the upstream had time to begin (AC-17).
func TestTranslatedEventsPassAtOnce(t *testing.T) {
	for _, c := range vendorClients {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			next := make(chan struct{})
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				for _, piece := range []string{"one", "two", "three"} {
					answerStream(textChunk(piece))(w, r)
					<-next
				}
				answerStream(finishChunk, doneEvent)(w, r)
			}, func(cfg *config) { cfg.UpstreamTimeout = 3 * time.Second })
			res := g.do("POST", c.streamPath, c.streamBody)
			var got strings.Builder
			buf := make([]byte, 4096)
			for _, piece := range []string{"one", "two", "three"} {
				for !strings.Contains(got.String(), `"`+piece+`"`) {
					n, err := res.Body.Read(buf)
					got.Write(buf[:n])
					if err != nil {
						t.Fatalf("waiting for %s: %v after %q", piece, err, got.String())
					}
				}
				time.Sleep(1100 * time.Millisecond)
				next <- struct{}{}
			}
			got.WriteString(readAll(t, res))
			if said := c.check(t, got.String()); said.failed || said.text != "onetwothree" {
				t.Errorf("the client read %+v of\n%s", said, got.String())
			}
		})
	}
}

// An event past the bound is an error that says so, and no silence (AC-15).
func TestTranslatedEventTooLong(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream(textChunk("A"), "data: ")(w, r)
		for piece := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
		}
	})
	got := g.ok(messagesPath, anthropicHiStream)
	if seen := checkAnthropicStream(t, []byte(got)); seen.failure != "api_error" || seen.all("text") != "A" || !strings.Contains(got, "32 MiB") {
		t.Errorf("the client read %+v", seen)
	}
}

func TestTwoEventsOfNonsense(t *testing.T) {
	for _, c := range vendorClients {
		for name, end := range map[string]string{"two": "data: {oops\n\ndata: {oops\n\n" + finishChunk + doneEvent, "the last": "data: {oops\n\n"} {
			g := newGateway(t, answerStream(textChunk("A"), end))
			if said := c.check(t, g.ok(c.streamPath, c.streamBody)); !said.failed {
				t.Errorf("%s, %s: the client read %+v", c.name, name, said)
			}
			g.mustLog("is not JSON")
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
	for _, usage := range []string{"null", "{}", `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`, `{"prompt_tokens":0,"completion_tokens":3}`} {
		answer := `{"id":"c1","object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"A few words"},"finish_reason":"stop"}],"usage":` + usage + `}`
		for path, body := range map[string]string{messagesPath: anthropicHi, geminiPath: geminiHi, responsesPath: responsesHi} {
			g := newGateway(t, answerJSON(200, answer))
			res, got := g.post(path, body)
			if res.Header.Get("X-APIProxy-Usage") != "estimate" {
				t.Errorf("%s, usage %s: %v", path, usage, res.Header)
			}
			for _, zero := range []string{`"input_tokens":0`, `"output_tokens":0`, `"promptTokenCount":0`, `"candidatesTokenCount":0`} {
				if strings.Contains(got, zero) {
					t.Errorf("%s, usage %s: %s", path, usage, got)
				}
			}
			if line := g.logLine(); !strings.Contains(usage, ":3") && line["prompt_tokens"] != nil { // AC-13
				t.Errorf("%s, usage %s: logged %v", path, usage, line)
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
}

// What the headers tell of a request, the log line tells too (AC-7).
func TestHeadersAndLogAgree(t *testing.T) {
	for _, tt := range []struct{ path, body, dialect, fidelity, dropped string }{
		{messagesPath, strings.Replace(anthropicHi, `{`, `{"speed_up":1,"slow,down":2,`, 1), "anthropic", "converted", "speed_up,slow_down"},
		{geminiPath, strings.Replace(geminiHi, `{`, `{"speedUp":1,`, 1), "gemini", "converted", "speedUp"},
		{responsesPath, strings.Replace(responsesHi, `{`, `{"speed_up":1,`, 1), "responses", "converted", "speed_up"},
		{"/v1/chat/completions", `{"model":"m","max_tokens":5,"speed_up":1,"system":"s","messages":[{"role":"user","content":"hi"}]}`, "anthropic", "converted", ""},
		{"/v1/chat/completions", `{"model":"m","speed_up":1,"messages":[{"role":"user","content":"hi"}]}`, "openai", "exact", ""},
		{"/v1/chat/completions", `{"model":"fast","messages":[{"role":"user","content":"hi"}]}`, "openai", "spliced", ""},
	} {
		g := newGateway(t, answerJSON(200, completion("ok")), aliased("fast", "slow"))
		res, got := g.post(tt.path, tt.body)
		line := g.logLine()
		for name, want := range map[string]string{"Dialect": tt.dialect, "Fidelity": tt.fidelity, "Dropped": tt.dropped} {
			logged, _ := line[strings.ToLower(name)].(string)
			if h := res.Header.Get("X-APIProxy-" + name); res.StatusCode != 200 || h != want || logged != want {
				t.Errorf("%s %s: the header %s is %q, the log has %q, want %q: %s", tt.path, tt.body, name, h, logged, want, got)
			}
		}
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
