package main

import (
	"html"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPlaygroundHeaders(t *testing.T) {
	g := newGateway(t, echoPath)
	res := g.do("GET", "/", "", "Authorization: ")
	body := readAll(t, res)
	if res.StatusCode != 200 || body != string(playground) || res.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("GET / = %d %s, %d bytes", res.StatusCode, res.Header.Get("Content-Type"), len(body))
	}
	policy := strings.Split(res.Header.Get("Content-Security-Policy"), "; ")
	for _, want := range []string{"default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'"} {
		if !slices.Contains(policy, want) {
			t.Errorf("the policy %q lacks %s", policy, want)
		}
	}
	hash := regexp.MustCompile(`^(style|script)-src 'sha256-[A-Za-z0-9+/]{43}='$`)
	hashes := 0
	for _, directive := range policy {
		if strings.Contains(directive, "unsafe") {
			t.Errorf("the policy has %s", directive)
		}
		if hash.MatchString(directive) {
			hashes++
		}
	}
	if hashes != 2 {
		t.Errorf("the policy %q names %d sources by their hash, want the style and the script", policy, hashes)
	}
	for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-cache"} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	again := g.do("GET", "/", "", "Authorization: ", "If-None-Match: "+res.Header.Get("Etag"))
	if rest := readAll(t, again); again.StatusCode != http.StatusNotModified || rest != "" {
		t.Errorf("the page that the client has = %d, %d bytes", again.StatusCode, len(rest))
	}
}

func TestSourceHash(t *testing.T) {
	// The hash that the CSP specification gives for this script.
	want := "'sha256-qznLcsROx4GACP2dm0UCKCzCG+HiZ1guq6ZZDob/Tng='"
	if got := sourceHash([]byte("<p><script>alert('Hello, world.');</script><script>"), "<script>", "</script>"); got != want {
		t.Errorf("sourceHash = %s, want %s", got, want)
	}
}

// The page is one small file that asks nobody for anything, and has no way to turn
// text into HTML or code.
func TestPlaygroundSource(t *testing.T) {
	page := string(playground)
	if len(page) >= 60_000 {
		t.Errorf("the page has %d bytes, want less than 60 kB", len(page))
	}
	for _, element := range []string{"<style>", "</style>", "<script>", "</script>"} {
		if n := strings.Count(page, element); n != 1 {
			t.Errorf("%s is there %d times", element, n)
		}
	}
	for _, m := range regexp.MustCompile(`(?i)innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|DOMParser|createContextualFragment|srcdoc|\son\w+="|\sstyle="|@import|localStorage|cookie`).FindAllString(page, -1) {
		t.Errorf("the page has %q", m)
	}
	for _, m := range regexp.MustCompile(`(?:src|href|action)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "#") && !strings.HasPrefix(m[1], "data:image/svg+xml,") {
			t.Errorf("the page leads to %s", m[1])
		}
	}
}

// clientSections are the parts of the page that say how to connect a client, as
// plain text by their titles: the code blocks, and all of it.
func clientSections(t *testing.T) (blocks map[string][]string, texts map[string]string) {
	t.Helper()
	blocks, texts = map[string][]string{}, map[string]string{}
	tag := regexp.MustCompile(`<[^>]+>`)
	plain := func(s string) string {
		s = strings.NewReplacer("@url", demoURL, "@key", "demo", "@model", "demo").Replace(tag.ReplaceAllString(s, ""))
		return html.UnescapeString(s)
	}
	for _, m := range regexp.MustCompile(`(?s)<section id="c-[^"]+"><h2>([^<]+)</h2>(.*?)</section>`).FindAllStringSubmatch(string(playground), -1) {
		texts[m[1]] = plain(m[2])
		for _, pre := range regexp.MustCompile(`(?s)<pre>(.*?)</pre>`).FindAllStringSubmatch(m[2], -1) {
			blocks[m[1]] = append(blocks[m[1]], plain(pre[1]))
		}
	}
	if len(texts) < 9 {
		t.Fatalf("the page has %d clients", len(texts))
	}
	return blocks, texts
}

// TestPlaygroundClients holds the lines that the page gives for each client against
// the README's: the same code blocks, and the same addresses.
func TestPlaygroundClients(t *testing.T) {
	blocks, texts := clientSections(t)
	_, connect, _ := strings.Cut(readText(t, readmeEnglish), "\n## Connect a client\n")
	connect, _, _ = strings.Cut(connect, "\n## ")
	sections := strings.Split(connect, "\n### ")
	for _, section := range sections[1:] {
		name, text, _ := strings.Cut(section, "\n")
		if _, ok := texts[name]; !ok {
			t.Errorf("the page lacks %s", name)
			continue
		}
		for _, m := range regexp.MustCompile("(?s)```\\w+\n(.*?)```").FindAllStringSubmatch(text, -1) {
			if !slices.Contains(blocks[name], m[1]) {
				t.Errorf("%s: the page lacks\n%s", name, m[1])
			}
		}
		for _, span := range codeSpans(regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")) {
			if strings.Contains(span, "127.0.0.1") && !strings.Contains(texts[name], span) {
				t.Errorf("%s: the page lacks %s", name, span)
			}
		}
		delete(texts, name)
	}
	for name, list := range blocks {
		if _, left := texts[name]; !left {
			continue
		}
		for _, block := range list { // of the SDKs
			for line := range strings.Lines(block) {
				if _, call, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(line), ";"), "= "); !ok || !strings.Contains(sections[0], call) {
					t.Errorf("%s: the README lacks %s", name, line)
				}
			}
		}
	}
}
