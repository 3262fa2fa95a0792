import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bot.policy
from bot.domain import Severity
from bot.policy import MAX_BYTES, Policy, PolicyError, matching_glob, parse_policy

ALLOWED = (
    "severity, max_findings, min_confidence, verify, language, instructions, ignore, include, paths, "
    "drafts, bots, seed_votes, author_weight, fail_on"
)
SEVERITIES = "trivial, minor, major or critical"
GLOB = "one glob, for example src/**/*.py"
LANGUAGE = "a language, for example en, de, pt-BR or German"
RULE = "a glob with severity, instructions or both"
READ_AS = "unless it is in quotes"
TAGS = "tags are not allowed; a glob that begins with ! must be in quotes"


def problems(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, name="P")
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


@pytest.mark.parametrize("text", ["", "\n", "# nothing but words\n", "---\n", "---\n...\n", "null", "{}", "\ufeff"])
def test_an_empty_file_gives_the_defaults(text: str) -> None:
    assert parse_policy(text) == Policy()


def test_every_key_is_read() -> None:
    text = """
severity: major
max_findings: 3
min_confidence: 1
verify: yes
language: pt-BR
instructions: |
  We use Python 3.11.
\tTabs inside a text are fine.
ignore: [docs/, "*.sql", "!keep.sql"]
include:
- vendor/ours/
paths:
- glob: tests/
  severity: critical
- {glob: "*.tf", instructions: Mind the state.}
drafts: true
bots: true
seed_votes: false
author_weight: 0
fail_on: critical
"""
    policy = parse_policy(text.replace("\n\tTabs", "\n  \tTabs"))
    assert policy.severity is Severity.MAJOR
    assert policy.max_findings == 3
    assert policy.min_confidence == 1.0
    assert policy.verify is True
    assert policy.language == "pt-BR"
    assert policy.instructions == "We use Python 3.11.\n\tTabs inside a text are fine.\n"
    assert policy.ignore == ("docs/", "*.sql", "!keep.sql")
    assert policy.include == ("vendor/ours/",)
    assert [rule.glob for rule in policy.paths] == ["tests/", "*.tf"]
    assert (policy.drafts, policy.bots, policy.seed_votes) == (True, True, False)
    assert policy.author_weight == 0.0
    assert policy.fail_on is Severity.CRITICAL


def test_what_the_bot_does_without_a_word_in_the_policy() -> None:
    policy = Policy()
    assert (policy.drafts, policy.bots, policy.seed_votes) == (False, False, True)
    assert policy.author_weight == 0.5
    assert policy.fail_on is None
    assert parse_policy("fail_on: null") == policy


def test_a_key_without_a_value_keeps_its_default() -> None:
    assert parse_policy("ignore:\n  # - docs/\nseverity: ~\npaths:\n- glob: x\n  severity:\n") == parse_policy(
        "paths: [{glob: x}]"
    )


@pytest.mark.parametrize("language", ["en", "de", "pt-BR", "German", "Français", "हिन्दी", "zh-Hans-CN", "US English"])
def test_a_language_is_a_code_or_a_name(language: str) -> None:
    assert parse_policy(f"language: {language}").language == language


POLICY = parse_policy("""
severity: minor
instructions: Always.
paths:
- {glob: src/, severity: major, instructions: Source.}
- {glob: "*.gen.py", severity: critical}
- {glob: src/core/, severity: trivial}
- {glob: src/core/**/deep/, instructions: Deep.}
""")


@pytest.mark.parametrize(
    ("path", "severity", "instructions"),
    [
        ("README.md", Severity.MINOR, "Always."),
        ("src/a.py", Severity.MAJOR, "Always.\nSource."),
        ("src/a.gen.py", Severity.CRITICAL, "Always.\nSource."),
        ("src/core/a.gen.py", Severity.TRIVIAL, "Always.\nSource."),
        ("src/core/x/deep/a.py", Severity.TRIVIAL, "Always.\nDeep."),
        ("x.gen.py", Severity.CRITICAL, "Always."),
    ],
)
def test_the_last_rule_that_matches_wins(path: str, severity: Severity, instructions: str) -> None:
    assert POLICY.threshold_for(path) is severity
    assert POLICY.instructions_for(path) == instructions


def test_a_threshold_that_somebody_asked_for_holds_for_all_paths() -> None:
    asked = POLICY.with_threshold(Severity.MAJOR)
    for path in ("README.md", "src/a.gen.py", "src/core/a.py"):
        assert asked.threshold_for(path) is Severity.MAJOR
        assert asked.instructions_for(path) == POLICY.instructions_for(path)
    assert POLICY.with_threshold(None) is POLICY


def test_without_any_instructions_there_are_none() -> None:
    assert not Policy().instructions_for("a.py")


@pytest.mark.parametrize(
    ("globs", "path", "glob"),
    [
        (("docs/",), "docs/a.md", "docs/"),
        (("docs/",), "x/docs/a.md", "docs/"),
        (("/docs/",), "x/docs/a.md", None),
        (("*.sql", "!keep.sql"), "a/b.sql", "*.sql"),
        (("*.sql", "!keep.sql"), "keep.sql", None),
        (("src/**/t_*.go",), "src/a/b/t_x.go", "src/**/t_*.go"),
        (("a b/ü.py",), "a b/ü.py", "a b/ü.py"),
        (("*",), "x" * 501, None),
        ((), "a", None),
    ],
)
def test_globs_are_those_of_gitignore(globs: tuple[str, ...], path: str, glob: str | None) -> None:
    assert matching_glob(globs, path) == glob


@pytest.mark.parametrize(
    ("globs", "path"),
    [
        ("a*a*a*b", "a" * 500),
        ("**/a*a*a*b/**/a*a*a*b/**/a", ("a" * 99 + "/") * 5),
        ("**/a/**/a/**/a/b", "a/" * 250),
    ],
)
def test_a_hostile_glob_takes_no_time(globs: str, path: str) -> None:
    policy = parse_policy(f'ignore: ["{globs}"]')
    start = time.perf_counter()
    assert matching_glob(policy.ignore, path) is None
    assert time.perf_counter() - start < 2


ONE_PROBLEM = {
    # unknown and doubled keys
    "severty: major": '1:1: unknown key "severty" in the policy; did you mean "severity"? Allowed: ' + ALLOWED,
    "Max-Findings: 3": '1:1: unknown key "Max-Findings" in the policy; did you mean "max_findings"? '
    f"Allowed: {ALLOWED}",
    "\n\n  zzz: 1": f'3:3: unknown key "zzz" in the policy. Allowed: {ALLOWED}',
    f"{'k' * 99}: 1": f'1:1: unknown key "{"k" * 40}…" in the policy. Allowed: {ALLOWED}',
    '"a\\nb": 1': f'1:1: unknown key "a b" in the policy. Allowed: {ALLOWED}',
    "<<: {severity: major}": f"1:1: a key must be a word. Allowed: {ALLOWED}",
    "verify: true\nverify: false": '2:1: the key "verify" stands in line 1 already',
    "paths:\n- glob: x\n  globe: y": '3:3: unknown key "globe" in paths[0]; did you mean "glob"? '
    "Allowed: glob, severity, instructions",
    "12: 1": f"1:1: a key must be a word; YAML reads it as a number {READ_AS}. Allowed: {ALLOWED}",
    "on: 1": f"1:1: a key must be a word; YAML reads it as true or false {READ_AS}. Allowed: {ALLOWED}",
    "? [a]\n: 1": f"1:3: a key must be a word. Allowed: {ALLOWED}",
    "? !!str {a: b}\n: 1": f"1:3: {TAGS}",
    # wrong values
    "severity: blocker": f'1:11: severity cannot be "blocker"; it takes {SEVERITIES}',
    "severity: Majr": f'1:11: severity cannot be "Majr"; did you mean "major"? it takes {SEVERITIES}',
    "severity: on": f"1:11: severity cannot be on; it takes {SEVERITIES}; YAML reads it as true or false {READ_AS}",
    "severity: [major]": f"1:11: severity cannot be a list; it takes {SEVERITIES}",
    "max_findings: 0": "1:15: max_findings cannot be 0; it takes a whole number from 1 to 100",
    "max_findings: 101": "1:15: max_findings cannot be 101; it takes a whole number from 1 to 100",
    "max_findings: 1.0": "1:15: max_findings cannot be 1.0; it takes a whole number from 1 to 100",
    "max_findings: true": "1:15: max_findings cannot be true; it takes a whole number from 1 to 100",
    "max_findings: '10'": '1:15: max_findings cannot be "10"; it takes a whole number from 1 to 100; '
    "write it without quotes",
    f"max_findings: {'9' * 5000}": f"1:15: max_findings cannot be {'9' * 40}…; it takes a whole number from 1 to 100",
    "min_confidence: .nan": "1:17: min_confidence cannot be .nan; it takes a number from 0 to 1",
    "min_confidence: -0.1": "1:17: min_confidence cannot be -0.1; it takes a number from 0 to 1",
    "min_confidence: true": "1:17: min_confidence cannot be true; it takes a number from 0 to 1",
    "verify: maybe": '1:9: verify cannot be "maybe"; it takes true or false',
    "verify: {a: b}": "1:9: verify cannot be keys with values; it takes true or false",
    "drafts: sometimes": '1:9: drafts cannot be "sometimes"; it takes true or false',
    "bots: 1": "1:7: bots cannot be 1; it takes true or false",
    "seed_votes: 'false'": '1:13: seed_votes cannot be "false"; it takes true or false; write it without quotes',
    "author_weight: 1.5": "1:16: author_weight cannot be 1.5; it takes a number from 0 to 1",
    "fail_on: criticl": f'1:10: fail_on cannot be "criticl"; did you mean "critical"? '
    f"it takes {SEVERITIES}; without a value there is no status",
    "fail_on: off": f"1:10: fail_on cannot be off; it takes {SEVERITIES}; without a value there is no status; "
    f"YAML reads it as true or false {READ_AS}",
    "language: no": f"1:11: language cannot be no; it takes {LANGUAGE}; YAML reads it as true or false {READ_AS}",
    "language: 2024-13-45": f"1:11: language cannot be 2024-13-45; it takes {LANGUAGE}",
    "language: en;": f'1:11: language cannot be "en;"; it takes {LANGUAGE}',
    f"language: {'x' * 41}": f'1:11: language cannot be "{"x" * 40}…"; it takes {LANGUAGE}',
    'language: "\\ud800"': f'1:11: language cannot be " "; it takes {LANGUAGE}',
    'instructions: "\\0"': '1:15: instructions cannot be " " (it holds control characters); '
    "it takes text of at most 2,000 characters",
    f"instructions: {'x' * 2001}": f'1:15: instructions cannot be "{"x" * 40}…"; '
    "it takes text of at most 2,000 characters",
    "ignore: docs": "1:9: ignore cannot be \"docs\"; it takes a list of globs, for example [docs/, '*.sql']",
    "ignore: [[a]]": f"1:10: ignore[0] cannot be a list; it takes {GLOB}",
    "ignore: [a, 3]": f"1:13: ignore[1] cannot be 3; it takes {GLOB}; YAML reads it as a number {READ_AS}",
    'ignore: [""]': f'1:10: ignore[0] cannot be ""; it takes {GLOB}',
    'ignore: ["#x"]': f'1:10: ignore[0] cannot be "#x" (it matches nothing); it takes {GLOB}',
    'ignore: ["!"]': f'1:10: ignore[0] cannot be "!" (this is no glob); it takes {GLOB}',
    'ignore: ["[z-a]"]': f'1:10: ignore[0] cannot be "[z-a]" (this is no glob); it takes {GLOB}',
    'include: ["[[:x:]]"]': '1:11: include[0] cannot be "[[:x:]]" '
    f"(brackets and backslashes must be as in [a-z], [!0-9] or \\*); it takes {GLOB}",
    'include: ["a*b*c*d*"]': '1:11: include[0] cannot be "a*b*c*d*" '
    f"(at most 3 `*` between two `/`, and at most 3 times `**`); it takes {GLOB}",
    "paths: {glob: x}": "1:8: paths cannot be keys with values; "
    "it takes a list of rules, each with glob and severity, instructions or both",
    "paths: [tests/]": f'1:9: paths[0] cannot be "tests/"; it takes {RULE}',
    "paths: [{severity: minor}]": f"1:9: paths[0] has no glob; it takes {GLOB}",
    "paths: [{glob: x, severity: high}]": f'1:29: paths[0].severity cannot be "high"; it takes {SEVERITIES}',
    "paths: [{glob: '!x'}]": '1:16: paths[0].glob cannot be "!x" '
    f"(`!` has no meaning here: write a later rule for these paths instead); it takes {GLOB}",
    # YAML that is no policy
    "- severity": f"1:1: the file must hold keys with values. Allowed: {ALLOWED}",
    "severity major": f"1:1: the file must hold keys with values. Allowed: {ALLOWED}",
    "ignore: [a": "1:11: not valid YAML: expected ',' or ']', but got '<stream end>'",
    "severity: minor\n\tverify: true": "2:1: a tab stands here; YAML indents with spaces only",
    "severity:\tminor": "1:10: a tab stands here; YAML indents with spaces only",
    # more ends lines in YAML 1.1 than a line feed
    "severity: minor\r\tverify: true": "2:1: a tab stands here; YAML indents with spaces only",
    "#\t\r\n#\x85#\u2028#\u2029@": "5:1: not valid YAML: found character '@' that cannot start any token",
    "a: b\nc: \x00": "2:4: not valid YAML: a character that is not allowed",
    'language: "\\UFFFFFFFF"': "1:1: not valid YAML: a broken escape or number",
    "severity: minor\n---\nverify: true\n---\nx: y": "2:1: a second document begins here; one is allowed",
    "ignore: [*.sql]": "1:11: a glob that begins with * must be in quotes",
    "ignore:\n- !keep": f"2:3: {TAGS}",
    "severity: !!python/object/apply:os.system [ls]": f"1:11: {TAGS}",
    "[" * 10_000: "1:9: nested too deeply: at most 8 levels",
    "{a: " * 10_000: "1:33: nested too deeply: at most 8 levels",
    "#" * (MAX_BYTES + 1): " the file is larger than 64 KiB",
}


@pytest.mark.parametrize("text", ONE_PROBLEM, ids=lambda text: text[:40])
def test_a_wrong_file_is_answered_with_line_and_way_out(text: str) -> None:
    assert problems(text) == [f"P:{ONE_PROBLEM[text]}"]


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "verify: maybe\nlanguage: no\npaths:\n- severity: high\n- 7\nseverty: 1\n1: 2\nverify: true\n"
    assert [problem.split(" ")[0] for problem in problems(text)] == [
        "P:1:9:",
        "P:2:11:",
        "P:4:3:",
        "P:4:13:",
        "P:5:3:",
        "P:6:1:",
        "P:7:1:",
        "P:8:1:",
    ]


def test_a_yaml_bomb_is_refused_before_it_grows() -> None:
    rows = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    told = problems("\n".join(rows))
    assert told[0] == "P:1:5: anchors are not allowed: take &a0 out"
    assert told[2] == "P:2:10: aliases are not allowed; a glob that begins with * must be in quotes"


def test_the_name_of_the_file_stands_in_the_message() -> None:
    with pytest.raises(PolicyError, match=r"^\.apprentice\.yml:1:1: "):
        parse_policy("x: 1")


SIGNS = ": | > - ? [ ] { } , # & * ! % ' \" \\ ~ 1 .5 no << = &a *a 2024-02-30 0b_ 1:30"
YAML_PIECES = st.sampled_from(
    [*f"{ALLOWED} {SIGNS}".split(" "), "glob", "major", "\n", "\n  ", "\n- ", "\t", ": ", "---\n", "!!int "]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(YAML_PIECES, max_size=30).map("".join)))
def test_any_text_gives_a_policy_or_a_policy_error(text: str) -> None:
    try:
        policy = parse_policy(text)
    except PolicyError:
        assert all(problem.startswith("P:") for problem in problems(text))
    else:
        policy.threshold_for("src/a.py")
        policy.instructions_for("src/a.py")


@settings(max_examples=200, deadline=None)
@given(
    st.text(alphabet=st.sampled_from("ab*?[]!^-\\/. #{},"), max_size=12),
    st.text(alphabet="ab/.*", max_size=12),
)
def test_any_glob_is_refused_or_can_be_used(glob: str, path: str) -> None:
    try:
        policy = Policy(ignore=(glob,), include=(glob,))
    except ValueError:
        return
    assert matching_glob(policy.ignore, path) in {None, glob}


def test_the_example_in_the_docs_can_be_used() -> None:
    example = textwrap.dedent((bot.policy.__doc__ or "").split("\n\n")[1])
    policy = parse_policy(example)
    assert (policy.threshold_for("tests/a.py"), policy.ignore) == (Severity.MAJOR, ("docs/", "*.sql"))
