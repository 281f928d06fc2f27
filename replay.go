package main

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Some upstreams refuse a tool's result unless the reasoning, or the signature,
// that came with the call is sent back to them. Clients whose dialect has no
// room for that, or that were never shown it, can't; so the gateway keeps it
// under the ids of the calls, and puts it back when a call returns without
// (dialects E-24, E-25). The store holds it for other replicas; a copy in the
// process spares the round trip, and stands in while the store is down.

const (
	replayFor      = 24 * time.Hour
	maxReplayBytes = 32 << 20 // of the copy in the process
)

// callReplay is what belongs to one tool call.
type callReplay struct {
	Field   string          `json:"f,omitempty"` // reasoningField
	Text    string          `json:"t,omitempty"`
	Details json.RawMessage `json:"d,omitempty"` // with brackets
	Extra   json.RawMessage `json:"x,omitempty"` // extra_content
}

// replays keeps them.
type replays struct {
	store Store

	mu     sync.Mutex
	models map[string]signing
	held   map[string]callReplay
	order  []string // oldest first
	bytes  int
}

func newReplays(store Store) *replays { return &replays{store: store, held: map[string]callReplay{}} }

func replayKey(owner, call string) string { return "replay:" + owner + ":" + call }

// keep takes an answer's calls down.
func (p *replays) keep(x *exchange, c *chatChoice) {
	ctx := context.WithoutCancel(x.ctx)
	for i, call := range c.Calls {
		r := callReplay{Extra: call.ExtraContent}
		if f := c.Reasoning.Field; f != 0 && f != reasoningInText {
			r.Field, r.Text = string(f), c.Reasoning.Text
			if f == reasoningList {
				r.Details = slices.Concat([]byte("["), c.Reasoning.Details, []byte("]"))
			}
		}
		if r.Field == "" && r.Extra == nil {
			continue
		}
		if member(r.Extra, "google") != nil && p.learnSigned(x.model) {
			p.store.Set(ctx, signedKey(x.model), []byte("true"), signedFor)
		}
		for _, id := range []string{call.ID, x.gemini.replayID(x, i, &call)} {
			if id != "" {
				p.put(ctx, replayKey(x.cred.Owner, id), r)
			}
		}
	}
}

func (p *replays) put(ctx context.Context, key string, r callReplay) {
	p.hold(key, r)
	if value, err := marshal(r); err == nil {
		p.store.Set(ctx, key, value, replayFor)
	}
}

// signed says whether a model makes thought signatures, and so wants them back.
// Another replica, or this one before a restart, may have seen them.
func (p *replays) signed(ctx context.Context, model string) bool {
	p.mu.Lock()
	known, ok := p.models[model]
	ask := !ok || !known.signed && time.Since(known.asked) > signedAgain
	if ask {
		p.note(model, signing{asked: time.Now()})
	}
	p.mu.Unlock()
	if !ask {
		return known.signed
	}
	if _, err := p.store.Get(ctx, signedKey(model)); err == nil {
		p.learnSigned(model)
		return true
	}
	return false
}

// learnSigned notes that a model makes signatures; false if that was known.
func (p *replays) learnSigned(model string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.models[model].signed
	p.note(model, signing{signed: true})
	return !was
}

// note is called with the lock held.
func (p *replays) note(model string, s signing) {
	if len(p.models) >= maxSigning || p.models == nil {
		p.models = map[string]signing{}
	}
	p.models[model] = s
}

// signing is what is known of a model's thought signatures.
type signing struct {
	signed bool
	asked  time.Time // when the store was asked, if it did not know
}

const (
	signedFor   = 30 * 24 * time.Hour
	signedAgain = 30 * time.Second // between two questions to the store
	maxSigning  = 1000             // models
)

func signedKey(model string) string { return "replay:signed:" + model }

func (p *replays) hold(key string, r callReplay) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if before, ok := p.held[key]; ok {
		p.bytes -= before.size(key)
	} else {
		p.order = append(p.order, key)
	}
	p.bytes += r.size(key)
	p.held[key] = r
	for p.bytes > maxReplayBytes && len(p.order) > 1 {
		oldest := p.order[0]
		p.order = p.order[1:]
		p.bytes -= p.held[oldest].size(oldest)
		delete(p.held, oldest)
	}
}

func (r callReplay) size(key string) int {
	return 2*len(key) + len(r.Text) + len(r.Details) + len(r.Extra) + 128
}

// find looks in the process, and then, if the store may be asked, there.
func (p *replays) find(ctx context.Context, owner, call string, askStore bool) (r callReplay, ok bool) {
	key := replayKey(owner, call)
	p.mu.Lock()
	r, ok = p.held[key]
	p.mu.Unlock()
	if ok || !askStore {
		return r, ok
	}
	value, err := p.store.Get(ctx, key)
	if err != nil || json.Unmarshal(value, &r) != nil {
		return callReplay{}, false
	}
	p.hold(key, r)
	return r, true
}

// maxReplayMisses is how many calls of one request the store is asked about in
// vain. An upstream that never reasons has nothing there.
const maxReplayMisses = 3

// putBack completes a request's assistant messages, the newest first: those are
// the ones whose reasoning is demanded most often.
func (p *replays) putBack(x *exchange, q *chatRequest) {
	mode := x.quirk("reasoning_replay")
	current, answered := true, false // the messages are of the turn that is still going on; something of it was seen
	misses := 0
	for i := len(q.Messages) - 1; i >= 0; i-- {
		m := &q.Messages[i]
		switch m.Role {
		case "user":
			current = current && !answered
		case "assistant":
			answered = true
			if m.Raw != nil {
				continue
			}
			wanted := mode != "off" && (mode != "turn" || current)
			if !p.complete(x, m, wanted, misses < maxReplayMisses) {
				misses++
			}
			if !wanted {
				m.ReasoningContent, m.Reasoning, m.ReasoningDetails = "", "", nil
			}
		}
	}
}

// complete puts back what is missing in an assistant's message. It is false when
// that is not known any more.
func (p *replays) complete(x *exchange, m *chatMessage, withReasoning, askStore bool) bool {
	bare := m.ReasoningContent == "" && m.Reasoning == "" && m.ReasoningDetails == nil
	known := true
	for j := range m.ToolCalls {
		call := &m.ToolCalls[j]
		if !bare && call.ExtraContent != nil {
			continue
		}
		r, ok := p.find(x.ctx, x.cred.Owner, orElse(call.Replay, call.ID), askStore && j == 0)
		if ok && bare && withReasoning && r.Field != "" {
			reasoning{Text: r.Text, Field: reasoningField(r.Field[0]), Details: inner(r.Details)}.putBack(m)
			bare = false
		}
		switch {
		case call.ExtraContent != nil:
		case ok && r.Extra != nil:
			call.ExtraContent = r.Extra
		case j == 0 && x.signed:
			call.ExtraContent = json.RawMessage(`{"google":{"thought_signature":"skip_thought_signature_validator"}}`)
		}
		known = known && (ok || j > 0)
	}
	return known
}

// inner is what stands between the brackets of a raw array.
func inner(array []byte) []byte {
	if !isArray(array) {
		return nil
	}
	return array[1 : len(array)-1]
}
