package main

import (
	"errors"
	"io"
	"time"
)

// newPinger puts a keep-alive into a stream whenever it is silent for the
// interval, between events only. Waiting for two things at once takes a
// goroutine; this is the one place that spends one. giveUp ends a read of src
// that is under way.
func newPinger(src io.ReadCloser, interval time.Duration, ping string, giveUp func()) *pinger {
	p := &pinger{src: src, interval: interval, ping: ping, giveUp: giveUp, reads: make(chan pingerRead), next: make(chan []byte)}
	go p.pump()
	return p
}

type pinger struct {
	src      io.ReadCloser
	interval time.Duration
	ping     string
	giveUp   func()
	reads    chan pingerRead // what the pump read
	next     chan []byte     // buffers for the pump to read into; closed by Close
	buf      []byte
	waiting  bool // the pump has the buffer
	edge     edge // of what was handed on
	anywhere bool // a ping may stand between any two reads
	due      bool // a ping is to be sent before anything else
	rest     []byte
	err      error
}

type pingerRead struct {
	b   []byte
	err error
}

func (p *pinger) pump() {
	for buf := range p.next {
		n, err := p.src.Read(buf)
		p.reads <- pingerRead{buf[:n], err}
	}
	p.src.Close()
	close(p.reads)
}

// begin waits for the first of the stream, or for a silence that asks for a
// ping. An error is one that came before anything else.
func (p *pinger) begin(anywhere bool) error {
	p.anywhere = anywhere
	p.due = p.await(pingerBuffer)
	if len(p.rest) == 0 && p.err != io.EOF {
		return p.err
	}
	return nil
}

const pingerBuffer = 8 << 10

func (p *pinger) Read(dst []byte) (int, error) {
	for len(p.rest) == 0 && p.err == nil {
		if p.due = p.due || p.await(len(dst)); p.due {
			p.due = false
			return copy(dst, p.ping), nil
		}
		var told *apiError
		if len(p.rest) == 0 && errors.As(p.err, &told) {
			p.err = nil // the answer has begun: its frame for the error comes next
		}
	}
	n := copy(dst, p.rest)
	p.rest = p.rest[n:]
	if n > 0 {
		return n, nil
	}
	return 0, p.err
}

// await waits for the pump, or for the silence to have lasted long enough.
func (p *pinger) await(size int) (ping bool) {
	if !p.waiting {
		if len(p.buf) < size {
			p.buf = make([]byte, size)
		}
		p.next <- p.buf
		p.waiting = true
	}
	timer := time.NewTimer(p.interval)
	defer timer.Stop()
	for {
		select {
		case r := <-p.reads:
			p.waiting = false
			p.rest, p.err = r.b, r.err
			p.edge.pass(r.b)
			return false
		case <-timer.C:
			if p.anywhere || p.edge.missing == 0 {
				return true
			}
			timer.Reset(p.interval)
		}
	}
}

// Close ends the pump, and is over when the source is closed.
func (p *pinger) Close() error {
	close(p.next)
	if p.waiting {
		p.giveUp()
		<-p.reads
	}
	<-p.reads
	return nil
}
