"""The page of `e2h label` over real HTTP and in a real browser: who may ask, what it shows, and that
no key is lost."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from browser import browser, needs_browser
from label_servers import label_server, press, wait_for

SCRIPT = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
LINES: list[dict[str, Any]] = [
    {
        "question": f"What is $\\frac{{4}}{{2}}$? {SCRIPT}",
        "steps": [f"Divide. {SCRIPT}", "So 2.\n\n# Answer\n\n$2$"],
    },
    {"question": "1+2*2", "completion": "1+2=3\n\n3*2=5\n\n# Answer\n\n5"},
    {"question": "2*3", "completion": "2*3=6\n\n# Answer\n\n6"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "queue.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def label(folder: Path) -> list[str]:
    return [str(folder / "queue.jsonl"), "--out", str(folder / "people.jsonl"), "--labeller", "ada"]


def exported(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "people.jsonl").read_text().splitlines()]


def test_only_this_page_is_answered(folder: Path) -> None:
    with label_server(folder / "home", *label(folder)) as server:
        mine = f"http://127.0.0.1:{server.port}"
        refused = [
            (server.ask("GET", "/state", Authorization=""), 401),
            (server.ask("GET", "/state", Authorization="Bearer wrong"), 401),
            (server.ask("GET", f"/state?token={server.token}", Authorization=""), 401),
            (server.ask("GET", "/state", Host="evil.example"), 400),  # DNS rebinding
            (server.ask("GET", "/", Host="evil.example"), 400),
            (
                server.ask(
                    "POST", "/act", {"action": "positive", "version": 0}, Origin="http://evil.example"
                ),
                403,
            ),
            (server.ask("POST", "/act", {"action": "positive", "version": 0}, Origin="null"), 403),
            (server.ask("GET", "/act"), 405),
            (server.ask("GET", "/../../etc/passwd"), 404),
            (server.ask("POST", "/act", text=b"x" * 5000), 413),
            (server.ask("POST", "/act", text=b"{"), 400),
            (server.ask("POST", "/act", text=b"[" * 900), 400),
            (server.ask("POST", "/act", {"action": ["positive"], "version": 0}), 400),
            (server.ask("POST", "/act", {"action": "positive"}), 400),
        ]
        assert [(status, wanted) for (status, *_), wanted in refused if status != wanted] == []
        for (_, body, headers), _ in refused:
            assert b"Divide" not in body and "Access-Control-Allow-Origin" not in headers
        status, body, headers = server.ask("GET", "/state", Origin=mine)
        assert (status, json.loads(body)["version"]) == (200, 0)
        assert "default-src 'none'" in headers["content-security-policy"]
        shell = server.ask("GET", "/", Authorization="")
        assert shell[0] == 200 and b"Divide" not in shell[1]  # the page itself holds no data
        elsewhere = http.client.HTTPConnection("127.0.0.2", server.port, timeout=5)
        with pytest.raises(OSError):  # this machine, too: a server on all interfaces would answer
            elsewhere.request("GET", "/")


def test_every_key_survives_a_kill_and_a_stale_page_changes_nothing(folder: Path) -> None:
    with label_server(folder / "home", *label(folder)) as server:
        assert [server.act("positive", 0), server.act("positive", 1), server.act("positive", 2)] == [200] * 3
        assert server.act("negative", 0) == 409
        server.process.kill()
    with label_server(folder / "home", *label(folder)) as server:
        state = json.loads(server.ask("GET", "/state")[1])
        assert state["version"] == 3 and "solution 2 of 3 · step 2 of 2" in state["html"]
        assert server.act("negative", 3) == 200
        with (
            pytest.raises(AssertionError, match="another e2h label writes it"),
            label_server(folder / "home", *label(folder)),
        ):
            pass
    assert [line["label"]["finish_reason"] for line in exported(folder)] == ["solution", "found_error"]


@needs_browser
def test_a_person_labels_by_keyboard(folder: Path, tmp_path: Path) -> None:
    with label_server(folder / "home", *label(folder)) as server, browser(tmp_path / "profile") as page:
        page.open(server.address)
        wait_for(page, 0)
        seen = page.run("document.body.innerText")
        assert "solution 1 of 3 · step 1 of 2" in seen and "Divide." in seen
        assert "Answer:" not in seen  # a later step is not shown
        assert page.run("document.querySelectorAll('.question mfrac').length") == 1
        assert page.run("document.title") == "e2h label" and "<script>" in seen  # text, not run
        for version, key in enumerate(["1", "2", "1", "3", "u", "u", "2", "3", "1"], start=1):
            press(page, key)
            wait_for(page, version)
        press(page, "x")  # no key of ours
        press(page, "r")  # this queue has no references
        seen = page.run("document.body.innerText")
        assert "All 3 solutions are labelled" in seen
        assert page.troubles == []
        asked = {address.rpartition("/")[0] for address in page.requested if address != "data:,"}
        assert asked == {f"http://127.0.0.1:{server.port}"}
    told = [[s["completions"][0]["rating"] for s in line["label"]["steps"]] for line in exported(folder)]
    assert told == [[1, 0], [0, -1], [1]]
