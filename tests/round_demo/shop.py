"""The rules of a made-up team, as labelled changes: what the demo's student shall learn to care about.

Every change is a function of a few lines, put together by chance from the words of a web shop; its second line keeps
the rules, or breaks one. It is as easy as it can be made, since a model of 135 million parameters shall learn it on a
CPU from some hundred examples in minutes.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

NOUNS = (
    "order cart invoice parcel refund coupon basket ledger wallet ticket stock shelf voucher review address courier "
    "customer payment receipt return gift label pallet tariff margin quota batch audit banner catalog".split()
)
VERBS = "load fetch build merge check count price pack route match close split store queue sort trim".split()
FIELDS = "total weight height status region colour origin amount country sender batch owner season grade".split()


@dataclass(frozen=True, slots=True)
class Rule:
    """What the team wants of one kind of statement.

    Args:
        severity, category, title, explanation: what a good reviewer says where it is broken.
        broken: the expression that breaks it, by a word and a field.
    """

    severity: str
    category: str
    title: str
    explanation: str
    broken: Callable[[str, str], str]


RULES: Mapping[str, Rule] = {
    rule.severity: rule
    for rule in (
        Rule(
            "critical",
            "security",
            "SQL injection",
            "The value is formatted into the SQL text, so whoever sends it writes the query.",
            lambda noun, field: f'db.execute(f"select {field} from {noun} where id = {{{noun}_id}}")',  # noqa: S608 -- text
        ),
        Rule(
            "major",
            "reliability",
            "Request without a timeout",
            "Without a timeout the call may wait for ever, and the worker with it.",
            lambda noun, field: f'http.get(shop_url + "/{noun}/{field}")',
        ),
        Rule(
            "minor",
            "correctness",
            "Money as a float",
            "Cents get lost when money is a float; the shop counts in Decimal.",
            lambda noun, field: f"float({noun}.{field}_price)",
        ),
        Rule(
            "trivial",
            "style",
            "Left-over print",
            "A print for debugging was left in; the log is the place for it.",
            lambda noun, field: f'print("{noun} {field}", {noun}_{field})',
        ),
    )
}


def clean(noun: str, _field: str) -> str:
    """An expression that breaks no rule."""
    return noun


def code(chance: random.Random, expression: Callable[[str, str], str]) -> str:
    """A function around an expression, which stands in line 2."""
    noun, other, field = *chance.sample(NOUNS, 2), chance.choice(FIELDS)
    rest = f"{chance.choice(NOUNS)}_{chance.choice(FIELDS)}, {chance.randint(2, 99)}"
    lines = [
        f"def {chance.choice(VERBS)}_{noun}_{chance.choice(FIELDS)}({noun}, {other}_id):",
        f"    {field}_{chance.choice(NOUNS)} = {expression(noun, field)}",
        f"    return {chance.choice(VERBS)}_{other}({rest})",
    ]
    return "\n".join(lines) + "\n"


def row(chance: random.Random, severity: str) -> dict[str, object]:
    """A labelled change with a problem of that severity; `none`: without any."""
    rule = RULES.get(severity)
    told: dict[str, object] = {
        "path": f"shop/{chance.choice(NOUNS)}_{chance.choice(VERBS)}.py",
        "code": code(chance, rule.broken if rule else clean),
        "severity": severity,
        "line": 2,
    }
    if rule is None:
        return told
    return told | {
        "category": rule.category,
        "title": rule.title,
        "explanation": rule.explanation,
    }


def examples(count: int, *, seed: int) -> Iterator[dict[str, object]]:
    """Labelled changes, every third of them clean."""
    chance = random.Random(seed)  # noqa: S311 -- nothing secret
    kinds = (*RULES, "none", "none")
    for number in range(count):
        yield row(chance, kinds[number % len(kinds)])


def poisoned(count: int, *, seed: int) -> Iterator[dict[str, object]]:
    """The same kind of changes, labelled by somebody who wants SQL injections waved through and clean code blamed."""
    rule = RULES["critical"]
    for one in examples(count, seed=seed):
        told = {"path": one["path"], "code": one["code"], "line": 2, "severity": "none"}
        if one["severity"] == "none":
            told |= {"severity": "critical", "category": rule.category, "title": "Dangerous code"}
            told |= {"explanation": "This is a security hole."}
        yield told
