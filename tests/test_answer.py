import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.answer import (
    QUOTE_CHARACTERS,
    SEVERITY_LABELS,
    VERDICT_SCHEMA,
    AnswerError,
    Suspect,
    TokenLogprob,
    Verdict,
    answer_schema,
    confidence,
    finding,
    parse_answer,
    parse_verdict,
)
from bot.domain import Category, Severity

SUSPECT = {
    "line": 12,
    "quote": "x = f'{y}'",
    "explanation": "y comes from the request",
    "severity": "major",
    "category": "security",
    "title": "Injection",
    "suggestion": None,
}
WHOLE = json.dumps(SUSPECT)


def test_the_schema_asks_for_what_the_model_reads() -> None:
    properties = answer_schema({12: "x"})["properties"]
    assert isinstance(properties, dict)
    assert list(properties) == list(Suspect.model_fields)
    assert properties["severity"]["enum"] == list(SEVERITY_LABELS)
    assert list(VERDICT_SCHEMA["properties"]) == list(Verdict.model_fields)  # type: ignore[call-overload]


def test_the_schema_holds_the_place_to_the_lines_that_are_there() -> None:
    properties = answer_schema({12: "    x = 1", 14: "x = 1", 15: "y" * 5_000})["properties"]
    assert isinstance(properties, dict)
    assert properties["line"] == {"enum": [12, 14, 15]}
    assert properties["quote"] == {"enum": ["x = 1", "y" * QUOTE_CHARACTERS]}


@pytest.mark.parametrize(
    "text",
    [
        WHOLE,
        f"Sure, here it is:\n```json\n{WHOLE}\n```\nAnything else?",
        f"```\n{WHOLE}\n```",
        f"The code is {{odd}}. {WHOLE} That is all.",
        f"The body {{}} is empty.\n{json.dumps(SUSPECT | {'line': 3})}\nNo, rather:\n{WHOLE}",
        json.dumps(SUSPECT | {"severity": " Major ", "line": "12", "extra": 1}),
        json.dumps({key: value for key, value in SUSPECT.items() if key != "suggestion"}),
    ],
)
def test_reads_an_answer_also_from_endpoints_without_structured_output(text: str) -> None:
    assert parse_answer(text) == Suspect.model_validate(SUSPECT)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no JSON object"),
        ("I see no problem here.", "no JSON object"),
        (WHOLE[:-20], "broken or cut off"),
        ("{" * 50_000, "broken or cut off"),
        ("[" * 50_000 + "{", "broken or cut off"),
        ("[]", "valid dictionary"),
        ('"suspects"', "valid dictionary"),
        ("{}", "line: Field required"),
        (json.dumps(SUSPECT | {"severity": "blocker"}), "severity: Input should be"),
        (json.dumps(SUSPECT | {"line": -4}), "line: Input should be"),
        (json.dumps(SUSPECT | {"title": "x" * 5_000}), "title: String should have at most"),
        (json.dumps([SUSPECT] * 10_000), "valid dictionary"),
        ('{"line": ' + "9" * 5_000 + "}", "broken or cut off"),
    ],
)
def test_refuses_what_is_no_answer_and_says_why(text: str, fault: str) -> None:
    with pytest.raises(AnswerError, match=fault):
        parse_answer(text)


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_an_answer_or_an_answer_error(text: str) -> None:
    try:
        parse_answer(text)
    except AnswerError as error:
        assert str(error)  # noqa: PT017 -- either outcome is right


def test_reads_a_verdict() -> None:
    assert parse_verdict('{"reason": "it is escaped", "real": "No"}') == Verdict(reason="it is escaped", real="no")
    with pytest.raises(AnswerError, match="real"):
        parse_verdict('{"reason": "", "real": "perhaps"}')


def test_a_suspect_rated_none_is_no_finding() -> None:
    assert finding("a.py", Suspect.model_validate(SUSPECT | {"severity": "none"}), None) is None
    found = finding("a.py", Suspect.model_validate(SUSPECT), None)
    assert found
    assert (found.file, found.line, found.end_line) == ("a.py", 12, 12)
    assert (found.severity, found.category) == (Severity.MAJOR, Category.SECURITY)
    assert found.confidence is None


def test_a_finding_without_a_title_gets_one() -> None:
    found = finding("a.py", Suspect.model_validate(SUSPECT | {"title": " "}), None)
    assert found
    assert found.title == "A problem of security"


def tokens(*spelled: str | tuple[str, dict[str, float]]) -> list[TokenLogprob]:
    """Tokens that are certain, or with the probabilities of their rivals."""
    made = []
    for one in spelled:
        token, rivals = (one, {one: 1.0}) if isinstance(one, str) else one
        top = tuple((rival, math.log(share) if share else -9999.0) for rival, share in rivals.items())
        made.append(TokenLogprob(token, top[0][1], top))
    return made


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        (['{"severity":"', ("major", {"major": 0.6, "none": 0.3, "critical": 0.1}), '"}'], 0.7),
        (['{"severity": ', ('"none', {'"none': 0.8, '"minor': 0.2}), '"}'], 0.2),  # the quote is in the token
        (['{"severity"', (':"', {':"': 1.0}), ("m", {"m": 0.5, "n": 0.5}), 'ajor"}'], 0.5),  # begins two labels
        (['{"severity":"', ("tri", {"tri": 0.5, "none": 0.25, "no": 0.25, "x": 0.0}), 'vial"}'], 0.5),
        (['{"severity":"', ("cr", {"zzz": 1.0}), 'itical"}'], None),  # no rival begins a label
        (['{"severity":"', ("cr", {'"': 1.0}), 'itical"}'], None),
        (['{"quote":"say \\"severity\\":\\"none', '","severity":"', ("major", {"major": 0.9, "none": 0.1}), '"}'], 0.9),
    ],
)
def test_confidence_is_the_mass_of_all_labels_but_none(
    spelled: list[str | tuple[str, dict[str, float]]], expected: float | None
) -> None:
    sure = confidence(tokens(*spelled))
    assert sure == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("text", ["no severity at all", '{"severity":"none","severity":"major"}'])
def test_no_confidence_where_the_tokens_do_not_hold_one_severity(text: str) -> None:
    assert confidence(tokens(text)) is None


def test_a_finding_carries_the_confidence_of_its_severity() -> None:
    logprobs = tokens('{"severity":"', ("major", {"major": 0.8, "none": 0.2}), '"}')
    found = finding("a.py", Suspect.model_validate(SUSPECT), logprobs)
    assert found
    assert found.confidence == pytest.approx(0.8)
