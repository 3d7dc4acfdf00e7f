"""A persistent handler in Python: it answers with the workload in upper case. See docs/persistent.md."""
import json
import sys

requests, answers = sys.stdin.buffer, sys.stdout.buffer
sys.stdout = sys.stderr  # what is printed by accident: standard output is for frames alone


def send(head, body=b""):
    answers.write(head.encode() + b"\n" + body)
    answers.flush()


while True:
    send("ready")
    line = requests.readline()
    if not line:
        break
    _, length, fields = line.split(b" ", 2)
    workload = requests.read(int(length))
    job = json.loads(fields)  # job["id"], job["function"], …
    try:
        if not workload:
            raise ValueError(job["function"] + " needs some text")
        send("progress 1 2")
        result = workload.upper()
        send(f"result {len(result)}", result)
    except Exception as e:
        send(f"exception {len(str(e).encode())}", str(e).encode())
