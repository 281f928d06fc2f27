package main

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// anthropicExchange is an exchange as it is before a Messages request is
// decoded.
func anthropicExchange(quirks ...string) *exchange {
	return &exchange{
		cfg: &config{Quirks: quirks}, dialect: &anthropic, header: http.Header{}, model: "m",
		anthropic: &anthropicRequest{}, estimate: 7,
	}
}

// decodedAnthropic is the chat body that a Messages body becomes.
func decodedAnthropic(t *testing.T, x *exchange, in string) string {
	t.Helper()
	q, err := decodeAnthropic(x, []byte(in))
	if err != nil {
		t.Fatalf("decodeAnthropic(%s): %v", in, err)
	}
	b, err := q.body()
	if err != nil {
		t.Fatalf("body of decodeAnthropic(%s): %v", in, err)
	}
	return string(b)
}

// What agents send, tools and schemas included, is converted as testdata has it
// (AC-27).
func TestDecodeAnthropicFixtures(t *testing.T) {
	for _, name := range []string{"results", "agent"} { // C-60; a coding agent's turn
		t.Run(name, func(t *testing.T) {
			in, want := readFixture(t, name+".in.json"), readFixture(t, name+".chat.json")
			if got := decodedAnthropic(t, anthropicExchange(), in); got != want {
				t.Errorf("decodeAnthropic =\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func readFixture(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "anthropic", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}

func TestDecodeAnthropicTopLevel(t *testing.T) {
	long := strings.Repeat("u", 513)
	for _, tt := range []struct{ name, in, want, quirk, dropped string }{
		{"C-5 no max_tokens", `"x":null`, ``, "", ""},
		{"C-13 max_tokens", `"max_tokens":32000`, `"max_tokens":32000`, "", ""},
		{"C-13 E-12 its other name", `"max_tokens":5`, `"max_completion_tokens":5`, "max_tokens_field:max_completion_tokens", ""},
		{"C-14 stop_sequences", `"stop_sequences":["a","<b>"]`, `"stop":["a","<b>"]`, "", ""},
		{"C-14 empty", `"stop_sequences":[]`, ``, "", ""},
		{"C-15 digits are kept", `"temperature":1.0,"top_p":1e-1`, `"temperature":1.0,"top_p":1e-1`, "", ""},
		{"0-4 null is absent", `"temperature":null,"top_k":null,"system":null,"stop_sequences":null,"metadata":null,"thinking":null,"tools":null,"tool_choice":null,"stream":null,"thread":null,"output_config":null,"max_tokens":null,"service_tier":null`, ``, "", ""},
		{"C-16 top_k", `"top_k":40`, `"top_k":40`, "", ""},
		{"C-17 user_id", `"metadata":{"user_id":"u1","other":1}`, `"user":"u1"`, "", ""},
		{"C-17 a long one", `"metadata":{"user_id":"` + long + `"}`, `"user":"f9140fc743c68c293fbd0fc4498c2d30d970fdce9cd89f3625391f581b500394"`, "", ""},
		{"C-18 stream", `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, "", ""},
		{"C-18 no stream", `"stream":false`, ``, "", ""},
		{"C-19 auto", `"service_tier":"auto"`, ``, "", ""},
		{"C-19 standard_only", `"service_tier":"standard_only"`, `"service_tier":"default"`, "", ""},
		{"C-19 unknown", `"service_tier":"gold"`, ``, "", "service_tier"},
		{"C-20 disabled", `"thinking":{"type":"disabled"}`, `"reasoning_effort":"none"`, "", ""},
		{"C-21 2048", `"thinking":{"type":"enabled","budget_tokens":2048}`, `"reasoning_effort":"low"`, "", ""},
		{"C-21 16384", `"thinking":{"type":"enabled","budget_tokens":16384}`, `"reasoning_effort":"medium"`, "", ""},
		{"C-21 16385", `"thinking":{"type":"enabled","budget_tokens":16385}`, `"reasoning_effort":"high"`, "", ""},
		{"C-22 adaptive", `"thinking":{"type":"adaptive"}`, ``, "", ""},
		{"C-22 between_tools", `"thinking":{"type":"between_tools"}`, ``, "", ""},
		{"C-23 effort wins over a budget", `"thinking":{"type":"enabled","budget_tokens":1024},"output_config":{"effort":"medium"}`, `"reasoning_effort":"medium"`, "", ""},
		{"C-23 effort loses to disabled", `"thinking":{"type":"disabled"},"output_config":{"effort":"medium"}`, `"reasoning_effort":"none"`, "", ""},
		{"C-23 low", `"output_config":{"effort":"low"}`, `"reasoning_effort":"low"`, "", ""},
		{"C-23 xhigh", `"output_config":{"effort":"xhigh"}`, `"reasoning_effort":"high"`, "", ""},
		{"C-21 no budget", `"thinking":{"type":"enabled"}`, ``, "", ""},
		{"C-23 max", `"output_config":{"effort":"max"}`, `"reasoning_effort":"high"`, "", ""},
		{"C-23 max where it is known", `"output_config":{"effort":"max"}`, `"reasoning_effort":"max"`, "efforts:low+max", ""},
		{"C-23 unknown", `"output_config":{"effort":"wild"}`, ``, "", "output_config.effort"},
		{"C-24 format", `"output_config":{"format":{"type":"json_schema","schema":{"b":1.0,"a":[]}}}`, `"response_format":{"type":"json_schema","json_schema":{"name":"output","schema":{"b":1.0,"a":[]},"strict":true}}`, "", ""},
		{"C-24 older name", `"output_format":{"type":"json_schema","schema":{}}`, `"response_format":{"type":"json_schema","json_schema":{"name":"output","schema":{},"strict":true}}`, "", ""},
		{"C-24 another format", `"output_config":{"format":{"type":"grammar"}}`, ``, "", "output_config.format"},
		{"C-26 C-27 silent", `"cache_control":{},"container":"c","context_management":{},"inference_geo":"eu","speed":"fast","diagnostics":{},"user_profile_id":"u","workspace_id":"w","fallbacks":[],"mcp_servers":[],"anthropic_version":"v","anthropic_beta":["b"]`, ``, "", ""},
		{"C-27 mcp_servers", `"mcp_servers":[{"url":"https://example.com"}]`, ``, "", "mcp_servers"},
		{"0-4 unknown", `"tempo":1,"stop":["x"]`, ``, "", "tempo,stop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			if tt.quirk != "" {
				x.cfg.Quirks = []string{tt.quirk}
			}
			want := `{"model":"m","messages":[{"role":"user","content":"hi"}]`
			if tt.want != "" {
				want += "," + tt.want
			}
			got := decodedAnthropic(t, x, `{"model":"m","messages":[{"role":"user","content":"hi"}],`+tt.in+`}`)
			if got != want+"}" {
				t.Errorf("decodeAnthropic(%s) =\n%s\nwant\n%s}", tt.in, got, want)
			}
			if dropped := strings.Join(x.dropped, ","); dropped != tt.dropped {
				t.Errorf("decodeAnthropic(%s) dropped %q, want %q", tt.in, dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeAnthropicKeeps(t *testing.T) {
	for _, tt := range []struct {
		name, in, quirk string
		want            anthropicRequest
		stream          bool
	}{
		{"C-81 not asked", `"stream":true`, "", anthropicRequest{}, true},
		{"C-81 disabled", `"thinking":{"type":"disabled"}`, "", anthropicRequest{}, false},
		{"C-81 adaptive", `"thinking":{"type":"adaptive"}`, "", anthropicRequest{ShowThinking: true}, false},
		{"C-81 always", `"x":null`, "thinking:always", anthropicRequest{ShowThinking: true}, false},
		{"C-25 omitted", `"thinking":{"type":"adaptive","display":"omitted"}`, "", anthropicRequest{ShowThinking: true, OmitThinking: true}, false},
		{"C-89 sequences", `"stop_sequences":["END"]`, "", anthropicRequest{StopSequences: []string{"END"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange(tt.quirk)
			decodedAnthropic(t, x, `{"messages":[{"role":"user","content":"hi"}],`+tt.in+`}`)
			got := x.anthropic
			if got.ShowThinking != tt.want.ShowThinking || got.OmitThinking != tt.want.OmitThinking || !slices.Equal(got.StopSequences, tt.want.StopSequences) {
				t.Errorf("x.anthropic = %+v, want %+v", *got, tt.want)
			}
			if x.stream != tt.stream {
				t.Errorf("x.stream = %v, want %v", x.stream, tt.stream)
			}
		})
	}
}

func TestDecodeAnthropicTools(t *testing.T) {
	const f = `{"name":"f","input_schema":{"type":"object","b":1.0}}`
	const fOut = `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","b":1.0}}}]`
	const longName = "a_very_long_tool_name_that_goes_on_and_on_until_it_is_too_long_for_upstreams"
	for _, tt := range []struct{ name, in, want, quirk, dropped string }{
		{"C-65 plain", `"tools":[` + f + `]`, fOut, "", ""},
		{"C-65 custom", `"tools":[{"type":"custom","name":"f","description":"d","input_schema":{},"strict":true,"cache_control":{},"input_examples":[],"defer_loading":true,"allowed_callers":[],"eager_input_streaming":true}]`,
			`"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{},"strict":true}}]`, "", ""},
		{"C-66 bash", `"tools":[{"type":"bash_20250124","name":"bash"}]`, `"tools":[{"type":"function","function":{"name":"bash","description":"` + bashTool + `","parameters":` + bashSchema + `}}]`, "", ""},
		{"C-66 editor", `"tools":[{"type":"text_editor_20250728","name":"str_replace_based_edit_tool","max_characters":9}]`,
			`"tools":[{"type":"function","function":{"name":"str_replace_based_edit_tool","description":"` + editorTool + `","parameters":` + editorSchema + `}}]`, "", ""},
		{"C-66 memory", `"tools":[{"type":"memory_20250818","name":"memory"}]`, `"tools":[{"type":"function","function":{"name":"memory","description":"` + memoryTool + `","parameters":` + memorySchema + `}}]`, "", ""},
		{"C-66 computer", `"tools":[{"type":"computer_20250124","name":"computer"},` + f + `]`, fOut, "", "computer_20250124"},
		{"C-67 C-73 server tools", `"tools":[{"type":"web_search_20250305","name":"web_search"},{"type":"web_fetch_20250910","name":"web_fetch"},{"type":"code_execution_20250825","name":"code_execution"},{"type":"tool_search_tool_regex_20251119","name":"t"}],"tool_choice":{"type":"any"}`,
			``, "", "web_search_20250305,web_fetch_20250910,code_execution_20250825,tool_search_tool_regex_20251119"},
		{"C-68 auto", `"tools":[` + f + `],"tool_choice":{"type":"auto"}`, fOut, "", ""},
		{"C-69 any", `"tools":[` + f + `],"tool_choice":{"type":"any"}`, fOut + `,"tool_choice":"required"`, "", ""},
		{"C-70 tool", `"tools":[` + f + `],"tool_choice":{"type":"tool","name":"f"}`, fOut + `,"tool_choice":{"type":"function","function":{"name":"f"}}`, "", ""},
		{"C-71 none", `"tools":[` + f + `],"tool_choice":{"type":"none"}`, fOut + `,"tool_choice":"none"`, "", ""},
		{"C-72 not parallel", `"tools":[` + f + `],"tool_choice":{"type":"auto","disable_parallel_tool_use":true}`, fOut + `,"parallel_tool_calls":false`, "", ""},
		{"C-72 C-73 without tools", `"tool_choice":{"type":"auto","disable_parallel_tool_use":true}`, ``, "", ""},
		{"a tool that is defined among the messages", `"system":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":` + f + `}},{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"name":"f"}}},{"type":"tool_removal","tool":{"type":"tool_reference","name":"f"}}]`,
			fOut, "", "tool_removal"},
		{"C-67 such a server tool", `"system":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{"type":"web_search_20250305","name":"web_search"}}}]`, ``, "", "web_search_20250305"},
		{"C-74 a long name", `"tools":[{"name":"` + longName + `"}],"tool_choice":{"type":"tool","name":"` + longName + `"}`,
			`"tools":[{"type":"function","function":{"name":"a_very_long_tool_name_that_goes_on_and_on_until_it_is_t_030b960c"}}],"tool_choice":{"type":"function","function":{"name":"a_very_long_tool_name_that_goes_on_and_on_until_it_is_t_030b960c"}}`, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange(tt.quirk)
			want := `{"messages":[{"role":"user","content":"hi"}]`
			if tt.want != "" {
				want += "," + tt.want
			}
			got := decodedAnthropic(t, x, `{"messages":[{"role":"user","content":"hi"}],`+tt.in+`}`)
			if got != want+"}" {
				t.Errorf("decodeAnthropic(%s) =\n%s\nwant\n%s}", tt.in, got, want)
			}
			if dropped := strings.Join(x.dropped, ","); dropped != tt.dropped {
				t.Errorf("decodeAnthropic(%s) dropped %q, want %q", tt.in, dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeAnthropicErrors(t *testing.T) {
	msg := func(content string) string { return `{"messages":[{"role":"user","content":` + content + `}]}` }
	for _, tt := range []struct{ name, in, param, message, quirk string }{
		{"C-5 no messages", `{}`, "messages", "messages: at least one message is required", ""},
		{"C-5 empty messages", `{"messages":[]}`, "messages", "messages: at least one message is required", ""},
		{"C-5 max_tokens 0", `{"max_tokens":0,"messages":[{"role":"user","content":"a"}]}`, "max_tokens", "greater than 0", ""},
		{"C-5 max_tokens -1", `{"max_tokens":-1,"messages":[{"role":"user","content":"a"}]}`, "max_tokens", "greater than 0", ""},
		{"max_tokens 1.5", `{"max_tokens":1.5,"messages":[{"role":"user","content":"a"}]}`, "max_tokens", "an integer", ""},
		{"0-4 max_tokens text", `{"max_tokens":"5","messages":[{"role":"user","content":"a"}]}`, "max_tokens", "max_tokens", ""},
		{"0-4 temperature", `{"temperature":"hot","messages":[{"role":"user","content":"a"}]}`, "temperature", "temperature", ""},
		{"0-4 messages", `{"messages":{}}`, "messages", "messages", ""},
		{"0-4 stream", `{"stream":"yes","messages":[{"role":"user","content":"a"}]}`, "stream", "stream", ""},
		{"0-4 model", `{"model":5,"messages":[{"role":"user","content":"a"}]}`, "model", "model", ""},
		{"0-4 nested", `{"thinking":{"budget_tokens":"x"},"messages":[{"role":"user","content":"a"}]}`, "thinking.budget_tokens", "thinking.budget_tokens", ""},
		{"0-4 stop_sequences", `{"stop_sequences":"x","messages":[{"role":"user","content":"a"}]}`, "stop_sequences", "stop_sequences", ""},
		{"system type", `{"system":5,"messages":[{"role":"user","content":"a"}]}`, "system", "a string or an array", ""},
		{"system block", `{"system":[{"type":"image"}],"messages":[{"role":"user","content":"a"}]}`, "system[0].type", `"image"`, ""},
		{"message is no object", `{"messages":["a"]}`, "messages[0]", "messages[0]", ""},
		{"role", `{"messages":[{"role":"user","content":"a"},{"role":"tool","content":"a"}]}`, "messages[1].role", `"tool" is unknown; accepted: user, assistant, system`, ""},
		{"no content", `{"messages":[{"role":"user"}]}`, "messages[0].content", "must be a string or an array", ""},
		{"content type", msg(`5`), "messages[0].content", "must be a string or an array", ""},
		{"block is no object", msg(`["a"]`), "messages[0].content[0]", "messages[0].content[0]", ""},
		{"block without type", msg(`[{"text":"a"}]`), "messages[0].content[0].type", "content block", ""},
		{"unknown block", msg(`[{"type":"text","text":"a"},{"type":"smell"}]`), "messages[0].content[1].type", `"smell"`, ""},
		{"text is a number", msg(`[{"type":"text","text":5}]`), "messages[0].content[0].text", "text", ""},
		{"tool_use of a user", msg(`[{"type":"tool_use","id":"a","name":"b"}]`), "messages[0].content[0].type", `"tool_use"`, ""},
		{"C-33 file", msg(`[{"type":"image","source":{"type":"file","file_id":"f"}}]`), "messages[0].content[0].source.type", "base64", ""},
		{"C-37 url", msg(`[{"type":"document","source":{"type":"url","url":"u"}}]`), "messages[0].content[0].source.type", "base64", ""},
		{"C-33 inside a result", msg(`[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]`), "messages[0].content[0].content[0].source.type", "base64", ""},
		{"image without source", msg(`[{"type":"image"}]`), "messages[0].content[0].source", "must be an object", ""},
		{"result without id", msg(`[{"type":"tool_result","content":"a"}]`), "messages[0].content[0].tool_use_id", "tool_use", ""},
		{"image without data", msg(`[{"type":"image","source":{"type":"base64","media_type":"image/png"}}]`), "messages[0].content[0].source", "media_type", ""},
		{"image without url", msg(`[{"type":"image","source":{"type":"url"}}]`), "messages[0].content[0].source.url", "address", ""},
		{"image source type", msg(`[{"type":"image","source":{"type":"ftp"}}]`), "messages[0].content[0].source.type", `"ftp"`, ""},
		{"document of another kind", msg(`[{"type":"document","source":{"type":"base64","media_type":"text/csv","data":"AA=="}}]`), "messages[0].content[0].source", "application/pdf", ""},
		{"document source type", msg(`[{"type":"document","source":{"type":"ftp"}}]`), "messages[0].content[0].source.type", `"ftp"`, ""},
		{"document in a document", msg(`[{"type":"document","source":{"type":"content","content":[{"type":"document"}]}}]`), "messages[0].content[0].source.content[0].type", `"document"`, ""},
		{"search_result content", msg(`[{"type":"search_result","content":5}]`), "messages[0].content[0].content", "must be a string or an array", ""},
		{"call without name", `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","input":{}}]}]}`, "messages[0].content[0].name", "name", ""},
		{"call without id", `{"messages":[{"role":"assistant","content":[{"type":"tool_use","name":"f","input":{}}]}]}`, "messages[0].content[0].id", "id", ""},
		{"result of an assistant", `{"messages":[{"role":"assistant","content":[{"type":"tool_result","tool_use_id":"t"}]}]}`, "messages[0].content[0].type", "user message", ""},
		{"tool without name", `{"tools":[{"input_schema":{}}],"messages":[{"role":"user","content":"a"}]}`, "tools[0].name", "name", ""},
		{"schema type", `{"tools":[{"name":"f","input_schema":[]}],"messages":[{"role":"user","content":"a"}]}`, "tools[0].input_schema", "object", ""},
		{"C-67 choice of a server tool", `{"tools":[{"type":"web_search_20250305","name":"web_search"}],"tool_choice":{"type":"tool","name":"web_search"},"messages":[{"role":"user","content":"a"}]}`, "tool_choice.name", `"web_search"`, ""},
		{"C-67 hosted_tools:error", `{"tools":[{"type":"web_search_20250305","name":"web_search"}],"messages":[{"role":"user","content":"a"}]}`, "tools[0].type", `"web_search_20250305"`, "hosted_tools:error"},
		{"tool_choice without a name", `{"tools":[{"name":"f"}],"tool_choice":{"type":"tool"},"messages":[{"role":"user","content":"a"}]}`, "tool_choice.name", "name of a tool", ""},
		{"tool added without a name", `{"messages":[{"role":"user","content":[{"type":"tool_addition","tool":{"type":"tool_definition","definition":{}}}]}]}`, "messages[0].content[0].tool.definition.name", "name", ""},
		{"result content", msg(`[{"type":"tool_result","tool_use_id":"t","content":5}]`), "messages[0].content[0].content", "must be a string or an array", ""},
		{"image without media_type", msg(`[{"type":"image","source":{"type":"base64","data":"AA=="}}]`), "messages[0].content[0].source", "media_type", ""},
		{"tool_choice type", `{"tool_choice":{"type":"some"},"messages":[{"role":"user","content":"a"}]}`, "tool_choice.type", `"some"`, ""},
		{"tool_choice string", `{"tool_choice":"auto","messages":[{"role":"user","content":"a"}]}`, "tool_choice", "tool_choice", ""},
		{"C-24 schema", `{"output_format":{"type":"json_schema"},"messages":[{"role":"user","content":"a"}]}`, "output_format.schema", "object", ""},
		{"C-29 thread", `{"thread":{"type":"create"},"messages":[{"role":"user","content":"a"}]}`, "thread", "whole conversation", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decodeAnthropic(anthropicExchange(tt.quirk), []byte(tt.in))
			var e *apiError
			if !errors.As(err, &e) {
				t.Fatalf("decodeAnthropic(%s) = %v, want an apiError", tt.in, err)
			}
			if e.Status != 400 || e.Param != tt.param || !strings.Contains(e.Message, tt.message) {
				t.Errorf("decodeAnthropic(%s) = %d, param %q, %q; want 400, %q, with %q", tt.in, e.Status, e.Param, e.Message, tt.param, tt.message)
			}
		})
	}
}

// On the chat path, what is OpenAI's goes on as it is.
func TestDecodeAnthropicMixed(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"A-15", `{"system":"s","messages":[{"role":"user","content":"hi"}]}`, `{"messages":[{"role":"system","content":"s"},{"role":"user","content":"hi"}]}`},
		{"no messages", `{"system":"s","messages":[]}`, `{"messages":[{"role":"system","content":"s"}]}`},
		{"none at all", `{"stop_sequences":["a"],"messages":[]}`, `{"messages":[],"stop":["a"]}`},
		{"messages", `{"system":"s","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a","x":1.0}]},{"role":"tool","tool_call_id":"a","content":"1"},{"role":"developer","content":"d"}]}`,
			`{"messages":[{"role":"system","content":"s"},{"role":"assistant","content":null,"tool_calls":[{"id":"a","x":1.0}]},{"role":"tool","tool_call_id":"a","content":"1"},{"role":"developer","content":"d"}]}`},
		{"parts", `{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":"1"},{"type":"image_url","image_url":{"url":"u"},"x":1.0},{"type":"text","text":"a"},{"type":"input_audio","input_audio":{}},{"type":"file","file":{}}]}]}`,
			`{"messages":[{"role":"tool","tool_call_id":"t","content":"1"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"},"x":1.0},{"type":"text","text":"a"},{"type":"input_audio","input_audio":{}},{"type":"file","file":{}}]}]}`},
		{"tools", `{"messages":[],"tools":[{"type":"function","function":{"name":"g","x":1.0}},{"name":"f","input_schema":{}}],"tool_choice":"auto"}`,
			`{"messages":[],"tools":[{"type":"function","function":{"name":"g","x":1.0}},{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"auto"}`},
		{"keys", `{"system":"s","messages":[],"seed":9007199254740993,"provider":{"b":1,"a":2},"max_tokens":5}`,
			`{"messages":[{"role":"system","content":"s"}],"max_tokens":5,"seed":9007199254740993,"provider":{"b":1,"a":2}}`},
		{"a key that is there already", `{"system":"s","messages":[],"stop_sequences":["a"],"stop":["b"],"metadata":{"user_id":"u"},"user":"v"}`,
			`{"messages":[{"role":"system","content":"s"}],"stop":["b"],"user":"v"}`},
		{"more keys that are there already", `{"messages":[],"thinking":{"type":"disabled"},"reasoning_effort":"high","output_format":{"type":"json_schema","schema":{}},"response_format":{"type":"text"},"tools":[{"name":"f"}],"tool_choice":{"type":"auto","disable_parallel_tool_use":true},"parallel_tool_calls":true}`,
			`{"messages":[],"tools":[{"type":"function","function":{"name":"f"}}],"reasoning_effort":"high","response_format":{"type":"text"},"parallel_tool_calls":true}`},
		{"OpenAI's tool_choice", `{"system":"s","messages":[],"tools":[{"name":"f"}],"tool_choice":{"type":"function","function":{"name":"f"}}}`,
			`{"messages":[{"role":"system","content":"s"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}}`},
		{"OpenAI's allowed_tools", `{"system":"s","messages":[],"tools":[{"name":"f"}],"tool_choice":{"type":"allowed_tools","allowed_tools":{}}}`,
			`{"messages":[{"role":"system","content":"s"}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"allowed_tools","allowed_tools":{}}}`},
		{"the other name of max_tokens", `{"system":"s","messages":[],"max_tokens":5,"max_completion_tokens":6}`, `{"messages":[{"role":"system","content":"s"}],"max_tokens":5,"max_completion_tokens":6}`},
		{"blocks of both", `{"messages":[{"role":"function","name":"f","content":"1"},{"role":"user","content":[{"type":"image","source":{"type":"url","url":"u"}},{"type":"image","x":1},{"type":"search_result","title":"T","source":"S","content":[{"type":"text","text":"a"}]}]},{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"},{"type":"server_tool_use","name":"w","input":{}},{"type":"mcp_tool_use","name":"v","input":{}},{"type":"tool_use","id":"t","name":"f","input":{}}]}]}`,
			`{"messages":[{"role":"function","name":"f","content":"1"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}},{"type":"image","x":1},{"type":"text","text":"T\nS\na"}]},{"role":"assistant","content":"[w] {}\n[v] {}\n","tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]}]}`},
		{"A-19 thoughts of another vendor", `{"system":[{"type":"text","text":"s"},{"type":"x_text"}],"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]}]}]}`,
			`{"messages":[{"role":"system","content":[{"type":"text","text":"s"},{"type":"x_text"}]},{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]}]}]}`},
		{"A-41 no usage unless asked for", `{"system":"s","messages":[],"stream":true}`, `{"messages":[{"role":"system","content":"s"}],"stream":true}`},
		{"A-41 usage asked for", `{"system":"s","messages":[],"stream":true,"stream_options":{"include_usage":true}}`, `{"messages":[{"role":"system","content":"s"}],"stream":true,"stream_options":{"include_usage":true}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange()
			x.dialect = &openai
			if got := decodedAnthropic(t, x, tt.in); got != tt.want {
				t.Errorf("decodeAnthropic(%s) =\n%s\nwant\n%s", tt.in, got, tt.want)
			}
			if len(x.dropped) > 0 {
				t.Errorf("decodeAnthropic(%s) dropped %q, want nothing", tt.in, x.dropped)
			}
		})
	}
}

func FuzzDecodeAnthropic(f *testing.F) {
	for _, name := range []string{"results", "agent"} {
		b, err := os.ReadFile(filepath.Join("testdata", "anthropic", name+".in.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(b), false)
		f.Add(string(b), true)
	}
	f.Add(`{"messages":[{"role":"assistant","content":[{"type":"server_tool_use","input":[]},{"type":"x_tool_result","content":{"content":[{}]}}]}],"tool_choice":{"type":"tool"}}`, false)
	f.Add(`{"system":[{"text":1}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","is_error":true,"content":[{"type":"document","source":{}}]}]}]}`, true)
	f.Add(`{"messages":[{"role":"user","content":[{"type":"thinking","thinking":[]}]}],"stop":1,"stop_sequences":[""]}`, true)
	f.Fuzz(func(t *testing.T, body string, onChatPath bool) {
		if _, err := peek([]byte(body)); err != nil {
			return
		}
		decode := func() []byte {
			x := anthropicExchange("cache_control:pass", "files:on")
			if onChatPath {
				x.dialect = &openai
			}
			q, err := decodeAnthropic(x, []byte(body))
			if err != nil {
				var e *apiError
				if !errors.As(err, &e) || e.Status < 400 || e.Status > 499 {
					t.Fatalf("decodeAnthropic(%s) = %v, want a 4xx", body, err)
				}
				return nil
			}
			b, err := q.body()
			if err != nil || checkJSON(b) != nil {
				t.Fatalf("decodeAnthropic(%s) writes %s (%v)", body, b, err)
			}
			return b
		}
		if first, second := decode(), decode(); !bytes.Equal(first, second) {
			t.Errorf("decodeAnthropic(%s) = %s, then %s", body, first, second)
		}
	})
}
