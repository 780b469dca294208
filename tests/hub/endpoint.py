"""Serves repositories as Inference Endpoints do, on loopback: `python endpoint.py FOLDER...`

Each folder's `handler.py` gets a port of its own; the ports are printed as one JSON list. Routes and answers
are those of huggingface-inference-toolkit: GET / and /health say Ok, POST / and /predict take JSON or the
bytes of a video and answer JSON, what a handler raises is status 400 with `{"error": message}`. Requests are
served by threads. This package cannot be imported here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MEDIA = ("video/", "audio/", "image/", "application/octet-stream")


def load_handler(folder: str) -> Callable[[Any], Any]:
    """As an endpoint does: by the path of the file."""
    spec = importlib.util.spec_from_file_location("handler", Path(folder) / "handler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EndpointHandler(folder)


def make_server(handler: Callable[[Any], Any]) -> ThreadingHTTPServer:
    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, value: Any) -> None:
            body = b"Ok" if value == "Ok" else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if value == "Ok" else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            found = self.path in ("/", "/health")
            self.answer(200 if found else 404, "Ok" if found else {"error": "Not Found"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path not in ("/", "/predict"):
                self.answer(404, {"error": "Not Found"})
                return
            try:
                is_media = self.headers["Content-Type"].startswith(MEDIA)
                self.answer(200, handler({"inputs": body} if is_media else json.loads(body)))
            except Exception as error:  # as the toolkit has it
                self.answer(400, {"error": str(error)})

        def log_message(self, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from common.without_package import PACKAGE, Blocked

    sys.meta_path.insert(0, Blocked())
    import torch

    torch.set_num_threads(1)
    servers = [make_server(load_handler(folder)) for folder in sys.argv[1:]]
    assert PACKAGE not in sys.modules
    print(json.dumps([server.server_port for server in servers]), flush=True)
    sys.stdin.read()  # until the test is over
