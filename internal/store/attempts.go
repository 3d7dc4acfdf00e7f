package store

import (
	"encoding/json"
	"fmt"
	"time"

	"gearman-gateway/internal/webhook"
)

// attempt is a webhook.Attempt as it is stored.
type attempt struct {
	At       *int64        `json:"t,omitempty"`
	Duration time.Duration `json:"d"`
	Status   int           `json:"s,omitempty"`
	Error    string        `json:"e,omitempty"`
	Answer   []byte        `json:"a,omitempty"`
}

// encodeAttempts returns nil for none.
func encodeAttempts(log []webhook.Attempt) []byte {
	if len(log) == 0 {
		return nil
	}
	stored := make([]attempt, len(log))
	for i, a := range log {
		stored[i] = attempt{At: micros(a.At), Duration: a.Duration, Status: a.Status, Error: a.Error, Answer: a.Answer}
	}
	text, _ := json.Marshal(stored) // numbers, text and bytes: cannot fail
	return text
}

func decodeAttempts(text []byte) ([]webhook.Attempt, error) {
	if text == nil {
		return nil, nil
	}
	var stored []attempt
	if err := json.Unmarshal(text, &stored); err != nil {
		return nil, fmt.Errorf("attempts of a delivery as they are stored: %w", err)
	}
	log := make([]webhook.Attempt, len(stored))
	for i, a := range stored {
		log[i] = webhook.Attempt{At: moment(a.At), Duration: a.Duration, Status: a.Status, Error: a.Error, Answer: a.Answer}
	}
	return log, nil
}
