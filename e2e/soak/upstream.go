package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// An upstream answers "re: " and the last message's text. The model says how:
// "slow" streams for two seconds, "hang" does not answer at all.
type upstream struct {
	url   string
	open  atomic.Int64 // calls under way
	conns sync.Map     // net.Conn -> true
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{url: "http://" + l.Addr().String()}
	s := &http.Server{Handler: u, ConnState: func(c net.Conn, state http.ConnState) {
		if state == http.StateNew {
			u.conns.Store(c, true)
		} else if state == http.StateClosed {
			u.conns.Delete(c)
		}
	}}
	go s.Serve(l)
	return u, nil
}

// connections is how many the gateway keeps to the upstream.
func (u *upstream) connections() (n int) {
	u.conns.Range(func(any, any) bool { n++; return true })
	return n
}

const (
	slowEvents = 8
	slowPause  = 250 * time.Millisecond
)

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.open.Add(1)
	defer u.open.Add(-1)
	var ask struct {
		Model    string
		Stream   bool
		Messages []struct{ Content json.RawMessage }
	}
	if err := json.NewDecoder(r.Body).Decode(&ask); err != nil || len(ask.Messages) == 0 {
		http.Error(w, "what?", http.StatusTeapot)
		return
	}
	last := text(ask.Messages[len(ask.Messages)-1].Content)
	switch {
	case ask.Model == "hang":
		<-r.Context().Done()
	case ask.Stream && ask.Model == "slow":
		u.stream(w, r, last, slowEvents, slowPause)
	case ask.Stream:
		u.stream(w, r, last, 3, 0)
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`, "re: "+last)
	}
}

// text is a message's content, which may be a list of parts.
func text(content json.RawMessage) string {
	var s string
	if json.Unmarshal(content, &s) == nil {
		return s
	}
	var parts []struct{ Text string }
	json.Unmarshal(content, &parts)
	for _, p := range parts {
		s += p.Text
	}
	return s
}

func (u *upstream) stream(w http.ResponseWriter, r *http.Request, last string, events int, pause time.Duration) {
	w.Header().Set("Content-Type", "text/event-stream")
	const frame = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":%s}]}\n\n"
	for i := range events {
		piece := ""
		if i == 0 {
			piece = "re: " + last
		}
		fmt.Fprintf(w, frame, fmt.Sprintf(`"content":%q`, piece), "null")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(pause):
		}
	}
	fmt.Fprintf(w, frame, "", `"stop"`)
	fmt.Fprint(w, "data: [DONE]\n\n")
}
