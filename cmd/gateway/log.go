package main

import (
	"bytes"
	"fmt"
	"io"
	stdlog "log"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// newLog returns the program's log, one JSON object a line, and has what libraries log by themselves in it, too.
func newLog(w io.Writer, level zerolog.Level) zerolog.Logger {
	log := zerolog.New(visible{w}).With().Timestamp().Logger()
	stdlog.SetFlags(0)
	stdlog.SetOutput(foreign{log.Level(level).With().Str("from", "log").Logger().
		Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute})})
	return log
}

// foreign takes the lines of the standard library's log, where net/http puts what a sink sends that nobody has asked for: of those there
// may be any number, so that most are dropped.
type foreign struct{ log zerolog.Logger }

func (f foreign) Write(line []byte) (int, error) {
	f.log.Warn().Msg(string(bytes.TrimSpace(line)))
	return len(line), nil
}

// visible writes JSON, and escapes what would break or forge a line on somebody's screen. zerolog escapes the control characters of ASCII;
// line separators, the other control characters and those that turn the direction of a text it leaves as they are.
type visible struct{ w io.Writer }

func (v visible) Write(line []byte) (int, error) {
	if !bytes.ContainsFunc(line, invisible) {
		return v.w.Write(line)
	}
	escaped := make([]byte, 0, len(line)+64)
	for _, r := range string(line) { // zerolog has made it valid UTF-8
		if !invisible(r) {
			escaped = utf8.AppendRune(escaped, r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			escaped = fmt.Appendf(escaped, `\u%04x`, unit)
		}
	}
	if _, err := v.w.Write(escaped); err != nil {
		return 0, err
	}
	return len(line), nil
}

// invisible reports whether a rune beyond ASCII is no character that a person would see.
func invisible(r rune) bool {
	return r >= utf8.RuneSelf && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}
