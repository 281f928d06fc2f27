package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Clients that attack with HTTP itself: raw bytes on raw connections.

// TestHeaderFlood: a block of more lines than any client sends is refused, in the
// dialect of its path, however the lines are spread over names.
func TestHeaderFlood(t *testing.T) {
	g := newGateway(t, echoPath)
	for name, line := range map[string]func(i int) string{
		"many names": func(i int) string { return fmt.Sprintf("x-%d: y\r\n", i) },
		"one name":   func(i int) string { return "x: y\r\n" },
	} {
		for lines, want := range map[int]string{200: "200", 300: "431", 6000: "431"} {
			var b strings.Builder
			for i := range lines {
				b.WriteString(line(i))
			}
			for path, body := range map[string]string{"/v1/chat/completions": greeting, messagesPath: anthropicHi} {
				answer := g.speak(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n%s\r\n%s", path, testKey, len(body), b.String(), body))
				if statusOf(answer) != want {
					t.Errorf("%d lines of %s on %s = %.300q, want %s", lines, name, path, answer, want)
				}
				if want == "431" && strings.Contains(answer, `"type":"error"`) != (path == messagesPath) {
					t.Errorf("%s: not in its dialect: %.400q", path, answer)
				}
			}
		}
	}
}

// TestSmuggling: after bytes that two readers could take for one or for two
// requests, the second is never answered on the same connection, and what hides in
// a body stays in it.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	g := newGateway(t, echoPath)
	const hidden = "GET /v1/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\nConnection: close\r\n\r\n"
	head := "POST /v1/embeddings HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\n"
	for name, raw := range map[string]string{
		"CL.TE":                      head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 5+len(hidden)),
		"TE.CL":                      head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"TE with a tab":              head + "Content-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n",
		"TE with a space before":     head + "Content-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"TE folded":                  head + "Content-Length: 5\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"TE in quotes":               head + "Content-Length: 5\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
		"TE identity and chunked":    head + "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
		"TE in HTTP/1.0":             strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1) + "Content-Length: 5\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bare CR":                    head + "X: a\rContent-Length: 0\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"chunk with an LF extension": head + "Transfer-Encoding: chunked\r\n\r\n2;\nxx\r\n4c\r\n0\r\n\r\n",
		"chunk of negative size":     head + "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n0\r\n\r\n",
		"chunk of hexadecimal form":  head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
		"NUL in a length":            head + "Content-Length: 5\x00\r\n\r\nhello",
		"length in words":            head + "Content-Length: five\r\n\r\nhello",
		"two equal lengths, listed":  head + "Content-Length: 5, 5\r\n\r\nhello",
		"underscored length":         head + "Content_Length: 500\r\nContent-Length: 5\r\n\r\nhello",
		"a body where none is due":   "GET /v1/files HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: " + fmt.Sprint(len(hidden)) + "\r\n\r\n",
	} {
		answer := g.speak(raw + hidden)
		smuggled := 0
		for _, seen := range g.upstream.all() {
			if seen.URL.Path == "/v1/smuggled" {
				smuggled++
			}
		}
		// A plain second request on a connection that is in order is pipelining.
		clean := name == "underscored length"
		if !clean && smuggled > 0 || strings.Contains(answer, " 5") && statusOf(answer)[0] == '5' && statusOf(answer) != "501" {
			t.Errorf("%s: %d smuggled; %.400q", name, smuggled, answer)
		}
		for _, seen := range g.upstream.all() {
			if seen.Header.Get("Content_Length")+seen.Header.Get("Transfer-Encoding") != "" {
				t.Errorf("%s: ambiguous headers went upstream: %v", name, seen.Header)
			}
		}
		g.upstream.mu.Lock()
		g.upstream.seen = nil
		g.upstream.mu.Unlock()
	}
}

// TestTrailersFromClients: what follows a chunked body goes nowhere.
func TestTrailersFromClients(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings"} {
		answer := g.speak(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-For, Authorization\r\n\r\n%x\r\n%s\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: Bearer evil\r\nContent-Length: 3\r\n\r\n", path, testKey, len(greeting), greeting))
		if statusOf(answer) != "200" {
			t.Fatalf("%s: %q", path, answer)
		}
		if seen := g.last(); seen.Body != greeting || strings.Contains(strings.Join(flatten(seen.Header), "\n"), "1.2.3.4") || seen.Header.Get("Authorization") != "Bearer "+testUpstream || seen.Header.Get("Trailer") != "" {
			t.Errorf("%s went upstream as %v %q", path, seen.Header, seen.Body)
		}
	}
}

// TestControlBytesInKeys: a key with anything beside it opens nothing.
func TestControlBytesInKeys(t *testing.T) {
	g := newGateway(t, echoPath)
	for _, around := range []string{"\x00%s", "%s\x00", "%s\x01", "\x7f%s", "%s\xa0", "\u00a0%s", "%s\v", "%s\xff", "%s\u200b", "\t %s"} {
		key := fmt.Sprintf(around, testKey)
		status, answer := g.keyless("POST", "/v1/chat/completions", "X-Api-Key: "+key)
		want := status == "401" || status == "400"
		if strings.TrimSpace(key) == testKey && around == "\t %s" {
			want = status == "200" // white space around a value is none of it
		}
		if !want {
			t.Errorf("X-Api-Key: %q = %.200q", key, answer)
		}
	}
}

// TestManySlowClients: hundreds that send their head or body byte by byte, or
// nothing at all, disturb nobody.
func TestManySlowClients(t *testing.T) {
	g := newGateway(t, echoPath)
	for i := range 300 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, []string{"", "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-", "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: 1000000\r\n\r\n{\"m"}[i%3])
	}
	for range 50 {
		began := time.Now()
		if res, body := g.chat(greeting); res.StatusCode != 200 || time.Since(began) > 5*time.Second {
			t.Fatalf("among slow clients: after %v %d %s", time.Since(began), res.StatusCode, body)
		}
	}
	if n := len(g.upstream.all()); n != 50 {
		t.Errorf("%d requests went upstream, want 50: halves are not forwarded", n)
	}
}

// TestEndlessBody: a body without end is cut at the limit, and its client told.
func TestEndlessBody(t *testing.T) {
	g := newGateway(t, echoPath, func(c *config) { c.MaxBodyBytes = 1 << 20 })
	for _, path := range []string{"/v1/chat/completions", messagesPath, responsesPath, geminiPath} {
		conn := g.dial("POST "+path, "", "Transfer-Encoding: chunked")
		go func() {
			chunk := "8000\r\n" + strings.Repeat("x", 32<<10) + "\r\n"
			for range 10_000 {
				if _, err := io.WriteString(conn, chunk); err != nil {
					return
				}
			}
		}()
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if res.StatusCode != 413 || !res.Close {
			t.Errorf("%s = %d, close %t", path, res.StatusCode, res.Close)
		}
		conn.Close()
	}
	g.mustBeUnasked("a body without end")
}

// TestGarbageNeverBreaks: random bytes, alone and inside requests that were good,
// never make the gateway fail, hang or switch protocols.
func TestGarbageNeverBreaks(t *testing.T) {
	g := newGateway(t, echoPath)
	good := "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer " + testKey + "\r\nContent-Length: 60\r\nConnection: close\r\n\r\n" + greeting
	random := rand.New(rand.NewPCG(1, 2))
	var wg sync.WaitGroup
	for range 8 {
		raws := make([]string, 60)
		for i := range raws {
			b := []byte(good)
			for range 1 + random.IntN(4) {
				switch at := random.IntN(len(b)); random.IntN(3) {
				case 0:
					b[at] = byte(random.IntN(256))
				case 1:
					b = append(b[:at], b[min(len(b), at+random.IntN(20)):]...)
				default:
					b = append(b[:at:at], append([]byte(good[:random.IntN(len(good))]), b[at:]...)...)
				}
				if len(b) == 0 {
					b = []byte("\x00")
				}
			}
			raws[i] = string(b)
		}
		wg.Go(func() {
			for _, raw := range raws {
				conn, err := net.Dial("tcp", strings.TrimPrefix(g.URL, "http://"))
				if err != nil {
					t.Error(err)
					return
				}
				conn.SetDeadline(time.Now().Add(patience))
				io.WriteString(conn, raw)
				conn.(*net.TCPConn).CloseWrite()
				answer, err := io.ReadAll(conn)
				conn.Close()
				if status := statusOf(string(answer)); err != nil && !strings.Contains(err.Error(), "reset") || status == "500" || status == "101" {
					t.Errorf("%q = %v, %.300q", raw, err, answer)
				}
			}
		})
	}
	wg.Wait()
	if log := g.log.String(); strings.Contains(log, `"msg":"panic"`) {
		t.Error(log)
	}
	for _, seen := range g.upstream.all() {
		if seen.Header.Get("Authorization") != "Bearer "+testUpstream || seen.Host != g.server.cfg.BaseURL.Host {
			t.Errorf("upstream got %v for %s", seen.Header, seen.Host)
		}
	}
}
