package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

const streamRequest = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`

// A stream is with the client byte for byte, whatever the upstream's bytes are
// and however they are cut.
func TestStreamIsExact(t *testing.T) {
	whole := textChunk("a") + textChunk("日本😀") + finishChunk + doneEvent
	for _, tt := range []struct{ name, stream string }{
		{"plain", whole},
		{"G-23", ": hi\r\n\r\ndata: {\"choices\":[]}\r\n\r\n" + finishChunk},
		{"CRLF", strings.ReplaceAll(whole, "\n", "\r\n")},
		{"CR", strings.ReplaceAll(whole, "\n", "\r")},
		{"comments and blank lines", ": OPENROUTER PROCESSING\n\n\n\n" + textChunk("a") + ":\n: keep-alive\n" + finishChunk + "\n\n" + doneEvent},
		{"odd fields", "id: 1\nretry: 10\nevent: ping\ndata: {}\n\nfoo: bar\n\n" + whole},
		{"data in several lines", "data: {\"choices\":[{\"delta\":\ndata: {\"content\":\"a\"}}]}\n\n" + finishChunk + doneEvent},
		{"no space after the colon", strings.ReplaceAll(whole, "data: ", "data:")},
		{"ugly JSON", "data:  {\"x\":1e2, \"x\":2,\"choices\":[{\"delta\":{\"content\":\"\\ud83d\"}}]}\n\ndata: {\"choices\":[{\"delta\":{\"content\":\"\\ude00\"},\"finish_reason\":\"stop\"}]}\n\n" + doneEvent},
		{"JSON that is none", "data: {oops\n\n" + whole},
		{"a finish and no [DONE]", textChunk("a") + finishChunk},
		{"no blank line at the end", textChunk("a") + strings.TrimSpace(finishChunk)},
		{"[DONE] and no line end", textChunk("a") + finishChunk + "data: [DONE]"},
		{"[DONE] without a finish", textChunk("a") + doneEvent},
		{"[DONE] and more", whole + ": bye\n\n"},
		{"a byte order mark", "\ufeff" + whole},
		{"a long line", textChunk(strings.Repeat("x", 3*maxHeldLine)) + finishChunk + doneEvent},
		{"empty choices, usage at the end", "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n" + finishChunk + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n" + doneEvent},
	} {
		pieces := map[string][]string{"whole": {tt.stream}}
		if len(tt.stream) < 1000 {
			pieces["byte by byte"] = bytesOf(tt.stream)
		} else {
			pieces["in two"] = []string{tt.stream[:len(tt.stream)/2], tt.stream[len(tt.stream)/2:]}
		}
		for how, p := range pieces {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				g := newGateway(t, answerStream(p...))
				res, got := g.chat(streamRequest)
				if got != tt.stream {
					t.Errorf("the client got\n%q, want\n%q", got, tt.stream)
				}
				h := res.Header
				if res.StatusCode != 200 || !strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") || h.Get("Cache-Control") != "no-cache" ||
					h.Get("X-Accel-Buffering") != "no" || h.Get("Content-Length") != "" || h.Get("Content-Encoding") != "" {
					t.Errorf("status %d, headers %v", res.StatusCode, h)
				}
				if line := g.logLine(); line["outcome"] != "ok" {
					t.Errorf("logged %v", line)
				}
			})
		}
	}
}

// Each event is with the client before the upstream sends the next.
func TestStreamPassesAtOnce(t *testing.T) {
	next := make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range []string{": waiting\n\n", textChunk("a"), textChunk("b"), finishChunk, doneEvent} {
			io.WriteString(w, e)
			w.(http.Flusher).Flush()
			<-next
		}
	})
	res := g.do("POST", "/v1/chat/completions", streamRequest)
	buf := make([]byte, 4096)
	for _, want := range []string{": waiting\n\n", textChunk("a"), textChunk("b"), finishChunk, doneEvent} {
		if n, err := io.ReadFull(res.Body, buf[:len(want)]); err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
		}
		next <- struct{}{}
	}
	if rest := readAll(t, res); rest != "" {
		t.Errorf("and then %q", rest)
	}
}

func TestStreamHugeEvents(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		ok   bool
	}{{"10 MB", 10 << 20, true}, {"more than is read", maxEventBytes + 1<<20, false}} {
		t.Run(tt.name, func(t *testing.T) {
			event := textChunk(strings.Repeat("x", tt.size))
			g := newGateway(t, answerStream(event, finishChunk, doneEvent))
			_, got := g.chat(streamRequest)
			if tt.ok {
				if got != event+finishChunk+doneEvent {
					t.Errorf("%d bytes came, not the %d that were sent, or others", len(got), len(event+finishChunk+doneEvent))
				}
				return
			}
			if len(got) > maxEventBytes+1<<20 || !strings.Contains(got[len(got)-500:], `"code":"upstream_too_long"`) || strings.Contains(got, "[DONE]") {
				t.Errorf("%d bytes came, which end in %q", len(got), got[max(0, len(got)-500):])
			}
		})
	}
}

// A stream that breaks off ends in an error that clients understand, after whole
// events, without [DONE].
func TestStreamBreaksOff(t *testing.T) {
	a, b := textChunk("a"), textChunk("b")
	for _, tt := range []struct {
		name, stream string
		want         string // before the error
		cut          bool   // the connection is cut, and does not end
	}{
		{"after an event", a + b, a + b, false},
		{"after an event, by a cut", a + b, a + b, true},
		{"before anything", "", "", false},
		{"before anything, by a cut", "", "", true},
		{"in a line", a + b[:20], a, false},
		{"in a line, by a cut", a + b[:20], a, true},
		{"in an event", a + b[:len(b)-1], a + b, false},
		{"in an event, at CRLF", strings.ReplaceAll(a, "\n", "\r\n") + b[:len(b)-2] + "\r\n", strings.ReplaceAll(a, "\n", "\r\n") + b[:len(b)-2] + "\r\n\n", true},
		{"after a comment", a + ": x\n", a + ": x\n\n", true},
		{"in [DONE]", a + "data: [DO", a, false},
		{"after a finish, by a cut", a + finishChunk, a + finishChunk, true},
	} {
		for _, how := range []string{"whole", "byte by byte"} {
			t.Run(tt.name+" "+how, func(t *testing.T) {
				pieces := []string{tt.stream}
				if how != "whole" {
					pieces = bytesOf(tt.stream)
				}
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					answerStream(pieces...)(w, r)
					w.(http.Flusher).Flush()
					if tt.cut {
						panic(http.ErrAbortHandler)
					}
				})
				res, got := g.chat(streamRequest)
				rest, ok := strings.CutPrefix(got, tt.want)
				data, frame := strings.CutPrefix(rest, "data: ")
				e := member([]byte(strings.TrimSpace(data)), "error")
				if res.StatusCode != 200 || !ok || !frame || !strings.HasSuffix(got, "\n\n") || text(member(e, "code")) != "upstream_stream_interrupted" || text(member(e, "type")) != "upstream_error" {
					t.Errorf("status %d: the client got %q, want %q and an error", res.StatusCode, got, tt.want)
				}
				if strings.Contains(got, "[DONE]") {
					t.Errorf("the end is pretended: %q", got)
				}
				if line := g.logLine(); line["outcome"] != "incomplete" || line["status"] != 200.0 || line["error"] == nil {
					t.Errorf("logged %v", line)
				}
			})
		}
	}
}

// A line so long that its beginning was handed on can't be taken back; the error
// is still an event of its own.
func TestStreamBreaksOffInALongLine(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("a")+textChunk(strings.Repeat("x", 3*maxHeldLine))[:2*maxHeldLine]))
	_, got := g.chat(streamRequest)
	events := eventsOf(got)
	if last := events[len(events)-1]; !strings.Contains(last, "upstream_stream_interrupted") || checkJSON([]byte(last[1:])) != nil {
		t.Errorf("the last of %d events is %.200q", len(events), last)
	}
}

// What an upstream itself says of its failure is forwarded as it came.
func TestStreamErrorInside(t *testing.T) {
	for _, stream := range []string{
		textChunk("a") + "data: {\"error\":{\"message\":\"boom\",\"code\":500}}\n\n",
		textChunk("a") + "data: {\"error\":{\"message\":\"boom\"},\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n" + doneEvent,
		"event: error\ndata: {\"message\":\"boom\"}\n\n",
		"data: {\"error\":\"boom\"}\n\n" + doneEvent,
		textChunk("a") + "event: error\ndata: {\"message\":\"boom\"}",
	} {
		g := newGateway(t, answerStream(stream))
		if res, got := g.chat(streamRequest); got != stream || res.StatusCode != 200 {
			t.Errorf("status %d, the client got %q, want %q", res.StatusCode, got, stream)
		}
		if line := g.logLine(); line["outcome"] != "upstream_error" {
			t.Errorf("after %q logged %v", stream, line)
		}
	}
}

// Clients end at [DONE]; an upstream that holds the connection after it does not
// hold them.
func TestStreamHeldAfterDone(t *testing.T) {
	for name, end := range map[string]string{"whole": doneEvent, "without the blank line": "data: [DONE]\n"} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{})
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				answerStream(textChunk("a")+finishChunk, end)(w, r)
				<-r.Context().Done()
				close(gone)
			})
			start := time.Now()
			_, got := g.chat(streamRequest)
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("the answer ended after %v", took)
			}
			if want := textChunk("a") + finishChunk + end; got != want {
				t.Errorf("the client got %q, want %q", got, want)
			}
			<-gone
			if line := g.logLine(); line["outcome"] != "ok" {
				t.Errorf("logged %v", line)
			}
		})
	}
}

// A client that leaves at [DONE], as the SDKs do, has left nothing early.
func TestStreamClientLeavesAtDone(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream(textChunk("a"), finishChunk, doneEvent)(w, r)
		<-r.Context().Done()
	})
	conn := g.dial("POST /v1/chat/completions", streamRequest)
	readUntil(t, conn, "[DONE]\n\n")
	conn.Close()
	if line := g.logLine(); line["outcome"] != "ok" {
		t.Errorf("logged %v", line)
	}
}

func TestStreamIdleTimeout(t *testing.T) {
	t.Run("silence", func(t *testing.T) {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			answerStream(textChunk("a"))(w, r)
			<-r.Context().Done()
		}, func(c *config) { c.UpstreamIdleTimeout = 50 * time.Millisecond })
		_, got := g.chat(streamRequest)
		rest, ok := strings.CutPrefix(got, textChunk("a")+"data: ")
		if e := member([]byte(strings.TrimSpace(rest)), "error"); !ok || text(member(e, "code")) != "upstream_timeout" || text(member(e, "type")) != "timeout" {
			t.Errorf("the client got %q", got)
		}
		if line := g.logLine(); line["outcome"] != "incomplete" {
			t.Errorf("logged %v", line)
		}
	})
	// A long answer is not cut: any byte counts, and comments are bytes (F-12).
	t.Run("comments", func(t *testing.T) {
		var stream []string
		for range 20 {
			stream = append(stream, ": working\n\n")
		}
		stream = append(stream, finishChunk, doneEvent)
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			for _, s := range stream {
				answerStream(s)(w, r)
				time.Sleep(20 * time.Millisecond)
			}
		}, func(c *config) {
			c.UpstreamIdleTimeout, c.UpstreamTimeout = 300*time.Millisecond, 300*time.Millisecond
		})
		if _, got := g.chat(streamRequest); got != strings.Join(stream, "") {
			t.Errorf("the client got %q", got)
		}
	})
}

// A client that does not read is no silence of the upstream's.
func TestIdleReaderCountsOnlyWaiting(t *testing.T) {
	src, feed := io.Pipe()
	gaveUp := make(chan struct{})
	r := &idleReader{src: src, limit: 30 * time.Millisecond, began: time.Now(), giveUp: func() { close(gaveUp); feed.CloseWithError(errUpstreamSilent) }}
	r.mu.Lock()
	r.timer = time.AfterFunc(r.limit, r.check)
	r.mu.Unlock()
	defer r.Close()
	go feed.Write([]byte("a"))
	if _, err := r.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	select {
	case <-gaveUp:
		t.Fatal("given up while nobody waited for the upstream")
	default:
	}
	if _, err := r.Read(make([]byte, 1)); err != errUpstreamSilent {
		t.Errorf("a read that nobody answers ends with %v", err)
	}
}

// Leaving cancels the upstream, wherever the request is.
func TestClientLeaves(t *testing.T) {
	for _, tt := range []struct {
		name, path, body string
		answer           string // what the upstream sends before it waits; "" = not even headers
		stream           bool
	}{
		{"before the headers", "/v1/chat/completions", streamRequest, "", true},
		{"before the headers, no stream", "/v1/chat/completions", `{"messages":[]}`, "", false},
		{"before the first token", "/v1/chat/completions", streamRequest, ": wait\n\n", true},
		{"in the middle of a stream", "/v1/chat/completions", streamRequest, textChunk("a"), true},
		{"in the middle of an answer", "/v1/chat/completions", `{"messages":[]}`, `{"choices":[`, false},
		{"in the middle of a stream to be gathered", "/v1/chat/completions", `{"messages":[]}`, textChunk("a"), true},
		{"on a forwarded path, before the headers", "/v1/embeddings", `{"input":"x"}`, "", false},
		{"on a forwarded path, in the answer", "/v1/embeddings", `{"input":"x"}`, `{"data":[`, false},
		{"on a forwarded path, in a stream", "/v1/completions", `{"prompt":"x","stream":true}`, "data: {}\n\n", true},
	} {
		for _, ping := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(tt.name, ", ping ", ping), func(t *testing.T) {
				arrived, cancelled := make(chan struct{}), make(chan struct{})
				g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
					if tt.answer != "" {
						w.Header().Set("Content-Type", map[bool]string{true: "text/event-stream", false: "application/json"}[tt.stream])
						io.WriteString(w, tt.answer)
						w.(http.Flusher).Flush()
					}
					close(arrived)
					<-r.Context().Done()
					close(cancelled)
				}, func(c *config) { c.StreamPing.PassThrough = ping })
				conn := g.dial("POST "+tt.path, tt.body)
				<-arrived
				if tt.stream && strings.Contains(tt.body, "stream") && tt.answer != "" {
					readUntil(t, conn, tt.answer)
				}
				conn.Close()
				select {
				case <-cancelled:
				case <-time.After(5 * time.Second):
					t.Fatal("the upstream goes on")
				}
				if line := g.logLine(); line["outcome"] != "client_closed" {
					t.Errorf("logged %v", line)
				} else if tt.answer == "" && line["status"] != 499.0 {
					t.Errorf("logged status %v, want 499", line["status"])
				}
			})
		}
	}
}

// dial sends a request on a connection of its own, and leaves the answer to be
// read raw.
func (g *gateway) dial(line, body string, headers ...string) net.Conn {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n", line, testKey)
	for _, h := range headers {
		fmt.Fprintf(conn, "%s\r\n", h)
	}
	if len(headers) == 0 {
		fmt.Fprintf(conn, "Content-Length: %d\r\n", len(body))
	}
	fmt.Fprintf(conn, "\r\n%s", body)
	return conn
}

// readUntil reads from a connection until what was read contains want.
func readUntil(t *testing.T, conn net.Conn, want string) string {
	t.Helper()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), want) {
		n, err := conn.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("waiting for %q: %v after %q", want, err, got.String())
		}
	}
	return got.String()
}

// Usage is what the upstream told, and nothing is made up when it told nothing.
func TestStreamUsageIsLogged(t *testing.T) {
	usage := `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}` + "\n\n"
	g := newGateway(t, answerStream(textChunk("a"), finishChunk, usage, doneEvent))
	g.chat(streamRequest)
	if line := g.logLine(); line["prompt_tokens"] != 3.0 || line["completion_tokens"] != 2.0 {
		t.Errorf("logged %v", line)
	}
	g = newGateway(t, answerStream(textChunk("a"), finishChunk, doneEvent))
	g.chat(streamRequest)
	line := g.logLine()
	if _, there := line["prompt_tokens"]; there {
		t.Errorf("logged %v", line)
	}
}

// The time to the first byte of a stream is that of its first token, and not of
// its headers.
func TestStreamFirstByte(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream("")(w, r)
		time.Sleep(60 * time.Millisecond)
		answerStream(textChunk("a"), finishChunk, doneEvent)(w, r)
	})
	g.chat(streamRequest)
	if line := g.logLine(); line["first_byte_ms"].(float64) < 60 {
		t.Errorf("logged %v", line)
	}
}

// Many who leave cost nothing that stays.
func TestAbortsLeaveNothing(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream(textChunk("a"))(w, r)
		<-r.Context().Done()
	})
	abort := func(n int) {
		for range n {
			ctx, cancel := context.WithCancel(t.Context())
			req := g.request("POST", "/v1/chat/completions", streamRequest).WithContext(ctx)
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			bufio.NewReader(res.Body).ReadString('\n')
			cancel()
			res.Body.Close()
		}
		eventually(t, "the end of every request", func() bool { return g.server.inFlight.Load() == 0 })
	}
	abort(10)
	before := settledGoroutines()
	abort(300)
	eventually(t, "the return of the goroutines", func() bool { return settledGoroutines() <= before+5 })
}
