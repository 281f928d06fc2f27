package main

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// The page at /: all of it is in this one file, and it asks for nothing but the
// gateway's own API.
//
//go:embed playground.html
var playground []byte

// playgroundPolicy lets the page's own style and script run, by their hashes, and
// nothing else: what a model writes stays text whatever it is. Trusted types take
// the ways to turn text into HTML away from the page itself.
var playgroundPolicy = strings.Join([]string{
	"default-src 'none'",
	"style-src " + sourceHash(playground, "<style>", "</style>"),
	"script-src " + sourceHash(playground, "<script>", "</script>"),
	"connect-src 'self'",
	"img-src data:",
	"base-uri 'none'",
	"form-action 'none'",
	"frame-ancestors 'none'",
	"require-trusted-types-for 'script'",
	"trusted-types 'none'",
}, "; ")

var playgroundTag = `"` + base64.RawURLEncoding.EncodeToString(hashOf(playground)) + `"`

// sourceHash is how a policy names the element that stands between two tags.
func sourceHash(html []byte, start, end string) string {
	_, rest, _ := bytes.Cut(html, []byte(start))
	source, _, _ := bytes.Cut(rest, []byte(end))
	return "'sha256-" + base64.StdEncoding.EncodeToString(hashOf(source)) + "'"
}

func hashOf(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// handlePlayground serves the page at /, which asks for the key itself.
func (s *server) handlePlayground(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", playgroundPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Etag", playgroundTag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(playground))
}
