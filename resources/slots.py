"""Slots of pools that count cards: a step takes as many slots of its pool as it uses cards.

Dagster gives every step one slot. It also reads a free slot and then marks it, in two statements,
and commits after each on Postgres too: so two steps that ask in the same instant may both get it.
Here a step takes all its slots in one statement, or none. So no two steps hold half of what they
need and wait for each other. Dagster's own calls free them: they free all slots of a step.

A step that needs many slots waits until that many are free at once. So that smaller steps do not
keep it waiting for ever, waiting steps are served in order, the higher priority first. (A run that
was killed while it waited blocks the others until its record is closed, as a slot that it held
would.)

A step that wants more slots than its pool has takes the whole pool: by default the pool "gpu" has
one slot, which then stands for all cards of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as db
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable, PendingStepsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._utils.concurrency import ConcurrencySlotStatus

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

# Step -> slots that it takes; one where it is not here. Filled when a module with stages is imported.
WANTED: dict[str, Callable[[], int]] = {}


class CardSlots(SqlEventLogStorage):
    """The part of an event log that gives slots to steps."""

    def _claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str
    ) -> ConcurrencySlotStatus:
        """Take all slots of a step in one statement, or none."""
        wanted = WANTED[step_key]() if step_key in WANTED else 1
        with self.index_transaction() as connection:
            self._alone(connection, concurrency_key)
            claim = _claim(concurrency_key, run_id, step_key, wanted)
            taken: int = connection.execute(claim).rowcount
        return ConcurrencySlotStatus.CLAIMED if taken else ConcurrencySlotStatus.BLOCKED

    def _alone(self, connection: Connection, pool: str) -> None:
        """Let no other claim of this pool come in between, where one statement is not enough."""


def _claim(pool: str, run_id: str, step_key: str, wanted: int) -> Any:
    """The statement: mark `wanted` free slots, or the whole pool if it has fewer, if all of them
    are free and no other step is to be served first."""
    slots = ConcurrencySlotsTable.alias("slots")
    usable = db.and_(slots.c.concurrency_key == pool, ~slots.c.deleted)
    free = db.and_(usable, slots.c.step_key.is_(None))
    of_all = db.select(db.func.count()).select_from(slots).where(usable).scalar_subquery()
    of_free = db.select(db.func.count()).select_from(slots).where(free).scalar_subquery()
    first = db.select(slots.c.id).where(free).order_by(slots.c.id).limit(wanted)
    return (
        db.update(ConcurrencySlotsTable)
        .values(run_id=run_id, step_key=step_key)
        .where(
            ConcurrencySlotsTable.c.id.in_(first),
            of_free >= db.case((of_all < wanted, of_all), else_=wanted),
            ~_served_first(pool, run_id, step_key),
        )
    )


def _served_first(pool: str, run_id: str, step_key: str) -> Any:
    """Whether another step of the pool waits that has a higher priority, or waits longer.

    Only of the steps that Dagster lets ask for a slot (assigned): the others cannot take one."""
    own, other = PendingStepsTable.alias("own").c, PendingStepsTable.alias("other").c
    held = ConcurrencySlotsTable.alias("held").c
    is_served = db.exists().where(held.run_id == other.run_id, held.step_key == other.step_key)
    return db.exists().where(
        db.and_(own.concurrency_key == pool, own.run_id == run_id, own.step_key == step_key),
        db.and_(other.concurrency_key == pool, other.assigned_timestamp.is_not(None), ~is_served),
        db.or_(
            other.priority > own.priority,
            db.and_(other.priority == own.priority, other.id < own.id),
        ),
    )
