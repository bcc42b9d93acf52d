import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from birdinfer.errors import BundleError, ConfigError, InputNotFoundError, OutputError
from birdinfer.inference.external.download import download, file_name, models_folder

CONTENT = bytes(range(256)) * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A server of one file on this machine: how it answers, and what it was asked for."""

    def __init__(self):
        self.asked, self.cut_after, self.knows_ranges, self.content, self.to = [], None, True, CONTENT, None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.headers.get("Range"))
                outer.answer(self)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/files/bird%2Bmodel.onnx?download=1"

    def answer(self, handler):
        if self.to:
            handler.send_response(302)
            handler.send_header("Location", self.to)
            handler.end_headers()
            return
        if self.content is None:
            handler.send_error(404)
            return
        begin, asked = 0, handler.headers.get("Range")
        if asked and self.knows_ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(self.content):
                handler.send_error(416)
                return
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(self.content) - begin))
        handler.end_headers()
        end = len(self.content) if self.cut_after is None else begin + self.cut_after
        handler.wfile.write(self.content[begin:end])

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    yield made
    made.close()


def test_download_keeps_the_file_under_its_own_name(server, tmp_path):
    seen = []
    path = download(
        server.url, tmp_path / "a", n_bytes=len(CONTENT), sha256=SHA256, on_progress=lambda *facts: seen.append(facts)
    )
    assert path == tmp_path / "a" / "bird+model.onnx"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["bird+model.onnx"]


def test_download_asks_for_a_file_once(server, tmp_path):
    for _ in range(2):
        download(server.url, tmp_path, sha256=SHA256[:16])
    assert server.asked == [None]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_download_continues_where_it_was_cut(server, tmp_path, knows_ranges):
    server.cut_after, server.knows_ranges = 3_000_000, knows_ranges
    with pytest.raises(BundleError, match=r"the connection was cut after 3\.0 MB - run the command again"):
        download(server.url, tmp_path, sha256=SHA256)
    assert not (tmp_path / "bird+model.onnx").exists()
    server.cut_after = None
    assert download(server.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=3000000-"]


def test_download_takes_a_part_that_is_whole(server, tmp_path):
    (tmp_path / "bird+model.onnx.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path, n_bytes=len(CONTENT), sha256=SHA256).read_bytes() == CONTENT
    assert server.asked == []


def test_download_starts_again_where_the_part_is_longer_than_the_file(server, tmp_path):
    (tmp_path / "bird+model.onnx.part").write_bytes(CONTENT + b"more")
    assert download(server.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "problem"),
    [
        ({"sha256": "0" * 64}, r"has the SHA-256 \w+\.\.\., published is 0000"),
        ({"n_bytes": 7}, "has 10240000 bytes, published are 7"),
    ],
)
def test_download_removes_what_was_not_published(server, tmp_path, expected, problem):
    with pytest.raises(BundleError, match=problem):
        download(server.url, tmp_path, **expected)
    assert list(tmp_path.iterdir()) == []


def test_download_replaces_a_file_that_is_another(server, tmp_path):
    (tmp_path / "bird+model.onnx").write_bytes(b"older")
    assert download(server.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT


def test_download_says_what_the_server_says(server, tmp_path):
    server.content = None
    with pytest.raises(InputNotFoundError, match=r"the server answers 404 .*--from FILE"):
        download(server.url, tmp_path)


def test_download_without_a_network(tmp_path, server):
    server.close()
    with pytest.raises(InputNotFoundError, match="cannot be reached - is there a network"):
        download(server.url, tmp_path)


@pytest.mark.parametrize(
    "url", ["http://example.org/a.onnx", "ftp://example.org/a", "file:///etc/passwd", "http://[1/a"]
)
def test_download_refuses_other_ways_than_https(tmp_path, url):
    with pytest.raises(ConfigError, match=r"is not of https|is no address"):
        download(url, tmp_path)


def test_download_follows_no_way_out_of_https(server, tmp_path):
    server.to = "ftp://127.0.0.1:1/a.onnx"
    with pytest.raises((ConfigError, InputNotFoundError)):
        download(server.url, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_names_a_disk_that_takes_nothing(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot be written"):
        download(server.url, tmp_path / "file" / "models")


def test_models_lie_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models_folder("perch-v2") == tmp_path / "birdinfer" / "models" / "perch-v2"


@pytest.mark.parametrize("url", ["https://a/", "https://a", "https://a/b/..", "https://a/%2e%2e", "https://a/b%2F.."])
def test_file_name_is_a_name_wherever_the_address_ends(url):
    assert file_name(url) == "model"
