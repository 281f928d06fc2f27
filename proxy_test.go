package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"
)

// to points a gateway at another upstream than the fixture's, which reads a
// request whole before it looks at it.
func to(t *testing.T, base string) func(*config) {
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *config) { c.BaseURL = u }
}

// unread is an upstream of the test's own.
func unread(t *testing.T, h http.HandlerFunc) func(*config) {
	up := httptest.NewServer(h)
	t.Cleanup(up.Close)
	return to(t, up.URL)
}

// A script is an upstream on bare connections, which it serves as the test says.
type script struct {
	URL string

	mu    sync.Mutex
	conns int
	seen  []string // the bodies of the requests
}

// scripted starts a script; serve gets each connection with its number, from 1.
func scripted(t *testing.T, serve func(s *script, conn net.Conn, n int)) *script {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{URL: "http://" + l.Addr().String()}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns++
			n := s.conns
			s.mu.Unlock()
			serving.Go(func() {
				defer conn.Close()
				serve(s, conn, n)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return s
}

// request reads the next request of a connection.
func (s *script) request(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, string(body))
	return nil
}

func (s *script) state() (conns int, seen []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns, slices.Clone(s.seen)
}

// rawAnswer is a whole HTTP answer on a connection that is kept.
func rawAnswer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// The upstream's address, however it is written, and the client's path, however
// that is, make one address (AC-31).
func TestUpstreamAddress(t *testing.T) {
	for _, tt := range []struct{ base, path, want string }{
		{"", "/v1/chat/completions", "/v1/chat/completions"},
		{"/", "/v1/chat/completions", "/v1/chat/completions"},
		{"/v1", "/v1/chat/completions", "/v1/chat/completions"},
		{"/v1/", "/chat/completions", "/v1/chat/completions"},
		{"/v1/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions"},
		{"/sub/path", "/v1/chat/completions", "/sub/path/v1/chat/completions"},
		{"/sub/path/v1/", "/openai/v1/chat/completions", "/sub/path/v1/chat/completions"},
		{"/api/paas/v4", "/v1/chat/completions", "/api/paas/v4/chat/completions"},
		{"/v1beta/openai", "/v1/chat/completions?beta=true", "/v1beta/openai/chat/completions?beta=true"},
		{"/exactly#", "/v1/chat/completions", "/exactly/chat/completions"},
		{"/a%20b", "/v1/chat/completions", "/a%20b/v1/chat/completions"},
		{"", "/v1/embeddings?a=1&b=%2F&c", "/v1/embeddings?a=1&b=%2F&c"},
		{"/api/v4", "/embeddings", "/api/v4/embeddings"},
		{"/api/v4", "/v1/files/a%2Fb/content", "/api/v4/files/a%2Fb/content"},
		{"", "/v1/files?key=secret&after=x&api_key=secret", "/v1/files?after=x"},
	} {
		t.Run(tt.base+" "+tt.path, func(t *testing.T) {
			g := newGateway(t, answerJSON(200, completion("hi")), func(c *config) {
				with, _, err := loadConfig(map[string]string{"A4F_BASE_URL": c.BaseURL.Scheme + "://" + c.BaseURL.Host + tt.base, "A4F_API_KEY": testUpstream})
				if err != nil {
					t.Fatal(err)
				}
				c.BaseURL = with.BaseURL
			})
			res := g.do("POST", tt.path, plainRequest)
			if body := readAll(t, res); res.StatusCode != 200 {
				t.Fatalf("status %d: %s", res.StatusCode, body)
			}
			got := g.last()
			if got.URL.RequestURI() != tt.want {
				t.Errorf("the upstream was asked for %s, want %s", got.URL.RequestURI(), tt.want)
			}
			if got.Host != g.server.cfg.BaseURL.Host {
				t.Errorf("Host is %q", got.Host)
			}
		})
	}
}

// Any other path is forwarded as it is, and so is its answer.
func TestForward(t *testing.T) {
	binary := make([]byte, 100_000)
	rand.Read(binary)
	var form bytes.Buffer
	m := multipart.NewWriter(&form)
	part, _ := m.CreateFormFile("file", "a.bin")
	part.Write(binary)
	m.WriteField("purpose", "batch")
	m.Close()
	for _, tt := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		answer                   string
		answerType               string
	}{
		{"embeddings", "POST", "/v1/embeddings", `{"input":"x", "n":1e2}`, nil, 200, `{"data":[ 1.0 ]}`, "application/json"},
		{"what is no JSON", "POST", "/v1/completions", "{{{", nil, 200, "not JSON either", "text/plain"},
		{"an upload", "POST", "/v1/files", form.String(), []string{"Content-Type: " + m.FormDataContentType()}, 200, `{"id":"f"}`, "application/json"},
		{"a download", "GET", "/v1/files/f/content", "", nil, 200, string(binary), "application/octet-stream"},
		{"speech", "POST", "/v1/audio/speech", `{"input":"x"}`, nil, 200, string(binary), "audio/mpeg"},
		{"delete a model", "DELETE", "/v1/models/ft:a/b", "", nil, 200, `{"deleted":true}`, "application/json"},
		{"created", "POST", "/v1/batches", `{}`, nil, 201, `{"id":"b"}`, "application/json"},
		{"nothing to say", "DELETE", "/v1/files/f", "", nil, 204, "", ""},
		{"head", "HEAD", "/v1/files/f", "", nil, 200, "", "application/json"},
		{"a method of another day", "PATCH", "/v1/threads/t", `{}`, nil, 200, `{}`, "application/json"},
		{"an error inside 200", "POST", "/v1/embeddings", `{}`, nil, 200, `{"error":{"message":"x"}}`, "application/json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", tt.answerType)
				w.WriteHeader(tt.status)
				io.WriteString(w, tt.answer)
			})
			res := g.do(tt.method, tt.path, tt.body, tt.headers...)
			if got := readAll(t, res); res.StatusCode != tt.status || got != tt.answer || res.Header.Get("Content-Type") != tt.answerType {
				t.Errorf("status %d, type %q, %d bytes that are the upstream's: %v", res.StatusCode, res.Header.Get("Content-Type"), len(got), got == tt.answer)
			}
			if got := res.Header.Get("X-APIProxy-Fidelity"); got != "" {
				t.Errorf("X-APIProxy-Fidelity is %q on a path that is only forwarded", got)
			}
			got := g.last()
			if got.Method != tt.method || got.URL.Path != tt.path || got.Body != tt.body {
				t.Errorf("the upstream got %s %s with %d bytes, the same: %v", got.Method, got.URL.Path, len(got.Body), got.Body == tt.body)
			}
			if want := strings.TrimPrefix(strings.Join(tt.headers, ""), "Content-Type: "); want != "" && got.Header.Get("Content-Type") != want {
				t.Errorf("the upstream got Content-Type %q", got.Header.Get("Content-Type"))
			}
		})
	}
}

// The upstream has the first bytes of an upload before the client has sent the
// last, and the client the first of an answer.
func TestForwardStreams(t *testing.T) {
	first := strings.Repeat("a", 64<<10)
	for _, tt := range []struct{ name, header, begin, end string }{
		{"declared length", fmt.Sprintf("Content-Length: %d", len(first)+3), first, "def"},
		{"chunked", "Transfer-Encoding: chunked", fmt.Sprintf("%x\r\n%s\r\n", len(first), first), "3\r\ndef\r\n0\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begun, answered := make(chan string, 1), make(chan struct{})
			g := newGateway(t, nil, unread(t, func(w http.ResponseWriter, r *http.Request) {
				buf := make([]byte, 1000)
				io.ReadFull(r.Body, buf)
				begun <- string(buf)
				rest, _ := io.ReadAll(r.Body)
				fmt.Fprintf(w, "<%s>", rest[len(rest)-3:])
				w.(http.Flusher).Flush()
				<-answered
				io.WriteString(w, "end")
			}))
			defer close(answered)
			conn := g.dial("POST /v1/files", tt.begin, tt.header)
			select {
			case got := <-begun:
				if got != first[:1000] {
					t.Errorf("the upstream got %q first", got)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("nothing of the upload reaches the upstream before its end")
			}
			io.WriteString(conn, tt.end)
			readUntil(t, conn, "<def>")
			answered <- struct{}{}
			readUntil(t, conn, "end")
		})
	}
}

// An answer before the upload's end does not wait for it.
func TestForwardAnsweredEarly(t *testing.T) {
	g := newGateway(t, nil, unread(t, answerJSON(422, `{"error":{"message":"no such purpose","type":"invalid_request_error"}}`)))
	conn := g.dial("POST /v1/files", strings.Repeat("x", 64<<10), "Content-Length: 50000000")
	go func() {
		for {
			if _, err := conn.Write(make([]byte, 1000)); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if got := readUntil(t, conn, "no such purpose"); !strings.HasPrefix(got, "HTTP/1.1 422 ") {
		t.Errorf("the client got %q", got)
	}
}

func TestForwardBreaksOff(t *testing.T) {
	for _, tt := range []struct {
		name     string
		upstream http.HandlerFunc
	}{
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			answerAs("application/json", `{"data":`)(w, r)
			panic(http.ErrAbortHandler)
		}},
		{"shorter than declared", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			answerAs("application/json", `{"data":`)(w, r)
		}},
		{"a stream", func(w http.ResponseWriter, r *http.Request) {
			answerStream("data: {}\n\n")(w, r)
			panic(http.ErrAbortHandler)
		}},
		{"silence", func(w http.ResponseWriter, r *http.Request) {
			answerAs("application/json", `{"data":`)(w, r)
			<-r.Context().Done()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream, func(c *config) { c.UpstreamIdleTimeout = 100 * time.Millisecond })
			res := g.do("POST", "/v1/embeddings", `{"input":"x"}`)
			if b, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("a broken answer ended as if it were whole: %q", b)
			}
			if line := g.logLine(); line["outcome"] != "incomplete" || line["error"] == nil {
				t.Errorf("logged %v", line)
			}
		})
	}
}

func TestForwardEventStream(t *testing.T) {
	stream := "event: response.created\r\ndata: {}\r\n\r\n: x\n\ndata: [DONE]\n\n"
	g := newGateway(t, answerStream(bytesOf(stream)...))
	res := g.do("POST", "/v1/completions", `{"stream":true}`)
	if got := readAll(t, res); got != stream {
		t.Errorf("the client got %q", got)
	}
	if h := res.Header; h.Get("X-Accel-Buffering") != "no" || h.Get("Cache-Control") != "no-cache" {
		t.Errorf("headers %v", h)
	}
}

func TestTrailersAreDropped(t *testing.T) {
	for _, path := range []string{"/v1/files", "/v1/chat/completions"} {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Trailer", "X-Announced")
			answerStream(finishChunk, doneEvent)(w, r)
			w.Header().Set("X-Announced", "1")
			w.Header().Set(http.TrailerPrefix+"X-Sudden", "1")
		})
		res := g.do("POST", path, streamRequest)
		readAll(t, res)
		if len(res.Trailer) > 0 || res.Header.Get("Trailer") != "" {
			t.Errorf("%s: trailers %v, Trailer %q", path, res.Trailer, res.Header.Get("Trailer"))
		}
	}
}

// A kept connection that turns out to be dead costs no error: the request goes
// out once more, whole, as long as no answer to it had begun (AC-32).
func TestRetryOnDeadConnection(t *testing.T) {
	big := `{"messages":[],"x":"` + strings.Repeat("x", 3<<20) + `"}`
	small := `{"input":"second"}`
	for _, tt := range []struct {
		name, path, body string
		headers          []string
		dying            string // what the dead connection still says
		fresh            bool   // it is the first request that dies
		status, conns    int
	}{
		{"chat", "/v1/chat/completions", plainRequest, nil, "", false, 200, 2},
		{"chat, large", "/v1/chat/completions", big, nil, "", false, 200, 2},
		{"chat, stream spliced in", "/v1/chat/completions", `{"messages":[]}`, []string{"Accept: text/event-stream"}, "", false, 200, 2},
		{"forwarded", "/v1/embeddings", small, nil, "", false, 200, 2},
		{"forwarded, too large to be kept", "/v1/embeddings", big, nil, "", false, 502, 1},
		{"chat, on a fresh connection", "/v1/chat/completions", plainRequest, nil, "", true, 502, 1},
		{"forwarded, on a fresh connection", "/v1/embeddings", small, nil, "", true, 502, 1},
		{"chat, an answer had begun", "/v1/chat/completions", plainRequest, nil, "HTTP/1.1 200 OK\r\n", false, 502, 1},
		{"chat, a whole header had come", "/v1/chat/completions", plainRequest, nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n", false, 502, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := scripted(t, func(s *script, conn net.Conn, n int) {
				r := bufio.NewReader(conn)
				for served := 0; s.request(r) == nil; served++ {
					if n == 1 && (tt.fresh || served == 1) {
						io.WriteString(conn, tt.dying)
						return
					}
					io.WriteString(conn, rawAnswer(completion("hi")))
				}
			})
			g := newGateway(t, nil, to(t, up.URL))
			if !tt.fresh {
				g.chat(`{"messages":[]}`)
			}
			res := g.do("POST", tt.path, tt.body, tt.headers...)
			if body := readAll(t, res); res.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %.200s", res.StatusCode, tt.status, body)
			}
			conns, seen := up.state()
			if conns != tt.conns {
				t.Errorf("%d connections were made, want %d", conns, tt.conns)
			}
			if last := seen[len(seen)-1]; tt.headers == nil && last != tt.body {
				t.Errorf("the upstream got %d bytes at last, want the %d that were sent", len(last), len(tt.body))
			} else if tt.headers != nil && last != `{"stream":true,"messages":[]}` {
				t.Errorf("the upstream got %q at last", last)
			}
		})
	}
}

// Informational answers are the upstream's affair with the gateway.
func TestInformationalAnswers(t *testing.T) {
	up := scripted(t, func(s *script, conn net.Conn, n int) {
		r := bufio.NewReader(conn)
		for s.request(r) == nil {
			io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-Key: "+testUpstream+"\r\n\r\n"+rawAnswer(completion("hi")))
		}
	})
	g := newGateway(t, nil, to(t, up.URL))
	conn := g.dial("POST /v1/chat/completions", plainRequest)
	if got := readUntil(t, conn, "choices"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || strings.Contains(got, "103") || strings.Contains(got, "Link") {
		t.Errorf("the client got %q", got)
	}
}

// An upstream that does not answer in time is a 504, wherever it stopped.
func TestUpstreamTimeout(t *testing.T) {
	silent := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	deaf := scripted(t, func(s *script, conn net.Conn, n int) { io.Copy(io.Discard, &slowReader{conn}) })
	for _, tt := range []struct {
		name, path, body string
		change           func(*config)
	}{
		{"chat", "/v1/chat/completions", plainRequest, func(*config) {}},
		{"a stream", "/v1/chat/completions", streamRequest, func(*config) {}},
		{"forwarded", "/v1/embeddings", `{"input":"x"}`, func(*config) {}},
		{"a request that is not taken", "/v1/chat/completions", `{"messages":[],"x":"` + strings.Repeat("x", 16<<20) + `"}`, to(t, deaf.URL)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, silent, tt.change, func(c *config) { c.UpstreamTimeout = 100 * time.Millisecond })
			start := time.Now()
			res := g.do("POST", tt.path, tt.body)
			e := member([]byte(readAll(t, res)), "error")
			if res.StatusCode != 504 || text(member(e, "type")) != "timeout" || text(member(e, "code")) != "upstream_timeout" || time.Since(start) > 8*time.Second {
				t.Errorf("after %v status %d: %s", time.Since(start), res.StatusCode, e)
			}
			if line := g.logLine(); line["outcome"] != "upstream_error" {
				t.Errorf("logged %v", line)
			}
		})
	}
}

// slowReader takes nothing until its connection is closed from the other side.
type slowReader struct{ conn net.Conn }

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(500 * time.Millisecond)
	r.conn.SetReadDeadline(time.Now())
	return 0, os.ErrDeadlineExceeded
}

// A large body is let go once its answer has begun, though the answer lasts.
func TestBodyIsLetGo(t *testing.T) {
	release := make(chan struct{})
	g := newGateway(t, nil, unread(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		answerStream(textChunk("a"))(w, r)
		<-release
		answerStream(finishChunk, doneEvent)(w, r)
	}))
	spy := &payloadSpy{next: g.server.streams.Transport}
	g.server.streams.Transport = spy
	res := g.do("POST", "/v1/chat/completions", streamRequest[:len(streamRequest)-1]+`,"x":"`+strings.Repeat("x", 8<<20)+`"}`)
	io.ReadFull(res.Body, make([]byte, len(textChunk("a"))))
	eventually(t, "the release of the body", func() bool {
		runtime.GC()
		return spy.body.Value() == nil
	})
	close(release)
	if got := readAll(t, res); got != finishChunk+doneEvent {
		t.Errorf("and then %q", got)
	}
}

// payloadSpy remembers where a request's body is, without keeping it.
type payloadSpy struct {
	next http.RoundTripper
	body weak.Pointer[byte]
}

func (s *payloadSpy) RoundTrip(r *http.Request) (*http.Response, error) {
	s.body = weak.Make(&exchangeOf(r).payload.pieces[0][0])
	return s.next.RoundTrip(r)
}

func TestReplay(t *testing.T) {
	b := &replay{src: strings.NewReader("0123456789")}
	first := &replayReader{body: b}
	if _, err := io.ReadFull(first, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		again, err := b.again()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(again); string(got) != "0123456789" || err != nil {
			t.Errorf("read again: %q, %v", got, err)
		}
	}
	b = &replay{src: bytes.NewReader(make([]byte, maxReplayed+1))}
	if n, err := io.Copy(io.Discard, &replayReader{body: b}); n != maxReplayed+1 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := b.again(); err == nil || b.kept != nil {
		t.Errorf("a body too large to be kept can be read again: %v, %d bytes are kept", err, len(b.kept))
	}
}
