package main

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

func maskOf(upstream string, clients ...string) *mask {
	cfg := &config{APIKey: secret(upstream)}
	for _, k := range clients {
		cfg.ClientKeys = append(cfg.ClientKeys, clientKey{Key: secret(k)})
	}
	return newMask(cfg)
}

func TestMaskText(t *testing.T) {
	m := maskOf("upstream-secret-abcdefgh", "client-key-01", "client-key-0123456789", "short")
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"nothing here", "nothing here"},
		{"upstream-secret-abcdefgh", "************************"},
		{"a upstream-secret-abcdefgh b client-key-0123456789.", "a ************************ b *********************."},
		{"client-key-01", "*************"},
		{"client-key-0123456789", "*********************"}, // not a shorter key and its rest
		{"short", "short"}, // a dummy may occur in any text
		{"upstream-secret-abcdefg", "upstream-secret-abcdefg"},
	} {
		if got := m.text(tt.in); got != tt.want {
			t.Errorf("text(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := maskOf("none").text("none of them"); got != "none of them" {
		t.Errorf("a dummy key is masked: %q", got)
	}
}

// maskRead reads text through the mask in pieces of the sizes that split gives,
// into buffers of size.
func maskRead(t *testing.T, m *mask, text string, split []int, size int) string {
	t.Helper()
	var pieces []io.Reader
	for _, n := range split {
		n = min(max(n, 0), len(text))
		pieces = append(pieces, strings.NewReader(text[:n]))
		text = text[n:]
	}
	r := m.reader(io.NopCloser(io.MultiReader(append(pieces, strings.NewReader(text))...)))
	var got []byte
	buf := make([]byte, size)
	for empty := 0; empty < 1000; {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			return string(got)
		}
		if err != nil {
			t.Fatal(err)
		}
		if empty++; n > 0 {
			empty = 0
		}
	}
	t.Fatal("the reader makes no progress")
	return ""
}

func TestMaskReader(t *testing.T) {
	const key = "abcabcabcabd" // begins again and again
	m := maskOf(key)
	long := strings.Repeat("k", 5000)
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"x", "x"},
		{key, "************"},
		{"abcabcabcabcabd", "abc************"},
		{"abc" + key + key + "abcabc", "abc************************abcabc"},
		{"data: {\"c\":\"" + key + "\"}\n\n", "data: {\"c\":\"************\"}\n\n"},
		{key[:len(key)-1], key[:len(key)-1]},
	} {
		for cut := range len(tt.in) + 1 {
			for _, size := range []int{1, 2, len(key) - 1, len(key), len(key) + 1, 100} {
				if got := maskRead(t, m, tt.in, []int{cut}, size); got != tt.want {
					t.Errorf("%q cut at %d, read by %d = %q, want %q", tt.in, cut, size, got, tt.want)
				}
			}
		}
	}
	// A key longer than any reasonable read.
	if got := maskRead(t, maskOf(long), "<"+long+">", []int{4000}, 10); got != "<"+strings.Repeat("*", 5000)+">" {
		t.Errorf("a long key is not masked: %.20q… of %d bytes", got, len(got))
	}
}

// What can't be a part of the key is handed on at once: an event must not wait
// for the next one.
func TestMaskReaderHoldsNothingElseBack(t *testing.T) {
	event := textChunk("hello " + testUpstream[:10])
	in, out := io.Pipe()
	r := maskOf(testUpstream).reader(in)
	defer in.Close()
	go io.WriteString(out, event)
	buf := make([]byte, 4096)
	if n, err := r.Read(buf); err != nil || string(buf[:n]) != event {
		t.Errorf("Read = %q, %v; want the whole event", buf[:n], err)
	}
}

func TestMaskReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{4, 4096} {
		r := maskOf(testUpstream).reader(io.NopCloser(io.MultiReader(strings.NewReader("text "+testUpstream[:8]), iotest.ErrReader(broken))))
		var got []byte
		var err error
		for err == nil {
			buf := make([]byte, size)
			var n int
			n, err = r.Read(buf)
			got = append(got, buf[:n]...)
		}
		if err != broken || string(got) != "text "+testUpstream[:8] {
			t.Errorf("read by %d: %q, %v", size, got, err)
		}
	}
}

// However a text is split over reads, the mask does the same to it: every key in
// it becomes stars, and nothing else changes.
func FuzzMask(f *testing.F) {
	f.Add("abcabcabcabd", "abcabcabcabcabdabc", 3, 7, 5)
	f.Add("aaaaaaaaaaaa", strings.Repeat("a", 30), 1, 1, 1)
	f.Add(testUpstream, "data: "+testUpstream+testUpstream[:5]+"\n\n", 10, 20, 64)
	f.Add("need-twelve!", "", 0, 0, 12)
	f.Fuzz(func(t *testing.T, key, text string, cut1, cut2, size int) {
		if len(key) < minMasked || strings.Contains(key, "*") {
			return
		}
		text = strings.ReplaceAll(text, "KEY", key)
		size = 1 + min(max(size, 0), 1<<16)
		want := strings.ReplaceAll(text, key, strings.Repeat("*", len(key)))
		if got := maskRead(t, maskOf(key), text, []int{cut1, cut2, 1, 1}, size); got != want {
			t.Errorf("key %q, text %q, cut at %d and %d, read by %d = %q, want %q", key, text, cut1, cut2, size, got, want)
		}
		whole := []byte(text)
		if maskOf(key).bytes(whole); string(whole) != want {
			t.Errorf("bytes(%q) = %q, want %q", text, whole, want)
		}
	})
}

// The upstream's key does not come down, wherever an upstream echoes it.
func TestUpstreamKeyStaysHidden(t *testing.T) {
	stars := strings.Repeat("*", len(testUpstream))
	echo := func(status int, contentType string, pieces ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Header().Set("X-Debug", r.Header.Get("Authorization"))
			w.WriteHeader(status)
			for _, p := range pieces {
				io.WriteString(w, strings.ReplaceAll(p, "KEY", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
				w.(http.Flusher).Flush()
			}
		}
	}
	split := func(s string) []string {
		return strings.SplitAfter(strings.ReplaceAll(s, "KEY", testUpstream), "") // a write for each byte
	}
	for _, tt := range []struct {
		name, path, body string
		upstream         http.HandlerFunc
		shows            bool // the text around the key arrives
	}{
		{"completion", "/v1/chat/completions", greeting, echo(200, "application/json", completion("it is KEY")), true},
		{"stream", "/v1/chat/completions", `{"stream":true,"messages":[]}`, echo(200, "text/event-stream", textChunk("it is KEY"), finishChunk, doneEvent), true},
		{"stream in pieces", "/v1/chat/completions", `{"stream":true,"messages":[]}`, echo(200, "text/event-stream", split(textChunk("it is KEY")+finishChunk+doneEvent)...), true},
		{"gathered", "/v1/chat/completions", greeting, echo(200, "text/event-stream", textChunk("it is KEY"), finishChunk, doneEvent), true},
		{"split up", "/v1/chat/completions", `{"stream":true,"messages":[]}`, echo(200, "application/json", completion("it is KEY")), true},
		{"error in OpenAI's shape", "/v1/chat/completions", greeting, echo(400, "application/json", `{"error":{"message":"it is KEY","type":"x"}}`), true},
		{"error in another shape", "/v1/chat/completions", greeting, echo(400, "application/json", `{"detail":"it is KEY"}`), true},
		{"error as text", "/v1/chat/completions", greeting, echo(500, "text/plain", "it is KEY"), true},
		{"error under 200", "/v1/chat/completions", greeting, echo(200, "application/json", `{"error":{"message":"it is KEY","code":429}}`), true},
		{"error in a stream", "/v1/chat/completions", `{"stream":true,"messages":[]}`, echo(200, "text/event-stream", `data: {"error":{"message":"it is KEY"}}`+"\n\n"), true},
		{"refused", "/v1/chat/completions", greeting, echo(401, "application/json", `{"error":{"message":"it is KEY"}}`), false},
		{"page", "/v1/chat/completions", greeting, echo(502, "text/html", "<title>it is KEY</title>"), true},
		{"redirect", "/v1/chat/completions", greeting, echo(302, "text/plain", "it is KEY"), false},
		{"forwarded", "/v1/embeddings", greeting, echo(200, "application/octet-stream", "it is KEY", " or so"), true},
		{"forwarded in pieces", "/v1/embeddings", greeting, echo(200, "text/plain", split("so it is KEY indeed")...), true},
		{"forwarded error", "/v1/embeddings", greeting, echo(404, "application/json", `{"error":{"message":"it is KEY","type":"x"}}`), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, tt.upstream)
			res := g.do("POST", tt.path, tt.body)
			body := readAll(t, res)
			if all := body + strings.Join(flatten(res.Header), "\n"); strings.Contains(all, testUpstream) {
				t.Errorf("the key came down: %s", all)
			}
			if tt.shows != strings.Contains(body, "it is "+stars) {
				t.Errorf("the answer is %s", body)
			}
			g.mustLog(`"msg":"request"`)
			if log := g.log.String(); strings.Contains(log, testUpstream) {
				t.Errorf("the key is in the log: %s", log)
			}
		})
	}
}

// A message that is cut in the middle of the key shows no part of it.
func TestUpstreamKeyWhereAMessageIsCut(t *testing.T) {
	for _, before := range []int{0, 480, 490, 499, 500} {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, strings.Repeat("x", before)+testUpstream+strings.Repeat("y", 100))
		})
		if _, answer := g.chat(greeting); strings.Contains(answer, testUpstream[:5]) {
			t.Errorf("the key after %d bytes: %s", before, answer)
		}
	}
}

func TestUpstreamKeyInModelList(t *testing.T) {
	g := newGateway(t, answerJSON(200, `{"data":[{"id":"m-`+testUpstream+`"}]}`))
	if body := readAll(t, g.do("GET", "/v1/models", "")); strings.Contains(body, testUpstream) || !strings.Contains(body, "m-***") {
		t.Errorf("the model list is %s", body)
	}
}

// Canaries: no secret that the gateway sees is in its log, at any level, bodies
// included (AC-30).
func TestNoSecretInTheLog(t *testing.T) {
	const cookie, query, redisPassword, stranger = "cookie-canary-5150", "query-canary-42424242", "redis-canary-31337", "stranger-canary-777"
	secrets := []string{testKey, otherKey, testUpstream, cookie, query, redisPassword, stranger}
	upstream := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Set-Cookie", "session="+cookie)
		echo := "you sent " + r.Header.Get("Authorization") + " and " + testKey
		switch {
		case strings.HasSuffix(r.URL.Path, "/break"):
			panic(http.ErrAbortHandler)
		case strings.HasSuffix(r.URL.Path, "/refuse"):
			answerJSON(401, `{"error":{"message":"`+echo+`","type":"x"}}`)(w, r)
		case strings.HasSuffix(r.URL.Path, "/fail"):
			answerJSON(400, `{"detail":"`+echo+`"}`)(w, r)
		default:
			answerJSON(200, completion(echo))(w, r)
		}
	}
	// A Redis that is not there: its address is logged, with all that is in it.
	cfg, _, err := loadConfig(map[string]string{
		"A4F_BASE_URL": "http://127.0.0.1:1", "A4F_API_KEY": testUpstream, "REDIS_URL": "redis://user:" + redisPassword + "@127.0.0.1:1/0",
	})
	if err != nil {
		t.Fatal(err)
	}
	store, err := newStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := newGatewayOn(t, store, upstream, func(c *config) { c.LogBodies, c.RedisURL, c.LogLevel = true, cfg.RedisURL, slog.LevelDebug })
	at := strings.TrimPrefix(g.URL, "http://")
	said := `{"model":"m","messages":[{"role":"user","content":"my key is ` + testKey + ` and yours ` + testUpstream + `"}]}`
	for _, path := range []string{"/v1/chat/completions", "/v1/refuse", "/v1/fail", "/v1/break", "/v1/models", "/context/s", "/nowhere", "/v1//x", "/health"} {
		for _, headers := range [][]string{
			{"Authorization: Bearer " + testKey},
			{"Authorization: ", "x-api-key: " + otherKey},
			{"Authorization: Bearer " + stranger},
			{"Authorization: Bearer " + testKey, "X-Session-Id: s", "Proxy-Authorization: Basic " + stranger},
		} {
			headers = append(headers, "Cookie: session="+cookie, "X-Request-Id: id\t1", "Traceparent: 00-"+strings.Repeat("1", 200))
			for _, body := range []string{"", said, "not JSON " + testKey, `{"stream":true,"messages":[]}`} {
				for _, q := range []string{"", "?key=" + query + "&token=" + query} {
					method := "POST"
					if body == "" {
						method = "GET"
					}
					res, err := http.DefaultTransport.RoundTrip(g.request(method, path+q, body, headers...))
					if err != nil {
						continue // the answer broke off, as it had to
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}
		}
	}
	for _, raw := range []string{
		"GET /v1/models?key=" + query + " HTTP/1.1\r\nHost: " + at + "\r\nAuthorization: Bearer " + testKey + "\r\nConnection: close\r\n\r\n",
		"CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\nProxy-Authorization: Bearer " + testKey + "\r\n\r\n",
	} {
		g.speak(raw)
	}
	g.do("GET", "/v1/last", "", "X-Request-Id: the-last")
	g.mustLog("the-last")
	log := g.log.String()
	for _, want := range []string{`"msg":"request"`, `"request_body":`, `"response_body":`, "the store can't be reached", "my key is ***"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s, so the test proves nothing", want)
		}
	}
	for _, s := range secrets {
		if i := strings.Index(log, s); i >= 0 {
			t.Errorf("%q is in the log: …%s…", s, log[max(0, i-300):min(len(log), i+100)])
		}
	}
}

// A secret prints as itself nowhere.
func TestConfigHidesSecrets(t *testing.T) {
	g := newGateway(t, echoPath)
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("config", "config", g.server.cfg, "key", g.server.cfg.APIKey, "cred", credential{Label: "l", Key: testKey})
	for _, s := range []string{testKey, otherKey, testUpstream} {
		if strings.Contains(b.String(), s) {
			t.Errorf("%q is in %s", s, b.String())
		}
	}
}

// A panic's own text may hold anything.
func TestPanicHidesSecrets(t *testing.T) {
	g := newGateway(t, echoPath)
	h := g.server.logged(func(http.ResponseWriter, *http.Request) { panic("at " + testUpstream + " and " + testKey) })
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if log := g.log.String(); w.Code != 500 || strings.Contains(log, testUpstream) || strings.Contains(log, testKey) {
		t.Errorf("%d, log %s", w.Code, log)
	}
}

// In mode passthrough the client's key is the upstream's, and an upstream may
// echo it in what the gateway logs.
func TestPassthroughKeyStaysOutOfTheLog(t *testing.T) {
	const own = "own-key-canary-0123456789"
	for _, status := range []int{200, 400, 401} {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			echo := "you sent " + r.Header.Get("Authorization")
			if status == 200 {
				answerJSON(200, completion(echo))(w, r)
				return
			}
			answerJSON(status, `{"error":{"message":"`+echo+`","type":"t"}}`)(w, r)
		}, func(c *config) { c.Auth, c.APIKey, c.ClientKeys, c.LogBodies = authPassthrough, "", nil, true })
		g.chat(greeting, "Authorization: Bearer "+own)
		g.mustLog(`"response_body":`)
		if log := g.log.String(); strings.Contains(log, own) {
			t.Errorf("status %d: %s", status, log)
		}
	}
}
