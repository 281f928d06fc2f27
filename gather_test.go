package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// assembled chunks, given as the members of their only choice.
func assembleChoices(choices ...string) string {
	var a assembler
	for _, c := range choices {
		a.add([]byte(`{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":[{` + c + `}]}`))
	}
	return string(a.completion())
}

// wantJSON compares two JSON texts by what they mean.
func wantJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Errorf("not JSON: %v\n%s", err, got)
		return
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("the test's own JSON: %v\n%s", err, want)
	}
	if !reflect.DeepEqual(g, w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestAssembleMessage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		deltas []string
		want   string // the message
	}{
		{"text", []string{`{"role":"assistant","content":""}`, `{"content":"Hel"}`, `{"content":"lo"}`, `{}`},
			`{"role":"assistant","content":"Hello"}`},
		{"nothing at all", []string{`{"role":"assistant"}`, `null`, `{"content":null}`}, `{"role":"assistant","content":null}`},
		{"reasoning in both spellings", []string{`{"reasoning_content":"a","reasoning":"a"}`, `{"reasoning_content":"b","reasoning":"b"}`, `{"content":"c"}`},
			`{"role":"assistant","reasoning_content":"ab","reasoning":"ab","content":"c"}`},
		{"reasoning details", []string{`{"reasoning_details":[{"text":"a"}]}`, `{"reasoning_details":[]}`, `{"reasoning_details":[{"text":"b"}]}`},
			`{"role":"assistant","content":null,"reasoning_details":[{"text":"a"},{"text":"b"}]}`},
		{"refusal", []string{`{"refusal":"I "}`, `{"refusal":"won't"}`}, `{"role":"assistant","content":null,"refusal":"I won't"}`},
		{"content in parts", []string{`{"content":[{"type":"text","text":"a"}]}`, `{"content":[{"type":"thinking","thinking":[]}]}`},
			`{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"thinking","thinking":[]}]}`},
		{"text and then parts", []string{`{"content":"a"}`, `{"content":[{"type":"image"}]}`, `{"content":"b"}`},
			`{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"image"},{"type":"text","text":"b"}]}`},
		{"a surrogate pair in two chunks", []string{`{"content":"a\ud83d"}`, `{"content":"\ude00b"}`}, `{"role":"assistant","content":"a😀b"}`},
		{"escapes", []string{`{"content":"\u00e9\/\"\\"}`, `{"content":"n"}`}, `{"role":"assistant","content":"é/\"\\n"}`},
		{"annotations", []string{`{"annotations":[{"url":"a"}]}`, `{"annotations":[{"url":"b"}]}`},
			`{"role":"assistant","content":null,"annotations":[{"url":"a"},{"url":"b"}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var choices []string
			for _, d := range tt.deltas {
				choices = append(choices, `"index":0,"delta":`+d)
			}
			got := assembleChoices(append(choices, `"index":0,"delta":{},"finish_reason":"stop"`)...)
			wantJSON(t, got, `{"object":"chat.completion","id":"c1","created":7,"model":"m","choices":[{"index":0,"message":`+tt.want+`,"logprobs":null,"finish_reason":"stop"}]}`)
		})
	}
}

// Calls are written as id:name(arguments).
func TestAssembleCalls(t *testing.T) {
	for _, tt := range []struct {
		name   string
		deltas []string // of tool_calls
		want   string
	}{
		{"one in pieces", []string{
			`{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":""}}`,
			`{"index":0,"function":{"arguments":"{\"x\""}}`, `{"index":0,"function":{"arguments":":1}"}}`}, `a:f({"x":1})`},
		{"whole in one chunk", []string{`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`}, `a:f({})`},
		{"two, interleaved", []string{
			`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}},{"index":1,"id":"b","function":{"name":"g","arguments":"["}}`,
			`{"index":1,"function":{"arguments":"]"}}`, `{"index":0,"function":{"arguments":"}"}}`}, `a:f({}) b:g([])`},
		{"no index, a new id each (E-1)", []string{
			`{"id":"a","function":{"name":"f","arguments":"{"}}`, `{"function":{"arguments":"}"}}`, `{"id":"b","function":{"name":"f","arguments":"{}"}}`}, `a:f({}) b:f({})`},
		{"no index and no id, a name after whole arguments (E-1)", []string{
			`{"function":{"name":"f","arguments":"{}"}}`, `{"function":{"name":"f","arguments":"{\"n\":2}"}}`}, `:f({}) :f({"n":2})`},
		{"no index, no id, name repeated while arguments come (E-1, E-3)", []string{
			`{"function":{"name":"f","arguments":"{\"a\":"}}`, `{"function":{"name":"f","arguments":"1}"}}`}, `:f({"a":1})`},
		{"no index, several in one delta (E-1)", []string{
			`{"function":{"name":"f","arguments":"{}"}},{"function":{"name":"f","arguments":"{}"}}`}, `:f({}) :f({})`},
		{"index always 0, new ids (E-2)", []string{
			`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`, `{"index":0,"id":"b","function":{"name":"f","arguments":"{"}}`,
			`{"index":0,"function":{"arguments":"}"}}`}, `a:f({}) b:f({})`},
		{"index always 0, a new name without id", []string{
			`{"index":0,"function":{"name":"f","arguments":"{}"}}`, `{"index":0,"function":{"name":"g","arguments":"{}"}}`}, `:f({}) :g({})`},
		{"id and name repeated in each fragment (E-3)", []string{
			`{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}`, `{"index":0,"id":"a","function":{"name":"f","arguments":"}"}}`}, `a:f({})`},
		{"the same id at two indices", []string{
			`{"index":0,"id":"f","function":{"name":"f","arguments":"{}"}}`, `{"index":1,"id":"f","function":{"name":"f","arguments":"{}"}}`}, `f:f({}) f:f({})`},
		{"an id that comes later (E-4)", []string{
			`{"index":0,"id":"","function":{"name":"f","arguments":"{"}}`, `{"index":0,"id":"a","function":{"arguments":"}"}}`}, `a:f({})`},
		{"null for what is absent (E-4)", []string{
			`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`, `{"index":0,"id":null,"type":null,"function":{"name":null,"arguments":null}}`}, `a:f({})`},
		{"indices with gaps (E-5)", []string{
			`{"index":3,"id":"a","function":{"name":"f","arguments":"{"}}`, `{"index":7,"id":"b","function":{"name":"g","arguments":"{}"}}`, `{"index":3,"function":{"arguments":"}"}}`}, `a:f({}) b:g({})`},
		{"arguments as an object", []string{`{"index":0,"id":"a","function":{"name":"f","arguments":{"x":"\n"}}}`}, `a:f({"x":"\n"})`},
		{"no arguments", []string{`{"index":0,"id":"a","function":{"name":"f"}}`}, `a:f()`},
		{"a surrogate pair in two fragments", []string{
			`{"index":0,"id":"a","function":{"name":"f","arguments":"\"\ud83d"}}`, `{"index":0,"function":{"arguments":"\ude00\""}}`}, `a:f("😀")`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var choices []string
			for _, d := range tt.deltas {
				choices = append(choices, `"index":0,"delta":{"tool_calls":[`+d+`]}`)
			}
			var got []string
			for call := range elements(member(messageOf(assembleChoices(choices...), 0), "tool_calls")) {
				f := member(call, "function")
				got = append(got, fmt.Sprintf("%s:%s(%s)", text(member(call, "id")), text(member(f, "name")), text(member(f, "arguments"))))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("assembled %s, want %s", s, tt.want)
			}
		})
	}
}

// messageOf is the message of the n-th choice of a completion.
func messageOf(completion string, n int) []byte {
	for c := range elements(member([]byte(completion), "choices")) {
		if n == 0 {
			return member(c, "message")
		}
		n--
	}
	return nil
}

func TestAssembleOtherCalls(t *testing.T) {
	wantJSON(t, string(messageOf(assembleChoices(
		`"delta":{"tool_calls":[{"index":0,"id":"a","type":"custom","custom":{"name":"patch","input":"*** Beg"}}]}`,
		`"delta":{"tool_calls":[{"index":0,"custom":{"input":"in\n"}}]}`,
	), 0)), `{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"custom","custom":{"name":"patch","input":"*** Begin\n"}}]}`)
	wantJSON(t, string(messageOf(assembleChoices(
		`"delta":{"function_call":{"name":"f","arguments":""}}`, `"delta":{"function_call":{"arguments":"{}"}}`,
	), 0)), `{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}}`)
	wantJSON(t, string(messageOf(assembleChoices(
		`"delta":{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s"}}}]}`,
	), 0)), `{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"s"}}}]}`)
}

func TestAssembleTop(t *testing.T) {
	var a assembler
	for _, c := range []string{
		`{"id":"","model":"","object":"","choices":[],"prompt_filter_results":[{"x":1}]}`,
		`{"id":"c","created":5,"model":"m","system_fingerprint":null,"choices":[{"index":1,"delta":{"content":"B"},"logprobs":{"content":[{"t":1}]}}],"usage":null}`,
		`{"id":"c","choices":[{"index":0,"delta":{"content":"A"},"stop_reason":null,"content_filter_results":{"a":1}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`,
		`{"id":"c","choices":[{"index":1,"delta":{"content":"b"},"logprobs":{"content":[{"t":2}],"refusal":null},"finish_reason":"length"}]}`,
		`not JSON`, `{"choices":[{"index":0,"delta":{"content":"cut`,
		`{"id":"c","service_tier":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`{"id":"c","choices":null}`, `{"id":"c","choices":[{"index":0,"finish_reason":"late"}]}`,
		`{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, `{"id":"c","usage":{}}`,
	} {
		a.add([]byte(c))
	}
	wantJSON(t, string(a.completion()), `{"object":"chat.completion","id":"c","created":5,"model":"m","service_tier":"x","prompt_filter_results":[{"x":1}],
		"choices":[{"index":0,"message":{"role":"assistant","content":"A"},"logprobs":null,"content_filter_results":{"a":1},"finish_reason":"stop"},
			{"index":1,"message":{"role":"assistant","content":"Bb"},"logprobs":{"content":[{"t":1},{"t":2}]},"finish_reason":"length"}],
		"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
}

func TestAssembleKeepsTexts(t *testing.T) {
	got := assembleChoices(`"delta":{"content":"\u00e9\ud800 \/"}`, `"delta":{"x":1e2}`, `"finish_reason":"stop"`)
	for _, want := range []string{`"content":"\u00e9\ud800 \/"`, `"x":1e2`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s has not %s as it was written", got, want)
		}
	}
}

func TestSplitCompletion(t *testing.T) {
	const top = `"object":"chat.completion.chunk","id":"c","created":1,"model":"m"`
	for _, tt := range []struct {
		name, in string
		usage    bool
		want     []string // the events' data
	}{
		{"text", `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}`, false, []string{
			`{` + top + `,"choices":[{"index":0,"delta":{"role":"assistant","content":"hi"},"logprobs":null,"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`}},
		{"usage asked for", `{"id":"c","created":1,"model":"m","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":1}}`, true, []string{
			`{` + top + `,"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}`,
			`{` + top + `,"choices":[],"usage":{"prompt_tokens":1}}`}},
		{"usage asked for and not there", `{"id":"c","created":1,"model":"m","choices":[]}`, true, nil},
		{"two choices, calls, log probabilities", "{\"id\":\"c\",\"created\":1,\r\n\"model\":\"m\",\"choices\":[\n" +
			`{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[ {"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"index":9,"id":"b"},{} ]},"logprobs":{"content":[
 ]},"finish_reason":"tool_calls"},
			 {"index":1,"message":{"content":"x"},"finish_reason":"stop"}]}`, false, []string{
			`{` + top + `,"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"index":1,"id":"b"},{"index":2}]},"logprobs":{"content":[]},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
			`{` + top + `,"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}`}},
		{"what upstreams leave out", `{"id":"c","created":1,"model":"m","choices":[{"message":{"content":"x"}},{"message":{"tool_calls":[{"id":"a"}]},"finish_reason":null},{}]}`, false, []string{
			`{` + top + `,"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
			`{` + top + `,"choices":[{"index":1,"delta":{"tool_calls":[{"index":0,"id":"a"}]},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":1,"delta":{},"finish_reason":"tool_calls"}]}`,
			`{` + top + `,"choices":[{"index":2,"delta":{},"finish_reason":null}]}`,
			`{` + top + `,"choices":[{"index":2,"delta":{},"finish_reason":"stop"}]}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stream := string(splitCompletion([]byte(tt.in), tt.usage))
			got := eventsOf(stream)
			if len(got) != len(tt.want)+1 || got[len(got)-1] != "|[DONE]" || !strings.HasSuffix(stream, "\n\ndata: [DONE]\n\n") && tt.want != nil {
				t.Fatalf("split into %q", stream)
			}
			for i, want := range tt.want {
				wantJSON(t, got[i][1:], want)
			}
		})
	}
}

func TestRecordable(t *testing.T) {
	for in, want := range map[string]string{
		`{"role":"assistant","content":"a","refusal":null,"annotations":[],"reasoning_content":"r"}`: `{"role":"assistant","content":"a"}`,
		`{"content":null,"tool_calls":[{"id":"a"}],"reasoning_content":"r"}`:                         `{"role":"assistant","content":null,"tool_calls":[{"id":"a"}],"reasoning_content":"r"}`,
		`{"content":null,"refusal":"no"}`:                                                            `{"role":"assistant","content":"","refusal":"no"}`,
		`{"content":"","x":{"y":1.0}}`:                                                               `{"role":"assistant","content":"","x":{"y":1.0}}`,
	} {
		if got := string(recordable([]byte(in))); got != want {
			t.Errorf("%s is recorded as %s, want %s", in, got, want)
		}
	}
}

// Whatever the chunks hold, the completion is JSON.
func FuzzAssembler(f *testing.F) {
	f.Add(textChunk("a") + finishChunk)
	f.Add(`{"choices":[{"delta":{"content":"a\ud83d"}}]}` + "\n" + `{"choices":[{"delta":{"content":[1]}}]}` + "\n" + `{"choices":[{"delta":{"content":"b"}}]}`)
	f.Add(`{"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}},{"index":0,"function":{"arguments":{"a":1}}},{}]}}],"a":{},"a":[]}`)
	f.Add(`{"choices":[{"index":1e99,"logprobs":{"c":[1],"c":"x"},"delta":{"function_call":{"name":"f"},"x":1,"x":[2]}}],"usage":{"a":1}}`)
	f.Add(`[{"choices":1}]` + "\n" + `{"choices":[1,[],"a"]}` + "\n" + `{`)
	f.Fuzz(func(t *testing.T, lines string) {
		var a assembler
		for line := range strings.SplitSeq(lines, "\n") {
			line = strings.TrimPrefix(line, "data: ")
			if got := a.add([]byte(line)); got != (checkJSON([]byte(line)) == nil) {
				t.Fatalf("add(%q) = %v", line, got)
			}
		}
		if got := a.completion(); checkJSON(got) != nil {
			t.Fatalf("%q amounts to %q: %v", lines, got, checkJSON(got))
		}
		for _, c := range a.choices {
			c.dropUnfinishedCalls()
			if got := recordable(c.appendMessage(nil)); checkJSON(got) != nil {
				t.Fatalf("%q is recorded as %q", lines, got)
			}
		}
	})
}

var lineBreak = regexp.MustCompile(`[\r\n]`)

// A completion that is split and gathered again says the same. The seeds are
// completions as upstreams write them; of others only the form is looked at.
func FuzzSplitCompletion(f *testing.F) {
	f.Add([]byte(completion("a\n\"b\" 😀")))
	f.Add([]byte(`{"choices":[{"index":0,"message":{"role":"assistant","content":"\ud800","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},"logprobs":{"content":[{"x":1}]},"finish_reason":"tool_calls"},{"index":1,"message":{"content":null},"finish_reason":"stop"}]}`))
	f.Add([]byte("{\"choices\":[\r\n{\"message\":{\"content\":[{\"type\":\"text\"}],\n\"tool_calls\":[{},1,\n{\"index\":3}]},\"x\":[\r\n]},1,[]],\"usage\":{}}"))
	f.Fuzz(func(t *testing.T, whole []byte) {
		if checkJSON(whole) != nil || !isObject(bytes.TrimSpace(whole)) {
			return
		}
		stream := splitCompletion(whole, true)
		var a assembler
		for _, e := range eventsOf(string(stream)) {
			data := strings.TrimPrefix(e, "|")
			if data == "[DONE]" {
				continue
			}
			if lineBreak.MatchString(data) || !a.add([]byte(data)) {
				t.Fatalf("%q is split into %q", whole, stream)
			}
		}
		var want struct {
			Choices []struct {
				Index   *int64
				Message struct {
					Content   *string
					ToolCalls []struct {
						ID       string
						Function struct{ Name, Arguments string }
					} `json:"tool_calls"`
				}
				Finish *string `json:"finish_reason"`
			}
		}
		got := want
		if json.Unmarshal(whole, &want) != nil || json.Unmarshal(a.completion(), &got) != nil || !wellFormed(whole) {
			return
		}
		for i := range want.Choices {
			if m := &want.Choices[i].Message; len(m.ToolCalls) == 0 {
				m.ToolCalls = nil // an empty list is none
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\nis split into\n%s\nand gathered again\n%s", whole, stream, a.completion())
		}
	})
}

// wellFormed says whether a completion has what OpenAI's have: each choice its
// own index in order, each call an id of its own and a name.
func wellFormed(completion []byte) bool {
	seen := map[string]bool{}
	unique := func(key string) bool {
		ok := !seen[key]
		seen[key] = true
		return ok
	}
	for k := range members(completion) {
		if !unique(strings.ToLower(unquote(k))) {
			return false
		}
	}
	n := int64(0)
	for c := range elements(member(completion, "choices")) {
		message := member(c, "message")
		if v := member(c, "index"); string(v) != fmt.Sprint(n) || !isString(member(c, "finish_reason")) || !isObject(message) {
			return false
		}
		for _, obj := range [][]byte{c, message} {
			for k := range members(obj) {
				if !unique(fmt.Sprintf("%d %d %s", n, len(obj), strings.ToLower(unquote(k)))) {
					return false
				}
			}
		}
		for call := range elements(member(message, "tool_calls")) {
			f := member(call, "function")
			if text(member(call, "id")) == "" || !unique("id"+text(member(call, "id"))) || text(member(f, "name")) == "" || !isString(member(f, "arguments")) {
				return false
			}
			for _, obj := range [][]byte{call, f} {
				keys := map[string]bool{}
				for k := range members(obj) {
					k := strings.ToLower(unquote(k))
					if keys[k] {
						return false
					}
					keys[k] = true
				}
			}
		}
		n++
	}
	return n > 0
}
