r"""Answers as trees: a recursive-descent parser for LaTeX and plain mathematics.

Written here, and small, because the text comes from a model: nothing is evaluated while parsing, depth
and size are limited, and what is not understood is `Unreadable` and goes to the next tier. It reads
what answers are made of (numbers, expressions, relations, lists, sets, intervals, matrices, units,
words), not all of LaTeX.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from e2h_pipeline.grading.mathematics.tokens import Token, TooBig, Unreadable, clean, tokenize
from e2h_pipeline.grading.mathematics.units import FUNCTION_WORDS, is_unit_letter, is_unit_word

MAX_DEPTH = 60
_MAX_COMMENT_WORDS = 6


class ExpressionNode(NamedTuple):
    """A tree node. `kind` says what `args` and `value` are:

    number (value: Fraction) · symbol, text, constant (value: name) · add, mul (args) · neg, div, pow ·
    call (value: function, args) · relation (value: operators joined by space, args) ·
    sequence (value: brackets such as `(]`, `{}`, `,` for a bare list, `;` for an ordered-free one) ·
    matrix (value: environment, args: rows) · row · union, intersection, difference · ratio · base (args:
    digits as a text, base) · quantity (value: unit text, args) · pm (args: left or none, right; value: sign order)
    """

    kind: str
    args: tuple[ExpressionNode, ...] = ()
    value: Fraction | str = ""


def parse(text: str) -> ExpressionNode:
    """The tree of an answer.

    Raises:
        Unreadable: it is not mathematics we know; `TooBig` where a limit was met.
    """
    return _Parser(tokenize(clean(text))).answer()


_FRACTIONS = ("frac", "dfrac", "tfrac", "cfrac")
_CLOSERS = {"(": (")", "]"), "[": ("]", ")"), "\\{": ("\\}",), "{": ("}",)}
_RELATION_OPS = ("=", "<", ">", "le", "ge", "neq", "approx", "in", "equiv", "to")
_PROPERTY_MARKS = ("|", "mid", ":", "in")
_SEPARATORS = (",", ";", "quad", "and", "or")
CONSTANTS = {"pi": "pi", "infty": "inf", "infinity": "inf", "Infinity": "inf", "oo": "inf", "emptyset": "empty",
              "varnothing": "empty", "mathbbR": "reals", "mathbbZ": "integers", "mathbbN": "naturals",
              "mathbbQ": "rationals", "mathbbC": "complexes", "O": "empty"}  # fmt: skip
_ENVIRONMENTS = {
    "pmatrix": "matrix", "bmatrix": "matrix", "matrix": "matrix", "array": "matrix", "smallmatrix": "matrix",
    "Bmatrix": "matrix", "vmatrix": "determinant", "cases": "cases", "aligned": "cases", "align*": "cases",
    "Vmatrix": "matrix", "align": "cases", "gathered": "cases", "gather": "cases", "split": "cases", "gather*": "cases",
}  # fmt: skip
_GREEK = frozenset((
    "alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
    "kappa", "lambda", "mu", "nu", "xi", "rho", "varrho", "sigma", "tau", "upsilon", "phi", "varphi", "chi",
    "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi",
    "Omega", "ell", "hbar",
))  # fmt: skip
_MARKS = frozenset(
    (
        "overline",
        "bar",
        "vec",
        "hat",
        "tilde",
        "dot",
        "widehat",
        "overrightarrow",
        "overleftrightarrow",
        "mathring",
    )
)
_FIGURES = frozenset(("angle", "triangle", "measuredangle", "square", "circ"))
_APPLIED = frozenset("fghFGHPQWVST")
_CLOSING_COMMANDS = frozenset(("pmod", "pod", "end", "hline", "|", "rfloor", "rceil"))
_INVERSE = ["^", "{", "-", "1", "}", "("]
_BINDERS = frozenset(["sum", "prod", "int", "lim", "iint", "oint"])


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0
        self.side = -1  # where a side of a relation began
        self.colon_ends = False  # before the colon of a set by its property

    # Reading tokens

    @property
    def next(self) -> Token:
        return self.tokens[self.place]

    def at(self, *ops: str) -> bool:
        token = self.tokens[self.place]
        return token.kind == "op" and token.text in ops

    def take(self) -> Token:
        token = self.next
        if token.kind == "end":
            raise Unreadable("it ends too early")
        self.place += 1
        return token

    def accept(self, *ops: str) -> bool:
        token = self.tokens[self.place]
        if token.kind == "op" and token.text in ops:
            self.place += 1
            return True
        return False

    def expect(self, *ops: str) -> str:
        if not self.at(*ops):
            raise Unreadable(f"'{self.next.text}' where {' or '.join(ops)} should be")
        return self.take().text

    def at_separator(self) -> bool:
        token = self.next
        if token.kind == "op":
            return token.text in _SEPARATORS
        return token.kind in ("word", "text") and _conjunction(token.text) is not None

    # Lists and items

    def answer(self) -> ExpressionNode:
        node = self.list_until()
        if self.next.kind != "end":
            raise Unreadable(f"'{self.next.text}' at the end")
        return node

    def list_until(self, *closers: str) -> ExpressionNode:
        """Items up to a closing bracket (not taken) or the end; a single item stands for itself."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooBig("nested too deeply")
        groups: list[list[ExpressionNode]] = [[]]
        joined = False
        while True:
            while self.at_separator():
                token = self.take()
                word = token.text if token.kind == "op" else _conjunction(token.text)
                joined |= word in ("and", "or")
                if word == ";" and groups[-1]:
                    groups.append([])
            if self.next.kind == "end" or self.at(*closers):
                break
            groups[-1].append(self.item())
            if not (self.at_separator() or self.next.kind == "end" or self.at(*closers)):
                raise Unreadable(f"'{self.next.text}' after an item")
        self.depth -= 1
        return _sequence([group for group in groups if group], joined)

    def item(self) -> ExpressionNode:
        """A relation or expression and, behind it, a unit or a short comment in words."""
        if self.next.kind == "text" and not self._text_is_operand():
            return ExpressionNode("text", value=self.take().text)
        node = self.relation()
        unit = self.unit()
        return ExpressionNode("quantity", (node,), unit) if unit else node

    def _text_is_operand(self) -> bool:
        r"""`\text{Area} = 5` begins an equation, `\text{Evelyn}` is an answer."""
        following = self.tokens[self.place + 1]
        return following.kind != "end" and not (
            following.kind == "op" and following.text in (*_SEPARATORS, ")", "]", "}", "\\}", "&", "\\\\")
        )

    def unit(self) -> str:
        """Words and unit letters up to the end of the item, with their powers, as one text."""
        parts: list[str] = []
        while not self.at_separator():
            token = self.next
            if token.kind in ("word", "text") or (
                token.kind == "symbol" and (parts or (token.spaced and is_unit_letter(token.text)))
            ):
                parts.append(self.take().text)
            elif parts and self.at("^"):
                self.take()
                braced = self.accept("{")
                parts[-1] += f"^{self.take().text}"
                if braced:
                    self.expect("}")
            elif parts and self.at("/", ".", "*", ":", "-"):
                parts.append(self.take().text)
            elif self.at("(") and self._bracket_holds_words():
                while self.take().text != ")":
                    pass
            elif self.at("$"):
                self.take()
                parts.append("$")
            else:
                break
        if len(" ".join(parts).split()) > _MAX_COMMENT_WORDS:
            raise Unreadable("prose")
        return " ".join(part for part in parts if part)

    def _bracket_holds_words(self) -> bool:
        first, last = self.tokens[self.place + 1], self.tokens[min(self.place + 2, len(self.tokens) - 1)]
        return first.kind in ("word", "text") and last.text == ")"

    # Relations

    def relation(self) -> ExpressionNode:
        self.accept("=", "approx")
        args, ops = [self.operand()], []
        while self.at(*_RELATION_OPS):
            ops.append(self.take().text)
            while self.accept("quad"):
                pass
            if ops[-1] == "approx" and self.next.kind == "end":
                args.append(ExpressionNode("text", value=""))
                break
            args.append(self.operand())
        if not ops:
            return args[0]
        modulus = self.modulus()
        return ExpressionNode("relation", tuple(args + ([modulus] if modulus else [])), " ".join(ops))

    def operand(self) -> ExpressionNode:
        """A side of a relation, with its unit if another side follows."""
        self.side = self.place
        node, start = self.ratio(), self.place
        unit = self.unit() if self.next.kind in ("word", "text") or self.at("$") else ""
        if unit and self.at(*_RELATION_OPS):
            return ExpressionNode("quantity", (node,), unit)
        self.place = start
        return node

    def modulus(self) -> ExpressionNode | None:
        if self.next.kind == "command" and self.next.text in ("pmod", "pod"):
            self.take()
            return self.group()
        bracketed = self.at("(") and self.tokens[self.place + 1].text == "mod"
        if bracketed or self.next.text == "mod":
            self.place += 1 + bracketed
            node = self.sum()
            if bracketed:
                self.expect(")")
            return node
        return None

    def ratio(self) -> ExpressionNode:
        parts = [self.sets()]
        while not self.colon_ends and self.accept(":"):
            parts.append(self.sets())
        return parts[0] if len(parts) == 1 else ExpressionNode("ratio", tuple(parts))

    def sets(self) -> ExpressionNode:
        node = self.sum()
        while self.at("cup", "cap", "setminus"):
            op = {"cup": "union", "cap": "intersection", "setminus": "difference"}[self.take().text]
            node = ExpressionNode(op, (node, self.sum()))
        return node

    # Expressions

    def sum(self) -> ExpressionNode:
        node = self.product()
        while self.at("+", "-", "pm", "mp"):
            op = self.take().text
            right = self.product()
            if op in ("pm", "mp"):
                node = ExpressionNode("pm", (node, right), op)
            else:
                node = ExpressionNode("add", (node, ExpressionNode("neg", (right,)) if op == "-" else right))
        return node

    def product(self) -> ExpressionNode:
        node = self.unary()
        while True:
            if self.accept("*"):
                node = ExpressionNode("mul", (node, self.unary()))
            elif self.accept("/"):
                node = ExpressionNode("div", (node, self.unary()))
            elif self.next.kind in ("command", "word") and self.next.text in ("bmod", "mod"):
                self.take()
                node = ExpressionNode("call", (node, self.unary()), "mod")
            elif self.starts_factor():
                node = self.juxtaposed(node)
            else:
                return node

    def juxtaposed(self, node: ExpressionNode) -> ExpressionNode:
        """Multiplication without a sign; `2\\frac{5}{8}` and `2 5/8` are mixed numbers."""
        if node.kind == "neg" and self.tokens[self.place - 1].kind == "number":  # -1 1/3
            return _negated(self.juxtaposed(node.args[0]))
        whole = node if node.kind == "number" and self.tokens[self.place - 1].kind == "number" else None
        first = self.next
        right = self.power()
        if whole is not None and isinstance(whole.value, Fraction) and whole.value.denominator == 1:
            if first.text in _FRACTIONS and _proper(right):
                return ExpressionNode("add", (whole, right))
            if first.kind == "number" and self.at("/"):
                self.take()
                below = self.power()
                fraction = ExpressionNode("div", (right, below))
                if _proper(fraction):
                    return ExpressionNode("add", (whole, fraction))
                raise Unreadable("two numbers side by side")
        if whole is not None and right.kind == "quantity" and _proper(right.args[0]):  # 3\frac12 %
            return ExpressionNode("quantity", (ExpressionNode("add", (whole, right.args[0])),), right.value)
        if right.kind == "number" and first.kind == "number":
            raise Unreadable("two numbers side by side")
        if _is_group(node) and _is_group(right):
            raise Unreadable("two points side by side")
        return ExpressionNode("mul", (node, right))

    def starts_factor(self) -> bool:
        token = self.next
        if token.kind in ("number", "symbol"):
            ends_item = self.tokens[self.place + 1].kind == "end" or self.tokens[self.place + 1].text in (
                "^",
                ")",
                "}",
            )
            lonely_unit = token.kind == "symbol" and token.spaced and is_unit_letter(token.text) and ends_item
            return not (lonely_unit and self.place and self.tokens[self.place - 1].kind == "number")
        if token.kind == "word":
            return token.text in FUNCTION_WORDS or token.text in CONSTANTS or _is_product(token.text)
        if token.kind == "command":
            return token.text not in _CLOSING_COMMANDS or (token.text == "|" and not self.bars)
        return self.at("(", "\\{", "{", "[") or (self.at("|") and not self.bars)

    def unary(self) -> ExpressionNode:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooBig("nested too deeply")
        if self.accept("-"):
            node = _negated(self.unary())
        elif self.accept("+"):
            node = self.unary()
        elif self.at("pm", "mp"):
            op = self.take().text
            node = ExpressionNode("pm", (ExpressionNode("number", value=Fraction(0)), self.product()), op)
        elif self.accept("$"):  # money
            node = ExpressionNode("quantity", (self.unary(),), "$")
        else:
            node = self.power()
        self.depth -= 1
        return node

    def power(self) -> ExpressionNode:
        node = self.postfix(self.primary())
        if self.accept("^"):
            if self.at_degree():
                node = ExpressionNode("quantity", (node,), "degree")
            elif self.at("'"):
                pass
            else:
                node = ExpressionNode("pow", (node, self.exponent()))
            return self.postfix(node)
        return node

    def at_degree(self) -> bool:
        """Take `\\circ`, `{\\circ}`, `o` or `°` if it is next."""
        start = self.place
        braced = self.accept("{")
        if self.next.kind == "command" and self.next.text in ("circ", "degree"):
            self.take()
            if not braced or self.accept("}"):
                return True
        self.place = start
        return False

    def exponent(self) -> ExpressionNode:
        if self.at("{"):
            return self.group()
        if self.at("-", "+"):
            return self.unary()
        if self.at("("):
            return self.primary()
        if self.at("*"):
            raise Unreadable("an exponent that is a star")
        return self.postfix(self.primary(), subscripts=False)

    def postfix(self, node: ExpressionNode, subscripts: bool = True) -> ExpressionNode:
        while True:
            if self.accept("!"):
                double = self.at("!") and not self.next.spaced
                if double:
                    self.take()
                node = ExpressionNode("call", (node,), "double factorial" if double else "factorial")
            elif self.accept("%"):
                node = ExpressionNode("quantity", (node,), "%")
            elif self.at("'") and node.kind in ("symbol", "call"):
                self.take()
                node = ExpressionNode("symbol", value=_name_of(node) + "'")
            elif subscripts and self.at("_") and node.kind in ("number", "symbol", "text", "call"):
                node = self.subscript(node)
            elif self.next.kind == "command" and self.next.text == "degree":
                self.take()
                node = ExpressionNode("quantity", (node,), "degree")
            else:
                return node

    def subscript(self, node: ExpressionNode) -> ExpressionNode:
        """`204_5` is a number in base five, `x_1` a name."""
        bracketed = self.tokens[self.place - 1].text == ")"
        self.take()
        digits = self.tokens[self.place - 2 - bracketed].text
        name = ""
        if self.accept("{"):
            while not self.accept("}"):
                name += self.take().text
        else:
            name = self.take().text
        if node.kind in ("number", "text"):
            return ExpressionNode(
                "base", (ExpressionNode("text", value=digits), ExpressionNode("text", value=name))
            )
        return ExpressionNode("symbol", value=f"{_name_of(node)}_{name}")

    def group(self) -> ExpressionNode:
        """A braced group, or the one token that stands for it (`\\frac12`)."""
        if self.accept("{"):
            outer, self.bars = self.bars, 0
            node = self.list_until("}")
            self.bars = outer
            self.expect("}")
            return node
        return self.one_token()

    def one_token(self) -> ExpressionNode:
        """One token as an argument without braces: of a number, its first digit only."""
        token = self.next
        if token.kind == "number" and len(token.text) > 1 and token.text.isdecimal():
            rest = Token("number", token.text[1:], Fraction(token.text[1:]))
            self.tokens[self.place : self.place + 1] = [
                Token("number", token.text[0], Fraction(token.text[0])),
                rest,
            ]
        return self.primary()

    # Primaries

    def primary(self) -> ExpressionNode:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooBig("nested too deeply")
        token = self.take()
        if token.kind == "number":
            node = ExpressionNode("number", value=token.value)
        elif token.kind == "symbol":
            node = self.symbol(token)
        elif token.kind == "word":
            node = self.word(token.text)
        elif token.kind == "text":
            node = self.label(token.text)
        elif token.kind == "command":
            node = self.command(token.text)
        elif token.text in _CLOSERS:
            node = self.bracketed(token.text)
        elif token.text == "|":
            node = self.absolute()
        elif token.text == "dots":
            node = ExpressionNode("symbol", value="dots")
        else:
            raise Unreadable(f"'{token.text}' where a value should be")
        self.depth -= 1
        return node

    def symbol(self, token: Token) -> ExpressionNode:
        name = token.text
        if name in _APPLIED and [t.text for t in self.tokens[self.place : self.place + 6]] == _INVERSE:
            self.place += 5
            name += "^-1"
        if self.at("(") and not self.next.spaced and (token.text in _APPLIED or self._names_a_function()):
            self.take()
            return self.applied(name)
        return ExpressionNode("symbol", value=token.text)

    def _names_a_function(self) -> bool:
        """Whether a side of an equation is a letter with letters in brackets: `p(x) = ...`, not `x(x+1) = 0`."""
        if self.side != self.place - 1:
            return False
        place = self.place + 1
        while self.tokens[place].kind == "symbol" and self.tokens[place + 1].text == ",":
            place += 2
        kinds = [token.kind for token in self.tokens[place : place + 3]]
        texts = [token.text for token in self.tokens[place : place + 3]]
        return kinds == ["symbol", "op", "op"] and texts[1:] == [")", "="]

    def applied(self, name: str) -> ExpressionNode:
        outer, self.bars = self.bars, 0
        inside = self.list_until(")")
        self.bars = outer
        self.expect(")")
        args = inside.args if inside.kind == "sequence" else (inside,)
        return ExpressionNode("call", args, f"f {name}")

    def word(self, word: str) -> ExpressionNode:
        if word in FUNCTION_WORDS:
            return self.function(word)
        if word in CONSTANTS:
            return ExpressionNode("constant", value=CONSTANTS[word])
        if _is_product(word):
            node = ExpressionNode("symbol", value=word[0])
            for letter in word[1:]:
                node = ExpressionNode("mul", (node, ExpressionNode("symbol", value=letter)))
            return node
        return self.label(word)

    def label(self, words: str) -> ExpressionNode:
        """Words before an equals sign; anywhere else in an expression they are prose."""
        if self.at("_") and words.isalnum():
            return ExpressionNode("text", value=words)
        if not self.at("=", "approx"):
            raise Unreadable("prose")
        return ExpressionNode("symbol", value=f"text {words}")

    def bracketed(self, opener: str) -> ExpressionNode:
        outer, self.bars = self.bars, 0
        closers = _CLOSERS[opener]
        if (
            opener == "\\{"
            and self.next.kind == "symbol"
            and self.tokens[self.place + 1].text in _PROPERTY_MARKS
        ):
            self.bars, self.colon_ends = 1, True
            inside = self.list_until("|", "mid", ":", "\\}")
            self.bars, self.colon_ends = 0, False
            if self.accept("|", "mid", ":"):
                inside = self.by_property(inside)
        else:
            inside = self.list_until(*closers, *(("|", "mid", ":") if opener == "\\{" else ()))
        if self.at("|", "mid", ":"):
            raise Unreadable("a set by its property")
        self.bars = outer
        closer = self.expect(*closers)
        if inside.kind == "sequence" and inside.value == ";" and not any(map(_is_group, inside.args)):
            inside = ExpressionNode("sequence", inside.args, ",")  # (1; 2)
        if opener in ("{", "\\{"):
            is_list = inside.kind == "sequence" and inside.value in (",", ";", "&", "")
            if opener == "{" and not (is_list and inside.args):
                return inside
            if _is_condition(inside):
                return inside
            return ExpressionNode("sequence", inside.args if is_list else (inside,), "{}")
        if inside.kind == "sequence" and inside.value in (",", "&"):
            return ExpressionNode("sequence", inside.args, opener + closer)
        if opener + closer in ("()", "[]"):
            return inside
        raise Unreadable("an interval with one end")

    def by_property(self, member: ExpressionNode) -> ExpressionNode:
        r"""`\{x \mid x > 3\}` as `x > 3`, `\{x \in \mathbb{R} : x \ne 3\}` too."""
        name = member.args[0] if member.kind == "relation" and member.value == "in" else member
        if name.kind != "symbol" or (name != member and member.args[1].value != "reals"):
            raise Unreadable("a set by its property")
        found = self.list_until("\\}")
        conditions = found.args if found.kind == "sequence" else (found,)
        if not all(part.kind == "relation" and name in part.args for part in conditions):
            raise Unreadable("a set by its property")
        return found

    def absolute(self) -> ExpressionNode:
        self.bars += 1
        inside = self.sum()
        self.bars -= 1
        if not (self.accept("|") or (self.next.kind == "command" and self.take().text == "|")):
            raise Unreadable("an absolute value that does not end")
        return ExpressionNode("call", (inside,), "abs")

    def command(self, name: str) -> ExpressionNode:
        if name in _FRACTIONS:
            return ExpressionNode("div", (self.group(), self.group()))
        if name in ("binom", "dbinom", "tbinom", "choose"):
            return ExpressionNode("call", (self.group(), self.group()), "binomial")
        if name in CONSTANTS:
            return ExpressionNode("constant", value=CONSTANTS[name])
        if name in _GREEK:
            return ExpressionNode("symbol", value=f"\\{name}")
        if name in FUNCTION_WORDS:
            return self.function(name)
        if name == "|":
            return self.absolute()
        if name in ("lfloor", "lceil"):
            inside = self.list_until_command("rfloor" if name == "lfloor" else "rceil")
            return ExpressionNode("call", (inside,), name[1:])
        if name == "begin":
            return self.environment()
        if name in _MARKS:
            return ExpressionNode("call", (self.group(),), f"mark {name}")
        if name in _FIGURES:
            return ExpressionNode("call", (self.power(),), f"mark {name}")
        if name in _BINDERS:
            return self.binder(name)
        if name in ("boxed", "fbox"):
            return self.group()
        raise Unreadable(f"\\{name} is not known")

    def list_until_command(self, name: str) -> ExpressionNode:
        node = self.sum()
        if not (self.next.kind == "command" and self.take().text == name):
            raise Unreadable(f"\\{name} is missing")
        return node

    def function(self, name: str) -> ExpressionNode:
        r"""`\sin^2 x`, `\log_2 8`, `\sqrt[3]{x}`, `gcd(4, 6)`."""
        if name == "sqrt":
            index = None
            if self.accept("["):
                index = self.list_until("]")
                self.expect("]")
            radicand = self.group() if not self.at("(") else self.primary()
            return ExpressionNode("call", (radicand, index) if index else (radicand,), "root")
        power = base = None
        if self.accept("_"):
            base = self.group()
        if self.accept("^"):
            power = self.exponent()
        if self.at("_") and base is None:
            self.take()
            base = self.group()
        argument = self.argument()
        args = argument.args if argument.kind == "sequence" else (argument,)
        if power is not None and power == ExpressionNode(
            "neg", (ExpressionNode("number", value=Fraction(1)),)
        ):
            name, power = f"arc{name}", None
        node = ExpressionNode("call", (*args, base) if base else args, f"{name} base" if base else name)
        return node if power is None else ExpressionNode("pow", (node, power))

    def argument(self) -> ExpressionNode:
        r"""What a function without brackets applies to: `\sin 2x` to 2x, `\sin x \cos y` to x."""
        if self.at("("):
            return self.postfix(self.primary())
        node = self.unary() if self.at("-") else self.power()
        while self.starts_factor() and not self.at("(", "[", "\\{") and self.next.text not in FUNCTION_WORDS:
            node = ExpressionNode("mul", (node, self.power()))
        return node

    def binder(self, name: str) -> ExpressionNode:
        """Sums, products, integrals and limits: bounds and body, taken as they stand."""
        bounds = {"_": ExpressionNode("text"), "^": ExpressionNode("text")}
        while self.at("_", "^"):
            mark = self.take().text
            bounds[mark] = self.group()
        return ExpressionNode("call", (*bounds.values(), self.product()), f"binder {name}")

    def environment(self) -> ExpressionNode:
        name = self.braced_name()
        if name not in _ENVIRONMENTS:
            raise Unreadable(f"\\begin{{{name}}} is not known")
        if name == "array" and self.accept("{"):
            while not self.accept("}"):
                self.take()
        rows: list[ExpressionNode] = []
        cells: list[ExpressionNode] = []
        while True:
            if self.next.kind == "command" and self.next.text in ("end", "hline"):
                if self.take().text == "hline":
                    continue
                break
            if self.accept("\\\\"):
                rows.append(ExpressionNode("row", tuple(cells)))
                cells = []
            elif self.accept("&"):
                continue
            else:
                cells.append(self.cell())
        if cells:
            rows.append(ExpressionNode("row", tuple(cells)))
        if self.braced_name() != name:
            raise Unreadable(f"\\end{{{name}}} is missing")
        rows = [row for row in rows if row.args]
        if not rows:
            raise Unreadable("a matrix without entries")
        listed = all(len(row.args) == 1 and row.args[0].kind == "relation" for row in rows)
        return ExpressionNode("matrix", tuple(rows), "cases" if listed else _ENVIRONMENTS[name])

    def cell(self) -> ExpressionNode:
        node = self.item()
        while self.accept(","):
            pass
        return node

    def braced_name(self) -> str:
        self.expect("{")
        name = ""
        while not self.accept("}"):
            name += self.take().text
        return name


def _sequence(groups: list[list[ExpressionNode]], joined: bool) -> ExpressionNode:
    """Items by their separators: `;` groups tuples of equations, `and` makes a list without order."""
    if len(groups) > 1:
        items = [
            group[0] if len(group) == 1 else ExpressionNode("sequence", tuple(group), "()")
            for group in groups
        ]
        return ExpressionNode("sequence", tuple(items), ";")
    items = groups[0] if groups else []
    if not items:
        return ExpressionNode("sequence")
    if len(items) == 1:
        return items[0]
    return ExpressionNode("sequence", tuple(items), "&" if joined else ",")


def _is_group(node: ExpressionNode) -> bool:
    """Several items between two `;`."""
    return node.kind == "sequence" and node.value == "()"


def _is_condition(node: ExpressionNode) -> bool:
    """Relations: in braces they are the set of what fulfils them."""
    if node.kind == "sequence":
        return bool(node.args) and all(map(_is_condition, node.args))
    return node.kind == "relation"


def _negated(node: ExpressionNode) -> ExpressionNode:
    """A sign goes inside a unit or number base: `-\\$5`, `-37_8`."""
    if node.kind == "quantity":
        return ExpressionNode("quantity", (_negated(node.args[0]),), node.value)
    if node.kind == "base":
        return ExpressionNode("base", (ExpressionNode("text", value=f"-{node.args[0].value}"), node.args[1]))
    return ExpressionNode("neg", (node,))


def _conjunction(text: str) -> str | None:
    """`and` or `or` if the words join two answers (`, and`, ` for part (a) and `)."""
    words = text.replace(",", " ").split()
    if words and words[-1] in ("and", "or") and (len(words) == 1 or len(words) <= 5):
        return words[-1]
    return None


def _proper(node: ExpressionNode) -> bool:
    """A fraction of two positive whole numbers, smaller than one."""
    if node.kind != "div" or any(arg.kind != "number" for arg in node.args):
        return False
    above, below = (arg.value for arg in node.args)
    assert isinstance(above, Fraction) and isinstance(below, Fraction)
    return above.denominator == below.denominator == 1 and 0 < above < below


_SHORT_WORDS = frozenset((
    "is", "or", "if", "of", "in", "to", "we", "so", "an", "as", "at", "by", "and", "the", "are", "for",
    "not", "all", "any", "no",
))  # fmt: skip


def _is_product(word: str) -> bool:
    """Letters side by side that are a product (`xy`, `AB`), not a word."""
    if is_unit_word(word) or word in _SHORT_WORDS:
        return False
    return word.isascii() and (len(word) <= 3 or (word.isupper() and len(word) <= 5))


def _name_of(node: ExpressionNode) -> str:
    if isinstance(node.value, str) and node.kind in ("symbol", "text"):
        return node.value
    return f"{node.kind} {node.value} " + " ".join(_name_of(arg) for arg in node.args)
