package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDemoConversation(t *testing.T) {
	chat := func(texts ...string) string {
		var list []string
		for i, text := range texts {
			role := []string{"user", "assistant"}[i%2]
			list = append(list, fmt.Sprintf(`{"role":%q,"content":%q}`, role, text))
		}
		return `{"model":"demo","messages":[` + strings.Join(list, ",") + `]}`
	}
	for _, tt := range []struct{ name, body, want string }{
		{"quotes the user", chat("What is Go?"), "> What is Go?"},
		{"greets", chat("hi"), "Hello!"},
		{"counts one message", chat("hi"), "**1 message**"},
		{"counts the history", chat("hi", "hello", "again"), "**3 messages**"},
		{"learns a name", chat("Hello, my name is Ada."), "Nice to meet you, **Ada**"},
		{"recalls a name", chat("my name is Ada", "hi Ada", "What is my name?"), "Your name is **Ada**"},
		{"recalls the newest name", chat("my name is Ada. No, my name is Bo", "ok", "who am I?"), "Your name is **Bo**"},
		{"a name and the question at once", chat("My name is Ada. What's my name?"), "Your name is **Ada**"},
		{"knows no name", chat("what is my name?"), "not told me your name"},
		{"does not take the assistant's name", chat("hi", "my name is Max", "what is my name?"), "not told me your name"},
		{"Chinese", chat("我叫小明", "你好", "我叫什么名字？"), "Your name is **小明**"},
		{"counts", chat("please count to 5"), "1 2 3 4 5"},
		{"Markdown", chat("show me markdown"), "fmt.Println(\"hello, <world>\")"},
		{"text parts", `{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"a "},{"type":"text","text":"b"}]}]}`, "> a b"},
		{"images", `{"model":"demo","messages":[{"role":"user","content":[{"type":"text","text":"look"},
			{"type":"image_url","image_url":{"url":"data:image/png;base64,AAECAw=="}},{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`, "**2 images** (4 bytes)"},
		{"null content", `{"model":"demo","messages":[{"role":"assistant","content":null},{"role":"user","content":"hi"}]}`, "**2 messages**"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := demoWhole(t, tt.body)
			if text := *got.Choices[0].Message.Content; !strings.Contains(text, tt.want) {
				t.Errorf("%s answers %q, want %q in it", tt.body, text, tt.want)
			}
		})
	}
}

func TestDemoTools(t *testing.T) {
	const weather = `{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{
		"city":{"type":"string"},"days":{"type":"integer","minimum":1},"unit":{"enum":["c","f"]},"note":{"type":"string"}},"required":["city","days","unit"]}}}`
	const clock = `{"type":"function","function":{"name":"clock"}}`
	const asked = `{"role":"user","content":"The weather in New York for 3 days?"}`
	const both = `{"role":"user","content":"call both"}`
	for _, tt := range []struct{ name, extra, messages, want string }{
		{"first tool, arguments from text", `"tools":[` + weather + `,` + clock + `]`, asked, `weather {"city":"New York","days":3,"unit":"c"}`},
		{"no parameters", `"tools":[` + clock + `]`, asked, `clock {}`},
		{"named", `"tools":[` + weather + `,` + clock + `],"tool_choice":{"type":"function","function":{"name":"clock"}}`, asked, `clock {}`},
		{"both", `"tools":[` + clock + `,` + weather + `]`, both, `clock {};weather {"city":"city","days":1,"unit":"c"}`},
		{"both, one at a time", `"parallel_tool_calls":false,"tools":[` + clock + `,` + weather + `]`, both, `clock {}`},
		{"required", `"tools":[` + clock + `],"tool_choice":"required"`, asked, `clock {}`},
		{"none", `"tools":[` + clock + `],"tool_choice":"none"`, asked, ``},
		{"no tools", `"n":1`, asked, ``},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := demoWhole(t, `{"model":"demo-tools",`+tt.extra+`,"messages":[`+tt.messages+`]}`).Choices[0]
			var calls []string
			for _, c := range got.Message.ToolCalls {
				calls = append(calls, c.Function.Name+" "+c.Function.Arguments)
				if c.Type != "function" || !strings.HasPrefix(c.ID, "call_") {
					t.Errorf("call %+v", c)
				}
			}
			if s := strings.Join(calls, ";"); s != tt.want {
				t.Errorf("calls %s, want %s", s, tt.want)
			}
			if wantText := tt.want == ""; (got.Message.Content != nil) != wantText || (*got.FinishReason == "stop") != wantText {
				t.Errorf("content %v, finish %q", got.Message.Content, *got.FinishReason)
			}
		})
	}
}

func TestDemoToolResult(t *testing.T) {
	got := demoWhole(t, `{"model":"demo-tools","tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"go"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}]},
		{"role":"tool","tool_call_id":"b","content":"18 degrees"},{"role":"tool","tool_call_id":"a","content":"rain"}]}`)
	if text := *got.Choices[0].Message.Content; !strings.Contains(text, "> 18 degrees\n> rain") || *got.Choices[0].FinishReason != "stop" {
		t.Errorf("after the tools: %q", text)
	}
}

func TestDemoReasoning(t *testing.T) {
	got := demoWhole(t, `{"model":"demo-reasoning","messages":[{"role":"user","content":"hi"}]}`)
	m := got.Choices[0].Message
	if n := got.Usage.CompletionTokensDetails.ReasoningTokens; m.ReasoningContent == "" || n != len(demoTokens(m.ReasoningContent)) || n >= got.Usage.CompletionTokens {
		t.Errorf("reasoning %q, usage %+v", m.ReasoningContent, *got.Usage)
	}
	chunks, _, _ := demoChunks(t, "/v1/chat/completions", `{"model":"demo-reasoning","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
	if d := chunks[1].Choices[0].Delta; d.ReasoningContent == "" || d.Content != nil {
		t.Errorf("reasoning does not come first: %+v", d)
	}
}

func TestDemoSchema(t *testing.T) {
	const text = "Book a table for Grace Hopper, 4 people"
	for _, tt := range []struct{ name, schema, want string }{
		{"types", `{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"integer"},"c":{"type":"number"},"d":{"type":"boolean"},"e":{"type":"null"}},"required":["e","d","c","b","a"]}`,
			`{"e":null,"d":true,"c":4,"b":4,"a":"Grace Hopper"}`},
		{"nothing required", `{"type":"object","properties":{"b":{"type":"boolean"},"a":{"type":"boolean"}}}`, `{"a":true,"b":true}`},
		{"bounds", `{"type":"object","properties":{"low":{"type":"integer","minimum":10},"high":{"type":"number","maximum":2.5},"long":{"type":"string","minLength":14}},"required":["low","high","long"]}`,
			`{"low":10,"high":2.5,"long":"Grace Hopper.."}`},
		{"enum and const", `{"properties":{"e":{"enum":["x","y"]},"c":{"const":{"k":[1]}}},"required":["e","c"]}`, `{"e":"x","c":{"k":[1]}}`},
		{"list", `{"type":"array","items":{"type":"integer"},"minItems":2}`, `[4,4]`},
		{"nullable", `{"type":["integer","null"]}`, `4`},
		{"formats", `{"type":"object","properties":{"d":{"type":"string","format":"date"},"u":{"type":"string","format":"uuid"}}}`, `{"d":"2026-01-15","u":"123e4567-e89b-42d3-a456-426614174000"}`},
		{"references", `{"$defs":{"P":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}},"type":"object","properties":{"p":{"$ref":"#/$defs/P"},"q":{"anyOf":[{"$ref":"#/$defs/P"},{"type":"null"}]}},"required":["p","q"]}`,
			`{"p":{"n":4},"q":{"n":4}}`},
		{"unknown property", `{"type":"object","required":["x"]}`, `{"x":null}`},
		{"anything", `{"type":"object","properties":{"x":true}}`, `{"x":"Grace Hopper"}`},
		{"empty", `{}`, `{}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := demoWhole(t, `{"model":"demo","response_format":{"type":"json_schema","json_schema":{"name":"r","schema":`+tt.schema+`}},"messages":[{"role":"user","content":"`+text+`"}]}`)
			if s := *got.Choices[0].Message.Content; s != tt.want {
				t.Errorf("%s gives %s, want %s", tt.schema, s, tt.want)
			}
		})
	}
}

func TestDemoRecursiveSchema(t *testing.T) {
	for _, schema := range []string{
		`{"type":"object","properties":{"next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["next"]}`,
		`{"$defs":{"N":{"type":"object","properties":{"kids":{"type":"array","items":{"$ref":"#/$defs/N"}}},"required":["kids"]}},"$ref":"#/$defs/N"}`,
		`{"$ref":"#"}`,
	} {
		got := demoWhole(t, `{"model":"demo","response_format":{"type":"json_schema","json_schema":{"schema":`+schema+`}},"messages":[{"role":"user","content":"hi"}]}`)
		if s := *got.Choices[0].Message.Content; !json.Valid([]byte(s)) {
			t.Errorf("%s gives %s", schema, s)
		}
	}
}

func TestDemoJSONObject(t *testing.T) {
	got := demoWhole(t, `{"model":"demo","response_format":{"type":"json_object"},"messages":[{"role":"user","content":"count to 3"}]}`)
	if s := *got.Choices[0].Message.Content; s != `{"answer":"1 2 3"}` {
		t.Errorf("json_object gives %s", s)
	}
}

func TestDemoEcho(t *testing.T) {
	image := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3}, 20_000))
	for _, body := range []string{
		`{ "z":1.0,"model" : "demo-echo","messages":[{"role":"user","content":"\u00e9 <b> 你好"}],"seed":9007199254740993,"x":{"b":1e2,"a":null} }`,
		`{"model":"demo-echo","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + image + `"}}]}]}`,
	} {
		if got := *demoWhole(t, body).Choices[0].Message.Content; got != body {
			t.Errorf("echo of %.200s is %.200s", body, got)
		}
		body = strings.Replace(body, `"messages"`, `"stream":true,"messages"`, 1)
		chunks, done, _ := demoChunks(t, "/v1/chat/completions", body)
		if got, _, _, _ := demoGather(chunks, 0); got != body || !done || len(chunks) > 40 {
			t.Errorf("streamed echo of %.200s is %.200s, [DONE] %v, %d chunks", body, got, done, len(chunks))
		}
	}
}

func FuzzDemoTokens(f *testing.F) {
	f.Add("Hello, world! 你好 😀\n\n a")
	f.Add(strings.Repeat("x", 100))
	f.Fuzz(func(t *testing.T, text string) {
		tokens := demoTokens(text)
		if got := strings.Join(tokens, ""); got != text {
			t.Errorf("tokens join to %q, want %q", got, text)
		}
		for _, token := range tokens {
			if token == "" || len(token) > 16+utf8.UTFMax && utf8.ValidString(text) {
				t.Errorf("token %q of %q", token, text)
			}
		}
	})
}

func FuzzDemoFill(f *testing.F) {
	f.Add(`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`, "in Paris 5")
	f.Add(`{"type":"array","items":{"enum":[1,{"x":null}]},"minItems":3}`, "")
	f.Fuzz(func(t *testing.T, schema, text string) {
		var s *demoSchema
		if json.Unmarshal([]byte(schema), &s) != nil {
			return
		}
		if got := demoFill(s, text); !json.Valid(got) {
			t.Errorf("schema %s, text %q: %s", schema, text, got)
		}
	})
}
