package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"
)

// redisStore is the Store that several gateways share. A session is one hash, so
// it lives, expires and is evicted as a whole:
//
//	m             created, updated, thread IDs (the one written last at the end)
//	h:THREAD      head: times, marks, first and last place of its turns
//	s:THREAD      leading system text
//	n:PLACE:THREAD  turn ID
//	t:ID:THREAD   the turn's record
//
// m and h:… are MessagePack, which Redis scripts read and write; records and
// system texts are the caller's bytes.
//
// A command that is cut off, by a time-out or a lost connection, takes its
// connection with it: the next borrower must not read someone else's answer.
type redisStore struct {
	address *redisAddress // a pointer, so that printing the store shows no password
	prefix  string        // of every key
	limits  storeLimits
	timeout time.Duration // storeTimeout; shorter in tests
	slots   chan struct{} // one for each connection in use
	pool    *redis.Pool
	breaker breaker
}

var _ Store = (*redisStore)(nil)

// Pool sizes. A gateway's calls are short, so that few connections carry many
// requests; the limit protects Redis from a burst.
const (
	redisMaxConns    = 64
	redisIdleTimeout = 4 * time.Minute
	redisTestAfter   = 10 * time.Second // idle time after which a connection is tried before use
)

// errConnLost: the connection broke, and not because time ran out. Whether Redis
// carried out the command is unknown. All commands here may be repeated.
var errConnLost = errors.New("connection lost")

// newRedisStore returns a store on the Redis that rawURL names (see
// parseRedisURL). It does not connect.
func newRedisStore(rawURL, prefix string, limits storeLimits) (*redisStore, error) {
	address, err := parseRedisURL(rawURL)
	if err != nil {
		return nil, fmt.Errorf("REDIS_URL: %w", err)
	}
	s := &redisStore{
		address: address,
		prefix:  prefix,
		limits:  limits,
		timeout: storeTimeout,
		slots:   make(chan struct{}, redisMaxConns),
	}
	s.pool = &redis.Pool{
		DialContext:         s.dial,
		TestOnBorrowContext: s.test,
		MaxIdle:             redisMaxConns,
		IdleTimeout:         redisIdleTimeout,
	}
	return s, nil
}

func (s *redisStore) History(ctx context.Context, k sessionKey, pick threadPick) (*sessionRecord, error) {
	kind := map[pickKind]string{pickNone: "none", pickID: "id", pickLast: "last", pickAll: "all"}[pick.Kind]
	reply, err := s.eval(ctx, redisHistory, s.sessionKey(k), kind, pick.ID)
	if err != nil {
		return nil, err
	}
	if reply == nil {
		return nil, errNotFound
	}
	record, err := readSession(reply)
	if err != nil {
		return nil, s.down(err)
	}
	return record, nil
}

func (s *redisStore) Append(ctx context.Context, k sessionKey, w threadWrite) error {
	t := w.Turns[0]
	args := s.writeArgs(k, w, w.Replaces, t.ID, t.Record)
	for _, d := range t.Digests {
		args = append(args, d)
	}
	_, err := s.eval(ctx, redisAppend, args...)
	return err
}

// Replace computes the marks here: unlike Append's they don't depend on what is
// stored.
func (s *redisStore) Replace(ctx context.Context, k sessionKey, w threadWrite) error {
	before, after := w.marks()
	args := s.writeArgs(k, w, w.fingerprint(), before.Messages, before.Hash, after.Messages, after.Hash)
	for _, t := range w.newest(s.limits.MaxTurns) {
		args = append(args, t.ID, t.Record)
	}
	_, err := s.eval(ctx, redisReplace, args...)
	return err
}

func (s *redisStore) Delete(ctx context.Context, k sessionKey) error {
	n, err := s.do(ctx, "UNLINK", s.sessionKey(k))
	if err == nil && n == int64(0) {
		return errNotFound
	}
	return err
}

func (s *redisStore) Get(ctx context.Context, key string) ([]byte, error) {
	reply, err := s.do(ctx, "GET", s.prefix+key)
	if err != nil {
		return nil, err
	}
	if reply == nil {
		return nil, errNotFound
	}
	value, err := redis.Bytes(reply, nil)
	if err != nil {
		return nil, s.down(err)
	}
	return value, nil
}

func (s *redisStore) Set(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	_, err := s.do(ctx, "SET", s.prefix+key, value, "PX", milliseconds(ttl))
	return err
}

// Ping asks Redis even while other calls are not let through, and lets them
// through again when it answers.
func (s *redisStore) Ping(ctx context.Context) error {
	_, err := s.attempt(ctx, func(ctx context.Context, c redis.Conn) (any, error) {
		return redis.DoContext(c, ctx, "PING")
	})
	return err
}

func (s *redisStore) Name() string { return "redis" }

func (s *redisStore) Close() error { return s.pool.Close() }

// sessionKey carries a hash tag, which keeps a session in one slot of a cluster
// should it ever need a second key.
func (s *redisStore) sessionKey(k sessionKey) string {
	return s.prefix + "session:{" + k.String() + "}"
}

// writeArgs are the key and the arguments that both writing scripts begin with.
func (s *redisStore) writeArgs(k sessionKey, w threadWrite, more ...any) []any {
	keepSystem := w.System == nil
	args := []any{
		s.sessionKey(k), w.Thread, w.Time.UnixNano(), milliseconds(s.limits.SessionTTL),
		s.limits.MaxTurns, maxThreads, keepSystem, w.System,
	}
	return append(args, more...)
}

func (s *redisStore) do(ctx context.Context, command string, args ...any) (any, error) {
	return s.call(ctx, func(ctx context.Context, c redis.Conn) (any, error) {
		return redis.DoContext(c, ctx, command, args...)
	})
}

// eval runs a script by its hash, and by its text on a Redis that does not know
// it yet.
func (s *redisStore) eval(ctx context.Context, script *redis.Script, keyAndArgs ...any) (any, error) {
	return s.call(ctx, func(ctx context.Context, c redis.Conn) (any, error) {
		return script.DoContext(ctx, c, keyAndArgs...)
	})
}

// call does not try a Redis that has just failed to answer.
func (s *redisStore) call(ctx context.Context, command func(context.Context, redis.Conn) (any, error)) (any, error) {
	if !s.breaker.allows() {
		return nil, fmt.Errorf("%w: redis failed a moment ago and is not asked again yet", errStoreDown)
	}
	return s.attempt(ctx, command)
}

// attempt runs command within the time-out. A lost connection gets a second
// chance: after Redis was restarted, every pooled connection is a dead one.
func (s *redisStore) attempt(ctx context.Context, command func(context.Context, redis.Conn) (any, error)) (any, error) {
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
	defer cancel()
	reply, err := s.once(ctx, command)
	if errors.Is(err, errConnLost) {
		s.breaker.lost()
		if reply, err = s.once(ctx, command); errors.Is(err, errConnLost) {
			s.breaker.failed(started)
		}
	}
	if err != nil {
		return nil, s.down(err)
	}
	return reply, nil
}

// once waits for a slot here and not in the pool, which panics when it is closed
// at the moment in which a waiter's time runs out.
func (s *redisStore) once(ctx context.Context, command func(context.Context, redis.Conn) (any, error)) (any, error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("none of %d connections became free in time", cap(s.slots))
	}
	c, err := s.pool.GetContext(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return command(ctx, c)
}

// failed tells the breaker of something that did not work out, unless it had
// little time: a call that waited long for a free connection says nothing about
// Redis.
func (s *redisStore) failed(ctx context.Context, started time.Time) {
	if deadline, _ := ctx.Deadline(); deadline.Sub(started) >= s.timeout/2 {
		s.breaker.failed(started)
	}
}

// test is asked about an idle connection before it is used. Those that were
// there when another one was lost are suspects.
func (s *redisStore) test(ctx context.Context, c redis.Conn, lastUsed time.Time) error {
	if time.Since(lastUsed) < redisTestAfter && !s.breaker.suspects(lastUsed) {
		return nil
	}
	_, err := redis.DoContext(c, ctx, "PING")
	return err
}

// dial opens a connection for the pool.
func (s *redisStore) dial(ctx context.Context) (redis.Conn, error) {
	started := time.Now()
	sock, err := s.address.connect(ctx)
	if err != nil {
		s.failed(ctx, started)
		return nil, err
	}
	c := &redisConn{
		ConnWithContext: redis.NewConn(sock, 0, 0).(redis.ConnWithContext),
		sock:            sock,
		store:           s,
	}
	if err := s.address.login(ctx, c); err != nil {
		c.Close()
		s.failed(ctx, started)
		return nil, err
	}
	return c, nil
}

// down is the error that callers see. Of what Redis said, the part is left out
// that quotes the command's arguments.
func (s *redisStore) down(err error) error {
	text, _, _ := strings.Cut(err.Error(), ", with args beginning with")
	return fmt.Errorf("%w: redis: %s", errStoreDown, text)
}

// redisFacts are what a Redis tells of itself, by its own names: the fields of
// INFO, and parameters of CONFIG, which hosts often forbid or rename.
type redisFacts struct {
	values  map[string]string
	refused []string // commands
}

// facts asks for what decides whether sessions last.
func (s *redisStore) facts(ctx context.Context) (*redisFacts, error) {
	var f *redisFacts
	_, err := s.attempt(ctx, func(ctx context.Context, c redis.Conn) (any, error) {
		f = &redisFacts{values: map[string]string{}}
		info, err := redis.String(redis.DoContext(c, ctx, "INFO"))
		if err := f.note("INFO", err); err != nil {
			return nil, err
		}
		for line := range strings.Lines(info) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				f.values[name] = value
			}
		}
		for _, name := range []string{"appendonly", "appendfsync", "save", "maxmemory", "maxmemory-policy"} {
			pair, err := redis.Strings(redis.DoContext(c, ctx, "CONFIG", "GET", name))
			if err != nil {
				return nil, f.note("CONFIG", err)
			}
			if len(pair) == 2 {
				f.values[name] = pair[1]
			}
		}
		return nil, nil
	})
	return f, err
}

// note takes an error that Redis answered with for a refusal; any other remains
// one.
func (f *redisFacts) note(command string, err error) error {
	var reply redis.Error
	if errors.As(err, &reply) {
		f.refused = append(f.refused, command)
		return nil
	}
	return err
}

// first is the first of these that Redis told.
func (f *redisFacts) first(names ...string) (value string, known bool) {
	for _, name := range names {
		if value, known = f.values[name]; known {
			return value, true
		}
	}
	return "", false
}

// appends says whether there is an append-only file.
func (f *redisFacts) appends() (yes, known bool) {
	value, known := f.first("appendonly", "aof_enabled")
	return value == "yes" || value == "1", known
}

// milliseconds rounds up: a value has to live for at least d, and Redis takes no
// time to live of nothing.
func milliseconds(d time.Duration) int64 {
	return max(1, int64((d+time.Millisecond-1)/time.Millisecond))
}

// The scripts. KEYS[1] is the session; its fields are listed at redisStore.
// Times travel as text, for a Lua number has room for 53 bits. In each, the first
// command that writes is one that Redis refuses when it is read-only or out of
// memory, so that a script is carried out whole or not at all.
var (
	redisAppend  = redis.NewScript(1, redisWriteHead+redisAppendBody)
	redisReplace = redis.NewScript(1, redisWriteHead+redisReplaceBody)
	redisHistory = redis.NewScript(1, redisHistoryBody)
)

// redisWriteHead is what both writing scripts begin with.
const redisWriteHead = `
local key = KEYS[1]
local thread, now, ttl = ARGV[1], ARGV[2], ARGV[3]
local max_turns, max_threads = tonumber(ARGV[4]), tonumber(ARGV[5])
local keep_system, system = ARGV[6] == '1', ARGV[7]

local function load(t)
  local packed = redis.call('HGET', key, 'h:' .. t)
  return packed and cmsgpack.unpack(packed)
end

-- drop removes the turns of thread t at the places from first to last.
local function drop(t, first, last)
  for place = first, last do
    local field = 'n:' .. place .. ':' .. t
    redis.call('HDEL', key, 't:' .. redis.call('HGET', key, field) .. ':' .. t, field)
  end
end

local function put(place, id, record)
  redis.call('HSET', key, 'n:' .. place .. ':' .. thread, id, 't:' .. id .. ':' .. thread, record)
end

local function save(head)
  head.updated = now
  redis.call('HSET', key, 'h:' .. thread, cmsgpack.pack(head))
  if not keep_system then
    redis.call('HSET', key, 's:' .. thread, system)
  end
end

-- finish makes the thread the one written last, removes those beyond the limit
-- and restarts the time to live.
local function finish()
  local packed = redis.call('HGET', key, 'm')
  local session = packed and cmsgpack.unpack(packed) or {created = now, threads = {}}
  local threads = {}
  for _, t in ipairs(session.threads) do
    if t ~= thread then threads[#threads + 1] = t end
  end
  threads[#threads + 1] = thread
  while #threads > max_threads do
    local t = table.remove(threads, 1)
    local head = load(t)
    drop(t, head.first, head.last)
    redis.call('HDEL', key, 'h:' .. t, 's:' .. t)
  end
  redis.call('HSET', key, 'm', cmsgpack.pack({created = session.created, updated = now, threads = threads}))
  redis.call('PEXPIRE', key, ttl)
end
`

// redisAppendBody has the further arguments replaces, id, record, digest….
const redisAppendBody = `
local replaces, id, record = ARGV[8], ARGV[9], ARGV[10]
if redis.call('HEXISTS', key, 't:' .. id .. ':' .. thread) == 1 then
  return 0
end
local head = load(thread) or {created = now, messages = 0, hash = '', first = 1, last = 0}
local place, gone = head.last + 1, nil
if replaces ~= '' and redis.call('HGET', key, 'n:' .. head.last .. ':' .. thread) == replaces then
  place, gone = head.last, replaces
  head.messages, head.hash = head.messages_before, head.hash_before
end
head.messages_before, head.hash_before = head.messages, head.hash
for i = 11, #ARGV do
  head.messages = head.messages + 1
  head.hash = redis.sha1hex(head.hash .. ARGV[i])
end
put(place, id, record)
if gone then
  redis.call('HDEL', key, 't:' .. gone .. ':' .. thread)
end
local first = head.first
head.first, head.last = math.max(first, place - max_turns + 1), place
drop(thread, first, head.first - 1)
save(head)
finish()
return 1
`

// redisReplaceBody has the further arguments fingerprint, messages and hash
// before the last turn, messages and hash after it, then id and record of each
// turn. Old turns go before new ones are put: they may have the same IDs.
const redisReplaceBody = `
local old = load(thread) or {created = now, first = 1, last = 0}
if old.replaced == ARGV[8] then
  return 0
end
local turns = (#ARGV - 12) / 2
save({
  created = old.created, replaced = ARGV[8],
  messages_before = tonumber(ARGV[9]), hash_before = ARGV[10],
  messages = tonumber(ARGV[11]), hash = ARGV[12],
  first = old.last + 1, last = old.last + turns,
})
drop(thread, old.first, old.last)
for i = 1, turns do
  put(old.last + i, ARGV[11 + 2 * i], ARGV[12 + 2 * i])
end
finish()
return 1
`

// redisHistoryBody has the arguments "none", "id", "last" or "all", and the ID. Its
// answer is what readSession reads.
const redisHistoryBody = `
local key, pick, wanted = KEYS[1], ARGV[1], ARGV[2]
local packed = redis.call('HGET', key, 'm')
if not packed then
  return false
end
local session = cmsgpack.unpack(packed)
local threads = {}
for i, t in ipairs(session.threads) do
  local head = cmsgpack.unpack(redis.call('HGET', key, 'h:' .. t))
  local turns = false
  if pick == 'all' or (pick == 'id' and t == wanted) or (pick == 'last' and i == #session.threads) then
    turns = {}
    for place = head.first, head.last do
      local id = redis.call('HGET', key, 'n:' .. place .. ':' .. t)
      turns[#turns + 1] = {id, redis.call('HGET', key, 't:' .. id .. ':' .. t)}
    end
  end
  threads[i] = {t, redis.call('HGET', key, 's:' .. t), head.created, head.updated, head.messages, head.hash, turns}
end
return {session.created, session.updated, threads}
`

// readSession reads the answer of redisHistory.
func readSession(reply any) (*sessionRecord, error) {
	var err error
	outer := redisReply{[]any{reply}, &err}
	r := outer.list()
	s := &sessionRecord{Created: r.time(), Updated: r.time()}
	for threads := r.list(); threads.more(); {
		s.Threads = append(s.Threads, readThread(threads.list()))
	}
	return s, err
}

func readThread(r redisReply) thread {
	t := thread{
		ID:      string(r.bytes()),
		System:  r.bytes(),
		Created: r.time(),
		Updated: r.time(),
		Mark:    chainMark{int(r.number()), string(r.bytes())},
	}
	turns := r.list()
	if turns.values != nil {
		t.Turns = make([]turn, 0, len(turns.values))
	}
	for turns.more() {
		one := turns.list()
		t.Turns = append(t.Turns, turn{ID: string(one.bytes()), Record: one.bytes()})
	}
	return t
}

// redisReply takes one value after the other from an array. What is missing or
// of another type reads as zero and is noted in err.
type redisReply struct {
	values []any
	err    *error
}

func (r *redisReply) more() bool { return len(r.values) > 0 }

func (r *redisReply) next() any {
	if len(r.values) == 0 {
		*r.err = errors.New("the answer of a script is too short")
		return nil
	}
	v := r.values[0]
	r.values = r.values[1:]
	return v
}

func (r *redisReply) bytes() []byte {
	switch v := r.next().(type) {
	case []byte:
		return v
	case nil:
	default:
		r.unexpected(v)
	}
	return nil
}

func (r *redisReply) number() int64 {
	v := r.next()
	n, ok := v.(int64)
	if !ok {
		r.unexpected(v)
	}
	return n
}

// time reads Unix time in nanoseconds, written as text.
func (r *redisReply) time() time.Time {
	text := r.bytes()
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		r.unexpected(text)
	}
	return time.Unix(0, n).UTC()
}

func (r *redisReply) list() redisReply {
	switch v := r.next().(type) {
	case []any:
		return redisReply{v, r.err}
	case nil:
	default:
		r.unexpected(v)
	}
	return redisReply{nil, r.err}
}

func (r *redisReply) unexpected(v any) {
	*r.err = fmt.Errorf("a script answered with an unexpected %T", v)
}

// redisConn is a connection in the pool. Its calls end at the context's deadline
// and tell the breaker how they went.
type redisConn struct {
	redis.ConnWithContext
	sock  *redisSocket
	store *redisStore
}

// DoContext takes the deadline of the context and not its cancellation. redigo's
// own starts a goroutine for each command, which may still read the arguments
// after it has returned.
func (c *redisConn) DoContext(ctx context.Context, command string, args ...any) (any, error) {
	started := time.Now()
	deadline, _ := ctx.Deadline()
	if err := c.sock.begin(deadline); err != nil {
		return nil, fmt.Errorf("%w: %v", errConnLost, err)
	}
	reply, err := c.Do(command, args...)
	if c.Err() == nil {
		c.store.breaker.succeeded()
		return reply, err
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, fmt.Errorf("%w: %v", errConnLost, err)
	}
	// An answer that was coming in is only a large one; it says nothing against
	// Redis, and one client's huge session must not shut out the others.
	if !c.sock.answered {
		c.store.failed(ctx, started)
	}
	return nil, err
}

// redisSocket is a connection with one deadline for a whole call.
type redisSocket struct {
	net.Conn
	raw      net.Conn // beneath TLS
	answered bool     // something was read since begin
}

func (s *redisSocket) begin(deadline time.Time) error {
	s.answered = false
	return s.Conn.SetDeadline(deadline)
}

// SetReadDeadline does nothing: redigo sets one for each reply, which would undo
// the call's.
func (s *redisSocket) SetReadDeadline(time.Time) error { return nil }

func (s *redisSocket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.answered = s.answered || n > 0
	return n, err
}

// Close leaves out TLS's farewell, which may wait seconds for a peer that hangs.
func (s *redisSocket) Close() error { return s.raw.Close() }

// breaker keeps calls from waiting for a Redis that does not answer. After a
// failure none is let through for a while, then one; when that one fails, the
// while is longer. Any answer ends it.
type breaker struct {
	mu       sync.Mutex // guards what follows
	failures int        // in a row
	failedAt time.Time  // the last of them
	retryAt  time.Time
	lostAt   time.Time // when a connection was last lost
}

// How long calls are not let through: the first time, and at most.
const (
	breakerFirst = time.Second
	breakerMost  = 5 * time.Second
)

// allows says whether a call may be made now. Once the wait is over, only the
// first to ask may, until its outcome is known.
func (b *breaker) allows() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures == 0 {
		return true
	}
	now := time.Now()
	if now.Before(b.retryAt) {
		return false
	}
	b.retryAt = now.Add(storeTimeout)
	return true
}

func (b *breaker) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failures = 0
}

// failed reports that a call got no answer. Of several that were under way
// together only the first counts.
func (b *breaker) failed(began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if began.Before(b.failedAt) {
		return
	}
	b.failedAt = time.Now()
	b.lostAt = b.failedAt
	b.retryAt = b.failedAt.Add(min(breakerFirst<<min(b.failures, 10), breakerMost))
	b.failures++
}

// lost reports that a connection broke, which makes its neighbours suspect.
func (b *breaker) lost() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lostAt = time.Now()
}

// suspects says whether a connection used last at that time may have been broken
// since.
func (b *breaker) suspects(lastUsed time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !lastUsed.After(b.lostAt)
}

// redisAddress is where a Redis is and what to tell it first.
type redisAddress struct {
	network  string // "tcp" or "unix"
	address  string
	user     string
	password secret // "" = none
	database int
	tls      *tls.Config // nil = plain
}

const redisURLForms = `accepted are redis://[[user]:password@]host[:port][/database], rediss://… for TLS and unix://[[user]:password@]/path[?db=database]; in a password, / ? # @ : and % are written %2F %3F %23 %40 %3A %25`

// parseRedisURL reads an address of the forms that redisURLForms names. A user
// without a password is taken for a password, as redis-cli does. Errors quote
// nothing: what went wrong may be a password.
func parseRedisURL(rawURL string) (*redisAddress, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Fragment != "" || u.Opaque != "" {
		return nil, errors.New("not a valid address; " + redisURLForms)
	}
	a := &redisAddress{}
	switch u.Scheme {
	case "redis":
		err = a.readHost(u)
	case "rediss":
		a.tls = &tls.Config{MinVersion: tls.VersionTLS12}
		err = a.readHost(u)
	case "unix":
		err = a.readPath(u)
	default:
		err = errors.New("unknown or no scheme; " + redisURLForms)
	}
	if err != nil {
		return nil, err
	}
	if u.User != nil {
		password, ok := u.User.Password()
		if ok {
			a.user, a.password = u.User.Username(), secret(password)
		} else {
			a.password = secret(u.User.Username())
		}
	}
	return a, nil
}

// String leaves out user and password.
func (a *redisAddress) String() string { return a.address }

// readHost reads an address with a host and the database in the path or in the
// query.
func (a *redisAddress) readHost(u *url.URL) error {
	host, port := u.Hostname(), u.Port()
	if strings.ContainsAny(host, "[]") {
		return errors.New("not a valid address; " + redisURLForms)
	}
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "6379"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port is not a number from 1 to 65535")
	}
	a.network, a.address = "tcp", net.JoinHostPort(host, port)
	if a.tls != nil {
		a.tls.ServerName = host
	}
	path := strings.Trim(u.Path, "/")
	if path != "" && u.RawQuery != "" {
		return errors.New("the database is given twice, in the path and behind the question mark")
	}
	if path != "" {
		return a.readDatabase(path)
	}
	return a.readQuery(u)
}

// readPath reads an address whose path is that of a socket.
func (a *redisAddress) readPath(u *url.URL) error {
	if u.Host != "" || len(u.Path) < 2 {
		return errors.New("a socket's path begins with a slash: unix:///run/redis.sock; " + redisURLForms)
	}
	a.network, a.address = "unix", u.Path
	return a.readQuery(u)
}

func (a *redisAddress) readQuery(u *url.URL) error {
	if u.RawQuery == "" {
		return nil
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil || len(q) != 1 || len(q["db"]) != 1 {
		return errors.New("only db=NUMBER may stand behind the question mark")
	}
	return a.readDatabase(q.Get("db"))
}

func (a *redisAddress) readDatabase(text string) error {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return errors.New("the database is not a number; " + redisURLForms)
	}
	a.database = int(n)
	return nil
}

// connect opens the socket, TLS included.
func (a *redisAddress) connect(ctx context.Context) (*redisSocket, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, a.network, a.address)
	if err != nil {
		return nil, err
	}
	if a.tls == nil {
		return &redisSocket{Conn: raw, raw: raw}, nil
	}
	secured := tls.Client(raw, a.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return &redisSocket{Conn: secured, raw: raw}, nil
}

// login sends password and database. Of an answer to the password only the first
// word is kept: a Redis that does not know AUTH repeats its arguments.
func (a *redisAddress) login(ctx context.Context, c *redisConn) error {
	if a.password != "" {
		args := []any{string(a.password)}
		if a.user != "" {
			args = []any{a.user, string(a.password)}
		}
		if _, err := c.DoContext(ctx, "AUTH", args...); err != nil {
			var reply redis.Error
			if errors.As(err, &reply) {
				code, _, _ := strings.Cut(string(reply), " ")
				return fmt.Errorf("the password was refused: %s", code)
			}
			return fmt.Errorf("sending the password: %v", err)
		}
	}
	if a.database != 0 {
		if _, err := c.DoContext(ctx, "SELECT", a.database); err != nil {
			return fmt.Errorf("selecting database %d: %v", a.database, err)
		}
	}
	return nil
}
