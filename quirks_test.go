package main

import (
	"strings"
	"testing"
)

// withQuirks sets UPSTREAM_QUIRKS.
func withQuirks(quirks ...string) func(*config) {
	return func(c *config) { c.Quirks = quirks }
}

func TestQuirkToolID9(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")), withQuirks("tool_id_9:on"))
	for path, body := range map[string]string{
		messagesPath:  `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"toolu_01A","name":"f","input":{}},{"type":"tool_use","id":"abcDEF123","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_01A","content":"1"},{"type":"tool_result","tool_use_id":"abcDEF123","content":"2"}]}]}`,
		responsesPath: `{"model":"m","input":[{"role":"user","content":"a"},{"type":"function_call","call_id":"call_x","name":"f","arguments":"{}"},{"type":"function_call","call_id":"abcDEF123","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"call_x","output":"1"},{"type":"function_call_output","call_id":"abcDEF123","output":"2"}]}`,
	} {
		g.ok(path, body)
		sent := g.last().Body
		first := text([]byte(at(t, sent, "messages.1.tool_calls.0.id")))
		if nineID(first) != first || len(first) != 9 {
			t.Errorf("%s: the id became %q", path, first)
		}
		wants(t, sent, map[string]string{
			"messages.2.tool_call_id": `"` + first + `"`, "messages.1.tool_calls.1.id": `"abcDEF123"`, "messages.3.tool_call_id": `"abcDEF123"`,
		})
	}
	if nineID("functions.f:0") == nineID("functions.f:1") {
		t.Error("two ids became one")
	}
}

// A call that the session holds and its result keep the same id.
func TestQuirkToolID9InASession(t *testing.T) {
	g := newGateway(t, talkUpstream, withQuirks("tool_id_9:on"))
	const tools = `"tools":[{"name":"f","input_schema":{"type":"object"}}]`
	first := g.ok(messagesPath, `{"model":"m","max_tokens":9,`+tools+`,"messages":[{"role":"user","content":"call functions.f:0"}]}`, "X-Session-Id: s")
	wants(t, first, map[string]string{"content.0.id": `"functions.f:0"`})
	g.ok(messagesPath, `{"model":"m","max_tokens":9,`+tools+`,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"functions.f:0","content":"1"}]}]}`, "X-Session-Id: s")
	id := `"` + nineID("functions.f:0") + `"`
	wants(t, g.last().Body, map[string]string{"messages.0.role": `"user"`, "messages.1.tool_calls.0.id": id, "messages.2.tool_call_id": id, "messages.3": ""})
}

func TestQuirkSchema(t *testing.T) {
	for _, tt := range []struct{ name, schema, want string }{
		{"refused words", `{"$schema":"s","$id":"i","type":"object","additionalProperties":false,"properties":{"a":{"const":1}}}`, `{"type":"object","properties":{"a":{"enum":[1]}}}`},
		{"properties with their names", `{"properties":{"const":{"type":"string"},"$id":{"type":"object","additionalProperties":{}}}}`, `{"properties":{"const":{"type":"string"},"$id":{"type":"object"}}}`},
		{"inside lists and definitions", `{"anyOf":[{"const":"a"},{"$id":"x"}],"$defs":{"d":{"const":{"const":1}}},"items":{"$schema":"s","maxItems":3}}`, `{"anyOf":[{"enum":["a"]},{}],"$defs":{"d":{"enum":[{"const":1}]}},"items":{"maxItems":3}}`},
		{"values are left alone", `{"default":{"const":1},"enum":[{"$id":1}],"const":2,"required":["const"]}`, `{"default":{"const":1},"enum":[{"$id":1}],"required":["const"]}`},
		{"no object", `true`, `true`},
		{"empty", `{"$schema":"s"}`, `{}`},
		{"numbers and order", `{"z":1.0,"a":12345678901234567890}`, `{"z":1.0,"a":12345678901234567890}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(schemaForGemini([]byte(tt.schema))); got != tt.want {
				t.Errorf("schemaForGemini(%s) = %s, want %s", tt.schema, got, tt.want)
			}
		})
	}
	const schema = `{"$schema":"s","type":"object","properties":{},"additionalProperties":false}`
	g := newGateway(t, answerJSON(200, completion("ok")), withQuirks("schema:gemini"))
	g.ok(messagesPath, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}],"tools":[{"name":"f","input_schema":`+schema+`}],"output_config":{"format":{"type":"json_schema","schema":`+schema+`}}}`)
	wants(t, g.last().Body, map[string]string{"tools.0.function.parameters": `{"type":"object","properties":{}}`, "response_format.json_schema.schema": `{"type":"object","properties":{}}`})
	g = newGateway(t, answerJSON(200, completion("ok")))
	g.ok(messagesPath, `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"a"}],"tools":[{"name":"f","input_schema":`+schema+`}]}`)
	wants(t, g.last().Body, map[string]string{"tools.0.function.parameters": schema})
}

// Roles come in the order that strict upstreams take (AC-26).
func TestQuirkSystemAndAlternation(t *testing.T) {
	const body = `{"model":"m","max_tokens":9,"system":"s","messages":[{"role":"user","content":"a"},{"role":"system","content":"t"},{"role":"user","content":"b"}]}`
	for _, tt := range []struct {
		name     string
		quirks   []string
		messages string
	}{
		{"off", nil, `[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"system","content":"t"},{"role":"user","content":"b"}]`},
		{"single_system", []string{"single_system:on"}, `[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"user","content":"<system>t</system>"},{"role":"user","content":"b"}]`},
		{"both", []string{"single_system:on", "alternate:strict"}, `[{"role":"system","content":"s"},{"role":"user","content":"a\n\n<system>t</system>\n\nb"}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, answerJSON(200, completion("ok")), withQuirks(tt.quirks...))
			g.ok(messagesPath, body)
			if got := g.sent("messages"); got != tt.messages {
				t.Errorf("sent %s, want %s", got, tt.messages)
			}
		})
	}
	g := newGateway(t, answerJSON(200, completion("ok")), withQuirks("alternate:strict"))
	g.ok(responsesPath, `{"model":"m","input":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}`)
	if got := g.sent("messages"); got != `[{"role":"user","content":"a\n\nb"}]` {
		t.Errorf("responses: sent %s", got)
	}
}

func TestQuirkToolsWithHistory(t *testing.T) {
	const turns = `"contents":[{"role":"user","parts":[{"text":"x"}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{}}},{"functionCall":{"name":"f","args":{}}}]},{"role":"user","parts":[{"functionResponse":{"name":"f","response":{}}}]}]`
	g := newGateway(t, answerJSON(200, completion("ok")), withQuirks("tools_required_with_history:on"))
	g.ok(geminiPath, `{`+turns+`}`)
	wants(t, g.last().Body, map[string]string{"tools": `[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]`, "tool_choice": `"none"`})
	g.ok(geminiPath, geminiHi)
	wants(t, g.last().Body, map[string]string{"tools": "", "tool_choice": ""})
	g.ok(geminiPath, `{`+turns+`,"tools":[{"functionDeclarations":[{"name":"g"}]}]}`)
	wants(t, g.last().Body, map[string]string{"tools.0.function.name": `"g"`, "tools.1": "", "tool_choice": ""})
}

func FuzzSchemaForGemini(f *testing.F) {
	for _, seed := range []string{`{"$schema":"s","properties":{"a":{"const":1}}}`, `{"anyOf":[{},1]}`, `[]`, `{"a" : [ 1 , {"$id":{}} ] }`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, schema string) {
		if checkJSON([]byte(schema)) != nil {
			return
		}
		once := schemaForGemini([]byte(strings.TrimSpace(schema)))
		if err := checkJSON(once); err != nil {
			t.Fatalf("%q became %q: %v", schema, once, err)
		}
		if twice := schemaForGemini(once); string(twice) != string(once) {
			t.Fatalf("%q became %q, and that %q", schema, once, twice)
		}
	})
}
