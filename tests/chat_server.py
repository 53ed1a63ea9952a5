"""A server that speaks OpenAI's chat protocol, for tests: what it answers, and how it fails, is said by a function."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = str | tuple[int, str] | tuple[int, str, dict[str, str]] | None  # None: the connection is cut


@dataclass
class Server:
    url: str
    questions: list[str] = field(default_factory=list)  # the last message of each, in the order in which they came
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def chat_server(answer: Callable[[str, int], Answer]) -> Iterator[Server]:
    """`answer(question, number)`: its words, or a status with a body."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            with lock:
                number = len(server.questions)
                server.questions.append(question)
                server.bodies.append({**body, "path": self.path})
                server.headers.append({key.lower(): value for key, value in self.headers.items()})
            said = answer(question, number)
            if said is None:
                self.close_connection = True
                self.connection.close()
                return
            status, text, more = (200, said, {}) if isinstance(said, str) else (*said, {})[:3]
            if status == 200:
                text = json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]})
            data = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), "Content-Type": "application/json", **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_port}/v1#judge")
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
