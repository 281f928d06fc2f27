package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A session belongs to a key and an id, and holds chat messages, whatever
// dialect they came in. What is done to a request depends on what it carries:
// with an assistant message, its client manages the history, and the request is
// only recorded; without one, it is a new turn, and the recorded messages are
// spliced in before it.

// sessionTurn is what one exchange has to do with its session.
type sessionTurn struct {
	key     sessionKey
	mode    sessionMode
	thread  string // "new" or "continued", for X-Session-Thread; "" when not known yet
	chained bool   // previous_response_id is the history, of which the session may know more
	put     int    // messages spliced in, for X-Session-Messages; -1 when the request was not to be touched

	write   threadWrite  // where the turn goes; its Turns are those before it, when the thread is rewritten
	rewrite bool         // the client's history is not the recorded one: it takes its place
	last    turnMessages // the new messages, then the answer

	answer     []byte // the assistant's message
	incomplete bool   // the client left before the answer's end

	// unplanned is the whole conversation of a request that was to be compared
	// with a store that could not be read; the rest is decided when it can be.
	unplanned *conversation
	sealed    turn // the turn with its answer, made once, so that writing it again changes nothing
}

// turnMessages are the messages of a turn, as their own JSON joined by commas,
// with a digest of each.
type turnMessages struct {
	raw     []byte
	digests []string
}

func (m *turnMessages) add(raw []byte, digest string) {
	if len(m.digests) > 0 {
		m.raw = append(m.raw, ',')
	}
	m.raw = append(m.raw, raw...)
	m.digests = append(m.digests, digest)
}

// openSession prepares the session that the request names, if it names one, and
// returns the history to put into its messages, nil for none.
func (s *server) openSession(r *http.Request, x *exchange, messages []byte) (*history, error) {
	t, err := s.newSessionTurn(r.Header, x)
	if err != nil || t == nil {
		return nil, err
	}
	c, err := parseConversation(messages)
	if err != nil {
		return nil, err
	}
	x.session = t
	return s.planSession(x, c)
}

// newSessionTurn is the turn of the session that the headers name, nil when they
// name none.
func (s *server) newSessionTurn(h http.Header, x *exchange) (*sessionTurn, error) {
	id, recordOnly, err := s.sessionID(h)
	if err != nil || id == "" {
		return nil, err
	}
	mode := s.cfg.SessionMode
	if v := h.Get("X-Session-Mode"); v != "" {
		mode = sessionMode(strings.ToLower(v))
		if mode != modeAuto && mode != modeContinue && mode != modeRecord {
			return nil, badRequest("X-Session-Mode", "X-Session-Mode must be auto, continue or record")
		}
	}
	chained := x.responses != nil && x.responses.Previous != ""
	if recordOnly || chained {
		mode = modeRecord // previous_response_id is the history already (dialects D-27)
	}
	return &sessionTurn{key: sessionKey{x.cred.Owner, id}, mode: mode, chained: chained, put: -1}, nil
}

// pairResults gives tool results that came without an id the ids of the recorded
// calls that they answer, by name and then by place (dialects B-58). Only Gemini's
// clients leave ids out, so this second look at the history is rare.
func (s *server) pairResults(r *http.Request, x *exchange, q *chatRequest) error {
	if !slices.ContainsFunc(q.Messages, func(m chatMessage) bool { return m.Answers != "" }) {
		return nil
	}
	t, err := s.newSessionTurn(r.Header, x)
	if err != nil || t == nil || t.mode == modeRecord {
		return err
	}
	messages, err := marshal(q.Messages)
	if err != nil {
		return err
	}
	c, err := parseConversation(messages)
	if err != nil || c.managed {
		return err
	}
	rec, err := s.sessions.history(x.ctx, t.key, t.pick(c))
	if err != nil {
		return nil // planSession sees it too, and says so
	}
	if th := t.pickThread(c, rec); th != nil {
		pairWith(th.openCalls(), q.Messages)
	}
	return nil
}

// openCalls are the calls that the thread ends with. A last turn that broke off
// does not count: its results are sent again.
func (th *thread) openCalls() []namedCall {
	for _, last := range slices.Backward(th.Turns) {
		if calls := last.openCalls(); len(calls) > 0 || !last.incomplete() {
			return calls
		}
	}
	return nil
}

func (t turn) openCalls() []namedCall {
	var j joiner
	for m := range t.messages() {
		j.add(m)
	}
	return j.open
}

// pairWith gives each result without a call of its own one of the open calls.
func pairWith(open []namedCall, messages []chatMessage) {
	for _, m := range messages {
		open = slices.DeleteFunc(open, func(c namedCall) bool { return c.id == m.ToolCallID })
	}
	for i := range messages {
		m := &messages[i]
		if m.Answers == "" || len(open) == 0 {
			continue
		}
		at := max(0, slices.IndexFunc(open, func(c namedCall) bool { return c.name == m.Answers }))
		m.ToolCallID = open[at].id
		open = slices.Delete(open, at, at+1)
	}
}

// sessionID is the id that the request carries, "" for none. recordOnly says
// that it came under another name than X-Session-Id: clients send those for
// purposes of their own.
func (s *server) sessionID(h http.Header) (id string, recordOnly bool, err error) {
	for _, name := range s.cfg.SessionHeaders {
		values := h[name]
		if len(values) == 0 {
			continue
		}
		own := name == "X-Session-Id"
		switch {
		case len(values) == 1 && validSessionID(values[0]):
			return values[0], !own, nil
		case own:
			return "", false, badRequest("X-Session-Id", "X-Session-Id must be sent once and hold 1 to 255 visible ASCII characters, and can't be \"/\" or a path step such as \"..\"")
		}
	}
	return "", false, nil
}

// validSessionID says whether an id is taken: whatever is taken can also be read
// back under /context/. A lone slash can't: ServeMux takes it for a trailing one,
// even when it is encoded.
func validSessionID(id string) bool {
	if len(id) == 0 || len(id) > 255 || id == "/" || !safeSegment(id) {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// planSession decides where the turn goes and which history it continues. A
// request that goes upstream untouched never fails here: what can't be decided
// now is decided when its turn is written.
func (s *server) planSession(x *exchange, c *conversation) (*history, error) {
	t := x.session
	untouched := c.managed || t.mode == modeRecord
	rec, err := s.sessions.history(x.ctx, t.key, t.pick(c))
	switch {
	case err == nil || errors.Is(err, errNotFound):
	case untouched:
		t.unplanned = c.clone()
		return nil, nil
	default:
		return nil, storeUnavailable(err)
	}
	th := t.plan(c, rec)
	if untouched {
		return nil, nil
	}
	t.put = 0
	if th == nil {
		return nil, nil
	}
	h := &history{conversation: c, turns: th.Turns}
	if t.write.Replaces != "" {
		h.turns = h.turns[:len(h.turns)-1]
	}
	h.turns = wholeTurns(h.turns)
	if len(c.system) == 0 {
		h.system = th.System
	}
	return h, nil
}

// describe tells the client what the session did to its request.
func (t *sessionTurn) describe(h http.Header) {
	if t.put >= 0 {
		h.Set("X-Session-Messages", strconv.Itoa(t.put))
	}
	if t.thread != "" {
		h.Set("X-Session-Thread", t.thread)
	}
}

// pick says whose turns have to be read to plan the turn: a managed request is
// compared with the threads' marks alone.
func (t *sessionTurn) pick(c *conversation) threadPick {
	switch {
	case c.managed:
		return threadPick{Kind: pickNone}
	case t.mode != modeContinue && c.systemID != "":
		return threadPick{Kind: pickID, ID: c.systemID}
	}
	return threadPick{Kind: pickLast}
}

// plan decides which thread the turn goes to and what of the request is new. It
// returns the thread as it is, nil for a new one.
func (t *sessionTurn) plan(c *conversation, rec *sessionRecord) *thread {
	th := t.pickThread(c, rec)
	t.thread, t.write.Thread = "new", c.systemID
	if th != nil {
		t.thread, t.write.Thread = "continued", th.ID
	}
	if len(c.system) > 0 && (th == nil || !bytes.Equal(th.System, c.system)) {
		t.write.System = bytes.Clone(c.system)
	}
	switch {
	case !c.managed:
		t.last = c.from(0)
		if th != nil && len(th.Turns) > 0 {
			if last := th.Turns[len(th.Turns)-1]; repeats(last, t.last) {
				t.write.Replaces = last.ID
			}
		}
	case th != nil && c.startsWith(th.Mark):
		t.last = c.from(th.Mark.Messages)
	case th != nil && t.chained:
		t.last = c.from(c.answered())
	default:
		t.planReplace(c)
	}
	return th
}

// pickThread is the thread that a conversation belongs to, nil for a new one.
func (t *sessionTurn) pickThread(c *conversation, rec *sessionRecord) *thread {
	if rec == nil || len(rec.Threads) == 0 {
		return nil
	}
	switch {
	case t.mode == modeContinue, c.systemID == "" && !c.managed:
		return &rec.Threads[len(rec.Threads)-1]
	case c.systemID != "":
		return rec.thread(c.systemID)
	}
	// A managed conversation without a system prompt goes to the thread that it
	// repeats, so that it can never take another one's place.
	for i := len(rec.Threads) - 1; i >= 0; i-- {
		if th := &rec.Threads[i]; c.startsWith(th.Mark) {
			return th
		}
	}
	return rec.thread("")
}

// planReplace makes the request the thread's whole history, cut into turns so
// that trimming keeps questions and answers together.
func (t *sessionTurn) planReplace(c *conversation) {
	t.rewrite = true
	t.write.System = append([]byte{}, c.system...) // not nil: that would keep the old one
	turns := c.turns()
	t.last = turns[len(turns)-1]
	for _, m := range turns[:len(turns)-1] {
		t.write.Turns = append(t.write.Turns, newTurn(m, false))
	}
}

// seal ends the turn with its answer, once: it keeps its id however often it is
// written.
func (t *sessionTurn) seal() {
	if t.sealed.ID == "" {
		t.last.add(t.answer, messageDigest(t.answer))
		t.sealed = newTurn(t.last, t.incomplete)
		t.last, t.answer = turnMessages{}, nil // the record holds them now
	}
}

// tooLarge says whether a turn that is to be written is above the limit.
func (t *sessionTurn) tooLarge() bool {
	return len(t.sealed.Record) > maxTurnBytes ||
		slices.ContainsFunc(t.write.Turns, func(before turn) bool { return len(before.Record) > maxTurnBytes })
}

// size is about what the turn takes in memory while it waits, in bytes.
func (t *sessionTurn) size() int {
	n := len(t.answer) + len(t.last.raw) + len(t.sealed.Record)
	for i := range t.write.Turns {
		n += len(t.write.Turns[i].Record)
	}
	if t.unplanned != nil {
		n += t.unplanned.size
	}
	return n
}

// thread is the thread of that ID, nil when there is none.
func (rec *sessionRecord) thread(id string) *thread {
	for i := range rec.Threads {
		if rec.Threads[i].ID == id {
			return &rec.Threads[i]
		}
	}
	return nil
}

// repeats says whether a new turn's messages are those of the recorded turn,
// which is incomplete: the client asks again.
func repeats(recorded turn, now turnMessages) bool {
	if !recorded.incomplete() {
		return false
	}
	var digests []string
	for m := range recorded.messages() {
		digests = append(digests, messageDigest(m))
	}
	return len(digests) > 0 && slices.Equal(digests[:len(digests)-1], now.digests)
}

// newTurn makes the record of a turn. The messages come last, so that nothing of
// them is read to see what stands before, and they are found without reading.
func newTurn(m turnMessages, incomplete bool) turn {
	id := randomHex(16)
	rec := make([]byte, 0, len(m.raw)+128)
	rec = append(append(rec, `{"id":"`...), id...)
	rec = append(rec, `","time":"`...)
	rec = time.Now().UTC().AppendFormat(rec, time.RFC3339)
	rec = append(rec, `","incomplete":`...)
	rec = strconv.AppendBool(rec, incomplete)
	rec = append(rec, `,"messages":[`...)
	rec = append(append(rec, m.raw...), "]}"...)
	return turn{ID: id, Record: rec, Digests: m.digests}
}

// incomplete says whether the turn's answer broke off.
func (t turn) incomplete() bool { return string(member(t.Record, "incomplete")) == "true" }

// messages are the turn's messages, each as its own JSON.
func (t turn) messages() iter.Seq[[]byte] { return elements(t.list()) }

// answersCall says whether the turn begins with the answer to a call of the turn
// before it.
func (t turn) answersCall() bool {
	list := t.list()
	return len(list) > 0 && answersCall(roleOf(list[1:])) // the walk ends at the role, wherever the message does
}

// answersCall says whether messages of that role answer a call: of a tool, or of
// a function, as calls were before there were tools.
func answersCall(role string) bool { return role == "tool" || role == "function" }

// list is the record from its messages array on.
func (t turn) list() []byte {
	_, list, _ := bytes.Cut(t.Record, []byte(`"messages":`))
	return list
}

// wholeTurns are the turns without those in front whose calls have been trimmed
// away. When there are no others, they stay.
func wholeTurns(turns []turn) []turn {
	first := slices.IndexFunc(turns, func(t turn) bool { return !t.answersCall() })
	return turns[max(first, 0):]
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// A history is what goes into a request, before its own messages.
type history struct {
	conversation *conversation
	system       []byte // recorded system messages, when the request has none
	turns        []turn
}

// halve leaves the older half of the turns out; false when none can go. The turn
// whose calls the request answers stays.
func (h *history) halve() bool {
	keep := len(h.turns) / 2
	if h.conversation.answersCall() {
		keep = max(keep, 1)
	}
	if keep >= len(h.turns) {
		return false
	}
	h.turns = wholeTurns(h.turns[len(h.turns)-keep:])
	return true
}

// edits put the history into the messages array that begins at offset at of the
// body; n is how many messages that are.
func (h *history) edits(at int) (list []edit, n int) {
	j := h.join()
	if j.n == 0 {
		return nil, 0
	}
	return []edit{h.conversation.insert(at, j.raw)}, j.n
}

func (h *history) join() joiner {
	size := len(h.system) + 64
	for i := range h.turns {
		size += len(h.turns[i].Record)
	}
	j := joiner{raw: make([]byte, 0, size)}
	for m := range elements(slices.Concat([]byte("["), h.system, []byte("]"))) {
		j.put(m)
	}
	for i := range h.turns {
		for m := range h.turns[i].messages() {
			j.add(m)
		}
	}
	for _, m := range h.conversation.list {
		if m.role != "tool" {
			break
		}
		j.answers(m.raw)
	}
	j.closeCalls()
	return j
}

// A joiner joins messages by commas, in an order that strict upstreams accept:
// each tool call is followed by its answer, and no answer stands without a call.
type joiner struct {
	raw  []byte
	n    int
	open []namedCall // that are not answered yet
}

type namedCall struct{ id, name string }

func (j *joiner) add(message []byte) {
	role := roleOf(message)
	if role == "tool" {
		if j.answers(message) {
			j.put(message)
		}
		return
	}
	j.closeCalls()
	j.put(message)
	if role == "assistant" {
		for call := range elements(member(message, "tool_calls")) {
			j.open = append(j.open, namedCall{text(member(call, "id")), text(member(member(call, "function"), "name"))})
		}
	}
}

func (j *joiner) put(message []byte) {
	if j.n > 0 {
		j.raw = append(j.raw, ',')
	}
	j.raw = append(j.raw, message...)
	j.n++
}

// answers takes the call that a tool message answers off the open ones; false
// when there is none. A message without an id answers the oldest.
func (j *joiner) answers(message []byte) bool {
	id := text(member(message, "tool_call_id"))
	i := slices.IndexFunc(j.open, func(c namedCall) bool { return c.id == id })
	if i < 0 && id == "" && len(j.open) > 0 {
		i = 0
	}
	if i < 0 {
		return false
	}
	j.open = slices.Delete(j.open, i, i+1)
	return true
}

// closeCalls answers the calls that their client never answered; upstreams
// refuse dangling ones (dialects I-9).
func (j *joiner) closeCalls() {
	for _, call := range j.open {
		m := appendQuoted([]byte(`{"role":"tool","tool_call_id":`), call.id)
		j.put(append(m, `,"content":"[no output]"}`...))
	}
	j.open = j.open[:0]
}
