package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// D-130: a replay is a stream like the first one, and ends with the same object.
func TestReplayEvents(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi","include":["reasoning.encrypted_content"],"tools":[{"type":"custom","name":"patch"},{"type":"shell"},{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"g"}]}]}`)
	live := checkResponsesStream(t, streamed(t, x, `{"choices":[{"index":0,"delta":{"reasoning_content":"r","content":"a","refusal":"no","tool_calls":[
		{"index":0,"id":"c1","function":{"name":"mcp__g","arguments":"{}"}},{"index":1,"id":"c2","function":{"name":"patch","arguments":"{\"input\":\"p\"}"}},{"index":2,"id":"c3","function":{"name":"shell","arguments":"{\"commands\":[]}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`))
	all := replayEvents(live.object, -1)
	replayed := checkResponsesStream(t, all)
	if !bytes.Equal(replayed.object, live.object) {
		t.Errorf("the replay ends with %s, want %s", replayed.object, live.object)
	}
	// The same events, but for calls, which a replay does not interleave.
	a, b := slices.Sorted(slices.Values(replayed.types)), slices.Sorted(slices.Values(live.types))
	if !slices.Equal(a, b) {
		t.Errorf("the replay has the events %q, the first stream had %q", replayed.types, live.types)
	}
	if replayed.text != "a" || replayed.refuse != "no" || replayed.think != "r" || !slices.Equal(replayed.calls, live.calls) {
		t.Errorf("the replay reads %+v", replayed)
	}
}

func TestReplayEventsAfter(t *testing.T) {
	object := []byte(answerOf(t, responsesExchange(nil), `{"model":"m","input":"hi"}`, `{"choices":[{"message":{"content":"Hi"},"finish_reason":"length"}]}`))
	all := string(replayEvents(object, -1))
	if read := checkResponsesStream(t, []byte(all)); read.status != "incomplete" {
		t.Errorf("the replay ends as %s, want incomplete", read.status)
	}
	frames := strings.SplitAfter(all, "\n\n")
	for after := range 9 {
		want := strings.Join(frames[after+1:], "")
		if got := string(replayEvents(object, int64(after))); got != want {
			t.Errorf("starting_after=%d gives\n%s\nwant\n%s", after, got, want)
		}
	}
}

func TestReplayRoute(t *testing.T) {
	object := []byte(answerOf(t, responsesExchange(nil), `{"model":"m","input":"hi"}`, `{"choices":[{"message":{"content":"Hi"}}]}`))
	s := responsesServer(storeWith(t, storedResponse{ID: "resp_1", Status: "completed", Object: object}))
	w := asked(t, s.handleGetResponse, "GET", "/?stream=true&starting_after=7", "resp_1")
	if got, want := w.Body.String(), string(replayEvents(object, 7)); w.Code != 200 || got != want || !strings.HasPrefix(got, "event: response.completed\n") {
		t.Errorf("%d %s, want 200 %s", w.Code, got, want)
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("0-7: %s: %q, want %q", name, got, want)
		}
	}
}
