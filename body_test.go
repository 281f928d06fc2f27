package main

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// packers are the content encodings that requests may have, in every spelling.
var packers = []struct {
	name, encoding string
	open           func(io.Writer) io.WriteCloser
}{
	{"gzip", "gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	{"gzip in capitals", "GZip ", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	{"x-gzip", "x-gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	{"deflate with zlib", "deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	{"raw deflate", "deflate", func(w io.Writer) io.WriteCloser {
		f, _ := flate.NewWriter(w, flate.BestSpeed)
		return f
	}},
	{"identity", "identity", func(w io.Writer) io.WriteCloser { return nopWriteCloser{w} }},
}

type nopWriteCloser struct{ io.Writer }

func (nopWriteCloser) Close() error { return nil }

func pack(open func(io.Writer) io.WriteCloser, text string) string {
	var b bytes.Buffer
	w := open(&b)
	io.WriteString(w, text)
	w.Close()
	return b.String()
}

// chunked is a request whose length is not declared.
func (g *gateway) chunked(path, body string, headers ...string) *http.Response {
	g.t.Helper()
	req := g.request("POST", path, body, headers...)
	req.Body, req.ContentLength = io.NopCloser(iotest.OneByteReader(strings.NewReader(body))), -1
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		g.t.Fatalf("POST %s: %v", path, err)
	}
	g.t.Cleanup(func() { res.Body.Close() })
	return res
}

// Packed bodies are taken in every form that is accepted (AC-20).
func TestPackedRequests(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range packers {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			body := pack(tt.open, greeting)
			for way, res := range map[string]*http.Response{
				"declared": g.do("POST", path, body, "Content-Encoding: "+tt.encoding),
				"chunked":  g.chunked(path, body, "Content-Encoding: "+tt.encoding),
			} {
				if res.StatusCode != 200 {
					t.Errorf("%s, %s, %s = %d %s", tt.name, way, path, res.StatusCode, readAll(t, res))
				}
			}
			for _, seen := range g.upstream.all() {
				if seen.Body != greeting || seen.Header.Get("Content-Encoding") != "" {
					t.Fatalf("%s: the upstream got %q, encoded %q", tt.name, seen.Body, seen.Header.Get("Content-Encoding"))
				}
			}
		}
	}
}

func TestBadPackedRequests(t *testing.T) {
	g := newGateway(t, echoPath)
	gz, zl, raw := pack(packers[0].open, greeting), pack(packers[3].open, greeting), pack(packers[4].open, greeting)
	garbled := func(s string, at int) string { return s[:at] + string(s[at]^0xff) + s[at+1:] }
	for _, tt := range []struct {
		name, encoding, body string
		status               int
		code                 string
	}{
		{"not gzip", "gzip", greeting, 400, "invalid_encoding"},
		{"a gzip header alone", "gzip", gz[:5], 400, "invalid_encoding"},
		{"gzip cut off", "gzip", gz[:len(gz)-9], 400, "invalid_encoding"},
		{"gzip without its sum", "gzip", gz[:len(gz)-8], 400, "invalid_encoding"},
		{"gzip with a wrong sum", "gzip", garbled(gz, len(gz)-6), 400, "invalid_encoding"},
		{"gzip and more", "gzip", gz + "tail", 400, "invalid_encoding"},
		{"zlib cut off", "deflate", zl[:len(zl)-4], 400, "invalid_encoding"},
		{"zlib with a wrong sum", "deflate", garbled(zl, len(zl)-1), 400, "invalid_encoding"},
		{"zlib and more", "deflate", zl + "tail", 400, "invalid_encoding"},
		{"raw deflate cut off", "deflate", raw[:len(raw)-2], 400, "invalid_encoding"},
		{"raw deflate and more", "deflate", raw + "tail", 400, "invalid_encoding"},
		{"not deflate", "deflate", "\xff\xff\xff\xff", 400, "invalid_encoding"},
		{"zstd", "zstd", "\x28\xb5\x2f\xfd{}", 415, "unsupported_encoding"},
		{"br", "br", greeting, 415, "unsupported_encoding"},
		{"twice", "gzip, gzip", gz, 415, "unsupported_encoding"},
		{"nonsense", "utf-8", greeting, 415, "unsupported_encoding"},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			for way, res := range map[string]*http.Response{
				"declared": g.do("POST", path, tt.body, "Content-Encoding: "+tt.encoding),
				"chunked":  g.chunked(path, tt.body, "Content-Encoding: "+tt.encoding),
			} {
				e := errorIn(t, readAll(t, res))
				if res.StatusCode != tt.status || codeOf(e) != tt.code {
					t.Errorf("%s, %s, %s = %d %+v, want %d %s", tt.name, way, path, res.StatusCode, e, tt.status, tt.code)
				}
				if tt.status == 415 && (res.Header.Get("Accept-Encoding") != "gzip, deflate" || !strings.Contains(e.Message, "gzip, deflate")) {
					t.Errorf("%s does not say what is taken: %v %s", tt.name, res.Header, e.Message)
				}
			}
		}
	}
	g.mustBeUnasked("a body that can't be unpacked")
}

// The limit is for what a body unpacks to (AC-19).
func TestBodyLimit(t *testing.T) {
	const limit = 1000
	g := newGateway(t, echoPath, func(c *config) { c.MaxBodyBytes = limit })
	sized := func(n int) string {
		frame := `{"model":"m","messages":[{"role":"user","content":""}]}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	gz := func(body string) string { return pack(packers[0].open, body) }
	for _, tt := range []struct {
		name, body, encoding string
		status               int
	}{
		{"just under", sized(limit - 1), "", 200},
		{"the limit", sized(limit), "", 200},
		{"just over", sized(limit + 1), "", 413},
		{"packed, just under", gz(sized(limit)), "gzip", 200},
		{"packed, just over", gz(sized(limit + 1)), "gzip", 413},
		{"bomb", gz(strings.Repeat("x", 2<<20)), "gzip", 413},
		{"deflate bomb", pack(packers[4].open, strings.Repeat("x", 500<<10)), "deflate", 413},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			headers := []string{"X-Case: " + tt.name}
			if tt.encoding != "" {
				headers = append(headers, "Content-Encoding: "+tt.encoding)
			}
			for way, res := range map[string]*http.Response{"declared": g.do("POST", path, tt.body, headers...), "chunked": g.chunked(path, tt.body, headers...)} {
				body := readAll(t, res)
				if res.StatusCode != tt.status {
					t.Errorf("%s, %s, %s = %d %s, want %d", tt.name, way, path, res.StatusCode, body, tt.status)
					continue
				}
				if tt.status == 200 {
					continue
				}
				if e := errorIn(t, body); codeOf(e) != "request_too_large" || !strings.Contains(e.Message, "1000") || !strings.Contains(e.Message, "MAX_BODY_BYTES") {
					t.Errorf("%s, %s does not say why: %+v", tt.name, way, e)
				}
			}
		}
	}
	for _, seen := range g.upstream.all() {
		if len(seen.Body) > limit {
			t.Errorf("%d bytes reached the upstream", len(seen.Body))
		}
	}
}

// The declared length is enough: nothing of the body is read or invited.
func TestDeclaredLengthOverTheLimit(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1/chat/completions", "/v1/files"} {
		answer := g.speak("POST " + path + " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: 99999999999\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
		if statusOf(answer) != "413" || strings.Contains(answer, " 100 ") {
			t.Errorf("%s = %.300q", path, answer)
		}
	}
	g.mustBeUnasked("a declared length over the limit")
}

// Without a limit, a declared length costs no memory before the bytes come.
func TestDeclaredLengthIsNotBelieved(t *testing.T) {
	g := newGateway(t, echoPath, func(c *config) { c.MaxBodyBytes = 0 })
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer "+testKey+"\r\nContent-Length: 9000000000000000000\r\n\r\n{")
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	conn.Close()
	if err != nil || statusOf(string(answer)) != "400" {
		t.Errorf("= %.300q, %v", answer, err)
	}
	if log := g.log.String(); strings.Contains(log, "panic") {
		t.Error(log)
	}
}

// A body that does not come whole is not forwarded.
func TestHalfBodies(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
		for _, half := range []string{
			"Content-Length: 60\r\n\r\n" + greeting[:30],
			"Transfer-Encoding: chunked\r\n\r\n3c\r\n" + greeting[:30],
		} {
			if path == "/v1/embeddings" && strings.Contains(half, "chunked") {
				continue // forwarded as it comes, and broken off when it breaks off
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer "+testKey+"\r\n"+half)
			conn.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(conn)
			conn.Close()
			if statusOf(string(answer)) != "400" {
				t.Errorf("%s, %.30q = %.200q, want 400", path, half, answer)
			}
		}
	}
	g.mustBeUnasked("half a body")
}

func TestBadBodies(t *testing.T) {
	g := newGateway(t, echoPath)
	const session = "X-Session-Id: bad-bodies"
	for _, tt := range []struct{ name, body, code, param, says string }{
		{"empty", "", "invalid_json", "", "empty"},
		{"space", "  \n", "invalid_json", "", "empty"},
		{"BOM alone", "\ufeff", "invalid_json", "", "empty"},
		{"not JSON", "hello", "invalid_json", "", "byte 0"},
		{"form", "model=m&messages=x", "invalid_json", "", "byte 0"},
		{"array", "[]", "invalid_json", "", "object"},
		{"string", `"x"`, "invalid_json", "", "object"},
		{"null", "null", "invalid_json", "", "object"},
		{"cut off", greeting[:40], "invalid_json", "", ""},
		{"trailing data", greeting + "x", "invalid_json", "", "after"},
		{"two objects", greeting + greeting, "invalid_json", "", "after"},
		{"depth", `{"messages":` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "}", "invalid_json", "", "deep"},
		{"not UTF-8", `{"messages":[{"role":"user","content":"` + "\xff" + `"}]}`, "invalid_json", "", "UTF-8"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "invalid_json", "", "byte 0"},
		{"two models", `{"model":"a","model":"b","messages":[]}`, "duplicate_key", "model", "once"},
		{"two messages", `{"messages":[],"m\u0065ssages":[]}`, "duplicate_key", "messages", "once"},
		{"no messages", `{"model":"m"}`, "missing_required_parameter", "messages", "messages"},
		{"messages null", `{"messages":null}`, "missing_required_parameter", "messages", "messages"},
		{"messages a string", `{"messages":"hi"}`, "invalid_type", "messages", "array"},
		{"messages an object", `{"messages":{}}`, "invalid_type", "messages", "array"},
		{"model a number", `{"model":1,"messages":[]}`, "invalid_type", "model", "string"},
		{"stream a string", `{"stream":"true","messages":[]}`, "invalid_type", "stream", "true or false"},
		{"stream_options a list", `{"stream_options":[],"messages":[]}`, "invalid_type", "stream_options", "object"},
	} {
		res, body := g.chat(tt.body, session)
		e := errorIn(t, body)
		if res.StatusCode != 400 || e.Type != "invalid_request_error" || codeOf(e) != tt.code || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%s = %d %s, want 400 %s saying %q", tt.name, res.StatusCode, body, tt.code, tt.says)
		}
		if (e.Param == nil) != (tt.param == "") || e.Param != nil && *e.Param != tt.param {
			t.Errorf("%s: param in %s, want %q", tt.name, body, tt.param)
		}
		if res.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%s invites another try", tt.name)
		}
	}
	g.mustBeUnasked("a bad body")
	if res := g.do("GET", "/context/bad-bodies", ""); res.StatusCode != 404 {
		t.Errorf("a bad body left a trace in the session: %d", res.StatusCode)
	}
}

// A byte order mark is taken off: no upstream accepts it.
func TestByteOrderMark(t *testing.T) {
	g := newGateway(t, echoPath)
	if res, body := g.chat("\ufeff" + greeting); res.StatusCode != 200 || g.last().Body != greeting {
		t.Errorf("= %d %s, upstream %q", res.StatusCode, body, g.last().Body)
	}
}

// fakeBody is a client that sends so much at each read, and a clock for it.
type fakeBody struct {
	now      time.Time
	step     time.Duration // between reads
	size     int           // of each
	deadline time.Time
	set      int
}

func (f *fakeBody) SetReadDeadline(at time.Time) error {
	f.deadline = at
	f.set++
	return nil
}

// sendsFor plays the client against a pacedBody until the deadline passes, at
// most for so long, and returns how long it held out.
func (f *fakeBody) sendsFor(limit time.Duration) time.Duration {
	start := time.Unix(1e9, 0)
	f.now = start
	b := &pacedBody{control: f, start: start, left: -1}
	for f.now.Sub(start) < limit {
		b.extend(f.now)
		if f.now = f.now.Add(f.step); f.now.After(f.deadline) {
			return f.deadline.Sub(start)
		}
		b.count += int64(f.size)
	}
	return limit
}

func TestBodyPace(t *testing.T) {
	for _, tt := range []struct {
		name string
		fake fakeBody
		want time.Duration
	}{
		{"nothing comes", fakeBody{step: time.Hour}, bodyStall},
		{"a byte now and then", fakeBody{step: 20 * time.Second, size: 1}, bodyStall},
		{"half the pace", fakeBody{step: time.Second, size: slowestBody / 2}, 2 * bodyStall},
		{"twice the pace", fakeBody{step: time.Second, size: 2 * slowestBody}, time.Hour},
		{"a fast upload", fakeBody{step: time.Millisecond, size: 32 << 10}, time.Minute},
	} {
		limit := time.Hour
		if tt.want == time.Minute {
			limit = time.Minute
		}
		got := tt.fake.sendsFor(limit)
		if got < tt.want-time.Second || got > tt.want+bodyStall/2 {
			t.Errorf("%s is given %v, want about %v", tt.name, got, tt.want)
		}
	}
	f := fakeBody{step: time.Millisecond, size: 32 << 10}
	if f.sendsFor(time.Minute); f.set > 3 {
		t.Errorf("%d deadlines were set in a minute", f.set)
	}
}

// The deadline for the body must not end the wait for the answer; and one that
// has passed stays, so that the connection is given up.
func TestPacedBodyLetsGo(t *testing.T) {
	var f fakeBody
	b := &pacedBody{src: iotest.OneByteReader(strings.NewReader("abc")), control: &f, start: time.Now(), left: -1}
	if _, err := io.ReadAll(b); err != nil || b.count != 3 || !f.deadline.IsZero() {
		t.Errorf("after the end: %v, %d bytes, deadline %v", err, b.count, f.deadline)
	}
	b = &pacedBody{src: iotest.ErrReader(os.ErrDeadlineExceeded), control: &f, start: time.Now(), left: -1}
	if _, err := io.ReadAll(b); !errors.Is(err, os.ErrDeadlineExceeded) || f.deadline.IsZero() {
		t.Errorf("after a stall: %v, deadline %v", err, f.deadline)
	}
}

// brokenBody is a request whose body fails after its beginning.
func brokenBody(path string, err error, headers ...string) *http.Request {
	r := httptest.NewRequest("POST", path, io.MultiReader(strings.NewReader(`{"model":`), iotest.ErrReader(err)))
	r.ContentLength = -1
	r.Header.Set("Authorization", "Bearer "+testKey)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	return r
}

func TestBodyThatFails(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct {
		name   string
		err    error
		status int
		code   string
	}{
		{"stalled", fmt.Errorf("read: %w", os.ErrDeadlineExceeded), 408, "request_timeout"},
		{"broken off", io.ErrUnexpectedEOF, 400, ""},
		{"reset", errors.New("connection reset by peer"), 400, ""},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			for _, encoding := range []string{"", "gzip", "deflate"} {
				w := httptest.NewRecorder()
				r := brokenBody(path, tt.err)
				if encoding != "" {
					r = brokenBody(path, tt.err, "Content-Encoding: "+encoding)
					r.Body = io.NopCloser(io.MultiReader(strings.NewReader(pack(packers[0].open, greeting)[:12]), iotest.ErrReader(tt.err)))
					if encoding == "deflate" {
						r.Body = io.NopCloser(io.MultiReader(strings.NewReader(pack(packers[3].open, greeting)[:5]), iotest.ErrReader(tt.err)))
					}
				}
				g.server.Handler().ServeHTTP(w, r)
				if path == "/v1/embeddings" && encoding == "" {
					// Its beginning went upstream before it failed.
					if w.Code != tt.status && w.Code != 502 {
						t.Errorf("%s, %s = %d %s", tt.name, path, w.Code, w.Body)
					}
					continue
				}
				code := tt.code
				if tt.err == io.ErrUnexpectedEOF && encoding != "" {
					code = "invalid_encoding" // an early end says no more than that
				}
				if e := errorIn(t, w.Body.String()); w.Code != tt.status || codeOf(e) != code {
					t.Errorf("%s, %s, %q = %d %s, want %d %s", tt.name, path, encoding, w.Code, w.Body, tt.status, code)
				}
			}
		}
	}
}

// A client that leaves is noticed however its body came.
func TestLeavingAfterPackedBody(t *testing.T) {
	for _, tt := range packers {
		left := make(chan struct{})
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
				close(left)
			case <-time.After(10 * time.Second):
			}
		})
		body := pack(tt.open, greeting)
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Encoding: %s\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n",
			testKey, tt.encoding, len(body), body)
		time.Sleep(10 * time.Millisecond) // the end of the body is a packet of its own
		io.WriteString(conn, "0\r\n\r\n")
		eventually(t, tt.name+": reaching the upstream", func() bool { return len(g.upstream.all()) == 1 })
		conn.Close()
		select {
		case <-left:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the upstream call went on without the client", tt.name)
		}
	}
}

// An upstream may answer before it has read the body. What the gateway notes of
// the body must not race with its log line, and the client's connection must stay
// good for the next request.
func TestAnswerBeforeTheBodyEnds(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		answerJSON(422, `{"error":{"message":"no","type":"invalid_request_error"}}`)(w, r)
	}))
	defer up.Close()
	g := newGateway(t, echoPath, func(c *config) {
		c.LogBodies = true
		c.BaseURL.Host = strings.TrimPrefix(up.URL, "http://")
	})
	for _, pieces := range []int{3, 20} {
		for range 20 {
			body, end := io.Pipe()
			req := g.request("POST", "/v1/files", "x")
			req.Body, req.ContentLength = body, -1
			go func() {
				piece := bytes.Repeat([]byte("p"), 32<<10)
				for range pieces {
					if _, err := end.Write(piece); err != nil {
						return
					}
				}
				end.Close()
			}()
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				if pieces == 3 {
					t.Errorf("no answer: %v", err)
				}
				continue // much is left to send: the server closes the connection instead
			}
			if io.Copy(io.Discard, res.Body); res.StatusCode != 422 && res.StatusCode != 502 {
				t.Errorf("= %d", res.StatusCode)
			}
			res.Body.Close()
			body.Close()
		}
	}
	g.mustLog(`"request_body":"pppp`)
}

func TestUnpackAnySplit(t *testing.T) {
	long := strings.Repeat(greeting, 500)
	for _, tt := range packers[:5] {
		for _, text := range []string{"", "x", greeting, long} {
			packed := pack(tt.open, text)
			for way, r := range map[string]io.Reader{
				"whole":      strings.NewReader(packed),
				"bytes":      iotest.OneByteReader(strings.NewReader(packed)),
				"early EOF":  iotest.DataErrReader(strings.NewReader(packed)),
				"small ones": iotest.HalfReader(strings.NewReader(packed)),
			} {
				u, err := unpack(r, strings.ToLower(strings.TrimSpace(tt.encoding)))
				if err != nil {
					t.Errorf("%s of %d bytes, %s: %v", tt.name, len(text), way, err)
					continue
				}
				if got, err := io.ReadAll(u); err != nil || string(got) != text {
					t.Errorf("%s of %d bytes, %s = %d bytes, %v", tt.name, len(text), way, len(got), err)
				}
			}
		}
	}
}
