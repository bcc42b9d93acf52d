"""A web server of a folder that gives each stream so many bytes a second: ``python slow_store.py FOLDER BYTES``.

Its first line of output is its port.
"""

import os
import sys
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CHUNK = 1 << 16


class Slow(SimpleHTTPRequestHandler):
    """Answers as fast as a stream of an object store does."""

    protocol_version = "HTTP/1.1"
    bytes_per_second = 0.0

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send a file no faster than the limit."""
        began, n_sent = time.perf_counter(), 0
        while block := source.read(CHUNK):
            outputfile.write(block)
            n_sent += len(block)
            time.sleep(max(0.0, n_sent / self.bytes_per_second - (time.perf_counter() - began)))

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


if __name__ == "__main__":
    Slow.bytes_per_second = float(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=sys.argv[1]))
    os.write(1, b"%d\n" % server.server_port)
    server.serve_forever()
