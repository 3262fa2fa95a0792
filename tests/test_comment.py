import base64
import json
import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.comment import one_line, parse_marker, render
from bot.domain import Category, Finding, Severity

FINDING = Finding(
    file="src/cart.py",
    line=40,
    end_line=41,
    severity=Severity.MAJOR,
    category=Category.CORRECTNESS,
    title="Division by zero",
    explanation="`total / len(items)` fails for an empty cart.\nNobody catches it.\n\n\nSee `checkout()`.",
    quote="    return total / len(items)\n",
    suggestion="    if items:\n        return total / len(items)",
    confidence=0.87,
)
JOINER = "\u2060"

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"]).disable("text_join")

# From GitLab's documentation, doc/user/project/quick_actions.md, all kinds of items together
QUICK_ACTIONS = """
add_child add_contacts add_email add_reviewer approve assign assign_reviewer award blocked_by blocks cc
child_epic clear_health_status clear_weight clone close confidential convert_to_ticket copy_metadata
create_merge_request done draft due duplicate epic estimate estimate_time health_status invite_email iteration label
labels link link_incident lock merge milestone move page parent_epic promote promote_to promote_to_incident publish
react ready reassign reassign_reviewer rebase relabel relate remove_child remove_child_epic remove_contacts
remove_due_date remove_email remove_epic remove_estimate remove_iteration remove_label remove_milestone remove_parent
remove_parent_epic remove_reviewer remove_time_estimate remove_time_spent remove_zoom reopen request_changes
request_review reviewer run_pipeline set_parent severity ship shrug spend spend_time spent start submit_review
subscribe tableflip tag target_branch timeline title todo type unapprove unassign unassign_reviewer unlabel unlink
unlock unsubscribe weight zoom
"""

INVISIBLE = ["", " ", "\t", "\u00a0", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u2066"]
INVISIBLE += ["\u3164", "\u2800", "\u115f", "\ufe0f", "\u034f", "\x00", "\x0b", "\u2028", "\u3000", "\U000e0041"]


def body(finding: Finding) -> str:
    """The note without its marker."""
    return render(finding).rpartition("\n\n")[0]


def prose(text: str) -> str:
    """What an explanation becomes."""
    return body(replace(FINDING, title="", explanation=text, suggestion=None)).partition("\n\n")[2]


def inline(note: str) -> list[Token]:
    """What stands in the paragraphs; a hard break after each."""
    paragraphs = [token.children for token in MARKDOWN.parse(note) if token.children]
    return [child for children in paragraphs for child in (*children, Token("hardbreak", "br", 0))]


def text_nodes(note: str) -> list[str]:
    """The rendered text outside of code, joined as GitLab's filters meet it: they know nothing of escapes."""
    nodes = [""]
    for token in inline(note):
        if token.type in {"text", "text_special"}:
            nodes[-1] += token.content
        else:
            nodes.append("")
    return nodes


def test_a_note_looks_like_this() -> None:
    head, _, marker = render(FINDING).rpartition("\n")
    assert head == (
        "🟠 **major** · correctness\n"
        "\n"
        "**Division by zero**\n"
        "\n"
        "`total / len(items)` fails for an empty cart.\\\n"
        "Nobody catches it.\n"
        "\n"
        "See `checkout()`.\n"
        "\n"
        "```suggestion:-1+0\n"
        "    if items:\n"
        "        return total / len(items)\n"
        "```\n"
    )
    assert re.fullmatch(r"<!-- apprentice:finding:v1:[A-Za-z0-9+/]+=* -->", marker)


def test_a_footer_stands_between_the_text_and_the_marker() -> None:
    note = render(FINDING, "<sub>Rate this</sub>")
    text, _, marker = render(FINDING).rpartition("\n\n")
    assert note == f"{text}\n\n<sub>Rate this</sub>\n\n{marker}"
    assert parse_marker(note) == FINDING


def test_a_text_for_one_line_keeps_to_it() -> None:
    assert one_line("/merge\n\n# `x`\r@all ") == f"\\/{JOINER}merge # `x` \\@{JOINER}all"
    assert one_line(" \n") == ""


def test_without_title_explanation_and_suggestion_little_is_left() -> None:
    assert body(replace(FINDING, title=" ", explanation="\n\t\n", suggestion=None)) == "🟠 **major** · correctness"


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        # code spans
        ("`a` and `b`", "`a` and `b`"),
        ("`` a`b ``", "``a`b``"),
        ("` ``x`` `", "` ``x`` `"),
        ("`` ` ``", "`` ` ``"),
        ("a ` b", "a \\` b"),
        ("a `` b ` c", "a \\`\\` b \\` c"),
        ("`` ` ` x", "\\`\\` \\` \\` x"),
        ("`@all` #", f"`@all` \\#{JOINER}"),
        ("$`x`$", f"\\${JOINER}`x`\\${JOINER}"),
        ("`/merge`", "`/merge`"),
        ("```py\nx = 1\n```", "\\`\\`\\`py\\\nx = 1\\\n\\`\\`\\`"),
        # words stay readable
        ("a_b __init__ 2*3 x-y (z)", "a_b \\_\\_init\\_\\_ 2\\*3 x-y (z)"),
        ("50% off, C# & F#.", f"50% off, C# \\& F\\#{JOINER}."),
        ("C:\\dir", "C:\\\\dir"),
        ("नमस्ते می\u200cروم 👩\u200d💻", "नमस्ते می\u200cروم 👩\u200d💻"),
        # starts of lines
        ("1. one\n2) two\n- three\n+ four", "1\\. one\\\n2\\) two\\\n\\- three\\\n\\+ four"),
        ("= five\n: six\n# seven", "\\= five\\\n\\: six\\\n\\# seven"),
        ("a\n===\nb\n---", "a\\\n\\===\\\nb\\\n\\---"),
        ("    indented", "indented"),
        ("10 is fine", "10 is fine"),
    ],
)  # fmt: skip
def test_prose_shows_what_was_written(text: str, rendered: str) -> None:
    assert prose(text) == rendered


@pytest.mark.parametrize("name", QUICK_ACTIONS.split())
def test_a_quick_action_is_only_text(name: str) -> None:
    text = f"/{name}\n/{name.upper()} @user ~bug\n\n\t/{name}\n- /{name}\n> /{name}\n\u200b/{name}\n```\n/{name}"
    check_markup(replace(FINDING, title=text, explanation=text, suggestion=None))


@pytest.mark.parametrize(
    "lead", ["", "\t", "text\n", "text\r", "- ", "1. ", "> ", ">>>\n", "```\n", "<p>\n", "`\n", "* > - "]
)
def test_a_quick_action_is_only_text_wherever_it_stands(lead: str) -> None:
    for text in (f"{lead}/merge", f"{lead}\n/merge\n", f"{lead}/merge\n```", f"{lead} `/merge` /merge"):
        check_markup(replace(FINDING, title=text, explanation=text, suggestion=None))


@pytest.mark.parametrize("invisible", INVISIBLE, ids=ascii)
def test_no_invisible_character_hides_the_start_of_a_quick_action(invisible: str) -> None:
    for lead in (invisible, invisible * 3, f" {invisible}\t", f"text\n{invisible}"):
        rendered = prose(f"{lead}/merge")
        assert rendered.endswith(f"\\/{JOINER}merge")
        assert all(line[0].isascii() and line[0].isprintable() for line in rendered.split("\n") if line)


@pytest.mark.parametrize(
    "code",
    [
        "/merge",
        "x\n/approve\n",
        "/label ~x",
        "a\r\n/close",
        ">>>\nx\n>>>",
        "x\x00",
        "x\ry",
        "x\u202ey",
        "x\u200by",
        "a\x85b",
    ],
)
def test_code_that_could_act_or_hide_something_is_not_suggested(code: str) -> None:
    note = render(replace(FINDING, suggestion=code))
    assert "suggestion:" not in note
    assert parse_marker(note) == replace(FINDING, suggestion=code)


@pytest.mark.parametrize("code", ["// comment", "/* c */", "  /usr/bin/env", ">>> doctest", "\tx", "é", "", "/"])
def test_other_code_is_suggested(code: str) -> None:
    assert body(replace(FINDING, suggestion=code)).endswith(f"```suggestion:-1+0\n{code}\n```")


@pytest.mark.parametrize(
    ("line", "end_line", "suggested"),
    [(5, 5, "-0+0"), (5, 9, "-4+0"), (1, 101, "-100+0"), (1, 102, None), (9, 5, None)],
)
def test_a_suggestion_counts_lines_from_its_end(line: int, end_line: int, suggested: str | None) -> None:
    note = body(replace(FINDING, line=line, end_line=end_line))
    assert re.findall("suggestion:(.*)", note) == ([suggested] if suggested else [])


@pytest.mark.parametrize("code", ["```", "x\n```\ny", "````\n```", "a ``` b", "```suggestion:-9+9\nx\n```\n"])
def test_code_cannot_leave_its_block(code: str) -> None:
    fences = [token for token in MARKDOWN.parse(render(replace(FINDING, suggestion=code))) if token.type == "fence"]
    assert [(token.info, token.content) for token in fences] == [("suggestion:-1+0", code.removesuffix("\n") + "\n")]


# Each pattern is what GitLab's filters look for in rendered text, loosely: rather too much than too little.
LIVE = {
    "mention": r"@[\w.-]",
    "reference": r"[#!$%&~^][\w\"'{*.-]",
    "named reference": r"\[\w+:",
    "iteration": r"\*iteration:",
    "project": r"[\w.-]>",
    "external issue": r"[A-Za-z]\w*-\d",
    "commit": r"[0-9a-fA-F]{7}",
    "URL": r"\w://|(?i:www)\.",
    "emoji": r":[\w+-]+:",
    "contents or wiki link": r"\[\[|\[_?TOC|\[\^",
    "link": r"\]\(|\]\[|!\[|\]:",
    "inline diff": r"[\[{][+-]",
    "math": r"\$[^\s\u2060]",
}
TRAPS = {
    "mention": ["@root", "@all", "@group/sub-group", "x @a", "(@b)", "@_x", "me@example.com", "@@a", "\\@a"],
    "reference": [
        *["Closes #1", "!12", "group/project#1", "~bug", '~"two words"', "%v1", '%"a b"', "$12", "&3", "g&3"],
        *["^alert#1", "%{project_name}", "&amp;", "&#64;root", "&commat;root", "#1+s", "\\#1"],
    ],
    "named reference": ["[vulnerability:1]", "[issue:g/p/1]", "[epic:1]", "[contact:a]", "[feature_flag:1]"],
    "iteration": ["*iteration:1"],
    "project": ["gitlab-org/gitlab>", "a>"],
    "external issue": ["JIRA-1", "see PROJ_X-12.", "a_b-3", "CVE-2024-1"],
    "commit": ["deadbeef", "a" * 40, "DEADBEEF..cafe1234", "xdeadbeefx", "1234567"],
    "URL": ["https://evil.example/x", "http://a", "ftp://a", "<https://a.b>", "www.evil.example", "WWW.A.B", "x://y"],
    "emoji": [":x:", ":+1:", "a:thumbs_up:b", "::smile::"],
    "contents or wiki link": ["[[_TOC_]]", "[TOC]", "[[page]]", "[[img.png]]", "[^1]", "x[^1]\n\n[^1]: note"],
    "link": ["[a](b)", "![a](b)", "[a](b c)", "[a][b]", "[a]\n\n[a]: b", "[x]: <y>", '![a](b "c"){width=1}'],
    "inline diff": ["{+ a +}", "{- a -}", "[+ a +]", "[- a -]"],
    "math": ["$x$", "$$x$$", "$$\nx\n$$", "$`x`$"],
}


def alive(note: str) -> list[tuple[str, str]]:
    return [(kind, node) for node in text_nodes(note) for kind in LIVE if re.search(LIVE[kind], node)]


@pytest.mark.parametrize(("kind", "trap"), [(kind, trap) for kind, traps in TRAPS.items() for trap in traps])
def test_what_gitlab_looks_for_in_rendered_text_is_not_there(kind: str, trap: str) -> None:
    assert re.search(LIVE[kind], trap), "the pattern would not even find the trap"
    note = render(replace(FINDING, title=trap, explanation=f"{trap}\nsee {trap}. `{trap}`{trap}", suggestion=None))
    assert alive(note) == []
    seen = "".join(token.content for token in inline(note)).replace(JOINER, "")
    assert "".join(trap.replace("`", "").split()) in "".join(seen.split())


@pytest.mark.parametrize(
    "trap",
    [
        *[
            "# h",
            "h\n=",
            "h\n-",
            "---",
            "***",
            "- a",
            "* a",
            "+ a",
            "1. a",
            "1) a",
            "- [ ] a",
            "- [x] a",
            "> q",
            ">>> q",
        ],
        *["| a | b |\n|---|---|\n| c | d |", "a\n:-:", "a\n-|-", "term\n\n: definition", "> [!note]\n> x"],
        *[
            "**b**",
            "*i*",
            "__b__",
            "_i_",
            "~~s~~",
            "~s~",
            "<b>x</b>",
            "<img src=x>",
            "<!-- x -->",
            "<details>\n\nx",
            "<a>",
        ],
        *[
            "```mermaid\ngraph TD\n```",
            "~~~plantuml\nx\n~~~",
            "```math\nx\n```",
            "    code",
            "\tcode",
            "a  \nb",
            "a\\\nb",
        ],
        *[
            "---\ntitle: x\n---",
            "[x]: y",
            "&lt;b&gt;",
            "&nbsp;",
            "$$x$$",
            "<https://x>",
            "![x](y)",
            "**",
            "**a** b **",
            "\\",
        ],
    ],
)
def test_markup_is_shown_and_does_nothing(trap: str) -> None:
    for text in (trap, f"text\n{trap}\ntext", f"text\n\n{trap}", f"text {trap} `code`"):
        check_markup(replace(FINDING, title=text, explanation=text))


def check_markup(finding: Finding) -> None:
    """Hold the note against the few things that our own Markdown is made of, and against what was to be shown."""
    note = render(finding)
    blocks = [token.type for token in MARKDOWN.parse(note)]
    assert {*blocks} <= {"paragraph_open", "inline", "paragraph_close", "fence", "html_block"}
    assert blocks.count("html_block") == 1
    assert blocks[-1] == "html_block"
    assert blocks.count("fence") == ("```suggestion:-" in note)
    tokens = inline(note)
    allowed = {"text", "text_special", "code_inline", "hardbreak", "strong_open", "strong_close"}
    assert {token.type for token in tokens} <= allowed
    assert not any("$" in token.content for token in tokens if token.type == "text")  # only escaped: no math
    assert [token.type for token in tokens].count("strong_open") == (2 if plain(finding.title.replace("`", "x")) else 1)
    said = plain(f"🟠{finding.severity}·{finding.category}{finding.title}{finding.explanation}")
    assert plain("".join(token.content for token in tokens)) == said
    assert alive(note) == []
    outside = re.sub(r"^(`{3,})suggestion:.*?^\1$", "", note, flags=re.DOTALL | re.MULTILINE)
    for line in outside.split("\n"):
        assert not plain(line.replace("`", "x")).startswith("/")
    assert not re.search(r"^/[A-Za-z]", note, re.MULTILINE)


def plain(text: str) -> str:
    """What a reader sees of a text, without white space and the backticks around code."""
    return "".join(char for char in text if char not in UNSEEN and not INVISIBLE_KINDS & {unicodedata.category(char)})


INVISIBLE_KINDS = {"Cc", "Cf", "Zs", "Zl", "Zp"}
UNSEEN = "`\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0" + "".join(
    chr(code) for code in range(0xFE00, 0xFE10)
)

PIECES = st.sampled_from(
    [
        *[
            *"`*_~#@!$%^&[](){}<>|/\\-+=:.,\"' \n\t1aB",
            *INVISIBLE,
            "\r",
            "\n\n",
            "```",
            "$$",
            "://",
            "www.",
            "deadbeef",
        ],
        *[
            "/merge",
            "@all",
            "#1",
            "JIRA-1",
            ":x:",
            "[[_TOC_]]",
            "<b>",
            "<!--",
            "-->",
            "](",
            "&amp;",
            "\\`",
            "1. ",
            "- ",
        ],
        "<!-- apprentice:finding:v1:e30= -->",
    ]
)
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=25).map("".join))
FINDINGS = st.builds(
    Finding,
    file=TEXTS,
    line=st.integers(1, 10_000),
    end_line=st.integers(1, 10_000),
    severity=st.sampled_from(Severity),
    category=st.sampled_from(Category),
    title=TEXTS,
    explanation=TEXTS,
    quote=TEXTS,
    suggestion=st.one_of(st.none(), TEXTS),
    confidence=st.one_of(st.none(), st.floats(0, 1)),
)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS, st.one_of(st.none(), TEXTS))
def test_no_text_does_anything(title: str, explanation: str, suggestion: str | None) -> None:
    check_markup(replace(FINDING, title=title, explanation=explanation, suggestion=suggestion))


# --- the marker


@settings(max_examples=300, deadline=None)
@given(FINDINGS, st.sampled_from(["", "\n", " \r\n\n"]))
def test_a_finding_comes_back_from_its_note(finding: Finding, tail: str) -> None:
    back = parse_marker(render(finding).replace("\n", "\r\n") + tail)
    assert back == finding
    assert back.fingerprint == finding.fingerprint


def test_a_text_of_any_length_is_cut_to_what_a_note_can_hold() -> None:
    long = "\U0001f642\x00 `<" * 400_000
    note = render(
        replace(FINDING, file=long, title=long, explanation=long, quote=long, suggestion=long),
    )
    assert len(note.encode()) < 500_000
    back = parse_marker(note)
    assert back is not None
    assert back.title == long[:299] + "…"
    assert back.quote == long[:7_999] + "…"
    assert back.suggestion is None
    assert render(back) == note


def test_half_a_character_is_replaced() -> None:
    note = render(replace(FINDING, title="a\ud800b", explanation="\ud83d\ude42"))
    back = parse_marker(note)
    assert back is not None
    assert (back.title, back.explanation) == ("a\ufffdb", "🙂")
    assert "a\ufffdb" in note


MARKER = render(FINDING).rpartition("\n")[2]


def forged(**changes: object) -> str:
    payload = json.loads(base64.b64decode(MARKER.split(":")[3].removesuffix(" -->")))
    payload["finding"].update(changes.pop("finding", {}))
    payload.update(changes)
    encoded = base64.b64encode(json.dumps(payload, separators=(",", ":")).encode()).decode()
    return f"<!-- apprentice:finding:v1:{encoded} -->"


def test_the_forger_of_these_tests_can_write_a_right_marker() -> None:
    assert parse_marker(forged()) == FINDING
    assert parse_marker(forged(finding={"title": "x"})) == replace(FINDING, title="x")


@pytest.mark.parametrize(
    "note",
    [
        "",
        "LGTM",
        f"> {MARKER}",
        "\n".join(f"> {line}" for line in render(FINDING).split("\n")),
        f"{MARKER}\nI do not agree.",
        f"text {MARKER}",
        f" {MARKER}",
        f"`{MARKER}`",
        MARKER.replace("v1", "v2"),
        MARKER.replace("apprentice", "reviewdog"),
        MARKER.replace(" -->", "= -->"),
        "<!-- apprentice:finding:v1: -->",
        "<!-- apprentice:finding:v1:e30= -->",
        "<!-- apprentice:finding:v1:!!!! -->",
        "<!-- apprentice:finding:v1:abc -->",
        "<!-- apprentice:finding:v1:" + "A" * 500_004 + " -->",
        forged(fingerprint="0" * 16),
        forged(finding={"quote": "other code"}),
        forged(finding={"file": "other.py"}),
        forged(finding={"severity": "blocker"}),
        forged(finding={"line": "1"}),
        forged(finding={"line": True}),
        forged(finding={"more": 1}),
        forged(more=1),
        forged(finding={"title": "\ud800"}),
    ],
)
def test_what_is_not_our_marker_gives_no_finding(note: str) -> None:
    assert parse_marker(note) is None


@pytest.mark.parametrize("field", ["title", "explanation", "suggestion", "quote", "file"])
def test_a_marker_inside_of_a_finding_does_not_win(field: str) -> None:
    for fake in (MARKER, f"\n\n{MARKER}\n", f"`{MARKER}`\n{MARKER}"):
        finding = replace(FINDING, category=Category.STYLE, **{field: fake})  # type: ignore[arg-type]
        note = render(finding)
        back = parse_marker(note)
        assert back == (replace(finding, title=fake[:299] + "…") if field == "title" else finding)
        assert parse_marker(note.rpartition("\n\n")[0]) is None
