package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Canaries: texts that must not be where a test looks for them.
const (
	cookieCanary   = "cookie-canary-5150"
	redisCanary    = "redis-canary-31337"
	strangerCanary = "stranger-canary-777"
	promptCanary   = "prompt-canary-90210"
)

// telltale is an upstream that repeats all it knows, in every place where an answer
// has room for it.
func telltale(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	echo := "auth " + r.Header.Get("Authorization") + " cookie " + r.Header.Get("Cookie")
	h := w.Header()
	for _, name := range []string{"Set-Cookie", "X-Debug", "X-Auth-Echo", "Authorization", "Openai-Processing-Ms", "Location", "X-Ratelimit-Limit-Requests"} {
		h.Set(name, echo)
	}
	switch said := string(body); {
	case strings.HasSuffix(r.URL.Path, "/models"):
		answerJSON(200, `{"data":[{"id":`+string(appendQuoted(nil, echo))+`}]}`)(w, r)
	case strings.Contains(said, "fail "):
		status := 0
		fmt.Sscanf(said[strings.Index(said, "fail ")+5:], "%d", &status)
		answerJSON(status, `{"error":{"message":`+string(appendQuoted(nil, echo))+`,"type":"x","param":`+string(appendQuoted(nil, echo))+`}}`)(w, r)
	case string(member(body, "stream")) == "true":
		answerStream(textChunk(echo), finishChunk, doneEvent)(w, r)
	default:
		answerJSON(200, completion(echo))(w, r)
	}
}

// TestCanaries: with an upstream that repeats all it is sent, no key, cookie or
// password is in any answer, header, session, stored value or log, in any dialect.
func TestCanaries(t *testing.T) {
	server := startRedis(t, "--requirepass", redisCanary)
	if server == nil {
		return
	}
	g := newGateway(t, telltale, func(c *config) {
		c.RedisURL, c.LogBodies = secret("redis://:"+redisCanary+"@"+server.addr), true
	})
	secrets := []string{testKey, otherKey, testUpstream, cookieCanary, redisCanary, strangerCanary}
	check := func(where, text string) {
		t.Helper()
		for _, s := range secrets {
			if i := strings.Index(text, s); i >= 0 {
				t.Errorf("%s holds %q: …%s…", where, s, text[max(0, i-200):min(len(text), i+100)])
			}
		}
	}
	sent := 0
	ask := func(method, path, body string, more ...string) {
		t.Helper()
		headers := append([]string{"Cookie: c=" + cookieCanary, "Proxy-Authorization: Basic " + strangerCanary, "X-Amz-Security-Token: " + strangerCanary}, more...)
		res := g.do(method, path, body, headers...)
		got := readAll(t, res)
		sent++
		check(method+" "+path, got+strings.Join(flatten(res.Header), "\n"))
	}
	for _, c := range everyClient {
		for _, where := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
			ask("POST", where[0], where[1], "X-Session-Id: s-"+strings.ReplaceAll(c.name, " ", "-"))
			for _, status := range []int{400, 401, 403, 404, 429, 500, 503} {
				ask("POST", where[0], strings.Replace(where[1], `"hi"`, fmt.Sprintf(`"fail %d"`, status), 1))
			}
			ask("POST", where[0], where[1], "Authorization: Bearer "+strangerCanary)
			ask("POST", where[0], `{"broken":`)
		}
	}
	for _, path := range []string{"/v1/models", "/v1beta/models", "/v1/models/x", "/context/s-chat", "/health", "/ready", "/", "/nowhere", "/v1/files?api_key=" + strangerCanary, "/v1beta/models?key=" + strangerCanary} {
		ask("GET", path, "")
		ask("GET", path, "", "Authorization: ", "X-Api-Key: "+otherKey)
	}
	ask("POST", "/v1/embeddings", `{"input":"x"}`)
	g.logLines(sent)
	check("the log", g.log.String())
	if !strings.Contains(g.log.String(), `"response_body":"`) {
		t.Error("the log has no bodies, so the test proves nothing")
	}
	for _, seen := range g.upstream.all() {
		for _, line := range flatten(seen.Header) {
			if line != "Authorization: Bearer "+testUpstream {
				check("the upstream's header", line)
			}
		}
		check("the upstream's address", seen.URL.String())
		if seen.Header.Get("Authorization") != "Bearer "+testUpstream {
			t.Errorf("the upstream was asked with %q", seen.Header.Get("Authorization"))
		}
	}
	check("Redis", dumpRedis(t, g))
}

// dumpRedis is all that the gateway's store holds, names and values.
func dumpRedis(t *testing.T, g *gateway) string {
	t.Helper()
	s := g.server.store.(measuredStore).Store.(*redisStore)
	var b strings.Builder
	do := func(args ...any) any {
		t.Helper()
		reply, err := s.do(t.Context(), args[0].(string), args[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	keys := do("KEYS", "*").([]any)
	if len(keys) == 0 {
		t.Fatal("Redis is empty, so the test proves nothing")
	}
	for _, key := range keys {
		command := "GET"
		if kind := do("TYPE", key).(string); kind == "hash" {
			command = "HGETALL"
		}
		fmt.Fprintf(&b, "%s %s\n", key, do(command, key))
	}
	return b.String()
}

// TestKeyInPieces: a key that an upstream echoes token by token is not put together
// in what is stored.
func TestKeyInPieces(t *testing.T) {
	server := startRedis(t)
	if server == nil {
		return
	}
	half := len(testUpstream) / 2
	g := newGateway(t, answerStream(textChunk("it is "+testUpstream[:half]), textChunk(testUpstream[half:]), finishChunk, doneEvent),
		func(c *config) { c.RedisURL = secret(server.url()) })
	for _, c := range everyClient {
		for _, ask := range [][2]string{{c.path, c.body}, {c.streamPath, c.streamBody}} {
			g.post(ask[0], ask[1], "X-Session-Id: s-"+strings.ReplaceAll(c.name, " ", "-"))
		}
	}
	if all := dumpRedis(t, g); strings.Contains(all, testUpstream) || !strings.Contains(all, strings.Repeat("*", len(testUpstream))) {
		t.Errorf("Redis holds %s", all)
	}
}

// TestKilledShowsNothing: not even the stacks that a process prints when it is told
// to die of SIGQUIT hold a key or a prompt.
func TestKilledShowsNothing(t *testing.T) {
	begun := make(chan struct{})
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		close(begun)
		<-r.Context().Done()
	}))
	defer up.Close()
	g := startGatewayProcess(t, "A4F_BASE_URL="+up.URL, "REDIS_URL=redis://:"+redisCanary+"@127.0.0.1:1/0")
	g.dial("POST /v1/chat/completions", strings.Replace(greeting, "hello", promptCanary, 1))
	<-begun
	g.cmd.Process.Signal(syscall.SIGQUIT)
	g.cmd.Wait()
	said := g.err.String()
	if !strings.Contains(said, "SIGQUIT") || !strings.Contains(said, "goroutine ") {
		t.Fatalf("no stacks, so the test proves nothing:\n%s", said)
	}
	for _, s := range []string{testKey, otherKey, testUpstream, redisCanary, promptCanary} {
		if strings.Contains(said, s) {
			t.Errorf("%q is in what the process left behind:\n%s", s, said)
		}
	}
}

// TestLibrariesLogNothing: an upstream that talks out of turn, with what may be
// anybody's answer, has it in no log.
func TestLibrariesLogNothing(t *testing.T) {
	ln := scripted(t, func(s *script, conn net.Conn, n int) {
		r := bufio.NewReader(conn)
		for s.request(r) == nil {
			io.WriteString(conn, rawAnswer(completion("hi"))+rawAnswer(completion(promptCanary+testUpstream)))
		}
	})
	g := startGatewayProcess(t, "A4F_BASE_URL="+ln.URL)
	g.chat(greeting)
	said := g.err.waitFor(t, `(Unsolicited response[^\n]*)`)
	if log := g.err.String(); strings.Contains(log, promptCanary) || strings.Contains(log, testUpstream) {
		t.Errorf("the log holds what the upstream said: %s", log)
	}
	if !strings.Contains(g.err.String(), `"level":"WARN"`) {
		t.Errorf("not a line of the log: %s", said)
	}
}

// TestNoForgedLines: whatever clients and upstreams send, a line of the log is one
// line, without control characters.
func TestNoForgedLines(t *testing.T) {
	const forged = "x\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}\x1b[2J\x1b]0;t\a\x9b31m\u2028"
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answerJSON(500, `{"error":{"message":`+string(appendQuoted(nil, forged))+`,"type":"t"}}`)(w, r)
	}))
	defer up.Close()
	for _, format := range []string{"json", "text"} {
		g := startGatewayProcess(t, "A4F_BASE_URL="+up.URL, "LOG_FORMAT="+format, "LOG_BODIES=true")
		quoted := string(appendQuoted(nil, forged))
		for _, c := range everyClient {
			body := strings.Replace(strings.Replace(c.body, `"hi"`, quoted, 1), `"m"`, quoted, 1)
			readAll(t, g.do("POST", c.path, strings.Replace(body, "{", `{"`+strings.Trim(quoted, `"`)+`":1,`, 1), "Traceparent: a\tb"))
		}
		readAll(t, g.do("GET", "/x%1b%5b2J%0d%0aforged", ""))
		g.err.waitFor(t, `(invalid_path|forged)`)
		for line := range strings.Lines(g.err.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, `{"level":"ERROR"`) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x9b }) {
				t.Errorf("%s: the log has the line %q", format, line)
			}
		}
	}
}

// TestClientChoosesNoAddress: no field of a body makes the gateway ask anybody but
// its upstream.
func TestClientChoosesNoAddress(t *testing.T) {
	trap := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("the gateway asked for %s %s", r.Method, r.URL)
	}))
	defer trap.Close()
	u := trap.URL + "/x.png"
	g := newGateway(t, echoPath)
	for _, ask := range [][2]string{
		{"/v1/chat/completions", `{"model":"` + u + `","base_url":"` + u + `","api_base":"` + u + `","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + u + `"}}]}]}`},
		{"/v1/messages", `{"model":"` + u + `","max_tokens":9,"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"` + u + `"}}]}],"mcp_servers":[{"type":"url","url":"` + u + `","name":"m"}]}`},
		{"/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"` + u + `"},{"type":"input_file","file_url":"` + u + `"}]}],"tools":[{"type":"mcp","server_label":"m","server_url":"` + u + `"}]}`},
		{"/v1beta/models/m:generateContent", `{"contents":[{"role":"user","parts":[{"fileData":{"mimeType":"image/png","fileUri":"` + u + `"}}]}]}`},
		{"/v1beta/models/http%3A%2F%2Fevil.example%2Fm:generateContent", geminiHi},
		{"/v1/files/http:%2F%2Fevil.example", `{}`},
	} {
		g.post(ask[0], ask[1])
	}
	for _, seen := range g.upstream.all() {
		if seen.Host != g.server.cfg.BaseURL.Host {
			t.Errorf("%s was asked", seen.Host)
		}
	}
}

// TestEveryRouteNeedsAKey: all that is served is behind the key, but for what says
// nothing.
func TestEveryRouteNeedsAKey(t *testing.T) {
	g := newGateway(t, echoPath)
	open := []string{"/", "/health", "/ready"}
	for _, path := range []string{
		"/", "/health", "/ready", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/m", "/v1/messages", "/v1/messages/count_tokens",
		"/v1/responses", "/v1/responses/x", "/v1/responses/x/input_items", "/v1/responses/input_tokens", "/v1beta/models", "/v1beta/models/m:generateContent",
		"/v1alpha/models/m:countTokens", "/context/s", "/context", "/status", "/metrics", "/debug/pprof/", "/debug/vars", "/admin", "/v1/files", "/openai/v1/models", "/x",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"} {
			res := g.do(method, path, "", "Authorization: ")
			if isOpen := slices.Contains(open, path); !isOpen && res.StatusCode != 401 || isOpen && (method == "GET" || method == "HEAD") != (res.StatusCode == 200) {
				t.Errorf("%s %s without a key = %d", method, path, res.StatusCode)
			}
		}
	}
	g.mustBeUnasked("a request without a key")
}
