"""A labelling session: what people said of the solutions of a queue, kept after every keystroke.

Events are appended to a SQLite file and are on disk before `act` returns, so a killed session goes
on with the next step. Rules are those of PRM800K (Lightman et al. 2023, appendix D): each step is
positive, neutral or negative, the first negative step ends a solution, and people may give up, or
call the problem bad. The export is PRM800K's format, one line for each finished solution.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2h_pipeline.problems.records import ProblemError
from e2h_pipeline.supervision.queue import Item, Queue

RATINGS = {"positive": 1, "neutral": 0, "negative": -1}
GIVE_UP, BAD_PROBLEM, UNDO, REFERENCE = "give_up", "bad_problem", "undo", "reference"
ACTIONS = (*RATINGS, GIVE_UP, BAD_PROBLEM, UNDO, REFERENCE)
FOUND_ERROR, SOLUTION = "found_error", "solution"
SUFFIX = ".session"
"""Of the file of events, beside the export."""

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY, action TEXT NOT NULL, place INTEGER NOT NULL, at TEXT NOT NULL,
    milliseconds INTEGER NOT NULL
);
"""


class StaleError(Exception):
    """The page that acts shows an earlier state of the session."""


@dataclass
class Labelled:
    """What was said of one solution.

    Attributes:
        reason: why it ended, in PRM800K's words; empty while it is open.
    """

    item: Item
    ratings: list[int] = field(default_factory=list)
    reason: str = ""
    at: str = ""
    milliseconds: int = 0
    reference_shown: bool = False


@dataclass(frozen=True)
class _Event:
    action: str
    place: int  # of the solution in the queue that was shown
    at: str
    milliseconds: int


class Session:
    """One labeller at one queue."""

    def __init__(self, export: Path, queue: Queue, labeller: str = "") -> None:
        """Begin a session, or go on with that of the same export.

        Args:
            export: file of finished solutions; the events lie beside it.
            labeller: name in the export; a random one where empty.

        Raises:
            ProblemError: the session beside the export is of another queue, or damaged; or the
                export is someone else's file.
        """
        self.export, self.queue = export, queue
        place = export.with_name(export.name + SUFFIX)
        if export.exists() and export.stat().st_size and not place.exists():
            raise ProblemError(f"{export}: there already, and of no session here; choose another --out")
        try:
            self._database = sqlite3.connect(place, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")  # a commit is on disk when it returns
            self._database.executescript(_TABLES)
            known = self._fact("queue", queue.version)
            self.labeller = self._fact("labeller", labeller or uuid.uuid4().hex)
            rows = self._database.execute(
                "SELECT action, place, at, milliseconds FROM events ORDER BY number"
            )
            self._events = [_Event(*row) for row in rows]
        except sqlite3.DatabaseError as error:
            raise ProblemError(f"{place}: not a labelling session ({error}); choose another --out") from None
        if known != queue.version:
            raise ProblemError(
                f"{place}: a session of other solutions; choose another --out, or bring the same queue"
            )
        if labeller and labeller != self.labeller:
            raise ProblemError(f"{place}: a session of {self.labeller}; choose another --out for {labeller}")
        self._replay()
        self._write()

    @property
    def version(self) -> int:
        """Number of events so far; a page acts on the version that it shows."""
        return len(self._events)

    @property
    def finished(self) -> list[Labelled]:
        """Solutions that have ended, in the order of the queue."""
        return self._finished

    @property
    def current(self) -> Labelled | None:
        """The open solution; None at the end of the queue."""
        return self._open

    def act(self, action: str, version: int, milliseconds: int = 0) -> None:
        """Take an action on the current step; it is on disk when this returns.

        Args:
            version: what the labeller saw.
            milliseconds: how long it took.

        Raises:
            ValueError: no such action.
            StaleError: something happened since that version.
        """
        if action not in ACTIONS:
            raise ValueError(f"no action '{action}'; there are {', '.join(ACTIONS)}")
        if version != self.version:
            raise StaleError(f"the session is at {self.version}, the page at {version}")
        if not self._possible(action):
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        event = _Event(action, len(self._finished), now, milliseconds)
        self._database.execute(
            "INSERT INTO events (action, place, at, milliseconds) VALUES (?, ?, ?, ?)",
            (event.action, event.place, event.at, event.milliseconds),
        )
        self._events.append(event)
        before = len(self._finished)
        self._replay()
        if len(self._finished) != before:
            self._write()

    def close(self) -> None:
        """Close the file of events."""
        self._database.close()

    def _fact(self, name: str, value: str) -> str:
        """The stored value of a fact; the given one is stored where there is none."""
        self._database.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, value))
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def _possible(self, action: str) -> bool:
        """Whether an action changes anything: at the end of the queue there is nothing to rate, at
        its beginning nothing to take back, and only easy problems have a reference."""
        if action == UNDO:
            return bool(self._kept())
        if self._open is None:
            return False
        return action != REFERENCE or (
            self._open.item.reference is not None and not self._open.reference_shown
        )

    def _kept(self) -> list[_Event]:
        """Ratings and endings that were not taken back."""
        kept: list[_Event] = []
        for event in self._events:
            if event.action == UNDO:
                kept.pop()
            elif event.action != REFERENCE:
                kept.append(event)
        return kept

    def _replay(self) -> None:
        """The state from the events."""
        self._finished: list[Labelled] = []
        shown = {event.place for event in self._events if event.action == REFERENCE}
        self._open = self._next(shown)
        for event in self._kept():
            assert self._open is not None, "an event without a solution"
            apply(self._open, event.action)
            self._open.at, self._open.milliseconds = event.at, self._open.milliseconds + event.milliseconds
            if self._open.reason:
                self._finished.append(self._open)
                self._open = self._next(shown)

    def _next(self, shown: set[int]) -> Labelled | None:
        """The next solution of the queue. Taking a rating back does not unsee its reference."""
        place = len(self._finished)
        if place == len(self.queue.items):
            return None
        return Labelled(self.queue.items[place], reference_shown=place in shown)

    def _write(self) -> None:
        """The export, whole or not at all."""
        lines = [json.dumps(self._record(one)) + "\n" for one in self._finished]
        temporary = self.export.with_name(self.export.name + ".new")
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.export)

    def _record(self, one: Labelled) -> dict[str, Any]:
        """A finished solution as a line of PRM800K."""
        return {
            "labeler": self.labeller,
            "timestamp": one.at,
            "generation": None,
            "is_quality_control_question": False,
            "is_initial_screening_question": False,
            "question": {
                "problem": one.item.question,
                "ground_truth_answer": None,
                "pre_generated_steps": list(one.item.steps),
            },
            "label": {
                "steps": [
                    {
                        "completions": [{"text": step, "rating": rating, "flagged": False}],
                        "human_completion": None,
                        "chosen_completion": None if rating == RATINGS["negative"] else 0,
                    }
                    for step, rating in zip(one.item.steps, one.ratings, strict=False)
                ],
                "total_time": one.milliseconds,
                "finish_reason": one.reason,
            },
            "provenance": {
                "queue": f"{self.queue.source}@{self.queue.version[:12]}",
                "solution": one.item.name,
                "reference_shown": one.reference_shown,
            },
        }


def apply(one: Labelled, action: str) -> None:
    """Rate the next step of an open solution, or end it."""
    if action in (GIVE_UP, BAD_PROBLEM):
        one.reason = action
        return
    one.ratings.append(RATINGS[action])
    if action == "negative":
        one.reason = FOUND_ERROR
    elif len(one.ratings) == len(one.item.steps):
        one.reason = SOLUTION
