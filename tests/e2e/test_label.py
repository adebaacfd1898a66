"""A person's labels of easy samples become `labels.source: people` and train an evaluator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser import Page, browser, needs_browser
from label_servers import label_server, press, wait_for
from tiny_experiment import e2h

from e2h_pipeline.artifacts.tables import TABLE, read_table
from e2h_pipeline.problems.ladder.checker import step_labels
from e2h_pipeline.problems.ladder.domain import LADDER

pytestmark = [pytest.mark.slow, needs_browser]
COUNT = 30
CURRENT = "[...document.querySelectorAll('.step')].map(e => e.textContent)"


def key_of(page: Page) -> str:
    """What a person presses who checks the current step of a ladder problem."""
    question = page.run("document.querySelector('.question').textContent")
    *earlier, last = page.run(CURRENT)
    step, answered, answer = last.partition("Answer: ")
    completion = "\n\n".join([*earlier, step, *(["# Answer", answer] if answered else [])])
    labels = step_labels(question, completion)
    return "1" if 0 not in labels else "3"


def solutions_of(home: Path, file: Path) -> None:
    """Right and wrong solutions of easy problems: the tiny policy itself writes hardly a right step."""
    told = json.loads(e2h(home, "inspect", "easy_problems", "--key", "tiny", "--json").stdout)
    rows = read_table(Path(told["path"]) / TABLE).to_pylist()
    lines = []
    for number, row in enumerate(rows[:COUNT]):
        wrong = str((int(row["answer"]) + 1) % 7)
        last = row["steps"][-1].rpartition("=")[0] + "=" + (wrong if number % 2 else row["answer"])
        completion = LADDER.text.completion([*row["steps"][:-1], last], last[-1])
        lines.append({"question": row["question"], "completion": completion})
    lines.append({"question": "0+0", "completion": "of no problem of this experiment"})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_easy_samples_of_an_experiment_wait_for_labels(tiny_home: Path, tmp_path: Path) -> None:
    with label_server(
        tiny_home, "--key", "tiny", "--out", str(tmp_path / "out.jsonl"), "--count", "5"
    ) as server:
        state = json.loads(server.ask("GET", "/state")[1])
    assert "solution 1 of 5" in state["html"]


def test_labels_of_a_person_train_an_evaluator(tiny_home: Path, tmp_path: Path) -> None:
    out, queue = tmp_path / "people.jsonl", tmp_path / "queue.jsonl"
    solutions_of(tiny_home, queue)
    asked = [str(queue), "--key", "tiny", "--out", str(out), "--labeller", "ada"]
    version = 0
    with label_server(tiny_home, *asked) as server, browser(tmp_path / "profile") as page:
        page.open(server.address)
        wait_for(page, 0)
        assert "shows the reference answer" in page.run("document.body.innerText")
        assert page.run("document.querySelector('.reference b')") is None  # only where asked for
        press(page, "r")
        wait_for(page, version := version + 1)
        assert page.run("document.querySelector('.reference b').textContent").strip()
        while not page.run("document.querySelector('h1')?.textContent"):
            press(page, key_of(page))
            wait_for(page, version := version + 1)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == COUNT
    assert all(line["question"]["ground_truth_answer"] is None for line in lines)

    recipe = tiny_home / "recipes" / "by-people.yaml"
    recipe.write_text(
        f"extends: tiny\ndescription: labels of a person\nlabels: {{source: people, path: {out}}}\n"
    )
    try:
        done = e2h(tiny_home, "run", "by-people", "--select", "+easy_evaluator")
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(
            e2h(tiny_home, "inspect", "easy_step_labels", "--key", "by-people", "--json").stdout
        )
        labels = told["summary"]
        assert labels["solutions"] > 0 and labels["wrong_steps"] > 0 and labels["right_steps"] > 0
        rated = sum(len(line["label"]["steps"]) for line in lines)
        assert 0 < labels["labels_bought"] <= rated
        assert labels["source_records"]["labellers"] == 1
        assert labels["source_records"]["reference_shown"] == 1
        evaluator = json.loads(
            e2h(tiny_home, "inspect", "easy_evaluator", "--key", "by-people", "--json").stdout
        )
        assert evaluator["inputs"]["easy_step_labels"]["data_version"] == told["data_version"]
    finally:
        recipe.unlink()  # other tests share the home
