"""The whole pipeline, small, run like a user's: computed and reused stages, and the cost of a
kill."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chat_templates import chat_tokenizer
from tiny_experiment import e2h, new_home, start

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.models.base import save_model
from e2h_pipeline.problems.ladder.problems import draw_chain
from e2h_pipeline.recipe import LadderWorld

pytestmark = pytest.mark.slow


def run(home: Path, key: str, *options: str) -> dict[str, set[str]]:
    """Run an experiment; the stages it computed and those it reused."""
    done = e2h(home, "run", key, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        kind: set(re.findall(rf"^  (\w+) +{kind} ", done.stdout, re.MULTILINE))
        for kind in ("computed", "reused")
    }


def versions(home: Path) -> dict[tuple[str, str], str]:
    """(asset, key) -> data version of everything in the store."""
    manifests = (json.loads(p.read_text()) for p in sorted((home / "store").glob("*/*/manifest.json")))
    return {(m["asset"], m["key"]): m["data_version"] for m in manifests}


def test_a_changed_knob_re_makes_what_depends_on_it_and_no_more(tiny_home: Path) -> None:
    made = run(tiny_home, "tiny/rl.updates=4")["computed"]
    assert made == {"recipe", "rl_policy", "rl_answers", "rl_audit", "benchmark_metrics", "report"}


def kill_when(home: Path, ready: Callable[[], bool]) -> None:
    """Run the experiment and kill -9 its process as soon as `ready` is true."""
    process = start(home, "run", "tiny")
    try:
        deadline = time.monotonic() + 300
        while not ready():
            assert process.exitcode is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.kill()
        process.join()


def test_killed_in_every_long_stage_it_ends_with_the_same_data_versions(
    tiny_home: Path, tmp_path: Path
) -> None:
    """In a copy of a finished home that lost these stages: what comes out is as before, so the
    stages below them are reused."""
    home = tmp_path / "e2h"
    shutil.copytree(tiny_home, home, symlinks=True)
    (home / "mlflow.db").unlink()  # it has paths of the other home
    long = {"base_model", "benchmark_samples", "rl_policy"}
    for stage in long:
        shutil.rmtree(home / "store" / stage)
        shutil.rmtree(home / "work" / stage)

    def work(pattern: str) -> Callable[[], bool]:
        return lambda: any((home / "work").glob(pattern))

    kill_when(home, work("base_model/*/checkpoint-*/complete"))
    kill_when(home, work("benchmark_samples/*/part-00001-000000*.parquet"))
    kill_when(home, work("rl_policy/*/update-*"))
    assert run(home, "tiny")["computed"] == {"rl_policy"}
    again, uninterrupted = versions(home), versions(tiny_home)
    assert again == {key: uninterrupted[key] for key in again}
    assert {asset for asset, _ in again} >= long
    left = {path.parts[-3] for path in (home / "work").glob("*/*/*")}
    growing = {"easy_samples", "benchmark_samples", "base_answers", "sft_answers", "rl_answers"}
    assert left == growing, "work of finished stages is removed, but for pools that can grow"


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


OF_A_HARD_ONE = "6+6=5 6+6=5"
"""A step of a hard problem, labelled under the id of an easy one."""


@pytest.fixture
def math_home(tmp_path: Path) -> Path:
    """A home whose recipe reads a folder in MATH's layout (with ladder problems), labels in
    PRM800K's format, and a local base model."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rng, rows, labels = random.Random(0), [], []
    for i in range(60):
        level = 1 + i % 5
        chain = draw_chain(rng, LadderWorld(), level)
        steps = chain.true_steps()
        rows.append(
            {
                "unique_id": f"train/algebra/{i}.json",
                "problem": f"{chain.question}",
                "solution": "\n\n".join(steps),
                "answer": steps[-1][-1],
                "subject": "Algebra",
                "level": level,
            }
        )
        rated = {"id": f"l{i}", "unique_id": rows[-1]["unique_id"], "problem": chain.question, "level": level}
        labels.append({**rated, "steps": steps, "ratings": [1] * len(steps), "final_answer": None})
        labels.append({**rated, "steps": ["1+1=3"], "ratings": [-1], "final_answer": None})
    labels.append({**labels[0], "problem": rows[3]["problem"], "steps": [OF_A_HARD_ONE], "ratings": [1]})
    write_lines(tmp_path / "math" / "math_train.jsonl", rows[:40])
    write_lines(tmp_path / "math" / "math_test.jsonl", rows[40:])
    write_lines(tmp_path / "math" / "math500.jsonl", rows[50:])
    write_lines(tmp_path / "labels.jsonl", labels)
    tokenizer = chat_tokenizer("qwen")  # reads any text, byte by byte
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    save_model(LlamaForCausalLM(config), tokenizer, tmp_path / "model")
    home = new_home(tmp_path / "e2h")
    (home / "recipes" / "mathlike.yaml").write_text(
        f"""
extends: tiny
problems: {{source: math, path: {tmp_path / "math"}, strict_counts: false, validation: 4,
  easy_limit: null, hard_limit: null, benchmark_limit: null}}
base: {{train: false, model: {tmp_path / "model"}}}
easy_samples: {{samples: 0}}
labels: {{source: prm800k, path: {tmp_path / "labels.jsonl"}}}
rl: {{updates: 2}}
"""
    )
    return home


def test_one_changed_easy_problem_re_makes_exactly_what_is_below_it(math_home: Path) -> None:
    """The source has changed, so all four parts are cut again. Three are equal to before, and
    stages that depend only on them are not made again."""
    assert run(math_home, "mathlike")["reused"] == set()
    (labelled,) = (math_home / "store" / "easy_step_labels").glob("*/data.parquet")
    completions = read_table(labelled)["completion"].to_pylist()
    assert completions and not any(OF_A_HARD_ONE in text for text in completions)
    (easy,) = (math_home / "store" / "easy_problems").glob("*/data.parquet")
    trained_on = next(row["problem_id"] for row in read_table(easy).to_pylist() if row["split"] == "train")
    for file in (math_home.parent / "math").glob("math_t*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["solution"] += "\n\n0+0=0" if row["unique_id"] == trained_on else ""
        write_lines(file, rows)

    again = run(math_home, "mathlike")
    assert again["reused"] == {
        "recipe",
        "base_model",
        "base_answers",
        "easy_evaluator",
    }  # from the same labels
    found = versions(math_home)
    for part, distinct in (("easy_problems", 2), ("hard_questions", 1), ("gold_answers", 1)):
        assert len([key for key in found if key[0] == part]) == 2
        assert len({version for (asset, _), version in found.items() if asset == part}) == distinct


def test_a_policy_of_rewritten_problems_and_an_evaluator_of_automatic_labels(math_home: Path) -> None:
    """The other half of the paper's Table 2: MetaMathQA's solutions and Math-Shepherd's labels,
    each in its own format. Rewritten held-out problems change nothing; rewritten easy problems
    change the training solutions."""
    (math_home / "recipes" / "rewritten.yaml").write_text(
        f"""
extends: mathlike
solutions: {{source: metamath, path: {math_home.parent / "MetaMathQA.json"}, per_question: 2}}
labels: {{source: shepherd, path: {math_home.parent / "shepherd.jsonl"}}}
"""
    )
    problems = [
        json.loads(line)
        for file in sorted((math_home.parent / "math").glob("math_t*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    records, labels = [], []
    for problem in problems:
        asked, steps = problem["problem"], problem["solution"].split("\n\n")
        response = "\n".join([*steps, f"The answer is: {problem['answer']}"])
        record = {"query": asked, "response": response, "type": "MATH_AnsAug", "original_question": asked}
        records += [record, {**record, "query": asked[::-1], "type": "MATH_Rephrased"}]
        told = [f"Step {n}: {step} " for n, step in enumerate(steps, start=1)]
        texts = [f"{asked} " + "\n".join(step + sign for step in told) for sign in ("ки", "+", "-")]
        labels += [{"input": texts[0], "label": text, "task": "MATH"} for text in texts[1:]]
    records.append({**records[0], "type": "GSM_AnsAug", "query": "1+2+3", "original_question": "1+2+3"})
    held_out = [p["problem"] for p in problems if p["level"] > 3]
    records += [{**records[-1], "query": f" $ {text}$."} for text in held_out]  # known by content
    (math_home.parent / "MetaMathQA.json").write_text(json.dumps(records))
    write_lines(math_home.parent / "shepherd.jsonl", labels)

    made = run(math_home, "rewritten", "--select", "+easy_evaluator,+sft_answers")["computed"]
    assert {"easy_solutions", "sft_policy", "easy_step_labels", "easy_evaluator"} <= made
    (table,) = (math_home / "store" / "easy_solutions").glob("*/data.parquet")
    taught = read_table(table).to_pylist()
    levels = {problem["unique_id"]: problem["level"] for problem in problems}
    assert not {row["question"].strip(" $.") for row in taught} & set(held_out)
    assert {levels.get(row["problem_id"]) for row in taught} == {1, 2, 3, None}
    assert {row["source"] for row in taught} == {"MATH_AnsAug", "MATH_Rephrased", "GSM_AnsAug"}
    manifest = json.loads((table.parent / "manifest.json").read_text())
    assert manifest["inputs"].keys() == {"easy_problems", "hard_questions", "benchmark_questions"}

    hard = next(r for r in records[:-1] if levels[by_text(problems, r["original_question"])] > 3)
    hard["response"] = "Something else.\nThe answer is: 0"
    (math_home.parent / "MetaMathQA.json").write_text(json.dumps(records))
    again = run(math_home, "rewritten", "--select", "+sft_policy")["computed"]
    assert again == {"easy_solutions"}  # the file differs, the training solutions do not
    easy = next(r for r in records if by_text(problems, r["original_question"]) == taught[0]["problem_id"])
    easy["response"] = "Something else.\nThe answer is: 0"
    (math_home.parent / "MetaMathQA.json").write_text(json.dumps(records))
    assert run(math_home, "rewritten", "--select", "+sft_policy")["computed"] == {
        "easy_solutions",
        "sft_policy",
    }


def by_text(problems: list[dict[str, Any]], question: str) -> str:
    """The id of the problem with this text."""
    return str(next(p["unique_id"] for p in problems if p["problem"] == question))
