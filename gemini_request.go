package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"io"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Objects of the request are read in two steps. readGemini finds the known
// fields, however they are spelt, and leaves them raw; what uses a field then
// checks its type. So a large picture in a request is not copied once a level.

// readGemini hands each field of an object to where known says that it belongs,
// and calls unknown with the names of all others. Names are accepted in
// lowerCamel and in snake_case; the camel form wins (dialects 0-5). Null is the
// same as absent.
func readGemini(obj []byte, known func(name string) *[]byte, unknown func(name string)) {
	take := func(k, v []byte, snake bool) {
		name := unquote(k)
		camel := camelKey(name)
		if isNull(v) || snake != (camel != name) {
			return
		}
		to := known(camel)
		switch {
		case to == nil:
			unknown(camel)
		case !snake || *to == nil:
			*to = v
		}
	}
	snakes := false
	for k, v := range members(obj) {
		snakes = snakes || bytes.IndexByte(k, '_') >= 0 || bytes.IndexByte(k, '\\') >= 0
		take(k, v, false)
	}
	if !snakes {
		return
	}
	for k, v := range members(obj) {
		take(k, v, true)
	}
}

// camelKey is a name in lowerCamel. An underscore that leads stays.
func camelKey(name string) string {
	if strings.LastIndexByte(name, '_') <= 0 {
		return name
	}
	b := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		if c := name[i]; c != '_' || i == 0 || i+1 == len(name) || name[i+1] < 'a' || name[i+1] > 'z' {
			b = append(b, c)
			continue
		}
		i++
		b = append(b, name[i]-'a'+'A')
	}
	return string(b)
}

// geminiBody is a GenerateContentRequest. The last three fields are not
// Gemini's: on the chat path there is no other place for them (dialects A-6).
type geminiBody struct {
	contents, systemInstruction, tools, toolConfig, generationConfig []byte
	cachedContent, serviceTier                                       []byte
	model, stream, streamOptions                                     []byte
	silent                                                           []byte // can't change the answer
}

func (b *geminiBody) field(name string) *[]byte {
	switch name {
	case "contents":
		return &b.contents
	case "systemInstruction":
		return &b.systemInstruction
	case "tools":
		return &b.tools
	case "toolConfig":
		return &b.toolConfig
	case "generationConfig":
		return &b.generationConfig
	case "cachedContent":
		return &b.cachedContent
	case "serviceTier":
		return &b.serviceTier
	case "model":
		return &b.model
	case "stream":
		return &b.stream
	case "streamOptions":
		return &b.streamOptions
	case "safetySettings", "labels", "store":
		return &b.silent
	}
	return nil
}

// A geminiDecoder makes the chat request q of a Gemini request.
type geminiDecoder struct {
	x *exchange
	q *chatRequest
	g *geminiRequest
}

// decodeGemini reads a GenerateContentRequest. Without x.gemini the body came on
// the chat path, and has model and stream in it.
func decodeGemini(x *exchange, body []byte) (*chatRequest, error) {
	d := geminiDecoder{x: x, q: &chatRequest{Model: strings.TrimPrefix(x.model, "models/")}, g: x.gemini}
	var b geminiBody
	readGemini(body, b.field, func(name string) { d.note(name) })
	if d.g == nil {
		d.g = &geminiRequest{}
		if err := d.chatPath(&b); err != nil {
			return nil, err
		}
	} else if x.stream = d.g.Stream; x.stream {
		d.q.askForStream()
	}
	if b.cachedContent != nil {
		return nil, invalid("cachedContent", "this gateway can't see cached content; send it in contents")
	}
	for _, step := range []func(*geminiBody) error{d.tier, d.messages, d.tools, d.toolConfig, d.generation} {
		if err := step(&b); err != nil {
			return nil, err
		}
	}
	return d.q, nil
}

// decodeGeminiCount reads the body of countTokens, which is a request, or has
// one in it.
func decodeGeminiCount(x *exchange, body []byte) (*chatRequest, error) {
	var inner []byte
	readGemini(body, func(name string) *[]byte {
		if name == "generateContentRequest" {
			return &inner
		}
		return nil
	}, func(string) {})
	switch {
	case inner == nil:
		return decodeGemini(x, body)
	case !isObject(inner):
		return nil, wrongType("generateContentRequest", "an object", inner)
	}
	return decodeGemini(x, inner)
}

// maxNoted bounds how many names of dropped fields clients are told, and their
// length: they go into a header.
const maxNoted = 64

// note tells the client that a field was left out.
func (d *geminiDecoder) note(name string) {
	if len(d.x.dropped) >= maxNoted {
		return
	}
	clean := func(r rune) rune {
		if r <= ' ' || r == ',' || r >= 0x7f {
			return '?'
		}
		return r
	}
	name = strings.Map(clean, name)
	d.x.drop(name[:min(len(name), maxNoted)])
}

// notes notes fields of an object.
func (d *geminiDecoder) notes(object string) func(name string) {
	return func(name string) { d.note(object + "." + name) }
}

func (d *geminiDecoder) chatPath(b *geminiBody) error {
	model, err := geminiText(b.model, "model")
	if err != nil {
		return err
	}
	if d.q.Model = strings.TrimPrefix(model, "models/"); d.q.Model == "" {
		return invalid("model", "must name the model; only Gemini's own paths have it in the path")
	}
	if b.stream != nil {
		if _, err := geminiBool(b.stream, "stream"); err != nil {
			return err
		}
	}
	if d.x.stream = wantsStream(b.stream, d.x.header); d.x.stream {
		d.q.Stream, d.q.StreamOptions = true, b.streamOptions
	}
	return nil
}

func (d *geminiDecoder) tier(b *geminiBody) error {
	tier, err := geminiText(b.serviceTier, "serviceTier")
	if tier = strings.ToLower(tier); tier == "flex" || tier == "priority" {
		d.q.ServiceTier = tier
	}
	return err
}

// messages reads the system instruction and the conversation.
func (d *geminiDecoder) messages(b *geminiBody) error {
	system, err := d.system(b.systemInstruction)
	if err != nil {
		return err
	}
	h := newGeminiHistory(d)
	h.out = system
	turns := 1
	switch {
	case b.contents == nil, string(b.contents) == `""`:
		turns = 0
	case isString(b.contents):
		h.begin("user")
		h.user = append(h.user, partText(text(b.contents)))
	case isObject(b.contents):
		err = h.turn(b.contents, "contents")
	case isArray(b.contents):
		turns = 0
		for turn := range elements(b.contents) {
			if err = h.turn(turn, elementPath("contents", turns)); err != nil {
				return err
			}
			turns++
		}
	default:
		err = wrongType("contents", "an array of turns", b.contents)
	}
	if turns == 0 {
		return badRequest("contents", "contents is not specified")
	}
	h.flush()
	d.q.Messages = h.out
	if d.g.calls = h.calls.count; h.calls.count == 0 || h.calls.derived {
		d.g.origin = h.begun()
	}
	return err
}

// geminiTurns reads entries of a list that is not called contents but has
// Gemini's turns in it (dialects A-26).
func geminiTurns(x *exchange, raw []json.RawMessage) ([]chatMessage, error) {
	h := newGeminiHistory(&geminiDecoder{x: x, q: &chatRequest{}, g: x.geminiView()})
	for i, turn := range raw {
		if err := h.turn(turn, elementPath("input", i)); err != nil {
			return nil, err
		}
	}
	h.flush()
	return h.out, nil
}

// system is the system instruction as a message, or none.
func (d *geminiDecoder) system(raw []byte) ([]chatMessage, error) {
	var parts []chatPart
	add := func(raw []byte, path string) error {
		p, err := readGeminiPart(raw, path)
		if err != nil {
			return err
		}
		if p.text != nil {
			parts = append(parts, partText(text(p.text)))
		}
		for _, name := range p.others() {
			d.note("systemInstruction." + name)
		}
		return nil
	}
	var err error
	switch {
	case raw == nil:
		return nil, nil
	case isArray(raw):
		err = eachGeminiPart(raw, "systemInstruction", add)
	case isObject(raw):
		var turn geminiTurn
		readGemini(raw, turn.field, d.notes("systemInstruction"))
		err = eachGeminiPart(turn.parts, "systemInstruction.parts", add)
	case isString(raw):
		parts = []chatPart{partText(text(raw))}
	default:
		err = wrongType("systemInstruction", "an object with parts", raw)
	}
	if content := joinParts(parts); err == nil && content.Text != "" {
		return []chatMessage{{Role: "system", Content: content}}, nil
	}
	return nil, err
}

// A geminiTurn is one entry of contents.
type geminiTurn struct{ role, parts []byte }

func (t *geminiTurn) field(name string) *[]byte {
	switch name {
	case "role":
		return &t.role
	case "parts":
		return &t.parts
	}
	return nil
}

// A geminiHistory puts turns together to chat messages. Turns of the same role
// that follow one another are one message, and a user's turn gives the results
// of the tools first (dialects B.3).
type geminiHistory struct {
	d   *geminiDecoder
	out []chatMessage

	role  string        // of the turns being read: user, assistant, system; "" before the first
	user  []chatPart    // what a user or system turn has said
	tools []chatMessage // results
	model geminiReply

	calls     geminiCalls
	responses int // so far, in the conversation
	origin    []byte
}

// A geminiReply is what a model turn has said.
type geminiReply struct {
	text, thoughts strings.Builder
	block          bool   // the text ends in a code block
	stamp          string // the last one
	calls          []chatToolCall
}

func newGeminiHistory(d *geminiDecoder) *geminiHistory {
	return &geminiHistory{d: d, calls: geminiCalls{known: map[string]bool{}}}
}

func (h *geminiHistory) turn(raw []byte, path string) error {
	if isString(raw) {
		h.begin("user")
		h.user = append(h.user, partText(text(raw)))
		return nil
	}
	if !isObject(raw) {
		return wrongType(path, "an object with parts", raw)
	}
	var t geminiTurn
	odd := false
	readGemini(raw, t.field, func(name string) { odd = true; h.d.note("contents." + name) })
	if t.parts == nil && odd {
		return invalid(path+".parts", "must be an array of parts")
	}
	role, err := geminiText(t.role, path+".role")
	if err != nil {
		return err
	}
	switch role {
	case "user", "", "function", "tool":
		h.begin("user")
	case "model", "assistant":
		h.begin("assistant")
	case "system":
		h.begin("system")
	default:
		return invalid(path+".role", strconv.Quote(shortened(role, 32))+" is no role; it must be user or model")
	}
	return eachGeminiPart(t.parts, path+".parts", h.part)
}

// begin begins a turn.
func (h *geminiHistory) begin(role string) {
	if h.role != role {
		h.flush()
		h.role = role
	}
}

// flush writes the messages of the turns since the role last changed.
func (h *geminiHistory) flush() {
	switch h.role {
	case "assistant":
		h.flushModel()
	case "user":
		h.out = append(h.out, h.tools...)
		if c := joinParts(h.user); len(h.tools) == 0 || c.Text != "" || c.Parts != nil {
			h.out = append(h.out, chatMessage{Role: "user", Content: c})
		}
	case "system":
		if c := joinParts(h.user); c.Text != "" {
			h.out = append(h.out, chatMessage{Role: "system", Content: c})
		}
	}
	h.role, h.user, h.tools, h.model = "", nil, nil, geminiReply{}
}

// flushModel writes an assistant message; one with neither text nor calls would
// be refused, and says nothing.
func (h *geminiHistory) flushModel() {
	r := &h.model
	if r.text.Len() == 0 && len(r.calls) == 0 {
		return
	}
	m := chatMessage{Role: "assistant", Content: textContent(r.text.String()), ToolCalls: r.calls}
	m.Content.Null = m.Content.Text == ""
	if was, ok := unstamp(r.stamp, r.thoughts.String()); ok {
		was.putBack(&m)
	}
	h.out = append(h.out, m)
}

// part takes a part into the turn that is being read.
func (h *geminiHistory) part(raw []byte, path string) error {
	p, err := readGeminiPart(raw, path)
	if err != nil {
		return err
	}
	for _, name := range p.unknown {
		h.d.note("parts." + name)
	}
	switch h.role {
	case "assistant":
		return h.modelPart(p, path)
	case "system":
		for _, name := range p.others() {
			h.d.note("parts." + name)
		}
		h.user = append(h.user, partText(text(p.text)))
		return nil
	}
	return h.userPart(p, path)
}

func (h *geminiHistory) userPart(p *geminiPart, path string) error {
	if p.text != nil && !p.isThought {
		h.user = append(h.user, partText(text(p.text)))
	}
	if code, err := p.code(path); err != nil {
		return err
	} else if code != "" {
		h.user = append(h.user, partText(code))
	}
	if p.functionCall != nil {
		h.d.note("parts.functionCall")
	}
	if err := h.media(p, path); err != nil || p.functionResponse == nil {
		return err
	}
	return h.response(p.functionResponse, path+".functionResponse")
}

// media takes the file of a part, if it has one.
func (h *geminiHistory) media(p *geminiPart, path string) error {
	for _, file := range []struct {
		raw  []byte
		name string
		read func(raw []byte, path string) (chatPart, error)
	}{{p.inlineData, ".inlineData", inlineFile}, {p.fileData, ".fileData", linkedFile}} {
		if file.raw == nil {
			continue
		}
		part, err := file.read(file.raw, path+file.name)
		if err != nil {
			return err
		}
		h.user = append(h.user, part)
	}
	return nil
}

func (h *geminiHistory) modelPart(p *geminiPart, path string) error {
	r := &h.model
	if stamp, ok := readGeminiStamp(p.signature); ok {
		r.stamp = stamp
	}
	switch {
	case p.text == nil:
	case p.isThought:
		r.thoughts.WriteString(text(p.text))
	default:
		r.say(text(p.text))
	}
	code, err := p.code(path)
	if err != nil {
		return err
	}
	if code != "" {
		r.sayBlock(code)
	}
	for _, name := range []string{"inlineData", "fileData", "functionResponse"} {
		if *p.field(name) != nil {
			h.d.note("parts." + name)
		}
	}
	if p.functionCall == nil {
		return nil
	}
	return h.call(p, path+".functionCall")
}

func (r *geminiReply) say(s string) {
	if s == "" {
		return
	}
	if r.block && s[0] != '\n' {
		r.text.WriteByte('\n')
	}
	r.block = false
	r.text.WriteString(s)
}

// sayBlock puts text on lines of its own.
func (r *geminiReply) sayBlock(s string) {
	if said := r.text.String(); said != "" && !strings.HasSuffix(said, "\n") {
		r.text.WriteByte('\n')
	}
	r.text.WriteString(s)
	r.block = true
}

// geminiFunction is a functionCall or a functionResponse.
type geminiFunction struct{ id, name, args, response, parts, silent []byte }

func (f *geminiFunction) field(name string) *[]byte {
	switch name {
	case "id":
		return &f.id
	case "name":
		return &f.name
	case "args":
		return &f.args
	case "response":
		return &f.response
	case "parts":
		return &f.parts
	case "willContinue", "scheduling", "partialArgs":
		return &f.silent
	}
	return nil
}

func (d *geminiDecoder) function(raw []byte, path string) (f geminiFunction, id, name string, err error) {
	if !isObject(raw) {
		return f, "", "", wrongType(path, "an object", raw)
	}
	readGemini(raw, f.field, d.notes("parts."+path[strings.LastIndexByte(path, '.')+1:]))
	if id, err = geminiText(f.id, path+".id"); err == nil {
		name, err = geminiText(f.name, path+".name")
	}
	return f, id, name, err
}

// call takes a functionCall.
func (h *geminiHistory) call(p *geminiPart, path string) error {
	f, id, name, err := h.d.function(p.functionCall, path)
	switch {
	case err != nil:
		return err
	case name == "":
		return invalid(path+".name", "must name the function")
	case f.args == nil:
		f.args = []byte("{}")
	case !isObject(f.args):
		return wrongType(path+".args", "an object", f.args)
	}
	args := string(compact(f.args))
	if len(h.model.calls) == 0 {
		h.calls.nextTurn()
	}
	call := functionCall(h.calls.add(id, name, args), h.d.x.safeToolName(name), args)
	if id == "" {
		call.Replay = geminiReplayID(h.begun(), h.calls.count-1, name, f.args)
	}
	if _, stamped := readGeminiStamp(p.signature); p.signature != "" && !stamped {
		call.ExtraContent = append(appendQuoted([]byte(`{"google":{"thought_signature":`), p.signature), `}}`...)
	}
	h.model.calls = append(h.model.calls, call)
	return nil
}

// response takes a functionResponse.
func (h *geminiHistory) response(raw []byte, path string) error {
	f, id, name, err := h.d.function(raw, path)
	if err != nil {
		return err
	}
	if f.response != nil && !isObject(f.response) {
		return wrongType(path+".response", "an object", f.response)
	}
	response := compact(f.response)
	m := chatMessage{Role: "tool", ToolCallID: h.calls.answer(id, name), Content: textContent(geminiResult(response))}
	if m.ToolCallID == "" {
		m.ToolCallID, m.Answers = geminiCallID("orphan", h.responses, name, string(response)), h.d.x.safeToolName(name)
	}
	h.responses++
	h.tools = append(h.tools, m)
	return eachGeminiPart(f.parts, path+".parts", func(raw []byte, path string) error {
		p, err := readGeminiPart(raw, path)
		if err != nil {
			return err
		}
		return h.media(p, path)
	})
}

// geminiResult is a function's result as text: what is under output or result,
// if that is all there is, else the JSON.
func geminiResult(response []byte) string {
	n, only := 0, []byte(nil)
	for k, v := range members(response) {
		if key := string(k); isString(v) && (key == "output" || key == "result") {
			only = v
		}
		n++
	}
	if n == 1 && only != nil {
		return text(only)
	}
	return string(response)
}

// geminiCalls pairs function responses with calls. Gemini's clients may leave
// the ids out; then names and order decide (dialects B-56 to B-59).
type geminiCalls struct {
	known   map[string]bool // ids of all calls so far
	count   int             // calls so far
	derived bool            // some of them came without an id

	// The latest model turn that has calls:
	turn   []geminiCall
	byID   map[string]int
	byName map[string][]int // those that may be unanswered yet, in their order
	next   int              // the first that may be unanswered
}

type geminiCall struct {
	id       string
	derived  bool // the client gave no id
	answered bool
}

func (c *geminiCalls) nextTurn() {
	c.turn, c.next = nil, 0
	c.byID, c.byName = map[string]int{}, map[string][]int{}
}

// add takes a call and returns its id.
func (c *geminiCalls) add(id, name, args string) string {
	call := geminiCall{id: id, derived: id == ""}
	if call.derived {
		call.id, c.derived = geminiCallID("", c.count, name, args), true
	}
	c.count++
	c.known[call.id] = true
	c.byID[call.id] = len(c.turn)
	c.byName[name] = append(c.byName[name], len(c.turn))
	c.turn = append(c.turn, call)
	return call.id
}

// answer finds the call that a response belongs to and returns its id, "" when
// there is none. An id that no call has may be a client's own name for a call
// without one.
func (c *geminiCalls) answer(id, name string) string {
	if id != "" && c.known[id] {
		if i, ok := c.byID[id]; ok {
			c.turn[i].answered = true
		}
		return id
	}
	open := c.byName[name]
	for len(open) > 0 && c.turn[open[0]].answered {
		open = open[1:]
	}
	if c.byName != nil {
		c.byName[name] = open
	}
	if len(open) > 0 && (id == "" || c.turn[open[0]].derived) {
		return c.settle(open[0])
	}
	if id != "" {
		return id
	}
	for c.next < len(c.turn) && c.turn[c.next].answered {
		c.next++
	}
	if c.next == len(c.turn) {
		return ""
	}
	return c.settle(c.next)
}

func (c *geminiCalls) settle(i int) string {
	c.turn[i].answered = true
	return c.turn[i].id
}

// geminiCallID makes an id from a call's place in the conversation and what it
// says, so that it is the same in every later turn, and the upstream's prompt
// cache holds (dialects B-56).
func geminiCallID(prefix string, ordinal int, name, args string) string {
	sum := sha256.Sum256([]byte(prefix + strconv.Itoa(ordinal) + "\x00" + name + "\x00" + args))
	digits := new(big.Int).SetBytes(sum[:]).Text(36)
	return (digits + "000000000")[:9]
}

// begun is a digest of what the user has said first, which tells conversations
// apart. It is asked for when that is in out.
func (h *geminiHistory) begun() []byte {
	if h.origin != nil {
		return h.origin
	}
	sum := sha256.New()
	for _, m := range h.out {
		if m.Role != "user" {
			continue
		}
		io.WriteString(sum, m.Content.Text)
		for _, p := range m.Content.Parts {
			if p.Text != nil {
				io.WriteString(sum, *p.Text)
			}
		}
		break
	}
	h.origin = sum.Sum(nil)
	return h.origin
}

// geminiReplayID names what is kept of a call for a client that leaves its id
// out: such a call comes back in the same place, and says the same, if in another
// order (dialects E-24).
func geminiReplayID(origin []byte, ordinal int, name string, args []byte) string {
	said := append(slices.Clone(origin), strconv.Itoa(ordinal)+"\x00"+name+"\x00"...)
	return "gemini-" + digestOf(appendCanonical(said, args, geminiArgsDepth))
}

// geminiArgsDepth is how deeply the order of arguments' keys does not count.
const geminiArgsDepth = 8

// replayID is geminiReplayID for the i-th call of an answer; "" where the client
// keeps ids.
func (g *geminiRequest) replayID(x *exchange, i int, call *chatToolCall) string {
	if g == nil || g.origin == nil {
		return ""
	}
	return geminiReplayID(g.origin, g.calls+i, x.clientToolName(call.Function.Name), argumentsObject(call.Function.Arguments))
}

// A geminiPart is one part of a turn; usually a single one of its fields is
// there.
type geminiPart struct {
	text, thought, thoughtSignature, inlineData, fileData []byte
	functionCall, functionResponse                        []byte
	executableCode, codeExecutionResult                   []byte

	isThought bool
	signature string
	unknown   []string
}

func (p *geminiPart) field(name string) *[]byte {
	switch name {
	case "text":
		return &p.text
	case "thought":
		return &p.thought
	case "thoughtSignature":
		return &p.thoughtSignature
	case "inlineData":
		return &p.inlineData
	case "fileData":
		return &p.fileData
	case "functionCall":
		return &p.functionCall
	case "functionResponse":
		return &p.functionResponse
	case "executableCode":
		return &p.executableCode
	case "codeExecutionResult":
		return &p.codeExecutionResult
	}
	return nil
}

func readGeminiPart(raw []byte, path string) (*geminiPart, error) {
	p := &geminiPart{}
	if isString(raw) {
		p.text = raw
		return p, nil
	}
	if !isObject(raw) {
		return nil, wrongType(path, "an object", raw)
	}
	readGemini(raw, p.field, func(name string) {
		if len(p.unknown) < maxNoted {
			p.unknown = append(p.unknown, name)
		}
	})
	var err error
	if p.text != nil && !isString(p.text) {
		return nil, wrongType(path+".text", "a string", p.text)
	}
	if p.isThought, err = geminiBool(p.thought, path+".thought"); err != nil {
		return nil, err
	}
	p.signature, err = geminiText(p.thoughtSignature, path+".thoughtSignature")
	return p, err
}

// others names what a part has besides text.
func (p *geminiPart) others() []string {
	names := p.unknown
	for _, name := range []string{"inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult"} {
		if *p.field(name) != nil {
			names = append(names, name)
		}
	}
	return names
}

// code is the text of a program that Gemini has run, or of what it has printed;
// only history has such parts.
func (p *geminiPart) code(path string) (string, error) {
	var f struct{ code, language, output, silent []byte }
	known := func(name string) *[]byte {
		switch name {
		case "code":
			return &f.code
		case "language":
			return &f.language
		case "output":
			return &f.output
		}
		return &f.silent
	}
	for _, v := range []struct {
		raw  []byte
		name string
	}{{p.executableCode, ".executableCode"}, {p.codeExecutionResult, ".codeExecutionResult"}} {
		if v.raw != nil && !isObject(v.raw) {
			return "", wrongType(path+v.name, "an object", v.raw)
		}
		readGemini(v.raw, known, nil)
	}
	if f.code == nil {
		return text(f.output), nil
	}
	language := strings.ToLower(text(f.language))
	if language == "language_unspecified" {
		language = ""
	}
	return "```" + language + "\n" + strings.TrimSuffix(text(f.code), "\n") + "\n```", nil
}

// geminiFile is inlineData or fileData.
type geminiFile struct{ mimeType, data, displayName, fileURI []byte }

func (f *geminiFile) field(name string) *[]byte {
	switch name {
	case "mimeType":
		return &f.mimeType
	case "data":
		return &f.data
	case "displayName":
		return &f.displayName
	case "fileUri", "uri": // the latter in Gemini's Interactions
		return &f.fileURI
	}
	return nil
}

// readGeminiFile reads a file and its media type, which comes without parameters
// and in lower case.
func readGeminiFile(raw []byte, path string) (f geminiFile, mime string, err error) {
	if !isObject(raw) {
		return f, "", wrongType(path, "an object", raw)
	}
	readGemini(raw, f.field, func(string) {})
	if mime, err = geminiText(f.mimeType, path+".mimeType"); err != nil {
		return f, "", err
	}
	mime, _, _ = strings.Cut(mime, ";")
	return f, strings.ToLower(strings.TrimSpace(mime)), nil
}

// inlineFile is the part for a file in the request.
func inlineFile(raw []byte, path string) (chatPart, error) {
	f, mime, err := readGeminiFile(raw, path)
	switch {
	case err != nil:
		return chatPart{}, err
	case mime == "":
		return chatPart{}, invalid(path+".mimeType", "must name the type of the data, such as image/png")
	case f.data == nil:
		return chatPart{}, invalid(path+".data", "must be the file in base64")
	case !isString(f.data):
		return chatPart{}, wrongType(path+".data", "a string in base64", f.data)
	}
	data := text(f.data)
	kind, _, _ := strings.Cut(mime, "/")
	switch {
	case kind == "text":
		raw, err := decodeBase64(data)
		if err != nil {
			return chatPart{}, invalid(path+".data", "must be base64")
		}
		return partText(strings.ToValidUTF8(string(raw), string(utf8.RuneError))), nil
	case kind == "image":
		return partImage(geminiDataURL(mime, data), ""), nil
	case mime == "audio/wav" || mime == "audio/x-wav":
		return chatPart{Type: "input_audio", InputAudio: &chatAudio{standardBase64(data), "wav"}}, nil
	case mime == "audio/mp3" || mime == "audio/mpeg":
		return chatPart{Type: "input_audio", InputAudio: &chatAudio{standardBase64(data), "mp3"}}, nil
	}
	name, err := geminiText(f.displayName, path+".displayName")
	if name == "" {
		name = "file.pdf"
	}
	return partFile(name, geminiDataURL(mime, data)), err
}

func geminiDataURL(mime, data string) string {
	return "data:" + mime + ";base64," + standardBase64(data)
}

// filesAPIHost is where files live that were uploaded to Gemini itself.
const filesAPIHost = "generativelanguage.googleapis.com"

// linkedFile is the part for a file that the upstream is to fetch. It can do so
// only for pictures, and only where the address needs no Google account.
func linkedFile(raw []byte, path string) (chatPart, error) {
	f, mime, err := readGeminiFile(raw, path)
	if err != nil {
		return chatPart{}, err
	}
	uri, err := geminiText(f.fileURI, path+".fileUri")
	if err != nil {
		return chatPart{}, err
	}
	u, err := url.Parse(uri)
	scheme := "none"
	if strings.HasPrefix(uri, "data:") {
		scheme, err = "data", nil
	} else if err == nil && u.Scheme != "" {
		scheme = strings.ToLower(u.Scheme)
	}
	fetchable := scheme == "data" || err == nil && (scheme == "http" || scheme == "https") && !strings.EqualFold(u.Hostname(), filesAPIHost)
	if fetchable && strings.HasPrefix(mime, "image/") {
		return partImage(uri, ""), nil
	}
	return chatPart{}, invalid(path+".fileUri", "a file of type "+strconv.Quote(shortened(mime, 64))+" at a URI with the scheme "+strconv.Quote(shortened(scheme, 32))+
		" can't be fetched; send it as inlineData, or a picture at an http, https or data URI")
}

// eachGeminiPart walks parts, which may be a single one without its array.
func eachGeminiPart(raw []byte, path string, do func(raw []byte, path string) error) error {
	switch {
	case raw == nil:
		return nil
	case isObject(raw), isString(raw):
		return do(raw, path)
	case !isArray(raw):
		return wrongType(path, "an array of parts", raw)
	}
	i := 0
	for part := range elements(raw) {
		if err := do(part, elementPath(path, i)); err != nil {
			return err
		}
		i++
	}
	return nil
}

// elementPath is the path of an element of an array.
func elementPath(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// shortened is text to be repeated in an error.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// geminiText is a field that must be a string, "" when it is absent.
func geminiText(raw []byte, path string) (string, error) {
	if raw != nil && !isString(raw) {
		return "", wrongType(path, "a string", raw)
	}
	return text(raw), nil
}

// geminiBool is a field that must be a boolean, false when it is absent.
func geminiBool(raw []byte, path string) (bool, error) {
	if raw != nil && raw[0] != 't' && raw[0] != 'f' {
		return false, wrongType(path, "true or false", raw)
	}
	return string(raw) == "true", nil
}
