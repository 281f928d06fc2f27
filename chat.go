package main

// The wire: OpenAI chat completions, which is what upstreams speak.

// openai is the dialect of chat completions itself. Its requests and answers
// pass through; only errors of the gateway's own are written in it.
var openai = dialect{
	name:      "openai",
	fail:      failOpenAI,
	failEvent: failEventOpenAI,
	ping:      ": keep-alive\n\n",
}

// openaiError is the body of every error in OpenAI's shape.
type openaiError struct {
	Error openaiErrorDetail `json:"error"`
}

type openaiErrorDetail struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func failOpenAI(e *apiError) (int, any) {
	return e.Status, openaiError{openaiErrorDetail{e.Message, e.Type, orNil(e.Param), orNil(e.Code)}}
}

func failEventOpenAI(dst []byte, e *apiError) []byte {
	_, body := failOpenAI(e)
	data, err := marshal(body)
	if err != nil {
		return dst
	}
	return appendEvent(dst, "", data)
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// usage is what an answer cost, in tokens.
type usage struct {
	Known      bool // the upstream told; absent stays absent, never 0
	Prompt     int64
	Completion int64
	Cached     int64 // part of Prompt, read from the upstream's cache
	CacheWrite int64 // part of Prompt, written to the upstream's cache
	Reasoning  int64 // part of Completion
	Total      int64 // as the upstream says, which may count what stands in none of these; 0 when it does not

	timed bool // read from llama.cpp's timings, which count only while there is nothing better
}

// read takes the usage of an answer or chunk from its top-level members,
// in every spelling that upstreams have for it (dialects E-41 to E-44).
func (u *usage) read(key, value []byte) {
	switch string(key) {
	case "usage":
		u.readOpenAI(value)
	case "x_groq":
		if !u.Known || u.timed {
			u.readOpenAI(member(value, "usage"))
		}
	case "timings":
		if !u.Known || u.timed {
			u.readTimings(value)
		}
	}
}

func (u *usage) readOpenAI(obj []byte) {
	if !isObject(obj) {
		return
	}
	var got usage
	for k, v := range members(obj) {
		switch string(k) {
		case "prompt_tokens":
			got.Prompt = intOf(v)
		case "completion_tokens":
			got.Completion = intOf(v)
		case "total_tokens":
			got.Total = intOf(v)
		case "prompt_tokens_details":
			if n := intOf(member(v, "cached_tokens")); n > 0 {
				got.Cached = n
			}
			if n := intOf(member(v, "cache_write_tokens")); n > 0 {
				got.CacheWrite = n
			}
		case "completion_tokens_details":
			got.Reasoning = intOf(member(v, "reasoning_tokens"))
		case "prompt_cache_hit_tokens", "cached_tokens":
			got.Cached = intOf(v)
		case "cache_creation_input_tokens":
			got.CacheWrite = intOf(v)
		}
	}
	if got.Known = got.Prompt > 0 || got.Completion > 0; got.Known {
		*u = got
	}
}

// readTimings reads llama.cpp's own figures.
func (u *usage) readTimings(obj []byte) {
	got := usage{timed: true}
	for k, v := range members(obj) {
		switch string(k) {
		case "prompt_n":
			got.Prompt, got.Known = got.Prompt+intOf(v), true
		case "cache_n":
			got.Prompt, got.Cached = got.Prompt+intOf(v), intOf(v)
		case "predicted_n":
			got.Completion = intOf(v)
		}
	}
	if got.Known {
		*u = got
	}
}

// intOf is the integer part of a raw number, 0 for anything else.
func intOf(v []byte) int64 {
	var n int64
	for _, c := range v {
		if !isDigit(c) || n > 1<<53 {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
