package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// clientHeaders are what a request may bring along.
var clientHeaders = []string{
	"User-Agent: OpenAI/Python 2.0", "X-Stainless-Lang: python", "X-Stainless-Retry-Count: 1",
	"Accept: application/json", "OpenAI-Organization: org-1", "OpenAI-Beta: assistants=v2", "Idempotency-Key: idem-1",
	"HTTP-Referer: https://site.example", "X-Title: A title", "X-Request-Id: req-1", "Traceparent: 00-1-2-03", "Tracestate: a=b",
	"Referer: https://client.example", "Origin: https://client.example", "Cookie: session=1", "Accept-Language: de", "Accept-Encoding: gzip, br",
	"Anthropic-Version: 2023-06-01", "Anthropic-Beta: b", "X-Session-Id: s", "X-Session-Mode: record", "Cache-Control: no-store",
	"X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https", "Forwarded: for=1.2.3.4", "X-Real-Ip: 1.2.3.4",
	"True-Client-Ip: 1.2.3.4", "Cf-Connecting-Ip: 1.2.3.4", "X_Forwarded_For: 1.2.3.4", "X_Real_Ip: 1.2.3.4", "Via: 1.1 proxy",
	"X-Api-Key: " + otherKey, "X-Goog-Api-Key: k", "Api-Key: k", "Proxy-Authorization: Basic abc", "Te: trailers", "Keep-Alive: timeout=5",
	"X-Team: red", "X-Team-Cost: 7", "X-Custom: 1", "Range: bytes=0-1", "If-None-Match: x", "X-Http-Method-Override: DELETE", "Upgrade-Insecure-Requests: 1",
}

func TestRequestHeaders(t *testing.T) {
	always := []string{"Accept", "Authorization", "Content-Length", "Content-Type", "Http-Referer", "Idempotency-Key", "Openai-Beta",
		"Openai-Organization", "Traceparent", "Tracestate", "User-Agent", "X-Request-Id", "X-Title"}
	for _, tt := range []struct {
		name   string
		change func(*config)
		more   []string
		agent  string
	}{
		{"masked", func(c *config) {}, nil, "Mozilla/5.0"},
		{"masked, with origin and referer", func(c *config) {
			c.MaskUserAgent, c.MaskOrigin, c.MaskReferer = "Agent/1", "https://mask.example", "https://mask.example/"
		}, []string{"Origin", "Referer"}, "Agent/1"},
		{"not masked", func(c *config) { c.MaskAsBrowser = false }, []string{"X-Stainless-Lang", "X-Stainless-Retry-Count"}, "OpenAI/Python"},
		{"more", func(c *config) { c.ForwardHeaders = []string{"X-Team*", "Range"} }, []string{"Range", "X-Team", "X-Team-Cost"}, "Mozilla/5.0"},
		{"native messages", func(c *config) { c.NativeDialects = []string{"messages"} }, []string{"Anthropic-Beta", "Anthropic-Version"}, "Mozilla/5.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, echoPath, tt.change)
			for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
				if res := g.do("POST", path, greeting, clientHeaders...); res.StatusCode != 200 {
					t.Fatalf("%s = %d %s", path, res.StatusCode, readAll(t, res))
				}
				seen := g.last()
				var got []string
				for name := range seen.Header {
					got = append(got, name)
				}
				want := append(slices.Clone(always), tt.more...)
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s sent %q upstream, want %q", path, got, want)
				}
				if v := seen.Header["Authorization"]; len(v) != 1 || v[0] != "Bearer "+testUpstream {
					t.Errorf("%s: Authorization %q", path, v)
				}
				if v := seen.Header["User-Agent"]; len(v) != 1 || !strings.HasPrefix(v[0], tt.agent) {
					t.Errorf("%s: User-Agent %q, want %s", path, v, tt.agent)
				}
				if origin := seen.Header.Get("Origin"); origin != g.server.cfg.MaskOrigin {
					t.Errorf("%s: Origin %q", path, origin)
				}
				if seen.Host != g.server.cfg.BaseURL.Host {
					t.Errorf("%s: Host %q", path, seen.Host)
				}
			}
		})
	}
}

// Without a User-Agent, none is made up when the gateway does not mask.
func TestNoUserAgentIsInvented(t *testing.T) {
	g := newGateway(t, echoPath, func(c *config) { c.MaskAsBrowser = false })
	if status, answer := g.keyless("POST", "/v1/chat/completions", "Authorization: Bearer "+testKey); status != "200" {
		t.Fatal(answer)
	}
	if v, ok := g.last().Header["User-Agent"]; ok {
		t.Errorf("User-Agent %q", v)
	}
}

// Connection can take away what a client sent for this hop alone, not what the
// upstream needs.
func TestConnectionHeaderTricks(t *testing.T) {
	g := newGateway(t, echoPath)
	status, answer := g.keyless("POST", "/v1/chat/completions", "Authorization: Bearer "+testKey, "X-Title: hidden", "Idempotency-Key: kept",
		"Connection: content-type, Authorization, Host , X-Title,content-length, User-Agent, close")
	if status != "200" {
		t.Fatal(answer)
	}
	seen := g.last()
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer " + testUpstream, "Content-Length": "60", "Idempotency-Key": "kept", "X-Title": "", "Connection": "",
	} {
		if got := seen.Header.Get(name); got != want {
			t.Errorf("%s: %q went upstream, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(seen.Header.Get("User-Agent"), "Mozilla/") || seen.Body != greeting {
		t.Errorf("User-Agent %q, body %q", seen.Header.Get("User-Agent"), seen.Body)
	}
}

func TestQuerySecretsStay(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"beta=true", "beta=true"},
		{"key=s", ""},
		{"a=1&key=s&b=%20x+y&c", "a=1&b=%20x+y&c"},
		{"api_key=s&apikey=s&access_token=s&token=s&x=1", "x=1"},
		{"KEY=s&Api_Key=s&%6bey=s&ke%79=s&x=1", "x=1"},
		{"key=s&key=t", ""},
		{"monkey=1&keys=2&key2=3", "monkey=1&keys=2&key2=3"},
		{"a=1;key=s&b=2", "b=2"},
		{"%zz=1&b=2", "b=2"},
	} {
		if got := cleanQuery(tt.in); got != tt.want {
			t.Errorf("cleanQuery(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	g := newGateway(t, echoPath)
	g.do("GET", "/v1/files?limit=2&key="+otherKey+"&after=a%2Fb", "")
	if got := g.last().URL.RawQuery; got != "limit=2&after=a%2Fb" {
		t.Errorf("the upstream was asked with %q", got)
	}
}

func TestResponseHeaders(t *testing.T) {
	hidden := []string{
		"Set-Cookie: a=b", "Set-Cookie2: c=d", "Authorization: Bearer x", "X-Api-Key: x", "Api-Key: x", "Www-Authenticate: Bearer",
		"Server: nginx/1.2", "Via: 1.1 inner", "X-Powered-By: Express", "Alt-Svc: h3", "Strict-Transport-Security: max-age=1", "Server-Timing: db;dur=1",
		"Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true", "Cross-Origin-Resource-Policy: same-origin", "Content-Security-Policy: none",
		"Cf-Ray: 1", "X-Envoy-Upstream-Service-Time: 3", "X-Amzn-Requestid: 1", "X-Internal-Host: 10.0.0.1", "X-Backend-Server: b", "X-Forwarded-For: 10.0.0.1",
		"X-Real-Ip: 10.0.0.1", "X-Accel-Redirect: /etc/passwd", "X-Sendfile: /etc/passwd", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Proxy-Connection: close",
		"X-Hop: 1", "Upgrade: h2c", "Refresh: 0;url=https://evil.example", "Location: https://inner.example", "X-Apiproxy-Fidelity: forged", "X-Session-Id: forged", "X-Session-Store: forged",
		"Clear-Site-Data: *", "Nel: {}", "Report-To: {}",
	}
	shown := []string{
		"X-Ratelimit-Remaining-Requests: 5", "X-Ratelimit-Reset-Tokens: 6m0s", "Openai-Processing-Ms: 12", "Openai-Version: 2020-10-01", "Retry-After: 3",
		"X-Should-Retry: true", "X-Vendor-Thing: 1", "Vary: Accept", "Last-Modified: Mon, 01 Jan 2024 00:00:00 GMT",
	}
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		for _, h := range append(append([]string{"Connection: X-Hop", "X-Request-Id: upstream-7", "X-Debug: key is " + testUpstream + "!"}, hidden...), shown...) {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Add(name, value)
		}
		echoPath(w, r)
	})
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
		res := g.do("POST", path, greeting, "X-Request-Id: mine")
		if body := readAll(t, res); res.StatusCode != 200 {
			t.Fatal(body)
		}
		for _, h := range hidden {
			name, value, _ := strings.Cut(h, ": ")
			if slices.Contains(res.Header[name], value) {
				t.Errorf("%s lets %s out", path, h)
			}
		}
		for _, h := range shown {
			name, value, _ := strings.Cut(h, ": ")
			if got := res.Header.Get(name); got != value {
				t.Errorf("%s: %s is %q, want %q", path, name, got, value)
			}
		}
		for name, want := range map[string][]string{
			"X-Request-Id": {"mine"}, "X-Upstream-Request-Id": {"upstream-7"}, "X-Content-Type-Options": {"nosniff"},
			"X-Debug": {"key is " + strings.Repeat("*", len(testUpstream)) + "!"},
		} {
			if got := res.Header[name]; !slices.Equal(got, want) {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
}

// Trailers come after the filter; none may pass it by.
func TestTrailersDoNotPass(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Set-Cookie, X-Late")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		w.Write([]byte(completion("hi")))
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Late", testUpstream)
		w.Header().Set(http.TrailerPrefix+"X-Later", testUpstream)
	})
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
		res := g.do("POST", path, greeting)
		readAll(t, res)
		if len(res.Trailer) > 0 || res.Header.Get("Trailer") != "" {
			t.Errorf("%s: trailers %v, announced %q", path, res.Trailer, res.Header.Get("Trailer"))
		}
	}
}

func TestHeaderSet(t *testing.T) {
	set := newHeaderSet("Accept", "X-Team-*", "Openai-*")
	for name, want := range map[string]bool{
		"Accept": true, "Accept-Encoding": false, "X-Team-Cost": true, "X-Team": false, "Openai-Beta": true, "X-Openai-Beta": false, "": false,
	} {
		if got := set.has(name); got != want {
			t.Errorf("has(%q) = %t, want %t", name, got, want)
		}
	}
}
