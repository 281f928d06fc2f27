package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Messages as the tests send them and as they are recorded.
func userMsg(text string) string      { return roleMsg("user", text) }
func assistantMsg(text string) string { return roleMsg("assistant", text) }
func systemMsg(text string) string    { return roleMsg("system", text) }
func toolMsg(id, text string) string {
	return `{"role":"tool","tool_call_id":"` + id + `","content":"` + text + `"}`
}
func roleMsg(role, text string) string { return `{"role":"` + role + `","content":"` + text + `"}` }

// callsMsg is the answer of an assistant that calls tools, one for each id.
func callsMsg(ids ...string) string {
	var list []string
	for _, id := range ids {
		list = append(list, `{"id":"`+id+`","type":"function","function":{"name":"f","arguments":"{\"of\":1}"}}`)
	}
	return `{"role":"assistant","content":null,"tool_calls":[` + strings.Join(list, ",") + `]}`
}

func arrayOf(messages ...string) string { return "[" + strings.Join(messages, ",") + "]" }

// talkUpstream is an upstream that answers "re: " and the last message's text, or, to
// "call x y", with calls of the ids x and y; whole or streamed, as it is asked.
func talkUpstream(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Stream   bool
		Messages []struct{ Content json.RawMessage }
	}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &req); err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	last := ""
	if n := len(req.Messages); n > 0 {
		last = string(appendContent(nil, req.Messages[n-1].Content))
	}
	answer := assistantMsg("re: " + last)
	if ids, ok := strings.CutPrefix(last, "call "); ok {
		answer = callsMsg(strings.Fields(ids)...)
	}
	answerMessage(w, answer, req.Stream)
}

// answerMessage answers with a message, a stream in several chunks.
func answerMessage(w http.ResponseWriter, message string, stream bool) {
	whole := `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":` + message + `,"finish_reason":"stop"}]}`
	if !stream {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, whole)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if list := member([]byte(message), "tool_calls"); list != nil {
		w.Write(splitCompletion([]byte(whole), false))
		return
	}
	content := text(member([]byte(message), "content"))
	io.WriteString(w, textChunk(content[:len(content)/2]))
	w.(http.Flusher).Flush()
	io.WriteString(w, textChunk(content[len(content)/2:])+finishChunk+doneEvent)
}

// testLimits are those of the stores that tests open themselves.
var testLimits = storeLimits{SessionTTL: time.Hour, MaxTurns: 50}

// onBothStores runs a test on each kind of store, as far as there is a
// redis-server. open makes an empty store.
func onBothStores(t *testing.T, test func(t *testing.T, open func(storeLimits) *hookedStore)) {
	t.Run("memory", func(t *testing.T) {
		test(t, func(limits storeLimits) *hookedStore {
			return &hookedStore{Store: newMemoryStore(256<<20, limits)}
		})
	})
	redis := startRedis(t)
	if redis == nil {
		return
	}
	t.Run("redis", func(t *testing.T) {
		n := 0
		test(t, func(limits storeLimits) *hookedStore {
			n++
			s, err := newRedisStore(redis.url(), fmt.Sprintf("test%d:", n), limits)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return &hookedStore{Store: s}
		})
	})
}

// A hookedStore is a store that can be made to fail, and that notes its writes.
type hookedStore struct {
	Store

	mu     sync.Mutex
	down   bool
	full   bool // refuses writes alone
	writes []threadWrite
	kinds  string     // "a" for each Append that was carried out, "r" for each Replace
	picked threadPick // by the last History
	before func()     // called before each write
}

func (s *hookedStore) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *hookedStore) fails() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return fmt.Errorf("%w: the test made it so", errStoreDown)
	}
	return nil
}

func (s *hookedStore) setFull(full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.full = full
}

func (s *hookedStore) failsWrites() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down || s.full {
		return fmt.Errorf("%w: the test made it so", errStoreDown)
	}
	return nil
}

func (s *hookedStore) History(ctx context.Context, k sessionKey, pick threadPick) (*sessionRecord, error) {
	if err := s.fails(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.picked = pick
	s.mu.Unlock()
	return s.Store.History(ctx, k, pick)
}

func (s *hookedStore) Append(ctx context.Context, k sessionKey, w threadWrite) error {
	return s.write("a", w, func() error { return s.Store.Append(ctx, k, w) })
}

func (s *hookedStore) Replace(ctx context.Context, k sessionKey, w threadWrite) error {
	return s.write("r", w, func() error { return s.Store.Replace(ctx, k, w) })
}

func (s *hookedStore) write(kind string, w threadWrite, do func() error) error {
	if s.before != nil {
		s.before()
	}
	if err := s.failsWrites(); err != nil {
		return err
	}
	err := do()
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kinds += kind
		s.writes = append(s.writes, w)
	}
	return err
}

func (s *hookedStore) Delete(ctx context.Context, k sessionKey) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Delete(ctx, k)
}

func (s *hookedStore) Ping(ctx context.Context) error {
	if err := s.fails(); err != nil {
		return err
	}
	return s.Store.Ping(ctx)
}

// written is what kinds of writes there were since it was last asked.
func (s *hookedStore) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	kinds := s.kinds
	s.kinds = ""
	return kinds
}

// lastWrite is the newest write.
func (s *hookedStore) lastWrite(t *testing.T) threadWrite {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.writes) == 0 {
		t.Fatal("nothing was written")
	}
	return s.writes[len(s.writes)-1]
}

// lastPick is whose turns were read last.
func (s *hookedStore) lastPick() pickKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.picked.Kind
}

// A step is one request of a conversation and what must come of it. "-" stands
// for a header that must not be there.
type sessionStep struct {
	send    string   // messages
	goes    string   // messages as they reach the upstream; "" = as they were sent
	put     string   // X-Session-Messages
	thread  string   // X-Session-Thread
	headers []string // besides X-Session-Id
}

// take sends a step's request and checks it. Everything but the messages must
// arrive unchanged.
func (g *gateway) take(t *testing.T, i int, st sessionStep, stream bool) {
	t.Helper()
	const before, after = `{ "seed":9007199254740993,"messages": `, ` ,"x":{"b":1.0,"a":"\u00e9"}, "model":"m","stream":`
	rest := after + fmt.Sprint(stream) + "}"
	res, body := g.chat(before+st.send+rest, append([]string{"X-Session-Id: s1"}, st.headers...)...)
	if res.StatusCode != 200 || stream && !strings.HasSuffix(body, doneEvent) {
		t.Fatalf("step %d: status %d, %s", i, res.StatusCode, body)
	}
	if st.goes == "" {
		st.goes = st.send
	}
	if got, want := g.last().Body, before+st.goes+rest; got != want {
		t.Errorf("step %d: upstream got\n%s, want\n%s", i, got, want)
	}
	wantHeader(t, res, "X-Session-Messages", st.put)
	wantHeader(t, res, "X-Session-Thread", st.thread)
	wantHeader(t, res, "X-Session-Store", "-")
	fidelity := "exact"
	if st.goes != st.send {
		fidelity = "spliced"
	}
	wantHeader(t, res, "X-APIProxy-Fidelity", fidelity)
}

func wantHeader(t *testing.T, res *http.Response, name, want string) {
	t.Helper()
	got := "-"
	if values := res.Header.Values(name); len(values) > 0 {
		got = strings.Join(values, ", ")
	}
	if got != want {
		t.Errorf("%s: %q, want %q", name, got, want)
	}
}

func TestSessionSteps(t *testing.T) {
	const cont, record = "X-Session-Mode: Continue", "X-Session-Mode: record"
	var (
		p, q     = systemMsg("you are p"), systemMsg("you are q")
		one, two = userMsg("one"), userMsg("two")
		re1, re2 = assistantMsg("re: one"), assistantMsg("re: two")
		three    = userMsg("three")
		re3      = assistantMsg("re: three")
		pp       = `{"role":"developer","content":[{"type":"text","text":"you are "},{"type":"text","text":"p"}]}`
		noOutput = func(id string) string { return toolMsg(id, "[no output]") }
	)
	for _, tt := range []struct {
		name  string
		mode  sessionMode // SESSION_MODE, if not auto
		steps []sessionStep
	}{
		{"new turns", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: arrayOf(two), goes: arrayOf(one, re1, two), put: "2", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"bytes around the history", "", []sessionStep{
			{send: "[\t" + pp + " ,\n " + p + "\r\n , " + one + " ]", put: "0", thread: "new"},
			{send: "[\t" + pp + " ,\n " + p + "\r\n , " + two + " ]", goes: "[\t" + pp + " ,\n " + p + "\r\n , " + one + "," + re1 + "," + two + " ]", put: "2", thread: "continued"},
		}},
		{"a prompt and nothing else", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: "[ " + p + "\n]", goes: "[ " + p + "," + one + "," + re1 + "\n]", put: "2", thread: "continued"},
		}},
		{"no messages at all", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: "[ ]", goes: "[" + one + "," + re1 + " ]", put: "2", thread: "continued"},
		}},
		{"several messages in a turn", "", []sessionStep{
			{send: arrayOf(one, p, two), put: "0", thread: "new"},
			{send: arrayOf(three), goes: arrayOf(one, p, two, re2, three), put: "4", thread: "continued"},
		}},
		{"a recorded prompt goes along", "", []sessionStep{
			{send: arrayOf(p, q, one), put: "0", thread: "new"},
			{send: arrayOf(two), goes: arrayOf(p, q, one, re1, two), put: "4", thread: "continued"},
		}},
		{"a thread for each prompt", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(q, two), put: "0", thread: "new"},
			{send: arrayOf(p, three), goes: arrayOf(p, one, re1, three), put: "2", thread: "continued"},
			{send: arrayOf(q, one), goes: arrayOf(q, two, re2, one), put: "2", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(q, two, re2, one, re1, three), put: "5", thread: "continued"},
		}},
		{"a prompt after turns without one", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: arrayOf(p, two), put: "0", thread: "new"},
			{send: arrayOf(three), goes: arrayOf(p, two, re2, three), put: "3", thread: "continued"},
		}},
		{"a prompt is its text", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(pp, two), goes: arrayOf(pp, one, re1, two), put: "2", thread: "continued"},
		}},
		{"a managed conversation", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: "[ " + one + ",\n" + re1 + " ," + two + "]", put: "-", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"managed from the start", "", []sessionStep{
			{send: arrayOf(p, one, assistantMsg("from elsewhere"), two), put: "-", thread: "new"},
			{send: arrayOf(p, three), goes: arrayOf(p, one, assistantMsg("from elsewhere"), two, re2, three), put: "4", thread: "continued"},
		}},
		{"an edited history", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(p, two), goes: arrayOf(p, one, re1, two), put: "2", thread: "continued"},
			{send: arrayOf(p, userMsg("uno"), re1, two), put: "-", thread: "continued"},
			{send: arrayOf(p, three), goes: arrayOf(p, userMsg("uno"), re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"an answer asked for again", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: arrayOf(one, re1, two), put: "-", thread: "continued"},
			{send: arrayOf(one, re1, two), put: "-", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"managed conversations keep to their threads", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(q, one, re1, two), put: "-", thread: "new"},
			{send: arrayOf(userMsg("x"), assistantMsg("y"), userMsg("z")), put: "-", thread: "new"},
			{send: arrayOf(userMsg("x"), assistantMsg("y"), userMsg("z"), assistantMsg("re: z"), one), put: "-", thread: "continued"},
			{send: arrayOf(one, re1, three), put: "-", thread: "continued"}, // p's, without its prompt
			{send: arrayOf(p, two), goes: arrayOf(p, one, re1, three, re3, two), put: "4", thread: "continued"},
			{send: arrayOf(q, three), goes: arrayOf(q, one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"tools", "", []sessionStep{
			{send: arrayOf(userMsg("call x y")), put: "0", thread: "new"},
			{send: arrayOf(toolMsg("y", "2"), toolMsg("x", "1")), goes: arrayOf(userMsg("call x y"), callsMsg("x", "y"), toolMsg("y", "2"), toolMsg("x", "1")), put: "2", thread: "continued"},
			{send: arrayOf(one), goes: arrayOf(userMsg("call x y"), callsMsg("x", "y"), toolMsg("y", "2"), toolMsg("x", "1"), assistantMsg("re: 1"), one), put: "5", thread: "continued"},
		}},
		{"a call that is not answered", "", []sessionStep{
			{send: arrayOf(userMsg("call x")), put: "0", thread: "new"},
			{send: arrayOf(one), goes: arrayOf(userMsg("call x"), callsMsg("x"), noOutput("x"), one), put: "3", thread: "continued"},
			{send: arrayOf(two), goes: arrayOf(userMsg("call x"), callsMsg("x"), noOutput("x"), one, re1, two), put: "5", thread: "continued"},
		}},
		{"a call of two that is not answered", "", []sessionStep{
			{send: arrayOf(userMsg("call x y")), put: "0", thread: "new"},
			{send: arrayOf(toolMsg("y", "2")), goes: arrayOf(userMsg("call x y"), callsMsg("x", "y"), noOutput("x"), toolMsg("y", "2")), put: "3", thread: "continued"},
			{send: arrayOf(one), goes: arrayOf(userMsg("call x y"), callsMsg("x", "y"), toolMsg("y", "2"), noOutput("x"), assistantMsg("re: 2"), one), put: "5", thread: "continued"},
		}},
		{"calls after calls", "", []sessionStep{
			{send: arrayOf(userMsg("call x")), put: "0", thread: "new"},
			{send: arrayOf(toolMsg("x", "call z")), goes: arrayOf(userMsg("call x"), callsMsg("x"), toolMsg("x", "call z")), put: "2", thread: "continued"},
			{send: arrayOf(toolMsg("z", "3")), goes: arrayOf(userMsg("call x"), callsMsg("x"), toolMsg("x", "call z"), callsMsg("z"), toolMsg("z", "3")), put: "4", thread: "continued"},
		}},
		{"a tool answers no call", "", []sessionStep{
			{send: arrayOf(one), put: "0", thread: "new"},
			{send: arrayOf(toolMsg("w", "0"), two), goes: arrayOf(one, re1, toolMsg("w", "0"), two), put: "2", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"a tool message without an id", "", []sessionStep{
			{send: arrayOf(userMsg("call x")), put: "0", thread: "new"},
			{send: arrayOf(roleMsg("tool", "1")), goes: arrayOf(userMsg("call x"), callsMsg("x"), roleMsg("tool", "1")), put: "2", thread: "continued"},
			{send: arrayOf(one), goes: arrayOf(userMsg("call x"), callsMsg("x"), roleMsg("tool", "1"), assistantMsg("re: 1"), one), put: "4", thread: "continued"},
		}},
		{"continue by header", "", []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(q, two), goes: arrayOf(q, one, re1, two), put: "2", thread: "continued", headers: []string{cont}},
			{send: arrayOf(three), goes: arrayOf(q, one, re1, two, re2, three), put: "5", thread: "continued"},
		}},
		{"continue by configuration", modeContinue, []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(q, two), goes: arrayOf(q, one, re1, two), put: "2", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(q, one, re1, two, re2, three), put: "5", thread: "continued"},
			{send: arrayOf(p, one, re1, two, re2, three, re3, one), put: "-", thread: "continued"},
			{send: arrayOf(q, two), put: "0", thread: "new", headers: []string{"X-Session-Mode: auto"}},
		}},
		{"continue with a history of the client's own", modeContinue, []sessionStep{
			{send: arrayOf(p, one), put: "0", thread: "new"},
			{send: arrayOf(userMsg("x"), assistantMsg("y"), two), put: "-", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(userMsg("x"), assistantMsg("y"), two, re2, three), put: "4", thread: "continued"},
		}},
		{"record by header", "", []sessionStep{
			{send: arrayOf(one), put: "-", thread: "new", headers: []string{record}},
			{send: arrayOf(two), put: "-", thread: "continued", headers: []string{record}},
			{send: arrayOf(three), goes: arrayOf(one, re1, two, re2, three), put: "4", thread: "continued"},
		}},
		{"record by configuration", modeRecord, []sessionStep{
			{send: arrayOf(p, one), put: "-", thread: "new"},
			{send: arrayOf(p, one, re1, two), put: "-", thread: "continued"},
			{send: arrayOf(three), goes: arrayOf(p, one, re1, two, re2, three), put: "5", thread: "continued", headers: []string{"X-Session-Mode: AUTO"}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
				for _, stream := range []bool{false, true} {
					g := newGatewayOn(t, open(testLimits), talkUpstream, func(c *config) {
						if tt.mode != "" {
							c.SessionMode = tt.mode
						}
					})
					for i, st := range tt.steps {
						g.take(t, i, st, stream)
					}
				}
			})
		})
	}
}

// opencode sets the header on its own: for each prompt a title request and the
// main one, under one id, at the same time, each with a prompt of its own.
func TestSessionTitleRequests(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		title, main := []string{systemMsg("make a title")}, []string{systemMsg("you write code")}
		for i := range 3 {
			question := userMsg(fmt.Sprint("question ", i))
			title, main = append(title, question), append(main, question)
			var wg sync.WaitGroup
			for _, history := range [][]string{title, main} {
				wg.Go(func() {
					body := `{"model":"m","stream":true,"stream_options":{"include_usage":true}, "messages":` + arrayOf(history...) + `}`
					res, err := http.DefaultTransport.RoundTrip(g.request("POST", "/v1/chat/completions", body, "X-Session-Id: ses_1", "X-Session-Affinity: ses_1"))
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					io.Copy(io.Discard, res.Body)
					if i > 0 {
						wantHeader(t, res, "X-Session-Messages", "-")
						wantHeader(t, res, "X-Session-Thread", "continued")
					}
				})
			}
			wg.Wait()
			got := g.upstream.all()[2*i:]
			for _, want := range [][]string{title, main} {
				if !strings.Contains(got[0].Body+got[1].Body, `, "messages":`+arrayOf(want...)+`}`) {
					t.Errorf("question %d: no request arrived as\n%s", i, arrayOf(want...))
				}
			}
			title, main = append(title, assistantMsg("re: question "+fmt.Sprint(i))), append(main, assistantMsg("re: question "+fmt.Sprint(i)))
		}
		view := g.context(t, "ses_1", "")
		if view.Turns != 3 || len(view.Threads) != 1 || view.Threads[0].Turns != 3 {
			t.Errorf("context: %+v, want two threads of three turns", view)
		}
	})
}

func TestSessionThreadLimit(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		g := newGatewayOn(t, open(testLimits), talkUpstream)
		for i := range maxThreads + 1 {
			g.take(t, i, sessionStep{send: arrayOf(systemMsg(fmt.Sprint("prompt ", i)), userMsg("one")), put: "0", thread: "new"}, false)
		}
		if view := g.context(t, "s1", ""); len(view.Threads) != maxThreads-1 {
			t.Errorf("%d other threads, want %d", len(view.Threads), maxThreads-1)
		}
		g.take(t, 100, sessionStep{send: arrayOf(systemMsg("prompt 0"), userMsg("two")), put: "0", thread: "new"}, false)
		g.take(t, 101, sessionStep{send: arrayOf(systemMsg("prompt 2"), userMsg("two")),
			goes: arrayOf(systemMsg("prompt 2"), userMsg("one"), assistantMsg("re: one"), userMsg("two")), put: "2", thread: "continued"}, false)
	})
}

func TestSessionTrimming(t *testing.T) {
	limits := storeLimits{SessionTTL: time.Hour, MaxTurns: 2}
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		t.Run("whole turns", func(t *testing.T) {
			g := newGatewayOn(t, open(limits), talkUpstream)
			g.take(t, 0, sessionStep{send: arrayOf(userMsg("0"), userMsg("a")), put: "0", thread: "new"}, false)
			g.take(t, 1, sessionStep{send: arrayOf(userMsg("b")), goes: arrayOf(userMsg("0"), userMsg("a"), assistantMsg("re: a"), userMsg("b")), put: "3", thread: "continued"}, false)
			g.take(t, 2, sessionStep{send: arrayOf(userMsg("c")), goes: arrayOf(userMsg("0"), userMsg("a"), assistantMsg("re: a"), userMsg("b"), assistantMsg("re: b"), userMsg("c")), put: "5", thread: "continued"}, false)
			g.take(t, 3, sessionStep{send: arrayOf(userMsg("d")), goes: arrayOf(userMsg("b"), assistantMsg("re: b"), userMsg("c"), assistantMsg("re: c"), userMsg("d")), put: "4", thread: "continued"}, false)
		})
		t.Run("no tool message without its call", func(t *testing.T) {
			g := newGatewayOn(t, open(limits), talkUpstream)
			g.take(t, 0, sessionStep{send: arrayOf(userMsg("call x")), put: "0", thread: "new"}, false)
			g.take(t, 1, sessionStep{send: arrayOf(toolMsg("x", "1")), goes: arrayOf(userMsg("call x"), callsMsg("x"), toolMsg("x", "1")), put: "2", thread: "continued"}, false)
			g.take(t, 2, sessionStep{send: arrayOf(userMsg("b")), goes: arrayOf(userMsg("call x"), callsMsg("x"), toolMsg("x", "1"), assistantMsg("re: 1"), userMsg("b")), put: "4", thread: "continued"}, false)
			if view := g.context(t, "s1", ""); view.Turns != 1 || view.Trimmed != 4 || string(view.Messages) != arrayOf(userMsg("b"), assistantMsg("re: b")) {
				t.Errorf("context: %+v, want the last turn", view)
			}
			g.take(t, 3, sessionStep{send: arrayOf(userMsg("c")), goes: arrayOf(userMsg("b"), assistantMsg("re: b"), userMsg("c")), put: "2", thread: "continued"}, false)
		})
		t.Run("no function message without its call", func(t *testing.T) {
			g := newGatewayOn(t, open(limits), talkUpstream)
			function := `{"role":"function","name":"f","content":"1"}`
			g.take(t, 0, sessionStep{send: arrayOf(userMsg("a")), put: "0", thread: "new"}, false)
			g.take(t, 1, sessionStep{send: arrayOf(function), goes: arrayOf(userMsg("a"), assistantMsg("re: a"), function), put: "2", thread: "continued"}, false)
			g.take(t, 2, sessionStep{send: arrayOf(userMsg("b")), goes: arrayOf(userMsg("a"), assistantMsg("re: a"), function, assistantMsg("re: 1"), userMsg("b")), put: "4", thread: "continued"}, false)
			g.take(t, 3, sessionStep{send: arrayOf(userMsg("c")), goes: arrayOf(userMsg("b"), assistantMsg("re: b"), userMsg("c")), put: "2", thread: "continued"}, false)
		})
		t.Run("a long run of calls", func(t *testing.T) {
			g := newGatewayOn(t, open(limits), talkUpstream)
			g.take(t, 0, sessionStep{send: arrayOf(userMsg("call 0")), put: "0", thread: "new"}, false)
			g.take(t, 1, sessionStep{send: arrayOf(toolMsg("0", "call 1")), goes: arrayOf(userMsg("call 0"), callsMsg("0"), toolMsg("0", "call 1")), put: "2", thread: "continued"}, false)
			g.take(t, 2, sessionStep{send: arrayOf(toolMsg("1", "call 2")), goes: arrayOf(userMsg("call 0"), callsMsg("0"), toolMsg("0", "call 1"), callsMsg("1"), toolMsg("1", "call 2")), put: "4", thread: "continued"}, false)
			g.take(t, 3, sessionStep{send: arrayOf(toolMsg("2", "call 3")), goes: arrayOf(callsMsg("1"), toolMsg("1", "call 2"), callsMsg("2"), toolMsg("2", "call 3")), put: "3", thread: "continued"}, false)
		})
		t.Run("who resends everything pays for the tail", func(t *testing.T) {
			store := open(limits)
			g := newGatewayOn(t, store, talkUpstream)
			var sent []string
			for i := range 6 {
				sent = append(sent, userMsg(fmt.Sprint(i)))
				put, thread := "-", "continued"
				if i == 0 {
					put, thread = "0", "new"
				}
				g.take(t, i, sessionStep{send: arrayOf(sent...), put: put, thread: thread}, i%2 == 0)
				answer := assistantMsg(fmt.Sprint("re: ", i))
				if w := store.lastWrite(t); store.written() != "a" || string(member(w.Turns[0].Record, "messages")) != arrayOf(userMsg(fmt.Sprint(i)), answer) {
					t.Errorf("request %d wrote %s, want its tail appended", i, w.Turns[0].Record)
				}
				if i > 0 && store.lastPick() != pickNone {
					t.Errorf("request %d read turns of the session, which its client has sent", i)
				}
				sent = append(sent, answer)
			}
			view := g.context(t, "s1", "")
			if view.Turns != 2 || view.Trimmed != 8 || string(view.Messages) != arrayOf(sent[8:]...) {
				t.Errorf("context: %+v, want the last two turns", view)
			}
		})
	})
}

// What a client sends back as history is in its own JSON; it must be recognised
// as what was recorded.
func TestSessionRecognisesHistory(t *testing.T) {
	answers := map[string]string{
		"text":  `{"role":"assistant","content":" h\u00e9llo <b>\n","refusal":null,"annotations":[],"reasoning_content":"hm"}`,
		"calls": `{"role":"assistant","content":"","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]}`,
	}
	upstream := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		kind := "text"
		if strings.Contains(string(body), `"use tools"`) {
			kind = "calls"
		}
		answerMessage(w, answers[kind], false)
	}
	const first, firstWithTools = `{"role":"user","content":"hi"}`, `{"role":"user","content":"use tools"}`
	const args = `"tool_calls":[{"function":{"arguments":"{\"a\": 1}","name":"f"},"index":0,"type":"function","id":"c1"}]`
	for _, tt := range []struct {
		name, first, resent string
		want                string // writes: "a" appended, "r" the thread was made anew
	}{
		{"the same", first, first + `,` + answers["text"], "a"},
		{"key order and spacing", first, `{ "content" : "hi", "role":"user" }, {"content":"\u0020héllo \u003cb>\n","role":"assistant"}`, "a"},
		{"null and other fields", first, `{"role":"user","content":"hi","name":null},{"role":"assistant","content":" héllo <b>\n","tool_calls":null,"function_call":null,"audio":null}`, "a"},
		{"parsed", first, first + `,{"role":"assistant","content":" héllo <b>\n","parsed":{"x":1},"tool_calls":[]}`, "a"},
		{"parts", first, `{"role":"user","content":[{"type":"text","text":"hi"}]},{"role":"assistant","content":[{"type":"text","text":" héllo","cache_control":{"type":"ephemeral"}},{"type":"text","text":" <b>\n"}]}`, "a"},
		{"trimmed", first, first + `,{"role":"assistant","content":"héllo <b>"}`, "a"},
		{"reasoning sent back", first, first + `,{"role":"assistant","reasoning_content":"hm","content":" héllo <b>\n"}`, "a"},
		{"other text", first, first + `,{"role":"assistant","content":"hello <b>"}`, "r"},
		{"other question", `{"role":"user","content":"ho"}`, first + `,` + answers["text"], "r"},
		{"a message less", first, answers["text"], "r"},
		{"a message more", first, first + `,{"role":"user","content":"?"},` + answers["text"], "r"},
		{"calls", firstWithTools, firstWithTools + `,{"role":"assistant","content":null,` + args + `}`, "a"},
		{"calls without content", firstWithTools, firstWithTools + `,{"role":"assistant",` + args + `}`, "a"},
		{"other arguments", firstWithTools, firstWithTools + `,{"role":"assistant",` + strings.Replace(args, "1", "2", 1) + `}`, "r"},
		{"other call", firstWithTools, firstWithTools + `,{"role":"assistant",` + strings.Replace(args, "c1", "c2", 1) + `}`, "r"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
			g := newGatewayOn(t, store, upstream)
			g.chat(`{"messages":[`+tt.first+`]}`, "X-Session-Id: s")
			store.written()
			body := `{"messages":[` + tt.resent + `,{"role":"user","content":"next"}]}`
			g.chat(body, "X-Session-Id: s")
			if got := g.last().Body; got != body {
				t.Errorf("upstream got %s, want %s", got, body)
			}
			if got := store.written(); got != tt.want {
				t.Errorf("writes: %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSessionRefuses(t *testing.T) {
	const ok = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	for _, tt := range []struct {
		name, body string
		headers    []string
		param      string // of the error; "" = the request is taken
	}{
		{"a mode", ok, []string{"X-Session-Id: s", "X-Session-Mode: always"}, "X-Session-Mode"},
		{"a mode without a session", ok, []string{"X-Session-Mode: always"}, ""},
		{"an empty id", ok, []string{"X-Session-Id: "}, "X-Session-Id"},
		{"an id of 256 characters", ok, []string{"X-Session-Id: " + strings.Repeat("x", 256)}, "X-Session-Id"},
		{"a space", ok, []string{"X-Session-Id: a b"}, "X-Session-Id"},
		{"a letter beyond ASCII", ok, []string{"X-Session-Id: é"}, "X-Session-Id"},
		{"a step up", ok, []string{"X-Session-Id: .."}, "X-Session-Id"},
		{"a slash", ok, []string{"X-Session-Id: /"}, "X-Session-Id"},
		{"a step nowhere", ok, []string{"X-Session-Id: ."}, "X-Session-Id"},
		{"a step up with a parameter", ok, []string{"X-Session-Id: ..;a"}, "X-Session-Id"},
		{"a message that is none", `{"messages":[{"role":"user","content":"hi"},"hi"]}`, []string{"X-Session-Id: s"}, "messages[1]"},
		{"a message that is none, without a session", `{"messages":["hi"]}`, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerJSON(200, completion("x")))
			res, body := g.chat(tt.body, tt.headers...)
			if tt.param == "" {
				if res.StatusCode != 200 {
					t.Errorf("status %d, %s", res.StatusCode, body)
				}
				return
			}
			var e openaiError
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Param == nil {
				t.Fatalf("no error with a param: %s", body)
			}
			if res.StatusCode != 400 || *e.Error.Param != tt.param || e.Error.Type != "invalid_request_error" {
				t.Errorf("status %d, %s; want 400 and the param %q", res.StatusCode, body, tt.param)
			}
			if len(g.upstream.all()) != 0 {
				t.Error("the request reached the upstream")
			}
		})
	}
}

// One header sent twice has no one meaning.
func TestSessionIDTwice(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("x")))
	req := g.request("POST", "/v1/chat/completions", `{"messages":[]}`)
	req.Header["X-Session-Id"] = []string{"a", "b"}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 400 {
		t.Errorf("status %d, want 400", res.StatusCode)
	}
}

func TestSessionOtherHeaders(t *testing.T) {
	headers := func(c *config) { c.SessionHeaders = []string{"Session_id", "X-Session-Id"} }
	const first, second = `{"messages":[{"role":"user","content":"one"}]}`, `{"messages":[{"role":"user","content":"two"}]}`
	for _, tt := range []struct {
		name    string
		headers []string
		id      string // whose session it is; "" = nobody's
		put     string
	}{
		{"recorded only", []string{"session_id: a"}, "a", "-"},
		{"whatever the mode says", []string{"session_id: a", "X-Session-Mode: continue"}, "a", "-"},
		{"the first name counts", []string{"session_id: a", "X-Session-Id: b"}, "a", "-"},
		{"our own", []string{"X-Session-Id: a"}, "a", "2"},
		{"an id of the client's that is none of ours", []string{"session_id: a b"}, "", "-"},
		{"the next name then", []string{"session_id: a b", "X-Session-Id: b"}, "b", "2"},
		{"a name that is not configured", []string{"session-id: a"}, "", "-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, talkUpstream, headers)
			g.chat(first, tt.headers...)
			res, _ := g.chat(second, tt.headers...)
			wantHeader(t, res, "X-Session-Messages", tt.put)
			if exact := g.last().Body == second; exact != (tt.put == "-") {
				t.Errorf("upstream got %s", g.last().Body)
			}
			if tt.id == "" {
				wantHeader(t, res, "X-Session-Id", "-")
				return
			}
			wantHeader(t, res, "X-Session-Id", tt.id)
			if view := g.context(t, tt.id, ""); view.Turns != 2 {
				t.Errorf("context: %+v, want two turns", view)
			}
			for _, name := range []string{"X-Session-Id", "Session_id", "X-Session-Mode"} {
				if g.last().Header[name] != nil {
					t.Errorf("%s went upstream", name)
				}
			}
		})
	}
}

// With several choices, the first is recorded.
func TestSessionChoices(t *testing.T) {
	const chunk = `data: {"choices":[{"index":%d,"delta":{"content":"%s"},"finish_reason":%s}]}` + "\n\n"
	for name, upstream := range map[string]http.HandlerFunc{
		"whole": answerJSON(200, `{"choices":[{"index":0,"message":{"role":"assistant","content":"zero"},"finish_reason":"stop"},{"index":1,"message":{"role":"assistant","content":"one"},"finish_reason":"stop"}]}`),
		"stream": answerStream(fmt.Sprintf(chunk, 1, "one", "null"), fmt.Sprintf(chunk, 0, "zero", "null"),
			fmt.Sprintf(chunk, 1, "", `"stop"`), fmt.Sprintf(chunk, 0, "", `"stop"`), doneEvent),
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, upstream)
			g.chat(fmt.Sprintf(`{"n":2,"stream":%t,"messages":[{"role":"user","content":"hi"}]}`, name == "stream"), "X-Session-Id: s")
			if got, want := string(g.context(t, "s", "").Messages), arrayOf(userMsg("hi"), assistantMsg("zero")); got != want {
				t.Errorf("recorded %s, want %s", got, want)
			}
		})
	}
}

func TestSessionContextTooLong(t *testing.T) {
	const tooLong = `{"error":{"message":"This model's maximum context length is 10 tokens","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`
	const body = `{"stream":%t,"messages":%s}`
	for _, tt := range []struct {
		name    string
		before  []string // new turns that come first
		limit   int      // messages that the upstream takes
		send    string
		goes    string // the last attempt's messages
		tries   int
		put     string
		refused bool
	}{
		{"it fits", []string{"0", "1"}, 5, arrayOf(userMsg("x")), arrayOf(userMsg("0"), assistantMsg("re: 0"), userMsg("1"), assistantMsg("re: 1"), userMsg("x")), 1, "4", false},
		{"the older half goes", []string{"0", "1", "2"}, 4, arrayOf(systemMsg("p"), userMsg("x")), arrayOf(systemMsg("p"), userMsg("2"), assistantMsg("re: 2"), userMsg("x")), 2, "2", false},
		{"all but one", []string{"0", "1", "2", "3"}, 3, arrayOf(userMsg("x")), arrayOf(userMsg("3"), assistantMsg("re: 3"), userMsg("x")), 3, "2", false},
		{"all goes", []string{"0", "1", "2", "3"}, 1, arrayOf(userMsg("x")), arrayOf(userMsg("x")), 4, "0", false},
		{"three repeats and no more", strings.Fields("0 1 2 3 4 5 6 7 8 9"), 1, arrayOf(userMsg("x")), arrayOf(userMsg("9"), assistantMsg("re: 9"), userMsg("x")), 4, "2", true},
		{"never enough", []string{"0"}, 0, arrayOf(userMsg("x")), arrayOf(userMsg("x")), 2, "0", true},
		{"no history was put in", []string{"0"}, 0, arrayOf(userMsg("0"), assistantMsg("re: 0"), userMsg("x")), arrayOf(userMsg("0"), assistantMsg("re: 0"), userMsg("x")), 1, "-", true},
		{"an answer stays with its call", []string{"0", "call y"}, 3, arrayOf(toolMsg("y", "1")), arrayOf(userMsg("call y"), callsMsg("y"), toolMsg("y", "1")), 2, "2", false},
		{"and does so to the end", []string{"call y"}, 2, arrayOf(toolMsg("y", "1")), arrayOf(userMsg("call y"), callsMsg("y"), toolMsg("y", "1")), 1, "2", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stream := range []bool{false, true} {
				limit := 100
				store := &hookedStore{Store: newMemoryStore(1<<20, testLimits)}
				g := newGatewayOn(t, store, func(w http.ResponseWriter, r *http.Request) {
					body, _ := io.ReadAll(r.Body)
					n := 0
					for range elements(member(body, "messages")) {
						n++
					}
					if n > limit {
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(400)
						io.WriteString(w, tooLong)
						return
					}
					r.Body = io.NopCloser(strings.NewReader(string(body)))
					talkUpstream(w, r)
				})
				for _, q := range tt.before {
					g.chat(fmt.Sprintf(body, stream, arrayOf(userMsg(q))), "X-Session-Id: s", "X-Session-Mode: continue")
				}
				store.written()
				limit = tt.limit
				before := len(g.upstream.all())
				res, got := g.chat(fmt.Sprintf(body, stream, tt.send), "X-Session-Id: s", "X-Session-Mode: continue")
				if n := len(g.upstream.all()) - before; n != tt.tries {
					t.Errorf("%d attempts, want %d", n, tt.tries)
				}
				if last, want := g.last().Body, fmt.Sprintf(body, stream, tt.goes); last != want {
					t.Errorf("upstream got\n%s, want\n%s", last, want)
				}
				wantHeader(t, res, "X-Session-Messages", tt.put)
				wrote := store.written()
				if tt.refused && (res.StatusCode != 400 || got != tooLong || wrote != "") {
					t.Errorf("status %d, %s, writes %q; want the upstream's refusal and none", res.StatusCode, got, wrote)
				}
				if !tt.refused && (res.StatusCode != 200 || wrote != "a") {
					t.Errorf("status %d, %s, writes %q; want an answer and one", res.StatusCode, got, wrote)
				}
			}
		})
	}
}

// contextOf is what GET /context/{id} answers; id goes into the path as it is.
func (g *gateway) context(t *testing.T, id, key string) contextView {
	t.Helper()
	headers := []string{}
	if key != "" {
		headers = append(headers, "Authorization: Bearer "+key)
	}
	res := g.do("GET", "/context/"+id, "", headers...)
	body := readAll(t, res)
	var view contextView
	if err := json.Unmarshal([]byte(body), &view); err != nil || res.StatusCode != 200 {
		t.Fatalf("GET /context/%s: status %d, %s", id, res.StatusCode, body)
	}
	return view
}

// Results that come without the ids of their calls, as Gemini's clients may send
// them, answer the recorded calls by name and then by place (B-58), also when the
// first try broke off.
func TestResultsWithoutIDs(t *testing.T) {
	function := func(name string) string {
		return `{"functionResponse":{"name":"` + name + `","response":{"output":"of ` + name + `"}}}`
	}
	const f, g1, g2 = `{"id":"k1","type":"function","function":{"name":"f","arguments":"{}"}}`, `{"id":"k2","type":"function","function":{"name":"g","arguments":"{}"}}`, `{"id":"k3","type":"function","function":{"name":"g","arguments":"{}"}}`
	slow := make(chan bool, 1)
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		stream := string(member(body, "stream")) == "true"
		switch {
		case !strings.Contains(string(body), `"role":"tool"`):
			answerMessage(w, `{"role":"assistant","content":null,"tool_calls":[`+strings.Join([]string{f, g1, g2}, ",")+`]}`, stream)
		case len(slow) > 0:
			<-slow
			answerStream(textChunk("begun"))(w, r)
			<-r.Context().Done()
		default:
			answerMessage(w, assistantMsg("done"), stream)
		}
	})
	const id = "X-Session-Id: s"
	for name, tt := range map[string]struct{ sent, want string }{
		"by name":           {function("g") + "," + function("f") + "," + function("g"), "k2=of g k1=of f k3=of g"},
		"then by place":     {function("h") + "," + function("g") + "," + function("g"), "k1=of h k2=of g k3=of g"},
		"beside one of its": {`{"functionResponse":{"id":"k2","name":"g","response":{"output":"first"}}},` + function("f") + "," + function("g"), "k2=first k1=of f k3=of g"},
		"the rest are open": {function("g"), "k1=[no output] k3=[no output] k2=of g"},
	} {
		for _, broken := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, broken off %t", name, broken), func(t *testing.T) {
				g.do("DELETE", "/context/s", "")
				g.ok(geminiPath, geminiHi, id)
				results := `{"contents":[{"role":"user","parts":[` + tt.sent + `]}]}`
				if broken {
					slow <- true
					res := g.do("POST", geminiSSE, results, id)
					res.Body.Read(make([]byte, 1))
					res.Body.Close()
					eventually(t, "recording the broken turn", func() bool { return g.context(t, "s", "").Turns == 2 })
				}
				g.ok(geminiPath, results, id)
				var got []string
				for m := range elements([]byte(g.sent("messages"))) {
					if text(member(m, "role")) == "tool" {
						got = append(got, text(member(m, "tool_call_id"))+"="+text(member(m, "content")))
					}
				}
				if s := strings.Join(got, " "); s != tt.want {
					t.Errorf("the upstream got the results %s, want %s", s, tt.want)
				}
				if view := g.context(t, "s", ""); view.Turns != 2 {
					t.Errorf("%d turns are kept, want two: %s", view.Turns, view.Messages)
				}
			})
		}
	}
	res, got := g.post(geminiPath, `{"contents":[{"role":"user","parts":[`+function("f")+`]}]}`, "X-Session-Id: another")
	if res.StatusCode != 200 {
		t.Errorf("without a recorded call the upstream judges: %d %s", res.StatusCode, got)
	}
}
