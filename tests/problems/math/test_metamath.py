import json
from pathlib import Path
from typing import Any

import pytest

from e2h_pipeline.problems.jsonl import BadLine
from e2h_pipeline.problems.math.metamath import RewrittenSolution, read_metamath

POINTS = "Joe chooses the point $1+2i$. Gracie chooses $-1+i$. How far apart are they?"
# In MetaMathQA's format.
MATH = {
    "query": POINTS,
    "response": "The distance is given by the formula $\\sqrt{(x_2-x_1)^2+(y_2-y_1)^2}$.\n"
    "In this case, $x_1 = 1$. So the distance is $\\sqrt{4+1}=\\sqrt{5}$.\n"
    "Therefore, they are $\\boxed{\\sqrt{5}}$ units apart.\nThe answer is: \\sqrt{5}",
    "type": "MATH_AnsAug",
    "original_question": POINTS,
}
GSM = {
    "query": "James buys 5 packs of beef that are 4 pounds each. At x dollars a pound, he pays 110. What is x?",
    "response": "He buys 5*4 = 20 pounds.\nHe pays 20x = 110.\nx = 5.5.\n#### 5.5\nThe answer is: 5.5",
    "type": "GSM_SV",
    "original_question": "James buys 5 packs of beef that are 4 pounds each. The price is $5.50 a pound. What does he pay?",
}


def read(folder: Path, *records: dict[str, Any], name: str = "x.json") -> list[RewrittenSolution | BadLine]:
    lines = json.dumps(records) if name.endswith(".json") else "\n".join(map(json.dumps, records))
    (folder / name).write_text(lines, encoding="utf-8")
    return list(read_metamath(folder / name))


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_response_is_steps_and_an_answer(tmp_path: Path, name: str) -> None:
    math, gsm = read(tmp_path, MATH, GSM, name=name)
    assert math == RewrittenSolution(
        "MATH_AnsAug",
        "MATH",
        POINTS,
        POINTS,
        (
            "The distance is given by the formula $\\sqrt{(x_2-x_1)^2+(y_2-y_1)^2}$.",
            "In this case, $x_1 = 1$.",
            "So the distance is $\\sqrt{4+1}=\\sqrt{5}$.",
            "Therefore, they are $\\boxed{\\sqrt{5}}$ units apart.",
        ),
        "\\sqrt{5}",
    )
    assert isinstance(gsm, RewrittenSolution)
    assert (gsm.origin, gsm.question, gsm.original_question) == (
        "GSM",
        GSM["query"],
        GSM["original_question"],
    )
    assert (gsm.steps, gsm.answer) == (("He buys 5*4 = 20 pounds.", "He pays 20x = 110.", "x = 5.5."), "5.5")


def test_the_last_answer_is_the_answer(tmp_path: Path) -> None:
    response = "The answer is not 3 yet.\nWe add 1.\nThe answer is: 4"
    (found,) = read(tmp_path, {**MATH, "response": response})
    assert isinstance(found, RewrittenSolution)
    assert (found.steps, found.answer) == (("The answer is not 3 yet.", "We add 1."), "4")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "AMC_Rephrased"}, "type 'AMC_Rephrased' is neither MATH_... nor GSM_..."),
        ({"query": " "}, "no question in 'query' or in 'original_question'"),
        ({"response": "We add. It is 4."}, "'response' must be a solution and then 'The answer is: ...'"),
        ({"response": "We add.\nThe answer is:"}, "'response' must be a solution"),
        ({"response": "The answer is: 4"}, "'response' must be a solution"),
        ({"response": "# Answer\n\n5\n\nThe answer is: 4"}, "'# Answer' within a solution"),
        ({"response": "\\[" * 10_001}, "'response' has 20,002 characters, more than 20,000"),
        ({"response": 4}, "'response' must be str, not int"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    good, bad = read(tmp_path, GSM, {**MATH, **change})
    assert isinstance(good, RewrittenSolution) and isinstance(bad, BadLine)
    assert (bad.file, bad.line) == ("x.json", 2) and reason in bad.reason
