package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	anthropicHeader := "2023-06-01"
	for _, tt := range []struct{ name, body, version, want string }{
		{"A-11 plain", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, "", "openai"},
		{"A-12 header and max_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":5}`, anthropicHeader, "anthropic"},
		{"A-3 header without max_tokens", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`, anthropicHeader, "openai"},
		{"A-13 an OpenAI key overrules the header", `{"messages":[{"role":"user","content":"hi"}],"max_tokens":5,"prompt_cache_key":"k"}`, anthropicHeader, "openai"},
		{"A-3 tool role overrules", `{"messages":[{"role":"tool","tool_call_id":"a","content":"1"}],"max_tokens":5}`, anthropicHeader, "openai"},
		{"A-3 tool_calls overrule", `{"messages":[{"role":"assistant","tool_calls":[]}],"max_tokens":5}`, anthropicHeader, "openai"},
		{"A-3 function tool overrules", `{"messages":[],"max_tokens":5,"tools":[{"type":"function","function":{"name":"f"}}]}`, anthropicHeader, "openai"},
		{"A-3 image_url overrules", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}],"max_tokens":5}`, anthropicHeader, "openai"},
		{"A-14 thinking switch", `{"messages":[],"thinking":{"type":"enabled"}}`, "", "openai"},
		{"A-15 system", `{"system":"s","messages":[{"role":"user","content":"hi"}]}`, "", "anthropic"},
		{"A-2 a system of another type is somebody else's", `{"system":5,"messages":[]}`, "", "openai"},
		{"A-2 a null signal is none", `{"anthropic_version":null,"stop_sequences":null,"tool_choice":null,"messages":[]}`, "", "openai"},
		{"A-2 tool_choice none", `{"messages":[],"tool_choice":{"type":"none"}}`, "", "anthropic"},
		{"A-2 redacted_thinking", `{"messages":[{"role":"assistant","content":[{"type":"redacted_thinking","data":"x"}]}]}`, "", "anthropic"},
		{"A-2 server_tool_use", `{"messages":[{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"server_tool_use","id":"a","name":"f","input":{}}]}]}`, "", "anthropic"},
		{"A-2 search_result", `{"messages":[{"role":"user","content":[{"type":"search_result","source":"s","title":"t","content":[]}]}]}`, "", "anthropic"},
		{"A-2 document with a source", `{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","data":"d"}}]}]}`, "", "anthropic"},
		{"A-2 a source that is text", `{"messages":[{"role":"user","content":[{"type":"document","source":"d"}]}]}`, "", "openai"},
		{"A-2 null system is none", `{"system":null,"messages":[]}`, "", "openai"},
		{"A-2 anthropic_version", `{"anthropic_version":"x","messages":[]}`, "", "anthropic"},
		{"A-2 anthropic_beta", `{"anthropic_beta":["x"],"messages":[]}`, "", "anthropic"},
		{"A-2 stop_sequences", `{"stop_sequences":["x"],"messages":[]}`, "", "anthropic"},
		{"A-2 input_schema", `{"messages":[],"tools":[{"name":"f","input_schema":{}}]}`, "", "anthropic"},
		{"input_schema elsewhere", `{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"properties":{"input_schema":{"type":"string"}}}}}]}`, "", "openai"},
		{"A-2 tool_choice any", `{"messages":[],"tool_choice":{"type":"any"}}`, "", "anthropic"},
		{"OpenAI tool_choice", `{"messages":[],"tool_choice":{"type":"function","function":{"name":"f"}}}`, "", "openai"},
		{"A-16 tool_result", `{"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"1"}]}]}`, "", "anthropic"},
		{"A-2 tool_use", `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}}]}]}`, "", "anthropic"},
		{"A-2 web_search_tool_result", `{"messages":[{"role":"assistant","content":[{"type":"web_search_tool_result"}]}]}`, "", "anthropic"},
		{"A-2 image with a source", `{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"u"}}]}]}`, "", "anthropic"},
		{"image without a source", `{"messages":[{"role":"user","content":[{"type":"image","image":"u"}]}]}`, "", "openai"},
		{"A-2 thinking text", `{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"x"}]}]}`, "", "anthropic"},
		{"A-19 thinking chunks", `{"messages":[{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"x"}]}]}]}`, "", "openai"},
		{"tool_use named in text alone", `{"messages":[{"role":"user","content":"{\"type\":\"tool_use\"}"}]}`, "", "openai"},
		{"cache_control is no signal", `{"messages":[{"role":"user","content":[{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}]}`, "", "openai"},
		{"A-17 messages before contents", `{"messages":[],"contents":[]}`, "", "openai"},
		{"A-18 no messages in it", `{"messages":[]}`, "", "openai"},
		{"A-6 contents", `{"model":"m","contents":[{"parts":[{"text":"hi"}]}]}`, "", "gemini"},
		{"A-7 input", `{"input":"hi"}`, "", "responses"},
		{"A-8 prompt", `{"prompt":"hi"}`, "", "completion"},
		{"A-5 messages of a wrong type", `{"messages":"hi"}`, "", "messages"},
		{"A-9 nothing", `{"model":"m"}`, "", "Missing required parameter"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := peek([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			h := http.Header{}
			if tt.version != "" {
				h.Set("Anthropic-Version", tt.version)
			}
			got, err := detect([]byte(tt.body), &p, h)
			if err != nil {
				got.name = err.Error()
			}
			if got.name != tt.want && (err == nil || !strings.Contains(got.name, tt.want)) {
				t.Errorf("detect(%s) = %s, want %s", tt.body, got.name, tt.want)
			}
		})
	}
}

func TestDecodeCompletion(t *testing.T) {
	for _, tt := range []struct{ name, body, want, dropped string }{
		{"A-30 string", `{"model":"m","prompt":"hi","max_tokens":5,"temperature":0.0,"stop":["a"],"user":"u"}`,
			`{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.0,"stop":["a"],"max_tokens":5,"user":"u"}`, ""},
		{"A-30 list of one", `{"prompt":["hi"],"stream":true,"stream_options":{"include_usage":true}}`,
			`{"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`, ""},
		{"A-32 logprobs", `{"prompt":"hi","logprobs":3}`, `{"messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":3}`, ""},
		{"A-33 dropped", `{"prompt":"hi","suffix":"x","echo":true,"best_of":2}`, `{"messages":[{"role":"user","content":"hi"}]}`, "suffix,echo,best_of"},
		{"A-32 logprobs of the chosen tokens", `{"prompt":"hi","logprobs":0}`, `{"messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":0}`, ""},
		{"0-4 null is none", `{"prompt":"hi","logprobs":null,"stream":null,"echo":null,"max_tokens":null}`, `{"messages":[{"role":"user","content":"hi"}]}`, ""},
		{"0-4 unknown", `{"prompt":"hi","top_k":4}`, `{"messages":[{"role":"user","content":"hi"}]}`, "top_k"},
		{"0-4 stream of a wrong type", `{"prompt":"hi","stream":"yes"}`, `Invalid type for 'stream'`, ""},
		{"A-31 batch", `{"prompt":["a","b"]}`, `prompt: `, ""},
		{"A-31 tokens", `{"prompt":[[1,2]]}`, `prompt: `, ""},
		{"a wrong type", `{"prompt":"a","user":1}`, `Invalid type for 'user'`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := &exchange{dialect: &openai, cfg: &config{}, header: http.Header{}}
			q, err := decodeCompletion(x, []byte(tt.body))
			got := ""
			if err != nil {
				got = err.Error()
			} else if b, err := q.body(); err != nil {
				t.Fatal(err)
			} else {
				got = string(b)
			}
			if got != tt.want && !(err != nil && strings.HasPrefix(got, tt.want)) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if d := strings.Join(x.dropped, ","); d != tt.dropped {
				t.Errorf("dropped %q, want %q", d, tt.dropped)
			}
		})
	}
}

// input and contents on the chat path, in every shape that is met in the wild.
func TestInputOnTheChatPath(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	const file = `{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}`
	for _, tt := range []struct{ name, body, want, dropped string }{
		{"A-6", `{"contents":[{"parts":[{"text":"a"}]}],"model":"models/m","stream":false}`, `[{"role":"user","content":"a"}]`, ""},
		{"A-20", `{"input":"hi"}`, `[{"role":"user","content":"hi"}]`, ""},
		{"A-21", `{"input":[{"role":"user","content":"hi"}]}`, `[{"role":"user","content":"hi"}]`, ""},
		{"A-22", `{"input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"output_text","text":"b"},{"type":"text","text":"c"}]}]}`, `[{"role":"user","content":"a\n\nb\n\nc"}]`, ""},
		{"A-23", `{"input":[{"role":"model","content":"x"}]}`, `[{"role":"assistant","content":"x"}]`, ""},
		{"A-24", `{"input":[{"type":"text","text":"a"},{"type":"input_image","image_url":"data:image/png;base64,AA=="}]}`, `[{"role":"user","content":[{"type":"text","text":"a"},` + file + `]}]`, ""},
		{"A-24 one part alone", `{"input":{"type":"text","text":"a"}}`, `[{"role":"user","content":"a"}]`, ""},
		{"A-25", `{"input":[{"type":"user_input","content":[{"type":"text","text":"a"}]},{"type":"model_output","content":[{"type":"text","text":"b"}]},{"type":"user_input","content":[{"type":"text","text":"c"}]}]}`,
			`[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]`, ""},
		{"A-25 files", `{"input":[{"type":"user_input","content":[{"type":"image","mime_type":"image/png","data":"AA=="},{"type":"image","mime_type":"image/png","uri":"https://h/a.png"},{"type":"audio","mime_type":"audio/wav","data":"AA=="},{"type":"document","mime_type":"application/pdf","data":"AA=="}]}]}`,
			`[{"role":"user","content":[` + file + `,{"type":"image_url","image_url":{"url":"https://h/a.png"}},{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},{"type":"file","file":{"filename":"file.pdf","file_data":"data:application/pdf;base64,AA=="}}]}]`, ""},
		{"A-25 calls and results", `{"input":[{"type":"user_input","content":[{"type":"text","text":"a"}]},{"type":"thought","signature":"c2ln"},{"type":"function_call","id":"k1","name":"f","arguments":{"b":1,"a":9007199254740993}},{"type":"function_call","id":"k2","name":"f","arguments":{}},{"type":"function_result","call_id":"k2","name":"f","result":{"x": 1}},{"type":"function_result","call_id":"k1","name":"f","result":"one"}]}`,
			`[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"k1","type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":9007199254740993}"}},{"id":"k2","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"k2","content":"{\"x\":1}"},{"role":"tool","tool_call_id":"k1","content":"one"}]`, ""},
		{"A-25 a result with a picture", `{"input":[{"type":"user_input","content":[{"type":"text","text":"a"}]},{"type":"function_call","id":"k","name":"f","arguments":{}},{"type":"function_result","call_id":"k","result":[{"type":"text","text":"see"},{"type":"image","mime_type":"image/png","data":"AA=="}]}]}`,
			`[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"k","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"k","content":"see"},{"role":"user","content":[{"type":"text","text":"Attachment of tool call k:"},` + file + `]}]`, ""},
		{"A-26", `{"input":[{"role":"user","parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]}]}`, `[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]`, ""},
		{"A-26 one turn alone", `{"input":{"role":"user","parts":[{"text":"a"}]}}`, `[{"role":"user","content":"a"}]`, ""},
		{"A-27", `{"input":"hi","instructions":"i","system_instruction":"s"}`, `[{"role":"system","content":"i\n\ns"},{"role":"user","content":"hi"}]`, ""},
		{"A-27 0-5 camel case", `{"input":"hi","systemInstruction":{"parts":[{"text":"s"}]},"system_instruction":"not this one"}`, `[{"role":"system","content":"s"},{"role":"user","content":"hi"}]`, ""},
		{"0-4 unknown", `{"input":"hi","colour":"red"}`, `[{"role":"user","content":"hi"}]`, "colour"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, got := g.post("/v1/chat/completions", strings.Replace(tt.body, "{", `{"model":"m",`, 1))
			if tt.name == "A-6" {
				res, got = g.post("/v1/chat/completions", tt.body)
			}
			if res.StatusCode != 200 || g.sent("messages") != tt.want {
				t.Errorf("%d %s\nsent %s\nwant %s", res.StatusCode, got, g.sent("messages"), tt.want)
			}
			if dropped := res.Header.Get("X-APIProxy-Dropped"); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
	for name, body := range map[string]string{
		"A-28 empty": `"input":[]`, "A-28 number": `"input":5`, "A-28 bool": `"input":true`, "A-28 numbers": `"input":[1,2]`,
	} {
		res, got := g.post("/v1/chat/completions", `{"model":"m",`+body+`}`)
		if res.StatusCode != 400 || at(t, got, "error.param") != `"input"` {
			t.Errorf("%s: %d %s", name, res.StatusCode, got)
		}
	}
	for param, body := range map[string]string{
		"previous_interaction_id": `"input":"hi","previous_interaction_id":"i"`, "cached_content": `"input":"hi","cached_content":"c"`,
	} {
		res, got := g.post("/v1/chat/completions", `{"model":"m",`+body+`}`)
		if res.StatusCode != 400 || at(t, got, "error.param") != `"`+param+`"` {
			t.Errorf("what is not here is not passed over: %d %s", res.StatusCode, got)
		}
	}
}

// Gemini's tools and settings count beside an input list too.
func TestGeminiSettingsBesideInput(t *testing.T) {
	g := newGateway(t, answerJSON(200, completion("ok")))
	for name, config := range map[string]string{
		"camel case": `"generationConfig":{"temperature":0.50,"topP":1,"seed":7,"stopSequences":["x"],"maxOutputTokens":9,"thinkingConfig":{"thinkingLevel":"LOW"}}`,
		"snake case": `"generation_config":{"temperature":0.50,"top_p":1,"seed":7,"stop_sequences":["x"],"max_output_tokens":9,"thinking_level":"low"}`,
	} {
		res, got := g.post("/v1/chat/completions", `{"model":"m","input":[{"role":"user","parts":[{"text":"a"}]}],"tools":[{"functionDeclarations":[{"name":"f"},{"name":"g","parameters":{"type":"OBJECT"}}]}],`+config+`}`)
		const want = `{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}},{"type":"function","function":{"name":"g","parameters":{"type":"object"}}}],` +
			`"temperature":0.50,"top_p":1,"seed":7,"stop":["x"],"reasoning_effort":"low","max_tokens":9}`
		if res.StatusCode != 200 || g.last().Body != want || res.Header.Get("X-APIProxy-Dropped") != "" {
			t.Errorf("%s: %d %s\nsent %s\nwant %s", name, res.StatusCode, got, g.last().Body, want)
		}
	}
	res, got := g.post("/v1/chat/completions", `{"model":"m","input":"hi","temperature":0.1,"max_tokens":3,"generation_config":{"top_p":1}}`)
	if want := `{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0.1,"top_p":1}`; g.last().Body != want || res.Header.Get("X-APIProxy-Dropped") != "max_tokens" {
		t.Errorf("%s\nsent %s\nwant %s, without max_tokens: %q", got, g.last().Body, want, res.Header.Get("X-APIProxy-Dropped"))
	}
}

// on its own path, a legacy completion is nobody's but the upstream's.
func TestCompletionPathIsLeftAlone(t *testing.T) {
	g := newGateway(t, answerJSON(200, `{"choices":[{"text":"ok"}]}`))
	const body = `{ "prompt":["a","b"],"echo":true, "logprobs":3 }`
	got := g.ok("/v1/completions", body)
	if seen := g.last(); seen.URL.Path != "/v1/completions" || seen.Body != body || got != `{"choices":[{"text":"ok"}]}` {
		t.Errorf("%s got %s, and answered %s", seen.URL.Path, seen.Body, got)
	}
}

// What is answered on the chat path is chat, whatever the body was in.
func TestAnswersOnTheChatPath(t *testing.T) {
	for _, tt := range []struct{ dialect, body string }{
		{"openai", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`},
		{"anthropic", `{"model":"m","system":"s","messages":[{"role":"user","content":"hi"}]}`},
		{"gemini", `{"model":"m","contents":[{"parts":[{"text":"hi"}]}]}`},
		{"responses", `{"model":"m","input":"hi"}`},
		{"completion", `{"model":"m","prompt":"hi"}`},
	} {
		t.Run(tt.dialect, func(t *testing.T) {
			const stream = ": note\r\n\r\n" + `data: {"choices":[{"index":0,"delta":{"content":"a","reasoning_content":"r","vendor":1.0}}]}` + "\n\n" + finishChunk + usageEvent + doneEvent
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				switch body, _ := io.ReadAll(r.Body); {
				case string(member(body, "model")) == `"busy"`:
					answerJSON(429, `{"detail":"slow down"}`)(w, r)
				case string(member(body, "stream")) == "true":
					answerStream(stream)(w, r)
				default:
					answerJSON(200, `{"vendor":1.0,"choices":[{"message":{"content":"ok","reasoning":"r"}}]}`)(w, r)
				}
			})
			res, got := g.post("/v1/chat/completions", tt.body)
			if got != `{"vendor":1.0,"choices":[{"message":{"content":"ok","reasoning":"r"}}]}` || res.Header.Get("X-APIProxy-Dialect") != tt.dialect {
				t.Errorf("A-40 A-42: dialect %q, answered %s", res.Header.Get("X-APIProxy-Dialect"), got)
			}
			streaming := strings.Replace(tt.body, "{", `{"stream":true,`, 1)
			if got := g.ok("/v1/chat/completions", streaming); got != stream || g.sent("stream_options") != "" {
				t.Errorf("A-40 A-41: sent %s, answered %q", g.last().Body, got)
			}
			g.ok("/v1/chat/completions", strings.Replace(streaming, "{", `{"stream_options":{"include_usage":true},`, 1))
			if got := g.sent("stream_options"); got != `{"include_usage":true}` {
				t.Errorf("A-41: stream_options %s", got)
			}
			res, got = g.post("/v1/chat/completions", strings.Replace(tt.body, `"m"`, `"busy"`, 1))
			if res.StatusCode != 429 || at(t, got, "error.type") != `"rate_limit_error"` || at(t, got, "error.message") != `"slow down"` {
				t.Errorf("an error is chat's too: %d %s", res.StatusCode, got)
			}
		})
	}
}

// a tool goes upstream under a shorter name where it must, and the client
// gets its own back, however the stream is cut.
func TestNamesComeBackOnTheChatPath(t *testing.T) {
	name := strings.Repeat("long.", 20)
	for _, body := range []string{
		`{"model":"m","system":"s","messages":[{"role":"user","content":"hi"}],"tools":[{"name":"` + name + `","input_schema":{"type":"object"}}]}`,
		`{"model":"m","contents":"hi","tools":[{"functionDeclarations":[{"name":"` + name + `"}]}]}`,
		`{"model":"m","input":"hi","tools":[{"type":"function","name":"` + name + `","parameters":{"type":"object"}}]}`,
	} {
		g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
			asked, _ := io.ReadAll(r.Body)
			sent := at(t, string(asked), "tools.0.function.name")
			if len(sent) > 66 || strings.Contains(sent, ".") {
				t.Errorf("the upstream is sent the name %s", sent)
			}
			call := `"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":` + sent + `,"arguments":"{}"}}]`
			if string(member(asked, "stream")) != "true" {
				messageAnswer(`{"role":"assistant","content":null,`+call+`}`, "tool_calls")(w, r)
				return
			}
			chunk := chunkOf(`{` + call + `}`)
			cut := strings.Index(chunk, sent) + 20
			answerStream(chunk[:cut], chunk[cut:], finishOf("tool_calls"), doneEvent)(w, r)
		})
		if got := g.ok("/v1/chat/completions", body); at(t, got, "choices.0.message.tool_calls.0.function.name") != `"`+name+`"` {
			t.Errorf("%s\nis answered %s", body, got)
		}
		if got := g.ok("/v1/chat/completions", strings.Replace(body, "{", `{"stream":true,`, 1)); !strings.Contains(got, `"name":"`+name+`"`) {
			t.Errorf("%s\nis streamed %s", body, got)
		}
	}
}
