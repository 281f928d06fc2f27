package main

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"time"
)

// Limits that hold for every session, whichever store keeps it.
const (
	maxThreads    = 8               // threads in one session; the one written longest ago goes first
	maxTurnBytes  = 16 << 20        // a turn above this is not recorded
	storeTimeout  = 2 * time.Second // one store call, waiting for a connection included
	anonymousUser = "anonymous"     // owner of everything when authentication is off
)

var (
	// errNotFound: the store was asked for something that is not there, or no longer.
	errNotFound = errors.New("store: not found")
	// errStoreDown: the store can't be reached, or refuses writes. What was asked
	// for may exist; nobody knows.
	errStoreDown = errors.New("store: unavailable")
)

// Store keeps what outlives a request: sessions, the model list, stored
// responses and replay maps. Every method is safe for concurrent use, returns
// within storeTimeout whatever happens to the store behind it, and reports a
// store that can't be reached, or refuses writes, as an error that wraps
// errStoreDown. A context that is cancelled does not cut a call short: the turn
// of a client that has left is still to be recorded, and a connection with half
// an answer in it is of no use. Byte slices handed in are not kept after the call
// returns unless copied; those handed out belong to the caller, who does not
// write to them.
type Store interface {
	// History returns a session's threads, the one written last at the end, in
	// one round trip. Only the threads that pick names have their Turns.
	// errNotFound when the session does not exist.
	History(ctx context.Context, s sessionKey, pick threadPick) (*sessionRecord, error)

	// Append adds a turn to the end of its thread, which it creates when there is
	// none, trims the thread to the newest turns and the session to the newest
	// threads, and restarts the session's time to live: one atomic round trip,
	// whose cost depends on the turn alone. A turn id that the thread holds
	// already changes nothing, so that a call may be repeated after a time-out.
	Append(ctx context.Context, s sessionKey, w threadWrite) error

	// Replace makes the thread consist of the given turns and nothing else, with
	// the same trimming and the same guarantees as Append.
	Replace(ctx context.Context, s sessionKey, w threadWrite) error

	// Delete forgets a session with all its threads; errNotFound when there is none.
	Delete(ctx context.Context, s sessionKey) error

	// Get returns the value of a key that Set wrote, or errNotFound.
	Get(ctx context.Context, key string) ([]byte, error)

	// Set stores a value for at least ttl. The memory store may drop it earlier
	// when its byte limit is reached.
	Set(ctx context.Context, key string, value []byte, ttl time.Duration) error

	// Ping says whether the store can be reached now.
	Ping(ctx context.Context) error

	// Name is "memory" or "redis", as GET /health shows it.
	Name() string

	Close() error
}

// sessionKey names one session. The owner is part of the key, so one key's
// session and another's of the same id have nothing in common.
type sessionKey struct {
	Owner string // hash of the client's key, or anonymousUser
	ID    string // as the client sent it: 1-255 visible ASCII characters
}

// String is the key's form inside a store key. Escaping keeps an id from
// reaching beyond its place, Redis hash tag included.
func (k sessionKey) String() string { return k.Owner + ":" + url.QueryEscape(k.ID) }

// threadPick says which threads of a session come with their turns.
type threadPick struct {
	Kind pickKind
	ID   string // for pickID
}

type pickKind int

const (
	pickNone pickKind = iota // heads alone
	pickID                   // the thread of this ID
	pickLast                 // the thread written last
	pickAll
)

// sessionRecord is a session as it is stored.
type sessionRecord struct {
	Created time.Time
	Updated time.Time
	Threads []thread // the one written last at the end
}

// thread is one conversation of a session (design: sessions, threads).
type thread struct {
	ID      string    // digest of its leading system text; "" when it has none
	System  []byte    // its leading system messages' own JSON, joined by commas; not part of Turns
	Created time.Time // first turn
	Updated time.Time // last turn
	Mark    chainMark // after the last turn
	Turns   []turn    // oldest first; nil when they were not picked
}

// turn is one exchange: the client's new messages and the answer to them.
type turn struct {
	ID      string   // 32 hex digits, unique
	Record  []byte   // the turn's record, JSON; stores do not look inside
	Digests []string // one digest for each message of the turn; only written, never read back
}

// threadWrite is what Append and Replace put into a session.
type threadWrite struct {
	Thread string    // thread ID
	System []byte    // becomes the thread's System; nil keeps what it has
	Turns  []turn    // Append: exactly one
	Base   chainMark // Replace: the mark before the first of Turns; Append goes on from the thread's own
	// Replaces is the ID of a turn whose place the new one takes, if it is still
	// the thread's last: an incomplete turn that the client has sent again. The
	// chain then goes on from before that turn.
	Replaces string
	Time     time.Time
}

// newest is what remains of Turns after trimming to maxTurns.
func (w threadWrite) newest(maxTurns int) []turn {
	return w.Turns[max(0, len(w.Turns)-maxTurns):]
}

// marks returns the marks before the last of Turns and after it, counted from Base.
func (w threadWrite) marks() (before, after chainMark) {
	before, after = w.Base, w.Base
	for _, t := range w.Turns {
		before, after = after, after.after(t.Digests)
	}
	return before, after
}

// fingerprint tells one Replace from another. A store that finds its thread made
// by the same one does nothing, so that a repetition which arrives late leaves
// the turns that were appended meanwhile.
func (w threadWrite) fingerprint() string {
	b := strconv.AppendInt(nil, w.Time.UnixNano(), 10)
	b = strconv.AppendInt(append(b, ' '), int64(w.Base.Messages), 10)
	b = append(append(b, ' '), w.Base.Hash...)
	for _, t := range w.Turns {
		b = append(append(b, ' '), t.ID...)
	}
	sum := sha1.Sum(b)
	return hex.EncodeToString(sum[:])
}

// chainMark is a place in a thread's running hash: how many messages were
// recorded up to it, those trimmed away since included, and the hash over
// their digests. With it, a client that resends its whole history is recognised
// without reading what is stored.
type chainMark struct {
	Messages int
	Hash     string // lower-case hex SHA-1; "" before the first message
}

// next is the mark after one more message. The hash is SHA-1 because Redis
// scripts have it built in; a collision could only mix up the history of the
// client that made it.
func (m chainMark) next(digest string) chainMark {
	sum := sha1.Sum([]byte(m.Hash + digest))
	return chainMark{m.Messages + 1, hex.EncodeToString(sum[:])}
}

// after is the mark after all of the digests.
func (m chainMark) after(digests []string) chainMark {
	for _, d := range digests {
		m = m.next(d)
	}
	return m
}

// storeLimits bound what a store keeps.
type storeLimits struct {
	SessionTTL time.Duration // since the last turn
	MaxTurns   int           // in a thread; the oldest go first
}

// newStore returns the store that the configuration asks for. It does not
// connect: a Redis that is down now may be up when it is needed.
func newStore(cfg *config) (Store, error) {
	limits := storeLimits{SessionTTL: cfg.SessionTTL, MaxTurns: cfg.SessionMaxTurns}
	if cfg.RedisURL == "" {
		return newMemoryStore(cfg.MemoryStoreBytes, limits), nil
	}
	s, err := newRedisStore(string(cfg.RedisURL), cfg.StorePrefix, limits)
	if err != nil {
		return nil, err // not s: a nil pointer in an interface is not nil
	}
	return s, nil
}
