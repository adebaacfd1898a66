r"""Kinds of whole responses, in which the answer has to be found; see `cases`."""

from __future__ import annotations

from random import Random

from e2h_pipeline.grading.kinds.cases import Kinds
from e2h_pipeline.grading.kinds.writing import another, number, rational, whole

RESPONSES = Kinds()
Drawn = tuple[str, str]

_WORK = (
    "We start with the given equation and simplify both sides.",
    "Let $x$ be the unknown. Then $2x + 3 = 11$, so $x = 4$ in this case.",
    "First, note that 12 divides 36.",
    "Step 1: expand $(a+b)^2 = a^2 + 2ab + b^2$.",
    "There are 6 ways to choose the first and 5 for the second.",
    "By the Pythagorean theorem, $3^2 + 4^2 = 5^2$.",
    "Substituting gives $y = 7 - 2 = 5$.",
)
_MENTIONS = (
    "I will put my final answer within \\boxed{}.",
    "The final answer should be given in \\boxed{...}.",
    "As asked, I use `\\boxed{}` for the answer.",
    "Remember to write the answer as \\boxed{answer}.",
    "The \\boxed command marks the answer.",
    "(The answer goes inside \\boxed{\\text{answer}}.)",
    "Please reason step by step, and put your final answer within \\\\boxed{}.",
    "I use \\boxed notation at the end.",
)
_PLAIN_ENDS = (
    "The answer is {}.",
    "The final answer is ${}$.",
    "Answer: {}",
    "**Answer:** {}",
    "**Final Answer:** ${}$",
    "#### {}",
    "<answer>{}</answer>",
    "Therefore, the answer is $\\displaystyle {}$.",
    "The final answer is ${}$. I hope it is correct.",
    "**Answer: {}**",
    "## Final Answer\n\n${}$",
    "**Final Answer**\n\n\\[{}\\]",
    "So the answer is \\({}\\).",
    "Final answer: `{}`",
)
_BOXED_ENDS = (
    "So $\\boxed{{{}}}$.",
    "The answer is $\\boxed{{{}}}$.",
    "\\[\\boxed{{{}}}\\]",
    "$$x = \\boxed{{{}}}$$",
    "**Final Answer:** $\\boxed{{{}}}$",
    "Thus \\boxed{{{}}}",
    "The final answer is \\(\\boxed{{{}}}\\).",
    "\\\\boxed{{{}}}",
    "$\\boxed{{\\displaystyle {}}}$",
    "\\fbox{{{}}}",
    "$\\boxed{{ {} }}$ is the value we were looking for.",
)


def _pair(rng: Random, equal: bool) -> Drawn:
    value = rational(rng)
    return number(rng, value), number(rng, value if equal else another(rng, value))


def _work(rng: Random) -> str:
    return rng.choice(("\n\n", " ", "\n")).join(rng.sample(_WORK, rng.randint(1, 3))) + rng.choice(
        ("\n\n", "\n")
    )


@RESPONSES
def boxed(rng: Random, equal: bool) -> Drawn:
    """Work, then a box."""
    gold, answer = _pair(rng, equal)
    return gold, _work(rng) + rng.choice(_BOXED_ENDS).format(answer)


@RESPONSES
def stated(rng: Random, equal: bool) -> Drawn:
    """Work, then the answer in words, without a box."""
    gold, answer = _pair(rng, equal)
    return gold, _work(rng) + rng.choice(_PLAIN_ENDS).format(answer)


@RESPONSES
def box_mentioned_first(rng: Random, equal: bool) -> Drawn:
    """A box is spoken of, and the answer stands elsewhere or in a later box."""
    gold, answer = _pair(rng, equal)
    return gold, rng.choice(_MENTIONS) + "\n\n" + _work(rng) + rng.choice(
        (*_PLAIN_ENDS, *_BOXED_ENDS)
    ).format(answer)


@RESPONSES
def box_mentioned_last(rng: Random, equal: bool) -> Drawn:
    """A box with the answer, and a box spoken of behind it."""
    gold, answer = _pair(rng, equal)
    return gold, _work(rng) + rng.choice(_BOXED_ENDS).format(answer) + "\n\n" + rng.choice(_MENTIONS)


@RESPONSES
def several_boxes(rng: Random, equal: bool) -> Drawn:
    """Each part of the answer in a box of its own, with text between."""
    a, b = rng.sample([n for n in range(-12, 25) if n], 2)
    gold = rng.choice((f"{a}, {b}", f"{a},{b}"))
    if not equal:
        a, b = rng.choice(((a, b + 1), (a - 1, b), (-a, -b) if a != -b else (a, b + 2)))
    frame = rng.choice(
        (
            "The solutions are $\\boxed{{{}}}$ and $\\boxed{{{}}}$.",
            "So $x = \\boxed{{{}}}$ or $x = \\boxed{{{}}}$.",
            "\\boxed{{{}}}, \\boxed{{{}}}",
            "The first root is $\\boxed{{{}}}$ and the second root is $\\boxed{{{}}}$.",
            "We get $x = \\boxed{{{}}}$, and the other solution is $x = \\boxed{{{}}}$.",
            "The smaller one is \\boxed{{{}}}, while the other is \\boxed{{{}}}.",
            "$\\boxed{{{}}}$ \\text{{ and }} $\\boxed{{{}}}$",
            "One is \\boxed{{{}}} and another one \\boxed{{{}}}.",
            "There are \\boxed{{{}}} papers in the first box and \\boxed{{{}}} papers in the second.",
            "$$\\boxed{{{}}} \\quad \\text{{or}} \\quad \\boxed{{{}}}$$",
        )
    )
    return gold, _work(rng) + frame.format(a, b)


@RESPONSES
def box_of_a_step(rng: Random, equal: bool) -> Drawn:
    """A box on the way, then the box of the answer: only the last counts."""
    value = rational(rng)
    step, gold = str(whole(rng, 31, 99)), number(rng, value)
    between = rng.choice(
        (
            "$ from the first equation.\n\nSubstituting this gives the final result $",
            "$. Therefore, the final answer is $",
            "$, so the total becomes $",
            "$. Wait, that is not correct. The right value is $",
            "$.\n\nNow we simplify this to get $",
        )
    )
    text = f"{_work(rng)}We find $\\boxed{{{step}}}{between}\\boxed{{{number(rng, value)}}}$."
    return (gold if equal else step), text


@RESPONSES
def said_again(rng: Random, equal: bool) -> Drawn:
    """The same answer boxed in two ways."""
    gold, answer = _pair(rng, equal)
    value = rng.choice(
        ("$, or equivalently $", "$, which is the same as $", "$, or simply $", "$. That is, $", "$, i.e. $")
    )
    return gold, f"{_work(rng)}So it is $\\boxed{{{answer}}}{value}\\boxed{{{answer}}}$."


@RESPONSES
def concluding_sentence(rng: Random, equal: bool) -> Drawn:
    """No marker at all: a last sentence that concludes."""
    n = rng.randint(13, 400)
    answer = n if equal else n + rng.choice((-1, 1, 10))
    frame = rng.choice(
        (
            "Therefore, there are {} of them.",
            "Thus, $x = {}$.",
            "So, the total is {}.",
            "Hence the value of the expression is ${}$.",
            "Therefore, she needs {} dollars.",
            "In conclusion, the area is $ {} $.",
            "Consequently the sum equals \\({}\\).",
        )
    )
    return str(n), _work(rng) + frame.format(answer)


@RESPONSES
def cut_off(rng: Random, equal: bool) -> Drawn:
    """A text that stops before its answer is never right; with the answer before the stop it is."""
    gold, answer = _pair(rng, equal=True)
    if equal:
        return gold, _work(rng) + rng.choice(_BOXED_ENDS).format(
            answer
        ) + "\n\nTo check this, we substitute the value into the"
    return gold, _work(rng) + rng.choice(
        (
            "Now we compute the value of the last term which is",
            "So the answer is",
            "The final answer is \\boxed{",
            "Therefore, the sum is $\\frac{",
        )
    )


@RESPONSES
def solutions_in_a_box(rng: Random, equal: bool) -> Drawn:
    """Equations, units and words inside the box."""
    a, b = whole(rng, 2, 60), whole(rng, 61, 99)
    gold, right, wrong = rng.choice(
        (
            (f"{a}", f"x = {a}", f"x = {b}"),
            (f"{a}", f"{a} \\text{{ cm}}", f"{b} \\text{{ cm}}"),
            (f"({a},{b})", f"(x, y) = ({a}, {b})", f"(x, y) = ({b}, {a})"),
            (f"x={a},y={b}", f"x = {a}, \\ y = {b}", f"x = {b}, \\ y = {a}"),
            (f"\\text{{{'Yes'}}}", "\\text{yes}", "\\text{no}"),
            (f"{a}, {b}", f"x = {b} \\text{{ or }} x = {a}", f"x = {a}"),
            (f"[{a},{b})", f"{a} \\le x < {b}", f"{a} < x \\le {b}"),
        )
    )
    return gold, _work(rng) + rng.choice(_BOXED_ENDS).format(right if equal else wrong)
