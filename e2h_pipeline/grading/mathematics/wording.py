"""What a problem's words say about the order of a list of answers."""

from __future__ import annotations

import re

_MAX_CHARACTERS = 20_000
_ANY_ORDER = re.compile(r"\bany order\b|\border (?:does not|doesn't) matter\b", re.IGNORECASE)
_IN_ORDER = re.compile(
    r"\brespectively\b|\b(?:in|from) (?:\w+ ){0,2}(?:increasing|decreasing|ascending|descending|alphabetical) order"
    r"|\b(?:least|smallest|lowest|greatest|largest|highest|biggest) to (?:the )?\w+|\bordered\b|\bin order\b"
    r"|\bin (?:this|that|the given|the same|the following|sorted|numerical) order\b|\barrange\b|\bsort\b|\brank\b",
    re.IGNORECASE,
)
_ALL = re.compile(
    r"\b(?:roots?|zeros?|zeroes|solutions?|solves?)\b|\b(?:find|list|determine|give|name|state|enter|identify|compute) "
    r"(?:all|every|both|each)\b"
    r"|\ball (?:of )?(?:the )?(?:\w+ ){0,3}(?:values?|numbers?|integers?|points?|pairs?|triples?)\b"
    r"|\bpossible values\b|\bwhat are\b|\bfor (?:what|which) (?:\w+ ){0,3}values\b|\bseparated by commas\b",
    re.IGNORECASE,
)


def is_order_free(question: str) -> bool | None:
    """Whether a list of answers may stand in any order.

    Returns:
        True for "find all roots", False for "in increasing order", None where the words do not say
        or there are none.
    """
    words = question[:_MAX_CHARACTERS]
    if _ANY_ORDER.search(words):
        return True
    if _IN_ORDER.search(words):
        return False
    return True if _ALL.search(words) else None
