package main

import "testing"

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		chunks []string // the members of each
		want   usage
	}{
		{"none", []string{`"choices":[]`}, usage{}},
		{"null", []string{`"usage":null`}, usage{}},
		{"empty", []string{`"usage":{}`}, usage{}},
		{"of nothing (E-43)", []string{`"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`}, usage{}},
		{"of nothing at first", []string{`"usage":{"prompt_tokens":3,"completion_tokens":2}`, `"usage":{"prompt_tokens":0,"completion_tokens":0}`}, usage{Known: true, Prompt: 3, Completion: 2}},
		{"OpenAI", []string{`"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":{"reasoning_tokens":1}}`},
			usage{Known: true, Prompt: 3, Completion: 2, Cached: 1, Reasoning: 1, Total: 5}},
		{"in every chunk (E-41)", []string{`"usage":{"prompt_tokens":3,"completion_tokens":1}`, `"usage":{"prompt_tokens":3,"completion_tokens":2}`, `"usage":null`},
			usage{Known: true, Prompt: 3, Completion: 2}},
		{"Groq (E-42)", []string{`"x_groq":{"id":"r"}`, `"x_groq":{"usage":{"prompt_tokens":3,"completion_tokens":2}}`}, usage{Known: true, Prompt: 3, Completion: 2}},
		{"llama.cpp (E-42)", []string{`"timings":{"cache_n":7,"prompt_n":3,"predicted_n":2,"predicted_ms":1.5}`}, usage{Known: true, Prompt: 10, Completion: 2, Cached: 7}},
		{"llama.cpp, both", []string{`"usage":{"prompt_tokens":10,"completion_tokens":2},"timings":{"prompt_n":3}`}, usage{Known: true, Prompt: 10, Completion: 2}},
		{"DeepSeek (E-44)", []string{`"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_cache_hit_tokens":1}`}, usage{Known: true, Prompt: 3, Completion: 2, Cached: 1}},
		{"cached at the top (E-44)", []string{`"usage":{"prompt_tokens":3,"completion_tokens":2,"cached_tokens":1,"prompt_tokens_details":{"cached_tokens":0}}`}, usage{Known: true, Prompt: 3, Completion: 2, Cached: 1}},
		{"llama.cpp, usage at the end", []string{`"timings":{"prompt_n":3,"predicted_n":1}`, `"usage":{"prompt_tokens":10,"completion_tokens":2}`}, usage{Known: true, Prompt: 10, Completion: 2}},
		{"timings in every chunk", []string{`"timings":{"prompt_n":3,"predicted_n":1}`, `"timings":{"prompt_n":3,"predicted_n":2}`}, usage{Known: true, Prompt: 3, Completion: 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var u usage
			for _, c := range tt.chunks {
				for k, v := range members([]byte("{" + c + "}")) {
					u.read(k, v)
				}
			}
			u.timed = false
			if u != tt.want {
				t.Errorf("%s: read %+v, want %+v", tt.chunks, u, tt.want)
			}
		})
	}
}

func TestIntOf(t *testing.T) {
	for in, want := range map[string]int64{"12": 12, "12.9": 12, "0": 0, "-3": 0, `"5"`: 0, "null": 0, "": 0} {
		if got := intOf([]byte(in)); got != want {
			t.Errorf("intOf(%q) = %d, want %d", in, got, want)
		}
	}
	if got := intOf([]byte("99999999999999999999999999")); got <= 0 {
		t.Errorf("a number that is too large became %d", got)
	}
}
