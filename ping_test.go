package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func pingEvery(d time.Duration) func(*config) {
	return func(c *config) { c.StreamPing.PassThrough = d }
}

// Keep-alives come when the upstream is silent, between events alone, and all
// else is as it was.
func TestPing(t *testing.T) {
	const pause = 200 * time.Millisecond
	a, b := textChunk("a"), textChunk("b")
	for _, tt := range []struct {
		name   string
		pieces []string // with a pause after each
		want   string   // P stands for at least one keep-alive
	}{
		{"after the headers", []string{"", a + finishChunk + doneEvent}, "P" + a + finishChunk + doneEvent},
		{"between events", []string{a, finishChunk + doneEvent}, a + "P" + finishChunk + doneEvent},
		{"not in a line", []string{a[:20], a[20:] + finishChunk + doneEvent}, "P" + a + finishChunk + doneEvent}, // the line is held back, so none has begun
		{"not in an event", []string{a + "data: {\n", "data: }\n\n" + finishChunk + doneEvent}, a + "data: {\ndata: }\n\n" + finishChunk + doneEvent},
		{"not in a long line", []string{a + b[:20] + strings.Repeat("x", 2*maxHeldLine), "\n", "\n" + finishChunk + doneEvent},
			a + b[:20] + strings.Repeat("x", 2*maxHeldLine) + "\n\n" + finishChunk + doneEvent},
		{"between CRLF events", []string{"data: {}\r\n", "\r\n", finishChunk + doneEvent}, "data: {}\r\n\r\nP" + finishChunk + doneEvent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
				for _, p := range tt.pieces {
					answerStream(p)(w, r)
					time.Sleep(pause)
				}
			}, pingEvery(pause/10))
			_, got := g.chat(streamRequest)
			// How often it came depends on the machine, and so does whether one
			// came after the end.
			for strings.Contains(got, openai.ping+openai.ping) {
				got = strings.ReplaceAll(got, openai.ping+openai.ping, openai.ping)
			}
			got = strings.TrimSuffix(got, openai.ping)
			if want := strings.ReplaceAll(tt.want, "P", openai.ping); got != want {
				t.Errorf("the client got\n%q, want\n%q", got, want)
			}
			if line := g.logLine(); line["outcome"] != "ok" {
				t.Errorf("logged %v", line)
			}
		})
	}
}

func TestNoPingUnlessAsked(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		answerStream("")(w, r)
		time.Sleep(50 * time.Millisecond)
		answerStream(textChunk("a"), finishChunk, doneEvent)(w, r)
	}
	g := newGateway(t, slow)
	if ping := g.server.cfg.StreamPing.PassThrough; ping != 0 {
		t.Errorf("pass-through streams get a keep-alive after %v by default", ping)
	}
	if _, got := g.chat(streamRequest); got != textChunk("a")+finishChunk+doneEvent {
		t.Errorf("the client got %q", got)
	}
}

// A stream that breaks off while keep-alives are sent ends in its error.
func TestPingThenBreakOff(t *testing.T) {
	g := newGateway(t, func(w http.ResponseWriter, r *http.Request) {
		answerStream(textChunk("a"))(w, r)
		<-r.Context().Done()
	}, pingEvery(20*time.Millisecond), func(c *config) { c.UpstreamIdleTimeout = 100 * time.Millisecond })
	_, got := g.chat(streamRequest)
	events := eventsOf(got)
	if len(events) != 2 || !strings.Contains(events[1], "upstream_timeout") || !strings.Contains(got, openai.ping) {
		t.Errorf("the client got %q", got)
	}
}

func TestPinger(t *testing.T) {
	t.Run("small buffers", func(t *testing.T) {
		p := newPinger(io.NopCloser(strings.NewReader("data: abc\n\n")), time.Hour, "ping", func() {})
		var got strings.Builder
		buf := make([]byte, 3)
		for {
			n, err := p.Read(buf)
			got.Write(buf[:n])
			if err != nil {
				break
			}
		}
		if p.Close(); got.String() != "data: abc\n\n" {
			t.Errorf("read %q", got.String())
		}
	})
	t.Run("an error", func(t *testing.T) {
		src, feed := io.Pipe()
		boom := errors.New("boom")
		go func() {
			feed.Write([]byte("x"))
			feed.CloseWithError(boom)
		}()
		p := newPinger(src, time.Hour, "ping", func() {})
		defer p.Close()
		if b, err := io.ReadAll(p); string(b) != "x" || err != boom {
			t.Errorf("read %q, %v", b, err)
		}
	})
	t.Run("closed while the source is silent", func(t *testing.T) {
		src, feed := io.Pipe()
		p := newPinger(src, time.Millisecond, "ping", func() { feed.CloseWithError(errors.New("given up")) })
		if n, err := p.Read(make([]byte, 10)); n != 4 || err != nil {
			t.Errorf("a silent source gave %d bytes, %v", n, err)
		}
		p.Close()
		if _, err := feed.Write([]byte("x")); err == nil {
			t.Error("the source is still open")
		}
	})
	t.Run("closed before it was read", func(t *testing.T) {
		src, feed := io.Pipe()
		newPinger(src, time.Hour, "ping", func() {}).Close()
		if _, err := feed.Write([]byte("x")); err == nil {
			t.Error("the source is still open")
		}
	})
}
