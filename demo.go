package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	demoPace       = 20 * time.Millisecond // between two tokens, as a fast hosted model does
	demoFirstToken = 8                     // pauses before the first token: 160 ms at demoPace
	demoSlowStart  = 150                   // the same for demo-slow: 3 s
	demoCutAfter   = 5                     // events that demo-broken sends
	demoOwner      = "apiproxy-demo"
	demoMaxBody    = 64 << 20
	demoMaxChoices = 128 // OpenAI's own limit for n
	demoDimensions = 16  // of an embedding, unless the request says otherwise
)

// demoModelServer is a small upstream that speaks OpenAI chat completions and
// needs no model: what it answers depends on the request alone, ids and times
// apart. It is as strict as OpenAI where a gateway could break a request (roles,
// tool messages, image data), so that a request damaged on the way is refused.
type demoModelServer struct {
	// pace is the pause between two tokens. The waits for a first token are
	// multiples of it, so zero means no waiting at all.
	pace time.Duration
}

// demoUpstream is the upstream of demo mode, at the pace of a real one.
func demoUpstream() http.Handler { return newDemoUpstream(demoPace) }

// newDemoUpstream is demoUpstream at another pace.
func newDemoUpstream(pace time.Duration) http.Handler {
	s := &demoModelServer{pace: pace}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", s.handleModels)
	mux.HandleFunc("GET /v1/models/{id...}", s.handleModel)
	mux.HandleFunc("POST /v1/chat/completions", s.handleChat)
	mux.HandleFunc("POST /v1/completions", s.handleCompletions)
	mux.HandleFunc("POST /v1/embeddings", s.handleEmbeddings)
	mux.HandleFunc("POST /v1/files", s.handleFiles)
	for _, path := range []string{"/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/files"} {
		mux.HandleFunc(path, demoWrongMethod)
	}
	mux.HandleFunc("/", demoUnknownPath)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", "req_"+rand.Text())
		w.Header().Set("Openai-Version", "2020-10-01")
		mux.ServeHTTP(w, r)
	})
}

func demoWrongMethod(w http.ResponseWriter, r *http.Request) {
	allowed := http.MethodPost
	if r.URL.Path == "/v1/models" {
		allowed = http.MethodGet
	}
	w.Header().Set("Allow", allowed)
	demoFail(w, &demoError{Status: 405, Message: fmt.Sprintf("Not allowed to %s on %s. (HINT: Perhaps you meant to use a different HTTP method?)", r.Method, r.URL.Path)})
}

func demoUnknownPath(w http.ResponseWriter, r *http.Request) {
	demoFail(w, &demoError{Status: 404, Message: fmt.Sprintf("Invalid URL (%s %s)", r.Method, r.URL.Path)})
}

func (s *demoModelServer) handleModels(w http.ResponseWriter, r *http.Request) {
	list := struct {
		Object string          `json:"object"`
		Data   []demoModelInfo `json:"data"`
	}{Object: "list"}
	for i := range demoModels {
		list.Data = append(list.Data, demoModels[i].info())
	}
	demoWriteJSON(w, 200, list)
}

func (s *demoModelServer) handleModel(w http.ResponseWriter, r *http.Request) {
	m, err := demoFindModel(r.PathValue("id"))
	if err != nil {
		demoFail(w, err)
		return
	}
	demoWriteJSON(w, 200, m.info())
}

func (s *demoModelServer) handleChat(w http.ResponseWriter, r *http.Request) {
	q := new(demoChatRequest)
	body, err := demoDecode(w, r, q)
	if err != nil {
		demoFail(w, err)
		return
	}
	q.body = body
	m, err := demoFindModel(q.Model)
	if err == nil {
		err = q.check()
	}
	if err == nil && m.refuse != nil {
		err = m.refuse
	}
	if err != nil {
		demoFail(w, err)
		return
	}
	a := newDemoAnswer(m, q)
	if q.Stream {
		s.streamEvents(w, r, m, a.events(q))
		return
	}
	s.writeWhole(w, r, m, a.completion(q))
}

// handleCompletions answers the legacy endpoint with the words of a chat that
// holds the prompt alone.
func (s *demoModelServer) handleCompletions(w http.ResponseWriter, r *http.Request) {
	var q struct {
		demoChatRequest
		Prompt demoStrings `json:"prompt"`
	}
	_, err := demoDecode(w, r, &q)
	if err != nil {
		demoFail(w, err)
		return
	}
	m, err := demoFindModel(q.Model)
	if err == nil {
		err = q.checkLimits()
	}
	if err == nil && m.refuse != nil {
		err = m.refuse
	}
	if err != nil {
		demoFail(w, err)
		return
	}
	if len(q.Prompt) == 0 {
		q.Prompt = demoStrings{""}
	}
	a := &demoAnswer{head: newDemoHead("cmpl-", "text_completion", q.Model)}
	for _, prompt := range q.Prompt {
		q.Messages = []demoMessage{{Role: "user", Content: demoContent{Text: prompt}}}
		q.body = []byte(prompt)
		one := newDemoAnswer(m, &q.demoChatRequest)
		a.choices = append(a.choices, one.choices...)
		a.usage.add(one.usage)
	}
	if q.Stream {
		s.streamEvents(w, r, m, a.textEvents(&q.demoChatRequest))
		return
	}
	s.writeWhole(w, r, m, a.textCompletion())
}

func (s *demoModelServer) handleEmbeddings(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model          string      `json:"model"`
		Input          demoStrings `json:"input"`
		Dimensions     *int        `json:"dimensions"`
		EncodingFormat string      `json:"encoding_format"`
	}
	_, err := demoDecode(w, r, &q)
	if err == nil {
		_, err = demoFindModel(q.Model)
	}
	dimensions := demoDimensions
	if q.Dimensions != nil {
		dimensions = *q.Dimensions
	}
	switch {
	case err != nil:
	case len(q.Input) == 0:
		err = demoInvalid("input", "missing_required_parameter", "Missing required parameter: 'input'.")
	case slices.Contains(q.Input, ""):
		err = demoInvalid("input", "invalid_value", "Invalid 'input': input cannot be an empty string.")
	case dimensions < 1 || dimensions > 4096:
		err = demoInvalid("dimensions", "invalid_value", "Invalid 'dimensions': %d. Expected a value between 1 and 4096.", dimensions)
	}
	if err != nil {
		demoFail(w, err)
		return
	}
	demoWriteJSON(w, 200, newDemoEmbeddings(q.Model, q.Input, dimensions, q.EncodingFormat == "base64"))
}

// handleFiles reads an upload as it arrives and keeps nothing of it. The file's
// id is made from the SHA-256 of its bytes, so a test sees whether all arrived.
func (s *demoModelServer) handleFiles(w http.ResponseWriter, r *http.Request) {
	parts, err := r.MultipartReader()
	if err != nil {
		demoFail(w, demoInvalid("", "", "Could not parse multipart form: %v.", err))
		return
	}
	file := struct {
		ID        string `json:"id"`
		Object    string `json:"object"`
		Bytes     int64  `json:"bytes"`
		CreatedAt int64  `json:"created_at"`
		Filename  string `json:"filename"`
		Purpose   string `json:"purpose"`
		Status    string `json:"status"`
	}{Object: "file", CreatedAt: time.Now().Unix(), Status: "processed"}
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err == nil && p.FormName() == "purpose" {
			var text []byte
			text, err = io.ReadAll(io.LimitReader(p, 100))
			file.Purpose = string(text)
		}
		if err == nil && p.FormName() == "file" {
			file.Filename = p.FileName()
			sum := sha256.New()
			file.Bytes, err = io.Copy(sum, p)
			file.ID = "file-" + hex.EncodeToString(sum.Sum(nil))[:24]
		}
		if err != nil {
			demoFail(w, demoInvalid("", "", "Could not parse multipart form: %v.", err))
			return
		}
	}
	switch {
	case file.ID == "":
		demoFail(w, demoInvalid("file", "missing_required_parameter", "Missing required parameter: 'file'."))
	case file.Purpose == "":
		demoFail(w, demoInvalid("purpose", "missing_required_parameter", "Missing required parameter: 'purpose'."))
	default:
		demoWriteJSON(w, 200, file)
	}
}

// streamEvents sends the headers at once and then each event in one write and
// one flush, until the end or until the client has gone.
func (s *demoModelServer) streamEvents(w http.ResponseWriter, r *http.Request, m *demoModel, events []any) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	pauses := m.start
	for i, e := range events {
		// The last event but the usage carries a finish reason, and an answer
		// with one is not broken.
		if m.broken && i == max(0, min(demoCutAfter, len(events)-2)) {
			panic(http.ErrAbortHandler)
		}
		if s.wait(r.Context(), pauses) != nil {
			return
		}
		pauses = 1
		if _, err := w.Write(demoEvent(demoJSON(e))); err != nil || rc.Flush() != nil {
			return
		}
	}
	if _, err := w.Write(demoEvent([]byte("[DONE]"))); err == nil {
		_ = rc.Flush()
	}
}

// writeWhole sends a JSON answer; a broken model's ends in the middle.
func (s *demoModelServer) writeWhole(w http.ResponseWriter, r *http.Request, m *demoModel, answer any) {
	if s.wait(r.Context(), m.start) != nil {
		return
	}
	if !m.broken {
		demoWriteJSON(w, 200, answer)
		return
	}
	b := demoJSON(answer)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b[:len(b)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// wait pauses, or ends early with an error when the client has gone.
func (s *demoModelServer) wait(ctx context.Context, pauses int) error {
	d := time.Duration(pauses) * s.pace
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// demoChatRequest is the part of a chat request that the demo models heed.
type demoChatRequest struct {
	Model         string        `json:"model"`
	Messages      []demoMessage `json:"messages"`
	Stream        bool          `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   *int            `json:"n"`
	Stop                demoStrings     `json:"stop"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Logprobs            json.RawMessage `json:"logprobs"` // bool; a number on the legacy endpoint
	TopLogprobs         *int            `json:"top_logprobs"`
	ResponseFormat      *struct {
		Type       string `json:"type"`
		JSONSchema *struct {
			Schema *demoSchema `json:"schema"`
		} `json:"json_schema"`
	} `json:"response_format"`
	Tools             []demoTool     `json:"tools"`
	ToolChoice        demoToolChoice `json:"tool_choice"`
	ParallelToolCalls *bool          `json:"parallel_tool_calls"`

	body []byte
}

type demoMessage struct {
	Role       string      `json:"role"`
	Content    demoContent `json:"content"`
	ToolCallID string      `json:"tool_call_id"`
	ToolCalls  []struct {
		ID string `json:"id"`
	} `json:"tool_calls"`
}

type demoTool struct {
	Function struct {
		Name       string      `json:"name"`
		Parameters *demoSchema `json:"parameters"`
	} `json:"function"`
}

// demoContent is a message's content: null, a string or a list of parts.
type demoContent struct {
	Text   string // all text parts
	Images []int  // bytes of each image; 0 for one given by address
}

func (c *demoContent) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &c.Text)
	}
	var parts []struct {
		Type     string `json:"type"`
		Text     string `json:"text"`
		Refusal  string `json:"refusal"`
		ImageURL struct {
			URL string `json:"url"`
		} `json:"image_url"`
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	for _, p := range parts {
		switch p.Type {
		case "text", "refusal":
			c.Text += p.Text + p.Refusal
		case "image_url":
			n, err := demoImageSize(p.ImageURL.URL)
			if err != nil {
				return err
			}
			c.Images = append(c.Images, n)
		case "input_audio", "file":
		default:
			return demoInvalid("messages", "invalid_value", "Invalid value: '%s'. Supported values are: 'text', 'image_url', 'input_audio', 'refusal', and 'file'.", p.Type)
		}
	}
	return nil
}

// demoImageSize decodes a data URL to count its bytes: damaged data is refused.
func demoImageSize(url string) (int, error) {
	if !strings.HasPrefix(url, "data:") {
		return 0, nil
	}
	_, data, _ := strings.Cut(url, ";base64,")
	n, err := io.Copy(io.Discard, base64.NewDecoder(base64.StdEncoding, strings.NewReader(data)))
	if err != nil || n == 0 {
		return 0, demoInvalid("messages", "invalid_image_url", "Invalid image URL. Expected a base64-encoded data URL with an image.")
	}
	return int(n), nil
}

// demoStrings is one string or a list of them; token numbers count as strings.
type demoStrings []string

func (l *demoStrings) UnmarshalJSON(b []byte) error {
	switch {
	case b[0] == '"':
		*l = []string{""}
		return json.Unmarshal(b, &(*l)[0])
	case demoIsTokens(b):
		*l = []string{string(b)}
		return nil
	}
	var items []json.RawMessage
	if err := json.Unmarshal(b, &items); err != nil {
		return err
	}
	for _, item := range items {
		text := string(item)
		if !demoIsTokens(item) {
			if err := json.Unmarshal(item, &text); err != nil {
				return err
			}
		}
		*l = append(*l, text)
	}
	return nil
}

// demoIsTokens reports whether b is a JSON list of whole numbers.
func demoIsTokens(b []byte) bool {
	var tokens []int
	return b[0] == '[' && json.Unmarshal(b, &tokens) == nil && len(tokens) > 0
}

// demoToolChoice is tool_choice: a mode, or the name of one function.
type demoToolChoice struct{ Mode, Name string }

func (c *demoToolChoice) UnmarshalJSON(b []byte) error {
	if b[0] == '"' {
		return json.Unmarshal(b, &c.Mode)
	}
	var named struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	err := json.Unmarshal(b, &named)
	c.Name = named.Function.Name
	return err
}

var demoRoles = []string{"system", "assistant", "user", "function", "tool", "developer"}

// check refuses what OpenAI refuses.
func (q *demoChatRequest) check() error {
	switch {
	case q.Messages == nil:
		return demoInvalid("messages", "missing_required_parameter", "Missing required parameter: 'messages'.")
	case len(q.Messages) == 0:
		return demoInvalid("messages", "empty_array", "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.")
	case q.TopLogprobs != nil && !q.wantLogprobs():
		return demoInvalid("top_logprobs", "", "'logprobs' must be set to true if 'top_logprobs' is set.")
	case q.ToolChoice.Name != "" && q.tool(q.ToolChoice.Name) == nil:
		return demoInvalid("tool_choice", "", "Tool choice '%s' not found in 'tools' parameter.", q.ToolChoice.Name)
	}
	if err := q.checkLimits(); err != nil {
		return err
	}
	return demoCheckMessages(q.Messages)
}

// checkLimits checks what the legacy endpoint has too.
func (q *demoChatRequest) checkLimits() error {
	switch {
	case q.N != nil && (*q.N < 1 || *q.N > demoMaxChoices):
		return demoInvalid("n", "invalid_value", "Invalid 'n': %d. Expected a value between 1 and %d.", *q.N, demoMaxChoices)
	case q.limit() < 1:
		return demoInvalid("max_tokens", "integer_below_min_value", "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got %d instead.", q.limit())
	case q.StreamOptions != nil && !q.Stream:
		return demoInvalid("stream_options", "", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
	}
	return nil
}

// demoCheckMessages checks roles, and that tool messages answer the calls of the
// assistant message before them, all of those and nothing else.
func demoCheckMessages(messages []demoMessage) error {
	var open []string // calls not answered yet
	for i, m := range messages {
		where := fmt.Sprintf("messages[%d]", i)
		switch {
		case !slices.Contains(demoRoles, m.Role):
			return demoInvalid(where+".role", "invalid_value", "Invalid value: '%s'. Supported values are: '%s'.", m.Role, strings.Join(demoRoles, "', '"))
		case m.Role == "tool" && !slices.Contains(open, m.ToolCallID):
			return demoInvalid(where+".role", "", "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.")
		case m.Role == "tool":
			open = slices.DeleteFunc(open, func(id string) bool { return id == m.ToolCallID })
		case len(open) > 0:
			return demoUnanswered(where, open)
		}
		for _, c := range m.ToolCalls {
			open = append(open, c.ID)
		}
	}
	if len(open) > 0 {
		return demoUnanswered("messages", open)
	}
	return nil
}

func demoUnanswered(param string, ids []string) error {
	return demoInvalid(param, "", "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: %s", strings.Join(ids, ", "))
}

// limit is the most tokens a choice may have.
func (q *demoChatRequest) limit() int {
	for _, n := range []*int{q.MaxCompletionTokens, q.MaxTokens} {
		if n != nil {
			return *n
		}
	}
	return math.MaxInt
}

func (q *demoChatRequest) wantLogprobs() bool { return string(q.Logprobs) == "true" }

func (q *demoChatRequest) wantUsage() bool {
	return q.StreamOptions != nil && q.StreamOptions.IncludeUsage
}

func (q *demoChatRequest) tool(name string) *demoTool {
	for i := range q.Tools {
		if q.Tools[i].Function.Name == name {
			return &q.Tools[i]
		}
	}
	return nil
}

// lastUser is the text of the newest user message.
func (q *demoChatRequest) lastUser() string {
	for _, m := range slices.Backward(q.Messages) {
		if m.Role == "user" {
			return m.Content.Text
		}
	}
	return ""
}

// demoChoice is one choice of an answer, already cut into tokens.
type demoChoice struct {
	Reasoning []string
	Tokens    []string
	Calls     []demoCall
	Finish    string // set by newDemoAnswer
}

type demoCall struct {
	ID       string `json:"id"`
	Type     string `json:"type"`
	Function struct {
		Name      string `json:"name"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// demoAnswer is a whole answer, before it becomes one object or a stream.
type demoAnswer struct {
	head    demoHead
	choices []demoChoice
	usage   demoUsage
}

type demoHead struct {
	ID                string `json:"id"`
	Object            string `json:"object"`
	Created           int64  `json:"created"`
	Model             string `json:"model"`
	SystemFingerprint string `json:"system_fingerprint"`
}

func newDemoHead(idPrefix, object, model string) demoHead {
	return demoHead{ID: idPrefix + rand.Text(), Object: object, Created: time.Now().Unix(), Model: model, SystemFingerprint: "fp_demo"}
}

type demoUsage struct {
	PromptTokens        int `json:"prompt_tokens"`
	CompletionTokens    int `json:"completion_tokens"`
	TotalTokens         int `json:"total_tokens"`
	PromptTokensDetails struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
	CompletionTokensDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"completion_tokens_details"`
}

func (u *demoUsage) add(v demoUsage) {
	u.PromptTokens += v.PromptTokens
	u.CompletionTokens += v.CompletionTokens
	u.TotalTokens += v.TotalTokens
	u.CompletionTokensDetails.ReasoningTokens += v.CompletionTokensDetails.ReasoningTokens
}

func newDemoAnswer(m *demoModel, q *demoChatRequest) *demoAnswer {
	a := &demoAnswer{head: newDemoHead("chatcmpl-", "chat.completion", q.Model)}
	n := 1
	if q.N != nil {
		n = *q.N
	}
	for i := range n {
		c := m.reply(q, i)
		c.end(q)
		a.choices = append(a.choices, c)
		a.usage.CompletionTokens += c.size()
		a.usage.CompletionTokensDetails.ReasoningTokens += len(c.Reasoning)
	}
	a.usage.PromptTokens = q.size()
	a.usage.TotalTokens = a.usage.PromptTokens + a.usage.CompletionTokens
	return a
}

// end cuts the choice at a stop string or at the token limit and sets its
// finish reason.
func (c *demoChoice) end(q *demoChatRequest) {
	c.Finish = "stop"
	if len(c.Calls) > 0 {
		c.Finish = "tool_calls"
		return
	}
	text := strings.Join(c.Tokens, "")
	cut := len(text)
	for _, stop := range q.Stop {
		if i := strings.Index(text, stop); i >= 0 && stop != "" {
			cut = min(cut, i)
		}
	}
	c.Tokens = demoCutTokens(c.Tokens, cut)
	limit := q.limit()
	if len(c.Reasoning)+len(c.Tokens) <= limit {
		return
	}
	c.Finish = "length"
	c.Reasoning = c.Reasoning[:min(limit, len(c.Reasoning))]
	c.Tokens = c.Tokens[:min(limit-len(c.Reasoning), len(c.Tokens))]
}

// demoCutTokens keeps the first size bytes of the tokens.
func demoCutTokens(tokens []string, size int) []string {
	for i, t := range tokens {
		if len(t) < size {
			size -= len(t)
			continue
		}
		tokens[i] = t[:size]
		if size == 0 {
			return tokens[:i]
		}
		return tokens[:i+1]
	}
	return tokens
}

// size is the choice's length in tokens, arguments of calls included.
func (c *demoChoice) size() int {
	n := len(c.Reasoning) + len(c.Tokens)
	for _, call := range c.Calls {
		n += 1 + len(demoTokens(call.Function.Arguments))
	}
	return n
}

// size estimates the prompt's tokens: its words, a few for each message, and
// what OpenAI counts for a small image.
func (q *demoChatRequest) size() int {
	n := 0
	for _, m := range q.Messages {
		n += 4 + len(strings.Fields(m.Content.Text)) + 85*len(m.Content.Images)
	}
	return n
}

type demoCompletion struct {
	demoHead
	Choices []demoWholeChoice `json:"choices"`
	Usage   demoUsage         `json:"usage"`
}

type demoWholeChoice struct {
	Index        int           `json:"index"`
	Message      demoAssistant `json:"message"`
	Logprobs     *demoLogprobs `json:"logprobs"`
	FinishReason string        `json:"finish_reason"`
}

type demoAssistant struct {
	Role             string     `json:"role"`
	Content          *string    `json:"content"`
	ReasoningContent string     `json:"reasoning_content,omitempty"`
	Refusal          *string    `json:"refusal"`
	ToolCalls        []demoCall `json:"tool_calls,omitempty"`
}

func (a *demoAnswer) completion(q *demoChatRequest) demoCompletion {
	whole := demoCompletion{demoHead: a.head, Usage: a.usage}
	for i, c := range a.choices {
		w := demoWholeChoice{Index: i, FinishReason: c.Finish}
		w.Message = demoAssistant{Role: "assistant", ReasoningContent: strings.Join(c.Reasoning, ""), ToolCalls: c.Calls}
		if len(c.Calls) == 0 {
			text := strings.Join(c.Tokens, "")
			w.Message.Content = &text
			w.Logprobs = q.logprobs(c.Tokens...)
		}
		whole.Choices = append(whole.Choices, w)
	}
	return whole
}

type demoChunk struct {
	demoHead
	Choices []demoChunkChoice `json:"choices"`
	Usage   json.RawMessage   `json:"usage,omitempty"` // null before the last chunk, absent unless asked for
}

type demoChunkChoice struct {
	Index        int           `json:"index"`
	Delta        demoDelta     `json:"delta"`
	Logprobs     *demoLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type demoDelta struct {
	Role             string          `json:"role,omitempty"`
	Content          json.RawMessage `json:"content,omitempty"`
	ReasoningContent string          `json:"reasoning_content,omitempty"`
	ToolCalls        []demoCallDelta `json:"tool_calls,omitempty"`
}

type demoCallDelta struct {
	Index    int    `json:"index"`
	ID       string `json:"id,omitempty"`
	Type     string `json:"type,omitempty"`
	Function struct {
		Name      string `json:"name,omitempty"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// events is the answer as stream events. Several choices are interleaved, as
// they are when a model works on them at once.
func (a *demoAnswer) events(q *demoChatRequest) []any {
	head := a.head
	head.Object = "chat.completion.chunk"
	var usage json.RawMessage
	if q.wantUsage() {
		usage = json.RawMessage("null")
	}
	lines := make([][]demoChunkChoice, len(a.choices))
	for i := range a.choices {
		lines[i] = a.choices[i].deltas(i, q)
	}
	var events []any
	for _, choice := range demoInterleave(lines) {
		events = append(events, demoChunk{head, []demoChunkChoice{choice}, usage})
	}
	if q.wantUsage() {
		events = append(events, demoChunk{head, []demoChunkChoice{}, demoJSON(a.usage)})
	}
	return events
}

// demoInterleave takes one element of each line in turn.
func demoInterleave[T any](lines [][]T) []T {
	var all []T
	for i, more := 0, true; more; i++ {
		more = false
		for _, line := range lines {
			if i < len(line) {
				all = append(all, line[i])
				more = true
			}
		}
	}
	return all
}

// deltas is one choice as the stream shows it: role, reasoning, text, calls,
// finish reason.
func (c *demoChoice) deltas(index int, q *demoChatRequest) []demoChunkChoice {
	first := demoDelta{Role: "assistant", Content: json.RawMessage(`""`)}
	if len(c.Calls) > 0 {
		first.Content = json.RawMessage("null")
	}
	list := []demoChunkChoice{{Index: index, Delta: first}}
	for _, t := range c.Reasoning {
		list = append(list, demoChunkChoice{Index: index, Delta: demoDelta{ReasoningContent: t}})
	}
	for _, t := range c.Tokens {
		list = append(list, demoChunkChoice{Index: index, Delta: demoDelta{Content: demoJSON(t)}, Logprobs: q.logprobs(t)})
	}
	for i, call := range c.Calls {
		for _, d := range call.deltas(i) {
			list = append(list, demoChunkChoice{Index: index, Delta: demoDelta{ToolCalls: []demoCallDelta{d}}})
		}
	}
	return append(list, demoChunkChoice{Index: index, FinishReason: &c.Finish})
}

// deltas is the call's name and id, then its arguments in fragments.
func (c *demoCall) deltas(index int) []demoCallDelta {
	first := demoCallDelta{Index: index, ID: c.ID, Type: c.Type}
	first.Function.Name = c.Function.Name
	list := []demoCallDelta{first}
	for _, piece := range demoPieces(c.Function.Arguments, 8) {
		d := demoCallDelta{Index: index}
		d.Function.Arguments = piece
		list = append(list, d)
	}
	return list
}

type demoText struct {
	demoHead
	Choices []demoTextChoice `json:"choices"`
	Usage   *demoUsage       `json:"usage,omitempty"`
}

type demoTextChoice struct {
	Text         string  `json:"text"`
	Index        int     `json:"index"`
	Logprobs     *string `json:"logprobs"` // always null
	FinishReason *string `json:"finish_reason"`
}

func (a *demoAnswer) textCompletion() demoText {
	whole := demoText{demoHead: a.head, Usage: &a.usage}
	for i := range a.choices {
		c := &a.choices[i]
		whole.Choices = append(whole.Choices, demoTextChoice{Text: strings.Join(c.Tokens, ""), Index: i, FinishReason: &c.Finish})
	}
	return whole
}

func (a *demoAnswer) textEvents(q *demoChatRequest) []any {
	lines := make([][]demoTextChoice, len(a.choices))
	for i := range a.choices {
		for _, t := range a.choices[i].Tokens {
			lines[i] = append(lines[i], demoTextChoice{Text: t, Index: i})
		}
		lines[i] = append(lines[i], demoTextChoice{Index: i, FinishReason: &a.choices[i].Finish})
	}
	var events []any
	for _, choice := range demoInterleave(lines) {
		events = append(events, demoText{demoHead: a.head, Choices: []demoTextChoice{choice}})
	}
	if q.wantUsage() {
		events = append(events, demoText{a.head, []demoTextChoice{}, &a.usage})
	}
	return events
}

type demoLogprobs struct {
	Content []demoLogprob `json:"content"`
	Refusal []demoLogprob `json:"refusal"`
}

type demoLogprob struct {
	Token       string        `json:"token"`
	Logprob     float64       `json:"logprob"`
	Bytes       []int         `json:"bytes"`
	TopLogprobs []demoLogprob `json:"top_logprobs,omitzero"`
}

// logprobs makes up a likelihood for each token, or is nil when nobody asked.
func (q *demoChatRequest) logprobs(tokens ...string) *demoLogprobs {
	if !q.wantLogprobs() {
		return nil
	}
	top := 0
	if q.TopLogprobs != nil {
		top = *q.TopLogprobs
	}
	l := &demoLogprobs{Content: []demoLogprob{}}
	for _, t := range tokens {
		p := newDemoLogprob(t, -float64(demoHash(t)%500)/1000)
		p.TopLogprobs = []demoLogprob{}
		for i := range top {
			other := newDemoLogprob(t, p.Logprob)
			if i > 0 {
				other = newDemoLogprob(fmt.Sprintf("%s~%d", t, i), p.Logprob-float64(i))
			}
			p.TopLogprobs = append(p.TopLogprobs, other)
		}
		l.Content = append(l.Content, p)
	}
	return l
}

func newDemoLogprob(token string, logprob float64) demoLogprob {
	p := demoLogprob{Token: token, Logprob: logprob, Bytes: []int{}}
	for _, b := range []byte(token) {
		p.Bytes = append(p.Bytes, int(b))
	}
	return p
}

type demoEmbeddings struct {
	Object string          `json:"object"`
	Data   []demoEmbedding `json:"data"`
	Model  string          `json:"model"`
	Usage  struct {
		PromptTokens int `json:"prompt_tokens"`
		TotalTokens  int `json:"total_tokens"`
	} `json:"usage"`
}

type demoEmbedding struct {
	Object    string `json:"object"`
	Index     int    `json:"index"`
	Embedding any    `json:"embedding"` // list of numbers, or their float32 bytes in base64
}

func newDemoEmbeddings(model string, input []string, dimensions int, packed bool) demoEmbeddings {
	list := demoEmbeddings{Object: "list", Model: model}
	for i, text := range input {
		v := demoVector(text, dimensions)
		e := demoEmbedding{Object: "embedding", Index: i, Embedding: v}
		if packed {
			var b bytes.Buffer
			_ = binary.Write(&b, binary.LittleEndian, v) // a Buffer takes everything
			e.Embedding = b.Bytes()
		}
		list.Data = append(list.Data, e)
		list.Usage.PromptTokens += len(strings.Fields(text))
	}
	list.Usage.TotalTokens = list.Usage.PromptTokens
	return list
}

// demoVector is a vector of length one in which each word counts at a place of
// its own, so that texts with words in common are near each other.
func demoVector(text string, dimensions int) []float32 {
	sums := make([]float64, dimensions)
	for _, word := range strings.Fields(strings.ToLower(text)) {
		h := demoHash(strings.Trim(word, ".,;:!?\"'"))
		sums[h>>1%uint32(dimensions)] += 1 - 2*float64(h&1)
	}
	square := 0.0
	for _, x := range sums {
		square += x * x
	}
	if square == 0 {
		sums[0], square = 1, 1
	}
	v := make([]float32, dimensions)
	for i, x := range sums {
		v[i] = float32(x / math.Sqrt(square))
	}
	return v
}

func demoHash(text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return h.Sum32()
}

// demoError is an error in OpenAI's shape.
type demoError struct {
	Status     int
	Message    string
	Type       string // "" = invalid_request_error
	Param      string // "" = null
	Code       string // "" = null
	RetryAfter int    // seconds; 0 = no header
}

func (e *demoError) Error() string { return e.Message }

func demoInvalid(param, code, format string, args ...any) error {
	return &demoError{Status: 400, Message: fmt.Sprintf(format, args...), Param: param, Code: code}
}

// demoFail writes the error; anything but a demoError is a request that could
// not be read.
func demoFail(w http.ResponseWriter, err error) {
	e := &demoError{Status: 400, Message: "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"}
	wrongType := new(json.UnmarshalTypeError)
	tooLarge := new(http.MaxBytesError)
	switch {
	case errors.As(err, &e):
	case errors.As(err, &wrongType):
		e = &demoError{Status: 400, Param: wrongType.Field, Code: "invalid_type", Message: fmt.Sprintf("Invalid type for '%s': got %s instead.", wrongType.Field, wrongType.Value)}
	case errors.As(err, &tooLarge):
		e = &demoError{Status: 413, Message: fmt.Sprintf("Request body too large. The limit is %d bytes.", tooLarge.Limit)}
	}
	kind := e.Type
	if kind == "" {
		kind = "invalid_request_error"
	}
	body := struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	}{e.Message, kind, demoNullable(e.Param), demoNullable(e.Code)}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.RetryAfter))
	}
	demoWriteJSON(w, e.Status, map[string]any{"error": body})
}

func demoNullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// demoDecode reads the whole body into v and returns its bytes.
func demoDecode(w http.ResponseWriter, r *http.Request, v any) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, demoMaxBody))
	if err != nil {
		return nil, err
	}
	return body, json.Unmarshal(body, v)
}

func demoWriteJSON(w http.ResponseWriter, status int, v any) {
	b := demoJSON(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	_, _ = w.Write(b)
}

// demoJSON encodes without escaping HTML: a model's "<" arrives as "<".
func demoJSON(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // every value here is made of encodable types
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func demoEvent(data []byte) []byte {
	return slices.Concat([]byte("data: "), data, []byte("\n\n"))
}
