package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
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
	key    sessionKey
	mode   sessionMode
	thread string // "new" or "continued", for X-Session-Thread; "" when not known yet
	put    int    // messages spliced in, for X-Session-Messages; -1 when the request was not to be touched

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
	id, recordOnly, err := s.sessionID(r.Header)
	if err != nil || id == "" {
		return nil, err
	}
	mode := s.cfg.SessionMode
	if v := r.Header.Get("X-Session-Mode"); v != "" {
		mode = sessionMode(strings.ToLower(v))
		if mode != modeAuto && mode != modeContinue && mode != modeRecord {
			return nil, badRequest("X-Session-Mode", "X-Session-Mode must be auto, continue or record")
		}
	}
	if recordOnly {
		mode = modeRecord
	}
	c, ok := parseConversation(messages)
	if !ok {
		return nil, nil // messages that are not objects: the upstream refuses them better than we could
	}
	x.session = &sessionTurn{key: sessionKey{x.cred.Owner, id}, mode: mode, put: -1}
	if c.managed || mode == modeRecord {
		s.recordSession(x, c)
		return nil, nil
	}
	return s.continueSession(x, c)
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
			return "", false, badRequest("X-Session-Id", "X-Session-Id must be sent once and hold 1 to 255 visible ASCII characters, and can't be a path step such as \"..\"")
		}
	}
	return "", false, nil
}

// validSessionID says whether an id is taken: whatever is taken can also be read
// back under /context/.
func validSessionID(id string) bool {
	if len(id) == 0 || len(id) > 255 || !safeSegment(id) {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// recordSession notes where the turn of a request that goes upstream untouched
// belongs. It never fails a request: what can't be decided now is decided when
// the turn is written.
func (s *server) recordSession(x *exchange, c *conversation) {
	t := x.session
	rec, err := s.sessions.history(x.ctx, t.key, threadPick{Kind: pickNone})
	if err != nil && !errors.Is(err, errNotFound) {
		t.unplanned = c.clone()
		return
	}
	t.plan(c, rec)
}

// continueSession reads the history of a new turn.
func (s *server) continueSession(x *exchange, c *conversation) (*history, error) {
	t := x.session
	pick := threadPick{Kind: pickLast}
	if t.mode == modeAuto && c.systemID != "" {
		pick = threadPick{Kind: pickID, ID: c.systemID}
	}
	rec, err := s.sessions.history(x.ctx, t.key, pick)
	if err != nil && !errors.Is(err, errNotFound) {
		return nil, storeUnavailable(err)
	}
	t.plan(c, rec)
	t.put = 0
	th := rec.thread(t.write.Thread)
	if th == nil {
		return nil, nil
	}
	h := &history{conversation: c, turns: th.Turns}
	if n := len(h.turns); n > 0 && repeats(h.turns[n-1], t.last) {
		t.write.Replaces = h.turns[n-1].ID
		h.turns = h.turns[:n-1]
	}
	if len(c.system.raw) == 0 {
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

// plan decides which thread the turn goes to and what of the request is new.
func (t *sessionTurn) plan(c *conversation, rec *sessionRecord) {
	th := t.pickThread(c, rec)
	t.thread = "new"
	if th != nil {
		t.thread = "continued"
		t.write.Thread = th.ID
	} else {
		t.write.Thread = c.systemID
	}
	if len(c.system.raw) > 0 && (th == nil || th.ID != c.systemID) {
		t.write.System = bytes.Clone(c.system.raw)
	}
	if !c.managed {
		t.last = c.from(0)
		return
	}
	if th != nil && c.startsWith(th.Mark) {
		t.last = c.from(th.Mark.Messages)
		return
	}
	t.planReplace(c)
}

// pickThread is the thread that a conversation belongs to, nil for a new one.
func (t *sessionTurn) pickThread(c *conversation, rec *sessionRecord) *thread {
	if rec == nil || len(rec.Threads) == 0 {
		return nil
	}
	newest := &rec.Threads[len(rec.Threads)-1]
	if t.mode == modeContinue {
		return newest
	}
	if c.systemID != "" || !c.managed {
		if c.systemID == "" {
			return newest
		}
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
	t.write.System = append([]byte{}, c.system.raw...)
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
	}
}

// thread is the thread of that ID, nil when there is none.
func (rec *sessionRecord) thread(id string) *thread {
	if rec == nil {
		return nil
	}
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
	if string(member(recorded.Record, "incomplete")) != "true" {
		return false
	}
	var digests []string
	for m := range elements(member(recorded.Record, "messages")) {
		digests = append(digests, messageDigest(m))
	}
	return len(digests) > 0 && slices.Equal(digests[:len(digests)-1], now.digests)
}

// newTurn makes the record of a turn. The messages come last, so that looking
// at what stands before them costs nothing.
func newTurn(m turnMessages, incomplete bool) turn {
	id := randomHex(16)
	rec := make([]byte, 0, len(m.raw)+128)
	rec = append(append(rec, `{"id":"`...), id...)
	rec = append(rec, `","time":"`...)
	rec = time.Now().UTC().AppendFormat(rec, time.RFC3339)
	if incomplete {
		rec = append(rec, `","incomplete":true,"messages":[`...)
	} else {
		rec = append(rec, `","incomplete":false,"messages":[`...)
	}
	rec = append(append(rec, m.raw...), "]}"...)
	return turn{ID: id, Record: rec, Digests: m.digests}
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

// halve leaves the older half of the turns out; false when there are none left.
func (h *history) halve() bool {
	if len(h.turns) == 0 {
		return false
	}
	h.turns = h.turns[(len(h.turns)+1)/2:]
	return true
}

// joined is the history as messages joined by commas, and how many they are.
// Every tool call in it is followed by its answer.
func (h *history) joined() (raw []byte, n int) {
	add := func(message []byte) {
		if n > 0 {
			raw = append(raw, ',')
		}
		raw = append(raw, message...)
		n++
	}
	for m := range elements(slices.Concat([]byte("["), h.system, []byte("]"))) {
		add(m)
	}
	var open []string // calls that are not answered yet
	for i := range h.turns {
		for m := range elements(member(h.turns[i].Record, "messages")) {
			open = closeCalls(open, m, add)
			add(m)
		}
	}
	for _, m := range h.conversation.list {
		if m.role != "tool" {
			break
		}
		open = answer(open, m.raw)
	}
	for _, id := range open {
		add(noOutput(id))
	}
	return raw, n
}

// edits put the history into the messages array that begins at offset at of the
// body; n is how many messages that are.
func (h *history) edits(at int) (list []edit, n int) {
	raw, n := h.joined()
	if n == 0 {
		return nil, 0
	}
	return []edit{h.conversation.insert(at, raw)}, n
}

// closeCalls keeps the rule that every tool call is followed by its answer: it
// adds one for each open call that message, which comes next, leaves without.
func closeCalls(open []string, message []byte, add func([]byte)) []string {
	if text(member(message, "role")) == "tool" {
		return answer(open, message)
	}
	for _, id := range open {
		add(noOutput(id))
	}
	open = open[:0]
	for call := range elements(member(message, "tool_calls")) {
		open = append(open, text(member(call, "id")))
	}
	return open
}

// answer takes the call that a tool message answers off the open ones.
func answer(open []string, message []byte) []string {
	if i := slices.Index(open, text(member(message, "tool_call_id"))); i >= 0 {
		return slices.Delete(open, i, i+1)
	}
	return open
}

// noOutput answers a call that its client never answered; upstreams refuse
// dangling calls (dialects I-9).
func noOutput(id string) []byte {
	m := appendQuoted([]byte(`{"role":"tool","tool_call_id":`), id)
	return append(m, `,"content":"[no output]"}`...)
}
