package main

import (
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
