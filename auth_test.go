package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// keyless is a request as raw lines, with none of the fixture's headers.
func (g *gateway) keyless(method, path string, headers ...string) (status, answer string) {
	g.t.Helper()
	raw := method + " " + path + " HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
	if method == "POST" {
		raw += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(greeting))
	}
	for _, h := range headers {
		raw += h + "\r\n"
	}
	raw += "\r\n"
	if method == "POST" {
		raw += greeting
	}
	answer = g.speak(raw)
	return statusOf(answer), answer
}

func TestKeyPlaces(t *testing.T) {
	g := newGateway(t, echoPath)
	const chat, gemini = "/v1/chat/completions", "/v1beta/models/m:generateContent"
	key := testKey
	for _, tt := range []struct {
		name, method, path string
		headers            []string
		opens              bool
	}{
		{"Bearer", "POST", chat, []string{"Authorization: Bearer " + key}, true},
		{"bearer in lower case", "POST", chat, []string{"authorization: bearer " + key}, true},
		{"BEARER in capitals", "POST", chat, []string{"AUTHORIZATION: BEARER " + key}, true},
		{"two spaces", "POST", chat, []string{"Authorization: Bearer  " + key}, true},
		{"space after the key", "POST", chat, []string{"Authorization: Bearer " + key + " "}, true},
		{"x-api-key", "POST", chat, []string{"x-api-key: " + key}, true},
		{"x-goog-api-key", "POST", chat, []string{"x-goog-api-key: " + key}, true},
		{"api-key", "POST", chat, []string{"api-key: " + key}, true},
		{"the other client's", "POST", chat, []string{"api-key: " + otherKey}, true},
		{"one known of two", "POST", chat, []string{"Authorization: Bearer sk-of-another-service", "x-api-key: " + key}, true},
		{"two known", "POST", chat, []string{"Authorization: Bearer " + otherKey, "x-api-key: " + key}, true},

		{"none", "POST", chat, nil, false},
		{"empty Bearer", "POST", chat, []string{"Authorization: Bearer "}, false},
		{"empty header", "POST", chat, []string{"x-api-key: "}, false},
		{"without a scheme", "POST", chat, []string{"Authorization: " + key}, false},
		{"Basic", "POST", chat, []string{"Authorization: Basic Y2xpZW50LWtleS0wMTIzNDU2Nzg5Og=="}, false},
		{"Token", "POST", chat, []string{"Authorization: Token " + key}, false},
		{"Bearerkey", "POST", chat, []string{"Authorization: Bearer" + key}, false},
		{"Bearer twice", "POST", chat, []string{"Authorization: Bearer Bearer " + key}, false},
		{"Bearer in x-api-key", "POST", chat, []string{"x-api-key: Bearer " + key}, false},
		{"prefix", "POST", chat, []string{"Authorization: Bearer " + key[:len(key)-1]}, false},
		{"suffix", "POST", chat, []string{"Authorization: Bearer " + key + "0"}, false},
		{"capitals", "POST", chat, []string{"Authorization: Bearer " + strings.ToUpper(key)}, false},
		{"list with commas", "POST", chat, []string{"Authorization: Bearer " + key + "," + otherKey}, false},
		{"list with a space", "POST", chat, []string{"Authorization: Bearer " + key + " " + otherKey}, false},
		{"quoted", "POST", chat, []string{`Authorization: Bearer "` + key + `"`}, false},
		{"escaped", "POST", chat, []string{"Authorization: Bearer client%2Dkey-0123456789"}, false},
		{"the label", "POST", chat, []string{"Authorization: Bearer tester"}, false},
		{"label and key", "POST", chat, []string{"Authorization: Bearer tester:" + key}, false},
		{"the upstream's key", "POST", chat, []string{"Authorization: Bearer " + testUpstream}, false},
		{"Authorization twice", "POST", chat, []string{"Authorization: Bearer " + key, "Authorization: Bearer " + key}, false},
		{"twice, one wrong", "POST", chat, []string{"x-api-key: wrong", "x-api-key: " + key}, false},
		{"twice beside a good one", "POST", chat, []string{"x-api-key: a", "x-api-key: b", "Authorization: Bearer " + key}, false},
		{"underscores", "POST", chat, []string{"x_api_key: " + key}, false},
		{"cookie", "POST", chat, []string{"Cookie: api-key=" + key + "; Authorization=Bearer " + key}, false},
		{"Proxy-Authorization", "POST", chat, []string{"Proxy-Authorization: Bearer " + key}, false},
		{"X-Forwarded-Authorization", "POST", chat, []string{"X-Forwarded-Authorization: Bearer " + key}, false},

		{"query on chat", "POST", chat + "?key=" + key, nil, false},
		{"query on models", "GET", "/v1/models?key=" + key, nil, false},
		{"query on a model", "GET", "/v1/models/m:generateContent?key=" + key, nil, false},
		{"query on a forwarded path", "POST", "/v1/files/a:b?key=" + key, nil, false},
		{"query on a session", "GET", "/context/s?key=" + key, nil, false},
		{"other query names", "POST", chat + "?api_key=" + key + "&access_token=" + key, nil, false},
		{"Gemini with a wrong query key", "POST", gemini + "?key=wrong", nil, false},
		{"Gemini with two query keys", "POST", gemini + "?key=" + key + "&key=" + key, nil, false},
		{"Gemini without", "POST", gemini, nil, false},
		{"a line break in the query key", "POST", gemini + "?key=" + key + "%0d%0a", nil, false},
		{"user information", "GET", "http://" + key + ":" + key + "@gateway/v1/models", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, answer := g.keyless(tt.method, tt.path, tt.headers...)
			want := "401"
			if tt.opens {
				want = "200"
			}
			if status != want {
				t.Errorf("%s %s with %q = %.400q, want %s", tt.method, tt.path, tt.headers, answer, want)
			}
		})
	}
}

// The paths on which Gemini's clients put the key into the query are let in. What
// is behind them is decided elsewhere.
func TestQueryKeyOnGeminiPaths(t *testing.T) {
	for _, tt := range []struct {
		method, path string
		want         bool
	}{
		{"POST", "/v1beta/models/m:generateContent", true},
		{"GET", "/v1beta/models", true},
		{"GET", "/v1alpha/models/m", true},
		{"POST", "/v1/models/m:streamGenerateContent", true},
		{"POST", "/v1/models/org/name:countTokens", true},
		{"POST", "/v1/models/org%2Fname:countTokens", true},
		{"GET", "/v1/models/m:generateContent", false},
		{"POST", "/v1/models/a:b/c", false},
		{"POST", "/v1betamodels", false},
		{"POST", "/v1/embeddings", false},
	} {
		r := httptest.NewRequest(tt.method, tt.path+"?key=k-123", nil)
		if got := len(keysOf(r)) == 1; got != tt.want {
			t.Errorf("%s %s takes a query key: %t, want %t", tt.method, tt.path, got, tt.want)
		}
	}
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1beta/models/none:x", "/gemini/v1beta/models/none:x"} {
		if status, answer := g.keyless("POST", path+"?key="+testKey); status == "401" {
			t.Errorf("%s = %.300q", path, answer)
		}
	}
}

// A key in a trailer comes after the decision.
func TestKeyInTrailer(t *testing.T) {
	g := newGateway(t, echoPath)
	answer := g.speak("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nTrailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n" +
		fmt.Sprintf("%x\r\n%s\r\n0\r\nAuthorization: Bearer %s\r\n\r\n", len(greeting), greeting, testKey))
	if statusOf(answer) != "401" {
		t.Errorf("a key in a trailer = %.200q", answer)
	}
	g.mustBeUnasked("a key in a trailer")
}

// Whoever guesses learns nothing: every refusal has the same bytes.
func TestRefusalsAreAlike(t *testing.T) {
	g := newGateway(t, echoPath)
	var first string
	for i, headers := range [][]string{
		nil,
		{"Authorization: Bearer wrong"},
		{"Authorization: Bearer " + testKey[:10]},
		{"Authorization: Bearer " + testUpstream},
		{"Authorization: Basic abc"},
		{"x-api-key: " + strings.Repeat("x", 4000)},
		{"x-goog-api-key: <script>alert(1)</script>"},
		{"Authorization: Bearer a", "Authorization: Bearer b"},
	} {
		for _, path := range []string{"/v1/chat/completions", "/v1/embeddings", "/context/s", "/nowhere"} {
			_, answer := g.keyless("POST", path, append(headers, "X-Request-Id: same")...)
			head, body, _ := strings.Cut(answer, "\r\n\r\n")
			var lines []string
			for line := range strings.SplitSeq(head, "\r\n") {
				if !strings.HasPrefix(line, "Date: ") {
					lines = append(lines, line)
				}
			}
			if got := strings.Join(lines, "\n") + "\n" + body; i == 0 && first == "" {
				first = got
			} else if got != first {
				t.Errorf("%s with %.60q is refused with\n%s\nand nothing with\n%s", path, headers, got, first)
			}
		}
	}
	for _, want := range []string{"401 Unauthorized", "Www-Authenticate: Bearer", `"code":"invalid_api_key"`, "X-Should-Retry: false", "X-Content-Type-Options: nosniff", "X-Request-Id: same"} {
		if !strings.Contains(first, want) {
			t.Errorf("no %q in %s", want, first)
		}
	}
	if log := g.log.String(); strings.Contains(log, "script") || strings.Contains(log, testKey[:10]) {
		t.Errorf("the log repeats what was tried: %s", log)
	}
	g.mustBeUnasked("a wrong key")
}

// The refusal comes while the body is still to be sent.
func TestKeyBeforeBody(t *testing.T) {
	g := newGateway(t, echoPath)
	answer := g.speak("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n{\"model\":")
	if statusOf(answer) != "401" {
		t.Errorf("%q", answer)
	}
}

func TestWrongGuessesLockNobodyOut(t *testing.T) {
	g := newGateway(t, echoPath)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 75 {
				req := g.request("GET", "/v1/models", "", fmt.Sprintf("Authorization: Bearer guess-%d-%d", i, j))
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				if res.StatusCode != 401 {
					t.Errorf("a guess = %d", res.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	if res, body := g.chat(greeting); res.StatusCode != 200 {
		t.Errorf("the right key after 300 guesses = %d %s", res.StatusCode, body)
	}
}

// Another key's session looks like none at all.
func TestSessionsBelongToTheirKey(t *testing.T) {
	g := newGateway(t, echoPath)
	g.chat(`{"model":"m","messages":[{"role":"user","content":"the secret plan"}]}`, "X-Session-Id: shared")
	other := "Authorization: Bearer " + otherKey
	strange := func(method, path string) string {
		res := g.do(method, path, "", other, "X-Request-Id: same")
		body := readAll(t, res)
		if res.StatusCode != 404 {
			t.Errorf("%s %s with another key = %d %s", method, path, res.StatusCode, body)
		}
		return body
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got, none := strange(method, "/context/shared"), strange(method, "/context/nothing"); got != none {
			t.Errorf("%s tells another key's session (%s) from none (%s)", method, got, none)
		}
		for _, pattern := range []string{"*", "s*", "?hared", "[s]hared", "%2A", "shared*"} {
			strange(method, "/context/"+pattern)
		}
	}
	if res, _ := g.chat(greeting, other, "X-Session-Id: shared"); res.Header.Get("X-Session-Messages") != "0" || res.Header.Get("X-Session-Thread") != "new" {
		t.Errorf("another key continued the session: %v", res.Header)
	}
	if strings.Contains(g.last().Body, "secret plan") {
		t.Errorf("another key's words went upstream: %s", g.last().Body)
	}
	if res := g.do("GET", "/context/shared", ""); !strings.Contains(readAll(t, res), "the secret plan") {
		t.Errorf("the owner's session is gone")
	}
}

func TestAuthModes(t *testing.T) {
	t.Run("passthrough", func(t *testing.T) {
		g := newGateway(t, echoPath, func(c *config) { c.Auth, c.APIKey, c.ClientKeys = authPassthrough, "", nil })
		for _, header := range []string{"Authorization: Bearer own-key-1", "x-api-key: own-key-1", "api-key: own-key-1", "x-goog-api-key: own-key-1"} {
			if status, answer := g.keyless("POST", "/v1/chat/completions", header); status != "200" {
				t.Errorf("%s = %.300q", header, answer)
				continue
			}
			if got := g.last().Header; got.Get("Authorization") != "Bearer own-key-1" || got.Get("X-Api-Key")+got.Get("Api-Key")+got.Get("X-Goog-Api-Key") != "" {
				t.Errorf("%s went upstream as %v", header, got)
			}
		}
		for path, want := range map[string]string{"POST /v1/chat/completions": "a", "POST /v1/messages": "b", "GET /v1beta/models": "c"} { // C-2
			method, path, _ := strings.Cut(path, " ")
			g.keyless(method, path, "Authorization: Bearer a", "x-api-key: b", "x-goog-api-key: c")
			if got := g.last().Header.Get("Authorization"); got != "Bearer "+want {
				t.Errorf("with three keys, %s sends %q, want %q", path, got, want)
			}
		}
		if status, _ := g.keyless("POST", "/v1/chat/completions"); status != "401" {
			t.Errorf("no key = %s", status)
		}
		if status, answer := g.keyless("POST", "/v1/models/m:x?key=a%0d%0aX-Evil:%20b"); status != "401" {
			t.Errorf("a key with a line break = %.300q", answer)
		}
		g.chat(greeting, "Authorization: Bearer own-key-1", "X-Session-Id: s")
		if res := g.do("GET", "/context/s", "", "Authorization: Bearer own-key-2"); res.StatusCode != 404 {
			t.Errorf("another key reads the session: %d", res.StatusCode)
		}
		if res := g.do("GET", "/context/s", "", "x-api-key: own-key-1", "Authorization: "); res.StatusCode != 200 {
			t.Errorf("the same key in another place does not read the session: %d", res.StatusCode)
		}
	})
	t.Run("off", func(t *testing.T) {
		g := newGateway(t, echoPath, func(c *config) { c.Auth, c.ClientKeys = authOff, nil })
		for _, headers := range [][]string{nil, {"Authorization: Bearer anything"}, {"x-api-key: a", "x-api-key: b"}} {
			if status, answer := g.keyless("POST", "/v1/chat/completions", headers...); status != "200" {
				t.Errorf("%q = %.300q", headers, answer)
			}
			if got := g.last().Header["Authorization"]; len(got) != 1 || got[0] != "Bearer "+testUpstream {
				t.Errorf("%q went upstream with %q", headers, got)
			}
		}
		g.chat(greeting, "Authorization: Bearer one", "X-Session-Id: s")
		if res := g.do("GET", "/context/s", "", "Authorization: Bearer two"); res.StatusCode != 200 {
			t.Errorf("the one anonymous owner's session = %d", res.StatusCode)
		}
	})
	t.Run("off without an upstream key", func(t *testing.T) {
		g := newGateway(t, echoPath, func(c *config) { c.Auth, c.APIKey, c.ClientKeys = authOff, "", nil })
		if res, body := g.chat(greeting); res.StatusCode != 200 {
			t.Errorf("= %d %s", res.StatusCode, body)
		}
		if got, ok := g.last().Header["Authorization"]; ok {
			t.Errorf("the client's key went upstream: %q", got)
		}
	})
}
