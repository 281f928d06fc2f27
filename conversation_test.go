package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestParseConversation(t *testing.T) {
	for _, tt := range []struct {
		name, array string
		system      string // bytes of the leading system messages
		prompt      bool   // it names a thread
		roles       string // of the other messages
		managed     bool
	}{
		{"empty", `[]`, "", false, "", false},
		{"one", ` [ {"role":"user","content":"a"} ] `, "", false, "user", false},
		{"prompts", `[{"role":"system","content":"a"} , {"content":"b","role":"developer"},{"role":"user"}]`,
			`{"role":"system","content":"a"} , {"content":"b","role":"developer"}`, true, "user", false},
		{"a later prompt", `[{"role":"user"},{"role":"system","content":"a"}]`, "", false, "user system", false},
		{"managed", `[{"role":"user"},{"role":"assistant"},{"role":"tool"},{}]`, "", false, "user assistant tool ", true},
		{"an escaped role", `[{"role":"\u0061ssistant"}]`, "", false, "assistant", true},
		{"no text", `[{"role":"system","content":null}]`, `{"role":"system","content":null}`, true, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseConversation([]byte(tt.array))
			if err != nil {
				t.Fatal(err)
			}
			var roles []string
			for _, m := range c.list {
				roles = append(roles, m.role)
				if !bytes.HasPrefix([]byte(tt.array)[m.offset:], m.raw) {
					t.Errorf("%s is not at %d", m.raw, m.offset)
				}
			}
			if string(c.system) != tt.system || (c.systemID != "") != tt.prompt || strings.Join(roles, " ") != tt.roles || c.managed != tt.managed {
				t.Errorf("parseConversation(%s) = system %s, id %q, roles %q, managed %t; want %s, %t, %q, %t",
					tt.array, c.system, c.systemID, roles, c.managed, tt.system, tt.prompt, tt.roles, tt.managed)
			}
		})
	}
	for _, array := range []string{`["a"]`, `[{},1]`, `[null]`, `[[]]`} {
		if _, err := parseConversation([]byte(array)); err == nil {
			t.Errorf("parseConversation(%s): no error", array)
		}
	}
}

// Two prompts must not run into one another.
func TestSystemID(t *testing.T) {
	id := func(messages ...string) string {
		c, err := parseConversation([]byte(arrayOf(messages...)))
		if err != nil {
			t.Fatal(err)
		}
		return c.systemID
	}
	if id(systemMsg("ab")) == id(systemMsg("a"), systemMsg("b")) {
		t.Error("one prompt and its two halves name the same thread")
	}
	if id(systemMsg("ab")) != id(roleMsg("developer", "ab"), userMsg("x")) {
		t.Error("the same prompt by another role names another thread")
	}
}

// The copy must not share memory with the request's body, which is let go.
func TestConversationClone(t *testing.T) {
	body := []byte(arrayOf(systemMsg("p"), userMsg("one"), assistantMsg("two")))
	c, err := parseConversation(body)
	if err != nil {
		t.Fatal(err)
	}
	want := c.digest(1)
	d := c.clone()
	clear(body)
	if string(d.system) != systemMsg("p") || string(d.list[0].raw) != userMsg("one") || messageDigest(d.list[1].raw) != want {
		t.Errorf("the clone changed with the body: %s, %s", d.system, d.list[0].raw)
	}
}

func TestConversationTurns(t *testing.T) {
	for _, tt := range []struct{ messages, want string }{
		{"u", "u"},
		{"uau", "ua|u"},
		{"uuau", "uua|u"},
		{"uatau", "uata|u"},
		{"uattau", "uatta|u"},
		{"uaau", "uaa|u"},
		{"uasu", "ua|su"},
		{"au", "a|u"},
		{"uatua", "uatua"},
	} {
		roles := map[rune]string{'u': userMsg("x"), 'a': assistantMsg("x"), 't': toolMsg("i", "x"), 's': systemMsg("x")}
		letters := map[string]string{}
		var messages []string
		for _, r := range tt.messages {
			messages = append(messages, roles[r])
			letters[roles[r]] = string(r)
		}
		c, err := parseConversation([]byte(arrayOf(messages...)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, turn := range c.turns() {
			letter := ""
			for m := range elements([]byte("[" + string(turn.raw) + "]")) {
				letter += letters[string(m)]
			}
			if len(turn.digests) != len(letter) {
				t.Errorf("%s: %d digests for %s", tt.messages, len(turn.digests), letter)
			}
			got = append(got, letter)
		}
		if strings.Join(got, "|") != tt.want {
			t.Errorf("turns of %s: %s, want %s", tt.messages, strings.Join(got, "|"), tt.want)
		}
	}
}

func TestMessageDigest(t *testing.T) {
	same := [][]string{
		{`{"role":"user","content":"a"}`, `{"content":"a","role":"user","name":null}`, `{"role":"user","content":[{"type":"text","text":"a"}]}`,
			`{"role":"user","content":" a\n"}`, `{"role":"\u0075ser","content":"\u0061"}`, `{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}`},
		{`{"role":"assistant","content":"a"}`, `{"role":"assistant","content":"a","refusal":null,"parsed":{"x":1},"tool_calls":[],"annotations":[]}`},
		{`{"role":"assistant","content":"b"}`},
		{`{"role":"assistant"}`, `{"role":"assistant","content":null}`, `{"role":"assistant","content":""}`, `{"role":"assistant","content":[]}`},
		{`{"role":"tool","tool_call_id":"1","content":"a"}`},
		{`{"role":"tool","tool_call_id":"2","content":"a"}`},
		{`{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}`,
			`{"role":"assistant","content":null,"tool_calls":[{"function":{"arguments":"{}","name":"f"},"index":0,"id":"1"}]}`},
		{`{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"g","arguments":"{}"}}]}`},
		{`{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"2","type":"function","function":{"name":"f","arguments":"{}"}}]}`},
		{`{"role":"assistant","function_call":{"name":"f","arguments":"{}"}}`, `{"role":"assistant","content":null,"function_call":{"arguments":"{}","name":"f"}}`},
		{`{"role":"assistant","function_call":{"name":"f","arguments":"{1}"}}`},
		{`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,x/y","detail":"low"}}]}`,
			`{"role":"user","content":[{"type":"text","text":"a"}, {"image_url":{"detail":"low","url":"data:,x\/y"}, "type":"image_url"}]}`,
			`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,x/y","detail":"low","x":null},"text":null}]}`},
		{`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,x/y","detail":"high"}}]}`},
		{`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,x/z","detail":"low"}}]}`},
		{`{"role":"user","content":"😀"}`, `{"role":"user","content":"\ud83d\ude00"}`},
		{`{"role":"user","content":"\ud83d"}`, `{"role":"user","content":"�"}`},
	}
	seen := map[string]string{}
	for _, group := range same {
		first := messageDigest([]byte(group[0]))
		for _, m := range group[1:] {
			if got := messageDigest([]byte(m)); got != first {
				t.Errorf("digests differ:\n%s\n%s", group[0], m)
			}
		}
		if other, ok := seen[first]; ok {
			t.Errorf("the same digest:\n%s\n%s", group[0], other)
		}
		seen[first] = group[0]
	}
}

// Whatever an upstream's stream holds, reading it comes to an end.
func TestAppendTextBroken(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{`"a\"`, "a"},
		{`"a\u12"`, "a12"},
		{`"a\uzzzzb"`, "azzzzb"},
		{`"\ud83d\u12"`, "\ufffd12"},
		{`"\ud83dx"`, "\ufffdx"},
		{`"\ude00\ud83d"`, "\ufffd\ufffd"},
		{`"\b\f\n\r\t\/\\\""`, "\b\f\n\r\t/\\\""},
		{`1`, ""},
		{``, ""},
	} {
		if got := string(appendText(nil, []byte(tt.in))); got != tt.want {
			t.Errorf("appendText(%s) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// FuzzSpliceMessages: history put into any messages array leaves valid JSON, in
// which the messages are the leading system ones, the history and the rest, and
// no other byte has changed.
func FuzzSpliceMessages(f *testing.F) {
	f.Add(` [ {"role":"user","content":"a"} ] `, `[{"role":"user"},{"role":"assistant","content":"x"}]`, `[]`, ``)
	f.Add(`[{"role":"system"}]`, arrayOf(userMsg("a"), callsMsg("x", "y")), arrayOf(toolMsg("y", "1"), assistantMsg("b")), systemMsg("p"))
	f.Add(`[{"role":"tool","tool_call_id":"x"},{"role":"tool"}, {"role":"user"}]`, arrayOf(toolMsg("z", "1"), callsMsg("x")), arrayOf(userMsg("a"), callsMsg("x", "x")), ``)
	f.Add(`[]`, arrayOf(assistantMsg("a")), arrayOf(roleMsg("tool", "t")), systemMsg("p")+","+systemMsg("q"))
	f.Fuzz(func(t *testing.T, messages, first, second, prompt string) {
		for _, list := range []string{messages, first, second, "[" + prompt + "]"} {
			if checkJSON([]byte(list)) != nil || strings.TrimLeft(list, " \t\r\n")[0] != '[' {
				return
			}
			for m := range elements([]byte(list)) {
				if !isObject(m) {
					return
				}
			}
		}
		const before, after = `{"a":1, "messages": `, ` ,"z":{"messages":[]}}`
		messages = strings.Trim(messages, " \t\r\n")
		body := []byte(before + messages + after)
		c, err := parseConversation([]byte(messages))
		if err != nil {
			t.Fatal(err)
		}
		h := &history{conversation: c}
		if c.systemID == "" {
			h.system = []byte(prompt)
		}
		recorded := messagesOf("[" + string(h.system) + "]")
		for _, raw := range []string{first, second} {
			var m turnMessages
			for one := range elements([]byte(raw)) {
				m.add(one, "")
				recorded = append(recorded, string(one))
			}
			h.turns = append(h.turns, newTurn(m, false))
		}
		edits, n := h.edits(len(before))
		p := splice(body, edits...)
		got := p.bytes()
		if err := checkJSON(got); err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		out, sent := messagesOf(string(member(got, "messages"))), messagesOf(messages)
		lead := len(sent) - len(c.list)
		if len(out) != len(sent)+n {
			t.Fatalf("%d messages, want %d and %d: %s", len(out), len(sent), n, got)
		}
		put := out[lead : lead+n]
		if rest := slices.Delete(slices.Clone(out), lead, lead+n); !slices.Equal(rest, sent) {
			t.Errorf("the request's own messages are %q, want %q", rest, sent)
		}
		if n > 0 {
			at := edits[0].at.start
			if edits[0].at.end != at || string(got[:at]) != string(body[:at]) || string(got[len(got)-(len(body)-at):]) != string(body[at:]) {
				t.Errorf("bytes around the history have changed:\n%s\n%s", body, got)
			}
		} else if !bytes.Equal(got, body) {
			t.Errorf("no history, but %s became %s", body, got)
		}
		if !slices.Equal(withoutTools(put), withoutTools(recorded)) {
			t.Errorf("history is %q, want all of %q but tool messages", put, recorded)
		}
		checkToolOrder(t, put, sent[lead:])
	})
}

func messagesOf(array string) []string {
	all := []string{}
	for m := range elements([]byte(array)) {
		all = append(all, string(m))
	}
	return all
}

func withoutTools(messages []string) []string {
	return slices.DeleteFunc(slices.Clone(messages), func(m string) bool { return roleOf([]byte(m)) == "tool" })
}

// checkToolOrder checks that in the history each call is followed by its answer,
// the last ones maybe by those in the request, and that no answer stands alone.
func checkToolOrder(t *testing.T, history, request []string) {
	t.Helper()
	var open int
	for i, m := range history {
		if roleOf([]byte(m)) == "tool" {
			if open--; open < 0 {
				t.Fatalf("message %d answers no call: %q", i, history)
			}
			continue
		}
		if open > 0 {
			t.Fatalf("message %d follows calls without an answer: %q", i, history)
		}
		if roleOf([]byte(m)) == "assistant" {
			open = len(messagesOf(string(member([]byte(m), "tool_calls"))))
		}
	}
	for _, m := range request {
		if roleOf([]byte(m)) != "tool" {
			break
		}
		open--
	}
	if open > 0 {
		t.Fatalf("%d calls have no answer: %q, then %q", open, history, request)
	}
}

// FuzzMessageDigest: a message that is decoded and encoded again has the same
// digest, and one that says something else has another.
func FuzzMessageDigest(f *testing.F) {
	f.Add("user", "hi <b> \n é", "", "f", `{"a": 1}`, `{"type":"image_url","image_url":{"url":"data:,x","detail":null}}`)
	f.Add("assistant", "", "call_1", "g", `{}`, `{"type":"text","text":"\ud83d\u00e9"}`)
	f.Add("tool", " x ", "c", "", ``, `[1.0,{"b":[],"a":-0}]`)
	f.Fuzz(func(t *testing.T, role, content, id, name, args, part string) {
		if !sameInEncodingJSON([]byte(part), partDepth) {
			return
		}
		call := map[string]any{"id": id, "type": "function", "function": map[string]any{"name": name, "arguments": args}}
		m := map[string]any{"role": role, "tool_call_id": id, "tool_calls": []any{call}, "content": content}
		want := digestVia(t, m, json.Marshal)
		m["parsed"], m["refusal"], m["audio"] = map[string]any{"a": content}, nil, nil
		if got := digestVia(t, m, indented); got != want {
			t.Errorf("indented and with more fields, %q has another digest", content)
		}
		m["content"] = []any{map[string]any{"type": "text", "text": content}}
		if got := digestVia(t, m, marshal); got != want {
			t.Errorf("as a part, %q has another digest", content)
		}
		m["content"] = content + "x"
		if got := digestVia(t, m, json.Marshal); got == want {
			t.Errorf("%q and %q have the same digest", content, content+"x")
		}

		raw := []byte(`{"role":"user","content":[` + part + `]}`)
		if got := digestVia(t, decode(t, raw), indented); got != messageDigest(raw) {
			t.Errorf("%s has another digest once decoded and encoded", raw)
		}
	})
}

func digestVia(t *testing.T, v any, encode func(any) ([]byte, error)) string {
	t.Helper()
	b, err := encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return messageDigest(b)
}

func indented(v any) ([]byte, error) { return json.MarshalIndent(v, " ", "\t") }

func decode(t *testing.T, raw []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// sameInEncodingJSON says whether a part is valid and keeps its meaning when it
// is decoded and encoded: without repeated or escaped keys, and no deeper than
// parts are looked into.
func sameInEncodingJSON(v []byte, depth int) bool {
	if checkJSON(v) != nil || depth < 0 {
		return false
	}
	v = bytes.TrimSpace(v)
	keys := map[string]bool{}
	for k, m := range members(v) {
		if keys[string(k)] || bytes.IndexByte(k, '\\') >= 0 || !sameInEncodingJSON(m, depth-1) {
			return false
		}
		keys[string(k)] = true
	}
	for e := range elements(v) {
		if !sameInEncodingJSON(e, depth-1) {
			return false
		}
	}
	return true
}
