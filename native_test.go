package main

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
)

// speaks makes the upstream one that speaks those dialects itself, and knows the
// model "mine" as "theirs".
func speaks(dialects ...string) func(*config) {
	return func(c *config) {
		c.NativeDialects = dialects
		c.Aliases = []modelAlias{{Pattern: "mine", Model: "theirs"}}
	}
}

// nativePaths are the paths that are passed through, with a body that no decoder
// here would leave as it is, and what the upstream gets.
var nativePaths = []struct {
	dialect, path, sentTo string
	body, sent            string
}{
	{"messages", "/v1/messages?beta=true", "/v1/messages?beta=true",
		`{ "model" : "mine","x_new":{"b":1.0,"a":"\u00e9"},"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":{"model":"mine"}}`,
		`{ "model" : "theirs","x_new":{"b":1.0,"a":"\u00e9"},"max_tokens":5,"messages":[{"role":"user","content":"hi"}],"metadata":{"model":"mine"}}`},
	{"messages", "/v1/messages/count_tokens", "/v1/messages/count_tokens", `{"model":"other","messages":[]}`, `{"model":"other","messages":[]}`},
	{"responses", "/v1/responses", "/v1/responses", `{"input":"hi","model":"mine","background":true,"conversation":"c"}`, `{"input":"hi","model":"theirs","background":true,"conversation":"c"}`},
	{"responses", "/v1/responses/input_tokens", "/v1/responses/input_tokens", `{"input":"hi","model":"mine"}`, `{"input":"hi","model":"theirs"}`},
	{"responses", "/v1/responses/compact", "/v1/responses/compact", `{"input":"hi","model":"mine"}`, `{"input":"hi","model":"theirs"}`},
	{"gemini", "/v1beta/models/mine:generateContent?key=k", "/v1beta/models/theirs:generateContent", `{"contents":[{"parts":[{"text":"hi"}]}],"safetySettings":[1]}`, `{"contents":[{"parts":[{"text":"hi"}]}],"safetySettings":[1]}`},
	{"gemini", "/v1alpha/models/other:streamGenerateContent?alt=sse", "/v1alpha/models/other:streamGenerateContent?alt=sse", `{"contents":[]}`, `{"contents":[]}`},
	{"gemini", "/v1/models/mine:embedContent", "/v1/models/theirs:embedContent", `{"content":{}}`, `{"content":{}}`},
}

// nativeKeyHeader is where each dialect's servers look for a key.
var nativeKeyHeader = map[string]string{"messages": "X-Api-Key", "gemini": "X-Goog-Api-Key", "responses": "Authorization"}

// A dialect that the upstream speaks itself passes, with the dialect's own headers
// (AC-8).
func TestNativeRequests(t *testing.T) {
	answer := `{"id":"x" , "unknown":[1.0],"model":"theirs"}`
	for _, tt := range nativePaths {
		g := newGateway(t, answerJSON(200, answer), speaks(tt.dialect))
		res := g.do("POST", tt.path, tt.body, "Anthropic-Version: 2023-06-01", "Anthropic-Beta: a,b", "X-Session-Id: s")
		if got := readAll(t, res); res.StatusCode != 200 || got != answer {
			t.Fatalf("%s: %d %s", tt.path, res.StatusCode, got)
		}
		fidelity := "exact"
		if tt.body != tt.sent {
			fidelity = "spliced"
		}
		wantHeader(t, res, "X-APIProxy-Fidelity", fidelity)
		dialect := strings.Replace(tt.dialect, "messages", "anthropic", 1)
		wantHeader(t, res, "X-APIProxy-Dialect", dialect)
		if line := g.logLine(); line["dialect"] != dialect || line["fidelity"] != fidelity {
			t.Errorf("%s: logged %v", tt.path, line)
		}
		seen := g.last()
		if got := seen.URL.RequestURI(); seen.Method != "POST" || got != tt.sentTo || seen.Body != tt.sent {
			t.Errorf("%s: the upstream got %s %s %s, want %s %s", tt.path, seen.Method, got, seen.Body, tt.sentTo, tt.sent)
		}
		for dialect, name := range nativeKeyHeader {
			want := ""
			if dialect == tt.dialect {
				want = testUpstream
			}
			if got := strings.TrimPrefix(seen.Header.Get(name), "Bearer "); got != want {
				t.Errorf("%s: %s is %q, want %q", tt.path, name, got, want)
			}
		}
		if got := seen.Header.Get("Anthropic-Version") + seen.Header.Get("Anthropic-Beta"); (got == "2023-06-01a,b") != (tt.dialect == "messages") {
			t.Errorf("%s: the anthropic headers are %q", tt.path, got)
		}
	}
}

// Gemini's paths stand beside the compatible ones, wherever those are.
func TestNativeGeminiAddress(t *testing.T) {
	for base, want := range map[string]string{
		"":                   "/v1beta/models/theirs:generateContent",
		"/v1beta/openai/":    "/v1beta/models/theirs:generateContent",
		"/proxy/google/v1":   "/proxy/google/v1beta/models/theirs:generateContent",
		"/proxy/without-one": "/proxy/without-one/v1beta/models/theirs:generateContent",
	} {
		g := newGateway(t, answerJSON(200, `{}`), speaks("gemini"), func(c *config) { c.BaseURL.Path = base })
		readAll(t, g.do("POST", "/v1beta/models/mine:generateContent", `{"contents":[]}`))
		if got := g.last().URL.Path; got != want {
			t.Errorf("under %q the request goes to %s, want %s", base, got, want)
		}
	}
}

// What the upstream does not speak is still converted.
func TestNativeOthersAreConverted(t *testing.T) {
	g := newGateway(t, weatherUpstream, speaks("responses"))
	for _, name := range []string{"anthropic", "gemini", "chat"} {
		s := speakerOf(name)
		if said := g.say(s, false, []string{s.user("weather in Oslo")}); len(said.calls) != 1 || g.last().URL.Path != "/v1/chat/completions" {
			t.Errorf("%s: %+v from %s", name, said, g.last().URL)
		}
	}
}

// The routes of stored responses are the upstream's own then.
func TestNativeStoredResponses(t *testing.T) {
	g := newGateway(t, answerJSON(200, `{"id":"resp_1"}`), speaks("responses"))
	for _, tt := range []struct{ method, path string }{
		{"GET", "/v1/responses/resp_1?stream=true&starting_after=3"},
		{"GET", "/v1/responses/resp_1?include[]=reasoning.encrypted_content"},
		{"DELETE", "/v1/responses/resp_1"},
		{"GET", "/v1/responses/resp_1/input_items?limit=3"},
		{"POST", "/v1/responses/resp_1/cancel"},
	} {
		res := g.do(tt.method, tt.path, "")
		if got := readAll(t, res); res.StatusCode != 200 || got != `{"id":"resp_1"}` {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, res.StatusCode, got)
		}
		if seen := g.last(); seen.URL.RequestURI() != tt.path || seen.Method != tt.method {
			t.Errorf("%s %s went to %s %s", tt.method, tt.path, seen.Method, seen.URL)
		}
	}
}

// An upstream that speaks a dialect and can't count in it is not asked again for
// a while; the estimate is the answer (AC-21).
func TestNativeCountsElsewhere(t *testing.T) {
	const claude, resp, gem = `{"model":"m","messages":[{"role":"user","content":"hello world"}]}`, `{"model":"m","input":"hello world"}`, `{"contents":[{"parts":[{"text":"hello world"}]}]}`
	for _, tt := range []struct{ path, body, want string }{
		{"/v1/messages/count_tokens", claude, `{"input_tokens":8}`},
		{"/v1/responses/input_tokens", resp, `{"object":"response.input_tokens","input_tokens":8}`},
		{"/v1beta/models/m:countTokens", gem, `{"totalTokens":8`},
	} {
		for _, status := range []int{404, 405, 501} {
			g := newGateway(t, answerJSON(status, `{"detail":"Not Found"}`), speaks("messages", "responses", "gemini"))
			for range 2 {
				res, got := g.post(tt.path, tt.body)
				if res.StatusCode != 200 || !strings.HasPrefix(got, tt.want) {
					t.Fatalf("%s, %d: %d %s, want %s", tt.path, status, res.StatusCode, got, tt.want)
				}
				wantHeader(t, res, "X-APIProxy-Token-Count", "estimate")
			}
			if n := len(g.upstream.all()); n != 1 {
				t.Errorf("%s: the upstream was asked %d times, want once", tt.path, n)
			}
			g.post(tt.path, strings.NewReplacer(`"m"`, `"n"`).Replace(tt.body))
			if n := len(g.upstream.all()); n != 2 && !strings.Contains(tt.path, "beta") {
				t.Errorf("%s: for another model the upstream was asked %d times in all, want twice", tt.path, n)
			}
		}
		g := newGateway(t, answerJSON(429, `{"error":{"message":"slow down"}}`), speaks("messages", "responses", "gemini"))
		if res, got := g.post(tt.path, tt.body); res.StatusCode != 429 {
			t.Errorf("%s, 429: %d %s", tt.path, res.StatusCode, got)
		}
	}
	// What can't be estimated is the upstream's to refuse.
	g := newGateway(t, answerJSON(404, `{"error":{"message":"no such response"}}`), speaks("responses"))
	for range 2 {
		if res, got := g.post("/v1/responses/input_tokens", `{"model":"m","input":"hi","previous_response_id":"resp_1"}`); res.StatusCode != 404 || !strings.Contains(got, "no such response") {
			t.Errorf("a stored conversation: %d %s", res.StatusCode, got)
		}
	}
}

// What else stands under /v1/messages goes to the upstream, with its key where
// the dialect has it.
func TestNativeUnderMessages(t *testing.T) {
	for _, native := range []bool{true, false} {
		dialects := []string{"messages"}
		if !native {
			dialects = nil
		}
		g := newGateway(t, answerJSON(200, `{"id":"b"}`), speaks(dialects...))
		for _, tt := range [][3]string{{"POST", "/v1/messages/batches", `{"requests": []}`}, {"GET", "/v1/messages/batches/b/results", ""}} {
			res := g.do(tt[0], tt[1], tt[2])
			seen := g.last()
			if got := readAll(t, res); res.StatusCode != 200 || got != `{"id":"b"}` || seen.URL.Path != tt[1] || seen.Body != tt[2] {
				t.Errorf("%s %s: %d %s, sent to %s: %s", tt[0], tt[1], res.StatusCode, got, seen.URL, seen.Body)
			}
			if key, bearer := seen.Header.Get("X-Api-Key"), seen.Header.Get("Authorization"); (key == testUpstream) != native || (bearer == "") != native {
				t.Errorf("native %t: x-api-key %q, authorization %q", native, key, bearer)
			}
		}
	}
}

func TestNativeStreams(t *testing.T) {
	stream := []string{": hello\r\n\r\n", "event: odd\r\ndata: {\"type\":\"odd\"}\r\n\r\n", "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n"}
	for _, path := range []string{"/v1/messages", "/v1/responses", "/v1beta/models/m:streamGenerateContent?alt=sse"} {
		g := newGateway(t, answerStream(stream...), speaks("messages", "responses", "gemini"))
		res := g.do("POST", path, `{"model":"m","stream":true}`)
		if got, want := readAll(t, res), strings.Join(stream, ""); got != want {
			t.Errorf("%s: the stream is %q, want %q", path, got, want)
		}
	}
}

// An upstream's error comes in the dialect's own shape already, except for what
// it says of the gateway's key.
func TestNativeErrors(t *testing.T) {
	for path, own := range map[string]string{
		"/v1/messages":                      `{"type":"error" , "error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"r"}`,
		"/v1/responses":                     `{"error":{"message":"no","type":"invalid_request_error","param":"x","code":null,"extra":1}}`,
		"/v1/responses/resp_1":              `{"error":{"message":"no","type":"invalid_request_error","param":"x","code":null,"extra":1}}`,
		"/v1beta/models/m:generateContent":  `{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT","details":[{"@type":"t"}]}}`,
		"/v1beta/models/m:batchEmbedThings": `[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]`,
	} {
		method := "POST"
		if strings.HasSuffix(path, "resp_1") {
			method = "GET"
		}
		for _, status := range []int{400, 404, 429, 529} {
			g := newGateway(t, answerJSON(status, own), speaks("messages", "responses", "gemini"))
			res := g.do(method, path, map[string]string{"POST": `{"model":"m"}`}[method])
			if got := readAll(t, res); res.StatusCode != status || got != own {
				t.Errorf("%s: %d %s, want %d %s", path, res.StatusCode, got, status, own)
			}
		}
		for _, status := range []int{401, 403} {
			g := newGateway(t, answerJSON(status, own), speaks("messages", "responses", "gemini"))
			res := g.do(method, path, map[string]string{"POST": `{"model":"m"}`}[method])
			if got := readAll(t, res); res.StatusCode < 500 || strings.Contains(got, `"no"`) || strings.Contains(got, "Overloaded") {
				t.Errorf("%s: status %d of the upstream gives %d %s", path, status, res.StatusCode, got)
			}
		}
	}
	// What is no API's error is put into the dialect's shape.
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(502)
		io.WriteString(w, "<html><title>Bad Gateway</title></html>")
	}, speaks("messages"))
	res := g.do("POST", "/v1/messages", `{"model":"m"}`)
	if got := readAll(t, res); res.StatusCode < 500 || text(member([]byte(got), "type")) != "error" {
		t.Errorf("%d %s", res.StatusCode, got)
	}
}

func TestNativeRefusesBadBodies(t *testing.T) {
	g := newGateway(t, answerJSON(200, `{}`), speaks("messages"))
	res := g.do("POST", "/v1/messages", `{"model":`)
	if got := readAll(t, res); res.StatusCode != 400 || text(member([]byte(got), "type")) != "error" || len(g.upstream.all()) > 0 {
		t.Errorf("%d %s", res.StatusCode, got)
	}
}

// Packed bodies are taken on every dialect's path, and a bad one is refused in
// the dialect's shape.
func TestPackedVendorRequests(t *testing.T) {
	converting, native := newGateway(t, weatherUpstream), newGateway(t, answerJSON(200, `{}`), speaks("messages", "responses", "gemini"))
	for _, s := range speakers {
		body := s.body(false, s.user("weather in Oslo"))
		for _, p := range packers {
			packed := pack(p.open, body)
			res := converting.do("POST", s.path(false), packed, "Content-Encoding: "+p.encoding)
			got := readAll(t, res)
			if res.StatusCode != 200 || len(s.read(t, false, got).calls) != 1 {
				t.Errorf("%s, %s: %d %s", s.name, p.name, res.StatusCode, got)
			}
			if s.name == "chat" {
				continue
			}
			if res := native.do("POST", s.path(false), packed, "Content-Encoding: "+p.encoding); res.StatusCode != 200 || native.last().Body != body {
				t.Errorf("%s, %s, native: %d, the upstream got %s", s.name, p.name, res.StatusCode, native.last().Body)
			}
		}
	}
	small := newGateway(t, weatherUpstream, func(c *config) { c.MaxBodyBytes = 1000 })
	bomb := pack(func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, `{"model":"`+strings.Repeat("m", 100_000)+`"}`)
	for _, s := range speakers {
		for _, tt := range []struct {
			name, encoding, body string
			status               int
		}{
			{"bomb", "gzip", bomb, 413}, {"corrupt", "gzip", "not packed", 400}, {"cut", "gzip", bomb[:20], 400}, {"unknown", "br", "x", 415},
		} {
			res := small.do("POST", s.path(false), tt.body, "Content-Encoding: "+tt.encoding)
			got := readAll(t, res)
			if e := member([]byte(got), "error"); res.StatusCode != tt.status || text(member(e, "message")) == "" {
				t.Errorf("%s, %s: %d %s, want %d", s.name, tt.name, res.StatusCode, got, tt.status)
			}
			if accepted := res.Header.Get("Accept-Encoding"); (tt.status == 415) != (accepted != "") {
				t.Errorf("%s, %s: Accept-Encoding is %q", s.name, tt.name, accepted)
			}
		}
	}
	if n := len(small.upstream.all()); n > 0 {
		t.Errorf("%d bad bodies went upstream", n)
	}
}
