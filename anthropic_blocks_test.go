package main

import (
	"strings"
	"testing"
)

func TestDecodeAnthropicMessages(t *testing.T) {
	const png = `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}}`
	const pngPart = `{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}`
	user := func(content string) string { return `[{"role":"user","content":` + content + `}]` }
	result := func(content string) string {
		return user(`[{"type":"tool_result","tool_use_id":"t",` + content + `}]`)
	}
	tool := func(content string) string { return `[{"role":"tool","tool_call_id":"t","content":` + content + `}]` }
	attached := func(part string) string {
		return `,{"role":"user","content":[{"type":"text","text":"Attachment of tool call t:"},` + part + `]}]`
	}
	bot := func(content string) string {
		return `[{"role":"user","content":"q"},{"role":"assistant","content":` + content + `},{"role":"user","content":"r"}]`
	}
	said := func(message string) string {
		if message != "" {
			message = `{"role":"assistant","content":` + message + `},`
		}
		return `[{"role":"user","content":"q"},` + message + `{"role":"user","content":"r"}]`
	}
	for _, tt := range []struct{ name, in, want, quirk, dropped string }{
		{"C-12 system in place", `[{"role":"user","content":"a"},{"role":"system","content":"s"},{"role":"user","content":"b"}]`,
			`[{"role":"user","content":"a"},{"role":"system","content":"s"},{"role":"user","content":"b"}]`, "", ""},
		{"C-12 single_system", `[{"role":"system","content":"s0"},{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"s"}]}]`,
			`[{"role":"system","content":"s0"},{"role":"user","content":"a"},{"role":"user","content":"<system>s</system>"}]`, "single_system:on", ""},
		{"C-30 texts", user(`[{"type":"text","text":"a"},{"type":"text","text":""},{"type":"text","text":"b"}]`), user(`"a\n\nb"`), "", ""},
		{"C-30 nothing", user(`[]`), user(`""`), "", ""},
		{"C-30 nothing but empty text", user(`[{"type":"text","text":""}]`), user(`""`), "", ""},
		{"C-26 cache_control", user(`[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]`), user(`"a"`), "", ""},
		{"C-26 null with cache_control:pass", user(`[{"type":"text","text":"a","cache_control":null}]`), user(`"a"`), "cache_control:pass", ""},
		{"C-26 cache_control:pass", user(`[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`),
			user(`[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`), "cache_control:pass", ""},
		{"C-31 image", user(`[{"type":"text","text":"a"},` + png + `]`), user(`[{"type":"text","text":"a"},` + pngPart + `]`), "", ""},
		{"C-32 image by url", user(`[{"type":"image","source":{"type":"url","url":"https://e.com/a?b&c"}}]`),
			user(`[{"type":"image_url","image_url":{"url":"https://e.com/a?b&c"}}]`), "", ""},
		{"C-33 file", user(`[{"type":"document","source":{"type":"file","file_id":"f1"}}]`), user(`[{"type":"file","file":{"file_id":"f1"}}]`), "files:on", ""},
		{"C-34 pdf", user(`[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]`),
			user(`[{"type":"file","file":{"filename":"document.pdf","file_data":"data:application/pdf;base64,JVBE"}}]`), "", ""},
		{"C-34 pdf with a title", user(`[{"type":"document","title":"a.pdf","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]`),
			user(`[{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}}]`), "", ""},
		{"C-35 text document", user(`[{"type":"document","title":"T","context":"C","source":{"type":"text","media_type":"text/plain","data":"body"}}]`), user(`"T\nC\nbody"`), "", ""},
		{"C-36 content document", user(`[{"type":"document","source":{"type":"content","content":[{"type":"text","text":"a"},` + png + `]}}]`),
			user(`[{"type":"text","text":"a"},` + pngPart + `]`), "", ""},
		{"C-36 content string", user(`[{"type":"document","source":{"type":"content","content":"a"}}]`), user(`"a"`), "", ""},
		{"C-37 document by url", user(`[{"type":"document","source":{"type":"url","url":"https://e.com/a.pdf"}}]`),
			user(`[{"type":"file","file":{"filename":"document.pdf","file_data":"https://e.com/a.pdf"}}]`), "files:on", ""},
		{"C-38 search_result", user(`[{"type":"search_result","title":"T","source":"https://e.com","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"citations":{"enabled":true}}]`),
			user(`"T\nhttps://e.com\na\nb"`), "", ""},
		{"C-39 result string", result(`"content":"1"`), tool(`"1"`), "", ""},
		{"C-40 result texts", result(`"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]`), tool(`"a\n\nb"`), "", ""},
		{"C-41 result missing", result(`"is_error":false`), tool(`""`), "", ""},
		{"C-41 result null", result(`"content":null`), tool(`""`), "", ""},
		{"C-41 result empty", result(`"content":[]`), tool(`""`), "", ""},
		{"C-42 image alone", result(`"content":[` + png + `]`), strings.TrimSuffix(tool(`"[image]"`), "]") + attached(pngPart), "", ""},
		{"C-42 document alone", result(`"content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBE"}}]`),
			strings.TrimSuffix(tool(`"[document]"`), "]") + attached(`{"type":"file","file":{"filename":"document.pdf","file_data":"data:application/pdf;base64,JVBE"}}`), "", ""},
		{"C-43 inner search_result", result(`"content":[{"type":"search_result","title":"T","source":"S","content":[{"type":"text","text":"a"}]}]`), tool(`"T\nS\na"`), "", ""},
		{"C-43 tool_reference", result(`"content":[{"type":"tool_reference","tool_name":"grep"}]`), tool(`"tool: grep"`), "", ""},
		{"C-43 unknown inner type", result(`"content":[{"type":"odd", "b":1.0,"a":2}]`), tool(`"{\"type\":\"odd\",\"b\":1.0,\"a\":2}"`), "", ""},
		{"C-44 error", result(`"is_error":true,"content":"no"`), tool(`"Error: no"`), "", ""},
		{"C-44 says so already", result(`"is_error":true,"content":"Error 5"`), tool(`"Error 5"`), "", ""},
		{"C-44 in a tag", result(`"is_error":true,"content":"<error>no</error>"`), tool(`"<error>no</error>"`), "", ""},
		{"C-44 in parts", result(`"is_error":true,"content":[{"type":"text","text":"no","cache_control":{"type":"ephemeral"}}]`), tool(`[{"type":"text","text":"Error: no","cache_control":{"type":"ephemeral"}}]`), "cache_control:pass", ""},
		{"C-45 dropped", user(`[{"type":"container_upload","file_id":"f"},{"type":"web_search_tool_result","tool_use_id":"x","content":[]},{"type":"text","text":"a"}]`),
			user(`"a"`), "", "container_upload,web_search_tool_result"},

		{"C-50 texts are one", bot(`[{"type":"text","text":"a "},{"type":"text","text":"b"}]`), said(`"a b"`), "", ""},
		{"C-51 digits and order", bot(`[{"type":"tool_use","id":"t","name":"f","input":{"z": 9007199254740993, "a": 1.0}}]`),
			said(`null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{\"z\":9007199254740993,\"a\":1.0}"}}]`), "", ""},
		{"C-51 C-55 no input", bot(`[{"type":"tool_use","id":"t","name":"f"}]`),
			said(`null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]`), "", ""},
		{"C-52 reasoning_content", bot(`[{"type":"thinking","thinking":"hm","signature":"apx1.c."},{"type":"text","text":"a"}]`), said(`"a","reasoning_content":"hm"`), "", ""},
		{"C-52 reasoning", bot(`[{"type":"thinking","thinking":"hm","signature":"apx1.r."},{"type":"text","text":"a"},{"type":"thinking","thinking":"!","signature":"apx1.r."}]`), said(`"a","reasoning":"hm!"`), "", ""},
		{"C-52 reasoning_details", bot(`[{"type":"thinking","thinking":"hm","signature":"apx1.d.W3siYSI6MX1d"},{"type":"text","text":"a"}]`), said(`"a","reasoning_details":[{"a":1}]`), "", ""},
		{"C-52 C-53 one's own before another's", bot(`[{"type":"thinking","thinking":"hm","signature":"apx1.c."},{"type":"thinking","thinking":"x","signature":"EqQB"},{"type":"text","text":"a"}]`), said(`"a","reasoning_content":"hm"`), "", ""},
		{"C-52 of two upstreams, the last", bot(`[{"type":"thinking","thinking":"h","signature":"apx1.c."},{"type":"thinking","thinking":"m","signature":"apx1.r."},{"type":"text","text":"a"}]`), said(`"a","reasoning":"m"`), "", ""},
		{"C-52 the last details are all", bot(`[{"type":"thinking","thinking":"h","signature":"apx1.d.W10"},{"type":"thinking","thinking":"m","signature":"apx1.d.W3siYSI6MX1d"},{"type":"text","text":"a"}]`), said(`"a","reasoning_details":[{"a":1}]`), "", ""},
		{"C-26 assistant", bot(`[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`), said(`[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`), "cache_control:pass", ""},
		{"C-53 foreign", bot(`[{"type":"thinking","thinking":"hm","signature":"EqQB"},{"type":"thinking","thinking":"hm","signature":""},{"type":"redacted_thinking","data":"x"},{"type":"text","text":"a"}]`), said(`"a"`), "", ""},
		{"C-54 server tool", bot(`[{"type":"text","text":"Let me look."},{"type":"server_tool_use","id":"s","name":"web_search","input":{"query": "x"}},{"type":"web_search_tool_result","tool_use_id":"s","content":[{"type":"web_search_result","title":"T","url":"U","encrypted_content":"e"}]},{"type":"text","text":"Found."}]`),
			said(`"Let me look.\n[web_search] {\"query\":\"x\"}\nT\nU\nFound."`), "", ""},
		{"C-54 its output", bot(`[{"type":"mcp_tool_use","name":"run"},{"type":"code_execution_tool_result","content":{"type":"code_execution_result","stdout":"1","stderr":"2","content":[]}},{"type":"mcp_tool_result","content":[{"type":"text","text":"a"},{"x":1.0}]}]`), said(`"[run] {}\n1\n2\na\n{\"x\":1.0}\n"`), "", ""},
		{"C-54 a string", bot(`[{"type":"bash_code_execution_tool_result","content":"1"}]`), said(`"1\n"`), "", ""},
		{"C-54 deep inside", bot(`[{"type":"mcp_tool_result","content":[{"content":[{"content":[{"text":"a"}]}]}]}]`), said(`"[{\"text\":\"a\"}]\n"`), "", ""},
		{"C-54 its error", bot(`[{"type":"web_search_tool_result","tool_use_id":"s","content":{"type":"web_search_tool_result_error","error_code":"unavailable"}}]`), said(`"unavailable\n"`), "", ""},
		{"C-56 text after a call", bot(`[{"type":"text","text":"a"},{"type":"tool_use","id":"t","name":"f","input":{}},{"type":"text","text":"b"}]`),
			said(`"ab","tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]`), "", ""},
		{"C-57 empty string", bot(`""`), said(``), "", ""},
		{"C-57 empty list", bot(`[]`), said(``), "", ""},
		{"C-57 null", bot(`null`), said(``), "", ""},
		{"C-57 only foreign thoughts", bot(`[{"type":"redacted_thinking","data":"x"}]`), said(``), "", ""},
		{"C-58 prefill", `[{"role":"user","content":"q"},{"role":"assistant","content":"{"}]`, `[{"role":"user","content":"q"},{"role":"assistant","content":"{"}]`, "", ""},
		{"C-58 prefill:continue", `[{"role":"user","content":"q"},{"role":"assistant","content":"{"}]`,
			`[{"role":"user","content":"q"},{"role":"assistant","content":"{"}],"continue_final_message":true,"add_generation_prompt":false`, "prefill:continue", ""},
		{"C-58 prefill:continue, nothing to go on from", user(`"q"`), user(`"q"`), "prefill:continue", ""},
		{"C-58 prefill:continue, a call", bot(`[{"type":"tool_use","id":"t","name":"f"}]`), said(`null,"tool_calls":[{"id":"t","type":"function","function":{"name":"f","arguments":"{}"}}]`), "prefill:continue", ""},
		{"C-59 kept apart", `[{"role":"user","content":"a"},{"role":"user","content":"b"}]`, `[{"role":"user","content":"a"},{"role":"user","content":"b"}]`, "", ""},
		{"C-59 alternate:strict", `[{"role":"user","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]},{"role":"user","content":[` + png + `]}]`,
			`[{"role":"user","content":"a\n\nb"},{"role":"user","content":[` + pngPart + `]}]`, "alternate:strict", ""},
		{"C.3 results in two messages, with text between", `[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f"},{"type":"tool_use","id":"b","name":"f"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"},{"type":"text","text":"x"}]},{"role":"system","content":"s"},{"role":"user","content":[{"type":"tool_result","tool_use_id":"b","content":"2"},{"type":"text","text":"y"}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"1"},{"role":"tool","tool_call_id":"b","content":"2"},{"role":"user","content":"x"},{"role":"system","content":"s"},{"role":"user","content":"y"}]`, "", ""},
		{"C.3 a result of another message's call", `[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f"}]},{"role":"user","content":"x"},{"role":"user","content":[{"type":"tool_result","tool_use_id":"z","content":"2"}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"x"},{"role":"tool","tool_call_id":"z","content":"2"}]`, "", ""},
		{"tool changes", `[{"role":"user","content":[{"type":"tool_addition","tool":{"type":"tool_reference","name":"f"}},{"type":"text","text":"a"}]},{"role":"system","content":[{"type":"tool_removal","tool":{"type":"tool_reference","name":"f"}}]}]`,
			user(`"a"`), "", "tool_addition,tool_removal"},
		{"compaction", bot(`[{"type":"compaction","content":"We spoke of a."},{"type":"compaction","content":null},{"type":"text","text":"b"}]`), said(`"We spoke of a.\nb"`), "", ""},
		{"unknown block of an assistant", bot(`[{"type":"fallback"},{"type":"text","text":"a"}]`), said(`"a"`), "", "fallback"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := anthropicExchange(tt.quirk)
			got := decodedAnthropic(t, x, `{"messages":`+tt.in+`}`)
			if want := `{"messages":` + tt.want + `}`; got != want {
				t.Errorf("decodeAnthropic(%s) =\n%s\nwant\n%s", tt.in, got, want)
			}
			if dropped := strings.Join(x.dropped, ","); dropped != tt.dropped {
				t.Errorf("decodeAnthropic(%s) dropped %q, want %q", tt.in, dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeAnthropicSystem(t *testing.T) {
	for _, tt := range []struct{ name, in, want, quirk string }{
		{"C-10 string", `"s"`, `{"role":"system","content":"s"},`, ""},
		{"C-10 blocks", `[{"type":"text","text":"a"},{"type":"text","text":"b"}]`, `{"role":"system","content":"a\n\nb"},`, ""},
		{"C-10 empty", `""`, ``, ""},
		{"C-10 no blocks", `[]`, ``, ""},
		{"C-11 billing block", `[{"type":"text","text":"x-anthropic-billing-header: a=b; cch=1;"},{"type":"text","text":"s"}]`, `{"role":"system","content":"s"},`, ""},
		{"C-11 billing line", `"x-anthropic-billing-header: cch=1;\nYou\nx-anthropic-billing-header: stays"`, `{"role":"system","content":"You\nx-anthropic-billing-header: stays"},`, ""},
		{"C-11 not at the start", `" x-anthropic-billing-header: stays"`, `{"role":"system","content":" x-anthropic-billing-header: stays"},`, ""},
		{"C-26 pass", `[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]`, `{"role":"system","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]},`, "cache_control:pass"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const user = `{"role":"user","content":"x-anthropic-billing-header: stays"}`
			got := decodedAnthropic(t, anthropicExchange(tt.quirk), `{"system":`+tt.in+`,"messages":[`+user+`]}`)
			if want := `{"messages":[` + tt.want + user + `]}`; got != want {
				t.Errorf("decodeAnthropic(system %s) =\n%s\nwant\n%s", tt.in, got, want)
			}
		})
	}
}

// A longer conversation begins with the bytes of the shorter one, or upstreams'
// prompt caches are lost (G-5).
func TestDecodeAnthropicExtends(t *testing.T) {
	turns := []string{
		`{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}}]}`,
		`{"role":"assistant","content":[{"type":"thinking","thinking":"h","signature":"apx1.c."},{"type":"tool_use","id":"t","name":"a.b","input":{"b":1,"a":2}}]}`,
		`{"role":"user","content":[{"type":"text","text":"b"},{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"url","url":"u"}}]}]}`,
		`{"role":"system","content":"s"}`,
		`{"role":"user","content":"c"}`,
	}
	before := ""
	for i := range turns {
		in := `{"system":"x-anthropic-billing-header: ` + strings.Repeat("z", i) + `\ns","messages":[` + strings.Join(turns[:i+1], ",") + `]}`
		got := strings.TrimSuffix(decodedAnthropic(t, anthropicExchange(), in), "]}")
		if !strings.HasPrefix(got, before) {
			t.Errorf("turn %d =\n%s\ndoes not begin with\n%s", i, got, before)
		}
		before = got
	}
}
