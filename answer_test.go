package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// answerAs is an upstream that sends a body under any type; "" sends none.
func answerAs(contentType string, pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = nil
		if contentType != "" {
			w.Header().Set("Content-Type", contentType)
		}
		for _, p := range pieces {
			io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	}
}

const plainRequest = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`

// A whole answer is with the client byte for byte.
func TestAnswerIsExact(t *testing.T) {
	for name, body := range map[string]string{
		"plain":         completion("hi"),
		"ugly JSON":     " {\r\n\t\"choices\" : [ {\"message\":{\"content\":\"\\u00e9\\/\\ud800\"},\"x\":1,\"x\":2} ],\"seed\":12345678901234567890,\"f\":1e2 }\n",
		"no finish":     `{"choices":[{"message":{"content":"a"},"finish_reason":null}]}`,
		"an empty text": `{"id":1,"created":"now","choices":[{}],"error":null}`,
		"blank lines first, as from an upstream that keeps a request waiting": strings.Repeat("\n", 5000) + completion("hi"),
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, answerAs("application/json; charset=utf-8", body))
			res, got := g.chat(plainRequest)
			if res.StatusCode != 200 || got != body {
				t.Errorf("status %d, the client got %q, want %q", res.StatusCode, got, body)
			}
			if h := res.Header; h.Get("Content-Type") != "application/json; charset=utf-8" || res.ContentLength != int64(len(body)) {
				t.Errorf("length %d, headers %v", res.ContentLength, h)
			}
		})
	}
}

// The client gets the form that it asked for, whichever the upstream's is and
// whatever it is called (dialects E-52, E-55 to E-59).
func TestAnswerForm(t *testing.T) {
	stream := textChunk("he") + textChunk("y") + finishChunk
	lines := strings.NewReplacer("data: ", "", "\n\n", "\n").Replace(stream)
	for _, tt := range []struct {
		name, contentType string
		pieces            []string
	}{
		{"JSON", "application/json", []string{completion("hey")}},
		{"JSON as text", "text/plain", []string{completion("hey")}},
		{"JSON of no type", "", []string{completion("hey")}},
		{"JSON as bytes", "application/octet-stream", []string{" \n", completion("hey")}},
		{"JSON after a byte order mark", "application/json", []string{"\xef", "\xbb\xbf", completion("hey")}},
		{"JSON called HTML", "text/html", []string{completion("hey")}},
		{"stream", "text/event-stream", []string{stream, doneEvent}},
		{"stream of another case", "Text/Event-Stream; charset=utf-8", []string{stream, doneEvent}},
		{"stream without [DONE]", "text/event-stream", []string{stream}},
		{"stream called JSON", "application/json", []string{stream, doneEvent}},
		{"stream of no type, byte by byte", "", bytesOf(stream + doneEvent)},
		{"stream as text that begins with a comment", "text/plain", []string{": hi\n\n" + stream + doneEvent}},
		{"stream as text that begins with an event", "text/plain", []string{"event: x\n" + stream + doneEvent}},
		{"stream as text that begins with an id", "text/plain", []string{"id: 1\n" + stream + doneEvent}},
		{"stream as text that begins with a byte order mark", "text/plain", []string{"\ufeff" + stream + doneEvent}},
		{"stream with CRLF", "text/event-stream", []string{strings.ReplaceAll(stream+doneEvent, "\n", "\r\n")}},
		{"bare JSON lines", "application/x-ndjson", []string{lines}},
		{"bare JSON lines in a stream", "text/event-stream", []string{lines}},
		{"one event that is no JSON", "text/event-stream", []string{"data: {oops\n\n" + stream + doneEvent}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerAs(tt.contentType, tt.pieces...))
			res, got := g.chat(plainRequest)
			if ct := res.Header.Get("Content-Type"); res.StatusCode != 200 || strings.HasPrefix(tt.name, "stream") && ct != "application/json" {
				t.Errorf("status %d, headers %v", res.StatusCode, res.Header)
			}
			if m := messageOf(got, 0); text(member(m, "content")) != "hey" || text(member([]byte(got), "object")) != "chat.completion" || res.ContentLength != int64(len(got)) {
				t.Errorf("without a stream the client got %s", got)
			}
			if tt.name == "bare JSON lines in a stream" {
				return // handed on as it is
			}
			res, got = g.chat(streamRequest)
			var a assembler
			events := eventsOf(got)
			for _, e := range events {
				a.add([]byte(e[strings.Index(e, "|")+1:]))
			}
			if m := messageOf(string(a.completion()), 0); text(member(m, "content")) != "hey" || !a.finished() {
				t.Errorf("as a stream the client got %q", got)
			}
			h := res.Header
			if !isEventStream(h) || h.Get("Cache-Control") != "no-cache" || h.Get("X-Accel-Buffering") != "no" || h.Get("Content-Length") != "" {
				t.Errorf("headers %v", h)
			}
			if done := strings.Count(got, "[DONE]"); done != 1 && !strings.Contains(tt.name, "without [DONE]") {
				t.Errorf("[DONE] is there %d times in %q", done, got)
			}
		})
	}
}

// Usage is in a split answer only if the client asked for it; in a gathered one
// it is what the upstream told.
func TestAnswerUsage(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("hi")))
	if _, got := g.chat(streamRequest); strings.Contains(got, "usage") {
		t.Errorf("nobody asked for usage: %q", got)
	}
	_, got := g.chat(strings.Replace(streamRequest, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1))
	events := eventsOf(got)
	if len(events) != 4 {
		t.Fatalf("the client got %q", got)
	}
	last := []byte(events[2][1:])
	wantJSON(t, string(member(last, "choices")), `[]`)
	wantJSON(t, string(member(last, "usage")), `{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}`)
	for _, line := range g.logLines(2) {
		if line["prompt_tokens"] != 3.0 {
			t.Errorf("logged %v", line)
		}
	}

	g = newGateway(t, answerStream(textChunk("a"), finishChunk, `data: {"id":"c1","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":1}}`+"\n\n", doneEvent))
	_, got = g.chat(plainRequest)
	wantJSON(t, string(member([]byte(got), "usage")), `{"prompt_tokens":4,"completion_tokens":1}`)
	if line := g.logLine(); line["prompt_tokens"] != 4.0 {
		t.Errorf("logged %v", line)
	}
}

// Calls that came without an id get one, or the client could not answer them.
func TestGatherNamesCalls(t *testing.T) {
	call := `data: {"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"function":{"name":"f","arguments":"{}"}}]}}]}` + "\n\n"
	got, err := gather(strings.NewReader(strings.Replace(call, "%d", "0", 1)+strings.Replace(call, "%d", "1", 1)+finishChunk), func() {})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for c := range elements(member(messageOf(string(got), 0), "tool_calls")) {
		id := text(member(c, "id"))
		if len(id) != 9 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || seen[id] {
			t.Errorf("the id %q", id)
		}
		seen[id] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d calls in %s", len(seen), got)
	}
}

// An answer that is not whole, or makes no sense, is an error with a status of
// its own, to a client that asked for a stream too.
func TestAnswerRefused(t *testing.T) {
	chunk := textChunk("a")
	for _, tt := range []struct {
		name     string
		upstream http.HandlerFunc
		status   int
		code     string
		message  string
	}{
		{"nothing", answerAs("application/json"), 502, "upstream_malformed", "neither JSON nor an event stream"},
		{"no content", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, 502, "upstream_malformed", ""},
		{"blanks", answerAs("application/json", " \n"), 502, "upstream_malformed", ""},
		{"blanks without end", answerAs("", strings.Repeat("\n", maxSniffed+1000)), 502, "upstream_malformed", ""},
		{"a page", answerAs("text/html", "<html><title>Welcome</title></html>"), 502, "upstream_malformed", ""},
		{"a word that begins like a stream", answerAs("text/plain", "error: no"), 502, "upstream_malformed", ""},
		{"a word that begins like data", answerAs("text/plain", "data"), 502, "upstream_malformed", ""},
		{"a number", answerAs("application/json", "12"), 502, "upstream_malformed", ""},
		{"cut JSON of full length", answerAs("application/json", `{"choices":[{"message":`), 502, "upstream_malformed", "not valid JSON"},
		{"JSON that is not UTF-8", answerAs("application/json", "{\"choices\":[\"\xff\"]}"), 502, "upstream_malformed", "not valid JSON"},
		{"JSON of something else", answerAs("application/json", `{"hello":1}`), 502, "upstream_malformed", "neither choices nor an error"},
		{"choices that are no list", answerAs("application/json", `{"choices":{}}`), 502, "upstream_malformed", "neither choices nor an error"},
		{"no choices", answerAs("application/json", `{"id":"c","choices":[ ]}`), 502, "upstream_malformed", "no choices"},
		{"a list", answerAs("application/json", `[]`), 502, "upstream_malformed", ""},
		{"fewer bytes than declared", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			answerJSON(200, completion("hi"))(w, r)
		}, 502, "upstream_incomplete", "broke off"},
		{"a cut", func(w http.ResponseWriter, r *http.Request) {
			answerAs("application/json", completion("hi")[:40])(w, r)
			panic(http.ErrAbortHandler)
		}, 502, "upstream_incomplete", "broke off"},
		{"a cut after whole JSON", func(w http.ResponseWriter, r *http.Request) {
			answerAs("application/json", completion("hi"))(w, r)
			panic(http.ErrAbortHandler)
		}, 502, "upstream_incomplete", "broke off"},
		{"a cut before anything", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 502, "upstream_incomplete", "broke off"},
		{"compressed in an unknown way", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			answerJSON(200, completion("hi"))(w, r)
		}, 502, "upstream_malformed", "compressed"},
		{"an error (E-60)", answerAs("application/json", `{"error":{"message":"slow","code":429}}`), 429, "rate_limit_exceeded", "slow"},
		{"an error as text", answerAs("application/json", `{"error":"boom"}`), 502, "", "boom"},
		{"an error beside choices", answerAs("application/json", `{"choices":[{"message":{}}],"error":{"message":"boom"}}`), 502, "", "boom"},
		{"an error beside no choices", answerAs("application/json", `{"choices":[],"error":{"message":"boom"}}`), 502, "", "boom"},
		{"an error in a list", answerAs("application/json", `[{"error":{"message":"boom","type":"invalid_request_error"}}]`), 400, "", "boom"},
		{"an error as an object", answerAs("application/json", `{"object":"error","message":"busy","type":"overloaded_error"}`), 503, "server_is_overloaded", "busy"},
		{"a detail", answerAs("application/json", `{"detail":"boom"}`), 502, "", "boom"},
		{"a message and a code", answerAs("application/json", `{"message":"boom","code":400}`), 400, "", "boom"},

		// What follows is a stream, to a client that did not ask for one.
		{"a stream that ends", answerStream(chunk), 502, "upstream_stream_interrupted", "broke off"},
		{"a stream that is cut", func(w http.ResponseWriter, r *http.Request) {
			answerStream(chunk, finishChunk)(w, r)
			panic(http.ErrAbortHandler)
		}, 502, "upstream_incomplete", "broke off"},
		{"a stream without choices", answerStream(": hi\n\n", doneEvent), 502, "upstream_malformed", "no choices"},
		{"a stream with an error", answerStream(chunk, `data: {"error":{"message":"boom","code":503}}`+"\n\n"), 503, "", "boom"},
		{"a stream with an error event", answerStream("event: error\ndata: {\"message\":\"boom\"}\n\n"), 502, "", "boom"},
		{"a stream whose last event makes no sense", answerStream(chunk, finishChunk, "data: {oops\n\n", doneEvent), 502, "upstream_malformed", "not JSON"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream)
			requests := []string{plainRequest, streamRequest}
			if strings.HasPrefix(tt.name, "a stream") {
				requests = requests[:1]
			}
			for _, request := range requests {
				res, body := g.chat(request)
				e := member([]byte(body), "error")
				if res.StatusCode != tt.status || res.Header.Get("Content-Type") != "application/json" || res.ContentLength != int64(len(body)) {
					t.Errorf("status %d, want %d; headers %v; %s", res.StatusCode, tt.status, res.Header, body)
				}
				if code := text(member(e, "code")); tt.code != "" && code != tt.code {
					t.Errorf("code %q, want %q, in %s", code, tt.code, body)
				}
				if !strings.Contains(text(member(e, "message")), tt.message) || text(member(e, "message")) == "" {
					t.Errorf("%s has not the message %q", body, tt.message)
				}
				if strings.Contains(body, "hi") && strings.Contains(body, "choices") {
					t.Errorf("part of the answer came: %s", body)
				}
			}
			for _, line := range g.logLines(len(requests)) {
				if line["outcome"] != "upstream_error" {
					t.Errorf("logged %v", line)
				}
			}
		})
	}
}

// An upstream that compresses though nobody asked is understood (E-58).
func TestAnswerCompressed(t *testing.T) {
	zipped := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Type", contentType)
			z := gzip.NewWriter(w)
			io.WriteString(z, body)
			z.Close()
		}
	}
	g := newGateway(t, zipped("application/json", completion("hi")))
	if res, got := g.chat(plainRequest, "Accept-Encoding: gzip, br"); got != completion("hi") || res.Header.Get("Content-Encoding") != "" {
		t.Errorf("headers %v, the client got %q", res.Header, got)
	}
	if got := g.last().Header.Get("Accept-Encoding"); got != "" {
		t.Errorf("the upstream was asked for Accept-Encoding %q", got)
	}
	stream := textChunk("a") + finishChunk + doneEvent
	g = newGateway(t, zipped("text/event-stream", stream))
	if _, got := g.chat(streamRequest); got != stream {
		t.Errorf("the client got %q", got)
	}
}

// A stream that is gathered ends at [DONE] too.
func TestGatherHeldAfterDone(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream(textChunk("hi"), finishChunk, doneEvent, ": bye\n\n")(w, r)
		<-r.Context().Done()
	})
	start := time.Now()
	res, got := g.chat(plainRequest)
	if took := time.Since(start); took > 5*time.Second || res.StatusCode != 200 || text(member(messageOf(got, 0), "content")) != "hi" {
		t.Errorf("after %v status %d and %s", took, res.StatusCode, got)
	}
	if line := g.logLine(); line["outcome"] != "ok" {
		t.Errorf("logged %v", line)
	}
}

// A connection is used again after a stream was gathered, as after any other
// answer.
func TestGatherKeepsConnection(t *testing.T) {
	var addrs []string
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		addrs = append(addrs, r.RemoteAddr)
		answerStream(textChunk("hi"), finishChunk, doneEvent)(w, r)
	})
	for range 3 {
		g.chat(plainRequest)
		g.chat(streamRequest)
	}
	for _, a := range addrs {
		if a != addrs[0] {
			t.Fatalf("six requests came over %q", addrs)
		}
	}
}

func TestGatherBounds(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(textChunk("a")), endlessReader(textChunk(strings.Repeat("x", 20_000))))
	_, err := gather(endless, func() {})
	var e *apiError
	if !errors.As(err, &e) || e.Code != "upstream_too_long" {
		t.Errorf("an endless stream gave %v", err)
	}
	_, err = gather(io.MultiReader(strings.NewReader("data: "), endlessReader(strings.Repeat("x", 1000))), func() {})
	if !errors.As(err, &e) || e.Code != "upstream_too_long" {
		t.Errorf("an endless event gave %v", err)
	}
}

// endlessReader repeats a text without end.
type endlessReader string

func (s endlessReader) Read(p []byte) (int, error) {
	n := 0
	for n+len(s) <= len(p) {
		n += copy(p[n:], s)
	}
	return n, nil
}

func TestAnswerTooLong(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"choices":["`)
		piece := bytes.Repeat([]byte("x"), 1<<20)
		for range maxAnswerBytes>>20 + 1 {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	})
	res, body := g.chat(plainRequest)
	if e := member([]byte(body), "error"); res.StatusCode != 502 || text(member(e, "code")) != "upstream_too_long" {
		t.Errorf("status %d, %.300s", res.StatusCode, body)
	}
}

// Looking at the beginning of a body takes nothing from it.
func TestSniffedBody(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want answerForm
	}{{`{"a":1}`, formJSON}, {" \n[1]", formJSON}, {"data: x", formEvents}, {"\ufeff\nid: x", formEvents}, {"dat", formOther}, {"", formOther}, {"\xef\xbb", formOther}, {"retry", formOther}, {"<html>", formOther}} {
		for how, r := range map[string]io.Reader{
			"whole": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in)), "with its end": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			b := &sniffedBody{src: io.NopCloser(r)}
			form, err := b.form()
			rest, err2 := io.ReadAll(b)
			if form != tt.want || err != nil || err2 != nil || string(rest) != tt.in {
				t.Errorf("%q %s: form %d, want %d (%v, %v); then reads %q", tt.in, how, form, tt.want, err, err2, rest)
			}
		}
	}
}
