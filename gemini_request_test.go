package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// geminiExchange is an exchange on one of Gemini's paths, for model m.
func geminiExchange(quirks ...string) *exchange {
	return &exchange{model: "m", cfg: &config{Quirks: quirks}, header: http.Header{}, gemini: &geminiRequest{}}
}

// decodeGeminiTo decodes a body and gives the chat body, or the error as
// "param: message".
func decodeGeminiTo(x *exchange, body string) string {
	q, err := decodeGemini(x, []byte(body))
	if err != nil {
		return geminiErrorText(err)
	}
	b, err := q.body()
	if err != nil {
		return "marshal: " + err.Error()
	}
	return string(b)
}

func geminiErrorText(err error) string {
	var e *apiError
	if !errors.As(err, &e) {
		return "no apiError: " + err.Error()
	}
	return "400 " + e.Param
}

// geminiMessages is what stands in messages of a chat body.
func geminiMessages(body string) string { return string(member([]byte(body), "messages")) }

func TestDecodeGeminiTurns(t *testing.T) {
	const sig = `"c2lnbmF0dXJl"`
	stamp := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, tt := range []struct{ name, contents, want, dropped string }{
		{"B-12 object", `{"parts":[{"text":"hi"}]}`, `[{"role":"user","content":"hi"}]`, ""},
		{"B-12 string", `"hi"`, `[{"role":"user","content":"hi"}]`, ""},
		{"B-12 empty array", `[]`, "400 contents", ""},
		{"B-12 empty array with space", `[ ]`, "400 contents", ""},
		{"B-12 empty string", `""`, "400 contents", ""},
		{"B-12 null", `null`, "400 contents", ""},
		{"B-12 number", `1`, "400 contents", ""},
		{"parts as one object", `{"parts":{"text":"hi"}}`, `[{"role":"user","content":"hi"}]`, ""},
		{"parts missing beside other keys", `[{"text":"hi"}]`, "400 contents[0].parts", "contents.text"},
		{"parts of a wrong type", `[{"parts":7}]`, "400 contents[0].parts", ""},
		{"part of a wrong type", `[{"parts":[{"text":"a"},7]}]`, "400 contents[0].parts[1]", ""},
		{"text of a wrong type", `[{"parts":[{"text":7}]}]`, "400 contents[0].parts[0].text", ""},
		{"0-4 null text is none", `[{"parts":[{"text":null}]}]`, `[{"role":"user","content":""}]`, ""},
		{"turn of a wrong type", `[7]`, "400 contents[0]", ""},
		{"B-13 roles", `[{"role":"","parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"b"}]},{"parts":[{"text":"c"}]}]`,
			`[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]`, ""},
		{"B-14 assistant", `[{"role":"assistant","parts":[{"text":"b"}]}]`, `[{"role":"assistant","content":"b"}]`, ""},
		{"B-15 function role", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"x"}}]},{"role":"function","parts":[{"functionResponse":{"name":"f","response":{"output":"1"}}}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"x","content":"1"}]`, ""},
		{"B-15 tool role", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"x"}}]},{"role":"tool","parts":[{"functionResponse":{"name":"f","id":"x","response":{"output":"1"}}}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"x","content":"1"}]`, ""},
		{"B-60", `[{"role":"user","parts":[{"text":"w?"}]},{"role":"model","parts":[{"functionCall":{"name":"f","args":{"b":1,"a":2}}}]},{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"output":"ok"}}},{"text":"go on"}]}]`,
			`[{"role":"user","content":"w?"},{"role":"assistant","content":null,"tool_calls":[{"id":"4mh4tyn7x","type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":2}"}}]},{"role":"tool","tool_call_id":"4mh4tyn7x","content":"ok"},{"role":"user","content":"go on"}]`, ""},
		{"B-16 system in place", `[{"parts":[{"text":"a"}]},{"role":"system","parts":[{"text":"s"},{"inlineData":{}}]},{"parts":[{"text":"b"}]}]`,
			`[{"role":"user","content":"a"},{"role":"system","content":"s"},{"role":"user","content":"b"}]`, "parts.inlineData"},
		{"unknown role", `[{"role":"pilot","parts":[]}]`, "400 contents[0].role", ""},
		{"role of a wrong type", `[{"role":1,"parts":[]}]`, "400 contents[0].role", ""},
		{"B-40 text joining", `[{"parts":[{"text":"a"},{"text":""},{"text":"b"}]}]`, `[{"role":"user","content":"a\n\nb"}]`, ""},
		{"B-41 image", `[{"parts":[{"text":"see"},{"inlineData":{"mimeType":"image/png","data":"aGk-_w=="}}]}]`,
			`[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk+/w=="}}]}]`, ""},
		{"B-42 wav", `[{"parts":[{"inlineData":{"mimeType":"audio/x-wav","data":"aGk="}}]}]`,
			`[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"aGk=","format":"wav"}}]}]`, ""},
		{"B-42 mp3", `[{"parts":[{"inlineData":{"mimeType":"audio/mpeg","data":"aGk="}}]}]`,
			`[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"aGk=","format":"mp3"}}]}]`, ""},
		{"B-42 wav and mp3 by their other names", `[{"parts":[{"inlineData":{"mimeType":"audio/wav","data":"aGk="}},{"inlineData":{"mimeType":"audio/mp3","data":"aGk="}}]}]`,
			`[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"aGk=","format":"wav"}},{"type":"input_audio","input_audio":{"data":"aGk=","format":"mp3"}}]}]`, ""},
		{"B-43 pdf", `[{"parts":[{"inlineData":{"mimeType":"application/pdf","data":"aGk="}}]}]`,
			`[{"role":"user","content":[{"type":"file","file":{"filename":"file.pdf","file_data":"data:application/pdf;base64,aGk="}}]}]`, ""},
		{"B-43 named", `[{"parts":[{"inlineData":{"mimeType":"application/zip","data":"aGk=","displayName":"a.zip"}}]}]`,
			`[{"role":"user","content":[{"type":"file","file":{"filename":"a.zip","file_data":"data:application/zip;base64,aGk="}}]}]`, ""},
		{"B-44 text file", `[{"parts":[{"inlineData":{"mimeType":"text/csv; charset=utf-8","data":"YSxi"}}]}]`, `[{"role":"user","content":"a,b"}]`, ""},
		{"B-44 bad base64", `[{"parts":[{"inlineData":{"mimeType":"text/csv","data":"%"}}]}]`, "400 contents[0].parts[0].inlineData.data", ""},
		{"inlineData without a type", `[{"parts":[{"inlineData":{"data":"YSxi"}}]}]`, "400 contents[0].parts[0].inlineData.mimeType", ""},
		{"inlineData without data", `[{"parts":[{"inlineData":{"mimeType":"image/png"}}]}]`, "400 contents[0].parts[0].inlineData.data", ""},
		{"B-45 linked image", `[{"parts":[{"fileData":{"mimeType":"image/png","fileUri":"https://storage.googleapis.com/a.png"}}]}]`,
			`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://storage.googleapis.com/a.png"}}]}]`, ""},
		{"B-45 data URI", `[{"parts":[{"fileData":{"mimeType":"image/png","fileUri":"data:image/png;base64,aGk="}}]}]`,
			`[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}}]}]`, ""},
		{"B-46 gs", `[{"parts":[{"fileData":{"mimeType":"image/png","fileUri":"gs://b/a.png"}}]}]`, "400 contents[0].parts[0].fileData.fileUri", ""},
		{"B-46 Files API", `[{"parts":[{"fileData":{"mimeType":"image/png","fileUri":"https://generativelanguage.googleapis.com/v1beta/files/a"}}]}]`, "400 contents[0].parts[0].fileData.fileUri", ""},
		{"B-46 video", `[{"parts":[{"fileData":{"mimeType":"video/mp4","fileUri":"https://example.com/a.mp4"}}]}]`, "400 contents[0].parts[0].fileData.fileUri", ""},
		{"B-47 result", `[{"parts":[{"functionResponse":{"id":"x","name":"f","response":{"result":"r"}}}]}]`, `[{"role":"tool","tool_call_id":"x","content":"r"}]`, ""},
		{"B-47 more than output", `[{"parts":[{"functionResponse":{"id":"x","name":"f","response":{"output":"r", "b":1.0,"a":9007199254740993}}}]}]`,
			`[{"role":"tool","tool_call_id":"x","content":"{\"output\":\"r\",\"b\":1.0,\"a\":9007199254740993}"}]`, ""},
		{"B-47 output that is no string", `[{"parts":[{"functionResponse":{"id":"x","name":"f","response":{"output":[1]}}}]}]`,
			`[{"role":"tool","tool_call_id":"x","content":"{\"output\":[1]}"}]`, ""},
		{"B-47 no response", `[{"parts":[{"functionResponse":{"id":"x","name":"f"}}]}]`, `[{"role":"tool","tool_call_id":"x","content":""}]`, ""},
		{"B-47 response of a wrong type", `[{"parts":[{"functionResponse":{"name":"f","response":"r"}}]}]`, "400 contents[0].parts[0].functionResponse.response", ""},
		{"B-48 media in a result", `[{"parts":[{"functionResponse":{"id":"x","name":"f","response":{"output":"r"},"parts":[{"inlineData":{"mimeType":"image/png","data":"aGk="}}]}},{"text":"see"},{"functionResponse":{"id":"y","name":"f","response":{"output":"s"}}}]}]`,
			`[{"role":"tool","tool_call_id":"x","content":"r"},{"role":"tool","tool_call_id":"y","content":"s"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}},{"type":"text","text":"see"}]}]`, ""},
		{"B-49 code in a user turn", `[{"parts":[{"executableCode":{"language":"PYTHON","code":"print(1)\n"}},{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1"}}]}]`,
			"[{\"role\":\"user\",\"content\":\"```python\\nprint(1)\\n```\\n\\n1\"}]", ""},
		{"B-49 code in a model turn", `[{"role":"model","parts":[{"text":"so:"},{"executableCode":{"language":"PYTHON","code":"print(1)"}},{"codeExecutionResult":{"output":"1"}},{"text":"done"}]}]`,
			"[{\"role\":\"assistant\",\"content\":\"so:\\n```python\\nprint(1)\\n```\\n1\\ndone\"}]", ""},
		{"B-50 unknown part", `[{"parts":[{"telepathy":{}},{"text":"a","videoMetadata":{"fps":1}}]}]`, `[{"role":"user","content":"a"}]`, "parts.telepathy parts.videoMetadata"},
		{"B-51 texts of one answer", `[{"role":"model","parts":[{"text":"a"},{"text":"b"}]},{"role":"model","parts":[{"text":"c"}]}]`, `[{"role":"assistant","content":"abc"}]`, ""},
		{"B-52 thoughts without a stamp", `[{"role":"model","parts":[{"text":"hm","thought":true},{"text":"b"}]}]`, `[{"role":"assistant","content":"b"}]`, ""},
		{"B-52 foreign signature", `[{"role":"model","parts":[{"text":"hm","thought":true,"thoughtSignature":` + sig + `},{"text":"b","thoughtSignature":` + sig + `}]}]`, `[{"role":"assistant","content":"b"}]`, ""},
		{"E-24 stamped thoughts, as chats keep streams", `[{"role":"model","parts":[{"text":"h","thought":true}]},{"role":"model","parts":[{"text":"m","thought":true}]},{"role":"model","parts":[{"text":"","thought":true,"thoughtSignature":"` + stamp("apx1.c.") + `"}]},{"role":"model","parts":[{"functionCall":{"id":"x","name":"f"}}]}]`,
			`[{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"x","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, ""},
		{"E-24 stamp in the other alphabet", `[{"role":"model","parts":[{"text":"h","thought":true,"thoughtSignature":"` + strings.TrimRight(base64.URLEncoding.EncodeToString([]byte("apx1.r.")), "=") + `"},{"text":"b"}]}]`,
			`[{"role":"assistant","content":"b","reasoning":"h"}]`, ""},
		{"E-24 list", `[{"role":"model","parts":[{"text":"h","thought":true,"thoughtSignature":"` + stamp("apx1.d."+base64.RawURLEncoding.EncodeToString([]byte(`[{"type":"reasoning.text","text":"h"}]`))) + `"},{"text":"b"}]}]`,
			`[{"role":"assistant","content":"b","reasoning_details":[{"type":"reasoning.text","text":"h"}]}]`, ""},
		{"an answer of thoughts alone", `[{"parts":[{"text":"a"}]},{"role":"model","parts":[{"text":"hm","thought":true}]},{"parts":[{"text":"b"}]}]`, `[{"role":"user","content":"a"},{"role":"user","content":"b"}]`, ""},
		{"an answer without parts", `[{"parts":[{"text":"a"}]},{"role":"model"}]`, `[{"role":"user","content":"a"}]`, ""},
		{"B-53 key order and digits", `[{"role":"model","parts":[{"text":"t"},{"functionCall":{"name":"f","args":{"b" : 1, "a":9007199254740993},"id":"i"}}]}]`,
			`[{"role":"assistant","content":"t","tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{\"b\":1,\"a\":9007199254740993}"}}]}]`, ""},
		{"B-53 args of a wrong type", `[{"role":"model","parts":[{"functionCall":{"name":"f","args":"x"}}]}]`, "400 contents[0].parts[0].functionCall.args", ""},
		{"B-53 no name", `[{"role":"model","parts":[{"functionCall":{"args":{}}}]}]`, "400 contents[0].parts[0].functionCall.name", ""},
		{"B-54 signature", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"i"},"thoughtSignature":` + sig + `}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":` + sig + `}}}]}]`, ""},
		{"B-54 stamp on a call", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"i"},"thoughtSignature":"` + stamp("apx1.c.aG0") + `"}]}]`,
			`[{"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, ""},
		{"B-53 id of a wrong type", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":1}}]}]`, "400 contents[0].parts[0].functionCall.id", ""},
		{"B-53 call of a wrong type", `[{"role":"model","parts":[{"functionCall":"f"}]}]`, "400 contents[0].parts[0].functionCall", ""},
		{"thought of a wrong type", `[{"role":"model","parts":[{"text":"a","thought":"yes"}]}]`, "400 contents[0].parts[0].thought", ""},
		{"signature of a wrong type", `[{"role":"model","parts":[{"text":"a","thoughtSignature":1}]}]`, "400 contents[0].parts[0].thoughtSignature", ""},
		{"B-41 data of a wrong type", `[{"parts":[{"inlineData":{"mimeType":"image/png","data":1}}]}]`, "400 contents[0].parts[0].inlineData.data", ""},
		{"B-41 inlineData of a wrong type", `[{"parts":[{"inlineData":"x"}]}]`, "400 contents[0].parts[0].inlineData", ""},
		{"B-45 no URI", `[{"parts":[{"fileData":{"mimeType":"image/png"}}]}]`, "400 contents[0].parts[0].fileData.fileUri", ""},
		{"B-49 code of a wrong type", `[{"parts":[{"executableCode":"x"}]}]`, "400 contents[0].parts[0].executableCode", ""},
		{"B-48 media of a wrong type", `[{"parts":[{"functionResponse":{"name":"f","parts":[{"inlineData":1}]}}]}]`, "400 contents[0].parts[0].functionResponse.parts[0].inlineData", ""},
		{"turns and parts as strings", `["a",{"parts":["b"]},{"role":"model","parts":"c"}]`, `[{"role":"user","content":"a\n\nb"},{"role":"assistant","content":"c"}]`, ""},
		{"a call in a user turn", `[{"parts":[{"text":"a"},{"functionCall":{"name":"f"}}]}]`, `[{"role":"user","content":"a"}]`, "parts.functionCall"},
		{"a picture in a model turn", `[{"role":"model","parts":[{"text":"a"},{"inlineData":{}},{"fileData":{}}]}]`, `[{"role":"assistant","content":"a"}]`, "parts.inlineData parts.fileData"},
		{"B-55 user turns", `[{"parts":[{"text":"a"}]},{"role":"user","parts":[{"text":"b"}]}]`, `[{"role":"user","content":"a\n\nb"}]`, ""},
		{"C-74 long name", `[{"role":"model","parts":[{"functionCall":{"name":"a.b","id":"i"}}]}]`,
			`[{"role":"assistant","content":null,"tool_calls":[{"id":"i","type":"function","function":{"name":"ab_2e7336dc","arguments":"{}"}}]}]`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			got := decodeGeminiTo(x, `{"contents":`+tt.contents+`}`)
			if !strings.HasPrefix(got, "400") {
				got = geminiMessages(got)
			}
			if got != tt.want {
				t.Errorf("messages of %s\n got %s\nwant %s", tt.contents, got, tt.want)
			}
			if dropped := strings.Join(x.dropped, " "); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeGeminiTopLevel(t *testing.T) {
	const hi = `"contents":"hi"`
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, tt := range []struct{ name, in, want, dropped string }{
		{"B-10", `{` + hi + `}`, `{"model":"m",` + messages + `}`, ""},
		{"B-11 object", `{` + hi + `,"systemInstruction":{"role":"user","parts":[{"text":"a"},{"text":"b"},{"inlineData":{}}]}}`,
			`{"model":"m","messages":[{"role":"system","content":"a\n\nb"},{"role":"user","content":"hi"}]}`, "systemInstruction.inlineData"},
		{"B-11 string", `{` + hi + `,"systemInstruction":"a"}`, `{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":"hi"}]}`, ""},
		{"B-11 array", `{` + hi + `,"system_instruction":[{"text":"a"}]}`, `{"model":"m","messages":[{"role":"system","content":"a"},{"role":"user","content":"hi"}]}`, ""},
		{"B-11 empty", `{` + hi + `,"systemInstruction":{"parts":[{"text":""}]}}`, `{"model":"m",` + messages + `}`, ""},
		{"B-11 wrong type", `{` + hi + `,"systemInstruction":5}`, "400 systemInstruction", ""},
		{"B-12 missing", `{}`, "400 contents", ""},
		{"B-21 no effect", `{` + hi + `,"safetySettings":[],"labels":{},"store":true}`, `{"model":"m",` + messages + `}`, ""},
		{"B-21 cachedContent", `{` + hi + `,"cachedContent":"cachedContents/a"}`, "400 cachedContent", ""},
		{"B-21 flex", `{` + hi + `,"serviceTier":"FLEX"}`, `{"model":"m",` + messages + `,"service_tier":"flex"}`, ""},
		{"B-21 priority", `{` + hi + `,"service_tier":"priority"}`, `{"model":"m",` + messages + `,"service_tier":"priority"}`, ""},
		{"B-21 no cachedContent", `{` + hi + `,"cachedContent":null}`, `{"model":"m",` + messages + `}`, ""},
		{"B-21 standard", `{` + hi + `,"serviceTier":"standard"}`, `{"model":"m",` + messages + `}`, ""},
		{"0-4 unknown", `{` + hi + `,"color":1,"shape":null}`, `{"model":"m",` + messages + `}`, "color"},
		{"an unknown name that is no header text", `{` + hi + `,"a,\u000a":1,"` + strings.Repeat("x", 99) + `":1}`, `{"model":"m",` + messages + `}`, "a?? " + strings.Repeat("x", 64)},
		{"B-21 wrong type", `{` + hi + `,"serviceTier":1}`, "400 serviceTier", ""},
		{"B-11 a part of a wrong type", `{` + hi + `,"systemInstruction":{"parts":[{"text":"a"},{"text":1}]}}`, "400 systemInstruction.parts[1].text", ""},
		{"0-4 null", `{` + hi + `,"generationConfig":null,"tools":null,"systemInstruction":null,"toolConfig":null}`, `{"model":"m",` + messages + `}`, ""},
		{"B-5 the path's model wins", `{` + hi + `,"model":"models/other"}`, `{"model":"m",` + messages + `}`, ""},
		{"0-5 camel wins, whatever comes last", `{` + hi + `,"generationConfig":{"topP":0.5,"top_p":0.1}}`, `{"model":"m",` + messages + `,"top_p":0.5}`, ""},
		{"0-5 an escaped key", `{` + hi + `,"generation\u0043onfig":{"top\u005fp":0.5}}`, `{"model":"m",` + messages + `,"top_p":0.5}`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			if got := decodeGeminiTo(x, tt.in); got != tt.want {
				t.Errorf("decode(%s)\n got %s\nwant %s", tt.in, got, tt.want)
			}
			if dropped := strings.Join(x.dropped, " "); dropped != tt.dropped {
				t.Errorf("dropped %q, want %q", dropped, tt.dropped)
			}
		})
	}
}

func TestDecodeGeminiStream(t *testing.T) {
	x := geminiExchange()
	x.gemini.Stream = true
	got := decodeGeminiTo(x, `{"contents":"hi"}`)
	want := `{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}`
	if got != want || !x.stream {
		t.Errorf("B-37: got %s, stream %v; want %s", got, x.stream, want)
	}
}

func TestDecodeGeminiOnChatPath(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, tt := range []struct {
		name, in, accept, want string
		stream                 bool
	}{
		{"A-6", `{"model":"models/g","contents":"hi"}`, "", `{"model":"g",` + messages + `}`, false},
		{"A-6 stream", `{"model":"g","contents":"hi","stream":true}`, "", `{"model":"g",` + messages + `,"stream":true}`, true},
		{"A-6 stream false", `{"model":"g","contents":"hi","stream":false,"stream_options":{}}`, "text/event-stream", `{"model":"g",` + messages + `}`, false},
		{"stream by Accept", `{"model":"g","contents":"hi"}`, "text/event-stream", `{"model":"g",` + messages + `,"stream":true}`, true},
		{"A-41", `{"model":"g","contents":"hi","stream":true,"stream_options":{"include_usage":true}}`, "", `{"model":"g",` + messages + `,"stream":true,"stream_options":{"include_usage":true}}`, true},
		{"A-6 no model", `{"contents":"hi"}`, "", "400 model", false},
		{"A-6 model of a wrong type", `{"model":7,"contents":"hi"}`, "", "400 model", false},
		{"stream of a wrong type", `{"model":"g","contents":"hi","stream":"yes"}`, "", "400 stream", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := geminiExchange()
			x.gemini, x.model = nil, ""
			if tt.accept != "" {
				x.header.Set("Accept", tt.accept)
			}
			if got := decodeGeminiTo(x, tt.in); got != tt.want || x.stream != tt.stream {
				t.Errorf("decode(%s)\n got %s, stream %v\nwant %s, stream %v", tt.in, got, x.stream, tt.want, tt.stream)
			}
		})
	}
}

// geminiIDs are the ids in a decoded conversation: of calls as "name=id", of
// results as "id".
func geminiIDs(t *testing.T, contents string) string {
	t.Helper()
	q, err := decodeGemini(geminiExchange(), []byte(`{"contents":`+contents+`}`))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range q.Messages {
		for _, c := range m.ToolCalls {
			ids = append(ids, c.Function.Name+"="+c.ID)
		}
		if m.Role == "tool" {
			ids = append(ids, m.ToolCallID)
		}
	}
	return strings.Join(ids, " ")
}

func TestGeminiCallIDs(t *testing.T) {
	if got := geminiCallID("", 0, "f", `{"b":1,"a":2}`); got != "4mh4tyn7x" {
		t.Errorf("B-56: call 0 = %s, want 4mh4tyn7x", got)
	}
	if got := geminiCallID("", 1, "f", `{"b":1,"a":2}`); got != "16wbc6zhm" {
		t.Errorf("B-56: call 1 = %s, want 16wbc6zhm", got)
	}
	f0, g1, f2 := geminiCallID("", 0, "f", "{}"), geminiCallID("", 1, "g", "{}"), geminiCallID("", 2, "f", "{}")
	calls := `{"role":"model","parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"g"}},{"functionCall":{"name":"f"}}]}`
	made := "f=" + f0 + " g=" + g1 + " f=" + f2
	reply := func(name string) string {
		return `{"functionResponse":{"name":"` + name + `","response":{"output":"x"}}}`
	}
	for _, tt := range []struct{ name, contents, want string }{
		{"B-58 by name", `[` + calls + `,{"parts":[` + reply("f") + `,` + reply("f") + `,` + reply("g") + `]}]`, made + " " + f0 + " " + f2 + " " + g1},
		{"B-55 in turns of their own", `[` + calls + `,{"parts":[` + reply("f") + `]},{"parts":[` + reply("f") + `]},{"parts":[` + reply("g") + `]}]`, made + " " + f0 + " " + f2 + " " + g1},
		{"B-58 then by place", `[` + calls + `,{"parts":[` + reply("h") + `,` + reply("f") + `,` + reply("h") + `]}]`, made + " " + f0 + " " + f2 + " " + g1},
		{"B-58 more answers than calls", `[` + calls + `,{"parts":[` + reply("f") + `,` + reply("f") + `,` + reply("g") + `,` + reply("f") + `]}]`,
			made + " " + f0 + " " + f2 + " " + g1 + " " + geminiCallID("orphan", 3, "f", `{"output":"x"}`)},
		{"B-58 no call at all", `[{"parts":[` + reply("f") + `]}]`, geminiCallID("orphan", 0, "f", `{"output":"x"}`)},
		{"B-57 B-59 ids decide", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"a"}},{"functionCall":{"name":"f","id":"b"}}]},{"parts":[{"functionResponse":{"name":"f","id":"b"}},{"functionResponse":{"name":"f","id":"a"}}]}]`,
			"f=a f=b b a"},
		{"B-57 then one without", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"a"}},{"functionCall":{"name":"f","id":"b"}}]},{"parts":[{"functionResponse":{"name":"f","id":"a"}},` + reply("f") + `]}]`,
			"f=a f=b a b"},
		{"a client's own id for a call without one", `[{"role":"model","parts":[{"functionCall":{"name":"f"}}]},{"parts":[{"functionResponse":{"name":"f","id":"f-17"}}]}]`, "f=" + f0 + " " + f0},
		{"an id that no call has", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"a"}}]},{"parts":[{"functionResponse":{"name":"f","id":"zz"}}]}]`, "f=a zz"},
		{"B-58 the latest turn with calls", `[{"role":"model","parts":[{"functionCall":{"name":"f","id":"a"}}]},{"parts":[` + reply("f") + `]},{"role":"model","parts":[{"functionCall":{"name":"f","id":"b"}}]},{"parts":[` + reply("f") + `]}]`, "f=a a f=b b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := geminiIDs(t, tt.contents); got != tt.want {
				t.Errorf("ids of %s\n got %s\nwant %s", tt.contents, got, tt.want)
			}
		})
	}
}

func TestDecodeGeminiIsStableOverTurns(t *testing.T) {
	turns := []string{
		`{"role":"user","parts":[{"text":"w?"}]}`,
		`{"role":"model","parts":[{"functionCall":{"name":"f","args":{"b":1}}},{"functionCall":{"name":"f","args":{"b":1}}}]}`,
		`{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"output":"1"}}},{"functionResponse":{"name":"f","response":{"output":"2"}}}]}`,
		`{"role":"model","parts":[{"text":"so"}]}`,
		`{"role":"user","parts":[{"text":"and?"}]}`,
	}
	was := ""
	for n := 1; n <= len(turns); n++ {
		got := geminiMessages(decodeGeminiTo(geminiExchange(), `{"contents":[`+strings.Join(turns[:n], ",")+`]}`))
		if !strings.HasPrefix(got, strings.TrimSuffix(was, "]")) {
			t.Errorf("H-10: %d turns give\n%s\nwhich does not begin with\n%s", n, got, was)
		}
		was = got
	}
}

func TestGeminiTurns(t *testing.T) {
	raw := []json.RawMessage{json.RawMessage(`{"role":"user","parts":[{"text":"a"}]}`), json.RawMessage(`{"role":"model","parts":[{"text":"b"}]}`)}
	x := geminiExchange()
	x.gemini = nil
	messages, err := geminiTurns(x, raw)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := marshal(messages)
	if want := `[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]`; string(got) != want {
		t.Errorf("A-26: got %s, want %s", got, want)
	}
	if _, err := geminiTurns(x, append(raw, json.RawMessage(`{"parts":[3]}`))); geminiErrorText(err) != "400 input[2].parts[0]" {
		t.Errorf("A-26: error %v, want one about input[2].parts[0]", err)
	}
}

func TestDecodeGeminiCount(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"contents", `{"contents":"hi"}`, `[{"role":"user","content":"hi"}]`},
		{"whole request", `{"generateContentRequest":{"model":"models/m","contents":"hi","systemInstruction":"s"}}`, `[{"role":"system","content":"s"},{"role":"user","content":"hi"}]`},
		{"snake case", `{"generate_content_request":{"contents":"hi"}}`, `[{"role":"user","content":"hi"}]`},
		{"wrong type", `{"generateContentRequest":"hi"}`, "400 generateContentRequest"},
		{"nothing", `{}`, "400 contents"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q, err := decodeGeminiCount(geminiExchange(), []byte(tt.in))
			got := ""
			if err != nil {
				got = geminiErrorText(err)
			} else if b, err := marshal(q.Messages); err == nil {
				got = string(b)
			}
			if got != tt.want {
				t.Errorf("B.9: got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestDecodeGeminiFixtures reads requests as clients send them.
func TestDecodeGeminiFixtures(t *testing.T) {
	inputs, _ := filepath.Glob("testdata/gemini/*.in.json")
	if len(inputs) == 0 {
		t.Fatal("no fixtures")
	}
	for _, in := range inputs {
		t.Run(filepath.Base(in), func(t *testing.T) {
			body, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(in, ".in.json") + ".chat.json")
			if err != nil {
				t.Fatal(err)
			}
			x := geminiExchange()
			x.gemini.Stream = true
			got := decodeGeminiTo(x, string(body))
			if got != string(compact(want)) {
				t.Errorf("got\n%s\nwant\n%s", got, compact(want))
			}
		})
	}
}

func FuzzDecodeGemini(f *testing.F) {
	inputs, _ := filepath.Glob("testdata/gemini/*.in.json")
	for _, in := range inputs {
		if body, err := os.ReadFile(in); err == nil {
			f.Add(body)
		}
	}
	for _, seed := range []string{
		`{"contents":"hi"}`,
		`{"contents":[{"parts":[{"functionResponse":{"name":"f","response":{"output":"1"}}}]}]}`,
		`{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f.g","args":{}},"thoughtSignature":"YXB4MS5jLg=="}]}],"tools":[{"functionDeclarations":[{"name":"f","parameters":{"type":"OBJECT","nullable":true}}]}]}`,
		`{"contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"aGk="}},{"fileData":{"fileUri":"x://%"}}]}],"generationConfig":{"thinkingConfig":{"thinkingBudget":-1},"topK":1e3}}`,
		`{"contents":{"parts":{"executableCode":{"code":"x"}}},"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if _, err := peek(body); err != nil {
			return
		}
		q, err := decodeGemini(geminiExchange(), body)
		if err != nil {
			var e *apiError
			if !errors.As(err, &e) || e.Status < 400 || e.Status > 499 {
				t.Fatalf("error %v is no 4xx", err)
			}
			return
		}
		first, err := q.body()
		if err != nil {
			t.Fatal(err)
		}
		if err := checkJSON(first); err != nil {
			t.Fatalf("%v in %s", err, first)
		}
		if again := decodeGeminiTo(geminiExchange(), string(body)); again != string(first) {
			t.Fatalf("the second time it gives\n%s\nand the first\n%s", again, first)
		}
	})
}
