// Package wire turns Gearman's binary packets into bytes and back. It knows no sockets.
//
// A packet is a 12-byte header and a body (PROTOCOL, "Binary Packet"):
//
//	 0        4        8        12
//	+--------+--------+--------+----------- - -
//	| magic  | type   | size   | arguments, separated by NUL
//	+--------+--------+--------+----------- - -
//
// Magic is "\0REQ" towards a job server and "\0RES" from one; type and size are big-endian 32-bit integers. The last
// argument runs to the end of the body and may itself hold NUL bytes; the others may not.
package wire

import (
	"encoding/binary"
	"fmt"
)

// Type is a packet's type. Its String is the name that the PROTOCOL gives it.
type Type uint32

// The packet types, numbered as in the PROTOCOL and in gearmand's table of commands. 5 was never put to use.
const (
	CanDo             Type   = 1
	CantDo            Type   = 2
	ResetAbilities    Type   = 3
	PreSleep          Type   = 4
	Unused            Type   = 5
	Noop              Type   = 6
	SubmitJob         Type   = 7
	JobCreated        Type   = 8
	GrabJob           Type   = 9
	NoJob             Type   = 10
	JobAssign         Type   = 11
	WorkStatus        Type   = 12
	WorkComplete      Type   = 13
	WorkFail          Type   = 14
	GetStatus         Type   = 15
	EchoReq           Type   = 16
	EchoRes           Type   = 17
	SubmitJobBG       Type   = 18
	Error             Type   = 19
	StatusRes         Type   = 20
	SubmitJobHigh     Type   = 21
	SetClientID       Type   = 22
	CanDoTimeout      Type   = 23
	AllYours          Type   = 24
	WorkException     Type   = 25
	OptionReq         Type   = 26
	OptionRes         Type   = 27
	WorkData          Type   = 28
	WorkWarning       Type   = 29
	GrabJobUniq       Type   = 30
	JobAssignUniq     Type   = 31
	SubmitJobHighBG   Type   = 32
	SubmitJobLow      Type   = 33
	SubmitJobLowBG    Type   = 34
	SubmitJobSched    Type   = 35
	SubmitJobEpoch    Type   = 36
	SubmitReduceJob   Type   = 37
	SubmitReduceJobBG Type   = 38
	GrabJobAll        Type   = 39
	JobAssignAll      Type   = 40
	GetStatusUnique   Type   = 41
	StatusResUnique   Type   = 42
	lastType                 = StatusResUnique
	headerSize               = 12
	maxArgs                  = 8
	magicReq          uint32 = 0x00524551 // "\0REQ"
	magicRes          uint32 = 0x00524553 // "\0RES"
)

// kinds holds, by type, the PROTOCOL's name and the number of arguments.
var kinds = [lastType + 1]struct {
	name string
	args int
}{
	CanDo:             {"CAN_DO", 1},
	CantDo:            {"CANT_DO", 1},
	ResetAbilities:    {"RESET_ABILITIES", 0},
	PreSleep:          {"PRE_SLEEP", 0},
	Unused:            {"UNUSED", 0},
	Noop:              {"NOOP", 0},
	SubmitJob:         {"SUBMIT_JOB", 3},
	JobCreated:        {"JOB_CREATED", 1},
	GrabJob:           {"GRAB_JOB", 0},
	NoJob:             {"NO_JOB", 0},
	JobAssign:         {"JOB_ASSIGN", 3},
	WorkStatus:        {"WORK_STATUS", 3},
	WorkComplete:      {"WORK_COMPLETE", 2},
	WorkFail:          {"WORK_FAIL", 1},
	GetStatus:         {"GET_STATUS", 1},
	EchoReq:           {"ECHO_REQ", 1},
	EchoRes:           {"ECHO_RES", 1},
	SubmitJobBG:       {"SUBMIT_JOB_BG", 3},
	Error:             {"ERROR", 2},
	StatusRes:         {"STATUS_RES", 5},
	SubmitJobHigh:     {"SUBMIT_JOB_HIGH", 3},
	SetClientID:       {"SET_CLIENT_ID", 1},
	CanDoTimeout:      {"CAN_DO_TIMEOUT", 2},
	AllYours:          {"ALL_YOURS", 0},
	WorkException:     {"WORK_EXCEPTION", 2},
	OptionReq:         {"OPTION_REQ", 1},
	OptionRes:         {"OPTION_RES", 1},
	WorkData:          {"WORK_DATA", 2},
	WorkWarning:       {"WORK_WARNING", 2},
	GrabJobUniq:       {"GRAB_JOB_UNIQ", 0},
	JobAssignUniq:     {"JOB_ASSIGN_UNIQ", 4},
	SubmitJobHighBG:   {"SUBMIT_JOB_HIGH_BG", 3},
	SubmitJobLow:      {"SUBMIT_JOB_LOW", 3},
	SubmitJobLowBG:    {"SUBMIT_JOB_LOW_BG", 3},
	SubmitJobSched:    {"SUBMIT_JOB_SCHED", 8},
	SubmitJobEpoch:    {"SUBMIT_JOB_EPOCH", 4},
	SubmitReduceJob:   {"SUBMIT_REDUCE_JOB", 4},
	SubmitReduceJobBG: {"SUBMIT_REDUCE_JOB_BACKGROUND", 4},
	GrabJobAll:        {"GRAB_JOB_ALL", 0},
	JobAssignAll:      {"JOB_ASSIGN_ALL", 5},
	GetStatusUnique:   {"GET_STATUS_UNIQUE", 1},
	StatusResUnique:   {"STATUS_RES_UNIQUE", 6},
}

func (t Type) known() bool { return t >= CanDo && t <= lastType }

// String returns the PROTOCOL's name, such as SUBMIT_JOB_BG.
func (t Type) String() string {
	if t.known() {
		return kinds[t].name
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// NumArgs returns how many arguments a packet of this type has, 0 for a type that does not exist.
func (t Type) NumArgs() int {
	if t.known() {
		return kinds[t].args
	}
	return 0
}

// Direction tells requests (client or worker → job server) from responses (job server → client or worker).
type Direction bool

const (
	Request  Direction = false // magic "\0REQ"
	Response Direction = true  // magic "\0RES"
)

// Packet is one decoded packet. Args has exactly Type.NumArgs elements; they are views of one buffer that the packet owns.
type Packet struct {
	Type Type
	Args [][]byte
}

// Append appends a packet to dst and returns the extended slice. The caller keeps NUL bytes out of every argument but
// the last: there they would shift the fields. A wrong number of arguments is a mistake of the program, and panics.
func Append(dst []byte, d Direction, t Type, args ...[]byte) []byte {
	if !t.known() || len(args) != kinds[t].args {
		panic(fmt.Sprintf("wire: %v with %d arguments", t, len(args)))
	}
	magic := magicReq
	if d == Response {
		magic = magicRes
	}
	size := max(0, len(args)-1)
	for _, a := range args {
		size += len(a)
	}
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = binary.BigEndian.AppendUint32(dst, uint32(t))
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	for i, a := range args {
		if i > 0 {
			dst = append(dst, 0)
		}
		dst = append(dst, a...)
	}
	return dst
}
