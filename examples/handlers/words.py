"""A persistent handler (docs/persistent.md) that does what words.sh does, without a new process for each job."""
import sys
import time

requests, answers = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr


def send(head, body=None):
    answers.write(f"{head}\n".encode() if body is None else b"%s %d\n%s" % (head.encode(), len(body), body))
    answers.flush()


while True:
    send("ready")
    line = requests.readline()
    if not line:
        break
    workload = requests.read(int(line.split(b" ", 2)[1]))
    if workload == b"progress":
        send("progress 1 2")
        send("result", b"half")
    elif workload == b"warning":
        send("warning", b"mind the gap")
        send("result", b"done")
    elif workload == b"exception":
        send("exception", b"no such word")
    elif workload == b"slow":
        time.sleep(60)
    else:
        send("result", workload.upper())
