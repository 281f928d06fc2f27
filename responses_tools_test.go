package main

import (
	"strings"
	"testing"
)

func TestResponsesTools(t *testing.T) {
	const (
		function = `{"type":"function","name":"f","description":"d","parameters":{"z":1,"a":2},"strict":true}`
		f        = `{"type":"function","function":{"name":"f","description":"d","parameters":{"z":1,"a":2},"strict":true}}`
		g        = `{"type":"function","function":{"name":"g","parameters":{"type":"object","properties":{}}}}`
		input    = `"parameters":{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}}}`
		long     = "a_namespace_that_goes_on_and_on_and_on"
	)
	for _, tt := range []struct {
		name, tools, choice string
		want                string // the tools and what follows
		dropped             string
	}{
		{"D-65a", "[" + function + "]", ``, `"tools":[` + f + `]`, ""},
		{"D-65a nulls", `[{"type":"function","name":"g","parameters":null,"strict":null,"description":null}]`, ``, `"tools":[` + g + `]`, ""},
		{"D-65a chat's form", `[{"type":"function","function":{"name":"f","x":1}}]`, `{"type":"function","function":{"name":"f"}}`,
			`"tools":[{"type":"function","function":{"name":"f","x":1}}],"tool_choice":{"type":"function","function":{"name":"f"}}`, ""},
		{"D-65b", `[{"type":"custom","name":"c","description":"Does."}]`, ``,
			`"tools":[{"type":"function","function":{"name":"c","description":"Does.\nPut the raw tool input, unescaped, into \"input\".",` + input + `]`, ""},
		{"D-65b grammar", `[{"type":"custom","name":"c","format":{"type":"grammar","syntax":"lark","definition":"start: x"}}]`, ``,
			`"tools":[{"type":"function","function":{"name":"c","description":"Put the raw tool input, unescaped, into \"input\".\nGrammar (lark):\nstart: x",` + input + `]`, ""},
		{"D-65c", `[{"type":"namespace","name":"mcp","description":"x","tools":[{"type":"function","name":"g"}]},{"type":"namespace","name":"mcp__fs__","tools":[{"type":"function","name":"g"}]}]`, ``,
			`"tools":[` + strings.Replace(g, `"g"`, `"mcp__g"`, 1) + `,` + strings.Replace(g, `"g"`, `"mcp__fs__g"`, 1) + `]`, ""},
		{"D-65c long", `[{"type":"namespace","name":"` + long + `","tools":[{"type":"function","name":"` + long + `"}]}]`, ``,
			`"tools":[` + strings.Replace(g, `"g"`, `"a_namespace_that_goes_on_and_on_and_on__a_namespace_tha_dfc470f6"`, 1) + `]`, ""},
		{"D-65g", `[{"type":"tool_search","execution":"client","description":"s","parameters":{"type":"object"}}]`, ``,
			`"tools":[{"type":"function","function":{"name":"tool_search","description":"s","parameters":{"type":"object"}}}]`, ""},
		{"D-65h", `[{"type":"web_search"},` + function + `,{"type":"mcp","server_label":"x"},{"type":"tool_search"},{"type":"acme:new"}]`, ``,
			`"tools":[` + f + `]`, "tools.web_search,tools.mcp,tools.tool_search,tools.acme:new"},
		{"D-66 auto", "[" + function + "]", `"auto"`, `"tools":[` + f + `]`, ""},
		{"D-66 none", "[" + function + "]", `"none"`, `"tools":[` + f + `],"tool_choice":"none"`, ""},
		{"D-66 required", "[" + function + "]", `"required"`, `"tools":[` + f + `],"tool_choice":"required"`, ""},
		{"D-66 none without tools", "[]", `"none"`, ``, ""},
		{"D-67", "[" + function + "]", `{"type":"function","name":"f"}`, `"tools":[` + f + `],"tool_choice":{"type":"function","function":{"name":"f"}}`, ""},
		{"D-67 in a namespace", `[{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"g"}]}]`, `{"type":"function","name":"g","namespace":"mcp"}`,
			`"tools":[` + strings.Replace(g, `"g"`, `"mcp__g"`, 1) + `],"tool_choice":{"type":"function","function":{"name":"mcp__g"}}`, ""},
		{"D-68", `[` + function + `,{"type":"function","name":"g"}]`, `{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}`, `"tools":[` + g + `],"tool_choice":"required"`, ""},
		{"D-68 auto", `[` + function + `,{"type":"function","name":"g"}]`, `{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"f"},{"type":"mcp","server_label":"x"}]}`, `"tools":[` + f + `]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := responsesExchange(nil)
			if tt.choice == "" {
				tt.choice = "null"
			}
			got := upstreamBody(t, x, `{"model":"m","input":"hi","tools":`+tt.tools+`,"tool_choice":`+tt.choice+`}`)
			want := `{"model":"m",` + userHi + `}`
			if tt.want != "" {
				want = `{"model":"m",` + userHi + `,` + tt.want + `}`
			}
			if got != want {
				t.Errorf("tools %s\n = %s\nwant %s", tt.tools, got, want)
			}
			if dropped := strings.Join(x.dropped, ","); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
}

func TestResponsesToolsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, tools, choice, quirk, param, code string }{
		{"D-65i", `[{"type":"function","name":"a__b"},{"type":"namespace","name":"a","tools":[{"type":"custom","name":"b"}]}]`, `null`, "", "tools[1].tools[0]", ""},
		{"D-65h quirk", `[{"type":"web_search"}]`, `null`, "hosted_tools:error", "tools[0].type", "unsupported_tool"},
		{"D-66 word", `[]`, `"maybe"`, "", "tool_choice", "invalid_value"},
		{"D-66 required of nothing", `[]`, `"required"`, "", "tool_choice", ""},
		{"D-66 required of hosted tools", `[{"type":"web_search"}]`, `"required"`, "", "tool_choice", "unsupported_tool"},
		{"D-66 type", `[]`, `5`, "", "tool_choice", "invalid_type"},
		{"D-67 unknown", `[{"type":"function","name":"f"}]`, `{"type":"function","name":"g"}`, "", "tool_choice", ""},
		{"D-67 other kind", `[{"type":"function","name":"f"}]`, `{"type":"custom","name":"f"}`, "", "tool_choice", ""},
		{"D-68 only hosted", `[{"type":"web_search"}]`, `{"type":"allowed_tools","mode":"required","tools":[{"type":"web_search"}]}`, "", "tool_choice.mode", "unsupported_tool"},
		{"D-69 not there", `[]`, `{"type":"shell"}`, "", "tool_choice", "unsupported_tool"},
		{"D-70", `[{"type":"web_search"}]`, `{"type":"web_search"}`, "", "tool_choice", "unsupported_tool"},
		{"no name", `[{"type":"function"}]`, `null`, "", "tools[0].name", "missing_required_parameter"},
		{"no name of a namespace", `[{"type":"namespace","tools":[{"type":"function","name":"f"}]}]`, `null`, "", "tools[0].name", "missing_required_parameter"},
		{"no name in a namespace", `[{"type":"namespace","name":"a","tools":[{"type":"function"}]}]`, `null`, "", "tools[0].tools[0].name", "missing_required_parameter"},
		{"no name in chat's form", `[{"type":"function","function":{}}]`, `null`, "", "tools[0].name", "missing_required_parameter"},
		{"no type", `[{"name":"f"}]`, `null`, "", "tools[0].type", "missing_required_parameter"},
		{"path", `[{"type":"function","name":"f"},{"type":"function","name":5}]`, `null`, "", "tools[1].name", "invalid_type"},
		{"not a list", `{}`, `null`, "", "tools", "invalid_type"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodedBody(responsesExchange(nil, tt.quirk), `{"model":"m","input":"hi","tools":`+tt.tools+`,"tool_choice":`+tt.choice+`}`)
			wantRefusal(t, err, tt.param, tt.code)
		})
	}
}

func TestResponsesParallelCalls(t *testing.T) {
	for value, want := range map[string]string{"true": ``, "false": `,"parallel_tool_calls":false`} {
		got := upstreamBody(t, responsesExchange(nil), `{"model":"m","input":"hi","tools":[{"type":"function","name":"f","parameters":{}}],"parallel_tool_calls":`+value+`}`)
		if want := `{"model":"m",` + userHi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]` + want + `}`; got != want {
			t.Errorf("D-15 %s: %s, want %s", value, got, want)
		}
	}
}

// D-62: tools among the items are added to those of the request, each once.
func TestResponsesAdditionalTools(t *testing.T) {
	got := upstreamBody(t, responsesExchange(nil), `{"model":"m","tools":[{"type":"function","name":"f","parameters":{}}],"input":[
		{"type":"additional_tools","role":"developer","tools":[{"type":"function","name":"g","parameters":{}},{"type":"function","name":"f","parameters":{}}]},{"role":"user","content":"hi"}]}`)
	want := `{"model":"m",` + userHi + `,"tools":[{"type":"function","function":{"name":"f","parameters":{}}},{"type":"function","function":{"name":"g","parameters":{}}}]}`
	if got != want {
		t.Errorf("tools\n = %s\nwant %s", got, want)
	}
}

// D.9: with tools_required_with_history the tools of an earlier turn are sent
// again, not to be called.
func TestResponsesRepeatTools(t *testing.T) {
	x := responsesExchange(nil, "tools_required_with_history:on")
	first := storedTurn("resp_1", "", `[{"role":"user","content":"one"}]`, `[{"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{}"}]`)
	first.Object = append(first.Object[:len(first.Object)-1], `,"tools":[{"type":"function","name":"f","parameters":{},"description":null,"strict":null}]}`...)
	x.responses.Chain = []storedResponse{first}
	got := upstreamBody(t, x, `{"model":"m","previous_response_id":"resp_1","input":[{"type":"function_call_output","call_id":"c1","output":"1"}]}`)
	if want := `,"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"none"}`; !strings.HasSuffix(got, want) {
		t.Errorf("request %s, want it to end in %s", got, want)
	}
}

// H-33, H-34, D-65b to D-65g: the calls of emulated tools come back as what the
// client knows.
func TestResponsesCallsBack(t *testing.T) {
	const tools = `[{"type":"function","name":"f"},{"type":"custom","name":"patch"},{"type":"namespace","name":"mcp","tools":[{"type":"function","name":"f"},{"type":"custom","name":"c"}]},
		{"type":"local_shell"},{"type":"shell"},{"type":"apply_patch"},{"type":"tool_search","execution":"client"},{"type":"function","name":"dots.and spaces"}]`
	for _, tt := range []struct{ name, call, args, want string }{
		{"D-65a", "f", `{"a":1}`, `{"type":"function_call","call_id":"c1","name":"f","arguments":"{\"a\":1}","status":"completed"}`},
		{"D-65b", "patch", `{"input":"*** Begin\n\"q\" \\ <é>"}`, `{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"*** Begin\n\"q\" \\ <é>","status":"completed"}`},
		{"D-71 one string", "patch", `{"patch":"p","n":1}`, `{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"p","status":"completed"}`},
		{"D-71 bare string", "patch", `"p"`, `{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"p","status":"completed"}`},
		{"D-71 raw", "patch", `*** Begin`, `{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"*** Begin","status":"completed"}`},
		{"D-71 two strings", "patch", `{"a":"x","b":"y"}`, `{"type":"custom_tool_call","call_id":"c1","name":"patch","input":"{\"a\":\"x\",\"b\":\"y\"}","status":"completed"}`},
		{"D-65c", "mcp__f", `{}`, `{"type":"function_call","call_id":"c1","name":"f","namespace":"mcp","arguments":"{}","status":"completed"}`},
		{"D-65c custom", "mcp__c", `{"input":"x"}`, `{"type":"custom_tool_call","call_id":"c1","name":"c","namespace":"mcp","input":"x","status":"completed"}`},
		{"D-65d", "local_shell", `{"command":["ls","-l"],"working_directory":"/","timeout_ms":5}`,
			`{"type":"local_shell_call","call_id":"c1","action":{"type":"exec","command":["ls","-l"],"env":{},"timeout_ms":5,"working_directory":"/"},"status":"completed"}`},
		{"D-65d one line", "local_shell", `{"command":"ls -l","env":{"A":"b"}}`,
			`{"type":"local_shell_call","call_id":"c1","action":{"type":"exec","command":["bash","-lc","ls -l"],"env":{"A":"b"}},"status":"completed"}`},
		{"D-65d no command", "local_shell", `{"cmd":1`, `{"type":"function_call","call_id":"c1","name":"local_shell","arguments":"{\"cmd\":1","status":"completed"}`},
		{"D-65e", "shell", `{"commands":["ls"],"timeout_ms":5}`,
			`{"type":"shell_call","call_id":"c1","action":{"commands":["ls"],"timeout_ms":5,"max_output_length":null},"environment":null,"status":"completed"}`},
		{"D-65f", "apply_patch", `{"operation":{"type":"create_file","path":"p","diff":"+a"}}`,
			`{"type":"apply_patch_call","call_id":"c1","operation":{"type":"create_file","path":"p","diff":"+a"},"status":"completed"}`},
		{"D-65f flat", "apply_patch", `{"type":"delete_file","path":"p"}`, `{"type":"apply_patch_call","call_id":"c1","operation":{"type":"delete_file","path":"p"},"status":"completed"}`},
		{"D-65g", "tool_search", `{"query":"x"}`, `{"type":"tool_search_call","call_id":"c1","execution":"client","arguments":{"query":"x"},"status":"completed"}`},
		{"C-74", "dotsandspaces_21e0f524", `{}`, `{"type":"function_call","call_id":"c1","name":"dots.and spaces","arguments":"{}","status":"completed"}`},
		{"unknown", "other", `{}`, `{"type":"function_call","call_id":"c1","name":"other","arguments":"{}","status":"completed"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			completion := `{"choices":[{"message":{"tool_calls":[{"id":"c1","type":"function","function":{"name":"` + tt.call + `","arguments":` + string(appendQuoted(nil, tt.args)) + `}}]},"finish_reason":"tool_calls"}]}`
			got := answerOf(t, responsesExchange(nil), `{"model":"m","input":"hi","tools":`+tools+`}`, completion)
			if items := outputItems(t, got); items != tt.want {
				t.Errorf("output\n = %s\nwant %s", items, tt.want)
			}
		})
	}
}

// D-68: a call that the client does not allow never reaches it.
func TestResponsesSuppressedCall(t *testing.T) {
	x := responsesExchange(nil)
	got := answerOf(t, x, `{"model":"m","input":"hi","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],"tool_choice":{"type":"allowed_tools","mode":"auto","tools":[{"type":"function","name":"g"}]}}`,
		`{"choices":[{"message":{"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}`)
	if want := `{"type":"function_call","call_id":"c2","name":"g","arguments":"{}","status":"completed"}`; outputItems(t, got) != want {
		t.Errorf("output = %s, want %s", outputItems(t, got), want)
	}
	if strings.Join(x.dropped, ",") != "output.tool_call" {
		t.Errorf("dropped %q, want a note of the call", x.dropped)
	}
}
