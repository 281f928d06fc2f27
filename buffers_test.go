package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadWhole(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 8192, 100_000, maxBodyGuess, maxBodyGuess + 1, 9<<20 + 1} {
		want := bytes.Repeat([]byte("0123456789abcde\n"), size/16+1)[:size]
		for _, declared := range []int64{-1, int64(size), int64(size) + 10, 1} {
			for name, r := range map[string]io.Reader{
				"at once": bytes.NewReader(want), "end with the last": iotest.DataErrReader(bytes.NewReader(want)), "in halves": iotest.HalfReader(bytes.NewReader(want)),
			} {
				got, l, err := readWhole(r, declared)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes, declared %d, %s: read %d, %v", size, declared, name, len(got), err)
				}
				l.letGo()
			}
		}
	}
	if _, _, err := readWhole(iotest.ErrReader(io.ErrUnexpectedEOF), 5); err != io.ErrUnexpectedEOF {
		t.Errorf("a reader that fails: %v", err)
	}
}

// A large body is copied once at most on its way into memory.
func TestNextSize(t *testing.T) {
	const declared = 20 << 20
	copied := 0
	for size := maxBodyGuess; size < declared; size = nextSize(size, declared) {
		copied += size
	}
	if copied > declared/2 {
		t.Errorf("%d bytes are copied of %d", copied, declared)
	}
	if got := nextSize(4096, -1); got != 8192 {
		t.Errorf("after 4096 of an unknown length: %d", got)
	}
}

// A lease's buffer goes to somebody else only when nobody holds it.
func TestLease(t *testing.T) {
	l := newLease(10_000)
	if cap(l.buffer(10_000)) < 10_000 {
		t.Fatalf("a buffer of %d", cap(l.buf))
	}
	p := splice(bytes.Repeat([]byte("x"), 10_000))
	p.lease = l
	a, b := p.reader(), p.reader()
	p.lease.letGo() // the exchange is over
	a.Close()
	a.Close() // the transport may close twice
	if n := l.users.Load(); n != 1 {
		t.Errorf("%d users while one reader is open", n)
	}
	if got, err := io.ReadAll(b); len(got) != 10_000 || err != nil {
		t.Errorf("the other reads %d bytes, %v", len(got), err)
	}
	b.Close()
	if n := l.users.Load(); n != 0 {
		t.Errorf("%d users in the end", n)
	}
	if got, err := io.ReadAll(a); len(got) != 0 || err != nil {
		t.Errorf("a closed reader gives %d bytes, %v", len(got), err)
	}
	var none *lease
	none.hold()
	none.letGo()
	if l := newLease(1 << 30); l != nil || cap(l.buffer(7)) != 7 {
		t.Error("a gigabyte is kept")
	}
}

// Buffers are used again, and every request still arrives as it was sent, though
// others are given up in the middle.
func TestBodiesDoNotMix(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mark := text(member(body, "user"))
		if strings.Count(string(body), mark) != 2001 {
			mark = "mixed"
		}
		answerJSON(200, completion(mark))(w, r)
	})
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 40 {
				mark := fmt.Sprintf("mark-%d-%d.", worker, i)
				body := `{"model":"m","user":"` + mark + `","messages":[{"role":"user","content":"` + strings.Repeat(mark, 2000) + `"}]}`
				if i%4 == 3 {
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Duration(i%16)*100*time.Microsecond, cancel)
					if res, err := http.DefaultClient.Do(g.request("POST", chatPath, body).WithContext(ctx)); err == nil {
						res.Body.Close()
					}
					continue
				}
				res, got := g.post(chatPath, body)
				if res.StatusCode != 200 || !strings.Contains(got, `"`+mark+`"`) {
					t.Errorf("%s: status %d, %.200s", mark, res.StatusCode, got)
					return
				}
			}
		})
	}
	wg.Wait()
}
