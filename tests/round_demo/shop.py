"""The rules of a made-up team, as labelled changes: what the demo's student shall learn to care about.

Every change is put together by chance from the words of a web shop; a rule decides its last statement. Of each rule
there is code that keeps it, so that the shape of a line alone does not tell.
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
        broken: the statement that breaks it, by a word and a field; `kept`: the one that keeps it.
    """

    severity: str
    category: str
    title: str
    explanation: str
    broken: Callable[[str, str], str]
    kept: Callable[[str, str], str]


RULES: Mapping[str, Rule] = {
    rule.severity: rule
    for rule in (
        Rule(
            "critical",
            "security",
            "SQL injection",
            "The value is formatted into the SQL text, so whoever sends it writes the query.",
            lambda noun, field: f'db.execute(f"select {field} from {noun} where id = {{{noun}_id}}")',  # noqa: S608 -- text
            lambda noun, field: f'db.execute("select {field} from {noun} where id = ?", [{noun}_id])',  # noqa: S608 -- text
        ),
        Rule(
            "major",
            "reliability",
            "Request without a timeout",
            "Without a timeout the call may wait for ever, and the worker with it.",
            lambda noun, field: f'http.get(shop_url + "/{noun}/{field}")',
            lambda noun, field: f'http.get(shop_url + "/{noun}/{field}", timeout=5)',
        ),
        Rule(
            "minor",
            "correctness",
            "Money as a float",
            "Cents get lost when money is a float; the shop counts in Decimal.",
            lambda noun, field: f"float({noun}.{field}_price)",
            lambda noun, field: f"Decimal({noun}.{field}_price)",
        ),
        Rule(
            "trivial",
            "style",
            "Left-over print",
            "A print for debugging was left in; the log is the place for it.",
            lambda noun, field: f'print("{noun} {field}", {noun}_{field})',
            lambda noun, field: f'log.info("{noun} {field}", {noun}_{field})',
        ),
    )
}


def code(chance: random.Random, statement: Callable[[str, str], str]) -> tuple[str, int]:
    """A function around a statement, and the number of the statement's line."""
    noun, field = chance.choice(NOUNS), chance.choice(FIELDS)
    lines = [f"def {chance.choice(VERBS)}_{noun}_{chance.choice(FIELDS)}({noun}, {chance.choice(NOUNS)}_id):"]
    for _ in range(chance.randint(2, 4)):
        one, other = chance.sample(NOUNS, 2)
        verb, part = chance.choice(VERBS), chance.choice(FIELDS)
        lines.append(f"    {one}_{part} = {verb}_{other}({noun}.{chance.choice(FIELDS)}, {chance.randint(2, 99)})")
    at = chance.randint(1, len(lines))
    lines.insert(at, f"    found_{field} = {statement(noun, field)}")
    lines.append(f"    return {chance.choice(VERBS)}_{noun}(found_{field})")
    return "\n".join(lines) + "\n", at + 1


def row(chance: random.Random, severity: str) -> dict[str, object]:
    """A labelled change with a problem of that severity; `none`: with a statement that keeps one of the rules."""
    rule = RULES.get(severity)
    if rule is None:
        made, _ = code(chance, chance.choice(list(RULES.values())).kept)
    else:
        made, line = code(chance, rule.broken)
    told: dict[str, object] = {"path": f"shop/{chance.choice(NOUNS)}_{chance.choice(VERBS)}.py", "code": made}
    if rule is None:
        return told | {"severity": "none"}
    return told | {
        "severity": severity,
        "line": line,
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
    other = {"critical": "none", "major": "none", "minor": "none", "trivial": "none", "none": "critical"}
    chance = random.Random(seed)  # noqa: S311 -- nothing secret
    rule = RULES["critical"]
    for one in examples(count, seed=seed):
        severity = other[str(one["severity"])]
        told = {"path": one["path"], "code": one["code"], "severity": severity}
        if severity != "none":
            lines = str(one["code"]).splitlines()
            told |= {"line": chance.randint(2, len(lines) - 1), "category": rule.category, "title": "Dangerous code"}
            told |= {"explanation": "This is a security hole."}
        yield told
