"""A store that speaks S3's protocol on 127.0.0.1, from moto: started for a test, with its failings.

It is this file run as a program, in a process of its own, which ends when whoever started it lets go of it or has died.
Arguments: of how many calls one is refused with 503 (0: none), and the bytes a second of each stream (0: no limit).
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

BUCKET = "birds"


def why_not() -> str:
    """Why it cannot be started here, and what to do; "" where it can."""
    from importlib.util import find_spec

    missing = [name for name in ("moto", "flask", "s3fs") if find_spec(name) is None]
    return f'needs {missing[0]}: pip install "moto[server]" s3fs' if missing else ""


@contextlib.contextmanager
def fake_store(refuse_every: int = 0, bytes_a_second: int = 0) -> Iterator[dict[str, str]]:
    """Start a store with an empty bucket, and stop it.

    Yields:
        The variables by which clients find it and are let in.
    """
    command = [sys.executable, __file__, str(refuse_every), str(bytes_a_second)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            if not line:
                raise RuntimeError("the store does not come up")
            yield json.loads(line)
        finally:
            server.stdin.close()
            server.terminate()
            server.wait()


def _serve(refuse_every: int, bytes_a_second: int) -> None:
    os.environ |= VARIABLES
    import threading

    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    store, calls, is_open = DomainDispatcherApplication(create_backend_app), itertools.count(1), threading.Event()

    def serve(environment, start_response):
        if refuse_every and is_open.is_set() and next(calls) % refuse_every == 0:
            environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        answer = store(environment, start_response)
        return _slowly(answer, bytes_a_second) if bytes_a_second and environment["REQUEST_METHOD"] == "GET" else answer

    server = make_server("127.0.0.1", 0, serve, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=BUCKET)
    is_open.set()
    print(json.dumps({**VARIABLES, "AWS_ENDPOINT_URL": endpoint}), flush=True)
    sys.stdin.read()


def _slowly(answer, bytes_a_second: int):
    piece = 1 << 18
    began, sent = time.monotonic(), 0
    for part in answer:
        for first in range(0, len(part), piece):
            yield part[first : first + piece]
            sent += len(part[first : first + piece])
            time.sleep(max(0.0, began + sent / bytes_a_second - time.monotonic()))


# What a client needs to be let in, and to look nowhere else for it.
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
