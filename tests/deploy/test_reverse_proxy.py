"""deploy/reverse-proxy in a real nginx: refused requests never reach the server behind it."""

from __future__ import annotations

import base64
import http.client
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "reverse-proxy"
HOST, VIEW = "dagster.example.org", "dagster-view.example.org"
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on PATH")


class _Behind(BaseHTTPRequestHandler):
    """Stands for Dagster: answers everything, and records the requests."""

    reached: list[tuple[str, dict[str, str]]] = []  # noqa: RUF012 - one server, one test module

    def do_GET(self) -> None:
        self.reached.append((f"{self.command} {self.path}", dict(self.headers)))
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx with our file, without TLS; both upstreams are the recording server."""
    behind = HTTPServer(("127.0.0.1", 0), _Behind)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    folder, port = tmp_path_factory.mktemp("nginx"), _free_port()
    text = (DEPLOY / "nginx.conf").read_text()
    lines = [line for line in text.splitlines() if not line.strip().startswith("ssl_certificate")]
    text = (
        "\n".join(lines)
        .replace("443 ssl", f"127.0.0.1:{port}")
        .replace("ssl_reject_handshake on", "return 444")
    )
    for upstream in (3000, 3001):
        text = text.replace(f"127.0.0.1:{upstream};", f"127.0.0.1:{behind.server_port};")
    text = text.replace("/etc/nginx/", f"{folder}/")
    (folder / "e2h-proxy.conf").write_text((DEPLOY / "e2h-proxy.conf").read_text())
    for name in ("launch", "view"):
        (folder / f"e2h-{name}.htpasswd").write_text("ann:{PLAIN}secret\n")
        (folder / f"e2h-{name}.htpasswd").chmod(0o644)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "main.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{places}{text}\n}}\n"
    )
    server = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "main.conf")])
    try:
        while not _listens(port):
            assert server.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=30)
        behind.shutdown()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ask(port: int, method: str, path: str, headers: dict[str, str], host: str = HOST) -> int:
    """Status of the answer; 0 if the connection is closed without one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, headers={"Host": host, **headers})
        return connection.getresponse().status
    except http.client.RemoteDisconnected:
        return 0
    finally:
        connection.close()


MUTATION = "/graphql?query=mutation%7BsetNuxSeen%7D"


@pytest.mark.parametrize(
    ("method", "path", "headers", "host", "status"),
    [
        ("GET", "/", {}, HOST, 401),
        ("GET", "/", LOGIN, "evil.example.com", 0),
        ("GET", "/", LOGIN, "127.0.0.1", 0),
        ("GET", MUTATION, LOGIN, HOST, 405),
        ("HEAD", MUTATION, LOGIN, HOST, 405),
        ("GET", MUTATION, LOGIN, VIEW, 405),
        ("GET", "//graphql?query=mutation%7BsetNuxSeen%7D", LOGIN, HOST, 405),
        ("GET", "/%67raphql?query=mutation%7BsetNuxSeen%7D", LOGIN, HOST, 405),
        ("POST", "/graphql", {**LOGIN, "Origin": "https://evil.example.com"}, HOST, 403),
        (
            "GET",
            "/graphql",
            {**LOGIN, "Origin": "https://evil.example.com", "Upgrade": "websocket"},
            HOST,
            403,
        ),
        ("POST", "/report_asset_materialization/easy_problems", LOGIN, HOST, 403),
        ("POST", "/report_asset_materialization/easy_problems", LOGIN, VIEW, 403),
        ("POST", "//report_asset_materialization/easy_problems", LOGIN, HOST, 403),
        ("POST", "/%72eport_asset_materialization/easy_problems", LOGIN, HOST, 403),
        ("POST", "/x/../report_asset_check/easy_problems", LOGIN, HOST, 403),
        ("POST", "/report_asset_observation/easy_problems", LOGIN, HOST, 403),
    ],
)
def test_what_is_stopped(
    proxy: int, method: str, path: str, headers: dict[str, str], host: str, status: int
) -> None:
    before = len(_Behind.reached)
    assert _ask(proxy, method, path, headers, host) == status
    assert len(_Behind.reached) == before


@pytest.mark.parametrize(
    ("method", "path", "headers", "host"),
    [
        ("GET", "/assets/easy_evaluator", {}, HOST),
        ("POST", "/graphql", {"Origin": f"https://{HOST}"}, HOST),
        ("GET", "/graphql", {"Upgrade": "websocket", "Origin": f"https://{HOST}"}, HOST),
        ("POST", "/graphql", {}, VIEW),
    ],
)
def test_what_people_need_goes_through_without_their_login(
    proxy: int, method: str, path: str, headers: dict[str, str], host: str
) -> None:
    assert _ask(proxy, method, path, {**LOGIN, **headers}, host) == 200
    asked, seen = _Behind.reached[-1]
    assert asked == f"{method} {path}"
    assert "Authorization" not in seen and seen.get("Upgrade") == headers.get("Upgrade")
