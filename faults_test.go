package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Upstreams that misbehave on the wire, met by clients of every dialect. Whatever
// they do, a client gets an error of its own, soon, and nothing of the inside.

// chatClient is OpenAI's, in the form of the vendors' clients.
var chatClient = vendorClient{name: "chat", path: "/v1/chat/completions", body: plainRequest, streamPath: "/v1/chat/completions", streamBody: streamRequest,
	check: func(t *testing.T, stream string) heard {
		var h heard
		for _, e := range eventsOf(stream) {
			data := []byte(e[strings.Index(e, "|")+1:])
			h.failed = h.failed || member(data, "error") != nil
			for c := range elements(member(data, "choices")) {
				h.text += text(member(member(c, "delta"), "content"))
			}
		}
		if h.failed == strings.Contains(stream, "[DONE]") {
			t.Errorf("an error or [DONE] ends the stream, and not both:\n%s", stream)
		}
		return h
	}}

var everyClient = append([]vendorClient{chatClient}, vendorClients...)

const (
	rawHead   = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	rawEvents = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
)

func gzipped(text string) string { return pack(packers[0].open, text) }

// TestUpstreamAnswersBadly: an answer that does not begin well is an error with a status.
func TestUpstreamAnswersBadly(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") }))
	defer target.Close()
	whole := completion("hi")
	const inside = "secret-inside-10.1.2.3"
	for _, tt := range []struct {
		name   string
		answer string // all that the upstream sends before it closes the connection
		status int    // 0 = 502 or 503 by dialect
	}{
		{"nothing", "", 0},
		{"garbage", "\x00\x01\x02 garbage " + inside + "\r\n\r\n", 0},
		{"another protocol", "220 " + inside + " ESMTP\r\n", 0},
		{"TLS", "\x15\x03\x01\x00\x02\x02\x46", 0},
		{"half a status line", "HTTP/1.1 20", 0},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Type: app", 0},
		{"HTTP/0.9", "<html>" + inside, 0},
		{"a status beyond all", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 0},
		{"status 0", "HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n", 0},
		{"header bomb", "HTTP/1.1 200 OK\r\nX-Bomb: " + strings.Repeat("x", 2*maxUpstreamHeader) + "\r\n\r\n" + whole, 0},
		{"headers without end", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Bomb: x\r\n", 100_000), 0},
		{"1xx without end", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 100_000), 0},
		{"101", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + inside, 0},
		{"a header that is none", "HTTP/1.1 200 OK\r\n" + inside + "\r\n\r\n" + whole, 0},
		{"two lengths", rawHead + "Content-Length: 10\r\nContent-Length: 11\r\n\r\n" + whole, 0},
		{"a length that is none", rawHead + "Content-Length: ten\r\n\r\n" + whole, 0},
		{"unknown coding", rawHead + "Transfer-Encoding: snappy\r\n\r\n" + whole, 0},
		{"more than it has", rawHead + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole)+1, whole), 0},
		{"less than it has", rawHead + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(whole)-1, whole), 0},
		{"bad chunk", rawHead + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + whole, 0},
		{"no last chunk", rawHead + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(whole), whole), 0},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", 0},
		{"304", "HTTP/1.1 304 Not Modified\r\n\r\n", 0},
		{"a page under 200", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><title>Welcome</title>" + inside, 0},
		{"a page under 502", "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html><title>Bad Gateway</title><body>" + inside, 0},
		{"moved for good", "HTTP/1.1 301 Moved\r\nLocation: " + target.URL + "/" + inside + "\r\nContent-Length: 0\r\n\r\n", 0},
		{"moved, with the method", "HTTP/1.1 307 Moved\r\nLocation: " + target.URL + "/" + inside + "\r\nContent-Length: 0\r\n\r\n", 0},
		{"moved, and refreshed", "HTTP/1.1 308 Moved\r\nLocation: " + target.URL + "/" + inside + "\r\nRefresh: 0;url=" + target.URL + "\r\nContent-Length: 0\r\n\r\n", 0},
		{"gzip that is none", rawHead + "Content-Encoding: gzip\r\n\r\n" + whole, 0},
		{"gzip cut off", rawHead + "Content-Encoding: gzip\r\n\r\n" + gzipped(whole)[:40], 0},
		{"gzip bomb", rawHead + "Content-Encoding: gzip\r\n\r\n" + gzipped(`{"choices":["`+strings.Repeat("x", maxAnswerBytes+1<<20)), 0},
		{"gzip nobody asked for", rawHead + "Content-Encoding: gzip\r\nConnection: close\r\n\r\n" + gzipped(whole), 200},
		{"nothing but a head", rawHead + "\r\n", 0},
		{"NUL", rawHead + "\r\n" + strings.Repeat("\x00", 1000), 0},
		{"1xx first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" + rawAnswer(whole), 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := scripted(t, func(s *script, conn net.Conn, n int) {
				if s.request(bufio.NewReader(conn)) == nil {
					io.WriteString(conn, tt.answer)
				}
			})
			g := newGateway(t, nil, to(t, up.URL))
			asked := 0
			for _, c := range everyClient {
				for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
					began := time.Now()
					res := g.do("POST", ask[0], ask[1])
					body := readAll(t, res)
					asked++
					want := tt.status
					if want == 0 {
						want = map[string]int{"chat": 502, "anthropic": 502, "responses": 502, "gemini": 503, "gemini array": 503}[c.name]
					}
					if res.StatusCode != want || time.Since(began) > patience {
						t.Errorf("%s on %s: after %v %d %.300s, want %d", c.name, ask[0], time.Since(began), res.StatusCode, body, want)
					}
					if want != 200 && member([]byte(body), "error") == nil {
						t.Errorf("%s: not an error: %.300s", c.name, body)
					}
					all := body + strings.Join(flatten(res.Header), "\n")
					for _, hidden := range []string{inside, strings.TrimPrefix(up.URL, "http://"), "dial tcp", "malformed HTTP", ".go:", "EOF", target.URL} {
						if strings.Contains(all, hidden) {
							t.Errorf("%s: %q of the inside shows in %.300s", c.name, hidden, all)
						}
					}
				}
			}
			if _, seen := up.state(); len(seen) != asked {
				t.Errorf("%d requests became %d calls", asked, len(seen))
			}
		})
	}
}

// TestUpstreamNotThere: refused, and reset before or after the request.
func TestUpstreamNotThere(t *testing.T) {
	reset := func(after int) string {
		return scripted(t, func(s *script, conn net.Conn, n int) {
			io.ReadFull(conn, make([]byte, after))
			conn.(*net.TCPConn).SetLinger(0)
		}).URL
	}
	for name, url := range map[string]string{"refused": "http://127.0.0.1:1", "reset at once": reset(0), "reset within the request": reset(100), "no such host": "http://none.invalid"} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, nil, to(t, url))
			for _, c := range everyClient {
				began := time.Now()
				res := g.do("POST", c.streamPath, c.streamBody)
				body := readAll(t, res)
				if res.StatusCode != 502 && res.StatusCode != 503 || time.Since(began) > patience || member([]byte(body), "error") == nil {
					t.Errorf("%s: after %v %d %s", c.name, time.Since(began), res.StatusCode, body)
				}
				if strings.Contains(body, "127.0.0.1") || strings.Contains(body, "none.invalid") {
					t.Errorf("%s: the inside shows: %s", c.name, body)
				}
			}
		})
	}
}

// TestStreamFaults: a stream that has begun and goes wrong ends in an error of the
// dialect, never as if it were whole, and never not at all.
func TestStreamFaults(t *testing.T) {
	begin := rawEvents + textChunk("Hel")
	for _, tt := range []struct{ name, answer string }{
		{"cut after an event", begin},
		{"cut in an event", begin + textChunk("lo")[:30]},
		{"an error inside", begin + `data: {"error":{"message":"boom","type":"server_error"}}` + "\n\n"},
		{"an error event", begin + "event: error\ndata: {\"message\":\"boom\"}\n\n"},
		{"garbage", begin + "data: \x00\xff{{{\n\ndata: more of it\n\n"},
		{"a line without end", begin + "data: {\"choices\":[" + strings.Repeat(" ", maxEventBytes+1<<20)},
		{"data lines without end", begin + strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 34)},
		{"a comment without end", begin + ":" + strings.Repeat("x", maxEventBytes+1<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := scripted(t, func(s *script, conn net.Conn, n int) {
				if s.request(bufio.NewReader(conn)) == nil {
					io.WriteString(conn, tt.answer)
				}
			})
			g := newGateway(t, nil, to(t, up.URL))
			for _, c := range everyClient {
				if c.name == "chat" && (strings.HasPrefix(tt.name, "garbage") || strings.HasPrefix(tt.name, "an error")) {
					continue // passed through as it came, and told by TestStreamIsExact and TestStreamErrorInside
				}
				res := g.do("POST", c.streamPath, c.streamBody)
				got := readAll(t, res)
				if c.name == "chat" {
					if !strings.Contains(got[max(0, len(got)-500):], `data: {"error":`) || strings.Contains(got, "[DONE]") {
						t.Errorf("chat: %d bytes end in %.500q", len(got), got[max(0, len(got)-500):])
					}
					continue
				}
				if said := c.check(t, got); !said.failed || !strings.HasPrefix(said.text, "Hel") {
					t.Errorf("%s heard %+v of\n%.500s", c.name, said, got)
				}
			}
		})
	}
}

// TestUpstreamGoesSilent: silence ends in an error too, before and in an answer, and
// so does an upstream that sends its head byte by byte for ever.
func TestUpstreamGoesSilent(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, answer string
		drip         bool
		status       int
	}{
		{"before the head", "", false, 504},
		{"in the head", "HTTP/1.1 200 OK\r\nX-", false, 504},
		{"a head that drips", "HTTP/1.1 200 OK\r\nX-Slow: ", true, 504},
		{"in the body", rawHead + "Content-Length: 100\r\n\r\n{", false, 504},
		{"in a stream", rawEvents + textChunk("Hel"), false, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := scripted(t, func(s *script, conn net.Conn, n int) {
				if s.request(bufio.NewReader(conn)) != nil {
					return
				}
				io.WriteString(conn, tt.answer)
				for tt.drip {
					if _, err := io.WriteString(conn, "x"); err != nil {
						return
					}
					time.Sleep(10 * time.Millisecond)
				}
				conn.Read(make([]byte, 1)) // until the gateway gives up
			})
			g := newGateway(t, nil, to(t, up.URL), func(c *config) {
				c.UpstreamTimeout, c.UpstreamIdleTimeout = 200*time.Millisecond, 200*time.Millisecond
			})
			for _, c := range everyClient {
				res := g.do("POST", c.streamPath, c.streamBody)
				got := readAll(t, res)
				if res.StatusCode != tt.status {
					t.Errorf("%s: %d %s", c.name, res.StatusCode, got)
				} else if tt.status == 200 {
					if said := c.check(t, got); !said.failed || said.text != "Hel" {
						t.Errorf("%s heard %+v", c.name, said)
					}
				}
			}
		})
	}
}

// TestExcessIsNobodys: a connection on which an upstream sends more than its answer is
// closed, so that the rest does not become the beginning of the next caller's.
func TestExcessIsNobodys(t *testing.T) {
	closed := make(chan bool, 1)
	up := scripted(t, func(s *script, conn net.Conn, n int) {
		r := bufio.NewReader(conn)
		if s.request(r) == nil {
			io.WriteString(conn, rawAnswer(completion("mine"))+rawAnswer(completion("another's")))
		}
		conn.SetReadDeadline(time.Now().Add(patience))
		_, err := r.ReadByte()
		closed <- !isTimeout(err)
	})
	g := newGateway(t, nil, to(t, up.URL))
	for range 10 {
		if _, body := g.chat(plainRequest); !strings.Contains(body, "mine") {
			t.Fatalf("a caller got %s", body)
		}
		if !<-closed {
			t.Fatal("the connection stays open")
		}
	}
	if conns, _ := up.state(); conns != 10 {
		t.Errorf("%d connections for 10 calls: one that said too much was used again", conns)
	}
}

// TestClientsAreNotMixed: while callers leave at random moments, nobody gets the
// bytes of another, in any dialect.
func TestClientsAreNotMixed(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, rest, _ := strings.Cut(string(body), "caller-")
		who := "caller-" + rest[:min(4, len(rest))]
		if strings.Contains(string(body), `"stream":true`) {
			answerStream(textChunk(who), textChunk(strings.Repeat(who+" ", 50)), finishChunk, doneEvent)(w, r)
			return
		}
		answerJSON(200, completion(who))(w, r)
	})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			c := everyClient[i%len(everyClient)]
			who := fmt.Sprintf("caller-%04d", 1000+i)
			for n := range 20 {
				path, body := c.path, c.body
				if n%2 == 0 {
					path, body = c.streamPath, c.streamBody
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*7+n*13)%20)*time.Millisecond)
				req := g.request("POST", path, strings.Replace(body, `"hi"`, `"`+who+`"`, 1))
				if n%5 == 0 {
					ctx = t.Context()
				}
				if res, err := http.DefaultTransport.RoundTrip(req.WithContext(ctx)); err == nil {
					got, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if n := strings.Count(string(got), "caller-"); n != strings.Count(string(got), who) {
						t.Errorf("%s as %s got %.300s", c.name, who, got)
					}
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// TestLeavingIsNoticedAtOnce: the fastest of some clients that leave has freed the
// upstream within 100 ms; a busy machine may delay any single one.
func TestLeavingIsNoticedAtOnce(t *testing.T) {
	gone := make(chan time.Time, 1)
	begun := make(chan struct{}, 1)
	var silent atomic.Bool
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		if !silent.Load() {
			answerStream(textChunk("a"))(w, r)
		}
		begun <- struct{}{}
		<-r.Context().Done()
		gone <- time.Now()
	})
	for _, c := range everyClient {
		for what, ask := range map[string][2]string{"silent": {c.path, c.body}, "stream": {c.streamPath, c.streamBody}} {
			silent.Store(what == "silent")
			fastest := time.Hour
			for n := 0; n < 10 && fastest > 100*time.Millisecond; n++ {
				conn := g.dial("POST "+ask[0], ask[1])
				<-begun
				left := time.Now()
				conn.Close()
				select {
				case at := <-gone:
					fastest = min(fastest, at.Sub(left))
				case <-time.After(patience):
					t.Fatalf("%s, %s: the upstream goes on without its client", c.name, what)
				}
			}
			if fastest > 100*time.Millisecond {
				t.Errorf("%s, %s: the fastest client's leaving was noticed after %v", c.name, what, fastest)
			}
		}
	}
}

// TestSlowReaderHoldsTheUpstream: a client that does not read costs no memory: the
// upstream has to wait for it.
func TestSlowReaderHoldsTheUpstream(t *testing.T) {
	event := []byte(textChunk(strings.Repeat("x", 32<<10)))
	var sent atomic.Int64
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			n, err := w.Write(event)
			if sent.Add(int64(n)); err != nil || sent.Load() > 512<<20 {
				return
			}
		}
	})
	for _, c := range everyClient {
		sent.Store(0)
		conn := g.dial("POST "+c.streamPath, c.streamBody)
		last := int64(-1)
		eventually(t, c.name+": the upstream's waiting", func() bool {
			before := last
			last = sent.Load()
			time.Sleep(100 * time.Millisecond)
			return last > 0 && last == before
		})
		if last > 64<<20 {
			t.Errorf("%s: %d MiB were taken for a client that reads nothing", c.name, last>>20)
		}
		conn.Close()
		eventually(t, "the end of the request", func() bool { return g.server.inFlight.Load() == 0 })
	}
}

// TestEndlessStreams: a stream that never ends does not fill the memory, though the
// gateway remembers what it needs for the end, be it for a session.
func TestEndlessStreams(t *testing.T) {
	events := []byte(strings.Repeat(textChunk(strings.Repeat("x", 8<<10)), 16))
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for total := 0; total < 1<<30 && r.Context().Err() == nil; total += len(events) {
			if _, err := w.Write(events); err != nil {
				return
			}
		}
	})
	for _, c := range everyClient {
		var most uint64
		res := g.do("POST", c.streamPath, c.streamBody, "X-Session-Id: endless")
		buf := make([]byte, 1<<20)
		got, tail := 0, []byte(nil)
		for next := 0; got < 300<<20; {
			n, err := res.Body.Read(buf)
			got += n
			tail = append(tail[max(0, len(tail)-1000):], buf[max(0, n-1000):n]...)
			if err != nil {
				break
			}
			if got > next {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapInuse)
				next = got + 32<<20
			}
		}
		res.Body.Close()
		if most > 400<<20 {
			t.Errorf("%s: %d MiB of heap for a stream of %d MiB, which ends %.200q", c.name, most>>20, got>>20, tail)
		}
		eventually(t, "the end of the request", func() bool { return g.server.inFlight.Load() == 0 })
		runtime.GC()
	}
}

// TestHostileShapesOfAnswers: of answers that are made to cost much time, what is
// too much is left out.
func TestHostileShapesOfAnswers(t *testing.T) {
	list := func(n int, one func(i int) string) string {
		var b bytes.Buffer
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(one(i))
		}
		return b.String()
	}
	const many = 10_000
	shapes := map[string]string{
		"many choices": `{"choices":[` + list(many, func(i int) string { return fmt.Sprintf(`{"index":%d,"delta":{"content":"x"}}`, i) }) + `]}`,
		"many calls": `{"choices":[{"index":0,"delta":{"tool_calls":[` + list(many, func(i int) string {
			return fmt.Sprintf(`{"index":%d,"id":"c%d","function":{"name":"f","arguments":"{}"}}`, i, i)
		}) + `]}}]}`,
		"many fields":       `{"choices":[{"index":0,"delta":{` + list(many, func(i int) string { return fmt.Sprintf(`"f%d":"x"`, i) }) + `}}]}`,
		"many members":      `{` + list(many, func(i int) string { return fmt.Sprintf(`"f%d":"x"`, i) }) + `,"choices":[{"index":0,"delta":{"content":"x"}}]}`,
		"a far index":       `{"choices":[{"index":999999999,"delta":{"tool_calls":[{"index":999999999,"id":"c","function":{"name":"f","arguments":"{}"}}]}}]}`,
		"a negative index":  `{"choices":[{"index":-1,"delta":{"tool_calls":[{"index":-999999999,"id":"c","function":{"name":"f","arguments":"{}"}}]}}]}`,
		"an index too long": `{"choices":[{"index":99999999999999999999999,"delta":{"tool_calls":[{"index":1e400,"function":{"name":"f"}}]}}]}`,
		"deep":              `{"choices":[{"index":0,"delta":{"content":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `}}]}`,
	}
	for name, chunk := range shapes {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, answerStream("data: "+chunk+"\n\n", finishChunk, doneEvent))
			for _, c := range everyClient {
				for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
					got := readAll(t, g.do("POST", ask[0], ask[1], "X-Session-Id: s"))
					// A call has a few events in a stream; only chat gets what the upstream sent.
					if n := strings.Count(got, `"name":"f"`); c.name != "chat" && n > 8*maxCalls {
						t.Errorf("%s on %s: a call is named %d times", c.name, ask[0], n)
					}
				}
			}
		})
	}
}

// slowGzip is an answer compressed event by event: it must not wait for its end.
func slowGzip(w http.ResponseWriter, next <-chan struct{}, pieces ...string) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	for _, p := range pieces {
		io.WriteString(z, p)
		z.Flush()
		w.(http.Flusher).Flush()
		<-next
	}
	z.Close()
}

// TestCompressedStreamPassesAtOnce: an upstream that compresses its stream, though
// nobody asked, delays nothing.
func TestCompressedStreamPassesAtOnce(t *testing.T) {
	next := make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		slowGzip(w, next, textChunk("a"), textChunk("b"), finishChunk+doneEvent)
	})
	res := g.do("POST", "/v1/chat/completions", streamRequest)
	for _, want := range []string{textChunk("a"), textChunk("b"), finishChunk + doneEvent} {
		buf := make([]byte, len(want))
		if _, err := io.ReadFull(res.Body, buf); err != nil || string(buf) != want {
			t.Fatalf("got %q, %v; want %q", buf, err, want)
		}
		next <- struct{}{}
	}
}
