package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A turn is in the store before the client sees the end of its answer.
func TestTurnIsStoredBeforeTheEnd(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		for _, stream := range []bool{false, true} {
			store := open(testLimits)
			store.before = func() { time.Sleep(20 * time.Millisecond) }
			g := newGatewayOn(t, store, talkUpstream)
			res := g.do("POST", "/v1/chat/completions", fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, arrayOf(userMsg("hi"))), "X-Session-Id: s")
			var got []byte
			for next := make([]byte, 1); !strings.HasSuffix(string(got), "[DONE]"); got = append(got, next...) {
				if _, err := io.ReadFull(res.Body, next); err != nil {
					break
				}
			}
			if store.written() != "a" {
				t.Errorf("stream=%t: the turn was not in the store at the end of the answer %s", stream, got)
			}
		}
	})
}

// hangUpstream is an upstream that streams the pieces and then nothing, until its client
// is gone.
func hangUpstream(pieces ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answerStream(pieces...)(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

// callChunk is a stream's event with a piece of the call of that index.
func callChunk(index int, id, args string) string {
	call := fmt.Sprintf(`{"index":%d,"function":{"arguments":%s}}`, index, appendQuoted(nil, args))
	if id != "" {
		call = fmt.Sprintf(`{"index":%d,"id":%q,"type":"function","function":{"name":"f","arguments":%s}}`, index, id, appendQuoted(nil, args))
	}
	return `data: {"choices":[{"index":0,"delta":{"tool_calls":[` + call + `]},"finish_reason":null}]}` + "\n\n"
}

func TestClientLeavesMidStream(t *testing.T) {
	const role = `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}` + "\n\n"
	const reasoning = `data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}` + "\n\n"
	for _, tt := range []struct {
		name   string
		pieces []string
		want   string // recorded answer; "" = the turn is not recorded
		whole  bool   // and not marked incomplete
	}{
		{"text", []string{role, textChunk("Hel"), textChunk("lo")}, `{"role":"assistant","content":"Hello"}`, false},
		{"before any text", []string{role}, "", false},
		{"while it thinks", []string{role, reasoning}, "", false},
		{"within a call", []string{role, textChunk("Look:"), callChunk(0, "c1", `{"a`)}, `{"role":"assistant","content":"Look:"}`, false},
		{"within the only call", []string{role, callChunk(0, "c1", `{"a`)}, "", false},
		{"within the second call", []string{callChunk(0, "c1", `{"a`), callChunk(0, "", `":1}`), callChunk(1, "c2", `{`)},
			`{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]}`, false},
		{"after the finish", []string{textChunk("Hello"), finishChunk}, `{"role":"assistant","content":"Hello"}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
			var gone atomic.Bool
			g := newGatewayOn(t, store, func(w http.ResponseWriter, r *http.Request) {
				hangUpstream(tt.pieces...)(w, r)
				gone.Store(true)
			})
			ctx, leave := context.WithCancel(t.Context())
			res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/chat/completions", `{"stream":true,"messages":`+arrayOf(userMsg("one"))+`}`, "X-Session-Id: s").WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(strings.Join(tt.pieces, "")))
			if _, err := io.ReadFull(res.Body, got); err != nil {
				t.Fatal(err)
			}
			leave()
			res.Body.Close()
			eventually(t, "the log line", func() bool { return strings.Contains(g.log.String(), `"outcome":"client_closed"`) })
			eventually(t, "the end of the upstream's call", gone.Load)
			if tt.want == "" {
				if res := g.do("GET", "/context/s", ""); res.StatusCode != 404 {
					t.Errorf("status of /context/s: %d, want 404", res.StatusCode)
				}
				return
			}
			view := g.context(t, "s", "")
			if string(view.Messages) != arrayOf(userMsg("one"), tt.want) || view.Incomplete == tt.whole || strings.Contains(string(view.Messages), "incomplete") {
				t.Errorf("context: %+v, %s; want %s, incomplete %t", view, view.Messages, arrayOf(userMsg("one"), tt.want), !tt.whole)
			}

			// The next turn continues from what there is; the same one takes its place.
			again := newGatewayOn(t, store, talkUpstream)
			again.chat(`{"messages":`+arrayOf(userMsg("one"))+`}`, "X-Session-Id: s")
			view = again.context(t, "s", "")
			want := arrayOf(userMsg("one"), assistantMsg("re: one"))
			if tt.whole {
				want = arrayOf(userMsg("one"), tt.want, userMsg("one"), assistantMsg("re: one"))
			}
			if string(view.Messages) != want || view.Incomplete {
				t.Errorf("after the same turn again: %+v, %s; want %s", view, view.Messages, want)
			}
		})
	}
}

// What came before an incomplete turn stays when it is replaced, and another
// turn goes on from it.
func TestIncompleteTurn(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if strings.Contains(string(body), `"break off"}]`) {
				hangUpstream(textChunk("half an"))(w, r)
				return
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			talkUpstream(w, r)
		})
		one, re1, half := userMsg("one"), assistantMsg("re: one"), assistantMsg("half an")
		send := func(i int, turn string, goes ...string) {
			t.Helper()
			g.chat(`{"messages":`+arrayOf(turn)+`}`, "X-Session-Id: s")
			if got, want := g.last().Body, `{"messages":`+arrayOf(goes...)+`}`; got != want {
				t.Errorf("turn %d: upstream got\n%s, want\n%s", i, got, want)
			}
		}
		breakOff := func() {
			t.Helper()
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			before := strings.Count(g.log.String(), "client_closed")
			res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/chat/completions", `{"stream":true,"messages":`+arrayOf(userMsg("break off"))+`}`, "X-Session-Id: s").WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if _, err := io.ReadFull(res.Body, make([]byte, len(textChunk("half an")))); err != nil {
				t.Fatal(err)
			}
			leave()
			eventually(t, "the log line", func() bool { return strings.Count(g.log.String(), "client_closed") > before })
			if got, want := g.last().Body, `{"stream":true,"messages":`+arrayOf(one, re1, userMsg("break off"))+`}`; got != want {
				t.Errorf("upstream got\n%s, want\n%s", got, want)
			}
		}
		send(0, one, one)
		breakOff()
		breakOff()
		if view := g.context(t, "s", ""); view.Turns != 2 || !view.Incomplete {
			t.Errorf("after the same broken turn twice: %+v, want two turns, the last incomplete", view)
		}
		send(1, userMsg("two"), one, re1, userMsg("break off"), half, userMsg("two"))
		send(2, userMsg("three"), one, re1, userMsg("break off"), half, userMsg("two"), assistantMsg("re: two"), userMsg("three"))
	})
}

// When the upstream fails, nothing is recorded: the client will try again.
func TestUpstreamFailureIsNotRecorded(t *testing.T) {
	cut := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}
	const failed = `data: {"error":{"message":"overloaded","type":"server_error"}}` + "\n\n"
	for _, tt := range []struct {
		name     string
		upstream http.HandlerFunc
	}{
		{"refused", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
		{"500", answerJSON(500, `{"error":{"message":"x"}}`)},
		{"429", answerJSON(429, `{"error":{"message":"x"}}`)},
		{"an error with status 200", answerJSON(200, `{"error":{"message":"x"}}`)},
		{"HTML", answerJSON(200, `<html>`)},
		{"JSON that is cut off", cut(200, "application/json", completion("x")[:80])},
		{"JSON of another kind", answerJSON(200, `{"ok":true}`)},
		{"a stream that is cut off", cut(200, "text/event-stream", textChunk("half"))},
		{"a stream that ends too early", answerStream(textChunk("half"))},
		{"an error within a stream", answerStream(textChunk("half"), failed)},
		{"an error within a stream, and an end", answerStream(textChunk("half"), failed, doneEvent)},
		{"an error within a stream, and an end that stays open", hangUpstream(textChunk("half"), failed, doneEvent)},
		{"an error event", answerStream(textChunk("half"), "event: error\ndata: {\"message\":\"x\"}\n\n", finishChunk, doneEvent)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stream := range []bool{false, true} {
				store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
				g := newGatewayOn(t, store, tt.upstream)
				for _, messages := range []string{arrayOf(userMsg("hi")), arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c"))} {
					res := g.do("POST", "/v1/chat/completions", fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, messages), "X-Session-Id: s")
					body, err := io.ReadAll(res.Body)
					if err == nil && res.StatusCode == 200 && strings.HasSuffix(string(body), doneEvent) && !strings.Contains(string(body), `"error"`) && !strings.Contains(string(body), "event: error") {
						t.Errorf("stream=%t: a whole answer: %s", stream, body)
					}
				}
				if got := store.written(); got != "" {
					t.Errorf("stream=%t: writes %q, want none", stream, got)
				}
			}
		})
	}
}

// Turns that are under way together are recorded whole, each question followed
// by its own answer, also from two gateways on one store.
func TestTurnsAtOnce(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		const n = 8
		var together sync.WaitGroup
		together.Add(n)
		upstream := func(w http.ResponseWriter, r *http.Request) {
			together.Done()
			together.Wait()
			talkUpstream(w, r)
		}
		store := open(testLimits)
		gateways := []*gateway{newGatewayOn(t, store, upstream), newGatewayOn(t, store, upstream)}
		var wg sync.WaitGroup
		for i := range n {
			g := gateways[i%2]
			req := g.request("POST", "/v1/chat/completions", fmt.Sprintf(`{"stream":%t,"messages":%s}`, i%3 == 0, arrayOf(userMsg("a "+fmt.Sprint(i)), userMsg("b "+fmt.Sprint(i)))), "X-Session-Id: s")
			wg.Go(func() {
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				io.Copy(io.Discard, res.Body)
			})
		}
		wg.Wait()
		view := gateways[0].context(t, "s", "")
		var messages []struct{ Content string }
		if err := json.Unmarshal(view.Messages, &messages); err != nil || view.Turns != n || len(messages) != 3*n {
			t.Fatalf("context: %+v, %s", view, view.Messages)
		}
		for i := 0; i < len(messages); i += 3 {
			id := strings.TrimPrefix(messages[i].Content, "a ")
			if messages[i+1].Content != "b "+id || messages[i+2].Content != "re: b "+id {
				t.Errorf("a turn is not in one piece: %v", messages[i:i+3])
			}
		}
	})
}

func TestTurnTooLarge(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(256<<20, testLimits)}
	stream := false
	g := newGatewayOn(t, store, func(w http.ResponseWriter, r *http.Request) {
		store.setDown(false)
		if stream {
			answerStream(textChunk("ok"), finishChunk, doneEvent)(w, r)
			return
		}
		answerJSON(200, completion("ok"))(w, r)
	})
	big := strings.Repeat("x", maxTurnBytes)
	res, _ := g.chat(`{"messages":`+arrayOf(userMsg(big))+`}`, "X-Session-Id: s")
	wantHeader(t, res, "X-Session-Store", "too_large")
	stream = true
	_, body := g.chat(`{"stream":true,"messages":`+arrayOf(userMsg(big))+`}`, "X-Session-Id: s")
	if want := textChunk("ok") + finishChunk + ": session store too_large\n\n" + doneEvent; body != want {
		t.Errorf("stream:\n%s, want\n%s", body, want)
	}
	// One that is looked at only when it is written, since the store was away before.
	store.setDown(true)
	stream = false
	res, _ = g.chat(`{"messages":`+arrayOf(userMsg("a"), assistantMsg("b"), userMsg(big))+`}`, "X-Session-Id: s")
	wantHeader(t, res, "X-Session-Store", "too_large")
	if got := store.written(); got != "" {
		t.Errorf("writes %q, want none", got)
	}
}

// The limit is for a turn, not for a history that is written whole.
func TestTurnLimit(t *testing.T) {
	turnOf := func(size int) turn { return turn{Record: make([]byte, size)} }
	for _, tt := range []struct {
		name   string
		before []turn
		last   turn
		want   bool
	}{
		{"at the limit", nil, turnOf(maxTurnBytes), false},
		{"above it", nil, turnOf(maxTurnBytes + 1), true},
		{"a long history", []turn{turnOf(maxTurnBytes), turnOf(maxTurnBytes)}, turnOf(maxTurnBytes), false},
		{"a history with a turn above it", []turn{turnOf(maxTurnBytes + 1), turnOf(1)}, turnOf(1), true},
	} {
		turn := &sessionTurn{sealed: tt.last, write: threadWrite{Turns: tt.before}}
		if got := turn.tooLarge(); got != tt.want {
			t.Errorf("%s: too large is %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestStoreDown(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		for _, stream := range []bool{false, true} {
			store := open(testLimits)
			g := newGatewayOn(t, store, talkUpstream)
			chat := func(messages string, headers ...string) (*http.Response, string) {
				return g.chat(fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, messages), headers...)
			}
			wantDeferred := func(res *http.Response, body string) {
				t.Helper()
				if res.StatusCode != 200 {
					t.Fatalf("status %d, %s", res.StatusCode, body)
				}
				if !stream {
					wantHeader(t, res, "X-Session-Store", "deferred")
				} else if !strings.HasSuffix(body, finishChunk+": session store deferred\n\n"+doneEvent) {
					t.Errorf("the stream does not say that its turn is deferred: %s", body)
				}
			}
			const id, id2 = "X-Session-Id: s", "X-Session-Id: s2"
			chat(arrayOf(userMsg("one")), id)
			one, re1 := userMsg("one"), assistantMsg("re: one")
			store.written()

			store.setDown(true)
			wantUnavailable(t, g, stream, id)
			wantUnavailable(t, g, stream, "X-Session-Id: unknown")
			if res, body := chat(arrayOf(userMsg("x"))); res.StatusCode != 200 || strings.Contains(body, "session") {
				t.Errorf("without a session: status %d, %s", res.StatusCode, body)
			}
			res, body := chat(arrayOf(one, re1, userMsg("two")), id)
			wantDeferred(res, body)
			res, body = chat(arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c")), id2)
			wantDeferred(res, body)
			res, body = chat(arrayOf(one, re1, userMsg("two"), assistantMsg("re: two"), userMsg("three")), id)
			wantDeferred(res, body)
			res, body = chat(arrayOf(userMsg("recorded")), "X-Session-Id: s3", "X-Session-Mode: record")
			wantDeferred(res, body)
			if res := g.do("GET", "/context/s", ""); res.StatusCode != 503 {
				t.Errorf("GET /context/s: status %d, want 503", res.StatusCode)
			}
			if res := g.do("DELETE", "/context/s", ""); res.StatusCode != 503 {
				t.Errorf("DELETE /context/s: status %d, want 503", res.StatusCode)
			}

			store.setDown(false)
			res, _ = chat(arrayOf(userMsg("four")), id)
			wantHeader(t, res, "X-Session-Messages", "6")
			wantHeader(t, res, "X-Session-Store", "-")
			want := fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, arrayOf(one, re1, userMsg("two"), assistantMsg("re: two"), userMsg("three"), assistantMsg("re: three"), userMsg("four")))
			if got := g.last().Body; got != want {
				t.Errorf("upstream got\n%s, want\n%s", got, want)
			}
			eventually(t, "the end of the queue", func() bool { return g.server.sessions.left() == 0 })
			if got := store.written(); got != "araaa" {
				t.Errorf("writes %q, want those of the queue in their order", got)
			}
			if got, want := string(g.context(t, "s2", "").Messages), arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c"), assistantMsg("re: c")); got != want {
				t.Errorf("s2 holds %s, want %s", got, want)
			}
			if got := g.context(t, "s3", "").Turns; got != 1 {
				t.Errorf("s3 has %d turns, want 1", got)
			}
		}
	})
}

// wantUnavailable sends a new turn that must be refused for want of its history.
func wantUnavailable(t *testing.T, g *gateway, stream bool, headers ...string) {
	t.Helper()
	before := len(g.upstream.all())
	res, body := g.chat(fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, arrayOf(userMsg("x"))), headers...)
	if res.StatusCode != 503 || text(member(member([]byte(body), "error"), "code")) != "store_unavailable" || res.Header.Get("Retry-After") == "" {
		t.Errorf("a new turn without its history: status %d, %s; want 503 store_unavailable", res.StatusCode, body)
	}
	if "X-Session-Id: "+res.Header.Get("X-Session-Id") != headers[0] {
		t.Errorf("the refusal names the session %q, want that of %q", res.Header.Get("X-Session-Id"), headers[0])
	}
	if n := len(g.upstream.all()) - before; n != 0 {
		t.Errorf("%d requests reached the upstream, want none", n)
	}
}

// A store that fails only when the answer is there.
func TestStoreFailsAtTheEnd(t *testing.T) {
	for _, stream := range []bool{false, true} {
		store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
		g := newGatewayOn(t, store, talkUpstream)
		g.chat(`{"messages":`+arrayOf(userMsg("one"))+`}`, "X-Session-Id: s")
		store.before = func() { store.setDown(true) }
		res, body := g.chat(fmt.Sprintf(`{"stream":%t,"messages":%s}`, stream, arrayOf(userMsg("two"))), "X-Session-Id: s")
		if stream && !strings.HasSuffix(body, ": session store deferred\n\n"+doneEvent) || !stream && res.Header.Get("X-Session-Store") != "deferred" {
			t.Errorf("stream=%t: nothing says that the turn is deferred: %v, %s", stream, res.Header, body)
		}
		wantUnavailable(t, g, stream, "X-Session-Id: s")
		store.before = nil
		store.setDown(false)
		if view := g.context(t, "s", ""); view.Turns != 2 {
			t.Errorf("stream=%t: context %+v, want two turns", stream, view)
		}
	}
}

// A store that can be read but not written, such as a Redis whose memory is full:
// the turns that wait are missing from what it says.
func TestStoreFull(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
	g := newGatewayOn(t, store, talkUpstream)
	g.chat(`{"messages":`+arrayOf(userMsg("one"))+`}`, "X-Session-Id: s")
	store.setFull(true)
	res, _ := g.chat(`{"messages":`+arrayOf(userMsg("two"))+`}`, "X-Session-Id: s")
	wantHeader(t, res, "X-Session-Store", "deferred")
	wantUnavailable(t, g, false, "X-Session-Id: s")
	if res := g.do("GET", "/context/s", ""); res.StatusCode != 503 {
		t.Errorf("the session without its last turn is shown: status %d", res.StatusCode)
	}
	store.setFull(false)
	g.chat(`{"messages":`+arrayOf(userMsg("three"))+`}`, "X-Session-Id: s")
	want := `{"messages":` + arrayOf(userMsg("one"), assistantMsg("re: one"), userMsg("two"), assistantMsg("re: two"), userMsg("three")) + `}`
	if got := g.last().Body; got != want {
		t.Errorf("upstream got\n%s, want\n%s", got, want)
	}
}

// A turn does not overtake one that waits, though the store is back when it ends.
func TestTurnsKeepTheirOrder(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
	s := newSessions(store, slog.New(slog.DiscardHandler))
	defer s.Close(t.Context())
	key := sessionKey{"o", "s"}
	for _, q := range []string{"first", "second"} {
		store.setDown(q == "first")
		s.record(t.Context(), testTurnOf(key, q), []byte(assistantMsg("re: "+q)), false)
	}
	rec, err := s.history(t.Context(), key, threadPick{Kind: pickAll})
	if err != nil || len(rec.Threads) != 1 || len(rec.Threads[0].Turns) != 2 {
		t.Fatalf("history: %+v, %v", rec, err)
	}
	if turns := rec.Threads[0].Turns; !strings.Contains(string(turns[0].Record), "first") {
		t.Errorf("turns: %s, %s", turns[0].Record, turns[1].Record)
	}
}

// testTurnOf is a turn of one user's message that waits for its answer.
func testTurnOf(key sessionKey, question string) *sessionTurn {
	t := &sessionTurn{key: key, put: -1}
	c, _ := parseConversation([]byte(arrayOf(userMsg(question))))
	t.plan(c, nil)
	return t
}

func TestQueueIsBounded(t *testing.T) {
	store := &hookedStore{Store: newMemoryStore(1<<20, testLimits), down: true}
	s := newSessions(store, slog.New(slog.DiscardHandler))
	const free = 1000
	s.queued = maxQueuedBytes - free // as if there were that much in it
	record := func(id string, size int) storing {
		return s.record(t.Context(), testTurnOf(sessionKey{"o", id}, "q"), []byte(assistantMsg(strings.Repeat("x", size))), false)
	}
	for _, tt := range []struct {
		id   string
		size int
		want storing
	}{
		{"a", 300, storeDeferred},
		{"large", free, storeNotStored},
		{"b", 100, storeDeferred},
		{"c", 300, storeNotStored},
	} {
		if got := record(tt.id, tt.size); got != tt.want {
			t.Errorf("turn %s: %q, want %q", tt.id, got, tt.want)
		}
	}
	store.setDown(false)
	if lost := s.Close(t.Context()); lost != 0 || store.written() != "aa" {
		t.Errorf("%d turns lost, want both written", lost)
	}
	if s.queued != maxQueuedBytes-free || len(s.count) != 0 {
		t.Errorf("the empty queue counts %d bytes and %d sessions", s.queued-maxQueuedBytes+free, len(s.count))
	}
	store.setDown(true)
	if got := record("late", 1); got != storeNotStored {
		t.Errorf("after Close: %q, want %q", got, storeNotStored)
	}
}

// A Redis that is gone: chat without sessions works, managed turns wait, and all
// is well soon after it is back.
func TestRedisGone(t *testing.T) {
	redis := startRedis(t)
	if redis == nil {
		return
	}
	t.Parallel()
	g := newGateway(t, talkUpstream, func(c *config) { c.RedisURL = secret(redis.url()) })
	chat := func(messages string, headers ...string) *http.Response {
		t.Helper()
		began := time.Now()
		res, _ := g.chat(`{"messages":`+messages+`}`, headers...)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("an answer took %v", took)
		}
		return res
	}
	if res := chat(arrayOf(userMsg("one")), "X-Session-Id: s"); res.StatusCode != 200 {
		t.Fatalf("status %d", res.StatusCode)
	}
	redis.kill()
	wantUnavailable(t, g, false, "X-Session-Id: s")
	if res := chat(arrayOf(userMsg("one"))); res.StatusCode != 200 {
		t.Errorf("without a session: status %d", res.StatusCode)
	}
	res := chat(arrayOf(userMsg("a"), assistantMsg("b"), userMsg("c")), "X-Session-Id: t")
	if res.StatusCode != 200 {
		t.Errorf("managed: status %d", res.StatusCode)
	}
	wantHeader(t, res, "X-Session-Store", "deferred")
	redis.restart()
	eventually(t, "the turn that waited", func() bool { return g.do("GET", "/context/t", "").StatusCode == 200 })
	if view := g.context(t, "t", ""); view.Turns != 2 {
		t.Errorf("context: %+v, want two turns", view)
	}
}

func TestCloseWritesTheQueue(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ctx  context.Context
		back bool // the store is up again
		lost int
	}{
		{"in time", t.Context(), true, 0},
		{"with no time left, but the store up", over, true, 0},
		{"with no time left, and the store down", over, false, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &hookedStore{Store: newMemoryStore(1<<20, testLimits), down: true}
			g := newGatewayOn(t, store, talkUpstream)
			for _, q := range []string{"c", "d"} {
				g.chat(`{"messages":`+arrayOf(userMsg("a"), assistantMsg("b"), userMsg(q))+`}`, "X-Session-Id: s")
			}
			store.setDown(!tt.back)
			if lost := g.server.sessions.Close(tt.ctx); lost != tt.lost {
				t.Errorf("%d turns lost, want %d", lost, tt.lost)
			}
			if want := "rr"[tt.lost:]; store.written() != want {
				t.Errorf("writes are not %q", want)
			}
			store.setDown(false)
		})
	}
}

// A turn that the store refuses for good must not hold up those behind it.
func TestRefusedTurn(t *testing.T) {
	s := newSessions(refusingStore{newMemoryStore(1<<20, testLimits)}, slog.New(slog.DiscardHandler))
	key := sessionKey{"o", "s"}
	if got := s.record(t.Context(), testTurnOf(key, "refuse me"), []byte(assistantMsg("x")), false); got != storeNotStored {
		t.Errorf("a turn that the store refuses: %q, want %q", got, storeNotStored)
	}
	s.enqueue(testTurnOf(key, "refuse me"))
	s.enqueue(testTurnOf(key, "take me"))
	if rec, err := s.history(t.Context(), key, threadPick{Kind: pickAll}); err != nil || len(rec.Threads[0].Turns) != 1 {
		t.Errorf("history: %+v, %v; want the one turn that could be written", rec, err)
	}
	s.Close(t.Context())
}

// refusingStore is up, but does not take turns that ask for it.
type refusingStore struct{ Store }

func (s refusingStore) Append(ctx context.Context, k sessionKey, w threadWrite) error {
	if strings.Contains(string(w.Turns[0].Record), "refuse me") {
		return fmt.Errorf("not this one")
	}
	return s.Store.Append(ctx, k, w)
}

// Whatever is cancelled when, nobody's words end up in another one's session or
// answer.
func TestCancelledTurnsDoNotMix(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
			talkUpstream(w, r)
		})
		const sessions, turns = 16, 12
		// Each session has a letter of its own, which must not occur in any other.
		letter := func(i int) rune { return '\u4e00' + rune(i) }
		foreign := func(i int, text string) bool {
			return strings.ContainsFunc(text, func(r rune) bool { return r >= letter(0) && r < letter(sessions) && r != letter(i) })
		}
		question := func(i, n int) string { return userMsg(fmt.Sprintf("%d %c", n, letter(i))) }
		var wg sync.WaitGroup
		for i := range sessions {
			wg.Go(func() {
				for n := range turns {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(12000))*time.Microsecond)
					if n%4 == 0 {
						ctx = t.Context()
					}
					req := g.request("POST", "/v1/chat/completions", fmt.Sprintf(`{"stream":%t,"messages":%s}`, n%2 == 0, arrayOf(question(i, n))), fmt.Sprintf("X-Session-Id: s%d", i))
					res, err := http.DefaultTransport.RoundTrip(req.WithContext(ctx))
					if err == nil {
						body, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if foreign(i, string(body)) {
							t.Errorf("session %d was answered %s", i, body)
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		eventually(t, "the end of all requests", func() bool { return g.server.inFlight.Load() == 0 })
		for i := range sessions {
			got := string(g.context(t, fmt.Sprintf("s%d", i), "").Messages)
			if foreign(i, got) {
				t.Errorf("session %d holds %s", i, got)
			}
			for n := 0; n < turns; n += 4 { // those that nobody cancelled
				if strings.Count(got, question(i, n)) != 1 {
					t.Errorf("session %d does not hold %s once: %s", i, question(i, n), got)
				}
			}
		}
		for _, seen := range g.upstream.all() {
			// A request that was cancelled early may have arrived without its messages.
			first := strings.IndexFunc(seen.Body, func(r rune) bool { return r >= letter(0) })
			if first >= 0 && foreign(int([]rune(seen.Body[first:])[0]-letter(0)), seen.Body) {
				t.Errorf("the upstream was asked %s", seen.Body)
			}
		}
	})
}
