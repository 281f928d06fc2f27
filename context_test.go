package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestContext(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		began := time.Now().Add(-2 * time.Second)
		g.chat(`{"messages":`+arrayOf(systemMsg("p"), userMsg("one"))+`}`, "X-Session-Id: s")
		g.chat(`{"messages":`+arrayOf(systemMsg("q"), userMsg("two"))+`}`, "X-Session-Id: s")
		g.chat(`{"messages":`+arrayOf(systemMsg("q"), userMsg("three"))+`}`, "X-Session-Id: s")
		g.chat(`{"messages":`+arrayOf(userMsg("x"), assistantMsg("y"), userMsg("z"))+`}`, "X-Session-Id: s")

		res := g.do("GET", "/context/s", "")
		body := readAll(t, res)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("status %d, %s, %s", res.StatusCode, res.Header.Get("Content-Type"), body)
		}
		var got struct {
			SessionID string    `json:"session_id"`
			CreatedAt time.Time `json:"created_at"`
			UpdatedAt time.Time `json:"updated_at"`
			Turns     int
			Messages  json.RawMessage
			Threads   []struct {
				Turns    int
				Messages json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatal(err)
		}
		if got.SessionID != "s" || got.CreatedAt.Before(began) || got.UpdatedAt.Before(got.CreatedAt) || got.UpdatedAt.After(time.Now().Add(time.Second)) {
			t.Errorf("session %q from %v to %v", got.SessionID, got.CreatedAt, got.UpdatedAt)
		}
		if want := arrayOf(userMsg("x"), assistantMsg("y"), userMsg("z"), assistantMsg("re: z")); got.Turns != 2 || string(got.Messages) != want {
			t.Errorf("the last thread has %d turns, %s; want 2, %s", got.Turns, got.Messages, want)
		}
		if len(got.Threads) != 2 {
			t.Fatalf("%d other threads, want 2: %s", len(got.Threads), body)
		}
		if want := arrayOf(systemMsg("q"), userMsg("two"), assistantMsg("re: two"), userMsg("three"), assistantMsg("re: three")); got.Threads[0].Turns != 2 || string(got.Threads[0].Messages) != want {
			t.Errorf("the thread before has %d turns, %s; want 2, %s", got.Threads[0].Turns, got.Threads[0].Messages, want)
		}
		if want := arrayOf(systemMsg("p"), userMsg("one"), assistantMsg("re: one")); got.Threads[1].Turns != 1 || string(got.Threads[1].Messages) != want {
			t.Errorf("the first thread has %d turns, %s; want 1, %s", got.Threads[1].Turns, got.Threads[1].Messages, want)
		}
	})
}

// Another key's session can't be told from none: not read, continued or deleted.
func TestContextOfAnotherKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		g.chat(`{"messages":`+arrayOf(userMsg("mine"))+`}`, "X-Session-Id: s")
		const other = "Authorization: Bearer " + otherKey
		for _, method := range []string{"GET", "DELETE"} {
			theirs, none := g.do(method, "/context/s", "", other), g.do(method, "/context/t", "", other)
			a, b := readAll(t, theirs), readAll(t, none)
			if theirs.StatusCode != 404 || none.StatusCode != 404 || a != b || !strings.Contains(a, `"code":"session_not_found"`) {
				t.Errorf("%s: %d %s for another key's, %d %s for none; want the same 404", method, theirs.StatusCode, a, none.StatusCode, b)
			}
			theirs.Header.Del("X-Request-Id")
			none.Header.Del("X-Request-Id")
			theirs.Header.Del("Date")
			none.Header.Del("Date")
			if len(theirs.Header) != len(none.Header) {
				t.Errorf("%s: headers %v and %v", method, theirs.Header, none.Header)
			}
		}
		res, _ := g.chat(`{"messages":`+arrayOf(userMsg("yours"))+`}`, "X-Session-Id: s", other)
		wantHeader(t, res, "X-Session-Messages", "0")
		if got, want := string(g.context(t, "s", "").Messages), arrayOf(userMsg("mine"), assistantMsg("re: mine")); got != want {
			t.Errorf("the session holds %s, want %s", got, want)
		}
		if got, want := string(g.context(t, "s", otherKey).Messages), arrayOf(userMsg("yours"), assistantMsg("re: yours")); got != want {
			t.Errorf("the other one's holds %s, want %s", got, want)
		}
		for _, pattern := range []string{"*", "%2A", "s*", "[s]", "%3F"} {
			if res := g.do("GET", "/context/"+pattern, ""); res.StatusCode != 404 {
				t.Errorf("GET /context/%s: status %d, want 404", pattern, res.StatusCode)
			}
		}
	})
}

func TestContextDelete(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		store := open(testLimits)
		g := newGatewayOn(t, store, talkUpstream)
		g.chat(`{"messages":`+arrayOf(userMsg("one"))+`}`, "X-Session-Id: s")
		g.chat(`{"messages":`+arrayOf(userMsg("other"))+`}`, "X-Session-Id: s2")
		res := g.do("DELETE", "/context/s", "")
		if body := readAll(t, res); res.StatusCode != 200 || body != `{"session_id":"s","deleted":true}` {
			t.Errorf("DELETE: %d %s", res.StatusCode, body)
		}
		for _, method := range []string{"GET", "DELETE"} {
			if res := g.do(method, "/context/s", ""); res.StatusCode != 404 {
				t.Errorf("%s after DELETE: status %d, want 404", method, res.StatusCode)
			}
		}
		g.context(t, "s2", "")
		res, _ = g.chat(`{"messages":`+arrayOf(userMsg("two"))+`}`, "X-Session-Id: s")
		wantHeader(t, res, "X-Session-Messages", "0")
	})
}

// Turns that wait for the store are deleted too, and don't bring the session
// back.
func TestContextDeleteWithQueue(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(1<<20, testLimits), down: true}
	g := newGatewayOn(t, store, talkUpstream)
	for _, id := range []string{"other", "gone"} {
		g.chat(`{"messages":`+arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c"))+`}`, "X-Session-Id: "+id)
	}
	// Of the two that wait, the second must go before the first is written.
	s := g.server.sessions
	store.setDown(false)
	key := sessionKey{ownerOf(testKey), "gone"}
	if err := s.forget(t.Context(), key); err != nil {
		t.Fatalf("forget: %v", err)
	}
	if err := s.forget(t.Context(), key); err != errNotFound {
		t.Errorf("forget again: %v, want %v", err, errNotFound)
	}
	eventually(t, "the end of the queue", func() bool { return s.left() == 0 })
	if res := g.do("GET", "/context/gone", ""); res.StatusCode != 404 {
		t.Errorf("GET after DELETE: status %d, want 404", res.StatusCode)
	}
	if got := g.context(t, "other", "").Turns; got != 2 {
		t.Errorf("the other session has %d turns, want 2", got)
	}
}

// An id that is taken reads back under the same id, whatever is in it, and
// nothing in it is a command.
func TestContextIDs(t *testing.T) {
	ids := []string{
		"s", "a/b", "//", "a//b", "a/../b", "../s", "%", "%2F", "%2e%2e", "%00", "100%", "{}", "{s}", "}{", "s:t", ":", "*", "?", "a?b=c", "#", "a#b",
		`\`, `"`, `'`, ";", "a;b", "+", "a+b", "~", "!", "$x", "&", "<script>", "...", ".s", "s.", "..s", "-1", "0", "null", "health", "v1",
		strings.Repeat("x", 255), strings.Repeat("/", 255), strings.Repeat("%", 255),
	}
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		for i, id := range ids {
			question := userMsg(strings.Repeat("i", i+1))
			res, body := g.chat(`{"messages":`+arrayOf(question)+`}`, "X-Session-Id: "+id)
			if res.StatusCode != 200 {
				t.Errorf("%q: status %d, %s", id, res.StatusCode, body)
				continue
			}
			wantHeader(t, res, "X-Session-Id", id)
			wantHeader(t, res, "X-Session-Messages", "0")
		}
		for i, id := range ids {
			view := g.context(t, url.PathEscape(id), "")
			if view.SessionID != id || !strings.HasPrefix(string(view.Messages), "["+userMsg(strings.Repeat("i", i+1))+",") {
				t.Errorf("%q reads back as %q, %s", id, view.SessionID, view.Messages)
			}
		}
		for _, id := range ids[1:] {
			if res := g.do("DELETE", "/context/"+url.PathEscape(id), ""); res.StatusCode != 200 {
				t.Errorf("DELETE %q: status %d", id, res.StatusCode)
			}
		}
		g.context(t, "s", "")
	})
}

func TestContextNeedsKey(t *testing.T) {
	g := newGateway(t, talkUpstream)
	for _, method := range []string{"GET", "DELETE"} {
		if res := g.do(method, "/context/s", "", "Authorization: "); res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s without a key: status %d, want 401", method, res.StatusCode)
		}
	}
	res := g.do("POST", "/context/s", "{}")
	if res.StatusCode != 405 || res.Header.Get("Allow") != "DELETE, GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q; want 405 and what is allowed", res.StatusCode, res.Header.Get("Allow"))
	}
}
