package main

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Anthropic's view of the model list (dialects C.9).

type anthropicModelList struct {
	Data    []anthropicModelInfo `json:"data"`
	HasMore bool                 `json:"has_more"`
	FirstID *string              `json:"first_id"`
	LastID  *string              `json:"last_id"`
}

type anthropicModelInfo struct {
	Type           string    `json:"type"`
	ID             string    `json:"id"`
	DisplayName    string    `json:"display_name"`
	CreatedAt      string    `json:"created_at"`
	DeprecatedAt   *string   `json:"deprecated_at"`
	RetiresAt      *string   `json:"retires_at"`
	Lifecycle      string    `json:"lifecycle"`
	Line           *string   `json:"line"`
	MaxInputTokens *int64    `json:"max_input_tokens"`
	MaxTokens      *int64    `json:"max_tokens"`
	Capabilities   *struct{} `json:"capabilities"`
}

// anthropicModels is the page of the list that the query's limit, after_id and
// before_id name. Without a limit it is all of it, since many clients never ask
// for a second page. An id that is not in the list gives an empty page, so that a
// client that pages through a list which has changed comes to an end.
func anthropicModels(list []model, query url.Values) any {
	page, more := modelPage(list, query)
	out := anthropicModelList{Data: make([]anthropicModelInfo, 0, len(page)), HasMore: more}
	for _, m := range page {
		out.Data = append(out.Data, anthropicInfo(m))
	}
	if n := len(out.Data); n > 0 {
		out.FirstID, out.LastID = &out.Data[0].ID, &out.Data[n-1].ID
	}
	return out
}

// modelPage cuts a page out of the list; more says that the list goes on in the
// direction of paging.
func modelPage(list []model, query url.Values) (page []model, more bool) {
	limit, err := strconv.Atoi(query.Get("limit"))
	if err != nil || limit <= 0 {
		limit = len(list)
	}
	after, before := query.Get("after_id"), query.Get("before_id")
	at := slices.IndexFunc(list, func(m model) bool { return m.ID == after || after == "" && m.ID == before })
	switch {
	case after == "" && before == "":
	case at < 0:
		return nil, false
	case after != "":
		list = list[at+1:]
	default:
		start := max(0, at-limit)
		return list[start:at], start > 0
	}
	return list[:min(limit, len(list))], limit < len(list)
}

// anthropicModel is one model.
func anthropicModel(m model) any { return anthropicInfo(m) }

func anthropicInfo(m model) anthropicModelInfo {
	provider := member(m.Raw, "top_provider")
	return anthropicModelInfo{
		Type: "model", ID: m.ID, DisplayName: m.ID, Lifecycle: "active",
		CreatedAt: time.Unix(m.Created, 0).UTC().Format(time.RFC3339),
		MaxInputTokens: firstCount(member(m.Raw, "max_input_tokens"), member(m.Raw, "context_length"), member(m.Raw, "max_model_len"),
			member(m.Raw, "context_window"), member(m.Raw, "max_context_length"), member(provider, "context_length")),
		MaxTokens: firstCount(member(m.Raw, "max_output_tokens"), member(m.Raw, "max_completion_tokens"),
			member(provider, "max_completion_tokens")),
	}
}

// firstCount is the first of the raw values that is a number above 0.
func firstCount(values ...[]byte) *int64 {
	for _, v := range values {
		if n := intOf(v); n > 0 {
			return &n
		}
	}
	return nil
}

// anthropicNoModel is the answer to an id that is not in the list (dialects
// C-155).
func anthropicNoModel(id string) *apiError {
	return &apiError{Status: http.StatusNotFound, Type: "invalid_request_error", Code: "model_not_found", Param: "model", NoRetry: true, Message: "model: " + id}
}
