"""Attacks that pages, keys and files must not allow. docs/security.md lists the gaps of Dagster
itself."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import toy_stages as toy
from hypothesis import example, given
from hypothesis import strategies as st

from e2h_pipeline.artifacts.request import StoreError
from e2h_pipeline.artifacts.store import ArtifactStore
from e2h_pipeline.models import base
from e2h_pipeline.recipe import Recipe, RecipeError, canonical_key
from e2h_pipeline.sweeps.spec import SweepError, load_sweep, read_sweep
from resources.store import latest_artifact
from resources.tracking import TrackingResource

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("e2h_pipeline", "assets", "resources")
HOSTILE = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "../../etc/passwd",
            "/etc/passwd",
            "ladder/../../x",
            "ladder/base.model=../../x",
            "ladder/seed=..",
            "ladder\x00",
            "ladder\n",
            "ladder/seed=1\x1b[2J",
            "<script>alert(1)</script>",
            "ladder/seed=<img/src=x>",
            "..",
            ".",
            "~",
            "ladder\\..\\x",
            "a" * 5000,
        ]
    ),
    st.lists(st.sampled_from(["..", ".", "/", "ladder", "seed=1", "\x1b]0;x\x07", "=", "%2e%2e"])).map(
        "/".join
    ),
)


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """(place, call) for every call in our packages."""
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_nothing_is_unpickled_or_evaluated() -> None:
    """Only the PRM800K grader evaluates, because it must decide like its original. It runs in its
    own process; tests/grading/test_hostile.py tests its filter. And programs and their tests run in the
    sandbox; tests/grading/code/test_hostile_programs.py tests its walls."""
    forbidden = {"eval", "exec", "compile", "__import__", "eval_expr", "parse_expr", "sympify"}
    dangerous = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "joblib.load"}
    found = []
    for place, call in _calls():
        name = ast.unparse(call.func)
        keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
        weights_only = keywords.get("weights_only") == "True"
        last = name.rpartition(".")[2]
        builtin = isinstance(call.func, ast.Name) or name.startswith(("sympy", "builtins"))
        if (
            (builtin and last in forbidden)
            or name in dangerous
            or (name == "torch.load" and not weights_only)
            or (name == "np.load" and keywords.get("allow_pickle") != "False")
            or keywords.get("allow_pickle") == "True"
            or keywords.get("shell") == "True"
        ):
            found.append(f"{place}: {name}")
    grader = "e2h_pipeline/grading/tasks/prm800k.py:"
    assert sorted(place.split(": ")[1] for place in found if place.startswith(grader)) == [
        "compile",
        "sympy_parser.eval_expr",
    ]
    sandboxed = (
        "e2h_pipeline/grading/code/inside/program.py:",
        "e2h_pipeline/grading/code/inside/tester.py:",
    )
    assert not [place for place in found if not place.startswith((grader, *sandboxed))]


def test_what_runs_programs_is_imported_nowhere_but_inside_the_sandbox() -> None:
    importers = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (*(alias.name for alias in node.names), getattr(node, "module", "") or "")
        if name.rpartition(".")[2] in ("program", "tester")
    ]
    assert importers and set(importers) == {"e2h_pipeline/grading/code/inside/zygote.py"}


def test_no_module_imports_pickle() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & forbidden, f"{path}:{node.lineno}"  # type: ignore[attr-defined]


def test_remote_code_runs_only_where_the_recipe_says_so() -> None:
    said = {
        place.split(":")[0]: ast.unparse(word.value)
        for place, call in _calls()
        for word in call.keywords
        if word.arg == "trust_remote_code"
    }
    assert said == {str(Path(base.__file__).relative_to(ROOT)): "options.trust_remote_code"}
    assert Recipe.from_key("ladder").base.trust_remote_code is False
    assert Recipe.from_key("llemma-7b").base.trust_remote_code is False


@pytest.mark.parametrize("value", ["true", "false", "True", "FALSE"])
def test_no_key_turns_remote_code_on(value: str) -> None:
    with pytest.raises(RecipeError, match=r"cannot be set in a key.*write a recipe file"):
        Recipe.from_key(f"ladder/base.trust_remote_code={value}")


def test_a_key_cannot_point_a_recipe_that_trusts_its_model_to_another_one(tmp_path: Path) -> None:
    (tmp_path / "trusting.yaml").write_text("base: {model: some/model, trust_remote_code: true}\n")
    assert Recipe.from_key("trusting/seed=1", [tmp_path]).base.trust_remote_code
    for override in ("base.model=other", "base.revision=main"):
        with pytest.raises(RecipeError, match="cannot be set in a key"):
            Recipe.from_key(f"trusting/{override}", [tmp_path])


@given(key=HOSTILE)
@example(key="ladder/seed=1/seed=1/\x1b[31m")
def test_a_key_is_refused_or_stays_inside_the_home(key: str) -> None:
    try:
        Recipe.from_key(key)
        name = canonical_key(key)
    except RecipeError as error:
        assert "\x1b" not in str(error) and "\x07" not in str(error)
        return
    home = Path("/home/e2h")
    page = home / "reports" / f"{name.replace('/', '__')}.html"  # as `e2h report` writes it
    assert page.parent == home / "reports" and page.resolve() == page
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,+-=/")


@given(asset=HOSTILE, key=HOSTILE)
def test_no_asset_or_artifact_key_leads_out_of_the_store(asset: str, key: str) -> None:
    store = ArtifactStore(Path("/home/e2h"))
    for name, digest in ((asset, "0" * 64), ("easy_evaluator", key)):
        try:
            assert store.folder(name, digest).is_relative_to("/home/e2h/store")
            assert ".." not in store.folder(name, digest).parts
        except StoreError:
            pass


@given(name=HOSTILE)
def test_no_sweep_name_leads_out_of_its_folder(name: str) -> None:
    if not name.endswith((".yaml", ".yml")):  # a file given on the command line may lie anywhere
        with pytest.raises(SweepError):
            load_sweep(name)


@pytest.mark.parametrize("name", ["..evil", "a b", "\x1b[2J", "<b>", "A"])
def test_a_sweep_file_cannot_name_logs_and_pages_as_it_likes(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.yaml"
    path.write_text("recipe: ladder\naxes: {seed: [1, 2]}\n")
    with pytest.raises(SweepError):
        read_sweep(path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_a_forged_artifact_key_leads_to_no_other_folder(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """An event of another code location's run may name an artifact, but only a complete one of this
    asset."""
    toy.materialize(tmp_path, instance)
    for forged in ("../../../etc", "0" * 64, "\x1b[2J"):
        instance.report_runless_asset_event(
            dg.AssetMaterialization("toy_easy", partition=toy.KEY, metadata={"artifact_key": forged})
        )
        with pytest.raises(StoreError, match="reported from outside"):
            latest_artifact(instance, ArtifactStore(tmp_path), "toy_easy", toy.KEY)


SECRETS = {
    "HF_TOKEN": "hf_" + "q" * 34,
    "MLFLOW_TRACKING_USERNAME": "planted-user-name",
    "MLFLOW_TRACKING_PASSWORD": "planted-tracking-word",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+word0000000000000000000000000",
}
IN_ADDRESS = "planted-address-word"


def test_secrets_reach_no_manifest_event_or_log(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """MLflow cannot be reached at an address with a password. The warning must not contain the
    password."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://somebody:{IN_ADDRESS}@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    with caplog.at_level(logging.DEBUG):
        result = dg.materialize(
            [toy.recipe, toy.toy_easy],
            instance=instance,
            partition_key=toy.KEY,
            resources={**toy.resources(tmp_path), "tracking": TrackingResource()},
        )
    assert result.success
    events = [str(record) for record in instance.all_logs(result.run_id)]
    tags = [json.dumps(dict(run.tags)) for run in instance.get_runs()]
    written = [path.read_bytes().decode("utf-8", "replace") for path in tmp_path.rglob("*") if path.is_file()]
    captured = capfd.readouterr()
    said = "\n".join([*events, *tags, *written, caplog.text, captured.out, captured.err])
    assert "MLflow at" in said  # else nothing was tested
    for secret in (*SECRETS.values(), IN_ADDRESS):
        assert secret not in said


def test_secrets_reach_no_mlflow_run(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of MLflow's database, byte by byte."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    instance.add_dynamic_partitions("experiment", [toy.KEY])
    resources = {**toy.resources(tmp_path), "tracking": TrackingResource()}
    stages = [toy.recipe, toy.toy_easy]
    assert dg.materialize(stages, instance=instance, partition_key=toy.KEY, resources=resources).success
    database = (tmp_path / "mlflow.db").read_bytes()
    assert b"toy_easy" in database
    assert not [name for name, value in SECRETS.items() if value.encode() in database]


@pytest.mark.parametrize("secret", ["hf_" + "q" * 34, "https://planted-token-word@huggingface.co/some/model"])
def test_a_secret_in_a_recipe_stops_the_first_stage_before_anyone_is_told(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    resources = {**toy.resources(tmp_path), "tracking": TrackingResource()}
    (tmp_path / "recipes" / "leaky.yaml").write_text(f"extends: ladder\nbase: {{model: '{secret}'}}\n")
    instance.add_dynamic_partitions("experiment", ["leaky"])
    result = dg.materialize(
        [toy.recipe], instance=instance, partition_key="leaky", resources=resources, raise_on_error=False
    )
    (failure,) = result.get_step_failure_events()
    assert "recipe.base.model: looks like a credential" in str(failure.step_failure_data.error)
    events = [str(record) for record in instance.all_logs(result.run_id)]
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 1  # files of Dagster and the store, and the recipe
    assert sum(secret.encode() in text for text in written) == 1  # the recipe file itself
    assert not [event for event in events if secret in event]
