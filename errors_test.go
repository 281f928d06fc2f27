package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"
)

// rawUpstream is an upstream on a bare socket: answer gets each connection when
// its request has come.
func rawUpstream(t *testing.T, answer func(net.Conn)) func(*config) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				buf := make([]byte, 64<<10)
				for n := 0; !strings.Contains(string(buf[:n]), "\r\n\r\n") || !strings.Contains(string(buf[:n]), greeting); {
					m, err := conn.Read(buf[n:])
					if err != nil {
						return
					}
					n += m
				}
				answer(conn)
			}()
		}
	}()
	return func(c *config) { c.BaseURL = &url.URL{Scheme: "http", Host: ln.Addr().String(), Path: "/v1"} }
}

func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	}
}

// What an upstream does instead of answering, and what its client is told: the
// status that fits, at once, and nothing of the inside.
func TestUpstreamFaults(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, tt := range []struct {
		name      string
		answer    func(net.Conn)
		status    int
		typ, code string
		forwarded int  // status on a path that is forwarded as it is; 0 = the same
		breaks    bool // there, the answer has begun and breaks off
	}{
		{"closed", says(""), 502, "upstream_error", "upstream_unreachable", 0, false},
		{"reset", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, 502, "upstream_error", "upstream_unreachable", 0, false},
		{"garbage", says("\x00\x01\x02 what?\r\n\r\n"), 502, "upstream_error", "upstream_unreachable", 0, false},
		{"no HTTP version", says("200 OK\r\n\r\n{}"), 502, "upstream_error", "upstream_unreachable", 0, false},
		{"half a head", says("HTTP/1.1 200 OK\r\nContent-Ty"), 502, "upstream_error", "upstream_unreachable", 0, false},
		{"header bomb", says("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Bomb: "+strings.Repeat("b", 1000)+"\r\n", 500) + "\r\n{}"), 502, "upstream_error", "upstream_unreachable", 0, false},
		{"HTML", says("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 15\r\n\r\n<html>hi</html>"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"HTML that says it is JSON", says(head + "Content-Length: 15\r\n\r\n<html>hi</html>"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"broken JSON", says(head + "Content-Length: 15\r\n\r\n{\"choices\": [{}"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"no completion", says(head + "Content-Length: 11\r\n\r\n{\"ok\":true}"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"null", says(head + "Content-Length: 4\r\n\r\nnull"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"empty body", says(head + "Content-Length: 0\r\n\r\n"), 502, "upstream_error", "upstream_malformed", 200, false},
		{"204", says("HTTP/1.1 204 No Content\r\n\r\n"), 502, "upstream_error", "upstream_malformed", 204, false},
		{"truncated", says(head + "Content-Length: 9999\r\n\r\n{\"choices\":"), 502, "upstream_error", "upstream_incomplete", 200, true},
		{"truncated chunks", says(head + "Transfer-Encoding: chunked\r\n\r\nb\r\n{\"choices\":\r\n"), 502, "upstream_error", "upstream_incomplete", 200, true},
		{"redirect", says("HTTP/1.1 302 Found\r\nLocation: http://inner.example/secret\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_error", "upstream_redirect", 0, false},
		{"permanent redirect", says("HTTP/1.1 308 Permanent Redirect\r\nLocation: /v2\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_error", "upstream_redirect", 0, false},
		{"304", says("HTTP/1.1 304 Not Modified\r\n\r\n"), 502, "upstream_error", "upstream_redirect", 0, false},
		{"101", says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"), 502, "upstream_error", "", 0, false},
		{"gzip that is none", says(head + "Content-Encoding: gzip\r\nContent-Length: 11\r\n\r\n{\"ok\":true}"), 502, "upstream_error", "upstream_malformed", 0, false},
		{"br", says(head + "Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc"), 502, "upstream_error", "upstream_malformed", 0, false},
		{"gzip that breaks", says(head + "Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\nf\r\n" + pack(packers[0].open, completion("hi"))[:15] + "\r\n0\r\n\r\n"), 502, "upstream_error", "upstream_incomplete", 200, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, echoPath, rawUpstream(t, tt.answer))
			began := time.Now()
			res, answer := g.chat(greeting)
			e := errorIn(t, answer)
			if res.StatusCode != tt.status || e.Type != tt.typ || tt.code != "" && codeOf(e) != tt.code {
				t.Errorf("= %d %s, want %d %s %s", res.StatusCode, answer, tt.status, tt.typ, tt.code)
			}
			if d := time.Since(began); d > 5*time.Second {
				t.Errorf("it took %v", d)
			}
			for _, inside := range []string{"127.0.0.1", "inner.example", "goroutine", ".go:", "EOF", "dial tcp"} {
				if all := answer + strings.Join(flatten(res.Header), "\n"); strings.Contains(all, inside) {
					t.Errorf("the client sees %q: %s", inside, all)
				}
			}
			if ct, ce := res.Header.Get("Content-Type"), res.Header.Get("Content-Encoding"); ct != "application/json" || ce != "" {
				t.Errorf("Content-Type %q, Content-Encoding %q", ct, ce)
			}
			g.forwardsFault(cmp.Or(tt.forwarded, tt.status), tt.breaks)
			g.mustLog(`"outcome":"upstream_error"`)
		})
	}
}

// forwardsFault checks what the same fault does to a path that is forwarded as it
// comes: the status, or, once the answer has begun, that it never ends well.
func (g *gateway) forwardsFault(status int, breaks bool) {
	g.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/embeddings", greeting))
	if err != nil {
		if !breaks {
			g.t.Errorf("forwarded: %v", err)
		}
		return
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if res.StatusCode != status || (err != nil) != breaks {
		g.t.Errorf("forwarded = %d %q %v, want %d", res.StatusCode, answer, err, status)
	}
}

func TestUpstreamRefusesConnections(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	for _, tt := range []struct{ name, base string }{
		{"refused", "http://" + addr + "/v1"},
		{"no such host", "http://upstream.invalid/v1"},
		{"no TLS there", ""},
	} {
		g := newGateway(t, echoPath, func(c *config) {
			if tt.base == "" {
				c.BaseURL.Scheme = "https"
				return
			}
			c.BaseURL, _ = url.Parse(tt.base)
		})
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			res := g.do("POST", path, greeting)
			body := readAll(t, res)
			if e := errorIn(t, body); res.StatusCode != 502 || e.Type != "upstream_error" || codeOf(e) != "upstream_unreachable" {
				t.Errorf("%s, %s = %d %s", tt.name, path, res.StatusCode, body)
			}
			for _, inside := range []string{addr, "upstream.invalid", "dial", "tls:"} {
				if strings.Contains(body, inside) {
					t.Errorf("%s shows %q: %s", tt.name, inside, body)
				}
			}
		}
	}
}

func TestUpstreamTimeouts(t *testing.T) {
	hold := make(chan struct{})
	defer close(hold)
	silent := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	}
	half := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"choices":`)
		w.(http.Flusher).Flush()
		silent(w, r)
	}
	short := func(c *config) { c.UpstreamTimeout, c.UpstreamIdleTimeout = 50*time.Millisecond, 50*time.Millisecond }
	for _, tt := range []struct {
		name, path string
		upstream   http.HandlerFunc
	}{
		{"no answer", "/v1/chat/completions", silent},
		{"no answer to a forwarded one", "/v1/embeddings", silent},
		{"half an answer", "/v1/chat/completions", half},
	} {
		g := newGateway(t, tt.upstream, short)
		res := g.do("POST", tt.path, greeting)
		body := readAll(t, res)
		if e := errorIn(t, body); res.StatusCode != 504 || e.Type != "timeout" || codeOf(e) != "upstream_timeout" {
			t.Errorf("%s = %d %s, want 504", tt.name, res.StatusCode, body)
		}
	}
}

func TestAsAPIError(t *testing.T) {
	because := func(cause error) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(cause)
		return ctx
	}
	own := badRequest("messages", "no")
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		err    error
		status int
		code   string
	}{
		{"its own", context.Background(), fmt.Errorf("wrapped: %w", own), 400, ""},
		{"timeout", context.Background(), fmt.Errorf("x: %w", os.ErrDeadlineExceeded), 504, "upstream_timeout"},
		{"context deadline", context.Background(), context.DeadlineExceeded, 504, "upstream_timeout"},
		{"connect timeout", context.Background(), &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, 504, "upstream_timeout"},
		{"silence", because(errUpstreamSilent), context.Canceled, 504, "upstream_timeout"},
		{"shutdown", because(errShutdown), context.Canceled, 503, "shutting_down"},
		{"anything else", context.Background(), errors.New("boom"), 502, "upstream_unreachable"},
		{"the client's body", context.Background(), fmt.Errorf("x: %w", clientBodyError{io.ErrUnexpectedEOF}), 400, ""},
		{"the client's body, slow", context.Background(), clientBodyError{os.ErrDeadlineExceeded}, 408, "request_timeout"},
		{"the client's body, long", context.Background(), clientBodyError{&http.MaxBytesError{Limit: 7}}, 413, "request_too_large"},
		{"the client's body, corrupt", context.Background(), clientBodyError{errCutOff}, 400, "invalid_encoding"},
		{"the upstream's body, corrupt", context.Background(), errCutOff, 502, "upstream_unreachable"},
	} {
		e := asAPIError(tt.ctx, tt.err)
		if e.Status != tt.status || e.Code != tt.code {
			t.Errorf("%s = %d %q, want %d %q", tt.name, e.Status, e.Code, tt.status, tt.code)
		}
		if strings.Contains(e.Message, "boom") || strings.Contains(e.Message, "wrapped") {
			t.Errorf("%s tells the inside: %s", tt.name, e.Message)
		}
	}
}

func TestWriteError(t *testing.T) {
	for _, tt := range []struct {
		err          *apiError
		body         string
		after, retry string
	}{
		{&apiError{Status: 400, Type: "invalid_request_error", Param: "n", Message: `a "quoted" <b>`, NoRetry: true},
			`{"error":{"message":"a \"quoted\" <b>","type":"invalid_request_error","param":"n","code":null}}`, "", "false"},
		{&apiError{Status: 503, Type: "server_error", Code: "c", Message: "m", RetryAfter: 1100 * time.Millisecond},
			`{"error":{"message":"m","type":"server_error","param":null,"code":"c"}}`, "2", ""},
		{drainingError(), "", "1", ""},
		{storeUnavailable(errors.New("dial tcp 10.0.0.1: refused")), "", "2", ""},
	} {
		x, _ := newExchange(httptest.NewRequest("POST", "/", nil))
		w := httptest.NewRecorder()
		writeError(w, x, tt.err)
		h := w.Header()
		if w.Code != tt.err.Status || h.Get("Retry-After") != tt.after || h.Get("X-Should-Retry") != tt.retry || h.Get("Content-Type") != "application/json" {
			t.Errorf("%q = %d %v", tt.err.Message, w.Code, h)
		}
		if tt.body != "" && w.Body.String() != tt.body {
			t.Errorf("= %s, want %s", w.Body, tt.body)
		}
		if strings.Contains(w.Body.String(), "10.0.0.1") {
			t.Errorf("the cause is for the log alone: %s", w.Body)
		}
		if h.Get("Content-Length") != fmt.Sprint(w.Body.Len()) {
			t.Errorf("Content-Length %s of %d", h.Get("Content-Length"), w.Body.Len())
		}
		if x.failure == nil {
			t.Error("the log is not told")
		}
	}
}

// A value that can't be encoded is an honest 500.
func TestWriteJSONFailure(t *testing.T) {
	w := httptest.NewRecorder()
	writeJSON(w, 200, func() {})
	if e := errorIn(t, w.Body.String()); w.Code != 500 || e.Type != "server_error" {
		t.Errorf("= %d %s", w.Code, w.Body)
	}
}

func TestBadJSON(t *testing.T) {
	_, err := peek([]byte(`{"model":"a","model":"b"}`))
	if e := badJSON(err); e.Param != "model" || e.Code != "duplicate_key" || !strings.Contains(e.Message, "send it once") {
		t.Errorf("= %+v", e)
	}
	_, err = peek([]byte(`{"model":}`))
	if e := badJSON(err); e.Param != "" || e.Code != "invalid_json" || !strings.Contains(e.Message, "byte 9") {
		t.Errorf("= %+v", e)
	}
}
