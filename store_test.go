package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// testStore checks what the Store interface promises. open returns a store that
// shares nothing with those opened before.
func testStore(t *testing.T, open func(t *testing.T, limits storeLimits) Store) {
	for _, tt := range []struct {
		name   string
		limits storeLimits
		test   func(t *testing.T, s Store)
	}{
		{"append and read", usualLimits, testStoreAppend},
		{"nothing there", usualLimits, testStoreEmpty},
		{"append twice", usualLimits, testStoreAppendTwice},
		{"trim turns", storeLimits{time.Hour, 3}, testStoreTrim},
		{"long thread", storeLimits{time.Hour, 40}, testStoreLongThread},
		{"threads in order", usualLimits, testStoreThreads},
		{"oldest thread goes", usualLimits, testStoreThreadLimit},
		{"system text", usualLimits, testStoreSystem},
		{"incomplete turn", usualLimits, testStoreIncomplete},
		{"replace", usualLimits, testStoreReplace},
		{"replace twice", usualLimits, testStoreReplaceTwice},
		{"replace trims", storeLimits{time.Hour, 2}, testStoreReplaceTrims},
		{"replace with nothing", usualLimits, testStoreReplaceEmpty},
		{"pick", usualLimits, testStorePick},
		{"owners and ids", usualLimits, testStoreKeys},
		{"delete", usualLimits, testStoreDelete},
		{"records keep their bytes", usualLimits, testStoreBytes},
		{"largest turn", usualLimits, testStoreLargest},
		{"slices are copied", usualLimits, testStoreCopies},
		{"many at once", storeLimits{time.Hour, 1000}, testStoreConcurrent},
		{"sessions expire", storeLimits{20 * time.Millisecond, 10}, testStoreSessionExpiry},
		{"get and set", usualLimits, testStoreValues},
		{"values expire", usualLimits, testStoreValueExpiry},
		{"cancelled caller", usualLimits, testStoreCancelled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, tt.limits)
			tt.test(t, s)
			if err := s.Ping(t.Context()); err != nil {
				t.Errorf("Ping() = %v, want nil", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close() = %v, want nil", err)
			}
		})
	}
}

var (
	usualLimits = storeLimits{SessionTTL: time.Hour, MaxTurns: 50}
	usualKey    = sessionKey{Owner: "owner", ID: "session"}
	firstTime   = time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
)

// testTurn is a turn of two messages; equal numbers make equal turns.
func testTurn(n int) turn {
	return turn{
		ID:      fmt.Sprintf("%032x", n),
		Record:  fmt.Appendf(nil, `{"turn":%d}`, n),
		Digests: []string{fmt.Sprintf("question %d", n), fmt.Sprintf("answer %d", n)},
	}
}

// testWrite puts turns into a thread, minute minutes after firstTime.
func testWrite(threadID string, minute int, turns ...turn) threadWrite {
	return threadWrite{Thread: threadID, Turns: turns, Time: firstTime.Add(time.Duration(minute) * time.Minute)}
}

func mustAppend(t *testing.T, s Store, k sessionKey, w threadWrite) {
	t.Helper()
	if err := s.Append(t.Context(), k, w); err != nil {
		t.Fatalf("Append(%q, %s) = %v, want nil", w.Thread, w.Turns[0].ID, err)
	}
}

func mustReplace(t *testing.T, s Store, k sessionKey, w threadWrite) {
	t.Helper()
	if err := s.Replace(t.Context(), k, w); err != nil {
		t.Fatalf("Replace(%q) = %v, want nil", w.Thread, err)
	}
}

func mustHistory(t *testing.T, s Store, k sessionKey) *sessionRecord {
	t.Helper()
	r, err := s.History(t.Context(), k, threadPick{Kind: pickAll})
	if err != nil {
		t.Fatalf("History() = %v, want nil", err)
	}
	return r
}

// onlyThread is the single thread of a session.
func onlyThread(t *testing.T, s Store, k sessionKey) thread {
	t.Helper()
	r := mustHistory(t, s, k)
	if len(r.Threads) != 1 {
		t.Fatalf("session has %d threads, want 1", len(r.Threads))
	}
	return r.Threads[0]
}

func wantTurns(t *testing.T, got thread, want ...turn) {
	t.Helper()
	same := slices.EqualFunc(got.Turns, want, func(a, b turn) bool {
		return a.ID == b.ID && bytes.Equal(a.Record, b.Record)
	})
	if !same {
		t.Errorf("thread %q has turns %s, want %s", got.ID, turnIDs(got.Turns), turnIDs(want))
	}
}

func turnIDs(turns []turn) string {
	var ids []string
	for _, t := range turns {
		ids = append(ids, fmt.Sprintf("%s %.40q", strings.TrimLeft(t.ID, "0"), t.Record))
	}
	return "[" + strings.Join(ids, ", ") + "]"
}

func wantMark(t *testing.T, got thread, base chainMark, turns ...turn) {
	t.Helper()
	want := base
	for _, one := range turns {
		want = want.after(one.Digests)
	}
	if got.Mark != want {
		t.Errorf("thread %q has mark %+v, want %+v", got.ID, got.Mark, want)
	}
}

func threadIDs(r *sessionRecord) string {
	var ids []string
	for _, th := range r.Threads {
		ids = append(ids, th.ID)
	}
	return strings.Join(ids, " ")
}

func testStoreAppend(t *testing.T, s Store) {
	for n := range 3 {
		mustAppend(t, s, usualKey, testWrite("main", n, testTurn(n)))
	}
	r := mustHistory(t, s, usualKey)
	last := firstTime.Add(2 * time.Minute)
	if !r.Created.Equal(firstTime) || !r.Updated.Equal(last) {
		t.Errorf("session is of %v to %v, want %v to %v", r.Created, r.Updated, firstTime, last)
	}
	th := onlyThread(t, s, usualKey)
	if th.ID != "main" || !th.Created.Equal(firstTime) || !th.Updated.Equal(last) {
		t.Errorf("thread %q is of %v to %v, want %q, %v to %v", th.ID, th.Created, th.Updated, "main", firstTime, last)
	}
	wantTurns(t, th, testTurn(0), testTurn(1), testTurn(2))
	wantMark(t, th, chainMark{}, testTurn(0), testTurn(1), testTurn(2))
	if th.Turns[0].Digests != nil {
		t.Errorf("digests %q were read back, want none", th.Turns[0].Digests)
	}
}

func testStoreEmpty(t *testing.T, s Store) {
	if _, err := s.History(t.Context(), usualKey, threadPick{Kind: pickAll}); !errors.Is(err, errNotFound) {
		t.Errorf("History() of no session = %v, want errNotFound", err)
	}
	if err := s.Delete(t.Context(), usualKey); !errors.Is(err, errNotFound) {
		t.Errorf("Delete() of no session = %v, want errNotFound", err)
	}
	if _, err := s.Get(t.Context(), "nothing"); !errors.Is(err, errNotFound) {
		t.Errorf("Get() of no value = %v, want errNotFound", err)
	}
}

func testStoreAppendTwice(t *testing.T, s Store) {
	first, second := testWrite("main", 0, testTurn(0)), testWrite("main", 1, testTurn(1))
	mustAppend(t, s, usualKey, first)
	mustAppend(t, s, usualKey, second)
	first.Time = firstTime.Add(time.Hour)
	mustAppend(t, s, usualKey, second)
	mustAppend(t, s, usualKey, first)
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(0), testTurn(1))
	wantMark(t, th, chainMark{}, testTurn(0), testTurn(1))
	if want := second.Time; !th.Updated.Equal(want) {
		t.Errorf("a repeated turn changed the time of the thread to %v, want %v", th.Updated, want)
	}
	// The same ID in another thread is another turn.
	mustAppend(t, s, usualKey, testWrite("other", 2, testTurn(0)))
	wantTurns(t, mustHistory(t, s, usualKey).Threads[1], testTurn(0))
}

func testStoreTrim(t *testing.T, s Store) {
	var all []turn
	for n := range 10 {
		all = append(all, testTurn(n))
		mustAppend(t, s, usualKey, testWrite("main", n, testTurn(n)))
	}
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, all[7:]...)
	wantMark(t, th, chainMark{}, all...)
	if !th.Created.Equal(firstTime) {
		t.Errorf("trimmed thread was created at %v, want %v", th.Created, firstTime)
	}
}

func testStoreLongThread(t *testing.T, s Store) {
	var all []turn
	for n := range 120 {
		all = append(all, testTurn(n))
		for range 2 {
			mustAppend(t, s, usualKey, testWrite("main", n, testTurn(n)))
		}
	}
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(85)))
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, all[80:]...)
	wantMark(t, th, chainMark{}, all...)
	// A turn that was trimmed away is held no longer.
	mustAppend(t, s, usualKey, testWrite("main", 121, testTurn(79)))
	wantTurns(t, onlyThread(t, s, usualKey), append(all[81:], testTurn(79))...)
}

func testStoreThreads(t *testing.T, s Store) {
	for n, id := range []string{"a", "", "c", "a"} {
		mustAppend(t, s, usualKey, testWrite(id, n, testTurn(n)))
	}
	r := mustHistory(t, s, usualKey)
	if got, want := threadIDs(r), " c a"; got != want {
		t.Fatalf("threads are %q, want %q: the one written last at the end", got, want)
	}
	wantTurns(t, r.Threads[0], testTurn(1))
	wantTurns(t, r.Threads[1], testTurn(2))
	wantTurns(t, r.Threads[2], testTurn(0), testTurn(3))
	wantMark(t, r.Threads[1], chainMark{}, testTurn(2))
	wantMark(t, r.Threads[2], chainMark{}, testTurn(0), testTurn(3))
	// A repeated turn does not make its thread the last one.
	mustAppend(t, s, usualKey, testWrite("c", 9, testTurn(2)))
	if got, want := threadIDs(mustHistory(t, s, usualKey)), " c a"; got != want {
		t.Errorf("after a repeated turn threads are %q, want %q", got, want)
	}
}

func testStoreThreadLimit(t *testing.T, s Store) {
	for n := range maxThreads {
		mustAppend(t, s, usualKey, testWrite(fmt.Sprint(n), n, testTurn(n)))
	}
	mustAppend(t, s, usualKey, testWrite("0", 20, testTurn(20)))
	w := testWrite("new", 21, testTurn(21))
	w.System = []byte("system")
	mustAppend(t, s, usualKey, w)
	if got, want := threadIDs(mustHistory(t, s, usualKey)), "2 3 4 5 6 7 0 new"; got != want {
		t.Fatalf("threads are %q, want %q: the one written longest ago goes", got, want)
	}
	// A thread that went begins anew, Replace counts as a write, too.
	mustReplace(t, s, usualKey, testWrite("1", 22, testTurn(1)))
	r := mustHistory(t, s, usualKey)
	if got, want := threadIDs(r), "3 4 5 6 7 0 new 1"; got != want {
		t.Fatalf("threads are %q, want %q", got, want)
	}
	wantTurns(t, r.Threads[7], testTurn(1))
	wantMark(t, r.Threads[7], chainMark{}, testTurn(1))
	if want := firstTime.Add(22 * time.Minute); !r.Threads[7].Created.Equal(want) {
		t.Errorf("thread that came back was created at %v, want %v", r.Threads[7].Created, want)
	}
	if !r.Created.Equal(firstTime) {
		t.Errorf("session was created at %v, want %v", r.Created, firstTime)
	}
}

func testStoreSystem(t *testing.T, s Store) {
	for n, tt := range []struct {
		write []byte
		want  string
	}{
		{nil, ""},
		{[]byte(`{"role":"system","content":"\u00e9é"}`), `{"role":"system","content":"\u00e9é"}`},
		{nil, `{"role":"system","content":"\u00e9é"}`},
		{[]byte("a\x00b"), "a\x00b"},
		{[]byte{}, ""},
	} {
		w := testWrite("main", n, testTurn(n))
		w.System = tt.write
		if n%2 == 0 {
			mustAppend(t, s, usualKey, w)
		} else {
			mustReplace(t, s, usualKey, w)
		}
		if got := onlyThread(t, s, usualKey).System; string(got) != tt.want {
			t.Errorf("write %d: System = %q, want %q", n, got, tt.want)
		}
	}
}

func testStoreIncomplete(t *testing.T, s Store) {
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	mustAppend(t, s, usualKey, testWrite("main", 1, testTurn(1)))

	again := testWrite("main", 2, testTurn(2))
	again.Replaces = testTurn(1).ID
	for range 2 {
		mustAppend(t, s, usualKey, again)
		th := onlyThread(t, s, usualKey)
		wantTurns(t, th, testTurn(0), testTurn(2))
		wantMark(t, th, chainMark{}, testTurn(0), testTurn(2))
	}

	// The replacement is itself the last turn now, and may be replaced.
	again = testWrite("main", 3, testTurn(3))
	again.Replaces = testTurn(2).ID
	mustAppend(t, s, usualKey, again)
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(3))

	// A turn that is not the last one keeps its place.
	again = testWrite("main", 4, testTurn(4))
	again.Replaces = testTurn(0).ID
	mustAppend(t, s, usualKey, again)
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(0), testTurn(3), testTurn(4))
	wantMark(t, th, chainMark{}, testTurn(0), testTurn(3), testTurn(4))

	// A replaced turn is held no longer, and a thread may consist of one.
	mustAppend(t, s, usualKey, testWrite("main", 5, testTurn(2)))
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(3), testTurn(4), testTurn(2))
	single := sessionKey{"owner", "single"}
	mustAppend(t, s, single, testWrite("main", 0, testTurn(0)))
	again = testWrite("main", 1, testTurn(1))
	again.Replaces = testTurn(0).ID
	mustAppend(t, s, single, again)
	wantTurns(t, onlyThread(t, s, single), testTurn(1))
	wantMark(t, onlyThread(t, s, single), chainMark{}, testTurn(1))
}

func testStoreReplace(t *testing.T, s Store) {
	mustAppend(t, s, usualKey, testWrite("other", 0, testTurn(9)))
	for n := range 3 {
		mustAppend(t, s, usualKey, testWrite("main", n, testTurn(n)))
	}
	// The new turns may be some of the old ones.
	base := chainMark{}.after([]string{"before"})
	edited := testTurn(2)
	edited.Record = []byte("edited")
	w := testWrite("main", 5, testTurn(1), edited, testTurn(7))
	w.Base = base
	mustReplace(t, s, usualKey, w)
	r := mustHistory(t, s, usualKey)
	if got, want := threadIDs(r), "other main"; got != want {
		t.Fatalf("threads are %q, want %q", got, want)
	}
	wantTurns(t, r.Threads[0], testTurn(9))
	wantTurns(t, r.Threads[1], testTurn(1), edited, testTurn(7))
	wantMark(t, r.Threads[1], base, w.Turns...)
	if got, want := r.Threads[1].Created, firstTime; !got.Equal(want) {
		t.Errorf("thread was created at %v, want %v", got, want)
	}
	if got, want := r.Updated, w.Time; !got.Equal(want) {
		t.Errorf("session was written at %v, want %v", got, want)
	}

	// Append goes on from there, in both ways.
	next := testWrite("main", 6, testTurn(8))
	next.Replaces = testTurn(7).ID
	mustAppend(t, s, usualKey, next)
	mustAppend(t, s, usualKey, testWrite("main", 7, testTurn(0)))
	th := mustHistory(t, s, usualKey).Threads[1]
	wantTurns(t, th, testTurn(1), edited, testTurn(8), testTurn(0))
	wantMark(t, th, base, testTurn(1), edited, testTurn(8), testTurn(0))
	mustReplace(t, s, usualKey, testWrite("main", 8, testTurn(1)))
	wantTurns(t, mustHistory(t, s, usualKey).Threads[1], testTurn(1))
}

func testStoreReplaceTwice(t *testing.T, s Store) {
	w := testWrite("main", 0, testTurn(0), testTurn(1))
	mustReplace(t, s, usualKey, w)
	mustAppend(t, s, usualKey, testWrite("main", 1, testTurn(2)))
	mustReplace(t, s, usualKey, w)
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(0), testTurn(1), testTurn(2))
	wantMark(t, th, chainMark{}, testTurn(0), testTurn(1), testTurn(2))
	// The same turns at another time are not a repetition.
	w.Time = w.Time.Add(time.Hour)
	mustReplace(t, s, usualKey, w)
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0), testTurn(1))
}

func testStoreReplaceTrims(t *testing.T, s Store) {
	w := testWrite("main", 0, testTurn(0), testTurn(1), testTurn(2))
	mustReplace(t, s, usualKey, w)
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(1), testTurn(2))
	wantMark(t, th, chainMark{}, w.Turns...)
	mustAppend(t, s, usualKey, testWrite("main", 1, testTurn(3)))
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(2), testTurn(3))
}

func testStoreReplaceEmpty(t *testing.T, s Store) {
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	w := testWrite("main", 1)
	w.Base = chainMark{}.after([]string{"x"})
	mustReplace(t, s, usualKey, w)
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th)
	wantMark(t, th, w.Base)
	next := testWrite("main", 2, testTurn(1))
	next.Replaces = testTurn(0).ID
	mustAppend(t, s, usualKey, next)
	th = onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(1))
	wantMark(t, th, w.Base, testTurn(1))
}

func testStorePick(t *testing.T, s Store) {
	for n, id := range []string{"a", "", "c"} {
		mustAppend(t, s, usualKey, testWrite(id, n, testTurn(n)))
	}
	for _, tt := range []struct {
		pick threadPick
		want []bool // which threads come with their turns
	}{
		{threadPick{Kind: pickNone}, []bool{false, false, false}},
		{threadPick{Kind: pickLast}, []bool{false, false, true}},
		{threadPick{Kind: pickAll}, []bool{true, true, true}},
		{threadPick{Kind: pickID, ID: "a"}, []bool{true, false, false}},
		{threadPick{Kind: pickID}, []bool{false, true, false}},
		{threadPick{Kind: pickID, ID: "b"}, []bool{false, false, false}},
	} {
		r, err := s.History(t.Context(), usualKey, tt.pick)
		if err != nil {
			t.Fatalf("History(%+v) = %v, want nil", tt.pick, err)
		}
		for n, want := range tt.want {
			th := r.Threads[n]
			if got := th.Turns != nil; got != want {
				t.Errorf("History(%+v): thread %q has turns: %t, want %t", tt.pick, th.ID, got, want)
			}
			wantMark(t, th, chainMark{}, testTurn(n))
		}
	}
}

func testStoreKeys(t *testing.T, s Store) {
	keys := []sessionKey{
		{"owner:a", "b"}, {"owner", "a:b"}, {"owner", "a%3Ab"}, {"other", "a:b"},
		{"owner", strings.Repeat("x", 255)}, {"owner", strings.Repeat("x", 254)},
	}
	for _, id := range []string{
		"a", "A", "*", "a*", "?", "{", "}", "{a}", "a}b", "}{", "[a]", `\`, `"`, "'", "a+b", "a%20b", "%",
		"%2B", "..", "../a", "a/b", ":", "::", "$", "KEYS[1]", "m", "h:", "~!@#$^&()",
	} {
		keys = append(keys, sessionKey{"owner", id}, sessionKey{"other", id})
	}
	for n, k := range keys {
		mustAppend(t, s, k, testWrite("main", n, testTurn(n)))
	}
	for n, k := range keys {
		wantTurns(t, onlyThread(t, s, k), testTurn(n))
	}
	for n, k := range keys {
		if err := s.Delete(t.Context(), k); err != nil {
			t.Fatalf("Delete(%q) = %v, want nil", k, err)
		}
		for m, other := range keys[n+1:] {
			if _, err := s.History(t.Context(), other, threadPick{}); err != nil {
				t.Fatalf("after Delete(%q), History(%q) = %v, want nil", k, keys[n+1+m], err)
			}
		}
	}
}

func testStoreDelete(t *testing.T, s Store) {
	other := sessionKey{"owner", "other"}
	for n := range 3 {
		mustAppend(t, s, usualKey, testWrite(fmt.Sprint(n), n, testTurn(n)))
	}
	mustAppend(t, s, other, testWrite("main", 0, testTurn(0)))
	if err := s.Delete(t.Context(), usualKey); err != nil {
		t.Fatalf("Delete() = %v, want nil", err)
	}
	testStoreEmpty(t, s)
	mustAppend(t, s, usualKey, testWrite("1", 5, testTurn(1)))
	th := onlyThread(t, s, usualKey)
	wantTurns(t, th, testTurn(1))
	wantMark(t, th, chainMark{}, testTurn(1))
	wantTurns(t, onlyThread(t, s, other), testTurn(0))
}

func testStoreBytes(t *testing.T, s Store) {
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	for n, record := range []string{
		string(every),
		"", "\x00", "\r\n", "$-1\r\n", "\xff\xfe", "é\u2028😀", `{"n":12345678901234567890,"f":1e2,"u":"\u0000"}`,
	} {
		key := sessionKey{"owner", fmt.Sprint(n)}
		one := turn{ID: testTurn(n).ID, Record: []byte(record), Digests: []string{record, "\x00"}}
		w := testWrite("thread: "+record, n, one)
		w.System = []byte("system: " + record)
		mustAppend(t, s, key, w)
		th := onlyThread(t, s, key)
		wantTurns(t, th, one)
		wantMark(t, th, chainMark{}, one)
		if th.ID != w.Thread || string(th.System) != string(w.System) {
			t.Errorf("thread %q with system %q came back as %q with %q", w.Thread, w.System, th.ID, th.System)
		}
	}
}

func testStoreLargest(t *testing.T, s Store) {
	large := testTurn(0)
	large.Record = bytes.Repeat([]byte("0123456789abcdef"), maxTurnBytes/16)
	mustAppend(t, s, usualKey, testWrite("main", 0, large))
	mustAppend(t, s, usualKey, testWrite("main", 1, testTurn(1)))
	wantTurns(t, onlyThread(t, s, usualKey), large, testTurn(1))
}

func testStoreCopies(t *testing.T, s Store) {
	one := testTurn(0)
	w := testWrite("main", 0, one)
	w.System = []byte("system")
	mustAppend(t, s, usualKey, w)
	w.Thread = "replaced"
	mustReplace(t, s, usualKey, w)
	value := []byte("value")
	if err := s.Set(t.Context(), "key", value, time.Hour); err != nil {
		t.Fatalf("Set() = %v, want nil", err)
	}
	copy(one.Record, "#####")
	copy(w.System, "#####")
	copy(value, "#####")
	for _, th := range mustHistory(t, s, usualKey).Threads {
		wantTurns(t, th, testTurn(0))
		if string(th.System) != "system" {
			t.Errorf("thread %q has system %q, want %q", th.ID, th.System, "system")
		}
	}
	wantValue(t, s, "key", "value")
}

func testStoreConcurrent(t *testing.T, s Store) {
	const writers, each = 20, 15
	var wg sync.WaitGroup
	for writer := range writers {
		wg.Go(func() {
			for n := range each {
				w := testWrite("main", n, testTurn(writer*each+n))
				for range 2 {
					if err := s.Append(t.Context(), usualKey, w); err != nil {
						t.Errorf("Append() = %v, want nil", err)
					}
				}
				if _, err := s.History(t.Context(), usualKey, threadPick{Kind: pickLast}); err != nil {
					t.Errorf("History() = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	th := onlyThread(t, s, usualKey)
	seen := make(map[string]int)
	latest := make(map[int]int) // by writer
	mark := chainMark{}
	for _, got := range th.Turns {
		var n int
		if _, err := fmt.Sscanf(string(got.Record), `{"turn":%d}`, &n); err != nil {
			t.Fatalf("record %q: %v", got.Record, err)
		}
		if before, ok := latest[n/each]; ok && before > n {
			t.Errorf("turn %d stands after turn %d of the same writer", n, before)
		}
		latest[n/each] = n
		seen[got.ID]++
		mark = mark.after(testTurn(n).Digests)
	}
	for n := range writers * each {
		if got := seen[testTurn(n).ID]; got != 1 {
			t.Errorf("turn %d is there %d times, want once", n, got)
		}
	}
	if th.Mark != mark {
		t.Errorf("mark %+v, want %+v: that of the turns in their order", th.Mark, mark)
	}
}

func testStoreSessionExpiry(t *testing.T, s Store) {
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	eventually(t, "expiry of the session", func() bool {
		_, err := s.History(t.Context(), usualKey, threadPick{Kind: pickNone})
		return errors.Is(err, errNotFound)
	})
	if err := s.Delete(t.Context(), usualKey); !errors.Is(err, errNotFound) {
		t.Errorf("Delete() of an expired session = %v, want errNotFound", err)
	}
}

func testStoreValues(t *testing.T, s Store) {
	for _, value := range []string{"one", "two", "", "a\x00\r\n\xff", strings.Repeat("large", 1<<20)} {
		if err := s.Set(t.Context(), "key", []byte(value), time.Hour); err != nil {
			t.Fatalf("Set(%.20q) = %v, want nil", value, err)
		}
		wantValue(t, s, "key", value)
	}
	if err := s.Set(t.Context(), usualKey.String(), []byte("no session"), time.Hour); err != nil {
		t.Fatalf("Set() = %v, want nil", err)
	}
	mustAppend(t, s, usualKey, testWrite("main", 0, testTurn(0)))
	wantValue(t, s, usualKey.String(), "no session")
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0))
}

func testStoreValueExpiry(t *testing.T, s Store) {
	for _, ttl := range []time.Duration{0, time.Nanosecond, 5 * time.Millisecond} {
		if err := s.Set(t.Context(), "short", []byte("x"), ttl); err != nil {
			t.Fatalf("Set(%v) = %v, want nil", ttl, err)
		}
		eventually(t, "expiry of the value", func() bool {
			_, err := s.Get(t.Context(), "short")
			return errors.Is(err, errNotFound)
		})
	}
	// Set gives a key that exists a new time to live.
	for _, ttl := range []time.Duration{time.Millisecond, time.Hour} {
		if err := s.Set(t.Context(), "kept", []byte("x"), ttl); err != nil {
			t.Fatalf("Set(%v) = %v, want nil", ttl, err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	wantValue(t, s, "kept", "x")
}

func testStoreCancelled(t *testing.T, s Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, usualKey, testWrite("main", 0, testTurn(0))); err != nil {
		t.Errorf("Append() for a client that has left = %v, want nil", err)
	}
	if _, err := s.History(ctx, usualKey, threadPick{Kind: pickAll}); err != nil {
		t.Errorf("History() for a client that has left = %v, want nil", err)
	}
	wantTurns(t, onlyThread(t, s, usualKey), testTurn(0))
}

func wantValue(t *testing.T, s Store, key, want string) {
	t.Helper()
	got, err := s.Get(t.Context(), key)
	if err != nil || string(got) != want {
		t.Errorf("Get(%q) = %.40q, %v, want %.40q, nil", key, got, err, want)
	}
}

func TestChainMark(t *testing.T) {
	// The value was computed apart from this code:
	//	printf %s "$(printf %s a | sha1sum | cut -d' ' -f1)b" | sha1sum
	want := chainMark{2, "6cc338ac273f9dd3512457b19c0eab73b1736aca"}
	if got := (chainMark{}).after([]string{"a", "b"}); got != want {
		t.Errorf("mark after a and b = %+v, want %+v", got, want)
	}
}

func TestThreadWriteMarks(t *testing.T) {
	base := chainMark{}.after([]string{"x"})
	for _, tt := range []struct {
		name   string
		turns  []turn
		before []string
		after  []string
	}{
		{"no turn", nil, nil, nil},
		{"one turn", []turn{{Digests: []string{"a", "b"}}}, nil, []string{"a", "b"}},
		{"two turns", []turn{{Digests: []string{"a", "b"}}, {Digests: []string{"c"}}}, []string{"a", "b"}, []string{"a", "b", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, after := threadWrite{Base: base, Turns: tt.turns}.marks()
			if want := base.after(tt.before); before != want {
				t.Errorf("before = %+v, want %+v", before, want)
			}
			if want := base.after(tt.after); after != want {
				t.Errorf("after = %+v, want %+v", after, want)
			}
		})
	}
}

func TestNewStore(t *testing.T) {
	for _, tt := range []struct {
		name, redisURL, want, wantErr string
	}{
		{"no address", "", "memory", ""},
		{"redis that is not there", "redis://127.0.0.1:1", "redis", ""},
		{"wrong address", "http://user:hidden@host", "", "REDIS_URL: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := newStore(&config{RedisURL: secret(tt.redisURL), MemoryStoreBytes: 1 << 20, SessionTTL: time.Hour, SessionMaxTurns: 5})
			if tt.wantErr != "" {
				if s != nil || err == nil || !strings.HasPrefix(err.Error(), tt.wantErr) || strings.Contains(err.Error(), "hidden") {
					t.Fatalf("newStore() = %v, %v, want an error that begins with %q and shows no password", s, err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("newStore() = %v, want nil", err)
			}
			if got := s.Name(); got != tt.want {
				t.Errorf("Name() = %q, want %q", got, tt.want)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close() = %v, want nil", err)
			}
		})
	}
}

// BenchmarkStoreAppend appends to threads that are full, so that each turn drops
// another one. The time must not depend on the number of turns.
func BenchmarkStoreAppend(b *testing.B) {
	for _, store := range []struct {
		name string
		open func(b *testing.B, limits storeLimits) Store
	}{
		{"memory", func(b *testing.B, limits storeLimits) Store { return newMemoryStore(1<<30, limits) }},
		{"redis", openRedisBenchmark},
	} {
		for _, turns := range []int{10, 1000} {
			b.Run(fmt.Sprintf("store=%s/turns=%d", store.name, turns), func(b *testing.B) {
				s := store.open(b, storeLimits{time.Hour, turns})
				if s == nil {
					return
				}
				defer s.Close()
				record := bytes.Repeat([]byte("x"), 2<<10)
				n := 0
				next := func() {
					one := testTurn(n)
					one.Record = record
					n++
					if err := s.Append(b.Context(), usualKey, testWrite("main", 0, one)); err != nil {
						b.Fatal(err)
					}
				}
				for range turns {
					next()
				}
				b.ReportAllocs()
				b.SetBytes(int64(len(record)))
				for b.Loop() {
					next()
				}
			})
		}
	}
}
