package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestResponsesGrouping(t *testing.T) {
	const (
		call1  = `{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}`
		call2  = `{"type":"function_call","call_id":"c2","name":"g","arguments":"{}"}`
		out1   = `{"type":"function_call_output","call_id":"c1","output":"1"}`
		out2   = `{"type":"function_call_output","call_id":"c2","output":"2"}`
		wait   = `{"role":"assistant","content":"wait"}`
		userA  = `{"role":"user","content":"a"}`
		think  = `{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.aG0"}`
		think2 = `{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.ISE"}`

		made1 = `{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}`
		made2 = `{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}`
		tool1 = `{"role":"tool","tool_call_id":"c1","content":"1"}`
		tool2 = `{"role":"tool","tool_call_id":"c2","content":"2"}`
		none2 = `{"role":"tool","tool_call_id":"c2","content":"[no output]"}`
	)
	list := func(items ...string) string { return "[" + strings.Join(items, ",") + "]" }
	join := func(messages ...string) string { return strings.Join(messages, ",") }
	silent := func(calls ...string) string {
		return `{"role":"assistant","content":null,"tool_calls":[` + strings.Join(calls, ",") + `]}`
	}
	said := func(calls ...string) string {
		return `{"role":"assistant","content":"wait","tool_calls":[` + strings.Join(calls, ",") + `]}`
	}
	for _, tt := range []inputTest{
		{"D-64 H-35", list(`{"type":"reasoning","summary":[]}`, call1, wait, out1), join(said(made1), tool1), "", ""},
		{"parallel calls", list(userA, call1, call2, out1, out2), join(userA, silent(made1, made2), tool1, tool2), "", ""},
		{"outputs in item order", list(call1, call2, out2, out1), join(silent(made1, made2), tool2, tool1), "", ""},
		{"text between the outputs", list(call1, call2, out1, wait, out2), join(said(made1, made2), tool1, tool2), "", ""},
		{"call between the outputs", list(call1, out1, call2, out2), join(silent(made1), tool1, silent(made2), tool2), "", ""},
		{"text after the outputs", list(call1, out1, wait), join(silent(made1), tool1, `{"role":"assistant","content":"wait"}`), "", ""},
		{"text and call", list(wait, call1, out1), join(said(made1), tool1), "", ""},
		{"messages in a row", list(userA, wait, wait), join(userA, `{"role":"assistant","content":"waitwait"}`), "", ""},
		{"H-35 I-9 no output", list(call1, call2, out1, userA), join(silent(made1, made2), tool1, none2, userA), "", ""},
		{"I-9 no output before the assistant goes on", list(call1, call2, out1, wait, userA), join(silent(made1, made2), tool1, none2, `{"role":"assistant","content":"wait"}`, userA), "", ""},
		{"I-9 no output at the end", list(userA, call2), join(userA, silent(made2), none2), "", ""},
		{"an output behind the user's next word", list(call1, userA, out1), join(silent(made1), tool1, userA), "", ""},
		{"an output behind the user's next word, text before", list(call1, call2, out1, wait, userA, out2), join(silent(made1, made2), tool1, tool2, `{"role":"assistant","content":"wait"}`, userA), "", ""},
		{"a second output", list(call1, out1, userA, `{"type":"function_call_output","call_id":"c1","output":"3"}`), join(silent(made1), tool1, userA, `{"role":"tool","tool_call_id":"c1","content":"3"}`), "", ""},
		{"an output without a call", list(out1), tool1, "", ""},
		{"the same id in each turn", list(call1, out1, userA, call1, `{"type":"function_call_output","call_id":"c1","output":"3"}`),
			join(silent(made1), tool1, userA, silent(made1), `{"role":"tool","tool_call_id":"c1","content":"3"}`), "", ""},
		{"the same id, the first without output", list(call1, userA, call1, out1),
			join(silent(made1), `{"role":"tool","tool_call_id":"c1","content":"[no output]"}`, userA, silent(made1), tool1), "", ""},
		{"reasoning goes to the next message", list(userA, think, call1, out1), join(userA,
			`{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[`+made1+`]}`, tool1), "", ""},
		{"reasoning adds up", list(think, wait, think2, call1, out1),
			join(`{"role":"assistant","content":"wait","reasoning_content":"hm!!","tool_calls":[`+made1+`]}`, tool1), "", ""},
		{"details add up", list(`{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYSI6MX1d"}`, `{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYSI6Mn1d"}`, wait),
			`{"role":"assistant","content":"wait","reasoning_details":[{"a":1},{"a":2}]}`, "", ""},
		{"reasoning of nobody", list(think, userA), userA, "", ""},
		{"D-41", list(`{"role":"developer","content":"x"}`, `{"role":"system","content":[{"type":"input_text","text":"y"}]}`, userA), join(`{"role":"system","content":"x\n\ny"}`, userA), "", ""},
		{"D-52 image", list(call1, call2, `{"type":"function_call_output","call_id":"c1","output":[{"type":"input_image","image_url":"u"}]}`, `{"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"},{"type":"input_file","filename":"f","file_data":"AA=="}]}`),
			join(silent(made1, made2), `{"role":"tool","tool_call_id":"c1","content":"[image]"}`, tool2,
				`{"role":"user","content":[{"type":"text","text":"Attachment of tool call c1:"},{"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"Attachment of tool call c2:"},{"type":"file","file":{"filename":"f","file_data":"data:application/pdf;base64,AA=="}}]}`), "", ""},
	} {
		t.Run(tt.name, tt.run)
	}
}

func TestResponsesInstructionsFirst(t *testing.T) {
	got := upstreamBody(t, responsesExchange(nil), `{"model":"m","instructions":"i","input":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"system","content":"t"}]}`)
	want := `{"model":"m","messages":[{"role":"system","content":"i\n\ns"},{"role":"user","content":"a"},{"role":"system","content":"t"}]}`
	if got != want {
		t.Errorf("D-41\n = %s\nwant %s", got, want)
	}
}

// storedTurn is a stored turn of a conversation.
func storedTurn(id, previous, input, output string) storedResponse {
	var items []json.RawMessage
	for raw := range elements([]byte(input)) {
		items = append(items, raw)
	}
	return storedResponse{ID: id, Previous: previous, Status: "completed", Input: items, Object: []byte(`{"id":"` + id + `","status":"completed","output":` + output + `}`)}
}

// D-142, D-144: the chain comes before the input, and its reasoning goes back.
func TestResponsesChain(t *testing.T) {
	first := storedTurn("resp_1", "", `[{"role":"system","content":"s"},{"role":"user","content":"one"}]`,
		`[{"type":"reasoning","id":"rs_1","status":"completed","summary":[{"type":"summary_text","text":"hm"}]},{"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{}","status":"completed"}]`)
	first.Stamps = []reasoningStamp{{"rs_1", "apx1.c."}}
	x := responsesExchange(nil)
	x.responses.Chain = []storedResponse{first}
	got := upstreamBody(t, x, `{"model":"m","previous_response_id":"resp_1","instructions":"new","input":[{"type":"function_call_output","call_id":"c1","output":"1"}]}`)
	want := `{"model":"m","messages":[{"role":"system","content":"new\n\ns"},{"role":"user","content":"one"},` +
		`{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"1"}]}`
	if got != want {
		t.Errorf("D-142\n = %s\nwant %s", got, want)
	}

	x = responsesExchange(nil)
	x.responses.Chain = []storedResponse{storedTurn("resp_1", "", `[{"role":"user","content":"one"}]`, `[{"type":"message","id":"msg_1","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"tw","annotations":[]}]}]`)}
	got = upstreamBody(t, x, `{"model":"m","previous_response_id":"resp_1"}`)
	if want := `{"model":"m","messages":[{"role":"user","content":"one"},{"role":"assistant","content":"tw"}]}`; got != want {
		t.Errorf("D-12 without input\n = %s\nwant %s", got, want)
	}
	if x.responses.Chain != nil {
		t.Error("the chain is held on to after it was used")
	}
}

// H-10, G-5: a conversation that has grown is the old one with more at its end.
func TestResponsesPrefix(t *testing.T) {
	items := []string{
		`{"role":"developer","content":"d"}`, `{"role":"user","content":"a"}`,
		`{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.aG0"}`, `{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"b\":1,\"a\":2}"}`,
		`{"type":"function_call_output","call_id":"c1","output":"1"}`, `{"role":"assistant","content":"b"}`, `{"role":"user","content":"c"}`,
	}
	before := ""
	for _, n := range []int{2, 5, 7} {
		got := upstreamBody(t, responsesExchange(nil), `{"model":"m","input":[`+strings.Join(items[:n], ",")+`]}`)
		if !strings.HasPrefix(got, before) {
			t.Errorf("%d items give %s, which does not begin with %s", n, got, before)
		}
		before = strings.TrimSuffix(got, "]}")
	}
}
