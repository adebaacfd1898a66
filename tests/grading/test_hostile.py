r"""Text that tries to hang, crash, fill or take over the grader; every mode grades all of it.

Sources: texts that hung or misled math-verify, the PRM800K grader and the paper's grader, and texts
that would break a canonical form: factoring under a root, expanding a product, matching lists,
numbers that differ only in late digits. A pair may be undecided, but it must not raise, exceed its
time, leave a process or use up the memory.
"""

import contextlib
import gc
import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from graded_texts import grades_of, verdicts_of

from e2h_pipeline.grading.graders import Grader, Verdict, grader
from e2h_pipeline.grading.mathematics.extract import Extraction, extract
from e2h_pipeline.registry import GRADERS

EQUAL, DIFFERENT, UNDECIDED = Verdict.EQUAL, Verdict.DIFFERENT, Verdict.UNDECIDED

MODE = "math"
CPU_SECONDS = 0.3
"""CPU time of a worker per pair, in these tests."""
OWN_SECONDS = 6
"""CPU time that one text may cost in our own process, all pairs and a megabyte included: four times what it
is at most on an idle machine. What these tests are for would take minutes."""
LONGEST_MS = 1000 * OWN_SECONDS
"""CPU time of a pair."""
MEMORY_BYTES = 300 << 20
"""Growth of our own process; workers have a limit of their own."""

PLAIN = r"\frac{x}{3}"
MEGABYTE = 1_000_000
NEAR_LIMIT = 1_900
"""Characters that graders still read (math-verify mode: 2,000)."""

RSA_100 = (
    "1522605027922533360535618378132637429718068114961380688657908494580122963258952897654000350692006139"
)

NUMBERS = {
    "tower": "2^{2^{2^{2^{2^{2}}}}}",
    "tower of nines": "9^{9^{9^{9}}}",
    "programmer's tower": "9**9**9**9",
    "left tower": "((((9^9)^9)^9)^9)^9",
    "power": "10^{100000000}",
    "tiny power": "2^{-10^{50}}",
    "root of a power": "(10^{10^{10}})^{1/10^{10}}",
    "negative tower": "-9^{-9^{-9}}",
    "factorials": "((10!)!)!",
    "factorial": "10^9!",
    "exclamation marks": "3" + "!" * 1000,
    "binomial": r"\binom{10^9}{5 \cdot 10^8}",
    "sum": r"\sum_{n=1}^{10^{12}} \frac{1}{n}",
    "product": r"\prod_{k=1}^{10^9} k",
    "integral": r"\int_0^{\infty} e^{-x^2} \sin(x^x) \, dx",
    "limit": r"\lim_{x \to 0} \frac{\sin x}{x^{x^x}}",
    "one over zero": "1/0",
    "zero over zero": r"\frac{0}{0}",
    "zero to the zero": "0^0",
    "zero to the minus one": "0^{-1}",
    "no logarithm": r"\log_0 0 + \log_1 5 + \ln 0",
    "no angle": r"\tan\frac{\pi}{2} + \arcsin 2",
    "i to the i": "i^{i^{i^{i}}}",
    "not a number": "nan",
    "infinity": r"\infty - \infty",
    "exponent of a float": "1e999999999",
    "small exponent of a float": "1e-999999999",
    "huge float": "1.5e400",
    "many digits": "7" * 100_000,
    "many decimals": "0." + "3" * 100_000,
    "digits up to the limit": "9" * NEAR_LIMIT,
    "more digits than int reads": "9^{5000}",
    "modulus zero": r"1 \pmod{0}",
    "floor": r"\lfloor 10^{10^{10}} / 7 \rfloor",
    "digits over the base": "9_{2}",
    "no base": "12_{0}",
    "large base": "12_{10^{9}}",
    "trigonometry": r"\cos\frac{\pi}{1009} + \sin(10^{50})",
    "logarithm of a tower": r"\log(10^{10^{10^{10}}})",
}
"""Values that cannot, or need not, be written out."""

ALGEBRA = {
    "semiprime root": rf"\sqrt{{{RSA_100}}}",
    "semiprime logarithm": rf"\log_2 {RSA_100}",
    "semiprime exponent": rf"2^{{\frac{{1}}{{{RSA_100}}}}}",
    "root nest": r"\sqrt{2+" * 300 + "1" + "}" * 300,
    "roots of roots": r"\sqrt{" * 900 + "2" + "}" * 900,
    "high root": r"\sqrt[1000000007]{2}",
    "sum of roots": "+".join(rf"\sqrt{{{n}}}" for n in range(2, 180)),
    "roots below": r"\frac{1}{" + "+".join(rf"\sqrt{{{p}}}" for p in (2, 3, 5, 7, 11, 13, 17, 19)) + "}",
    "large expansion": "(a+b+c+d+e+f+g)^{30}",
    "larger expansion": "(x+y+1)^{1000000}",
    "many factors": "".join(f"({a}+{b}+1)" for a, b in itertools.combinations("abcdefghkm", 2)),
    "degree": "x^{1000000000}-1",
    "polynomial quotient": r"\frac{x^{9999}-1}{x-1}",
    "continued fraction": r"\frac{1}{1+" * 5000 + "1" + "}" * 5000,
    "short continued fraction": r"\frac{1}{x+" * 120 + "1" + "}" * 120,
    "sum of fractions": "+".join(rf"\frac1{{{n}x+1}}" for n in range(2, 120)),
    "long list": ",".join(str(n) for n in range(450)),
    "list of sums": ",".join(f"x_{{{n}}}+{n}" for n in range(130)),
    "set of sets": r"\{" * 300 + "1" + r"\}" * 300,
    "large matrix": r"\begin{pmatrix}" + r"\\".join("&".join("1" * 30) for _ in range(30)) + r"\end{pmatrix}",
    "union": r" \cup ".join(f"({n},{n}.5]" for n in range(150)),
    "set algebra": r"[0,9] \setminus " + r" \setminus ".join(rf"\{{{n}/7\}}" for n in range(60)),
    "nested sets": "(" * 50 + r"\{1\}" + r" \cup \{2\})" * 50,
    "decimals": ",".join(f"0.{n:06d}" for n in range(200)),
    "assignments": ",".join(f"x_{{{n}}}={n}" for n in range(200)),
    "groups of digits": "1" + " 000" * 450,
    "endless": "0." + "123" * 19 + "...",
    "conditions": r"\{x \mid " + ", ".join(rf"x \ne {n}" for n in range(200)) + r"\}",
    "linear": "<".join(f"{n}x+{n}" for n in range(1, 150)),
    "equation": "+".join(f"{n}x^{{{n}}}" for n in range(1, 150)) + "=0",
    "chain of inequalities": "<".join(f"x_{{{n}}}" for n in range(200)),
    "plus or minus": r"1" + r" \pm 1" * 200,
    "absolute values": "|" * 500,
    "signs": "-" * NEAR_LIMIT + "1",
}
"""What a canonical form would expand, factor, order or match at great cost."""

TEXTS = {
    "braces": "{" * 3000 + "}" * 3000,
    "open braces": "{" * 3000,
    "closed braces": "}" * 3000,
    "brackets": "(" * 900 + "1" + ")" * 900,
    "mixed brackets": "([{" * 300 + "1" + "}])" * 300,
    "left and right": r"\left(" * 150 + "1" + r"\right)" * 150,
    "open fractions": r"\frac{" * 300,
    "environment": r"\begin{pmatrix}" * 100,
    "boxes": r"\boxed{" * 200 + "1" + "}" * 200,
    "open box": r"\boxed{",
    "text of text": r"\text{" * 300 + "a" + "}" * 300,
    "code": "__import__('os').system('touch pwned')",
    "code in text": r"\text{__import__('os').system('touch pwned')}",
    "more code": "(lambda: open('pwned', 'w'))()",
    "path code": "__import__('pathlib').Path('pwned').touch()",
    "code in a sum": "1+__import__('os').system('touch pwned')",
    "exec": "exec(\"open('pwned','w')\")",
    "escape": "().__class__.__bases__[0].__subclasses__()",
    "assignment": "x := open('pwned', 'w')",
    "TeX writes": r"\immediate\write18{touch pwned}\input{/etc/passwd}",
    "shell": "$(touch pwned) `touch pwned`; touch pwned",
    "template": "{{7*7}} ${7*7} #{7*7} <%= 7*7 %>",
    "format bomb": "%1000000000d %s%s%s%n",
    "other format bomb": "{:>1000000000} {0.__class__} {}",
    "protocol": '{"gold": 1}\n"equal"\n',
    "verdict": '"equal"',
    "null bytes": "7\x00\x00",
    "only null": "\x00",
    "control characters": "".join(map(chr, range(32))) + "7\x7f",
    "ANSI": "\x1b[2J\x1b[31m7\x1b[0m\x07",
    "high surrogate": "\ud800",
    "surrogates": "7\udfff\ud800",
    "right to left": "\u202e7\u202c \u05e9\u05dc\u05d5\u05dd 12 \u0645\u0631\u062d\u0628\u0627",
    "zero width": "\u200b7\u200d\ufeff",
    "combining": "e" + "\u0301" * 1500,
    "Arabic-Indic digits": "\u0661\u0662",
    "fullwidth": "\uff17\uff0b\uff18",
    "superscript": "x\u00b2",
    "superscript digit": "\u00b2",
    "circled": "\u2460\u325b",
    "Roman": "\u2167",
    "vulgar fraction": "\u00bd",
    "mathematical digits": "\U0001d7d5\U0001d7d8",
    "Thai digits and decimals": "\u0e51\u0e52.\u0e53",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 = 7",
    "empty": "",
    "blank": " \n\t\u00a0\u3000",
    "quotes": "'\"`'\"`",
    "comment": "% 7",
    "backslash": "\\",
    "dollar": "$",
    "caret": "^",
    "underscore": "_{",
    "minus": "-",
    "point": ".",
    "comma": ",",
    "equals": "=",
    "sizes": r"\left\right\left.\right.\bigl\bigr",
}
"""Text that is little or no mathematics."""

SHAPES = (
    *(
        " ",
        ",",
        "\\",
        "(",
        ")",
        "[",
        "{",
        "}",
        "{}",
        "\\{",
        "$",
        "$ ",
        "1",
        "1,",
        "1 ",
        ", ",
        " ,1",
        "^",
        "_",
        "-",
    ),
    *(
        "1/",
        "1.",
        ".",
        "\n",
        "\t",
        "a",
        "a ",
        "\\a",
        "\\a{",
        "\\frac",
        "\\frac1",
        "\\frac{1}",
        "\\sqrt",
        "\\text{a",
    ),
    *(
        "\\left(",
        "\\!",
        "\\,",
        "\\ ",
        "%",
        "\\%",
        "!",
        "=",
        "<",
        "|",
        "&",
        "\\\\",
        "\\begin{",
        "\u00b2",
        "1,000,",
        "°",
    ),
    *(
        "x+",
        "1+",
        "2*",
        "and ",
        "a, b or ",
        "\\cup",
        "^{",
        "^{2",
        "_{1}",
        "\\pm",
        "\\text{ and }",
        ":",
        "e",
        "1e1",
    ),
)
"""Repeated, these are what makes regular expressions and scanners quadratic."""


def repeated(shape: str, size: int) -> str:
    return shape * (size // len(shape))


HOSTILE = {**NUMBERS, **ALGEBRA, **TEXTS}
FULL = {f"{shape!r} to the limit": repeated(shape, NEAR_LIMIT) for shape in SHAPES}
LONG = {f"{shape!r} over it": repeated(shape, MEGABYTE) for shape in SHAPES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; executed code would leave a file there."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == [], "code in an answer was run"


@pytest.fixture
def judge(folder: Path) -> Iterator[Grader]:
    """The grader; checks that it leaves nothing behind."""
    before = children()
    with grader(MODE, workers=2, cpu_seconds=CPU_SECONDS) as opened:
        yield opened
    assert children() == before


def children() -> set[str]:
    """Children of this process, zombies included."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == os.getpid():
                found.add(stat.parent.name)
    return found


def memory_peak() -> int:
    """Peak memory of this process in bytes since `forget_memory_peak`."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024


def forget_memory_peak() -> int:
    """Reset the peak; the bytes in use now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_peak()


class Stopwatch:
    """Names texts that took too long, in CPU time of this process."""

    def __init__(self) -> None:
        self.late: list[str] = []

    def split(self, name: str, own: float = OWN_SECONDS) -> None:
        """End the time of `name` and begin the next."""
        cpu = time.process_time() - self._cpu
        if cpu > own:
            self.late.append(f"{name}: {cpu:.1f} s of CPU")
        self.start()

    def start(self) -> None:
        """Begin the time of the next name."""
        self._cpu = time.process_time()


@pytest.mark.parametrize("mode", [mode for mode in GRADERS.entries if mode != "unit-tests"])
def test_every_mode_answers(folder: Path, mode: str) -> None:
    """Our grader in both orders; the others only in the order of groups and on a twelfth of the
    texts, because many kill their workers, which is slow. Unit tests have hostile programs instead."""
    texts = {**HOSTILE, **LONG, **FULL} if mode == MODE else {**dict([*HOSTILE.items()][::12]), **LONG}
    names = [*texts, *(HOSTILE if mode == MODE else ())]
    pairs = [(min(PLAIN, text), max(PLAIN, text)) for text in texts.values()]
    pairs += [pair[::-1] for pair in pairs[: len(names) - len(texts)]]
    before, held, own = children(), forget_memory_peak(), time.process_time()
    with grader(mode, workers=2, cpu_seconds=CPU_SECONDS) as judge:
        grades = grades_of(judge, pairs)
        classes = judge.classes([[text, PLAIN, None, text] for text in texts.values()])
        assert verdicts_of(judge, [("7", "7"), ("7", "8")]) == [EQUAL, DIFFERENT]  # still at work
    assert classes == [[0, 1, None, 0]] * len(texts)
    assert [name for name, grade in zip(names, grades, strict=True) if grade.verdict is EQUAL] == []
    assert [name for name, grade in zip(names, grades, strict=True) if grade.ms > LONGEST_MS] == []
    assert time.process_time() - own < OWN_SECONDS * len(texts) / 10
    assert children() == before
    assert memory_peak() - held < MEMORY_BYTES


def test_hostile_answers_equal_themselves(judge: Grader) -> None:
    texts = {**HOSTILE, **FULL, **LONG}
    found = verdicts_of(judge, [(text, text) for text in texts.values()])
    assert [name for name, verdict in zip(texts, found, strict=True) if verdict is not EQUAL] == []


def test_hostile_answers_against_each_other(judge: Grader) -> None:
    """Both texts are hostile, so no cheap rule decides; the verdict is the same in both orders."""
    texts = list(HOSTILE.values())
    pairs = list(itertools.pairwise(texts)) + [(text, f"1+{text}") for text in texts]
    watch = Stopwatch()
    watch.start()
    for a, b in pairs:
        one, other = grades_of(judge, [(a, b)])[0], grades_of(judge, [(b, a)])[0]
        assert one.verdict is other.verdict, (a, b)
        assert max(one.ms, other.ms) < LONGEST_MS
        watch.split(f"{a[:50]} and {b[:50]}")
    assert watch.late == []


def test_classes_of_hostile_answers(judge: Grader) -> None:
    """All texts as answers of one problem: the groups are the same in reverse order."""
    texts = list(HOSTILE.values())
    start = time.process_time()
    forward, backward = judge.classes([texts, texts[::-1]])
    assert time.process_time() - start < OWN_SECONDS * len(texts) / 10
    assert partition(texts, forward) == partition(texts[::-1], backward)


def partition(texts: list[str], classes: list[int | None]) -> set[frozenset[str]]:
    groups: dict[int | None, set[str]] = {}
    for text, number in zip(texts, classes, strict=True):
        groups.setdefault(number, set()).add(text)
    return {frozenset(group) for group in groups.values()}


CLOSE = [
    ("10^{50}", "10^{50}+1"),
    ("10^{400}", "10^{400}+1"),
    ("10^{100000000}", "10^{100000000}+1"),
    ("2^{-100}", "0"),
    ("2^{-10000}", "0"),
    ("10^{-400}", "2 \\cdot 10^{-400}"),
    ("9007199254740993", "9007199254740992"),
    ("9007199254740993.0", "9007199254740992"),
    ("0.3333333333333333", r"\frac{1}{3}"),
    ("0.99999999999999999999", "1"),
    (r"\pi", "3.14159265358979"),
    (r"\pi", r"\frac{355}{113}"),
    (r"\pi", r"\frac{245850922}{78256779}"),
    (r"\sqrt{2}", "1.4142135623730951"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    (r"\sqrt{10^{40}+1}", "10^{20}"),
    (r"\sqrt{2}+\sqrt{3}", r"\sqrt{10}"),
    (r"\cos(10^{-12})", "1"),
    (r"\sqrt[3]{1+10^{-30}}", "1"),
    ("1+x", r"1+x+10^{-20}"),
    (f"{10**60}x", f"{10**60 + 1}x"),
    (r"\pi^{100}", r"\pi^{100}+1"),
    (r"2^{1000}\pi", r"2^{1000}\pi+1"),
    (r"\sqrt{2}+10^{-60}", r"\sqrt{2}"),
    ("x^{100}+10^{-50}", "x^{100}"),
    ("1" * 5000, "1" * 4999 + "2"),
    ("7", "7" * 100_000),
]


@pytest.mark.parametrize(("a", "b"), CLOSE)
def test_close_values_stay_apart(judge: Grader, a: str, b: str) -> None:
    """Only an answer that is the gold value rounded is let through, and told; voters are exact."""
    for grade in grades_of(judge, [(a, b), (b, a)]):
        assert grade.verdict is not EQUAL or grade.tier == "rounded"
    assert len(set(judge.classes([[a, b]])[0])) == 2
    with grader("math-exact", workers=1) as exact:
        assert EQUAL not in verdicts_of(exact, [(a, b), (b, a)])


FORMATS = (
    "ANSWER",
    "so \\boxed{ANSWER}.",
    "steps\n\n# Answer\n\nANSWER",
    "The final answer is $ANSWER$. I hope it is correct.",
    "The answer is ANSWER.",
    "work #### ANSWER",
    "ANSWER \\boxed{1",
)


def test_extraction_of_hostile_answers() -> None:
    watch = Stopwatch()
    watch.start()
    for name, text in {**HOSTILE, **FULL}.items():
        for form in FORMATS:
            response = form.replace("ANSWER", text)
            assert_inside(extract(response), response)
            assert extract(response, finished=False) is None, name
        watch.split(name, own=len(FORMATS) * OWN_SECONDS)
    assert watch.late == []


def assert_inside(found: Extraction | None, response: str) -> None:
    """Check that there is no answer, or that its span contains it."""
    if found is not None:
        assert 0 <= found.start <= found.end <= len(response)
        assert found.answer and found.answer in response[found.start : found.end]


MARKERS = (
    *(
        "\\boxed{",
        "\\boxed{a}",
        "\\boxed",
        "\\boxed ",
        "\\boxed 1",
        "\\boxed{{}",
        "\\boxed{}}",
        "\\boxed{\\}",
        "\\fbox{",
    ),
    *(
        "$\\boxed{",
        "\\boxed{$",
        "# Answer",
        "# Answer\n",
        "# Answer\n\n",
        "\n# Answer\n\n1\n\n",
        "# Answer ",
        "#",
        "##",
    ),
    *(
        "####",
        "#### ",
        "#### 1",
        "#### 1\n",
        "\n#### ",
        "the answer is",
        "The answer is ",
        "answer is $",
        "answer is: ",
    ),
    *(
        "final answer is ",
        "Final Answer: The final answer is $1$. I hope it is correct.",
        "final answer is $",
    ),
    *(
        "the final answer is \\boxed{",
        "is ",
        "answer ",
        "**",
        "**Answer:**",
        "\\(",
        "\\[",
        "\\]",
        "$$",
        ".",
        ". ",
        ".\n",
    ),
    *(
        "<answer>",
        "```output\n",
        "```",
        "\r\n",
        "\u2028",
        "\x00",
        "\ud800",
        "\\",
        "\\\\",
        "{\\",
        "}\\",
        "I hope ",
    ),
)


@pytest.mark.parametrize("marker", MARKERS)
def test_extraction_is_linear(marker: str) -> None:
    """A quadratic rule would take minutes on a megabyte."""
    text = repeated(marker, MEGABYTE)
    start = time.process_time()
    for response in (
        text,
        f"{text} 7",
        f"\\boxed{{{text}",
        f"# Answer\n\n{text}",
        f"answer is {text}",
        f"#### {text}",
    ):
        assert_inside(extract(response), response)
    assert time.process_time() - start < 6 * OWN_SECONDS
