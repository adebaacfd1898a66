"""Labels given once: the first label counts for a step after the same steps of a problem."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from e2h_pipeline.solutions import TextFormat
from e2h_pipeline.supervision.rows import UNLABELLED, WRONG, Rows


class LabelOnce:
    """Gives each step of one source one label, also where several solutions share the step.

    Attributes:
        repeated: labels left out because the step already had one.
        conflicting: of these, how many differ from the first.
    """

    def __init__(self) -> None:
        self._first: dict[bytes, float] = {}
        self.repeated = self.conflicting = 0

    def new_labels(self, problem_id: str, segments: Sequence[str], labels: Sequence[float]) -> list[float]:
        """A label per segment: its own where the step had none before, else -1; none after an
        error.

        The first label of a step decides whether it is an error. A solution that goes on after such
        a step gets no more labels.
        """
        kept, failed = [], False
        for key, label in zip(_beginnings(problem_id, segments), labels, strict=True):
            first = self._first.get(key)
            kept.append(UNLABELLED if failed or first is not None else label)
            if not failed and label != UNLABELLED:
                self._first.setdefault(key, label)
                self.repeated += first is not None
                self.conflicting += first is not None and first != label
            failed = failed or (label if first is None else first) == WRONG
        return kept


class EarlierLabels:
    """Labels of earlier sources in a recipe: a later source does not label their steps again.

    Within one source, the same step may still be labelled in several solutions.
    """

    def __init__(self, text: TextFormat) -> None:
        self._text = text
        self._labels: dict[bytes, float] = {}
        self._numbers: Counter[str] = Counter()

    def new_rows(self, rows: Rows) -> tuple[Rows, dict[str, int]]:
        """Rows of the next source with new labels only: for steps without one, and none after an
        error of an earlier source.

        Rows that add no label are left out. `sample` continues the problem's numbers.

        Returns the rows, and counts: `already_labelled` steps, of these `labelled_otherwise` by the
        next source, and `without_new_label` rows, where there are any.
        """
        found: Counter[str] = Counter()
        kept: Rows = []
        for row in rows:
            labels = self._new_labels(row, found)
            if labels != row["labels"] and all(label == UNLABELLED for label in labels):
                found["without_new_label"] += 1
                continue
            kept.append({**row, "labels": labels, "sample": row["sample"] + self._numbers[row["problem_id"]]})
        return kept, dict(found)

    def add(self, rows: Rows) -> None:
        """Count the rows of a source as earlier ones from now on."""
        for row in rows:
            for key, label in zip(step_keys(row, self._text), row["labels"], strict=True):
                if label != UNLABELLED:
                    self._labels.setdefault(key, label)
            name = row["problem_id"]
            self._numbers[name] = max(self._numbers[name], row["sample"] + 1)

    def _new_labels(self, row: dict[str, Any], found: Counter[str]) -> list[float]:
        kept, failed = [], False
        for key, label in zip(step_keys(row, self._text), row["labels"], strict=True):
            earlier = self._labels.get(key)
            kept.append(UNLABELLED if failed or earlier is not None else label)
            if earlier is not None and label != UNLABELLED and not failed:
                found["already_labelled"] += 1
                found["labelled_otherwise"] += earlier != label
            failed = failed or earlier == WRONG
        return kept


def step_keys(row: Mapping[str, Any], text: TextFormat) -> Iterator[bytes]:
    """A key for each segment of a row's completion, that of its problem and its steps so far."""
    completion = row["completion"]
    segments = [completion[start:end].strip() for start, end in text.parse(completion).spans]
    return _beginnings(row["problem_id"], segments)


def _beginnings(problem_id: str, segments: Sequence[str]) -> Iterator[bytes]:
    """A key for each beginning of a solution: its first segment, its first two, and so on."""
    key = problem_id.encode()
    for segment in segments:
        key = hashlib.sha256(key + b"\0" + segment.encode()).digest()
        yield key
