"""A server on loopback that fails in many ways, and files of it."""

import contextlib
import functools
import hashlib
import http.server
import time

from fedpeft_jax.data.readers import download
from fedpeft_jax.data.readers.download import File

CONTENT = bytes(range(256)) * 4096
MD5 = hashlib.md5(CONTENT).hexdigest()

# It waits a short time between tries.
fetch = functools.partial(download.fetch, back_off_s=0.01)


class Handler(http.server.BaseHTTPRequestHandler):
    """Does what the server's script says for the first part of the path."""

    protocol_version = "HTTP/1.0"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        start = 0
        if given := self.headers.get("Range"):
            start = int(given.removeprefix("bytes=").removesuffix("-"))
        self.server.asked.append((self.path, start))
        kind = self.path.split("/")[1]
        if self.path.endswith(".md5"):
            digest = self.server.digests.get(kind)
            return (
                self.answer(200, f"MD5 (x) = {digest}".encode())
                if digest
                else (self.send_error(404))
            )
        getattr(self, kind.replace("-", "_"))(start)

    def answer(self, code, body, **headers):
        self.send_response(code)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)

    def whole(self, start):
        self.answer(200, self.server.content)

    def resumable(self, start):
        self.answer(206 if start else 200, self.server.content[start:])

    def cut(self, start):
        """Sends a third of what is left, then nothing."""
        rest = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest if len(rest) < 400_000 else rest[: len(rest) // 3])
        self.close_connection = True

    def cut_and_forget(self, start):
        """Cuts the first answer, and knows no ranges."""
        body = self.server.content
        first = len(self.server.asked) == 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1000] if first else body)
        self.close_connection = True

    def redirect(self, start):
        self.send_response(302)
        self.send_header("Location", "/whole/x.zip")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def slow(self, start):
        time.sleep(1.0)
        self.whole(start)

    def missing(self, start):
        self.send_error(404)

    def broken(self, start):
        self.send_error(500)

    def wrong(self, start):
        self.answer(206 if start else 200, b"another file"[start:])

    def empty(self, start):
        self.answer(200, b"")

    def no_length(self, start):
        """Sends no usable length, and all of the content."""
        self.send_response(200)
        self.send_header("Content-Length", "abc")
        self.end_headers()
        self.wfile.write(self.server.content)

    def half_without_length(self, start):
        """Sends no length, and half of the content."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.content[: len(self.server.content) // 2])

    def bad_chunks(self, start):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\nzz\r\n")

    def other_range(self, start):
        """Answers with the first bytes, whatever is asked for, to the first request."""
        size, first = len(self.server.content), len(self.server.asked) == 1
        if not first:
            return self.resumable(start)
        body = self.server.content[: size - start]
        where = f"bytes 0-{len(body) - 1}/{size}"
        return self.answer(206, body, Content_Range=where)

    def garbage(self, start):
        self.wfile.write(b"no HTTP at all\r\n\r\n")

    def redirect_away(self, start):
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def full_range(self, start):
        if start >= len(self.server.content):
            size = len(self.server.content)
            return self.answer(416, b"", Content_Range=f"bytes */{size}")
        return self.resumable(start)


def file_of(server, *kinds, md5=MD5, name="x.zip"):
    return File(name, tuple(f"{server.url}/{kind}/{name}" for kind in kinds), md5)
