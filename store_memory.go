package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// memoryStore is the Store of a single process. What it holds, its own
// bookkeeping included, stays within a number of bytes: the session or value
// that was used longest ago goes first. A single session that outgrows the
// limit loses its oldest turns. Nothing runs in the background: each write looks
// at a few entries and removes those that have expired.
type memoryStore struct {
	limits   storeLimits
	maxBytes int64
	start    time.Time // expiry is counted from here, so that a change of the clock moves nothing

	mu      sync.Mutex // guards what follows
	entries map[string]*memoryEntry
	peak    int          // most entries that the map has held since it was made
	ring    memoryEntry  // ring.next was used last, ring.prev longest ago
	hand    *memoryEntry // where the search for expired entries goes on
	used    int64        // bytes
}

var _ Store = (*memoryStore)(nil)

// memoryEntry is a session or a value of Set.
type memoryEntry struct {
	key        string
	prev, next *memoryEntry
	expires    time.Duration // since memoryStore.start
	size       int64         // bytes, as counted in memoryStore.used
	value      []byte
	session    *memorySession // nil for a value
}

type memorySession struct {
	created, updated int64           // Unix time in nanoseconds
	threads          []*memoryThread // the one written last at the end
}

type memoryThread struct {
	id               string
	system           []byte
	created, updated int64     // Unix time in nanoseconds
	mark             chainMark // after the last turn
	before           chainMark // before the last turn
	replaced         string    // fingerprint of the last Replace
	turns            []memoryTurn
	index            map[string]struct{} // ids of turns; nil while they are few
	size             int64               // bytes, cost of the thread itself included
}

type memoryTurn struct {
	id     string
	record []byte
}

// What an object takes beside the bytes it points to. Slices count twice, for
// the room that append leaves; a map slot is counted as if its table were half
// empty.
const (
	memoryEntryCost   = 80 + 56          // memoryEntry, map slot
	memorySessionCost = 48               // memorySession
	memoryThreadCost  = 160 + 2*8 + 3*48 // memoryThread, its place in threads, two hashes and a fingerprint
	memoryTurnCost    = 2*40 + 40        // memoryTurn twice, index slot
	memorySweep       = 2                // entries that one write checks for expiry
	memoryIndexFrom   = 16               // turns up to which looking through them beats an index
	memoryMapMin      = 1024             // entries below which a map that has emptied is kept
)

// newMemoryStore returns an empty store that holds at most maxBytes.
func newMemoryStore(maxBytes int64, limits storeLimits) *memoryStore {
	m := &memoryStore{
		limits:   limits,
		maxBytes: maxBytes,
		start:    time.Now(),
		entries:  make(map[string]*memoryEntry),
	}
	m.ring.prev, m.ring.next, m.hand = &m.ring, &m.ring, &m.ring
	return m
}

func (m *memoryStore) History(_ context.Context, s sessionKey, pick threadPick) (*sessionRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.find(memorySessionKey(s), m.now())
	if e == nil {
		return nil, errNotFound
	}
	m.touch(e)
	return e.session.record(pick), nil
}

func (m *memoryStore) Append(_ context.Context, s sessionKey, w threadWrite) error {
	return m.write(s, w, (*memoryThread).append)
}

func (m *memoryStore) Replace(_ context.Context, s sessionKey, w threadWrite) error {
	return m.write(s, w, (*memoryThread).replace)
}

func (m *memoryStore) Delete(_ context.Context, s sessionKey) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.find(memorySessionKey(s), m.now())
	if e == nil {
		return errNotFound
	}
	m.remove(e)
	return nil
}

func (m *memoryStore) Get(_ context.Context, key string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.find(memoryValueKey(key), m.now())
	if e == nil {
		return nil, errNotFound
	}
	m.touch(e)
	return e.value, nil
}

func (m *memoryStore) Set(_ context.Context, key string, value []byte, ttl time.Duration) error {
	key = memoryValueKey(key)
	size := memoryEntrySize(key) + heapSize(len(value))
	if size > m.maxBytes {
		return m.tooLarge("value", size)
	}
	value = bytes.Clone(value)
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)
	e := m.find(key, now)
	if e == nil {
		e = &memoryEntry{key: key}
	}
	e.value, e.expires = value, now+ttl
	m.put(e, size)
	return nil
}

func (m *memoryStore) Ping(context.Context) error { return nil }

func (m *memoryStore) Name() string { return "memory" }

func (m *memoryStore) Close() error { return nil }

// write lets change put w into its thread. The thread, and its session, are new
// when there are none; they are kept once change says that it did something.
func (m *memoryStore) write(s sessionKey, w threadWrite, change func(*memoryThread, threadWrite, int) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	m.sweep(now)
	key := memorySessionKey(s)
	e := m.find(key, now)
	if e == nil {
		e = &memoryEntry{key: key, session: &memorySession{created: w.Time.UnixNano()}}
	}
	t := e.session.find(w.Thread)
	if t == nil {
		t = newMemoryThread(w)
	}
	overhead := memoryEntrySize(key) + memorySessionCost
	if least := overhead + t.least(w); least > m.maxBytes {
		return m.tooLarge("turn", least)
	}
	if !change(t, w, m.limits.MaxTurns) {
		return nil
	}
	e.session.updated = w.Time.UnixNano()
	e.session.putLast(t)
	e.session.shrink(m.maxBytes - overhead)
	e.expires = now + m.limits.SessionTTL
	m.put(e, overhead+e.session.size())
	return nil
}

// find returns the entry of a key, or nil when there is none or it has expired.
func (m *memoryStore) find(key string, now time.Duration) *memoryEntry {
	e := m.entries[key]
	if e == nil || e.expires > now {
		return e
	}
	m.remove(e)
	return nil
}

// put makes e, new or not, the entry used last, and makes room for it. The
// caller has seen to it that size is within the limit.
func (m *memoryStore) put(e *memoryEntry, size int64) {
	if e.next == nil {
		m.entries[e.key] = e
		m.peak = max(m.peak, len(m.entries))
		m.link(e)
	} else {
		m.touch(e)
	}
	m.used += size - e.size
	e.size = size
	for m.used > m.maxBytes {
		m.remove(m.ring.prev)
	}
}

// touch makes e the entry used last.
func (m *memoryStore) touch(e *memoryEntry) {
	m.unlink(e)
	m.link(e)
}

func (m *memoryStore) link(e *memoryEntry) {
	e.prev, e.next = &m.ring, m.ring.next
	e.prev.next, e.next.prev = e, e
}

func (m *memoryStore) unlink(e *memoryEntry) {
	if m.hand == e {
		m.hand = e.prev
	}
	e.prev.next, e.next.prev = e.next, e.prev
}

// remove forgets e. A Go map keeps its size when it empties, and that would be
// memory nobody counts: it is made anew once it has lost most of its entries,
// which by then has been paid for by as many removals.
func (m *memoryStore) remove(e *memoryEntry) {
	m.unlink(e)
	delete(m.entries, e.key)
	m.used -= e.size
	if m.peak > memoryMapMin && len(m.entries) < m.peak/4 {
		kept := make(map[string]*memoryEntry, len(m.entries))
		maps.Copy(kept, m.entries)
		m.entries, m.peak = kept, len(kept)
	}
}

// sweep looks at the next few entries, from the least recently used on and round
// again, and removes those that have expired.
func (m *memoryStore) sweep(now time.Duration) {
	for range memorySweep {
		e := m.hand
		m.hand = e.prev
		if e != &m.ring && e.expires <= now {
			m.remove(e)
		}
	}
}

func (m *memoryStore) now() time.Duration { return time.Since(m.start) }

func (m *memoryStore) tooLarge(what string, size int64) error {
	return fmt.Errorf("store: a %s takes %d bytes in memory, the limit for everything is %d", what, size, m.maxBytes)
}

func (s *memorySession) find(id string) *memoryThread {
	for _, t := range s.threads {
		if t.id == id {
			return t
		}
	}
	return nil
}

// putLast makes t, new or not, the thread written last.
func (s *memorySession) putLast(t *memoryThread) {
	if i := slices.Index(s.threads, t); i >= 0 {
		s.threads = slices.Delete(s.threads, i, i+1)
	}
	s.threads = append(s.threads, t)
	if n := len(s.threads) - maxThreads; n > 0 {
		s.threads = slices.Delete(s.threads, 0, n)
	}
}

// shrink drops the oldest turns, those of the thread written longest ago first,
// until the threads take at most maxBytes. The last turn of the last thread stays.
func (s *memorySession) shrink(maxBytes int64) {
	for s.size() > maxBytes {
		t := s.threads[0]
		switch {
		case len(t.turns) > 1:
			t.dropFirst()
		case len(s.threads) > 1:
			s.threads = slices.Delete(s.threads, 0, 1)
		default:
			return
		}
	}
}

func (s *memorySession) size() int64 {
	var n int64
	for _, t := range s.threads {
		n += t.size
	}
	return n
}

func (s *memorySession) record(pick threadPick) *sessionRecord {
	r := &sessionRecord{
		Created: time.Unix(0, s.created).UTC(),
		Updated: time.Unix(0, s.updated).UTC(),
		Threads: make([]thread, len(s.threads)),
	}
	for i, t := range s.threads {
		r.Threads[i] = t.head()
	}
	switch last := len(s.threads) - 1; pick.Kind {
	case pickID:
		if i := slices.IndexFunc(s.threads, func(t *memoryThread) bool { return t.id == pick.ID }); i >= 0 {
			r.Threads[i].Turns = s.threads[i].list()
		}
	case pickLast:
		r.Threads[last].Turns = s.threads[last].list()
	case pickAll:
		for i, t := range s.threads {
			r.Threads[i].Turns = t.list()
		}
	}
	return r
}

// newMemoryThread copies the ID: it may be part of a long string that should not
// stay in memory with it.
func newMemoryThread(w threadWrite) *memoryThread {
	return &memoryThread{
		id:      strings.Clone(w.Thread),
		created: w.Time.UnixNano(),
		size:    memoryThreadCost + heapSize(len(w.Thread)) + heapSize(0),
	}
}

// least is the size that the thread will have with w written to it and every
// turn dropped but the last of w.
func (t *memoryThread) least(w threadWrite) int64 {
	system := t.system
	if w.System != nil {
		system = w.System
	}
	n := memoryThreadCost + heapSize(len(t.id)) + heapSize(len(system))
	if len(w.Turns) > 0 {
		n += w.Turns[len(w.Turns)-1].memorySize()
	}
	return n
}

// append is what Append does to the thread. It says whether anything changed.
func (t *memoryThread) append(w threadWrite, maxTurns int) bool {
	added := w.Turns[0]
	if t.holds(added.ID) {
		return false
	}
	if n := len(t.turns); n > 0 && t.turns[n-1].id == w.Replaces {
		t.dropLast()
	} else {
		t.before = t.mark
	}
	t.mark = t.before.after(added.Digests)
	t.push(added)
	for len(t.turns) > maxTurns {
		t.dropFirst()
	}
	t.written(w)
	return true
}

// replace is what Replace does to the thread. It says whether anything changed.
func (t *memoryThread) replace(w threadWrite, maxTurns int) bool {
	fingerprint := w.fingerprint()
	if t.replaced == fingerprint {
		return false
	}
	t.replaced = fingerprint
	for len(t.turns) > 0 {
		t.dropLast()
	}
	t.turns, t.index = nil, nil
	t.before, t.mark = w.marks()
	for _, added := range w.newest(maxTurns) {
		t.push(added)
	}
	t.written(w)
	return true
}

func (t *memoryThread) written(w threadWrite) {
	t.updated = w.Time.UnixNano()
	if w.System != nil {
		t.size += heapSize(len(w.System)) - heapSize(len(t.system))
		t.system = bytes.Clone(w.System)
	}
}

func (t *memoryThread) push(added turn) {
	kept := memoryTurn{strings.Clone(added.ID), bytes.Clone(added.Record)}
	t.turns = append(t.turns, kept)
	t.size += added.memorySize()
	if t.index != nil {
		t.index[kept.id] = struct{}{}
	}
}

func (t *memoryThread) dropFirst() {
	t.forget(0)
	t.turns = t.turns[1:]
}

func (t *memoryThread) dropLast() {
	last := len(t.turns) - 1
	t.forget(last)
	t.turns = t.turns[:last]
}

// forget lets go of what the turn at i holds; the slice behind turns lives on.
func (t *memoryThread) forget(i int) {
	gone := turn{ID: t.turns[i].id, Record: t.turns[i].record}
	t.size -= gone.memorySize()
	delete(t.index, gone.ID)
	t.turns[i] = memoryTurn{}
}

// holds says whether the thread has a turn of that ID.
func (t *memoryThread) holds(id string) bool {
	if len(t.turns) <= memoryIndexFrom {
		return slices.ContainsFunc(t.turns, func(kept memoryTurn) bool { return kept.id == id })
	}
	if t.index == nil {
		t.index = make(map[string]struct{}, len(t.turns))
		for _, kept := range t.turns {
			t.index[kept.id] = struct{}{}
		}
	}
	_, ok := t.index[id]
	return ok
}

func (t *memoryThread) head() thread {
	return thread{
		ID:      t.id,
		System:  t.system,
		Created: time.Unix(0, t.created).UTC(),
		Updated: time.Unix(0, t.updated).UTC(),
		Mark:    t.mark,
	}
}

func (t *memoryThread) list() []turn {
	turns := make([]turn, len(t.turns))
	for i, kept := range t.turns {
		turns[i] = turn{ID: kept.id, Record: kept.record}
	}
	return turns
}

// memorySize is what the turn takes in a memoryThread, in bytes.
func (t turn) memorySize() int64 {
	return memoryTurnCost + heapSize(len(t.ID)) + heapSize(len(t.Record))
}

func memoryEntrySize(key string) int64 { return memoryEntryCost + heapSize(len(key)) }

// Sessions and values have one map and different first letters.
func memorySessionKey(s sessionKey) string { return "s" + s.String() }
func memoryValueKey(key string) string     { return "v" + key }

// heapSize is about what n bytes take on the heap, where objects come in sizes
// that are at most an eighth apart.
func heapSize(n int) int64 { return (int64(n) + int64(n)/8 + 15) &^ 15 }
