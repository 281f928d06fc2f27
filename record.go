package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// maxQueuedBytes bounds the turns that wait for the store to come back.
const maxQueuedBytes = 64 << 20

// flushPause is how long the queue is left alone after the store has failed.
const flushPause = 500 * time.Millisecond

// A storing is what became of a turn that was to be recorded, as the header
// X-Session-Store names it.
type storing string

const (
	stored         storing = ""
	storeDeferred  storing = "deferred"   // waits in memory for the store to come back
	storeTooLarge  storing = "too_large"  // above maxTurnBytes
	storeNotStored storing = "not_stored" // the store is down and the queue is full, or refuses the turn
)

var errTurnTooLarge = errors.New("the turn is above the limit for one turn")

// sessions writes and reads turns. While the store is down, turns wait in a
// bounded queue and are written in their order when it is back.
type sessions struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	queue   []queuedTurn
	queued  int                // bytes in the queue
	count   map[sessionKey]int // turns of a session in the queue
	flusher bool               // a goroutine is trying to write the queue
	closed  bool

	turns    turnCounts
	flushing sync.Mutex    // held while the queue is written, so that it stays in order
	stop     chan struct{} // closed by Close
}

type queuedTurn struct {
	turn *sessionTurn
	size int
}

func newSessions(store Store, log *slog.Logger) *sessions {
	return &sessions{store: store, log: log, count: map[sessionKey]int{}, stop: make(chan struct{})}
}

// history reads a session. Turns of it that still wait must be written first:
// an answer without them would be a silent lie.
func (s *sessions) history(ctx context.Context, key sessionKey, pick threadPick) (*sessionRecord, error) {
	if s.waiting(key) {
		s.flush(ctx)
		if s.waiting(key) {
			return nil, errStoreDown
		}
	}
	return s.store.History(ctx, key, pick)
}

func (s *sessions) waiting(key sessionKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[key] > 0
}

// record writes a turn with its answer, one message's JSON. It returns before
// the client sees the end of the answer, and does not stop when the client
// leaves.
func (s *sessions) record(ctx context.Context, t *sessionTurn, answer []byte, incomplete bool) (became storing) {
	defer func() { s.turns.add(became) }()
	t.answer, t.incomplete, t.write.Time = answer, incomplete, time.Now()
	if t.unplanned == nil {
		if t.seal(); t.tooLarge() {
			return storeTooLarge
		}
	}
	if !s.waiting(t.key) {
		err := s.write(context.WithoutCancel(ctx), t)
		switch {
		case err == nil:
			return stored
		case errors.Is(err, errTurnTooLarge):
			return storeTooLarge
		case !errors.Is(err, errStoreDown):
			s.log.Error("a session's turn is lost: the store refuses it", "error", err)
			return storeNotStored
		}
		s.log.Warn("a session's turn could not be written", "error", err)
	}
	return s.enqueue(t)
}

// write plans a turn that is not planned yet, and puts it into the store.
func (s *sessions) write(ctx context.Context, t *sessionTurn) error {
	if t.unplanned != nil {
		rec, err := s.store.History(ctx, t.key, t.pick(t.unplanned))
		if err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		t.plan(t.unplanned, rec)
		t.unplanned = nil
	}
	if t.seal(); t.tooLarge() {
		return errTurnTooLarge
	}
	w := t.write
	w.Turns = append(slices.Clip(w.Turns), t.sealed)
	if t.rewrite {
		return s.store.Replace(ctx, t.key, w)
	}
	return s.store.Append(ctx, t.key, w)
}

func (s *sessions) enqueue(t *sessionTurn) storing {
	size := t.size()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.queued+size > maxQueuedBytes {
		return storeNotStored
	}
	s.queue = append(s.queue, queuedTurn{t, size})
	s.queued += size
	s.count[t.key]++
	if !s.flusher {
		s.flusher = true
		go s.flushUntilEmpty()
	}
	return storeDeferred
}

// flushUntilEmpty tries again and again, for as long as turns wait.
func (s *sessions) flushUntilEmpty() {
	for {
		select {
		case <-s.stop:
			return
		case <-time.After(flushPause):
		}
		s.flush(context.Background())
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.flusher = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// flush writes what waits, in order, until the store fails or ctx ends.
func (s *sessions) flush(ctx context.Context) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	for next := s.first(); next != nil && ctx.Err() == nil; next = s.first() {
		err := s.write(ctx, next)
		if errors.Is(err, errStoreDown) {
			return
		}
		if err != nil {
			s.log.Error("a session's turn is lost: the store refuses it", "error", err)
		}
		s.dropFirst()
	}
}

// first is the turn that has waited longest, nil for none.
func (s *sessions) first() *sessionTurn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	return s.queue[0].turn
}

func (s *sessions) dropFirst() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(s.queue[0])
	s.queue[0] = queuedTurn{} // the array behind the slice lives on
	s.queue = s.queue[1:]
}

// dropSession takes a session's turns out of the queue and says how many they
// were.
func (s *sessions) dropSession(key sessionKey) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.queue)
	s.queue = slices.DeleteFunc(s.queue, func(q queuedTurn) bool {
		if q.turn.key != key {
			return false
		}
		s.release(q)
		return true
	})
	return before - len(s.queue)
}

// release gives back what a turn took up in the queue; s.mu is held.
func (s *sessions) release(q queuedTurn) {
	s.queued -= q.size
	if s.count[q.turn.key]--; s.count[q.turn.key] == 0 {
		delete(s.count, q.turn.key)
	}
}

// forget deletes a session, with those of its turns that still wait.
func (s *sessions) forget(ctx context.Context, key sessionKey) error {
	s.flushing.Lock() // or a turn that is being written would bring the session back
	defer s.flushing.Unlock()
	err := s.store.Delete(ctx, key)
	if err != nil && !errors.Is(err, errNotFound) {
		return err
	}
	if s.dropSession(key) > 0 {
		return nil
	}
	return err
}

// Close writes what waits, for as long as ctx allows but at least once, and says
// how many turns are lost.
func (s *sessions) Close(ctx context.Context) int {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	for {
		s.flush(context.WithoutCancel(ctx))
		left := s.left()
		if left == 0 || ctx.Err() != nil {
			return left
		}
		select {
		case <-ctx.Done():
		case <-time.After(flushPause / 2):
		}
	}
}

func (s *sessions) left() int {
	turns, _ := s.backlog()
	return turns
}

// backlog is what waits for the store.
func (s *sessions) backlog() (turns, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue), s.queued
}
