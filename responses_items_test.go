package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// inputTest is a request's input and the messages that it becomes.
type inputTest struct {
	name, input, want string // want: the messages, without brackets
	quirk, dropped    string
}

func (tt inputTest) run(t *testing.T) {
	t.Helper()
	x := responsesExchange(nil, tt.quirk)
	got := upstreamBody(t, x, `{"model":"m","input":`+tt.input+`}`)
	if want := `{"model":"m","messages":[` + tt.want + `]}`; got != want {
		t.Errorf("input %s\n = %s\nwant %s", tt.input, got, want)
	}
	if got := strings.Join(x.dropped, ","); got != tt.dropped {
		t.Errorf("dropped %q, want %q", got, tt.dropped)
	}
}

func quoted(s string) string { return string(appendQuoted(nil, s)) }

func TestResponsesItems(t *testing.T) {
	// A call that is followed by its result, so that the rule at hand is all there is.
	result := func(item, id string) string {
		return "[" + item + `,{"type":"function_call_output","call_id":"` + id + `","output":"ok"}]`
	}
	called := func(id, name, arguments string) string {
		return `{"role":"assistant","content":null,"tool_calls":[{"id":"` + id + `","type":"function","function":{"name":"` + name + `","arguments":` + quoted(arguments) + `}}]},{"role":"tool","tool_call_id":"` + id + `","content":"ok"}`
	}
	answered := func(item, content string) inputTest {
		return inputTest{input: `[{"type":"function_call","call_id":"c1","name":"f","arguments":"{}","id":"fc_9"},` + item + `]`,
			want: `{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":` + quoted(content) + `}`}
	}
	name := func(name string, tt inputTest) inputTest { tt.name = name; return tt }
	for _, tt := range []inputTest{
		{"D-40 user", `[{"role":"user","content":"a"}]`, `{"role":"user","content":"a"}`, "", ""},
		{"D-40 later developer", `[{"role":"user","content":"a"},{"type":"message","role":"developer","content":"b"}]`, `{"role":"user","content":"a"},{"role":"system","content":"b"}`, "", ""},
		{"D-40 developer_role", `[{"type":"message","role":"developer","content":"b"},{"role":"user","content":"a"}]`, `{"role":"developer","content":"b"},{"role":"user","content":"a"}`, "developer_role:on", ""},
		{"D-42 single_system", `[{"role":"user","content":"a"},{"role":"system","content":"b"}]`, `{"role":"user","content":"a"},{"role":"user","content":"<system>b</system>"}`, "single_system:on", ""},
		{"D-43", `[{"role":"user","content":"a"},{"type":"message","id":"msg_1","status":"completed","phase":"final","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[],"logprobs":[]},{"type":"text","text":"c"},{"type":"refusal","refusal":"d"}]}]`,
			`{"role":"user","content":"a"},{"role":"assistant","content":"bcd"}`, "", ""},
		{"D-43 parts that are written carelessly", `[{"role":"user","content":["a",{"type":"text","text":"b"}]},{"role":"assistant","content":[{"type":"input_text","text":"c"},{"text":"d"}]},{"role":"assistant","content":null}]`, `{"role":"user","content":"a\n\nb"},{"role":"assistant","content":"cd"}`, "", ""},
		{"D-43 string", `[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]`, `{"role":"user","content":"a"},{"role":"assistant","content":"b"}`, "", ""},
		{"D-43 empty", `[{"role":"assistant","content":[]},{"role":"user","content":"a"}]`, `{"role":"assistant","content":""},{"role":"user","content":"a"}`, "", ""},
		{"D-43 other part", `[{"role":"assistant","content":[{"type":"output_image"},{"type":"output_text","text":"b"}]},{"role":"user","content":"a"}]`,
			`{"role":"assistant","content":"b"},{"role":"user","content":"a"}`, "", "input.content.output_image"},
		{"D-44 joined", `[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":""},{"type":"input_text","text":"b"}]}]`, `{"role":"user","content":"a\n\nb"}`, "", ""},
		{"D-44 nothing", `[{"role":"user","content":[]}]`, `{"role":"user","content":""}`, "", ""},
		{"D-45", `[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"data:image/png;base64,AA==","detail":"auto"},{"type":"input_image","image_url":"http://h/i","detail":"original"},{"type":"input_image","image_url":"u","detail":"low"}]}]`,
			`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},{"type":"image_url","image_url":{"url":"http://h/i","detail":"high"}},{"type":"image_url","image_url":{"url":"u","detail":"low"}}]}`, "", ""},
		{"D-45 chat's own", `[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u","detail":"low"}}]}]`, `{"role":"user","content":[{"type":"image_url","image_url":{"url":"u","detail":"low"}}]}`, "", ""},
		{"D-46 files:on", `[{"role":"user","content":[{"type":"input_file","file_id":"file-1"},{"type":"input_image","file_id":"file-2"}]}]`,
			`{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}},{"type":"file","file":{"file_id":"file-2"}}]}`, "files:on", ""},
		{"D-47 data URL", `[{"role":"user","content":[{"type":"input_file","filename":"f.pdf","file_data":"data:application/pdf;base64,AA=="}]}]`,
			`{"role":"user","content":[{"type":"file","file":{"filename":"f.pdf","file_data":"data:application/pdf;base64,AA=="}}]}`, "", ""},
		{"D-47 bare", `[{"role":"user","content":[{"type":"input_file","filename":"f.pdf","file_data":"AA=="}]}]`,
			`{"role":"user","content":[{"type":"file","file":{"filename":"f.pdf","file_data":"data:application/pdf;base64,AA=="}}]}`, "", ""},
		{"D-47 text", `[{"role":"user","content":[{"type":"input_file","file_data":"data:text/plain;base64,aGk="},{"type":"input_file","file_data":"data:text/csv,a%2Cb"}]}]`, `{"role":"user","content":"hi\n\na,b"}`, "", ""},
		{"D-48 files:on", `[{"role":"user","content":[{"type":"input_file","filename":"f","file_url":"http://h/f"}]}]`, `{"role":"user","content":[{"type":"file","file":{"filename":"f","file_data":"http://h/f"}}]}`, "files:on", ""},
		{"D-49", `[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}]`,
			`{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}`, "", ""},
		{"D-50", result(`{"type":"function_call","id":"fc_1","status":"completed","call_id":"functions.f:0","name":"f","arguments":"{\"b\":1,\"a\":2}"}`, "functions.f:0"), called("functions.f:0", "f", `{"b":1,"a":2}`), "", ""},
		{"D-50 empty", result(`{"type":"function_call","call_id":"c1","name":"f","arguments":""}`, "c1"), called("c1", "f", `{}`), "", ""},
		{"D-50 H-34 namespace", result(`{"type":"function_call","call_id":"c1","namespace":"mcp","name":"f","arguments":"{}"}`, "c1"), called("c1", "mcp__f", `{}`), "", ""},
		name("D-51", answered(`{"type":"function_call_output","call_id":"c1","output":"1"}`, "1")),
		name("D-51 empty", answered(`{"type":"function_call_output","call_id":"c1","output":""}`, "")),
		name("D-52 texts", answered(`{"type":"function_call_output","call_id":"c1","output":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]}`, "a\n\nb")),
		{"D-53", result(`{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"a\"\\\n<"}`, "c1"), called("c1", "patch", `{"input":"a\"\\\n<"}`), "", ""},
		name("D-54", answered(`{"type":"custom_tool_call_output","call_id":"c1","output":"1"}`, "1")),
		{"D-55", result(`{"type":"local_shell_call","id":"lsh_1","call_id":"c1","status":"completed","action":{"type":"exec","command":["ls"],"env":{}}}`, "c1"), called("c1", "local_shell", `{"command":["ls"],"env":{}}`), "", ""},
		{"D-56 of two calls", `[{"type":"local_shell_call","id":"lsh_1","call_id":"c1","action":{}},{"type":"local_shell_call","id":"lsh_2","call_id":"c2","action":{}},{"type":"local_shell_call_output","id":"c1","output":"1"},{"type":"local_shell_call_output","id":"lsh_2","output":"2"}]`,
			`{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"local_shell","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"local_shell","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"1"},{"role":"tool","tool_call_id":"c2","content":"2"}`, "", ""},
		name("D-52 empty text beside a picture", inputTest{input: `[{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":[{"type":"input_text","text":""},{"type":"input_image","image_url":"u"}]}]`,
			want: `{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"[image]"},{"role":"user","content":[{"type":"text","text":"Attachment of tool call c1:"},{"type":"image_url","image_url":{"url":"u"}}]}`}),
		name("D-56 by call", answered(`{"type":"local_shell_call_output","id":"c1","output":"1"}`, "1")),
		name("D-56 by item", answered(`{"type":"local_shell_call_output","id":"fc_9","output":"1"}`, "1")),
		{"D-57", result(`{"type":"shell_call","call_id":"c1","action":{"commands":["ls"],"timeout_ms":5}}`, "c1"), called("c1", "shell", `{"commands":["ls"],"timeout_ms":5}`), "", ""},
		name("D-57 output", answered(`{"type":"shell_call_output","call_id":"c1","output":[{"stdout":"a\n","stderr":"","outcome":{"type":"exit","exit_code":0}},{"stdout":"","stderr":"b","outcome":{"type":"timeout"}}]}`, "exit 0\na\n\ntimeout\nb")),
		{"D-58", result(`{"type":"apply_patch_call","call_id":"c1","status":"completed","operation":{"type":"delete_file","path":"p"}}`, "c1"), called("c1", "apply_patch", `{"operation":{"type":"delete_file","path":"p"}}`), "", ""},
		name("D-58 output", answered(`{"type":"apply_patch_call_output","call_id":"c1","status":"failed","output":"no such file"}`, "no such file")),
		name("D-58 status", answered(`{"type":"apply_patch_call_output","call_id":"c1","status":"completed"}`, "completed")),
		{"D-59", `[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"apx1.r.aG0"},{"role":"assistant","content":"b"},{"role":"user","content":"a"}]`,
			`{"role":"assistant","content":"b","reasoning":"hm"},{"role":"user","content":"a"}`, "", ""},
		{"D-59 another maker's", `[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"gAAAA"},{"role":"assistant","content":"b"},{"role":"user","content":"a"}]`,
			`{"role":"assistant","content":"b"},{"role":"user","content":"a"}`, "", ""},
		{"E-24 thoughts in the text", `[{"type":"reasoning","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"apx1.t."},{"role":"assistant","content":"b"},{"role":"user","content":"a"}]`,
			`{"role":"assistant","content":"b"},{"role":"user","content":"a"}`, "", ""},
		{"D-59 twice in a message, reasoning", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.r.YQ"},{"role":"assistant","content":"x"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.r.Yg"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"ok"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning":"ab","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"ok"}`, "", ""},
		{"D-59 twice before a message, reasoning", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.r.YQ"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.r.Yg"},{"role":"assistant","content":"x"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning":"ab"}`, "", ""},
		{"D-59 twice in a message, reasoning_content", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.YQ"},{"role":"assistant","content":"x"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.Yg"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"ok"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_content":"ab","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"ok"}`, "", ""},
		{"D-59 twice before a message, reasoning_content", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.YQ"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.c.Yg"},{"role":"assistant","content":"x"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_content":"ab"}`, "", ""},
		{"D-59 twice in a message, reasoning_details", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYSI6MX1d"},{"role":"assistant","content":"x"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYiI6Mn1d"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"ok"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_details":[{"a":1},{"b":2}],"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"ok"}`, "", ""},
		{"D-59 twice before a message, reasoning_details", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYSI6MX1d"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYiI6Mn1d"},{"role":"assistant","content":"x"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_details":[{"a":1},{"b":2}]}`, "", ""},
		{"D-59 twice in a message, no details first", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W10"},{"role":"assistant","content":"x"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYiI6Mn1d"},{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c1","output":"ok"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_details":[{"b":2}],"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"ok"}`, "", ""},
		{"D-59 twice before a message, no details first", `[{"role":"user","content":"q"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W10"},{"type":"reasoning","summary":[],"encrypted_content":"apx1.d.W3siYiI6Mn1d"},{"role":"assistant","content":"x"}]`,
			`{"role":"user","content":"q"},{"role":"assistant","content":"x","reasoning_details":[{"b":2}]}`, "", ""},
		{"D-59 none", `[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":null},{"role":"assistant","content":"b"},{"role":"user","content":"a"}]`,
			`{"role":"assistant","content":"b"},{"role":"user","content":"a"}`, "", ""},
		{"D-61", `[{"role":"user","content":"a"},{"type":"web_search_call","id":"ws_1"},{"type":"mcp_call","id":"m"},{"type":"computer_call_output","call_id":"c"},{"type":"tool_search_call","id":"t"}]`, `{"role":"user","content":"a"}`, "",
			"input.web_search_call,input.mcp_call,input.computer_call_output,input.tool_search_call"},
		{"D-61 the others", `[{"role":"user","content":"a"},{"type":"file_search_call","id":"1"},{"type":"code_interpreter_call","id":"2"},{"type":"image_generation_call","id":"3"},{"type":"compaction","encrypted_content":"x"},{"type":"compaction_trigger"},{"type":"program","id":"4"},{"type":"program_output","id":"5"},{"type":"mcp_approval_request","id":"6"},{"type":"computer_call","id":"7"}]`, `{"role":"user","content":"a"}`, "",
			"input.file_search_call,input.code_interpreter_call,input.image_generation_call,input.compaction,input.compaction_trigger,input.program,input.program_output,input.mcp_approval_request,input.computer_call"},
		{"D-63 vendor", `[{"role":"user","content":"a"},{"type":"acme:thing","x":1}]`, `{"role":"user","content":"a"}`, "", "input.acme:thing"},
		{"D-65g replay", result(`{"type":"tool_search_call","call_id":"c1","execution":"client","arguments":{"q":"x"}}`, "c1"), called("c1", "tool_search", `{"q":"x"}`), "", ""},
		{"A-22", `[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"text","text":"b"}]}]`, `{"role":"user","content":"a\n\nb"}`, "", ""},
		{"A-23 H-4", `[{"role":"model","content":[{"type":"text","text":"x"}]}]`, `{"role":"assistant","content":"x"}`, "", ""},
		{"A-24", `[{"type":"text","text":"a"},{"type":"input_image","image_url":"data:x"}]`, `{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:x"}}]}`, "", ""},
		{"A-24 of every type", `[{"type":"output_text","text":"a"},{"type":"image_url","image_url":"u"},{"type":"input_file","filename":"n","file_data":"data:application/pdf;base64,AA=="},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]`,
			`{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}},{"type":"file","file":{"filename":"n","file_data":"data:application/pdf;base64,AA=="}},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}]}`, "", ""},
		{"A-24 then a turn", `[{"type":"text","text":"a"},{"role":"assistant","content":"b"},{"type":"text","text":"c"}]`, `{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}`, "", ""},
		{"A-25", `[{"type":"user_input","content":[{"type":"text","text":"a"}]},{"type":"model_output","content":[{"type":"text","text":"b"}]}]`, `{"role":"user","content":"a"},{"role":"assistant","content":"b"}`, "", ""},
		{"A-26", `[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]},{"role":"user","content":"c"}]`, `{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}`, "", ""},
	} {
		t.Run(tt.name, tt.run)
	}
}

// A search for tools that the client has run brings the tools (D-62, D-65g); one
// that OpenAI has run is history of a hosted tool.
func TestResponsesToolSearch(t *testing.T) {
	const call = `{"type":"tool_search_call","call_id":"c1","execution":"client","arguments":{"q":"x"}}`
	for _, tt := range []struct{ name, output, want, tools, dropped string }{
		{"found", `{"type":"tool_search_output","call_id":"c1","execution":"client","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}]}`,
			"Found tools: f, g", `,"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}},{"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{}}}}]`, ""},
		{"found nothing", `{"type":"tool_search_output","call_id":"c1","execution":"client","tools":[]}`, "Found no tools.", "", ""},
		{"no list", `{"type":"tool_search_output","call_id":"c1","execution":"client"}`, "Found no tools.", "", ""},
		{"hosted", `{"type":"tool_search_output","call_id":"c1","execution":"server","tools":[{"type":"function","name":"f"}]}`, "[no output]", "", "input.tool_search_output"},
		{"of no call", `{"type":"tool_search_output","execution":"client","tools":[{"type":"function","name":"f"}]}`, "[no output]", "", "input.tool_search_output"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			got := upstreamBody(t, x, `{"model":"m","input":[`+call+`,`+tt.output+`]}`)
			want := `{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"tool_search","arguments":"{\"q\":\"x\"}"}}]},{"role":"tool","tool_call_id":"c1","content":"` + tt.want + `"}]` + tt.tools + `}`
			if got != want || strings.Join(x.dropped, ",") != tt.dropped {
				t.Errorf("request\n = %s\nwant %s\ndropped %q, want %q", got, want, x.dropped, tt.dropped)
			}
		})
	}
}

func TestResponsesItemsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, input, param, code string }{
		{"D-46", `[{"role":"user","content":"x"},{"role":"user","content":[{"type":"input_text","text":""},{"type":"input_file","file_id":"f"}]}]`, "input[1].content[1].file_id", ""},
		{"D-46 image", `[{"role":"user","content":[{"type":"input_image","file_id":"f"}]}]`, "input[0].content[0].file_id", ""},
		{"D-48", `[{"role":"user","content":[{"type":"input_file","file_url":"http://h"}]}]`, "input[0].content[0].file_url", ""},
		{"no file", `[{"role":"user","content":[{"type":"input_file"}]}]`, "input[0].content[0].file_data", ""},
		{"no image", `[{"role":"user","content":[{"type":"input_image"}]}]`, "input[0].content[0].image_url", ""},
		{"image type", `[{"role":"user","content":[{"type":"input_image","image_url":5}]}]`, "input[0].content[0].image_url", "invalid_type"},
		{"part type", `[{"role":"user","content":[{"type":"smell"}]}]`, "input[0].content[0].type", "invalid_value"},
		{"part of text", `[{"role":"user","content":[{"type":"input_text","text":5}]}]`, "input[0].content[0].text", "invalid_type"},
		{"content", `[{"role":"user","content":5}]`, "input[0].content", "invalid_type"},
		{"assistant content", `[{"role":"assistant","content":{}}]`, "input[0].content", "invalid_type"},
		{"role", `[{"role":"king","content":"a"}]`, "input[0].role", "invalid_value"},
		{"neither type nor role", `[{"content":"a"}]`, "input[0].type", "missing_required_parameter"},
		{"D-60", `[{"type":"item_reference","id":"msg_x"}]`, "input", ""},
		{"D-60 bare id", `[{"id":"msg_x"}]`, "input", ""},
		{"D-63", `[{"type":"x"}]`, "input[0].type", "invalid_value"},
		{"call without id", `[{"type":"function_call","name":"f","arguments":"{}"}]`, "input[0].call_id", "missing_required_parameter"},
		{"call without name", `[{"type":"function_call","call_id":"c","arguments":"{}"}]`, "input[0].name", "missing_required_parameter"},
		{"output without id", `[{"type":"function_call_output","output":"x"}]`, "input[0].call_id", "missing_required_parameter"},
		{"tools of no list", `[{"type":"additional_tools","tools":{}}]`, "input[0].tools", "invalid_type"},
		{"output type", `[{"type":"function_call_output","call_id":"c","output":5}]`, "input[0].output", "invalid_type"},
		{"custom input", `[{"type":"custom_tool_call","call_id":"c","name":"f","input":{}}]`, "input[0].input", "invalid_type"},
		{"shell output", `[{"type":"shell_call_output","call_id":"c","output":[{"stdout":5}]}]`, "input[0].output[0].stdout", "invalid_type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodedBody(responsesExchange(nil), `{"model":"m","input":`+tt.input+`}`)
			wantRefusal(t, err, tt.param, tt.code)
		})
	}
}

// D-60, D-59, E-24: what the input names by id is put in its place.
func TestResponsesReferences(t *testing.T) {
	x := responsesExchange(nil)
	x.responses.Items = map[string]json.RawMessage{
		"msg_1": []byte(`{"type":"message","id":"msg_1","role":"assistant","content":[{"type":"output_text","text":"b"}]}`),
		"rs_1":  []byte(`{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"hm"}],"encrypted_content":"apx1.c."}`),
	}
	got := upstreamBody(t, x, `{"model":"m","input":[{"role":"user","content":"a"},{"id":"rs_1","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},{"id":"msg_1"},{"role":"user","content":"c"}]}`)
	want := `{"model":"m","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","reasoning_content":"hm"},{"role":"user","content":"c"}]}`
	if got != want {
		t.Errorf("messages\n = %s\nwant %s", got, want)
	}
	if n := len(x.responses.Input); n != 4 || text(member(x.responses.Input[2], "role")) != "assistant" {
		t.Errorf("stored input %s, want the item in the reference's place", x.responses.Input)
	}
}

// D-146: the form in which items are kept and listed.
func TestResponsesKeptInput(t *testing.T) {
	x := responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":[
		{"role":"user","content":"a"},
		{"type":"message","role":"assistant","content":"b","id":"msg_own","status":"completed","phase":"final"},
		{"role":"user","content":[ {"type":"input_text","text":"c"} ],"id":null},
		{"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
		{"type":"function_call_output","call_id":"c1","output":"1"},
		{"type":"message","role":"user","content":null,"status":""},
		{"type":"reasoning","summary":[]}]}`)
	id := func(prefix, n string) string { return `"id":"` + prefix + testBase + n + `"` }
	want := []string{
		`{"type":"message",` + id("msg_", "0001") + `,"status":"completed","role":"user","content":[{"type":"input_text","text":"a"}]}`,
		`{"type":"message","role":"assistant","id":"msg_own","status":"completed","phase":"final","content":[{"type":"output_text","text":"b","annotations":[]}]}`,
		`{"type":"message",` + id("msg_", "0002") + `,"status":"completed","role":"user","content":[{"type":"input_text","text":"c"}]}`,
		`{` + id("fc_", "0003") + `,"type":"function_call","call_id":"c1","name":"f","arguments":"{}"}`,
		`{` + id("fc_", "0004") + `,"type":"function_call_output","call_id":"c1","output":"1"}`,
		`{` + id("msg_", "0005") + `,"status":"completed","type":"message","role":"user","content":[]}`,
		`{` + id("rs_", "0006") + `,"type":"reasoning","summary":[]}`,
	}
	var got []string
	for _, raw := range x.responses.Input {
		got = append(got, string(raw))
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("kept\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	x = responsesExchange(nil)
	upstreamBody(t, x, `{"model":"m","input":"hi","store":false}`)
	if len(x.responses.Input) > 0 {
		t.Errorf("kept %s though nothing is to be stored", x.responses.Input)
	}
}
