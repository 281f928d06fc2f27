package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// speak sends raw bytes to the gateway on a connection of its own and returns
// all that comes back until the gateway closes it, or is done for a while.
func (g *gateway) speak(raw string) string {
	g.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, raw); err != nil {
		g.t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil && len(answer) == 0 {
		g.t.Fatalf("%.60q: no answer: %v", raw, err)
	}
	return string(answer)
}

// statusOf is the status code of a raw answer, "" for none.
func statusOf(raw string) string {
	_, rest, _ := strings.Cut(raw, " ")
	return rest[:min(3, len(rest))]
}

// errorIn reads an error body, which must have OpenAI's shape and nothing else.
func errorIn(t *testing.T, body string) openaiErrorDetail {
	t.Helper()
	var shape map[string]map[string]any
	var e openaiError
	if err := json.Unmarshal([]byte(body), &shape); err != nil {
		t.Fatalf("the error is not JSON: %v in %q", err, body)
	}
	for _, key := range []string{"message", "type", "param", "code"} {
		if _, ok := shape["error"][key]; !ok {
			t.Fatalf("the error lacks %q: %s", key, body)
		}
	}
	if err := json.Unmarshal([]byte(body), &e); err != nil {
		t.Fatal(err)
	}
	return e.Error
}

func codeOf(e openaiErrorDetail) string {
	if e.Code == nil {
		return ""
	}
	return *e.Code
}

// mustBeUnasked fails the test when anything has reached the upstream.
func (g *gateway) mustBeUnasked(why string) {
	g.t.Helper()
	if all := g.upstream.all(); len(all) > 0 {
		g.t.Errorf("%s: %s %s reached the upstream", why, all[len(all)-1].Method, all[len(all)-1].URL)
	}
}

// mustLog waits for a text in the log: the line of a request is written after its
// answer.
func (g *gateway) mustLog(want string) {
	g.t.Helper()
	eventually(g.t, "logging "+want, func() bool { return strings.Contains(g.log.String(), want) })
}

const greeting = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

// echoPath answers every request with a chat completion, or with the model list
// where that is asked for.
func echoPath(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/models") {
		answerJSON(200, `{"object":"list","data":[{"id":"m","object":"model"},{"id":"org/name","object":"model"}]}`)(w, r)
		return
	}
	answerJSON(200, completion("hi"))(w, r)
}

func TestRoutesUnderEveryPrefix(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct{ method, path, upstream string }{
		{"POST", "/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/chat/completions", "/v1/chat/completions"},
		{"POST", "/v1/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/v1/v1/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/openai/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/openai/chat/completions", "/v1/chat/completions"},
		{"POST", "/anthropic/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/gemini/v1/v1/chat/completions", "/v1/chat/completions"},
		{"POST", "/v1/chat/completions/", "/v1/chat/completions"},
		{"POST", "/v1/chat/completions?beta=true", "/v1/chat/completions?beta=true"},
		{"POST", "/embeddings", "/v1/embeddings"},
		{"POST", "/openai/embeddings", "/v1/embeddings"},
		{"GET", "/files/a/content", "/v1/files/a/content"},
		{"PATCH", "/v1/anything/at%20all?x=%41&x=2", "/v1/anything/at%20all?x=%41&x=2"},
		{"GET", "/v1/files/a%2Fb", "/v1/files/a%2Fb"},
		{"DELETE", "/v1/models/org/name", "/v1/models/org/name"},
		{"DELETE", "/models/org%2Fname", "/v1/models/org%2Fname"},
		{"POST", "/audio/speech", "/v1/audio/speech"},
		{"POST", "/images/generations", "/v1/images/generations"},
		{"POST", "/completions", "/v1/completions"},
		{"POST", "/moderations", "/v1/moderations"},
		{"POST", "/rerank", "/v1/rerank"},
		{"POST", "/batches", "/v1/batches"},
		{"POST", "/uploads/u1/parts", "/v1/uploads/u1/parts"},
		{"POST", "/fine_tuning/jobs", "/v1/fine_tuning/jobs"},
		{"GET", "/vector_stores/v/files", "/v1/vector_stores/v/files"},
		{"GET", "/assistants", "/v1/assistants"},
		{"POST", "/threads", "/v1/threads"},
		{"POST", "/v1/models/m:other", ""},
		{"GET", "/v1/models", "/v1/models"},
	} {
		body := ""
		if tt.method == "POST" || tt.method == "PATCH" {
			body = greeting
		}
		before := len(g.upstream.all())
		res := g.do(tt.method, tt.path, body)
		answer := readAll(t, res)
		if tt.upstream == "" {
			if len(g.upstream.all()) != before {
				t.Errorf("%s %s went upstream", tt.method, tt.path)
			}
			continue
		}
		if res.StatusCode != 200 {
			t.Errorf("%s %s = %d %s", tt.method, tt.path, res.StatusCode, answer)
			continue
		}
		if got := g.last().URL.RequestURI(); got != tt.upstream {
			t.Errorf("%s %s asked the upstream for %s, want %s", tt.method, tt.path, got, tt.upstream)
		}
	}
}

func TestModelIDsWithSlashes(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1/models/org/name", "/models/org/name", "/v1/models/org%2Fname", "/openai/models/org%2Fname"} {
		res := g.do("GET", path, "")
		if body := readAll(t, res); res.StatusCode != 200 || text(member([]byte(body), "id")) != "org/name" {
			t.Errorf("GET %s = %d %s", path, res.StatusCode, body)
		}
	}
	res := g.do("GET", "/v1/models/org/none", "")
	if e := errorIn(t, readAll(t, res)); res.StatusCode != 404 || codeOf(e) != "model_not_found" {
		t.Errorf("an unknown model = %d %+v", res.StatusCode, e)
	}
}

func TestSessionIDsReadBack(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct{ id, path string }{
		{"plain", "plain"},
		{"plain2", "plain2/"},
		{"a/b", "a/b"},
		{"a/b", "a%2Fb"},
		{"a//b", "a%2F%2Fb"},
		{"/x/", "%2Fx%2F"},
		{"%2e%2e", "%252e%252e"},
		{"../up", "..%2Fup"},
		{"a?b#c", "a%3Fb%23c"},
		{"x*[^a]{h}", "x*%5B%5Ea%5D%7Bh%7D"},
		{"\\r\\nDEL", "%5Cr%5CnDEL"},
		{strings.Repeat("i", 255), strings.Repeat("i", 255)},
	} {
		if res, body := g.chat(greeting, "X-Session-Id: "+tt.id); res.StatusCode != 200 {
			t.Errorf("X-Session-Id %q = %d %s", tt.id, res.StatusCode, body)
			continue
		}
		for _, prefix := range []string{"", "/openai"} {
			res := g.do("GET", prefix+"/context/"+tt.path, "")
			if body := readAll(t, res); res.StatusCode != 200 || text(member([]byte(body), "session_id")) != tt.id {
				t.Errorf("GET %s/context/%s = %d %s, want the session %q", prefix, tt.path, res.StatusCode, body, tt.id)
			}
		}
	}
	for _, id := range []string{"..", ".", "..;a", "a b", "é", "tab\there", strings.Repeat("i", 256)} {
		if res, body := g.chat(greeting, "X-Session-Id: "+id); res.StatusCode != 400 || *errorIn(t, body).Param != "X-Session-Id" {
			t.Errorf("X-Session-Id %q = %d %s, want 400", id, res.StatusCode, body)
		}
	}
}

func TestPathsOutOfCanonicalForm(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{
		"//", "//v1/models", "/v1//models", "/v1/models//", "/openai//v1/models", "/openai//",
		"/v1/../v1/models", "/v1/models/..", "/v1/./models", "/..", "/openai/../health",
		"/v1/%2e%2e/models", "/v1/%2E./models", "/v1/%252e%252e/models", "/v1/files/%25252e%25252e/x",
		"/v1/files/..%2Fmodels", "/v1/files/a%2F..%2Fb", "/v1/files/..%5Cmodels", "/v1/files/a%2F%2Fb", "/v1/files/%2F",
		"/v1/..;/models", "/v1/..;a=b/models", "/v1/.;/models", "/v1/%2e%2e%3b/models",
		"/v1/files/%00", "/v1/files/a%0d%0ab", "/v1/files/a%0A", "/v1/files/%7f", "/v1/models/%00",
		"/context/%00", "/context/..", "/context/%2e%2e", "/context//a",
	} {
		answer := g.speak("GET " + path + " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\nConnection: close\r\n\r\n")
		if statusOf(answer) != "400" || !strings.Contains(answer, `"code":"invalid_path"`) {
			t.Errorf("GET %s = %.300q, want 400 invalid_path", path, answer)
		}
	}
	g.mustBeUnasked("a path out of canonical form")
}

func TestUnknownPathsAre404(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1", "/v1/", "/openai/v1", "/context", "/context/", "/admin", "/debug/pprof/", "/V1/models", "/models2", "/index.html", "/metrics2"} {
		for _, method := range []string{"GET", "POST"} {
			res := g.do(method, path, "")
			e := errorIn(t, readAll(t, res))
			if res.StatusCode != 404 || codeOf(e) != "unknown_url" || !strings.Contains(e.Message, "/v1/chat/completions") {
				t.Errorf("%s %s = %d %+v, want 404 unknown_url", method, path, res.StatusCode, e)
			}
			if res.Header.Get("X-Should-Retry") != "false" {
				t.Errorf("%s %s invites another try", method, path)
			}
		}
	}
	g.mustBeUnasked("an unknown path")
}

func TestWrongMethodNamesAllow(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct{ method, path, allow string }{
		{"GET", "/v1/chat/completions", "POST"},
		{"HEAD", "/v1/chat/completions", "POST"},
		{"PUT", "/chat/completions", "POST"},
		{"DELETE", "/openai/v1/chat/completions", "POST"},
		{"OPTIONS", "/v1/chat/completions", "POST"},
		{"POST", "/v1/models", "GET, HEAD"},
		{"PUT", "/v1/models/m", "DELETE, GET, HEAD, POST"},
		{"POST", "/context/s", "DELETE, GET, HEAD"},
		{"POST", "/", "GET, HEAD"},
		{"DELETE", "/health", "GET, HEAD"},
		{"POST", "/ready", "GET, HEAD"},
		{"POST", "/metrics", "GET, HEAD"},
		{"TRACE", "/v1/models", everyMethod},
		{"TRACE", "/", everyMethod},
	} {
		res := g.do(tt.method, tt.path, "")
		body := readAll(t, res)
		if got := res.Header.Get("Allow"); res.StatusCode != 405 || got != tt.allow {
			t.Errorf("%s %s = %d, Allow %q; want 405, %q", tt.method, tt.path, res.StatusCode, got, tt.allow)
		}
		if tt.method != "HEAD" && codeOf(errorIn(t, body)) != "method_not_allowed" {
			t.Errorf("%s %s = %s", tt.method, tt.path, body)
		}
		if strings.Contains(body, testKey) {
			t.Errorf("%s %s echoes the request: %s", tt.method, tt.path, body)
		}
	}
	g.mustBeUnasked("a wrong method")
}

func TestAsteriskIsNoPath(t *testing.T) {
	for _, path := range []string{"", "*", "v1/models"} {
		if got, err := canonicalPath(path); err == nil {
			t.Errorf("canonicalPath(%q) = %q, want an error", path, got)
		}
	}
}

// A header that names another method changes nothing.
func TestMethodOverrideIsIgnored(t *testing.T) {
	g := newGateway(t, echoPath)
	res := g.do("GET", "/v1/chat/completions", "", "X-HTTP-Method-Override: POST", "X-Method-Override: POST", "X-Original-Url: /health", "X-Rewrite-Url: /health")
	if res.StatusCode != 405 {
		t.Errorf("GET with overrides = %d, want 405", res.StatusCode)
	}
	g.mustBeUnasked("a method override")
}

func TestOpenPaths(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct{ method, path, contains string }{
		{"GET", "/health", `"status":"ok"`},
		{"GET", "/openai/health", `"status":"ok"`},
		{"GET", "/ready", `"status":"ready"`},
		{"GET", "/", "<!doctype html>"},
		{"GET", "/anthropic", "<!doctype html>"},
		{"HEAD", "/", ""},
		{"HEAD", "/health", ""},
	} {
		res := g.do(tt.method, tt.path, "", "Authorization: ")
		body := readAll(t, res)
		if res.StatusCode != 200 || !strings.Contains(body, tt.contains) {
			t.Errorf("%s %s without a key = %d %s", tt.method, tt.path, res.StatusCode, body)
		}
		if tt.method == "HEAD" && (body != "" || res.ContentLength <= 0) {
			t.Errorf("HEAD %s: body %q, length %d", tt.path, body, res.ContentLength)
		}
		if res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s lacks nosniff", tt.method, tt.path)
		}
		for _, secret := range []string{testKey, testUpstream, g.server.cfg.BaseURL.Host} {
			if strings.Contains(body, secret) {
				t.Errorf("%s %s tells %q", tt.method, tt.path, secret)
			}
		}
	}
	page := g.do("GET", "/", "", "Authorization: ")
	if csp := page.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("the page's policy is %q", csp)
	}
}

// What is not plain HTTP/1 is refused without switching protocols, echoing or
// failing.
func TestOtherProtocols(t *testing.T) {
	g := newGateway(t, echoPath)
	auth := "Host: gateway\r\nAuthorization: Bearer " + testKey + "\r\n"
	upgrade := "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for _, tt := range []struct{ name, raw, status string }{
		{"WebSocket on responses", "GET /v1/responses HTTP/1.1\r\n" + auth + upgrade + "Upgrade: websocket\r\n\r\n", "426"},
		{"the same without v1", "GET /responses HTTP/1.1\r\n" + auth + upgrade + "Upgrade: WebSocket\r\n\r\n", "426"},
		{"WebSocket elsewhere", "GET /v1/realtime HTTP/1.1\r\n" + auth + upgrade + "Upgrade: websocket\r\n\r\n", "400"},
		{"WebSocket in a list", "GET /v1/realtime HTTP/1.1\r\n" + auth + upgrade + "Upgrade: h2c, websocket/13\r\n\r\n", "400"},
		{"WebSocket, second header", "GET /v1/realtime HTTP/1.1\r\n" + auth + upgrade + "Upgrade: h2c\r\nUpgrade: websocket\r\n\r\n", "400"},
		{"WebSocket without a key", "GET /v1/responses HTTP/1.1\r\nHost: gateway\r\n" + upgrade + "Upgrade: websocket\r\n\r\n", "426"},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\n" + auth + "\r\n", "405"},
		{"CONNECT with a path", "CONNECT /v1/models HTTP/1.1\r\n" + auth + "\r\n", "405"},
		{"TRACE", "TRACE /v1/models HTTP/1.1\r\n" + auth + "\r\n", "405"},
		{"h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "400"},
		{"garbage", "hello gateway\r\n\r\n", "400"},
		{"HTTP/3.0", "GET /v1/models HTTP/3.0\r\n" + auth + "\r\n", "505"},
		{"no Host", "GET /v1/models HTTP/1.1\r\nAuthorization: Bearer " + testKey + "\r\n\r\n", "400"},
		{"two Hosts", "GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		{"a space in a header name", "GET /v1/models HTTP/1.1\r\n" + auth + "X-Api-Key : k\r\n\r\n", "400"},
		{"a folded header", "GET /v1/models HTTP/1.1\r\n X: y\r\n" + auth + "\r\n", "400"},
	} {
		answer := g.speak(tt.raw)
		if got := statusOf(answer); got != tt.status {
			t.Errorf("%s: %.200q, want %s", tt.name, answer, tt.status)
		}
		if strings.Contains(answer, testKey) {
			t.Errorf("%s: echoed %q", tt.name, answer)
		}
		if strings.Contains(tt.name, "WebSocket") && !strings.Contains(answer, "Connection: close") {
			t.Errorf("%s: the connection stays open: %q", tt.name, answer)
		}
		if tt.status == "405" && !strings.Contains(answer, "Allow: "+everyMethod) {
			t.Errorf("%s: no Allow in %q", tt.name, answer)
		}
	}
	g.mustBeUnasked("another protocol")
}

// An offer to speak HTTP/2 without TLS is passed over, and does not travel on.
func TestH2COfferIsIgnored(t *testing.T) {
	g := newGateway(t, echoPath)
	answer := g.speak("GET /v1/models HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey +
		"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nGET /health HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
	if statusOf(answer) != "200" || strings.Contains(answer, " 101 ") || strings.Count(answer, "HTTP/1.1 200") != 2 {
		t.Errorf("an h2c offer = %.300q", answer)
	}
	for _, name := range []string{"Upgrade", "Http2-Settings", "Connection"} {
		if v := g.last().Header.Get(name); v != "" {
			t.Errorf("%s: %s reached the upstream", name, v)
		}
	}
}

func TestHTTPBasics(t *testing.T) {
	g := newGateway(t, echoPath)
	key := "Authorization: Bearer " + testKey + "\r\n"
	post := func(version, headers string) string {
		return "POST /v1/chat/completions HTTP/" + version + "\r\nHost: gateway\r\n" + key + "Content-Type: application/json\r\n" + headers
	}
	length := "Content-Length: 60\r\n"
	if len(greeting) != 60 {
		t.Fatalf("greeting has %d bytes", len(greeting))
	}
	t.Run("HTTP/1.0", func(t *testing.T) {
		answer := g.speak(post("1.0", length) + "\r\n" + greeting)
		if statusOf(answer) != "200" || !strings.HasSuffix(answer, completion("hi")) || strings.Contains(answer, "chunked") {
			t.Errorf("%q", answer)
		}
	})
	t.Run("pipelining", func(t *testing.T) {
		answer := g.speak(post("1.1", length) + "\r\n" + greeting + post("1.1", length+"Connection: close\r\n") + "\r\n" + greeting)
		if n := strings.Count(answer, "HTTP/1.1 200 OK"); n != 2 {
			t.Errorf("%d answers in %q", n, answer)
		}
	})
	t.Run("100-continue", func(t *testing.T) {
		answer := g.speak(post("1.1", length+"Expect: 100-continue\r\nConnection: close\r\n") + "\r\n" + greeting)
		if !strings.HasPrefix(answer, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK") {
			t.Errorf("%q", answer)
		}
	})
	t.Run("100-continue with a wrong key", func(t *testing.T) {
		answer := g.speak("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer wrong\r\n" + length + "Expect: 100-continue\r\nConnection: close\r\n\r\n")
		if statusOf(answer) != "401" || strings.Contains(answer, " 100 ") {
			t.Errorf("the body was invited: %q", answer)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		res := g.do("HEAD", "/v1/models", "")
		if body := readAll(t, res); res.StatusCode != 200 || body != "" {
			t.Errorf("HEAD /v1/models = %d %q", res.StatusCode, body)
		}
	})
}

// The destination is the configured upstream, whatever a request names.
func TestClientCannotChooseDestination(t *testing.T) {
	g := newGateway(t, echoPath)
	host := g.server.cfg.BaseURL.Host
	for _, line := range []string{
		"GET http://evil.example/v1/files HTTP/1.1\r\nHost: evil.example",
		"GET http://169.254.169.254/v1/files HTTP/1.1\r\nHost: gateway",
		"GET /v1/files HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example",
		"GET /v1/files HTTP/1.1\r\nHost: gateway\r\nX-Upstream-Url: http://evil.example\r\nX-Base-Url: http://evil.example",
	} {
		answer := g.speak(line + "\r\nAuthorization: Bearer " + testKey + "\r\nConnection: close\r\n\r\n")
		if statusOf(answer) != "200" {
			t.Errorf("%q = %.200q", line, answer)
			continue
		}
		got := g.last()
		if got.Host != host || got.URL.RequestURI() != "/v1/files" {
			t.Errorf("%q reached %s%s, want %s/v1/files", line, got.Host, got.URL, host)
		}
		if strings.Contains(strings.Join(flatten(got.Header), "\n"), "evil") {
			t.Errorf("%q sent %v upstream", line, got.Header)
		}
	}
}

func flatten(h http.Header) []string {
	var lines []string
	for name, values := range h {
		for _, v := range values {
			lines = append(lines, name+": "+v)
		}
	}
	slices.Sort(lines)
	return lines
}

// Two readers of the same bytes must not find two different requests in them.
func TestAmbiguousFraming(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, tt := range []struct{ name, headers, body string }{
		{"two lengths", "Content-Length: 60\r\nContent-Length: 61", greeting},
		{"a list of lengths", "Content-Length: 60, 61", greeting},
		{"negative length", "Content-Length: -1", greeting},
		{"signed length", "Content-Length: +60", greeting},
		{"length overflow", "Content-Length: 18446744073709551676", greeting},
		{"unknown coding", "Transfer-Encoding: gzip", greeting},
		{"two codings", "Transfer-Encoding: gzip, chunked", "3c\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "3c\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"misspelt coding", "Transfer-Encoding: xchunked", "3c\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"bare LF chunks", "Transfer-Encoding: chunked", "3c\n" + greeting + "\n0\n\n"},
		{"chunk overflow", "Transfer-Encoding: chunked", "1000000000000003c\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"chunk size with a sign", "Transfer-Encoding: chunked", "+3c\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"chunk longer than its size", "Transfer-Encoding: chunked", "3b\r\n" + greeting + "\r\n0\r\n\r\n"},
		{"a null in a header", "X-Title: a\x00b\r\nContent-Length: 60", greeting},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
			answer := g.speak("POST " + path + " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\n" + tt.headers + "\r\nConnection: close\r\n\r\n" + tt.body)
			if got := statusOf(answer); got != "" && got[0] != '4' && got != "501" {
				t.Errorf("%s on %s = %.200q, want a refusal", tt.name, path, answer)
			}
		}
	}
	g.mustBeUnasked("ambiguous framing")
}

func TestCORS(t *testing.T) {
	allow := func(origins ...string) func(*config) { return func(c *config) { c.CORSOrigins = origins } }
	preflight := []string{"Authorization: ", "Origin: https://app.example", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization, x-session-id"}
	t.Run("off", func(t *testing.T) {
		g := newGateway(t, echoPath)
		res := g.do("OPTIONS", "/v1/chat/completions", "", preflight...)
		if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a preflight = %d %v", res.StatusCode, res.Header)
		}
	})
	t.Run("preflight", func(t *testing.T) {
		g := newGateway(t, echoPath, allow("https://app.example"))
		res := g.do("OPTIONS", "/v1/chat/completions", "", preflight...)
		h := res.Header
		if res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "https://app.example" ||
			h.Get("Access-Control-Allow-Headers") != "authorization, x-session-id" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") {
			t.Errorf("a preflight = %d %v", res.StatusCode, h)
		}
		g.mustBeUnasked("a preflight")
	})
	t.Run("other origin", func(t *testing.T) {
		g := newGateway(t, echoPath, allow("https://app.example"))
		for _, origin := range []string{"https://evil.example", "https://app.example.evil.example", "http://app.example", "null"} {
			res := g.do("OPTIONS", "/v1/chat/completions", "", append(preflight, "Origin: "+origin)...)
			if res.StatusCode != 401 || res.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("a preflight from %s = %d %v", origin, res.StatusCode, res.Header)
			}
		}
	})
	t.Run("answers", func(t *testing.T) {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://upstream.example")
			w.Header().Set("Access-Control-Allow-Credentials", "true")
			echoPath(w, r)
		}, allow("*"))
		for _, key := range []string{"Bearer " + testKey, "Bearer wrong"} {
			res := g.do("POST", "/v1/chat/completions", greeting, "Origin: https://any.example", "Authorization: "+key)
			if got := res.Header["Access-Control-Allow-Origin"]; len(got) != 1 || got[0] != "https://any.example" {
				t.Errorf("%d with Access-Control-Allow-Origin %q", res.StatusCode, got)
			}
			if res.Header.Get("Access-Control-Allow-Credentials") != "" || !slices.Contains(res.Header["Vary"], "Origin") {
				t.Errorf("%d with %v", res.StatusCode, res.Header)
			}
		}
	})
}

// Beyond MAX_CONCURRENT a request is refused in its dialect, whatever it is, before
// its body is read or invited; what is open is still there.
func TestMaxConcurrent(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{}, 2)
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-hold
		echoPath(w, r)
	}, func(c *config) { c.MaxConcurrent = 2 })
	done := make(chan int, 2)
	for range 2 {
		go func() {
			res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/chat/completions", greeting))
			if err != nil {
				done <- 0
				return
			}
			res.Body.Close()
			done <- res.StatusCode
		}()
		<-entered
	}
	res, body := g.chat(greeting)
	if e := errorIn(t, body); res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" || codeOf(e) != "server_is_overloaded" {
		t.Errorf("one too many = %d %v %s", res.StatusCode, res.Header, body)
	}
	for _, c := range vendorClients {
		res, body := g.post(c.path, c.body)
		want := map[string]string{"anthropic": "529 overloaded_error", "responses": "503 server_error server_is_overloaded"}[c.name]
		if got := fmt.Sprint(res.StatusCode, " ", errorOf(t, c.name, body)); got != cmp.Or(want, "503 503 UNAVAILABLE") || res.Header.Get("Retry-After") != "1" {
			t.Errorf("%s: %s, %v %s", c.name, got, res.Header, body)
		}
	}
	answer := g.speak("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: 60\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
	if statusOf(answer) != "503" || strings.Contains(answer, " 100 ") {
		t.Errorf("the body of one too many was invited: %q", answer)
	}
	for _, path := range []string{"/health", "/ready", "/"} {
		if res := g.do("GET", path, "", "Authorization: "); res.StatusCode != 200 {
			t.Errorf("GET %s under load = %d", path, res.StatusCode)
		}
	}
	close(hold)
	for range 2 {
		if status := <-done; status != 200 {
			t.Errorf("an admitted request = %d", status)
		}
	}
	if res, body := g.chat(greeting); res.StatusCode != 200 {
		t.Errorf("afterwards = %d %s", res.StatusCode, body)
	}
}

func TestDraining(t *testing.T) {
	hold, entered := make(chan struct{}), make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-hold
		echoPath(w, r)
	})
	done := make(chan string)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/chat/completions", greeting))
		if err != nil {
			done <- err.Error()
			return
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		done <- string(body)
	}()
	<-entered
	g.server.StartDraining()
	res, body := g.chat(greeting)
	if e := errorIn(t, body); res.StatusCode != 503 || codeOf(e) != "shutting_down" || res.Header.Get("Retry-After") == "" || !res.Close {
		t.Errorf("a new request = %d %v %s", res.StatusCode, res.Header, body)
	}
	if res := g.do("GET", "/ready", ""); res.StatusCode != 503 || !strings.Contains(readAll(t, res), "draining") {
		t.Errorf("ready = %d", res.StatusCode)
	}
	if res := g.do("GET", "/health", ""); res.StatusCode != 200 {
		t.Errorf("health = %d", res.StatusCode)
	}
	close(hold)
	if got := <-done; got != completion("hi") {
		t.Errorf("the request in flight got %s", got)
	}
}

// moodyStore is a store that is there, or is not, or breaks the program.
type moodyStore struct {
	Store
	down  atomic.Bool
	panic string
}

func (m *moodyStore) Ping(ctx context.Context) error {
	if m.down.Load() {
		return errStoreDown
	}
	return m.Store.Ping(ctx)
}

func (m *moodyStore) Name() string { return "redis" }

func (m *moodyStore) History(ctx context.Context, s sessionKey, pick threadPick) (*sessionRecord, error) {
	if m.panic != "" {
		panic(m.panic)
	}
	return m.Store.History(ctx, s, pick)
}

func newMoodyStore(t *testing.T) *moodyStore {
	t.Helper()
	cfg, _, err := loadConfig(map[string]string{"A4F_BASE_URL": "http://127.0.0.1:1", "A4F_API_KEY": testUpstream})
	if err != nil {
		t.Fatal(err)
	}
	memory, err := newStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &moodyStore{Store: memory}
}

func TestHealthFollowsTheStore(t *testing.T) {
	t.Parallel()
	store := newMoodyStore(t)
	store.down.Store(true)
	g := newGatewayOn(t, store, echoPath)
	look := func(path string) (int, string) {
		res := g.do("GET", path, "", "Authorization: ")
		return res.StatusCode, readAll(t, res)
	}
	if status, body := look("/health"); status != 200 || !strings.Contains(body, `"status":"degraded"`) || !strings.Contains(body, `"store":"redis"`) {
		t.Errorf("health without the store = %d %s", status, body)
	}
	if status, body := look("/ready"); status != 503 {
		t.Errorf("ready before the store was reached = %d %s", status, body)
	}
	if res, body := g.chat(greeting); res.StatusCode != 200 {
		t.Errorf("chat without a session = %d %s", res.StatusCode, body)
	}
	store.down.Store(false)
	eventually(t, "becoming ready", func() bool { status, _ := look("/ready"); return status == 200 })
	if _, body := look("/health"); !strings.Contains(body, `"status":"ok"`) {
		t.Errorf("health with the store = %s", body)
	}
	store.down.Store(true)
	g.server.watch.look(context.Background(), store, g.server.log)
	if _, body := look("/health"); !strings.Contains(body, "degraded") {
		t.Errorf("health after the store was lost = %s", body)
	}
	if status, body := look("/ready"); status != 200 {
		t.Errorf("ready after the store was lost = %d %s", status, body)
	}
}

func TestHealthShape(t *testing.T) {
	g := newGateway(t, echoPath)
	res := g.do("GET", "/health", "", "Authorization: ")
	var h struct {
		Status, Version, Store string
		Uptime                 *int64 `json:"uptime_s"`
	}
	if err := json.Unmarshal([]byte(readAll(t, res)), &h); err != nil {
		t.Fatal(err)
	}
	if h.Status != "ok" || h.Store != "memory" || h.Version == "" || h.Uptime == nil || *h.Uptime < 0 {
		t.Errorf("health = %+v", h)
	}
	if ct := res.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("Content-Type %q", ct)
	}
}

func TestPanicIsAnError(t *testing.T) {
	store := newMoodyStore(t)
	store.panic = "broken inside"
	g := newGatewayOn(t, store, echoPath)
	res, body := g.chat(greeting, "X-Session-Id: s", "X-Request-Id: trace-me")
	e := errorIn(t, body)
	if res.StatusCode != 500 || e.Type != "server_error" || !strings.Contains(e.Message, "trace-me") {
		t.Errorf("a panic = %d %s", res.StatusCode, body)
	}
	if strings.Contains(body, "broken inside") || strings.Contains(body, ".go:") {
		t.Errorf("the client sees the inside: %s", body)
	}
	for _, want := range []string{"broken inside", "server_test.go", `"status":500`} {
		g.mustLog(want)
	}
	store.panic = ""
	if res, body := g.chat(greeting, "X-Session-Id: s"); res.StatusCode != 200 {
		t.Errorf("the request after it = %d %s", res.StatusCode, body)
	}
}
