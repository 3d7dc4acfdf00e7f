package handler

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"

	"github.com/rs/zerolog"

	"gearman-gateway/internal/workerpool"
)

// maxLine is the longest line on descriptor 3, in bytes. A longer one is skipped, and so costs no memory.
const maxLine = 64 << 10

// readSide reads what a command writes to descriptor 3 until that ends. What makes no sense is counted, and logged once: a
// command that was not made for a gateway may use the descriptor for something else.
func readSide(side io.Reader, j *workerpool.Job, log zerolog.Logger) {
	malformed := 0
	defer func() {
		if malformed > 0 {
			log.Warn().Str("job", j.ID).Str("handle", j.Handle).Int("lines", malformed).
				Msg("a handler's command wrote what is neither progress nor a warning to descriptor 3")
		}
	}()
	lines := bufio.NewReaderSize(side, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			line = nil
			malformed++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
		}
		if len(line) > 0 && !sideLine(line, j) {
			malformed++
		}
		if err != nil {
			return
		}
	}
}

// sideLine passes on one line, and says whether it made sense.
func sideLine(line []byte, j *workerpool.Job) bool {
	var said struct {
		Progress []uint64 `json:"progress"`
		Warning  *string  `json:"warning"`
	}
	if err := json.Unmarshal(line, &said); err != nil {
		return len(line) == 1 // an empty line
	}
	if said.Progress == nil && said.Warning == nil || said.Progress != nil && len(said.Progress) != 2 {
		return false
	}
	if said.Progress != nil {
		_ = j.Progress(said.Progress[0], said.Progress[1])
	}
	if said.Warning != nil {
		_ = j.Warning([]byte(*said.Warning))
	}
	return true
}
