"""Files of other people that recipes can read: what for, where they are published, and under which licence.

Hashes are those of the publishers: of PRM800K's and MATH500's Git LFS pointers (openai/prm800k), and of
GSM8K's files at the commit that is named. The Hub tells the hash of a file itself.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["here", "differs", "unverified", "missing"]
_PIECE = 1 << 20
_LEVELS = range(1, 6)
_OPENAI = "https://media.githubusercontent.com/media/openai/prm800k/7ecc794703b2877f63226f2477a49b34f9b25163/prm800k"
_APPS = "datasets/codeparrot/apps/resolve/main"
_SHEPHERD = "datasets/peiyi9979/Math-Shepherd/resolve/ae6b0c54fca9fa26096f7de175c747e4b262e01a"
_GSM8K = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data"
)


@dataclass(frozen=True)
class Source:
    """A file as it is published.

    Attributes:
        url: of the file; without a server (`datasets/NAME/resolve/main/FILE`) it lies on the Hub.
        sha256: of its bytes; empty where the Hub tells it.
        size: bytes; 0 where the Hub tells them.
    """

    url: str
    sha256: str = ""
    size: int = 0

    @property
    def name(self) -> str:
        """Its name."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class DataSet:
    """Files that belong together.

    Attributes:
        name: in `e2h data get NAME`.
        purpose: which fields of a recipe read it, and for what.
        published: where, for people.
        files: place below E2H_DATA_DIR -> what is published in this very form; None where the files are made
            from something published.
        sources: what the files are made from by `make`.
        make: writes the files into a folder, from a folder with the sources.
    """

    name: str
    purpose: str
    published: str
    licence: str
    files: Mapping[str, Source | None]
    sources: tuple[Source, ...] = ()
    make: Callable[[Path, Path], None] | None = None

    @property
    def fetched(self) -> bool:
        """Whether `e2h data get` can fetch it."""
        return self.make is not None or all(self.files.values())


def make_math(sources: Path, out: Path) -> None:
    """MATH's two files and MATH500 from PRM800K's split of it, which is all of MATH with its ids.

    Levels that MATH does not know ("Level ?") are null.
    """
    benchmark, pool = (_records(sources / name) for name in ("test.jsonl", "train.jsonl"))
    records = [{**record, "level": _level(record.get("level"))} for record in (*benchmark, *pool)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "math500.jsonl").write_bytes((sources / "test.jsonl").read_bytes())
    for part in ("train", "test"):
        chosen = [record for record in records if str(record["unique_id"]).startswith(f"{part}/")]
        text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in chosen)
        (out / f"math_{part}.jsonl").write_text(text, encoding="utf-8")


def _level(value: Any) -> int | None:
    number = str(value).removeprefix("Level ")
    return int(number) if number.isdecimal() and int(number) in _LEVELS else None


def _records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


MATH_SOURCES = (
    Source(
        f"{_OPENAI}/math_splits/train.jsonl",
        "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076",
        10_896_985,
    ),
    Source(
        f"{_OPENAI}/math_splits/test.jsonl",
        "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        446_564,
    ),
)

CATALOGUE: Mapping[str, DataSet] = {
    data.name: data
    for data in (
        DataSet(
            "math",
            "problems.source=math: MATH, and MATH500 as the benchmark",
            "github.com/openai/prm800k (math_splits); MATH: github.com/hendrycks/math",
            "MIT",
            {
                "math/math_train.jsonl": None,
                "math/math_test.jsonl": None,
                "math/math500.jsonl": MATH_SOURCES[1],
            },
            MATH_SOURCES,
            make_math,
        ),
        DataSet(
            "prm800k",
            "labels.source=prm800k, solutions.source=prm800k: people's labels of steps",
            "github.com/openai/prm800k (data)",
            "MIT",
            {
                "steps/phase1_train.jsonl": Source(
                    f"{_OPENAI}/data/phase1_train.jsonl",
                    "e9da6a73f827ffb9a8c0dc644c541d34ed76b3d4d1e4896ff5f7b37ddf5ae34d",
                    7_900_236,
                ),
                "steps/phase2_train.jsonl": Source(
                    f"{_OPENAI}/data/phase2_train.jsonl",
                    "1110237feeb51d1bc200cb37b8f965cfdc1036eac7d506094049366fe7dc1089",
                    456_135_365,
                ),
            },
        ),
        DataSet(
            "gsm8k",
            "problems.source=gsm8k",
            "github.com/openai/grade-school-math",
            "MIT",
            {
                "gsm8k/train.jsonl": Source(
                    f"{_GSM8K}/train.jsonl",
                    "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
                    4_166_206,
                ),
                "gsm8k/test.jsonl": Source(
                    f"{_GSM8K}/test.jsonl",
                    "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
                    749_738,
                ),
            },
        ),
        DataSet(
            "apps",
            "problems.source=code: programs with tests (docs/code.md has others)",
            "huggingface.co/datasets/codeparrot/apps",
            "MIT",
            {f"code/{part}.jsonl": Source(f"{_APPS}/{part}.jsonl") for part in ("train", "test")},
        ),
        DataSet(
            "shepherd",
            "labels.source=shepherd: labels of steps by Monte Carlo",
            "huggingface.co/datasets/peiyi9979/Math-Shepherd",
            "none stated",
            {"steps/math-shepherd.jsonl": Source(f"{_SHEPHERD}/math-shepherd.jsonl")},
        ),
        DataSet(
            "metamath",
            "solutions.source=metamath: rewritten problems with solutions",
            "huggingface.co/datasets/meta-math/MetaMathQA",
            "MIT",
            {
                "metamath/MetaMathQA-395K.json": Source(
                    "datasets/meta-math/MetaMathQA/resolve/main/MetaMathQA-395K.json"
                )
            },
        ),
        DataSet(
            "processbench",
            "human_steps.sources: first wrong steps, by people (docs/real.md)",
            "huggingface.co/datasets/Qwen/ProcessBench; write its parts one below the other",
            "Apache-2.0",
            {"steps/processbench.jsonl": None},
        ),
        DataSet(
            "prmbench",
            "labels.source=prmbench: errors planted by a model",
            "github.com/ssmisya/PRMBench (mr_eval/tasks/prmtest_classified/data)",
            "Apache-2.0",
            {"steps/prmbench.jsonl": None},
        ),
        DataSet(
            "phi-samples",
            "samples.path of math500-samples: 500 x 9 solutions of MATH500",
            "github.com/sairam2661/reasoning-with-sampling (llm_experiments/results/phi/math), as JSON lines",
            "none stated",
            {"outputs/math500_phi_power_sampling_n9.jsonl": None},
        ),
        DataSet(
            "mr-math",
            "human_steps.sources: first wrong steps, with the scores of published evaluators",
            "github.com/GAIR-NLP/ReasonEval (dataset, eval_results)",
            "none stated",
            {"steps/mr-math_invalid_errors.jsonl": None},
        ),
    )
}


def state_of_file(place: Path, source: Source | None) -> tuple[State, Path]:
    """Whether a file is there and is the published one; packed ones (.gz) are unpacked for that.

    Returns:
        "unverified" where no hash is known here; and the file that was looked at.
    """
    packed = place.with_name(f"{place.name}.gz")
    found = next((file for file in (place, packed) if file.is_file()), None)
    if found is None:
        return "missing", place
    if source is None or not source.sha256:
        return "unverified", found
    size, sha256 = _content(found)
    return ("here" if (size, sha256) == (source.size, source.sha256) else "differs"), found


def _content(file: Path) -> tuple[int, str]:
    """Bytes and SHA-256 of a file, of a packed one those of its content."""
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(file):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _pieces(file: Path) -> Iterator[bytes]:
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
        try:
            while piece := stream.read(_PIECE):
                yield piece
        except (EOFError, gzip.BadGzipFile):  # cut off: what is left has another hash
            return
