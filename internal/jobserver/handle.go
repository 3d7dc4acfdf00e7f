package jobserver

import (
	"bytes"
	"os"
	"strconv"
)

// handlePrefix begins every handle: "H:<hostname>:", then comes the job's number. It keeps handles within the 63 bytes that
// gearmand and its clients have room for.
func handlePrefix() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	return "H:" + host[:min(len(host), 40)] + ":"
}

func (s *Server) appendHandle(dst []byte, number uint64) []byte {
	return strconv.AppendUint(append(dst, s.prefix...), number, 10)
}

// handleNumber returns the number in a handle, and 0, which no job has, for what is not one of this server's handles. Just one
// spelling names a job: leading zeros do not.
func (s *Server) handleNumber(handle []byte) uint64 {
	digits, ok := bytes.CutPrefix(handle, []byte(s.prefix))
	if !ok || len(digits) == 0 || digits[0] == '0' {
		return 0
	}
	number, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return 0
	}
	return number
}

// untilNUL cuts a last argument at its first NUL. Some clients send C strings with their end; and an argument that is
// echoed as any but the last field may not have one.
func untilNUL(arg []byte) []byte {
	name, _, _ := bytes.Cut(arg, []byte{0})
	return name
}
