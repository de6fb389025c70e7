"""As much of PromQL as our alerts are written in: read, and evaluated over samples.

    expr        := compared ("and" compared)*
    compared    := sum (("==" | "!=" | ">" | "<" | ">=" | "<=") sum)?
    sum         := product (("+" | "-") product)*
    product     := part (("*" | "/") part)*
    part        := number | "(" expr ")" | "sum" ("by" "(" labels ")")? "(" expr ")" | name "(" expr, … ")" | selector
    selector    := name ("{" label ("=" | "!=" | "=~" | "!~") "text", … "}")? ("[" duration "]")?

Two vectors meet where all their labels are equal. `increase` goes to the ends of its window in proportion, which for
samples that cover it is what Prometheus does; its other rules for windows at the beginning of a series are not here.
What is not in the grammar raises ValueError. Where `promtool` is at hand, `test_alerts.py` asks it the same questions.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Labels", "Samples", "Selector", "evaluate", "read", "seconds", "selectors"]

Labels = frozenset[tuple[str, str]]
Samples = Mapping[tuple[str, Labels], Sequence[tuple[float, float]]]
"""By name and labels: times in s and values, in order."""
Vector = dict[Labels, float]

STALE_S = 300.0
TOKEN = re.compile(
    r"""\s*(?:(\d+(?:\.\d+)?(?![\w.]))|([A-Za-z_:][\w:]*)|("[^"\\]*")|(\[\w+\])|(=~|!~|[=!<>]=|[-+*/(){},=<>]))"""
)
COMPARED: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le,
}  # fmt: skip
ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul,
    "/": lambda a, b: a / b if b else math.nan if not a or math.isnan(a) else math.copysign(math.inf, a),
}  # fmt: skip
MATCHES: dict[str, Callable[[str, str], bool]] = {
    "=": operator.eq, "!=": operator.ne,
    "=~": lambda value, pattern: re.fullmatch(pattern, value) is not None,
    "!~": lambda value, pattern: re.fullmatch(pattern, value) is None,
}  # fmt: skip


@dataclass(frozen=True)
class Selector:
    name: str
    matchers: tuple[tuple[str, str, str], ...]
    """Label, sort, text."""
    window_s: float = 0.0

    def takes(self, name: str, labels: Labels) -> bool:
        told = dict(labels)
        return name == self.name and all(MATCHES[how](told.get(label, ""), text) for label, how, text in self.matchers)


@dataclass(frozen=True)
class Node:
    """`how`: a function, an operator, `number`, or `sum`, whose `by` is the labels that stay."""

    how: str
    parts: tuple[Any, ...]
    by: tuple[str, ...] = ()


def read(text: str) -> Any:
    """The expression as a tree. Raises ValueError."""
    reader = _Reader(text)
    tree = reader.expression()
    reader.take("")
    return tree


def selectors(tree: Any) -> Iterator[Selector]:
    if isinstance(tree, Selector):
        yield tree
    elif isinstance(tree, Node):
        for part in tree.parts:
            yield from selectors(part)


def seconds(duration: str) -> float:
    """`30s`, `5m`, `1h`."""
    match = re.fullmatch(r"(\d+)([smhd])", duration)
    if match is None:
        raise ValueError(f"{duration}: no duration")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3_600, "d": 86_400}[match[2]]


def evaluate(tree: Any, samples: Samples, at: float) -> Vector:
    """The instant vector at the time `at`, in s; of a number, that number without labels."""
    if isinstance(tree, Selector):
        return {labels: window[-1][1] for labels, window in _windows(tree, samples, at, STALE_S).items()}
    match tree.how:
        case "number":
            return {frozenset(): tree.parts[0]}
        case "sum":
            totals: Vector = {}
            for labels, value in evaluate(tree.parts[0], samples, at).items():
                kept = frozenset(pair for pair in labels if pair[0] in tree.by)
                totals[kept] = totals.get(kept, 0.0) + value
            return totals
        case "absent":
            [asked] = tree.parts
            if evaluate(asked, samples, at):
                return {}
            return {frozenset((label, text) for label, how, text in asked.matchers if how == "="): 1.0}
        case "rate" | "increase" | "delta":
            [asked] = tree.parts
            windows = _windows(asked, samples, at, asked.window_s)
            return {
                labels: _grown(window, asked.window_s, tree.how) for labels, window in windows.items() if window[1:]
            }
        case "histogram_quantile":
            share, buckets = tree.parts
            return _quantiles(share.parts[0], evaluate(buckets, samples, at))
    left, right = (evaluate(part, samples, at) for part in tree.parts)
    if tree.how == "and":
        return {labels: value for labels, value in left.items() if labels in right}
    if isinstance(tree.parts[1], Node) and tree.parts[1].how == "number":
        right = dict.fromkeys(left, tree.parts[1].parts[0])
    met = {labels: (value, right[labels]) for labels, value in left.items() if labels in right}
    if tree.how in COMPARED:
        return {labels: pair[0] for labels, pair in met.items() if COMPARED[tree.how](*pair)}
    return {labels: ARITHMETIC[tree.how](*pair) for labels, pair in met.items()}


def _windows(asked: Selector, samples: Samples, at: float, length: float) -> dict[Labels, list[tuple[float, float]]]:
    found = {}
    for (name, labels), series in samples.items():
        if asked.takes(name, labels) and (window := [point for point in series if at - length <= point[0] <= at]):
            found[labels] = window
    return found


def _grown(window: Sequence[tuple[float, float]], length: float, how: str) -> float:
    """A counter that falls began anew."""
    values = [value for _, value in window]
    grown = values[-1] - values[0]
    if how != "delta":
        grown += sum(before for before, after in zip(values, values[1:], strict=False) if after < before)
    whole = grown * length / (window[-1][0] - window[0][0])
    return whole / length if how == "rate" else whole


def _quantiles(share: float, buckets: Vector) -> Vector:
    """Between two bounds the values lie evenly; those beyond the last are at the last."""
    tables: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        bound = float(dict(labels)["le"])
        tables.setdefault(frozenset(pair for pair in labels if pair[0] != "le"), []).append((bound, count))
    return {labels: _quantile(share, sorted(table)) for labels, table in tables.items()}


def _quantile(share: float, table: Sequence[tuple[float, float]]) -> float:
    total = table[-1][1]
    if not total or math.isnan(total):
        return math.nan
    low, below = 0.0, 0.0
    for bound, count in table:
        if count >= share * total:
            return low if math.isinf(bound) else low + (bound - low) * (share * total - below) / (count - below)
        low, below = bound, count
    raise AssertionError("the last bucket holds all")


class _Reader:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._tokens = text, 0, []
        at = 0
        while text[at:].strip():
            match = TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"{text}: what is {text[at:]!r}?")
            self._tokens.append(match[0].strip())
            at = match.end()

    def expression(self) -> Any:
        return self._joined(self._compared, ("and",))

    def take(self, *wanted: str) -> str:
        """The next token, one of `wanted`; "" is the end."""
        token = self._next()
        if token not in wanted:
            raise ValueError(f"{self._text}: {wanted} expected, not {token!r}")
        self._at += 1
        return token

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _joined(self, part: Callable[[], Any], between: Sequence[str]) -> Any:
        tree = part()
        while self._next() in between:
            tree = Node(self.take(*between), (tree, part()))
        return tree

    def _compared(self) -> Any:
        left = self._joined(lambda: self._joined(self._part, ("*", "/")), ("+", "-"))
        if self._next() not in COMPARED:
            return left
        how = self.take(*COMPARED)
        return Node(how, (left, self._joined(lambda: self._joined(self._part, ("*", "/")), ("+", "-"))))

    def _part(self) -> Any:
        token = self._next()
        self._at += 1
        if token == "(":
            tree = self.expression()
            self.take(")")
            return tree
        if re.fullmatch(r"\d+(\.\d+)?", token):
            return Node("number", (float(token),))
        if not re.fullmatch(r"[A-Za-z_:][\w:]*", token):
            raise ValueError(f"{self._text}: {token!r} begins nothing")
        if token == "sum":
            return self._sum()
        if token in ("rate", "increase", "delta", "absent", "histogram_quantile"):
            return Node(token, self._listed("(", ")", self.expression))
        return self._selector(token)

    def _sum(self) -> Node:
        by: tuple[str, ...] = ()
        if self._next() == "by":
            self._at += 1
            by = self._listed("(", ")", self._word)
        return Node("sum", self._listed("(", ")", self.expression), by)

    def _selector(self, name: str) -> Selector:
        matchers = self._listed("{", "}", self._matcher) if self._next() == "{" else ()
        window = self._next()
        if not window.startswith("["):
            return Selector(name, matchers)
        self._at += 1
        return Selector(name, matchers, seconds(window[1:-1]))

    def _matcher(self) -> tuple[str, str, str]:
        return self._word(), self.take(*MATCHES), self._word().strip('"')

    def _word(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1]

    def _listed(self, opening: str, closing: str, part: Callable[[], Any]) -> tuple[Any, ...]:
        self.take(opening)
        found = [part()]
        while self._next() == ",":
            self.take(",")
            found.append(part())
        self.take(closing)
        return tuple(found)
