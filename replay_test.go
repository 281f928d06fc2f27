package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// thinkingUpstream answers like weatherUpstream, but thinks before it calls, and
// refuses a call that comes back without those thoughts. Each thought is told
// apart by the length of the conversation it is in.
func thinkingUpstream(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var q struct {
		Stream   bool
		Messages []chatSeen
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	err := strictMessages(q.Messages)
	for i, m := range q.Messages {
		if want := thoughtAt(i); len(m.ToolCalls) > 0 && (m.ReasoningContent == nil || *m.ReasoningContent != want) {
			err = fmt.Errorf("the reasoning_content of message %d must be passed back", i)
		}
	}
	if err != nil {
		refuse(w, err)
		return
	}
	n := len(q.Messages)
	if last := q.Messages[n-1]; last.Role == "tool" && !strings.HasPrefix(fmt.Sprint(last.Content), "more") {
		answerMessage(w, assistantMsg("it is "+fmt.Sprint(last.Content)), q.Stream)
		return
	}
	answerMessage(w, fmt.Sprintf(`{"role":"assistant","content":null,"reasoning_content":%q,"tool_calls":[{"id":"call%d","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Oslo\"}"}}]}`, thoughtAt(n), n), q.Stream)
}

func thoughtAt(i int) string { return fmt.Sprintf("I think, for message %d.", i) }

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(400)
	io.WriteString(w, `{"error":{"message":`+quoted(err.Error())+`,"type":"invalid_request_error"}}`)
}

// A toolClient is a speaker with settings of its own that decide whether it is
// shown reasoning.
type toolClient struct {
	name   string
	talks  string
	extra  string // members that go to the end of the body
	shown  bool   // the client is to see the reasoning
	strips string // of the items that it sends back, those that hold this are left out
}

var toolClients = []toolClient{
	{"anthropic without thinking", "anthropic", "", false, ""},
	{"anthropic with thinking", "anthropic", `,"thinking":{"type":"enabled","budget_tokens":2000}`, true, ""},
	{"anthropic with thinking off", "anthropic", `,"thinking":{"type":"disabled"}`, false, ""},
	{"responses", "responses", "", true, ""},
	{"responses with encrypted_content", "responses", `,"store":false,"include":["reasoning.encrypted_content"]`, true, ""},
	{"responses that drop reasoning", "responses", `,"store":false`, true, `"type":"reasoning"`},
	{"gemini", "gemini", "", false, ""},
	{"gemini without ids", "gemini without ids", "", false, ""},
	{"gemini with thoughts", "gemini", `,"generationConfig":{"thinkingConfig":{"includeThoughts":true}}`, true, ""},
}

// with puts the client's settings into a body.
func (c toolClient) with(body string) string { return strings.TrimSuffix(body, "}") + c.extra + "}" }

// sendsBack is what the client keeps of an answer.
func (c toolClient) sendsBack(said spoken) []string {
	var list []string
	for _, item := range said.items {
		if c.strips == "" || !strings.Contains(item, c.strips) {
			list = append(list, item)
		}
	}
	return list
}

// E-24: what an upstream wants back of its reasoning comes back, whether the
// client was shown it or not, in a loop of several calls and after it (AC-5).
func TestReasoningComesBack(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, c := range toolClients {
			t.Run(fmt.Sprintf("%s, stream %t", c.name, stream), func(t *testing.T) {
				t.Parallel()
				c.toolLoop(t, stream, newGateway(t, thinkingUpstream))
			})
		}
	}
}

// toolLoop has two calls in a row, and a third after the user has spoken again;
// each request goes to the next of the gateways.
func (c toolClient) toolLoop(t *testing.T, stream bool, gateways ...*gateway) {
	s, n := speakerOf(c.talks), 0
	messages := []string{s.user("weather in Oslo")}
	say := func() spoken {
		t.Helper()
		g := gateways[n%len(gateways)]
		n++
		said := g.sayBody(s, stream, c.with(s.body(stream, messages...)))
		messages = append(messages, c.sendsBack(said)...)
		return said
	}
	for i, result := range []string{"more", "cold", "", "warm"} {
		said := say()
		if result == "" {
			if !strings.Contains(said.text, "cold") {
				t.Fatalf("answer %d is %+v", i, said)
			}
			messages = append(messages, s.user("and in Rome?"))
			continue
		}
		if len(said.calls) != 1 {
			t.Fatalf("answer %d is %+v, want a call", i, said)
		}
		if (said.thought != "") != c.shown {
			t.Errorf("answer %d shows the thought %q, want one: %t", i, said.thought, c.shown)
		}
		messages = append(messages, s.result(said.calls[0], result))
	}
	if said := say(); !strings.Contains(said.text, "warm") {
		t.Errorf("the last answer is %+v", said)
	}
}

// E-24, D-144: the same with the history in stored responses.
func TestReasoningComesBackInChains(t *testing.T) {
	for _, stream := range []bool{false, true} {
		g, s := newGateway(t, thinkingUpstream), speakerOf("responses")
		c := toolClient{}
		said := g.say(s, stream, []string{s.user("weather in Oslo")})
		for i, result := range []string{"more", "more", "cold"} {
			c.extra = `,"previous_response_id":"` + said.id + `"`
			if len(said.calls) != 1 {
				t.Fatalf("answer %d is %+v, want a call", i, said)
			}
			said = g.sayBody(s, stream, c.with(s.body(stream, s.result(said.calls[0], result))))
		}
		if !strings.Contains(said.text, "cold") {
			t.Errorf("the last answer is %+v", said)
		}
	}
}

// E-24: with the history in a session, the reasoning stands in what is recorded.
func TestReasoningComesBackInSessions(t *testing.T) {
	for _, s := range speakers {
		g, id := newGateway(t, thinkingUpstream), "X-Session-Id: s"
		said := g.say(s, true, []string{s.user("weather in Oslo")}, id)
		for i, result := range []string{"more", "cold"} {
			if len(said.calls) != 1 {
				t.Fatalf("%s: answer %d is %+v, want a call", s.name, i, said)
			}
			said = g.say(s, false, []string{s.result(said.calls[0], result)}, id)
		}
		if !strings.Contains(said.text, "cold") {
			t.Errorf("%s: the last answer is %+v", s.name, said)
		}
	}
}

// E-24: an upstream that never reasons never sees a field of it.
func TestReasoningNeverInvented(t *testing.T) {
	for _, c := range toolClients {
		g := newGateway(t, weatherUpstream)
		s := speakerOf(c.talks)
		messages := []string{s.user("weather in Oslo")}
		said := g.sayBody(s, false, c.with(s.body(false, messages...)))
		messages = append(append(messages, said.items...), s.result(said.calls[0], "cold"))
		g.sayBody(s, true, c.with(s.body(true, messages...)))
		for _, seen := range g.upstream.all() {
			if strings.Contains(seen.Body, `"reasoning`) && !strings.Contains(seen.Body, `"reasoning_effort"`) || strings.Contains(seen.Body, "extra_content") {
				t.Errorf("%s: the upstream got %s", c.name, seen.Body)
			}
		}
	}
}

// E-24: reasoning in another field goes back there, and foreign stamps go
// nowhere.
func TestReasoningFields(t *testing.T) {
	for _, field := range []struct{ wire, sent string }{
		{`"reasoning":"hm"`, `"reasoning":"hm"`},
		{`"reasoning_content":"hm"`, `"reasoning_content":"hm"`},
		{`"reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"s","index":0}]`,
			`"reasoning_details":[{"type":"reasoning.text","text":"hm","signature":"s","index":0}]`},
	} {
		for _, c := range toolClients {
			g := newGateway(t, answerJSON(200, `{"choices":[{"index":0,"message":{"role":"assistant","content":null,`+field.wire+`,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`))
			s := speakerOf(c.talks)
			messages := []string{s.user("weather in Oslo")}
			said := g.sayBody(s, false, c.with(s.body(false, messages...)))
			messages = append(append(messages, c.sendsBack(said)...), s.result(said.calls[0], "cold"))
			g.sayBody(s, false, c.with(s.body(false, messages...)))
			sent := strings.ReplaceAll(g.last().Body, `"reasoning_effort"`, "")
			if !strings.Contains(sent, field.sent) || strings.Count(sent, `"reasoning`) != strings.Count(field.sent, `"reasoning`) {
				t.Errorf("%s: %s came back in %s", c.name, field.wire, sent)
			}
		}
	}
}

func TestReasoningReplayQuirk(t *testing.T) {
	for _, tt := range []struct {
		mode string
		want string // message -> whether it has reasoning
	}{{"auto", "1 5 "}, {"turn", "5 "}, {"off", ""}} {
		g := newGateway(t, weatherUpstream, func(c *config) { c.Quirks = []string{"reasoning_replay:" + tt.mode} })
		s := speakerOf("anthropic")
		call := func(id string) string {
			return `{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"apx1.c."},{"type":"tool_use","id":"` + id + `","name":"weather","input":{}}]}`
		}
		g.say(s, false, []string{
			userMsg("weather in Oslo"), call("a"), s.result(chatToolCall{ID: "a"}, "cold"), assistantMsg("cold"),
			userMsg("weather in Rome"), call("b"), s.result(chatToolCall{ID: "b"}, "warm"),
		})
		var sent struct{ Messages []chatSeen }
		parse(t, g.last().Body, &sent)
		got := ""
		for i, m := range sent.Messages {
			if m.ReasoningContent != nil {
				got += fmt.Sprint(i, " ")
			}
		}
		if got != tt.want {
			t.Errorf("%s: the messages %q have reasoning, want %q", tt.mode, got, tt.want)
		}
	}
}

// E-24: replicas share what they keep, and one that has it needs no store.
func TestReasoningAcrossReplicas(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		for _, c := range toolClients {
			if c.name == "responses" {
				continue // names stored reasoning by its id; that is the store's own test
			}
			store := open(testLimits)
			c.toolLoop(t, false, newGatewayOn(t, store, thinkingUpstream), newGatewayOn(t, store, thinkingUpstream))
			// A third one has seen nothing of the beginning.
			c.toolLoop(t, true, newGatewayOn(t, store, thinkingUpstream), newGatewayOn(t, store, thinkingUpstream), newGatewayOn(t, store, thinkingUpstream))
		}
	})
}

func TestReasoningWithoutStore(t *testing.T) {
	for _, c := range toolClients {
		if c.name == "responses" {
			continue
		}
		c.toolLoop(t, false, newGatewayOn(t, brokenStore{newMemoryStore(1<<20, testLimits)}, thinkingUpstream))
	}
}

// brokenStore keeps nothing under names.
type brokenStore struct{ Store }

func (brokenStore) Get(context.Context, string) ([]byte, error) {
	return nil, fmt.Errorf("%w: the test made it so", errStoreDown)
}

func (brokenStore) Set(context.Context, string, []byte, time.Duration) error {
	return fmt.Errorf("%w: the test made it so", errStoreDown)
}

// What one key's client was not shown is not given to another's.
func TestReasoningBelongsToItsKey(t *testing.T) {
	g := newGateway(t, thinkingUpstream)
	s := speakerOf("anthropic")
	messages := []string{s.user("weather in Oslo")}
	said := g.say(s, false, messages)
	messages = append(append(messages, said.items...), s.result(said.calls[0], "cold"))
	res := g.do("POST", s.path(false), s.body(false, messages...), "Authorization: Bearer "+otherKey)
	if body := readAll(t, res); res.StatusCode != 400 || strings.Contains(g.last().Body, "I think") {
		t.Errorf("status %d %s after %s", res.StatusCode, body, g.last().Body)
	}
	g.say(s, false, messages)
}

// An upstream that never reasons costs few looks into the store, however many
// calls a conversation has.
func TestReasoningLooksAreFew(t *testing.T) {
	store := &countingStore{Store: newMemoryStore(1<<20, testLimits)}
	g := newGatewayOn(t, store, weatherUpstream)
	s := speakerOf("anthropic")
	messages := []string{s.user("weather in Oslo")}
	for i := range 40 {
		id := fmt.Sprint("c", i)
		messages = append(messages, `{"role":"assistant","content":[{"type":"tool_use","id":"`+id+`","name":"weather","input":{}}]}`, s.result(chatToolCall{ID: id}, "cold"))
	}
	g.say(s, false, messages)
	if n := store.gets.Load(); n > maxReplayMisses {
		t.Errorf("%d looks into the store for one request", n)
	}
}

type countingStore struct {
	Store
	gets atomic.Int64
}

func (s *countingStore) Get(ctx context.Context, key string) ([]byte, error) {
	if strings.HasPrefix(key, "replay:") && !strings.HasPrefix(key, signedKey("")) {
		s.gets.Add(1)
	}
	return s.Store.Get(ctx, key)
}

// signingUpstream is like Gemini's OpenAI endpoint: the first call of each
// answer is signed, and none comes back without.
func signingUpstream(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var q struct {
		Stream   bool
		Messages []chatSeen
	}
	if err := json.Unmarshal(body, &q); err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	err := strictMessages(q.Messages)
	for i, m := range q.Messages {
		if len(m.ToolCalls) == 0 {
			continue
		}
		signature := text(member(member(m.ToolCalls[0].ExtraContent, "google"), "thought_signature"))
		if signature != signatureAt(i) && signature != "skip_thought_signature_validator" || len(m.ToolCalls) > 1 && m.ToolCalls[1].ExtraContent != nil {
			err = fmt.Errorf("function call of message %d is missing a thought_signature", i)
		}
	}
	if err != nil {
		refuse(w, err)
		return
	}
	n := len(q.Messages)
	if last := q.Messages[n-1]; last.Role == "tool" && last.Content != "more" {
		answerMessage(w, assistantMsg("it is "+fmt.Sprint(last.Content)), q.Stream)
		return
	}
	call := `{"id":"%s%d","type":"function","function":{"name":"weather","arguments":"{}"}%s}`
	answerMessage(w, `{"role":"assistant","content":null,"tool_calls":[`+fmt.Sprintf(call, "a", n, `,"extra_content":{"google":{"thought_signature":"`+signatureAt(n)+`"}}`)+
		","+fmt.Sprintf(call, "b", n, "")+`]}`, q.Stream)
}

func signatureAt(i int) string { return fmt.Sprintf("c2ln%04d", i) }

// E-25: thought signatures come back, from clients that keep them and from those
// that have no room for them, through another replica too (AC-6).
func TestSignaturesComeBack(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, c := range toolClients {
			t.Run(fmt.Sprintf("%s, stream %t", c.name, stream), func(t *testing.T) {
				store := newMemoryStore(1<<20, testLimits)
				gateways := []*gateway{newGatewayOn(t, store, signingUpstream), newGatewayOn(t, store, signingUpstream)}
				s := speakerOf(c.talks)
				messages := []string{s.user("weather in Oslo")}
				for i, result := range []string{"more", "more", "cold"} {
					said := gateways[i%2].sayBody(s, stream, c.with(s.body(stream, messages...)))
					if len(said.calls) != 2 {
						t.Fatalf("answer %d is %+v, want two calls", i, said)
					}
					messages = append(messages, c.sendsBack(said)...)
					for _, call := range said.calls {
						messages = append(messages, s.result(call, result))
					}
				}
				if said := gateways[1].sayBody(s, stream, c.with(s.body(stream, messages...))); !strings.Contains(said.text, "cold") {
					t.Errorf("the last answer is %+v", said)
				}
				if sent := gateways[1].last().Body; strings.Contains(sent, "skip_thought") {
					t.Errorf("a signature got lost: %s", sent)
				}
			})
		}
	}
}

// E-25: calls that were made elsewhere go to such an upstream with the word that
// makes it look away.
func TestSignatureOfForeignCall(t *testing.T) {
	g := newGateway(t, signingUpstream)
	s := speakerOf("anthropic")
	g.say(s, false, []string{s.user("weather in Oslo")}) // it has signed
	said := g.say(s, false, []string{
		s.user("weather in Oslo"), `{"role":"assistant","content":[{"type":"tool_use","id":"x","name":"weather","input":{}}]}`, s.result(chatToolCall{ID: "x"}, "cold"),
	})
	if !strings.Contains(said.text, "cold") {
		t.Errorf("the answer is %+v", said)
	}
}

// The copy in the process has a bound, and drops the oldest first (AC-29).
func TestReplaysAreBounded(t *testing.T) {
	p := newReplays(brokenStore{})
	big := strings.Repeat("x", maxReplayBytes/4)
	for i := range 6 {
		p.keep(&exchange{ctx: t.Context(), cred: credential{Owner: "o"}, model: "m"}, &chatChoice{Reasoning: reasoning{Text: big, Field: reasoningContent}, Calls: []chatToolCall{functionCall(fmt.Sprint(i), "f", "{}")}})
	}
	for i := range 6 {
		if _, ok := p.find(t.Context(), "o", fmt.Sprint(i), false); ok != (i >= 3) {
			t.Errorf("call %d is kept: %t", i, ok)
		}
	}
	if p.bytes > maxReplayBytes || len(p.order) != 3 {
		t.Errorf("%d bytes of %d calls are held", p.bytes, len(p.order))
	}
}

// A body in another dialect on the chat path has no room for signatures either:
// the gateway keeps them.
func TestReplayOnTheChatPath(t *testing.T) {
	for _, stream := range []string{"false", "true"} {
		t.Run("stream="+stream, func(t *testing.T) {
			const call = `"tool_calls":[{"index":0,"id":"k1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}]`
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				if stream == "true" {
					answerStream(`data: {"id":"c","choices":[{"index":0,"delta":{`+call+`},"finish_reason":"tool_calls"}]}`+"\n\n", doneEvent)(w, r)
					return
				}
				answerJSON(200, `{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":null,`+call+`},"finish_reason":"tool_calls"}]}`)(w, r)
			})
			tools := `"tools":[{"name":"f","input_schema":{"type":"object"}}],"stream":` + stream
			g.chat(`{"model":"m","system":"s","messages":[{"role":"user","content":"go"}],` + tools + `}`)
			g.chat(`{"model":"m","system":"s","messages":[{"role":"user","content":"go"},{"role":"assistant","content":[{"type":"tool_use","id":"k1","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"k1","content":"1"}]}],` + tools + `}`)
			if got := g.last().Body; !strings.Contains(got, `"extra_content":{"google":{"thought_signature":"c2ln"}}`) {
				t.Errorf("the signature did not come back: %s", got)
			}
		})
	}
}

// B-54: a model that has never made a signature does not get one, whatever other
// models of the same upstream do.
func TestForeignSignature(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"model":"signing"`) {
			answerJSON(200, `{"choices":[{"message":{"tool_calls":[{"id":"k1","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}]},"finish_reason":"tool_calls"}]}`)(w, r)
			return
		}
		answerJSON(200, completion("ok"))(w, r)
	})
	const history = `{"contents":[{"role":"user","parts":[{"text":"hi"}]},{"role":"model","parts":[{"functionCall":{"name":"f","id":"i"},"thoughtSignature":"c2lnbmF0dXJl"}]},{"role":"user","parts":[{"functionResponse":{"name":"f","id":"i","response":{"output":"1"}}}]}]}`
	ask := func(model string) string {
		readAll(t, g.do("POST", "/v1beta/models/"+model+":generateContent", history))
		return g.last().Body
	}
	if got := ask("signing"); strings.Contains(got, "extra_content") {
		t.Errorf("before it has signed anything, the model gets %s", got)
	}
	if got := ask("signing"); !strings.Contains(got, `"thought_signature":"c2lnbmF0dXJl"`) {
		t.Errorf("once it has signed, the model gets %s", got)
	}
	if got := ask("other"); strings.Contains(got, "extra_content") {
		t.Errorf("another model gets %s", got)
	}
}
