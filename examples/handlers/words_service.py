"""A small service whose POST / is a handler (http in the configuration): python3 words_service.py [PORT]."""
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Words(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        workload = self.rfile.read(int(self.headers["Content-Length"]))
        if workload == b"exception":
            return self.answer(422, b"no such word")  # 4xx: would fail again; 5xx: failed; 429 and 503: try again later
        if workload == b"slow":
            time.sleep(60)
        self.answer(200, workload.upper())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 9001), Words)
server.daemon_threads = True
print("listening on", server.server_port, flush=True)
server.serve_forever()
