package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"time"
)

// contextView is a session as GET /context/{session_id} shows it: the thread
// written last as messages, the others under threads, the newest first.
type contextView struct {
	SessionID string    `json:"session_id"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	threadView
	Threads []threadView `json:"threads,omitempty"`
}

type threadView struct {
	Turns      int             `json:"turns"`
	Incomplete bool            `json:"incomplete,omitempty"`       // the last answer broke off
	Trimmed    int             `json:"trimmed_messages,omitempty"` // older messages that are no longer kept
	Messages   json.RawMessage `json:"messages"`
}

// handleContext serves GET /context/{session_id}.
func (s *server) handleContext(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	key := sessionKey{x.cred.Owner, r.PathValue("session_id")}
	rec, err := s.sessions.history(x.ctx, key, threadPick{Kind: pickAll})
	if err != nil {
		writeError(w, x, contextError(err))
		return
	}
	view := contextView{SessionID: key.ID, CreatedAt: rec.Created.UTC(), UpdatedAt: rec.Updated.UTC()}
	for i := len(rec.Threads) - 1; i >= 0; i-- {
		if th := viewThread(&rec.Threads[i]); i == len(rec.Threads)-1 {
			view.threadView = th
		} else {
			view.Threads = append(view.Threads, th)
		}
	}
	writeJSON(w, http.StatusOK, view)
}

func viewThread(th *thread) threadView {
	turns := wholeTurns(th.Turns)
	v := threadView{Turns: len(turns), Trimmed: th.Mark.Messages}
	var list [][]byte
	if len(th.System) > 0 {
		list = append(list, th.System)
	}
	for _, t := range turns {
		v.Incomplete = t.incomplete()
		for m := range t.messages() {
			list = append(list, m)
			v.Trimmed--
		}
	}
	v.Messages = slices.Concat([]byte("["), bytes.Join(list, []byte(",")), []byte("]"))
	return v
}

// handleDeleteContext serves DELETE /context/{session_id}.
func (s *server) handleDeleteContext(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r)
	key := sessionKey{x.cred.Owner, r.PathValue("session_id")}
	if err := s.sessions.forget(x.ctx, key); err != nil {
		writeError(w, x, contextError(err))
		return
	}
	writeJSON(w, http.StatusOK, struct {
		SessionID string `json:"session_id"`
		Deleted   bool   `json:"deleted"`
	}{key.ID, true})
}

func contextError(err error) *apiError {
	if errors.Is(err, errNotFound) {
		return &apiError{
			Status: http.StatusNotFound, Type: "invalid_request_error", Code: "session_not_found", Param: "session_id", NoRetry: true,
			Message: "no session of this id; a session begins with the first request that carries it in X-Session-Id",
		}
	}
	e := storeUnavailable(err)
	e.Message = "the session store can't be reached; try again"
	return e
}
