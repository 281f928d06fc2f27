package main

import "bytes"

// maxEventBytes bounds one server-sent event. Images arrive as base64 in one.
const maxEventBytes = 32 << 20

// maxKeptBuffer is the size from which a buffer is not kept for the next event.
const maxKeptBuffer = 64 << 10

// An event is one server-sent event. Its bytes are good until the next feed.
type event struct {
	name []byte // the event field; nil for none
	data []byte // the data lines, joined by \n
}

// done says whether the event is the end marker of a chat stream.
func (e event) done() bool { return string(bytes.TrimSpace(e.data)) == "[DONE]" }

// An eventParser takes a stream of server-sent events apart, as the WHATWG
// specification has them, however the bytes are cut: lines end in LF, CR or
// CRLF, comments are skipped, data lines add up. Lines that are a JSON object
// without any field name count as events too, since some upstreams send those.
type eventParser struct {
	partial []byte // a line whose end has not come yet
	single  []byte // the only data line of the event so far, still in the caller's buffer
	data    []byte // else the data lines so far, joined
	name    []byte
	lines   int  // data lines of the event so far
	afterCR bool // the last byte was a CR: an LF now belongs to it
	started bool // the first line, which may carry a byte order mark, is over
	tooLong bool // an event passed maxEventBytes; nothing is parsed from here on
}

// feed takes the next bytes of the stream and hands each event that they
// complete to on.
func (p *eventParser) feed(b []byte, on func(event)) {
	for len(b) > 0 && !p.tooLong {
		if p.afterCR {
			p.afterCR = false
			if b[0] == '\n' {
				b = b[1:]
				continue
			}
		}
		line, rest, ok := p.cutLine(b)
		if !ok {
			break
		}
		p.line(line, on)
		b = rest
	}
	p.keep()
}

// cutLine cuts the first whole line off b; the start of it may have come
// before. Without an end of line, it keeps what there is for later.
func (p *eventParser) cutLine(b []byte) (line, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if cr := bytes.IndexByte(b[:max(end, 0)], '\r'); cr >= 0 {
		end = cr
	} else if end < 0 {
		end = bytes.IndexByte(b, '\r')
	}
	if end < 0 {
		p.partial = append(p.partial, b...)
		p.tooLong = len(p.partial)+len(p.data) > maxEventBytes
		return nil, nil, false
	}
	line, rest = b[:end], b[end+1:]
	p.afterCR = b[end] == '\r'
	if len(p.partial) > 0 {
		line = append(p.partial, line...)
		p.partial = nil
	}
	return line, rest, true
}

// line takes one line, without its end.
func (p *eventParser) line(line []byte, on func(event)) {
	if !p.started {
		p.started = true
		line = bytes.TrimPrefix(line, []byte("\ufeff"))
	}
	if len(line) == 0 {
		p.dispatch(on)
		return
	}
	if line[0] == '{' && p.lines == 0 {
		on(event{data: line})
		return
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "data":
		p.addData(value)
	case "event":
		p.name = append(p.name[:0], value...)
	}
}

func (p *eventParser) addData(value []byte) {
	p.lines++
	if p.lines == 1 {
		p.single = value
		return
	}
	p.keep()
	p.data = append(append(p.data, '\n'), value...)
	p.tooLong = len(p.data) > maxEventBytes
}

// dispatch hands the event on that a blank line, or the end, completes.
func (p *eventParser) dispatch(on func(event)) {
	if p.lines > 0 {
		e := event{data: p.joined()}
		if len(p.name) > 0 {
			e.name = p.name
		}
		on(e)
	}
	p.lines, p.single, p.name, p.data = 0, nil, p.name[:0], p.data[:0]
	if cap(p.data) > maxKeptBuffer {
		p.data = nil
	}
}

// joined is the data of the event so far.
func (p *eventParser) joined() []byte {
	if p.single != nil {
		return p.single
	}
	return p.data
}

// atDone says whether the line that ends a chat stream is in, though the blank
// line after it may not be yet.
func (p *eventParser) atDone() bool {
	return p.lines == 1 && event{data: p.joined()}.done()
}

// keep copies what the event so far still has in the caller's buffer.
func (p *eventParser) keep() {
	if p.single != nil {
		p.data = append(p.data[:0], p.single...)
		p.single = nil
	}
}

// end hands over a last event whose blank line never came (dialects E-51).
func (p *eventParser) end(on func(event)) {
	if len(p.partial) > 0 {
		line := p.partial
		p.partial = nil
		p.line(line, on)
	}
	p.dispatch(on)
}

// appendEvent appends one event; data must not hold a line break.
func appendEvent(dst []byte, name string, data []byte) []byte {
	if name != "" {
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	dst = append(append(dst, "data: "...), data...)
	return append(dst, "\n\n"...)
}

// An edge is where the bytes of a stream that were handed on so far end.
type edge struct {
	missing int // line breaks until the next event can begin: 2 inside a line, 1 after one, 0 between events
	afterCR bool
}

// pass takes the next bytes that are handed on.
func (e *edge) pass(b []byte) {
	end := len(b)
	for end > 0 && (b[end-1] == '\n' || b[end-1] == '\r') {
		end--
	}
	if end > 0 {
		e.missing, e.afterCR = 2, false
	}
	for _, c := range b[end:] {
		if c == '\n' && e.afterCR {
			e.afterCR = false
			continue
		}
		e.afterCR = c == '\r'
		e.missing = max(e.missing-1, 0)
	}
}

// close appends what ends the event that the bytes so far have left open.
func (e *edge) close(dst []byte) []byte {
	if e.afterCR && e.missing > 0 {
		dst = append(dst, '\n') // belongs to the CR
	}
	dst = append(dst, "\n\n"[:e.missing]...)
	e.missing, e.afterCR = 0, false
	return dst
}
