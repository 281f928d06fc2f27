package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The checks of the store.

// slowStore is the round trip from which the store is felt in every turn.
const slowStore = 20 * time.Millisecond

func (d *doctor) checkStore(ctx context.Context) finding {
	r, ok := d.store.(*redisStore)
	if !ok {
		return warned("in memory: sessions and stored responses end with the process", "set REDIS_URL to keep them, and to share them between gateways")
	}
	var took []time.Duration
	for range 5 {
		began := time.Now()
		if err := r.Ping(ctx); err != nil {
			return failed(d.said(err.Error()), redisAdvice(err))
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	usual := took[len(took)/2]
	if err := tryStore(ctx, r); err != nil {
		return failed("it answers, but a session can't be kept: "+d.said(err.Error()), redisAdvice(err))
	}
	found := fmt.Sprintf("round trip %s; a session was written, read and deleted", roughly(usual))
	if usual > slowStore {
		return warned(found, "bring Redis nearer to the gateway: each turn of a session waits for it twice")
	}
	return passed("%s", found)
}

// tryStore keeps a session of its own for a moment, by the scripts that all
// sessions go through.
func tryStore(ctx context.Context, store Store) error {
	key := sessionKey{Owner: "doctor", ID: newID("doctor-")}
	record := []byte(`{"doctor":true}`)
	err := store.Append(ctx, key, threadWrite{Turns: []turn{{ID: randomHex(16), Record: record}}, Time: time.Now()})
	if err != nil {
		return err
	}
	kept, err := store.History(ctx, key, threadPick{Kind: pickAll})
	if err == nil && (len(kept.Threads) != 1 || len(kept.Threads[0].Turns) != 1 || !bytes.Equal(kept.Threads[0].Turns[0].Record, record)) {
		err = errors.New("what was read is not what was written")
	}
	return errors.Join(err, store.Delete(ctx, key))
}

// redisAdvice says what to do about what Redis, or the way to it, says.
func redisAdvice(err error) string {
	said := err.Error()
	for _, known := range []struct{ part, advice string }{
		{"password was refused", "correct user and password in REDIS_URL"},
		{"NOAUTH", "put the password into REDIS_URL: redis://:PASSWORD@HOST:PORT"},
		{"NOPERM", "let this user of Redis run every command that the message names"},
		{"READONLY", "this Redis is a replica: set REDIS_URL to the primary"},
		{"MISCONF", "Redis can't write to its disk, and refuses writes: look at its log"},
		{"OOM", "Redis is full: raise maxmemory"},
		{"LOADING", "Redis is still loading its data: wait a little"},
		{"certificate", "for rediss://, the certificate must be made out to the host in REDIS_URL; SSL_CERT_FILE names an authority of your own"},
		{"first record does not look like a TLS", "this port has no TLS: REDIS_URL must begin with redis://"},
		{"connection lost", "REDIS_URL may have to begin with rediss:// (TLS)"},
	} {
		if strings.Contains(said, known.part) {
			return known.advice
		}
	}
	return "start Redis, or correct host and port in REDIS_URL; until then, sessions answer 503"
}

// redisFacts are nil without a Redis that answers; then there is a finding that
// says so, or nothing to find.
func (d *doctor) redisFacts(ctx context.Context) (*redisFacts, finding) {
	r, ok := d.store.(*redisStore)
	if !ok {
		return nil, finding{}
	}
	facts, err := r.facts(ctx)
	if err != nil {
		return nil, skipped("not asked: Redis does not answer")
	}
	return facts, finding{}
}

// checkPersistence looks what a restart of Redis would cost.
func (d *doctor) checkPersistence(ctx context.Context) finding {
	f, none := d.redisFacts(ctx)
	if f == nil {
		return none
	}
	const advice = `for sessions that last, give Redis "appendonly yes"`
	appends, appendsKnown := f.appends()
	snapshots, snapshotsKnown := f.values["save"]
	switch {
	case f.values["aof_last_write_status"] == "err":
		return failed("Redis can't write its append-only file", "look at its log: the disk may be full")
	case f.values["rdb_last_bgsave_status"] == "err" && snapshots != "":
		return failed("Redis can't write its snapshot, and refuses writes for that", "look at its log: the disk may be full")
	case appends && f.values["appendfsync"] == "no":
		return warned("append-only file, written to the disk when the system likes", `set "appendfsync everysec"`)
	case appends && f.values["appendfsync"] == "always":
		return passed("append-only file, on the disk before each answer")
	case appends:
		return passed("append-only file; a power cut costs the last second at most")
	case !appendsKnown:
		return warned("not known: Redis refuses "+strings.Join(f.refused, " and "), advice)
	case snapshotsKnown && snapshots == "":
		return warned("none: a restart of Redis loses every session", advice)
	case snapshotsKnown:
		return warned("snapshots alone (save "+d.said(snapshots)+"): a crash loses the turns since the last one", advice)
	}
	return warned("no append-only file; whether there are snapshots is not known, since Redis refuses "+strings.Join(f.refused, " and "), advice)
}

// checkEviction looks whether a full Redis would throw sessions away.
func (d *doctor) checkEviction(ctx context.Context) finding {
	f, none := d.redisFacts(ctx)
	if f == nil {
		return none
	}
	policy, known := f.first("maxmemory-policy", "maxmemory_policy")
	limit, _ := f.first("maxmemory")
	most, _ := strconv.ParseInt(limit, 10, 64)
	used, _ := strconv.ParseInt(f.values["used_memory"], 10, 64)
	switch {
	case !known:
		return warned("not known: Redis refuses "+strings.Join(f.refused, " and "), `make sure of "maxmemory-policy noeviction"`)
	case policy == "noeviction" && most > 0 && used > most/10*9:
		return warned(fmt.Sprintf("noeviction, and %d of %d MiB are in use: a full Redis refuses turns", used>>20, most>>20), "raise maxmemory, or lower SESSION_TTL")
	case policy == "noeviction":
		return passed("noeviction: nothing is thrown away")
	case most == 0:
		return finding{Status: markOK, Found: d.said(policy) + ", but without a memory limit nothing is thrown away", Advice: `"maxmemory-policy noeviction" stays right when someone sets a limit`}
	}
	found := fmt.Sprintf("%s with a limit of %d MiB: a full Redis throws sessions away", d.said(policy), most>>20)
	if n := f.values["evicted_keys"]; n != "" && n != "0" {
		found += " (" + d.said(n) + " keys so far)"
	}
	return warned(found, `set "maxmemory-policy noeviction"`)
}
