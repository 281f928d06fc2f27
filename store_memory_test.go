package main

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryStore(t *testing.T) {
	testStore(t, func(t *testing.T, limits storeLimits) Store {
		return newMemoryStore(256<<20, limits)
	})
}

// checkMemory compares the store's count of bytes with a recount, and its list
// with its map.
func checkMemory(t *testing.T, m *memoryStore) {
	t.Helper()
	var used int64
	n := 0
	for e := m.ring.next; e != &m.ring; e = e.next {
		n++
		used += e.size
		size := memoryEntrySize(e.key)
		if e.session == nil {
			size += heapSize(len(e.value))
		} else {
			size += memorySessionCost
			for _, th := range e.session.threads {
				size += memoryThreadCost + heapSize(len(th.id)) + heapSize(len(th.system))
				for _, kept := range th.turns {
					size += memoryTurnCost + heapSize(len(kept.id)) + heapSize(len(kept.record))
				}
			}
		}
		if e.size != size || e.next.prev != e || m.entries[e.key] != e {
			t.Fatalf("entry %q: size %d, want %d; linked %t, in map %t", e.key, e.size, size, e.next.prev == e, m.entries[e.key] == e)
		}
	}
	if n != len(m.entries) || used != m.used || used > m.maxBytes {
		t.Fatalf("store counts %d entries and %d bytes, has %d and %d, limit %d", len(m.entries), m.used, n, used, m.maxBytes)
	}
}

func TestMemoryStoreDropsLeastRecentlyUsed(t *testing.T) {
	value := bytes.Repeat([]byte("v"), 1000)
	each := memoryEntrySize(memoryValueKey("1")) + heapSize(len(value))
	m := newMemoryStore(3*each, usualLimits)
	set := func(key string) {
		t.Helper()
		if err := m.Set(t.Context(), key, value, time.Hour); err != nil {
			t.Fatalf("Set(%q) = %v, want nil", key, err)
		}
		checkMemory(t, m)
	}
	want := func(keys string) {
		t.Helper()
		var got []string
		for e := m.ring.prev; e != &m.ring; e = e.prev {
			got = append(got, e.key[1:])
		}
		if strings.Join(got, "") != keys {
			t.Fatalf("the store holds %q, want %q", got, keys)
		}
	}
	set("1")
	set("2")
	set("3")
	want("123")
	set("4")
	want("234")
	wantValue(t, m, "2", string(value))
	set("5")
	want("425")
	set("4")
	set("6")
	want("546")
	mustAppend(t, m, usualKey, testWrite("main", 0, testTurn(0)))
	checkMemory(t, m)
	if _, ok := m.entries[memorySessionKey(usualKey)]; !ok || len(m.entries) == 4 {
		t.Errorf("a session did not take the place of a value: %d entries, session there: %t", len(m.entries), ok)
	}
}

func TestMemoryStoreReadingKeepsSession(t *testing.T) {
	one := testTurn(0)
	one.Record = make([]byte, 10_000)
	m := newMemoryStore(40_000, usualLimits)
	kept := sessionKey{"owner", "kept"}
	mustAppend(t, m, kept, testWrite("main", 0, one))
	for n := range 10 {
		mustAppend(t, m, sessionKey{"owner", fmt.Sprint(n)}, testWrite("main", 0, one))
		mustHistory(t, m, kept)
		checkMemory(t, m)
	}
	if _, err := m.History(t.Context(), sessionKey{"owner", "0"}, threadPick{}); !errors.Is(err, errNotFound) {
		t.Errorf("History() of the session used longest ago = %v, want errNotFound", err)
	}
}

// A session that outgrows the limit goes on with its newest turns.
func TestMemoryStoreLargeSession(t *testing.T) {
	m := newMemoryStore(100_000, usualLimits)
	var all []turn
	for n := range 30 {
		one := testTurn(n)
		one.Record = bytes.Repeat([]byte{byte(n)}, 10_000)
		all = append(all, one)
		mustAppend(t, m, usualKey, testWrite(fmt.Sprint(n/20), n, one))
		checkMemory(t, m)
	}
	th := onlyThread(t, m, usualKey)
	if len(th.Turns) < 7 || len(th.Turns) > 9 {
		t.Fatalf("%d turns of 10 kB fit into 100 kB, want 7 to 9", len(th.Turns))
	}
	wantTurns(t, th, all[30-len(th.Turns):]...)
	wantMark(t, th, chainMark{}, all[20:]...)

	mustReplace(t, m, usualKey, testWrite("main", 40, all...))
	checkMemory(t, m)
	th = onlyThread(t, m, usualKey)
	wantTurns(t, th, all[30-len(th.Turns):]...)
	wantMark(t, th, chainMark{}, all...)
}

func TestMemoryStoreRefusesWhatNeverFits(t *testing.T) {
	const limit = 50_000
	m := newMemoryStore(limit, usualLimits)
	mustAppend(t, m, usualKey, testWrite("main", 0, testTurn(0)))
	if err := m.Set(t.Context(), "key", []byte("value"), time.Hour); err != nil {
		t.Fatalf("Set() = %v, want nil", err)
	}
	large := testTurn(1)
	large.Record = make([]byte, limit)
	system := testWrite("main", 1, testTurn(2))
	system.System = make([]byte, limit)
	for _, tt := range []struct {
		name string
		err  error
	}{
		{"turn", m.Append(t.Context(), usualKey, testWrite("main", 1, large))},
		{"turn of a new session", m.Append(t.Context(), sessionKey{"owner", "new"}, testWrite("main", 1, large))},
		{"system text", m.Append(t.Context(), usualKey, system)},
		{"replacement", m.Replace(t.Context(), usualKey, testWrite("main", 1, testTurn(3), large))},
		{"value", m.Set(t.Context(), "key", make([]byte, limit), time.Hour)},
	} {
		if tt.err == nil || errors.Is(tt.err, errStoreDown) || !strings.Contains(tt.err.Error(), fmt.Sprint(limit)) {
			t.Errorf("%s above the limit: %v, want an error that names the limit %d and does not say that the store is down", tt.name, tt.err, limit)
		}
	}
	checkMemory(t, m)
	wantTurns(t, onlyThread(t, m, usualKey), testTurn(0))
	wantValue(t, m, "key", "value")
}

func TestMemoryStoreExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore(1<<20, storeLimits{SessionTTL: time.Minute, MaxTurns: 5})
		there := func(want bool) {
			t.Helper()
			_, err := m.History(t.Context(), usualKey, threadPick{})
			if got := err == nil; got != want {
				t.Errorf("the session is there: %t, want %t", got, want)
			}
		}
		mustAppend(t, m, usualKey, testWrite("main", 0, testTurn(0)))
		time.Sleep(50 * time.Second)
		mustAppend(t, m, usualKey, testWrite("main", 1, testTurn(1))) // restarts the time to live
		time.Sleep(50 * time.Second)
		there(true) // reading does not
		mustAppend(t, m, usualKey, testWrite("main", 2, testTurn(1)))
		time.Sleep(9 * time.Second)
		there(true)
		time.Sleep(time.Second)
		there(false)
		checkMemory(t, m)
		if m.used != 0 {
			t.Errorf("an empty store counts %d bytes, want 0", m.used)
		}
		// What comes after begins anew.
		mustReplace(t, m, usualKey, testWrite("main", 3, testTurn(1)))
		wantTurns(t, onlyThread(t, m, usualKey), testTurn(1))
	})
}

// Expired entries go although nobody asks for them, wherever they stand in the
// order of use and whatever is written.
func TestMemoryStoreSweep(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(m *memoryStore, n int) error
	}{
		{"value", func(m *memoryStore, n int) error {
			return m.Set(t.Context(), "busy", []byte("x"), time.Hour)
		}},
		{"turn", func(m *memoryStore, n int) error {
			return m.Append(t.Context(), sessionKey{"owner", "busy"}, testWrite("main", n, testTurn(n)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemoryStore(1<<20, usualLimits)
				mustAppend(t, m, usualKey, testWrite("main", 0, testTurn(0)))
				for n := range 1000 {
					ttl := time.Second
					if n%100 == 0 {
						ttl = time.Hour
					}
					if err := m.Set(t.Context(), fmt.Sprint(n), []byte("x"), ttl); err != nil {
						t.Fatalf("Set() = %v, want nil", err)
					}
				}
				time.Sleep(time.Minute)
				for n := range 1000 {
					if err := tt.write(m, n); err != nil {
						t.Fatal(err)
					}
					checkMemory(t, m)
				}
				if got, want := len(m.entries), 1+10+1; got != want {
					t.Errorf("%d entries are left, want %d: those that have not expired", got, want)
				}
			})
		})
	}
}

func TestMemoryStoreRandomUse(t *testing.T) {
	m := newMemoryStore(200_000, storeLimits{time.Hour, 20})
	random := uint32(1)
	next := func(n uint32) int {
		random = random*1664525 + 1013904223
		return int(random >> 8 % n)
	}
	for n := range 20_000 {
		key := sessionKey{"owner", fmt.Sprint(next(60))}
		one := testTurn(next(1000))
		one.Record = make([]byte, next(3000))
		w := testWrite(fmt.Sprint(next(10)), n, one)
		var err error
		switch next(8) {
		case 0:
			err = m.Replace(t.Context(), key, testWrite(w.Thread, n, testTurn(1), one))
		case 1:
			err = m.Delete(t.Context(), key)
		case 2:
			err = m.Set(t.Context(), key.ID, one.Record, time.Duration(next(50))*time.Microsecond)
		case 3:
			_, err = m.Get(t.Context(), key.ID)
		case 4:
			w.System = one.Record
			err = m.Append(t.Context(), key, w)
		default:
			err = m.Append(t.Context(), key, w)
		}
		if err != nil && !errors.Is(err, errNotFound) {
			t.Fatalf("step %d: %v", n, err)
		}
		if n%100 == 0 {
			checkMemory(t, m)
		}
	}
	checkMemory(t, m)
}

// What the store counts is what the process spends, for large and for small
// entries, and for an empty store that has been full.
func TestMemoryStoreHonestCount(t *testing.T) {
	const limit = 6 << 20
	long := strings.Repeat("x", 60)
	for _, tt := range []struct {
		name string
		fill func(m *memoryStore, n int) error
	}{
		{"tiny sessions", func(m *memoryStore, n int) error {
			w := testWrite("", 0, testTurn(n))
			return m.Append(t.Context(), sessionKey{long, fmt.Sprint(n)}, w)
		}},
		{"tiny values", func(m *memoryStore, n int) error {
			return m.Set(t.Context(), fmt.Sprint(n), []byte("{}"), time.Hour)
		}},
		{"long sessions", func(m *memoryStore, n int) error {
			one := testTurn(n)
			one.Record = make([]byte, 700)
			return m.Append(t.Context(), sessionKey{long, fmt.Sprint(n % 300)}, testWrite(fmt.Sprint(n%7), 0, one))
		}},
		{"one session that is trimmed", func(m *memoryStore, n int) error {
			one := testTurn(n)
			one.Record = make([]byte, 110_000)
			return m.Append(t.Context(), usualKey, testWrite("main", 0, one))
		}},
		{"threads made short", func(m *memoryStore, n int) error {
			turns := []turn{testTurn(n)}
			if n%2 == 0 {
				turns = slices.Repeat(turns, 50)
			}
			return m.Replace(t.Context(), sessionKey{long, fmt.Sprint(n / 2)}, testWrite("main", 0, turns...))
		}},
		{"large values", func(m *memoryStore, n int) error {
			return m.Set(t.Context(), fmt.Sprint(n), make([]byte, 100_000), time.Hour)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := heapInUse()
			m := newMemoryStore(limit, usualLimits)
			for n := range 200_000 {
				if err := tt.fill(m, n); err != nil {
					t.Fatal(err)
				}
				if m.used > limit*95/100 && n > 2*len(m.entries) && n > 150 {
					break
				}
			}
			spent := heapInUse() - before
			if m.used < limit*9/10 {
				t.Fatalf("the store counts %d bytes, want it full: %d", m.used, limit)
			}
			if spent > m.used*105/100 || spent < m.used/2 {
				t.Errorf("%d entries take %d bytes, counted as %d", len(m.entries), spent, m.used)
			}
			for len(m.entries) > 0 {
				m.remove(m.ring.prev)
			}
			if spent = heapInUse() - before; spent > 1<<20 {
				t.Errorf("the emptied store takes %d bytes, want less than 1 MiB", spent)
			}
			runtime.KeepAlive(m)
		})
	}
}

func heapInUse() int64 {
	var stats runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

func TestMemoryCosts(t *testing.T) {
	for _, tt := range []struct {
		value any
		cost  int
	}{
		{memoryEntry{}, memoryEntryCost},
		{memorySession{}, memorySessionCost},
		{memoryThread{}, memoryThreadCost},
		{memoryTurn{}, memoryTurnCost},
	} {
		if size := int(reflect.TypeOf(tt.value).Size()); size > tt.cost || tt.cost > 3*size {
			t.Errorf("%T takes %d bytes and is counted as %d", tt.value, size, tt.cost)
		}
	}
}
