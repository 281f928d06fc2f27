package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzCanonicalPath: a path that is taken stands for itself: it leads nowhere else
// when it is looked at again, decoded again, or cleaned by another reader.
func FuzzCanonicalPath(f *testing.F) {
	for _, seed := range []string{"/v1/models", "/openai/v1/v1/chat/completions/", "/v1/files/a%2Fb", "/v1/..%2fx", "/v1/%252e%252e/x", "/v1/..;/x", "/context/%2e%2e%2f", "/gemini/v1beta/models/m:generateContent", "//", "*", "/v1/%5c..%5c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		u, err := url.ParseRequestURI(escaped)
		if err != nil || u.Scheme != "" || u.Host != "" {
			return
		}
		path, refused := canonicalPath(u.EscapedPath())
		if refused != nil {
			if path != "" || refused.Status != 400 {
				t.Errorf("canonicalPath(%q) = %q, %v", escaped, path, refused)
			}
			return
		}
		again, refused := canonicalPath(path)
		if refused != nil || again != path && !slices.ContainsFunc(vendorPrefixes[:], func(p string) bool { return strings.HasPrefix(path, p) }) {
			t.Errorf("canonicalPath(%q) = %q, which becomes %q, %v", escaped, path, again, refused)
		}
		if strings.HasPrefix(path, "/context/") {
			return // a name, which goes nowhere
		}
		for decoded := path; ; {
			for step := range strings.SplitSeq(strings.ReplaceAll(decoded, `\`, "/")[1:], "/") {
				if step == ".." || step == "." || step == "" && decoded != "/" {
					t.Fatalf("canonicalPath(%q) = %q, which somebody reads as %q", escaped, path, decoded)
				}
			}
			next, err := url.PathUnescape(decoded)
			if err != nil || next == decoded || !strings.HasPrefix(next, "/") {
				return
			}
			decoded = next
		}
	})
}

// FuzzCleanQuery: no reader finds a key in a query that goes upstream.
func FuzzCleanQuery(f *testing.F) {
	for _, seed := range []string{"a=1&key=s", "KEY=s&%6bey=s", "a=1;key=s", "%zz=1&token", "key", "&&=&key=&", "ke%79=1&b=%20"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		clean := cleanQuery(raw)
		values, _ := url.ParseQuery(clean)
		for name := range values {
			if slices.Contains(secretQuery, strings.ToLower(name)) {
				t.Errorf("cleanQuery(%q) = %q", raw, clean)
			}
		}
		if again := cleanQuery(clean); again != clean {
			t.Errorf("cleanQuery(%q) = %q, then %q", raw, clean, again)
		}
	})
}

// FuzzChatPath: whatever body comes on the chat path, in whatever dialect, it is an
// error for its client or a request that the upstream can read.
func FuzzChatPath(f *testing.F) {
	for _, d := range inDialects {
		f.Add(strings.Replace(d.body, "TEXT", `"hi"`, 1))
	}
	f.Add(`{"model":"m","prompt":["a"],"stream":true,"suffix":"x","echo":true}`)
	f.Add(`{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"}]}],"max_tokens":1}`)
	f.Add(`{"input":[{"type":"function_call_output","call_id":"c","output":"o"}],"previous_response_id":"resp_x"}`)
	g := benchServer(f, "http://127.0.0.1:1", 10)
	f.Fuzz(func(t *testing.T, body string) {
		r, err := http.NewRequest("POST", "http://x/v1/chat/completions", nil)
		if err != nil {
			t.Fatal(err)
		}
		x, r := newExchange(r)
		x.cfg, x.header, x.chat = g.cfg, r.Header, true
		if err := g.readChat(r, x, []byte(body)); err != nil {
			if e := asAPIError(x.ctx, err); e.Status < 400 || e.Status >= 500 && e.Status != 503 {
				t.Errorf("%q is answered %d %v", body, e.Status, err)
			}
			return
		}
		var sent []byte
		for _, piece := range x.payload.pieces {
			sent = append(sent, piece...)
		}
		if err := checkJSON(sent); err != nil || int64(len(sent)) != x.payload.size {
			t.Errorf("%q goes upstream as %q: %v", body, sent, err)
		}
	})
}
