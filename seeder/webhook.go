package seeder

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxNotification bounds a notification, in bytes: registries send some KiB
	// for each event and gather at most some hundred.
	maxNotification = 1 << 20
	// minSecret keeps a secret from being one that can be guessed, in bytes.
	minSecret = 16
	maxSecret = 4 << 10
)

// Webhook is where registries tell what was pushed to them. Without a Listen there
// is none.
type Webhook struct {
	Listen     string // HOST:PORT
	SecretFile string
}

func (w Webhook) check() error {
	if (w.Listen == "") != (w.SecretFile == "") {
		return errors.New("webhook: listen and secret-file belong together: whoever reaches it could have images fetched")
	}
	if w.Listen == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(w.Listen); err != nil {
		return fmt.Errorf("webhook: %.80q is no address: use HOST:PORT, for instance 0.0.0.0:5060", w.Listen)
	}
	return nil
}

// Secret reads the file of the secret.
func (w Webhook) Secret() (string, error) {
	f, err := os.Open(w.SecretFile)
	if err != nil {
		return "", fmt.Errorf("webhook: secret-file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", fmt.Errorf("webhook: secret-file: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if len(secret) < minSecret {
		return "", fmt.Errorf("webhook: %s has %d bytes: use %d or more, for instance of \"openssl rand -hex 32\"", w.SecretFile, len(secret), minSecret)
	}
	return secret, nil
}

// Event is a tag that was pushed.
type Event struct{ Repository, Tag string }

// ParseNotification reads what was pushed from a notification of a registry: of
// docker-registry and others of the distribution project ("Work with
// notifications"), or of Harbor ("Configure Webhook Notifications"). Other events
// are passed over.
func ParseNotification(body []byte) ([]Event, error) {
	var doc struct {
		// Of the distribution project.
		Events []struct {
			Action string `json:"action"`
			Target struct {
				Repository string `json:"repository"`
				Tag        string `json:"tag"`
			} `json:"target"`
		} `json:"events"`
		// Of Harbor.
		Type string `json:"type"`
		Data struct {
			Resources []struct {
				Tag string `json:"tag"`
			} `json:"resources"`
			Repository struct {
				Name string `json:"repo_full_name"`
			} `json:"repository"`
		} `json:"event_data"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, errors.New("no JSON")
	}
	if doc.Events == nil && doc.Type == "" {
		return nil, errors.New("neither of the distribution project nor of Harbor")
	}
	var pushed []Event
	add := func(repository, tag string) {
		if repository != "" && tag != "" {
			pushed = append(pushed, Event{repository, tag})
		}
	}
	for _, e := range doc.Events {
		if e.Action == "push" {
			add(e.Target.Repository, e.Target.Tag)
		}
	}
	if doc.Type == "PUSH_ARTIFACT" {
		for _, r := range doc.Data.Resources {
			add(doc.Data.Repository.Name, r.Tag)
		}
	}
	return pushed, nil
}

// Receiver answers registries that know the secret: POST of a notification, by any
// path. The secret is the Authorization header, alone or behind "Bearer".
func (s *Seeder) Receiver(secret string) http.Handler {
	want := sha256.Sum256([]byte(secret))             // of one length, as the comparison needs it
	complain := rate.Sometimes{Interval: time.Minute} // anybody can make it
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told := r.Header.Get("Authorization")
		if scheme, rest, ok := strings.Cut(told, " "); ok && strings.EqualFold(scheme, "bearer") {
			told = rest
		}
		got := sha256.Sum256([]byte(told))
		refuse := func(result, text string, status int) {
			s.metrics.notifications.WithLabelValues(result).Inc()
			complain.Do(func() { s.log.Warn("notification of a registry refused", "from", r.RemoteAddr, "error", text) })
			http.Error(w, text, status)
		}
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse("refused", "Authorization must be the secret", http.StatusUnauthorized)
			return
		}
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST a notification", http.StatusMethodNotAllowed)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxNotification))
		if err != nil {
			refuse("malformed", fmt.Sprintf("over %d bytes, or cut short", maxNotification), http.StatusRequestEntityTooLarge)
			return
		}
		pushed, err := ParseNotification(body)
		if err != nil {
			refuse("malformed", err.Error(), http.StatusBadRequest)
			return
		}
		taken := s.Notify(pushed)
		s.metrics.notifications.WithLabelValues("taken").Add(float64(taken))
		s.metrics.notifications.WithLabelValues("ignored").Add(float64(len(pushed) - taken))
		w.WriteHeader(http.StatusAccepted)
	})
}
