package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"shoal/blobcache/pace"
)

const limitsPath = "/api/v1/limits"

// Limits is the answer of /api/v1/limits. Fields are added, never renamed or
// removed.
type Limits struct {
	Limits []Limit `json:"limits"`
}

// Limit is a bound of what passes in a second.
type Limit struct {
	Name  string   `json:"name"`  // of the setting: max-upload
	Rate  int64    `json:"rate"`  // in bytes a second, now; 0 if there is none
	Rules []string `json:"rules"` // as the setting has them
	// Waited counts the bytes that had to wait, since the start of the process.
	Waited int64 `json:"waited"`
	// Changed means that the rules are not those that the node was started with.
	Changed bool `json:"changed"`
}

// SetLimits asks for other rules, by name of the limit; those that are not named
// stay as they are.
type SetLimits map[string]Rules

// Rules are as the setting has them. In JSON one may stand without a list.
type Rules []string

// UnmarshalJSON is of json.Unmarshaler.
func (r *Rules) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*r = Rules{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(r))
}

// parse reads the rules for limits of these names.
func (ask SetLimits) parse(limits []Limit) (map[string]pace.Rules, error) {
	all := make(map[string]pace.Rules)
	for name, words := range ask {
		if !slices.ContainsFunc(limits, func(l Limit) bool { return l.Name == name }) {
			return nil, fmt.Errorf("%.40q is no limit: there are max-upload, max-download and max-origin", name)
		}
		if len(words) == 0 {
			return nil, fmt.Errorf("%s: no rate: use for instance 50MB, or unlimited", name)
		}
		rules, err := pace.Parse(words)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all[name] = rules
	}
	return all, nil
}

// serveSetLimits answers PUT and POST of a SetLimits with all limits.
func (o Options) serveSetLimits(w http.ResponseWriter, r *http.Request) {
	if !forPrograms(w, r, jsonType) {
		return
	}
	var ask SetLimits
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&ask); err != nil || len(ask) == 0 {
		http.Error(w, "use {\"max-upload\": [\"5MB\", \"22:00-06:00 unlimited\"]}", http.StatusBadRequest)
		return
	}
	rules, err := ask.parse(o.Limits())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	o.SetLimits(rules)
	o.writeJSON(w, Limits{o.Limits()})
}

// FetchLimits is Fetch for the limits.
func FetchLimits(ctx context.Context, addr string) ([]byte, Limits, error) {
	return query(ctx, addr, "limits", Limits.plausible)
}

func (l Limits) plausible() bool { return len(l.Limits) > 0 }

// Do has the node whose admin endpoint is at addr change its limits, and returns
// all of them, as Fetch does.
func (ask SetLimits) Do(ctx context.Context, addr string) ([]byte, Limits, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, Limits{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+dialable(addr)+limitsPath, bytes.NewReader(body))
	if err != nil {
		return nil, Limits{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	status, text, err := send(single(), req)
	if err != nil {
		return nil, Limits{}, err
	}
	if status != http.StatusOK {
		return nil, Limits{}, fmt.Errorf("%d %s: %s", status, http.StatusText(status), strings.TrimSpace(string(text[:min(len(text), 500)])))
	}
	var now Limits
	if json.Unmarshal(text, &now) != nil || !now.plausible() {
		return nil, Limits{}, fmt.Errorf("%s does not answer like a shoal node", addr)
	}
	return text, now, nil
}
