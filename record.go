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

// A storing is what became of a turn that was to be recorded, as the header
// X-Session-Store names it.
type storing string

const (
	stored         storing = ""
	storeDeferred  storing = "deferred"   // waits in memory for the store to come back
	storeTooLarge  storing = "too_large"  // above maxTurnBytes
	storeNotStored storing = "not_stored" // the store is down and the queue is full
)

// sessions writes and reads turns. While the store is down, turns wait in a
// bounded queue and are written in their order when it is back.
type sessions struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	queue   []queuedTurn
	queued  int  // bytes
	flusher bool // a goroutine is trying to write the queue
	closed  bool

	flushing sync.Mutex    // held while the queue is written, so that it stays in order
	stop     chan struct{} // closed by Close
}

type queuedTurn struct {
	turn *sessionTurn
	size int
}

func newSessions(store Store, log *slog.Logger) *sessions {
	return &sessions{store: store, log: log, stop: make(chan struct{})}
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
	for i := range s.queue {
		if s.queue[i].turn.key == key {
			return true
		}
	}
	return false
}

// record writes a turn with its answer, one message's JSON. It returns before
// the client sees the end of the answer, so it does not stop when the client
// leaves.
func (s *sessions) record(ctx context.Context, t *sessionTurn, answer []byte, incomplete bool) storing {
	t.answer, t.incomplete = answer, incomplete
	size := len(answer) + len(t.last.raw)
	for i := range t.write.Turns {
		size += len(t.write.Turns[i].Record)
	}
	if t.unplanned != nil {
		size += t.unplanned.size
	}
	if size > maxTurnBytes {
		return storeTooLarge
	}
	t.write.Time = time.Now()
	if !s.waiting(t.key) {
		err := s.write(context.WithoutCancel(ctx), t)
		if err == nil {
			return stored
		}
		s.log.Warn("a session's turn could not be written", "error", err)
	}
	return s.enqueue(t, size)
}

// write plans a turn that is not planned yet, and puts it into the store.
func (s *sessions) write(ctx context.Context, t *sessionTurn) error {
	if t.unplanned != nil {
		rec, err := s.store.History(ctx, t.key, threadPick{Kind: pickNone})
		if err != nil && !errors.Is(err, errNotFound) {
			return err
		}
		t.plan(t.unplanned, rec)
		t.unplanned = nil
	}
	t.seal()
	w := t.write
	w.Turns = append(slices.Clip(w.Turns), t.sealed)
	if t.rewrite {
		return s.store.Replace(ctx, t.key, w)
	}
	return s.store.Append(ctx, t.key, w)
}

func (s *sessions) enqueue(t *sessionTurn, size int) storing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.queued+size > maxQueuedBytes {
		return storeNotStored
	}
	s.queue = append(s.queue, queuedTurn{t, size})
	s.queued += size
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
		case <-time.After(500 * time.Millisecond):
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

// flush writes what waits, in order, until the store fails.
func (s *sessions) flush(ctx context.Context) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.mu.Unlock()
			return
		}
		next := s.queue[0]
		s.mu.Unlock()
		err := s.write(ctx, next.turn)
		if errors.Is(err, errStoreDown) || ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Error("a session's turn is lost: the store refuses it", "error", err)
		}
		s.mu.Lock()
		s.queue = s.queue[1:]
		s.queued -= next.size
		s.mu.Unlock()
	}
}

// Close writes what waits, for as long as ctx allows, and says how many turns
// are lost.
func (s *sessions) Close(ctx context.Context) int {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	for ctx.Err() == nil {
		s.flush(ctx)
		if s.count() == 0 {
			return 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
	return s.count()
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}
