"""The fixture of the tests that download."""

import http.server
import threading

import pytest

from tests.data.readers.failing_server import CONTENT, Handler


@pytest.fixture
def server():
    """A server on loopback."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.digests, made.content = [], {}, CONTENT
    made.url = f"http://127.0.0.1:{made.server_address[1]}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
