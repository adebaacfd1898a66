"""Output of the command line about an experiment, from an empty home to the report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_stub import TOKEN, hub_stub
from read_only import python_without_writing
from tiny_experiment import e2h, environment, new_home

from e2h_pipeline.artifacts.tables import read_table
from e2h_pipeline.evaluation.results import RESULT_COLUMNS

pytestmark = pytest.mark.slow
STAGES = 25


def _stages(text: str, kind: str) -> set[str]:
    return set(re.findall(rf"^  (\w+) +{kind} ", text, re.MULTILINE))


def _json(home: Path, *arguments: str) -> Any:
    done = e2h(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_other_easy_data_remakes_exactly_what_is_below(tiny_home: Path) -> None:
    """The source is split again. Only the easy partition differs, so all stages that do not depend
    on it are reused."""
    told = _json(tiny_home, "run", "tiny/problems.easy_limit=24", "--dry-run")["stages"]
    assert {stage["stage"] for stage in told if stage["reused"]} == {"problem_source", "base_model"}
    assert all(stage["seconds"] is not None for stage in told if not stage["reused"])
    done = e2h(tiny_home, "run", "tiny/problems.easy_limit=24")
    assert done.returncode == 0, done.stderr
    assert _stages(done.stdout, "reused") == {"problem_source", "base_model", "base_answers"}
    assert f"{STAGES - 3} stages computed, 3 reused; 27 checks passed, 0 failed" in done.stdout


def test_the_pool_reads_the_evaluator_only_where_it_gives_samples_up(tiny_home: Path) -> None:
    whole = _json(tiny_home, "inspect", "benchmark_samples", "--key", "tiny")
    assert set(whole["inputs"]) == {"sft_policy", "benchmark_questions"}
    key = "tiny/early_stop.enabled=true/early_stop.every=4"
    done = e2h(tiny_home, "run", key, "--select", "+early_stop_metrics")
    assert done.returncode == 0, done.stderr
    watched = _json(tiny_home, "inspect", "benchmark_samples", "--key", key)
    assert set(watched["inputs"]) == {
        "sft_policy",
        "benchmark_questions",
        "easy_evaluator",
        "easy_step_labels",
    }
    assert watched["summary"]["samples"] == whole["summary"]["samples"]
    assert watched["summary"]["tokens"] <= whole["summary"]["tokens"]
    assert _stages(done.stdout, "computed") >= {"benchmark_samples", "early_stop_metrics"}


def test_an_evaluator_alone_is_judged_on_steps_that_people_labelled(tiny_home: Path, tmp_path: Path) -> None:
    """Ratings of ladder problems as PRM800K has them: of easy ones that trained, and of hard ones."""
    hard = _table(tiny_home, "hard_questions")[:12]
    file = tmp_path / "steps" / "prm800k_human.jsonl"
    file.parent.mkdir()
    ratings = [[1, 1], [1, -1], [-1]]
    records = [
        {
            "unique_id": row["problem_id"],
            "level": row["level"],
            "problem": row["question"],
            "steps": [f"{i}+{j}={i}" for j in range(len(ratings[i % 3]))],
            "ratings": ratings[i % 3],
        }
        for i, row in enumerate(hard)
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    (tiny_home / "recipes" / "alone.yaml").write_text(
        f"extends: tiny\nscope: evaluator\nhuman_steps: {{sources: [prm800k], path: {file.parent}}}\n"
    )
    done = e2h(tiny_home, "run", "alone")
    assert done.returncode == 0, done.stderr
    assert _stages(done.stdout, "computed") == {"recipe", "evaluator_generalization", "report"}
    assert not {"rl_policy", "benchmark_samples", "gold_answers"} & _stages(done.stdout, "reused")
    rows = _json(tiny_home, "results", "alone", "--steps")
    found = {(row["judge"], row["metric"], row["levels"]): row for row in rows}
    assert found["evaluator", "step_auroc", "hard"]["count"] == 20
    assert ("length and position", "step_auroc_over", "hard") in found
    assert "e2h results alone --steps" in e2h(tiny_home, "results", "alone").stderr
    told = e2h(tiny_home, "results", "alone", "--steps")
    assert "PRM800K, human labels" in told.stdout
    assert re.search(r"Step AUROC \(right steps above wrong ones\) +\S+ \[", told.stdout)
    assert "…" not in e2h(tiny_home, "results", "alone", "--steps", "--all").stdout
    page = Path(e2h(tiny_home, "report", "alone").stdout.strip()).read_text()
    assert "Steps that people labelled" in page
    assert "StrictUndefined" not in page
    file.write_text(file.read_text().replace('"ratings": [-1]', '"ratings": [1]'))
    again = e2h(tiny_home, "run", "alone")
    assert _stages(again.stdout, "computed") == {"evaluator_generalization", "report"}


def test_an_experiments_evaluator_is_judged_by_its_key(tiny_home: Path, tmp_path: Path) -> None:
    """Problems that trained it are left out, and its standing is told. (The few easy solutions of `tiny`
    are all wrong, so no threshold comes from them.)"""
    easy, hard = (_table(tiny_home, name)[:8] for name in ("easy_step_labels", "hard_questions"))
    records = [
        {
            "question": row["question"],
            "level": row["level"],
            "steps": ["1+1=2", "2+2=3"],
            "label": i % 2 or -1,
        }
        for i, row in enumerate([*easy, *hard])
    ]
    file = tmp_path / "steps.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    told = _json(tiny_home, "judge", str(file), "--evaluator", "tiny", "--threshold", "0.5")
    assert told["threshold"]["rule"] == "fixed" and told["strict"] and told["leaks"] == []
    assert (
        told["counts"]["left out: their problem trained the evaluator or chose its threshold"]
        == len(easy)
        > 0
    )
    assert told["solutions"] == len(hard)
    found = {(row["judge"], row["metric"], row["levels"]) for row in told["rows"]}
    assert ("evaluator", "first_error_f1", "hard") in found


def _table(home: Path, asset: str) -> list[dict[str, Any]]:
    path = _json(home, "inspect", asset, "--key", "tiny")["path"]
    return read_table(Path(path) / "data.parquet").to_pylist()


def test_results_have_every_column_and_the_easy_data_behind_them(tiny_home: Path) -> None:
    rows = _json(tiny_home, "results", "tiny")
    assert all(set(RESULT_COLUMNS) <= row.keys() for row in rows)
    assert {row["policy"] for row in rows} == {"base", "sft", "rl"}
    manifest = _json(tiny_home, "inspect", "easy_problems", "--key", "tiny")
    assert {row["data_versions"]["easy_problems"] for row in rows} == {manifest["data_version"]}
    assert manifest["seeds"] == {"problems.seed": 0, "problems.world.seed": 0}


def test_lineage_leads_every_number_to_its_easy_data(tiny_home: Path) -> None:
    found = _json(tiny_home, "lineage", "tiny")
    (easy,) = found["easy_data_version"]
    for number in found["numbers"]:
        assert number["easy_data_version"] == ([] if number["policy"] == "base" else [easy])
        for way in found["sources"][number["source"]]["paths"]:
            assert way[0]["asset"] == number["source"]
            assert way[-1] == {**way[-1], "asset": "easy_problems", "data_version": easy}
    assert "easy_problems" in e2h(tiny_home, "lineage", "tiny").stdout


def test_lineage_names_who_made_each_artifact(tiny_home: Path) -> None:
    artifacts = _json(tiny_home, "lineage", "tiny")["artifacts"]
    assert {"easy_problems", "sft_policy", "rerank_metrics"} <= {row["asset"] for row in artifacts}
    assert all(row["dagster_run"] and row["mlflow"] and row["code_version"] for row in artifacts)
    assert artifacts[0]["dagster_run"][:8] in e2h(tiny_home, "lineage", "tiny").stdout


def test_mlflow_has_what_people_compare_experiments_by(tiny_home: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tiny_home / 'mlflow.db'}")
    (parent,) = (
        run
        for run in client.search_runs(["1"])
        if run.data.tags.get("e2h.parent") and run.info.run_name == "tiny"
    )
    rows = _json(tiny_home, "results", "tiny")
    for policy, levels in (("sft", "easy"), ("rl", "hard")):
        (row,) = (r for r in rows if (r["policy"], r["method"], r["levels"]) == (policy, "greedy", levels))
        assert parent.data.metrics[f"{levels}/{policy} greedy"] == row["accuracy"]
    (easy,) = _json(tiny_home, "lineage", "tiny")["easy_data_version"]
    assert parent.data.tags["e2h.easy_data_version"] == easy
    assert parent.data.tags.items() >= {"e2h.recipe": "tiny", "e2h.seed": "0", "e2h.strict": "true"}.items()
    assert "rl.updates" in parent.data.params and parent.data.metrics["wall_seconds"] > 0


def test_the_difference_of_two_results_begins_at_the_changed_data(tiny_home: Path) -> None:
    """`tiny` and the same with fewer easy problems, which the first test of this file ran."""
    found = _json(tiny_home, "diff", "tiny", "tiny/problems.easy_limit=24")
    by_name = {asset["asset"]: asset for asset in found["assets"]}
    assert "easy_problems" in found["roots"]
    fields = {change["field"] for change in by_name["easy_problems"]["recipe"]}
    assert fields == {"problems.easy_limit"}
    assert by_name["base_model"]["same_artifact"]
    assert "sft_policy" not in found["roots"]
    greedy = [row for row in found["numbers"] if (row["policy"], row["levels"]) == ("base", "all")]
    assert all(row["paired"] and row["difference"] == row["ci_low"] == row["ci_high"] == 0 for row in greedy)
    old = found["first"]["key"][:12]
    again = _json(tiny_home, "diff", f"tiny@{old}", "tiny/problems.easy_limit=24")
    assert again["numbers"] == found["numbers"]
    text = e2h(tiny_home, "diff", "tiny", "tiny/problems.easy_limit=24").stdout
    assert "problems.easy_limit: 30 -> 24" in text


def test_the_store_verifies_until_a_byte_changes(tiny_home: Path) -> None:
    done = e2h(tiny_home, "verify")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all as the manifests say" in done.stdout
    model = _json(tiny_home, "inspect", "easy_problems", "--key", "tiny")["path"]
    file = next(Path(model).glob("*.parquet"))
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:-1] + b"X")
        done = e2h(tiny_home, "verify", "tiny", "--json")
        assert done.returncode == 1
        (finding,) = json.loads(done.stdout)["findings"]
        assert (finding["kind"], finding["where"]) == ("damaged", str(file))
    finally:
        file.write_bytes(whole)


def test_collection_says_what_before_it_does_and_a_second_run_finds_all(tiny_home: Path) -> None:
    before = len(_json(tiny_home, "verify")["findings"]), _json(tiny_home, "verify")["artifacts"]
    told = _json(tiny_home, "gc", "--grace", "0")
    assert told["removed"] is None
    assert (len(_json(tiny_home, "verify")["findings"]), _json(tiny_home, "verify")["artifacts"]) == before
    done = _json(tiny_home, "gc", "--grace", "0", "--yes")
    assert done["removed"] and done["spared"] == []
    assert _json(tiny_home, "verify")["findings"] == []
    again = e2h(tiny_home, "run", "tiny")
    assert f"0 stages computed, {STAGES} reused" in again.stdout, again.stdout


def test_the_report_is_one_page(tiny_home: Path) -> None:
    done = e2h(tiny_home, "report", "tiny")
    page = Path(done.stdout.strip())
    assert page == tiny_home / "reports" / "tiny.html"
    assert "LADDER500" in page.read_text()


def test_experiments_stand_side_by_side_and_all_in_an_index(tiny_home: Path) -> None:
    """With the recipe that the first test of this file ran."""
    other = "tiny/problems.easy_limit=24"
    done = e2h(tiny_home, "compare", other, "tiny", "--html")
    page = Path(done.stdout.strip())
    assert page == tiny_home / "reports" / "compare-tiny__problems.easy_limit=24--tiny.html"
    text = page.read_text()
    assert "LADDER500, hard levels" in text and "problems.easy_limit</td>" in text
    told = e2h(tiny_home, "compare", other, "tiny").stdout
    assert "B - A" in told and "problems.easy_limit: 24 -> 30" in told
    index = Path(e2h(tiny_home, "report", "--index").stdout.strip())
    assert index == tiny_home / "reports" / "index.html"
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', index.read_text())
    named = {name: index.parent / link for link, name in links}
    assert {"tiny", other, page.stem} <= named.keys()
    assert all(file.is_file() for name, file in named.items() if name in ("tiny", other))


_READING = (
    "results tiny --json",
    "lineage tiny --json",
    "verify --json",
    "inspect sft_policy --key tiny --json",
    "report tiny",
    "diff tiny tiny --json",
    "compare tiny tiny/problems.easy_limit=24",
    "sweep evaluators --status --json",
    "gc --json",
)
_ALL = f"""
from typer.testing import CliRunner
from e2h_pipeline.cli.app import app

for command in {_READING}:
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, (command, done.output, done.exception)
    print(command, len(done.stdout) > 0, sep=": ")
"""


def test_experiments_are_read_from_python_as_the_page_says(
    tiny_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.setenv("E2H_HOME", str(tiny_home))
    exec(compile(code.replace("ladder", "tiny"), "docs/python.md", "exec"), {})  # noqa: S102  the page's own text
    told = capsys.readouterr().out
    assert "tiny" in told and "weighted-vote" in told


def test_an_experiment_goes_to_another_home_as_a_folder(tiny_home: Path, tmp_path: Path) -> None:
    done = e2h(tiny_home, "export", "tiny", str(tmp_path / "out"), "--without", "benchmark_samples")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert {"README.md", "report.html", "results.json", "lineage.json", "SHA256SUMS"} < {
        p.name for p in out.iterdir()
    }
    assert json.loads((out / "results.json").read_text()) == _json(tiny_home, "results", "tiny")
    other = new_home(tmp_path / "other")
    done = e2h(other, "import", str(out))
    assert done.returncode == 0 and "1 left out of the folder" in done.stdout, done.stdout + done.stderr
    again = e2h(other, "run", "tiny", "--select", "+sft_policy")
    assert again.returncode == 0, again.stderr
    assert _stages(again.stdout, "computed") == set() and "sft_policy" in _stages(again.stdout, "reused")
    assert "is there already" in e2h(tiny_home, "export", "tiny", str(out)).stderr


_HEAVY = (
    "dagster",
    "torch",
    "transformers",
    "mlflow",
    "pandas",
    "matplotlib",
    "sqlalchemy",
    "datasets",
    "ray",
)
_LIGHT = (
    "results tiny",
    "results",
    "lineage tiny",
    "inspect sft_policy --key tiny",
    "diff tiny tiny",
    "compare tiny tiny/problems.easy_limit=24",
    "report --index",
    "report tiny",
)


def test_an_experiment_and_a_model_of_it_go_to_the_hub(tiny_home: Path) -> None:
    for arguments, why in (
        (["tiny"], "give a folder"),
        (["tiny", "x", "--model", "rl_policy"], "goes with --hub"),
    ):
        assert why in e2h(tiny_home, "export", *arguments).stderr
    with hub_stub() as hub:
        told = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*"}
        for model in (["--model", "sft_policy"], ["--without", "benchmark_samples"]):
            hub.asked.clear()
            done = subprocess.run(
                [sys.executable, "-m", "e2h_pipeline.cli.app", "export", "tiny", "--hub", "me/it", *model],
                env=environment(tiny_home) | told,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.strip().endswith("/me/it/commit/1") and TOKEN not in done.stdout + done.stderr
            sent, model_card = hub.files(), b"library_name: transformers"
            if "--model" in model:
                assert {"config.json", "model.safetensors", "tokenizer.json", "manifest.json"} <= sent.keys()
                assert model_card in sent["README.md"] and any(
                    "/models/" in path for _, path, _, _ in hub.asked
                )
            else:
                assert {"results.json", "report.html", "lineage.json"} <= sent.keys()
                assert any("/datasets/" in path for _, path, _, _ in hub.asked)


def test_commands_that_read_do_not_load_dagster(tiny_home: Path) -> None:
    """They would take seconds. `sweep --status` and `verify` need the stages, which are Dagster's assets."""
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom e2h_pipeline.cli.app import app\n"
        f"for command in {_LIGHT}:\n"
        "    done = CliRunner().invoke(app, command.split())\n"
        f"    print(command, done.exit_code, [m for m in {_HEAVY} if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(tiny_home),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"{command} 0 []" for command in _LIGHT]


def test_commands_that_read_need_no_home_that_can_be_written(tiny_home: Path) -> None:
    said = python_without_writing(tiny_home, _ALL).splitlines()
    assert said == [f"{command}: True" for command in _READING]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nothing"], "no recipe 'nothing'"),
        (["run", "tiny/rl.speed=1"], "no field 'rl.speed'"),
        (["run", "tiny", "--select", "rl_polic"], "no stage 'rl_polic'; did you mean 'rl_policy'"),
        (["results", "tiny/seed=9"], "has no results yet; run: e2h run tiny/seed=9"),
        (["inspect", "policy", "--key", "tiny"], "no asset 'policy'; there are: base_answers"),
        (["report", "tiny/seed=9"], "has no report yet"),
        (["diff", "tiny", "tiny/seed=9"], "has no results yet; run: e2h run tiny/seed=9"),
        (["diff", "tiny@ffff", "tiny"], "tiny@ffff: 0 results in the store have a key that begins so"),
        (["compare", "tiny"], "compare takes 2 to 26 experiments"),
        (["compare", "tiny", "tiny"], "tiny is named twice"),
        (["verify", "tiny/seed=9"], "has nothing in the store"),
        (
            ["run", "tiny/base.model=nowhere/base.train=false", "--select", "+base_model"],
            "base_model failed: ",
        ),
    ],
)
def test_errors_are_one_line(tiny_home: Path, arguments: list[str], says: str) -> None:
    done = e2h(tiny_home, *arguments)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("e2h: ") and says in last
    assert "Traceback" not in done.stderr
