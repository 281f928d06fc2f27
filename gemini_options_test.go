package main

import (
	"strings"
	"testing"
)

// decodeGeminiOptions decodes "hi" with more members, and gives what the chat
// body has besides model and messages.
func decodeGeminiOptions(x *exchange, more string) string {
	got := decodeGeminiTo(x, `{"contents":"hi",`+more+`}`)
	rest, ok := strings.CutPrefix(got, `{"model":"m","messages":[{"role":"user","content":"hi"}]`)
	if !ok {
		return got
	}
	return strings.TrimPrefix(strings.TrimSuffix(rest, "}"), ",")
}

func TestDecodeGeminiTools(t *testing.T) {
	tool := func(name string) string {
		return `{"type":"function","function":{"name":"` + name + `","parameters":{"type":"object","properties":{}}}}`
	}
	const three = `"tools":[{"functionDeclarations":[{"name":"a"},{"name":"b"}]},{"function_declarations":[{"name":"c"}]}],`
	all := `"tools":[` + tool("a") + `,` + tool("b") + `,` + tool("c") + `]`
	mode := func(s string) string { return `"toolConfig":{"functionCallingConfig":` + s + `}` }
	for _, tt := range []struct{ name, in, want, dropped string }{
		{"B-17 B-61c", three + `"labels":{}`, all, ""},
		{"B-18", `"tools":[{"googleSearch":{}},{"codeExecution":{}},{"google_maps":{}}]`, "", "tools.googleSearch tools.codeExecution tools.googleMaps"},
		{"B-20", `"toolConfig":{"retrievalConfig":{},"includeServerSideToolInvocations":true}`, "", ""},
		{"B-61a", `"tools":[{"functionDeclarations":[{"name":"f","description":"d","parameters":{"type":"OBJECT","properties":{"x":{"type":"STRING"}}},"response":{"type":"STRING"},"behavior":"BLOCKING"}]}]`,
			`"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{"x":{"type":"string"}}}}}]`, ""},
		{"B-61b", `"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT"},"parametersJsonSchema":{"type":"object","$schema":"s", "required":[]}}]}]`,
			`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","$schema":"s","required":[]}}}]`, ""},
		{"B-61d", `"tools":[{"functionDeclarations":[{"name":"a","response":{},"responseJsonSchema":{},"behavior":"BLOCKING"}]}]`, `"tools":[` + tool("a") + `]`, ""},
		{"B-61e MODE_UNSPECIFIED", three + mode(`{"mode":"MODE_UNSPECIFIED"}`), all, ""},
		{"B-61e mode null", three + mode(`{"mode":null}`), all, ""},
		{"B-61i AUTO", three + mode(`{"mode":"AUTO","allowedFunctionNames":["c","a"]}`), `"tools":[` + tool("a") + `,` + tool("c") + `]`, ""},
		{"B-61j NONE", mode(`{"mode":"NONE","allowedFunctionNames":["a"]}`), "", ""},
		{"B-61e AUTO", three + mode(`{"mode":"AUTO"}`), all, ""},
		{"B-61e VALIDATED", three + mode(`{"mode":"VALIDATED"}`), all, ""},
		{"B-61e no mode", three + mode(`{}`), all, ""},
		{"B-61f", three + mode(`{"mode":"NONE"}`), all + `,"tool_choice":"none"`, ""},
		{"B-61g", three + mode(`{"mode":"ANY"}`), all + `,"tool_choice":"required"`, ""},
		{"B-61h", three + mode(`{"mode":"ANY","allowedFunctionNames":["b"]}`), all + `,"tool_choice":{"type":"function","function":{"name":"b"}}`, ""},
		{"B-61i H-12", three + mode(`{"mode":"ANY","allowed_function_names":["c","a"]}`), `"tools":[` + tool("a") + `,` + tool("c") + `],"tool_choice":"required"`, ""},
		{"B-61i VALIDATED", three + mode(`{"mode":"VALIDATED","allowedFunctionNames":["c","a"]}`), `"tools":[` + tool("a") + `,` + tool("c") + `]`, ""},
		{"B-61i none of them", three + mode(`{"mode":"ANY","allowedFunctionNames":["x","y"]}`), "400 toolConfig.functionCallingConfig.allowedFunctionNames", ""},
		{"B-61j", mode(`{"mode":"ANY"}`), "", ""},
		{"unknown mode", three + mode(`{"mode":"SOME"}`), "400 toolConfig.functionCallingConfig.mode", ""},
		{"mode of a wrong type", three + mode(`{"mode":1}`), "400 toolConfig.functionCallingConfig.mode", ""},
		{"names of a wrong type", three + mode(`{"mode":"ANY","allowedFunctionNames":["a",1]}`), "400 toolConfig.functionCallingConfig.allowedFunctionNames[1]", ""},
		{"tools of a wrong type", `"tools":"x"`, "400 tools", ""},
		{"function without a name", `"tools":[{"functionDeclarations":[{"description":"d"}]}]`, "400 tools[0].functionDeclarations[0].name", ""},
		{"parameters of a wrong type", `"tools":[{"functionDeclarations":[{"name":"f","parameters":[]}]}]`, "400 tools[0].functionDeclarations[0].parameters", ""},
		{"tool of a wrong type", `"tools":[1]`, "400 tools[0]", ""},
		{"functions of a wrong type", `"tools":[{"functionDeclarations":"f"}]`, "400 tools[0].functionDeclarations", ""},
		{"function of a wrong type", `"tools":[{"functionDeclarations":["f"]}]`, "400 tools[0].functionDeclarations[0]", ""},
		{"name of a wrong type", `"tools":[{"functionDeclarations":[{"name":1}]}]`, "400 tools[0].functionDeclarations[0].name", ""},
		{"description of a wrong type", `"tools":[{"functionDeclarations":[{"name":"f","description":1}]}]`, "400 tools[0].functionDeclarations[0].description", ""},
		{"JSON schema of a wrong type", `"tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":1}]}]`, "400 tools[0].functionDeclarations[0].parametersJsonSchema", ""},
		{"toolConfig of a wrong type", `"toolConfig":1`, "400 toolConfig", ""},
		{"functionCallingConfig of a wrong type", three + `"toolConfig":{"functionCallingConfig":1}`, "400 toolConfig.functionCallingConfig", ""},
		{"unknown kind of tool", `"tools":[{"timeMachine":{}}]`, "", "tools.timeMachine"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			if got := decodeGeminiOptions(x, tt.in); got != tt.want {
				t.Errorf("decode(%s)\n got %s\nwant %s", tt.in, got, tt.want)
			}
			if dropped := strings.Join(x.dropped, " "); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
	t.Run("B-18 hosted_tools:error", func(t *testing.T) {
		for _, name := range []string{"googleSearch", "googleSearchRetrieval", "codeExecution", "urlContext", "fileSearch", "computerUse", "googleMaps", "mcpServers"} {
			if got := decodeGeminiOptions(geminiExchange("hosted_tools:error"), `"tools":[{"`+name+`":{}}]`); got != "400 tools[0]."+name {
				t.Errorf("%s: got %s", name, got)
			}
			x := geminiExchange()
			if got := decodeGeminiOptions(x, `"tools":[{"`+name+`":{}}]`); got != "" || strings.Join(x.dropped, " ") != "tools."+name {
				t.Errorf("%s: got %s, dropped %q", name, got, x.dropped)
			}
		}
	})
	t.Run("C-74 names are mapped back", func(t *testing.T) {
		x := geminiExchange()
		got := decodeGeminiOptions(x, `"tools":[{"functionDeclarations":[{"name":"a.b"}]}],`+mode(`{"mode":"ANY","allowedFunctionNames":["a.b"]}`))
		name := text(member(member(member([]byte("{"+got+"}"), "tool_choice"), "function"), "name"))
		if !strings.Contains(got, `"tools":[`+tool(name)) || x.clientToolName(name) != "a.b" {
			t.Errorf("got %s, and %q for %q", got, x.clientToolName(name), name)
		}
	})
}

func TestDecodeGeminiGeneration(t *testing.T) {
	const schema = `{"type":"OBJECT","properties":{"x":{"type":"STRING"}}}`
	const converted = `"response_format":{"type":"json_schema","json_schema":{"name":"response","schema":{"type":"object","properties":{"x":{"type":"string"}}}}}`
	const jsonSchema = `{"type":"object","$id":"s","additionalProperties":false}`
	const passed = `"response_format":{"type":"json_schema","json_schema":{"name":"response","schema":` + jsonSchema + `}}`
	for _, tt := range []struct{ name, in, want, dropped string }{
		{"B-22", `{"temperature":0.70,"topP":1}`, `"temperature":0.70,"top_p":1`, ""},
		{"B-22 wrong type", `{"temperature":"hot"}`, "400 generationConfig.temperature", ""},
		{"B-23", `{"topK":40}`, `"top_k":40`, ""},
		{"B-23 integer form", `{"topK":40.0}`, `"top_k":40`, ""},
		{"B-23 no integer", `{"topK":40.5}`, "400 generationConfig.topK", ""},
		{"B-24", `{"candidateCount":2}`, `"n":2`, ""},
		{"B-24 one", `{"candidateCount":1}`, "", ""},
		{"B-25", `{"maxOutputTokens":1e3}`, `"max_tokens":1000`, ""},
		{"B-26", `{"stopSequences":["a","b","c","d","e"]}`, `"stop":["a","b","c","d","e"]`, ""},
		{"B-26 empty", `{"stopSequences":[]}`, "", ""},
		{"B-26 wrong type", `{"stopSequences":["a",1]}`, "400 generationConfig.stopSequences[1]", ""},
		{"B-26 no array", `{"stopSequences":"a"}`, "400 generationConfig.stopSequences", ""},
		{"B-27", `{"seed":9007199254740993,"presencePenalty":-0.5,"frequencyPenalty":1}`, `"seed":9007199254740993,"presence_penalty":-0.5,"frequency_penalty":1`, ""},
		{"B-28", `{"responseLogprobs":true,"logprobs":3}`, `"logprobs":true,"top_logprobs":3`, ""},
		{"B-28 without top", `{"responseLogprobs":true}`, `"logprobs":true`, ""},
		{"B-28 alone", `{"logprobs":3}`, "", ""},
		{"B-29 JSON", `{"responseMimeType":"application/json"}`, `"response_format":{"type":"json_object"}`, ""},
		{"B-29 plain", `{"responseMimeType":"text/plain"}`, "", ""},
		{"B-29 enum", `{"responseMimeType":"text/x.enum","responseSchema":{"type":"STRING","enum":["a","b"]}}`,
			`"response_format":{"type":"json_schema","json_schema":{"name":"response","schema":{"type":"string","enum":["a","b"]}}}`, ""},
		{"B-29 other", `{"responseMimeType":"application/xml"}`, "", "generationConfig.responseMimeType"},
		{"B-30", `{"responseMimeType":"application/json","responseSchema":` + schema + `}`, converted, ""},
		{"B-30 without a type", `{"response_schema":` + schema + `}`, converted, ""},
		{"B-30 plain text", `{"responseMimeType":"text/plain","responseSchema":` + schema + `}`, "", "generationConfig.responseSchema"},
		{"B-30 wrong type", `{"responseSchema":"x"}`, "400 generationConfig.responseSchema", ""},
		{"B-31 wins", `{"responseMimeType":"application/json","responseSchema":` + schema + `,"responseJsonSchema":` + jsonSchema + `}`, passed, ""},
		{"B-31 snake", `{"response_mime_type":"application/json","response_json_schema":` + jsonSchema + `}`, passed, ""},
		{"B-31 underscore", `{"responseMimeType":"application/json","_responseJsonSchema":` + jsonSchema + `}`, passed, ""},
		{"B-31 responseFormat", `{"responseFormat":{"text":{"mimeType":"APPLICATION_JSON","schema":` + jsonSchema + `}}}`, passed, ""},
		{"B-31 responseFormat without schema", `{"responseFormat":{"text":{"mimeType":"application/json"}}}`, `"response_format":{"type":"json_object"}`, ""},
		{"B-31 responseFormat plain", `{"responseFormat":{"text":{"mimeType":"TEXT_PLAIN"}}}`, "", ""},
		{"B-31 responseFormat of a wrong type", `{"responseFormat":1}`, "400 generationConfig.responseFormat", ""},
		{"B-31 its text of a wrong type", `{"responseFormat":{"text":1}}`, "400 generationConfig.responseFormat.text", ""},
		{"B-29 wrong type", `{"responseMimeType":1}`, "400 generationConfig.responseMimeType", ""},
		{"B-24 wrong type", `{"candidateCount":"2"}`, "400 generationConfig.candidateCount", ""},
		{"B-25 too large", `{"maxOutputTokens":1e99}`, "400 generationConfig.maxOutputTokens", ""},
		{"B-28 wrong type", `{"responseLogprobs":1}`, "400 generationConfig.responseLogprobs", ""},
		{"thinkingConfig of a wrong type", `{"thinkingConfig":1}`, "400 generationConfig.thinkingConfig", ""},
		{"B-32 wrong type", `{"thinkingConfig":{"thinkingLevel":1}}`, "400 generationConfig.thinkingConfig.thinkingLevel", ""},
		{"B-32", `{"thinkingConfig":{"thinkingLevel":"MINIMAL"}}`, `"reasoning_effort":"minimal"`, ""},
		{"B-32 low", `{"thinkingConfig":{"thinkingLevel":"LOW"}}`, `"reasoning_effort":"low"`, ""},
		{"B-32 medium", `{"thinkingConfig":{"thinkingLevel":"MEDIUM"}}`, `"reasoning_effort":"medium"`, ""},
		{"B-32 nothing said", `{"thinkingConfig":{"thinkingLevel":"THINKING_LEVEL_UNSPECIFIED","thinkingBudget":512}}`, `"reasoning_effort":"low"`, ""},
		{"B-29 with a parameter", `{"responseMimeType":"application/json; charset=utf-8"}`, `"response_format":{"type":"json_object"}`, ""},
		{"B-35 audio", `{"responseModalities":["AUDIO"]}`, "400 generationConfig.responseModalities", ""},
		{"B-32 wins H-15", `{"thinkingConfig":{"thinkingLevel":"HIGH","thinkingBudget":0}}`, `"reasoning_effort":"high"`, ""},
		{"B-32 unknown", `{"thinkingConfig":{"thinkingLevel":"EPIC"}}`, "400 generationConfig.thinkingConfig.thinkingLevel", ""},
		{"B-33 none H-15", `{"thinkingConfig":{"thinkingBudget":0}}`, `"reasoning_effort":"none"`, ""},
		{"B-33 dynamic H-15", `{"thinkingConfig":{"thinkingBudget":-1}}`, "", ""},
		{"B-33 low H-15", `{"thinkingConfig":{"thinkingBudget":512}}`, `"reasoning_effort":"low"`, ""},
		{"B-33 low at most", `{"thinkingConfig":{"thinkingBudget":2048}}`, `"reasoning_effort":"low"`, ""},
		{"B-33 medium", `{"thinkingConfig":{"thinkingBudget":2049}}`, `"reasoning_effort":"medium"`, ""},
		{"B-33 medium at most", `{"thinkingConfig":{"thinkingBudget":16384}}`, `"reasoning_effort":"medium"`, ""},
		{"B-33 high", `{"thinkingConfig":{"thinkingBudget":16385}}`, `"reasoning_effort":"high"`, ""},
		{"B-33 wrong type", `{"thinkingConfig":{"thinkingBudget":"much"}}`, "400 generationConfig.thinkingConfig.thinkingBudget", ""},
		{"B-34 wrong type", `{"thinkingConfig":{"includeThoughts":"yes"}}`, "400 generationConfig.thinkingConfig.includeThoughts", ""},
		{"B-35 text", `{"responseModalities":["TEXT"]}`, "", ""},
		{"B-35 image", `{"responseModalities":["TEXT","IMAGE"]}`, "400 generationConfig.responseModalities", ""},
		{"B-36", `{"speechConfig":{},"mediaResolution":"HIGH","imageConfig":{},"enableEnhancedCivicAnswers":true,"audio_timestamp":true}`, "",
			"generationConfig.speechConfig generationConfig.mediaResolution generationConfig.imageConfig generationConfig.enableEnhancedCivicAnswers generationConfig.audioTimestamp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			if got := decodeGeminiOptions(x, `"generationConfig":`+tt.in); got != tt.want {
				t.Errorf("decode(%s)\n got %s\nwant %s", tt.in, got, tt.want)
			}
			if dropped := strings.Join(x.dropped, " "); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
	t.Run("generationConfig of a wrong type", func(t *testing.T) {
		if got := decodeGeminiOptions(geminiExchange(), `"generationConfig":7`); got != "400 generationConfig" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("E-12", func(t *testing.T) {
		got := decodeGeminiOptions(geminiExchange("max_tokens_field:max_completion_tokens"), `"generationConfig":{"maxOutputTokens":7}`)
		if want := `"max_completion_tokens":7`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
	t.Run("B-34 and enum reach the answer", func(t *testing.T) {
		x := geminiExchange()
		decodeGeminiOptions(x, `"generationConfig":{"thinkingConfig":{"includeThoughts":true},"responseMimeType":"text/x.enum","responseSchema":{"type":"STRING"}}`)
		if !x.gemini.IncludeThoughts || !x.gemini.Enum {
			t.Errorf("got %+v", *x.gemini)
		}
	})
}

func TestDecodeGeminiSnakeCase(t *testing.T) {
	camel := `{"systemInstruction":{"parts":[{"text":"s"}]},"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"aGk="}}]},{"role":"model","parts":[{"functionCall":{"name":"get_it","args":{"snake_case":1}},"thoughtSignature":"c2ln"}]},{"role":"user","parts":[{"functionResponse":{"name":"get_it","response":{"out_put":1}}}]}],` +
		`"generationConfig":{"maxOutputTokens":5,"thinkingConfig":{"thinkingBudget":0}},"tools":[{"functionDeclarations":[{"name":"get_it","parameters":{"type":"OBJECT","properties":{"snake_case":{"anyOf":[{"type":"STRING"}],"maxItems":"2"}}}}]}],"toolConfig":{"functionCallingConfig":{"allowedFunctionNames":["get_it"],"mode":"ANY"}}}`
	snake := camel
	for _, key := range []string{
		"systemInstruction", "inlineData", "mimeType", "functionCall", "thoughtSignature", "functionResponse", "generationConfig", "maxOutputTokens",
		"thinkingConfig", "thinkingBudget", "functionDeclarations", "anyOf", "maxItems", "toolConfig", "functionCallingConfig", "allowedFunctionNames",
	} {
		name := ""
		for _, r := range key {
			if 'A' <= r && r <= 'Z' {
				name += "_" + strings.ToLower(string(r))
			} else {
				name += string(r)
			}
		}
		snake = strings.ReplaceAll(snake, `"`+key+`"`, `"`+name+`"`)
	}
	want := decodeGeminiTo(geminiExchange(), camel)
	if !strings.Contains(want, `\"snake_case\":1`) || !strings.Contains(want, `"snake_case":{`) || !strings.Contains(want, `\"out_put\":1`) {
		t.Errorf("0-5: names of the client's own were changed in %s", want)
	}
	if got := decodeGeminiTo(geminiExchange(), snake); got != want {
		t.Errorf("H-7: %s\n got %s\nwant %s", snake, got, want)
	}
}
