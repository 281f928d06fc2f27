package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// respond sends a Responses request and returns the answer's body.
func (g *gateway) respond(body string, headers ...string) string {
	g.t.Helper()
	res := g.do("POST", "/v1/responses", body, headers...)
	got := readAll(g.t, res)
	if res.StatusCode != 200 {
		g.t.Fatalf("status %d %s after %s", res.StatusCode, got, body)
	}
	return got
}

// refused sends a request and wants an error of that status and code.
func (g *gateway) refused(method, path, body string, status int, code string, headers ...string) string {
	g.t.Helper()
	res := g.do(method, path, body, headers...)
	got := readAll(g.t, res)
	if e := member([]byte(got), "error"); res.StatusCode != status || text(member(e, "code")) != code || text(member(e, "message")) == "" {
		g.t.Errorf("%s %s %s: %d %s, want %d %s", method, path, body, res.StatusCode, got, status, code)
	}
	return got
}

func idOf(object string) string { return text(member([]byte(object), "id")) }

// after is a request that goes on from a response.
func after(id, input string) string {
	return `{"model":"m","previous_response_id":"` + id + `","input":` + input + `,"tools":[{"type":"function","name":"weather","parameters":` + weatherSchema + `}]}`
}

// AC-22: a chain with calls, whole and streamed, through two gateways that share
// a store. The upstream always sees the whole conversation.
func TestResponsesHTTPChain(t *testing.T) {
	onBothStores(t, func(t *testing.T, open func(storeLimits) *hookedStore) {
		for _, stream := range []bool{false, true} {
			store := open(testLimits)
			gateways := [2]*gateway{newGatewayOn(t, store, weatherUpstream), newGatewayOn(t, store, weatherUpstream)}
			s := speakerOf("responses")
			var said spoken
			want := ""
			for i, step := range []struct{ input, upstream string }{
				{userMsg("weather in Oslo"), "user:weather in Oslo"},
				{"cold", "assistant: call1=weather{\"city\":\"Oslo\"}\ntool:cold(call1)"},
				{userMsg("weather in Rome"), "assistant:it is cold\nuser:weather in Rome"},
				{"warm", "assistant: call5=weather{\"city\":\"Rome\"}\ntool:warm(call5)"},
				{userMsg("thanks"), "assistant:it is warm\nuser:thanks"},
			} {
				body := s.body(stream, step.input)
				if said.id != "" {
					input := step.input
					if len(said.calls) > 0 {
						input = s.result(said.calls[0], input)
					}
					body = strings.TrimSuffix(s.body(stream, input), "}") + `,"previous_response_id":"` + said.id + `"}`
				}
				g := gateways[i%2]
				said = g.sayBody(s, stream, body)
				var sent struct{ Messages []chatSeen }
				parse(t, g.last().Body, &sent)
				want = strings.TrimPrefix(want+"\n"+step.upstream, "\n")
				if got := brieflyAll(sent.Messages); got != want {
					t.Fatalf("stream %t, turn %d reads\n%s\nwant\n%s", stream, i, got, want)
				}
			}
			if said.text != "re: thanks" {
				t.Errorf("the last answer is %+v", said)
			}
		}
	})
}

// D-140: a response can be read, and gone on from, the moment its client is told
// that it is there, while the stream is still open.
func TestResponsesHTTPReadableAtOnce(t *testing.T) {
	release := make(chan struct{})
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if string(member(body, "stream")) == "true" {
			answerStream(textChunk("Hi"), finishChunk, doneEvent)(w, r)
			select {
			case <-release:
			case <-r.Context().Done():
			}
			return
		}
		talkUpstream(w, r)
	})
	defer close(release)
	res := g.do("POST", "/v1/responses", `{"model":"m","input":"hi","stream":true}`)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok || text(member([]byte(data), "type")) != "response.completed" {
			continue
		}
		object := string(member([]byte(data), "response"))
		if got := readAll(t, g.do("GET", "/v1/responses/"+idOf(object), "")); got != object {
			t.Errorf("the stored response is\n%s\nwant\n%s", got, object)
		}
		next := g.respond(after(idOf(object), `"thanks"`))
		if !strings.Contains(next, "re: thanks") {
			t.Errorf("the next response is %s", next)
		}
		return
	}
	t.Fatal("the stream has no response.completed")
}

// D-141, D-143, D-147: what is not there, or is not the key's, is unknown.
func TestResponsesHTTPUnknown(t *testing.T) {
	g := newGateway(t, talkUpstream)
	other := "Authorization: Bearer " + otherKey
	one := g.respond(`{"model":"m","input":"one"}`)
	two := g.respond(after(idOf(one), `"two"`))
	notKept := g.respond(`{"model":"m","input":"hi","store":false}`)
	if string(member([]byte(notKept), "store")) != "false" || string(member([]byte(one), "store")) != "true" {
		t.Errorf("store is %s and %s, want true and false", member([]byte(one), "store"), member([]byte(notKept), "store"))
	}
	unknown := func(id string, headers ...string) {
		t.Helper()
		g.refused("POST", "/v1/responses", after(id, `"x"`), 400, "previous_response_not_found", headers...)
		for _, path := range []string{"", "/input_items", "?stream=true"} {
			got := g.refused("GET", "/v1/responses/"+id+path, "", 404, "", headers...)
			if want := `{"error":{"message":"Response with id '` + id + `' not found.","type":"invalid_request_error","param":null,"code":null}}`; got != want {
				t.Errorf("D-145: %s, want %s", got, want)
			}
		}
		g.refused("DELETE", "/v1/responses/"+id, "", 404, "", headers...)
	}
	unknown("resp_x")
	unknown(idOf(notKept))
	unknown(idOf(two), other)
	sent := len(g.upstream.all())
	if got := readAll(t, g.do("DELETE", "/v1/responses/"+idOf(one), "")); got != `{"id":"`+idOf(one)+`","object":"response","deleted":true}` {
		t.Errorf("DELETE answers %s", got)
	}
	unknown(idOf(one))
	// One in the middle of a chain takes what follows along, which itself stays.
	g.refused("POST", "/v1/responses", after(idOf(two), `"x"`), 400, "previous_response_not_found")
	if got := readAll(t, g.do("GET", "/v1/responses/"+idOf(two), "")); got != two {
		t.Errorf("the second response is %s, want %s", got, two)
	}
	if n := len(g.upstream.all()); n != sent {
		t.Errorf("%d requests went upstream for what is not there", n-sent)
	}
}

// D-142: an incomplete response can be gone on from, a failed one can't.
func TestResponsesHTTPChainFromIncomplete(t *testing.T) {
	g := newGateway(t, answerJSON(200, strings.Replace(completion("Hal"), `"stop"`, `"length"`, 1)))
	one := g.respond(`{"model":"m","input":"hi"}`)
	if got := text(member([]byte(one), "status")); got != "incomplete" {
		t.Errorf("the status is %q, want incomplete", got)
	}
	g.respond(after(idOf(one), `"go on"`))
	if sent := g.last().Body; !strings.Contains(sent, userMsg("hi")+","+assistantMsg("Hal")+","+userMsg("go on")) {
		t.Errorf("the upstream got %s", sent)
	}
}

func TestResponsesHTTPChainFromFailed(t *testing.T) {
	g := newGateway(t, answerStream(textChunk("Hal"), `data: {"error":{"message":"out of memory","type":"server_error"}}`+"\n\n"))
	stream := readAll(t, g.do("POST", "/v1/responses", `{"model":"m","input":"hi","stream":true}`))
	failed := checkResponsesStream(t, []byte(stream))
	if failed.status != "failed" {
		t.Fatalf("the stream is %s", stream)
	}
	id := idOf(string(failed.object))
	g.refused("POST", "/v1/responses", after(id, `"x"`), 400, "previous_response_failed")
	if got := readAll(t, g.do("GET", "/v1/responses/"+id, "")); got != string(failed.object) {
		t.Errorf("the stored response is %s, want %s", got, failed.object)
	}
}

// D-2, D-130: a stored response as a stream, from any event on.
func TestResponsesHTTPRetrieveStream(t *testing.T) {
	g := newGateway(t, weatherUpstream)
	for _, stream := range []bool{false, true} {
		s := speakerOf("responses")
		said := g.say(s, stream, []string{userMsg("weather in Oslo")})
		path := "/v1/responses/" + said.id
		object := readAll(t, g.do("GET", path, ""))
		res := g.do("GET", path+"?stream=true", "")
		all := readAll(t, res)
		if read := checkResponsesStream(t, []byte(all)); string(read.object) != object || !isEventStream(res.Header) {
			t.Errorf("the replay ends with %s, want %s", read.object, object)
		}
		frames := strings.SplitAfter(all, "\n\n")
		for i := range frames[:len(frames)-2] {
			if got, want := readAll(t, g.do("GET", fmt.Sprintf("%s?stream=true&starting_after=%d", path, i), "")), strings.Join(frames[i+1:], ""); got != want {
				t.Fatalf("starting_after=%d gives\n%s\nwant\n%s", i, got, want)
			}
		}
	}
}

func TestResponsesHTTPInputItems(t *testing.T) {
	g := newGateway(t, talkUpstream)
	one := g.respond(`{"model":"m","input":[` + userMsg("a") + `,` + assistantMsg("b") + `,` + userMsg("c") + `]}`)
	page := func(query string) string {
		t.Helper()
		var p struct {
			Data    []struct{ ID, Role string }
			HasMore bool `json:"has_more"`
		}
		parse(t, readAll(t, g.do("GET", "/v1/responses/"+idOf(one)+"/input_items"+query, "")), &p)
		var list []string
		for _, it := range p.Data {
			if it.ID == "" {
				t.Errorf("an item of %s has no id", query)
			}
			list = append(list, it.Role)
		}
		return fmt.Sprint(list, p.HasMore)
	}
	for query, want := range map[string]string{
		"":                   "[user assistant user] false",
		"?limit=1&order=asc": "[user] true",
		"?limit=2":           "[user assistant] true",
	} {
		if got := page(query); got != want {
			t.Errorf("input_items%s is %s, want %s", query, got, want)
		}
	}
	// The pages after an item, one by one, give all of them.
	var first struct {
		LastID string `json:"last_id"`
	}
	parse(t, readAll(t, g.do("GET", "/v1/responses/"+idOf(one)+"/input_items?limit=2", "")), &first)
	if got := page("?limit=2&after=" + first.LastID); got != "[user] false" {
		t.Errorf("after %s comes %s", first.LastID, got)
	}
	// Only a turn's own input is its input.
	two := g.respond(after(idOf(one), `"d"`))
	got := readAll(t, g.do("GET", "/v1/responses/"+idOf(two)+"/input_items", ""))
	if !strings.Contains(got, `"text":"d"`) || strings.Contains(got, `"a"`) {
		t.Errorf("the second turn's input is %s", got)
	}
}

// D-60: an item that is only named counts as what was stored, reasoning with it.
func TestResponsesHTTPReferences(t *testing.T) {
	g := newGateway(t, messageAnswer(`{"role":"assistant","content":"b","reasoning_content":"hm"}`, "stop"))
	one := g.respond(`{"model":"m","input":"a"}`)
	refer := func(n string) string {
		return `{"type":"item_reference","id":` + at(t, one, "output."+n+".id") + `}`
	}
	body := `{"model":"m","input":[{"role":"user","content":"a"},` + refer("0") + `,` + refer("1") + `,{"role":"user","content":"c"}]}`
	g.respond(body)
	if got, want := g.sent("messages"), `[{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"hm"},{"role":"user","content":"c"}]`; got != want {
		t.Errorf("sent %s, want %s", got, want)
	}
	g.refused("POST", "/v1/responses", body, 400, "", "Authorization: Bearer "+otherKey)
}

// D-5, D-6.
func TestResponsesHTTPOtherRoutes(t *testing.T) {
	g := newGateway(t, talkUpstream)
	one := g.respond(`{"model":"m","input":"` + strings.Repeat("many words ", 50) + `"}`)
	g.refused("POST", "/v1/responses/"+idOf(one)+"/cancel", "{}", 400, "")
	sent := len(g.upstream.all())
	count := func(body string) int64 {
		t.Helper()
		res := g.do("POST", "/v1/responses/input_tokens", body)
		got := readAll(t, res)
		if res.StatusCode != 200 || text(member([]byte(got), "object")) != "response.input_tokens" {
			t.Fatalf("%d %s", res.StatusCode, got)
		}
		return intOf(member([]byte(got), "input_tokens"))
	}
	alone, chained := count(`{"model":"m","input":"two"}`), count(after(idOf(one), `"two"`))
	if alone < 1 || chained < alone+50 {
		t.Errorf("%d tokens alone and %d after a long turn", alone, chained)
	}
	if unnamed := count(`{"input":"two"}`); unnamed != alone {
		t.Errorf("D-6: %d tokens without a model, want %d", unnamed, alone)
	}
	if len(g.upstream.all()) != sent {
		t.Error("counting went upstream")
	}
}

// D-140: while the store is down, an answer comes all the same and says that it
// is not kept; what needs the store says so.
func TestResponsesHTTPWithoutStore(t *testing.T) {
	store := &namedStoreDown{Store: newMemoryStore(1<<24, testLimits)}
	g := newGatewayOn(t, store, talkUpstream)
	one := g.respond(`{"model":"m","input":"one"}`)
	store.down.Store(true)
	for _, stream := range []bool{false, true} {
		body := g.respond(fmt.Sprintf(`{"model":"m","input":"two","stream":%t}`, stream))
		if stream {
			body = string(checkResponsesStream(t, []byte(body)).object)
		}
		if string(member([]byte(body), "store")) != "false" || text(member([]byte(body), "status")) != "completed" {
			t.Errorf("the answer is %s", body)
		}
	}
	g.refused("POST", "/v1/responses", after(idOf(one), `"x"`), 503, "store_unavailable")
	g.refused("GET", "/v1/responses/"+idOf(one), "", 503, "store_unavailable")
	g.refused("DELETE", "/v1/responses/"+idOf(one), "", 503, "store_unavailable")
	store.down.Store(false)
	g.respond(after(idOf(one), `"x"`))
}

// namedStoreDown is a store whose named values can be made unreachable.
type namedStoreDown struct {
	Store
	down atomic.Bool
}

var errTestDown = errors.Join(errStoreDown, errors.New("the test made it so"))

func (s *namedStoreDown) Get(ctx context.Context, key string) ([]byte, error) {
	if s.down.Load() {
		return nil, errTestDown
	}
	return s.Store.Get(ctx, key)
}

func (s *namedStoreDown) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if s.down.Load() {
		return errTestDown
	}
	return s.Store.Set(ctx, key, value, ttl)
}

// D-140: what a turn costs to keep depends on the turn, not on the conversation.
func TestResponsesHTTPStoredPerTurn(t *testing.T) {
	store := &sizingStore{Store: newMemoryStore(1<<26, testLimits)}
	g := newGatewayOn(t, store, talkUpstream)
	id := idOf(g.respond(`{"model":"m","input":"` + strings.Repeat("x", 100_000) + `"}`))
	for range 5 {
		id = idOf(g.respond(after(id, `"next"`)))
		if store.last > 10_000 {
			t.Fatalf("a short turn took %d bytes", store.last)
		}
	}
	if !strings.Contains(g.last().Body, strings.Repeat("x", 100_000)) {
		t.Error("the upstream did not get the beginning")
	}
}

type sizingStore struct {
	Store
	last int
}

func (s *sizingStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	s.last = len(value)
	return s.Store.Set(ctx, key, value, ttl)
}

// A chain that knows less than the session takes nothing from it: a response that
// was asked for inside a session holds its own turn alone.
func TestResponsesHTTPChainKnowsLess(t *testing.T) {
	g, session := newGateway(t, answerJSON(200, completion("ok"))), "X-Session-Id: s"
	g.ok("/v1/chat/completions", plainRequest, session)
	id := text(member([]byte(g.ok(responsesPath, `{"model":"m","input":"two"}`, session)), "id"))
	g.ok(responsesPath, `{"model":"m","input":"three","previous_response_id":"`+id+`"}`, session)
	var kept []chatSeen
	parse(t, string(g.context(t, "s", "").Messages), &kept)
	if len(kept) != 6 || kept[2].briefly() != "user:two" || kept[4].briefly() != "user:three" {
		t.Errorf("the session has\n%s", brieflyAll(kept))
	}
}

// D-27: with both, the chain is the history and the session only records, also
// when it is told to continue.
func TestResponsesHTTPChainInSession(t *testing.T) {
	for _, mode := range []string{"", "auto", "continue", "record"} {
		for _, stream := range []bool{false, true} {
			g, s := newGateway(t, weatherUpstream), speakerOf("responses")
			headers := []string{"X-Session-Id: s"}
			if mode != "" {
				headers = append(headers, "X-Session-Mode: "+mode)
			}
			said := g.say(s, stream, []string{userMsg("weather in Oslo")}, headers...)
			body := strings.TrimSuffix(s.body(stream, s.result(said.calls[0], "cold")), "}") + `,"previous_response_id":"` + said.id + `"}`
			said = g.sayBody(s, stream, body, headers...)
			body = strings.TrimSuffix(s.body(stream, userMsg("thanks")), "}") + `,"previous_response_id":"` + said.id + `"}`
			g.sayBody(s, stream, body, headers...)
			var sent struct{ Messages []chatSeen }
			parse(t, g.last().Body, &sent)
			if len(sent.Messages) != 5 {
				t.Errorf("mode %q: the upstream got\n%s", mode, brieflyAll(sent.Messages))
			}
			var kept []chatSeen
			view := g.context(t, "s", "")
			parse(t, string(view.Messages), &kept)
			if len(kept) != 6 || kept[5].briefly() != "assistant:re: thanks" || len(view.Threads) != 0 {
				t.Errorf("mode %q: the session has %d more threads and\n%s", mode, len(view.Threads), brieflyAll(kept))
			}
		}
	}
	// Another conversation's chain is not mixed with what the session holds.
	g := newGateway(t, talkUpstream)
	g.chat(`{"model":"m","messages":[`+systemMsg("Be brief.")+`,`+userMsg("of the session")+`]}`, "X-Session-Id: s", "X-Session-Mode: continue")
	one := g.respond(`{"model":"m","input":"of the chain"}`)
	g.respond(after(idOf(one), `"more"`), "X-Session-Id: s", "X-Session-Mode: continue")
	if sent := g.last().Body; strings.Contains(sent, "of the session") || !strings.Contains(sent, "of the chain") {
		t.Errorf("the upstream got %s", sent)
	}
	if view := g.context(t, "s", ""); len(view.Threads) != 1 || !strings.Contains(string(view.Threads[0].Messages), "of the session") {
		t.Errorf("the session is %s, and has %d more threads", view.Messages, len(view.Threads))
	}
}
