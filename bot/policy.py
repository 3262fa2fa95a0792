"""What a repository wants of its reviews: `.apprentice.yml`, read from the target branch only.

    severity: minor            # the threshold: findings below it are hidden
    max_findings: 10           # the cap for one review
    language: en               # the language findings are written in
    instructions: We use Python 3.11.
    ignore: [docs/, "*.sql"]   # not read; globs as in .gitignore
    include: [vendor/ours/]    # read all the same, also where a built-in rule would skip it
    paths:                     # as in .gitignore and CODEOWNERS, the last rule that matches wins
      - glob: tests/
        severity: major
        instructions: Test data may look like secrets; that is fine.   # said besides the general ones
    drafts: false              # whether drafts are reviewed without being asked
    bots: false                # whether merge requests that bots opened are
    seed_votes: true           # the bot puts 👍 and 👎 on its comments, so that a vote is one click
    author_weight: 0.5         # how much a 👎 of the merge request's author counts: 0 (nothing) to 1 (as a reviewer's)
    fail_on: major             # commit status `apprentice`: failed from this severity up; without it there is none

A file with mistakes gives one `PolicyError` that names all of them, each with its line.
"""

import difflib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Protocol

import yaml
from pathspec import GitIgnoreSpec
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bot.domain import Severity

MAX_BYTES = 64 * 1024
_MAX_DEPTH = 8  # the deepest right file has 3; yaml.compose recurses
_MAX_SHOWN = 40  # characters of a wrong value in a message


class PolicyError(ValueError):
    """The policy file cannot be used; its text has one line for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


# A hostile glob takes minutes on a hostile path (five stars and 255 characters: 30 s); within these, 0.1 s.
_MAX_STARS = 3
_MAX_PATH = 500
_CHARACTERS_IN_BRACKETS = r"\[[!^]?(?:\w-\w|[\w.])+-?\]"
_GLOB = re.compile(rf"(?:[^\[\]\\]|\\[^\n]|{_CHARACTERS_IN_BRACKETS})+", re.ASCII)


@functools.lru_cache(maxsize=1024)
def _spec(globs: tuple[str, ...]) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(globs)


def matching_glob(globs: tuple[str, ...], path: str) -> str | None:
    """Find the glob that takes this path, as .gitignore has it: the last match counts, `!` gives back.

    No glob takes a path of more than 500 characters.
    """
    if len(path) > _MAX_PATH:
        return None
    result = _spec(globs).check_file(path)
    return globs[result.index] if result.include and result.index is not None else None


def _check_glob(glob: str) -> str:
    segments = glob.split("/")
    if not _GLOB.fullmatch(glob):
        raise ValueError("brackets and backslashes must be as in [a-z], [!0-9] or \\*")
    if any(part.count("*") > _MAX_STARS for part in segments) or segments.count("**") > _MAX_STARS:
        raise ValueError(f"at most {_MAX_STARS} `*` between two `/`, and at most {_MAX_STARS} times `**`")
    try:
        [pattern] = _spec((glob,)).patterns
    except (ValueError, re.error):
        raise ValueError("this is no glob") from None
    if pattern.include is None:
        raise ValueError("it matches nothing")
    return glob


def _check_rule_glob(glob: str) -> str:
    if glob.startswith("!"):
        raise ValueError("`!` has no meaning here: write a later rule for these paths instead")
    return _check_glob(glob)


_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _check_text(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("it holds control characters")
    return text


_GlobText = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]
_Glob = Annotated[_GlobText, AfterValidator(_check_glob)]
_Instructions = Annotated[
    str,
    Field(max_length=2000, description="text of at most 2,000 characters"),
    AfterValidator(_check_text),
]
_SEVERITIES = f"{', '.join(map(str, list(Severity)[:-1]))} or {Severity.CRITICAL}"
_Severity = Annotated[Severity, Field(strict=False, description=_SEVERITIES)]


class _Section(BaseModel):
    """Each field's description says what it takes; error messages quote it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PathRule(_Section):
    """Other wishes for the paths that one glob matches."""

    glob: Annotated[_GlobText, Field(description="one glob, for example src/**/*.py"), AfterValidator(_check_rule_glob)]
    severity: _Severity | None = None
    instructions: _Instructions | None = None


class Policy(_Section):
    """What a repository wants of its reviews. A key that is absent, or has no value, keeps its default.

    Args:
        severity: the threshold; a finding below it is hidden.
        max_findings: the cap of shown findings for one review.
        min_confidence: a finding whose confidence is known and lower is hidden.
        verify: whether the student takes a second look at each finding.
        language: the language in which findings are written.
        instructions: words of the team for the student.
        ignore: globs of files that are not read.
        include: globs of files that are read although `ignore` or a built-in rule would skip them.
        paths: other thresholds and further instructions by path.
        drafts: whether drafts are reviewed without being asked.
        bots: whether merge requests that bots opened are reviewed without being asked.
        seed_votes: whether the bot gives its comments 👍 and 👎, so that a vote is one click.
        author_weight: by what a vote of the merge request's author against a finding is multiplied.
        fail_on: from which severity up the commit status fails; None: the bot sets no status.
    """

    severity: _Severity = Severity.MINOR
    max_findings: int = Field(10, ge=1, le=100, description="a whole number from 1 to 100")
    min_confidence: float = Field(0.0, ge=0, le=1, description="a number from 0 to 1")
    verify: bool = Field(default=False, description="true or false")
    language: str = Field(
        "en",
        max_length=40,
        pattern=r"^\w+(?:[ -]\w+)*$",
        description="a language, for example en, de, pt-BR or German",
    )
    instructions: _Instructions = ""
    ignore: tuple[_Glob, ...] = Field((), max_length=500, description="a list of globs, for example [docs/, '*.sql']")
    include: tuple[_Glob, ...] = Field((), max_length=500, description="a list of globs, for example [vendor/ours/]")
    paths: tuple[PathRule, ...] = Field(
        (), max_length=100, description="a list of rules, each with glob and severity, instructions or both"
    )
    drafts: bool = Field(default=False, description="true or false")
    bots: bool = Field(default=False, description="true or false")
    seed_votes: bool = Field(default=True, description="true or false")
    author_weight: float = Field(0.5, ge=0, le=1, description="a number from 0 to 1")
    fail_on: _Severity | None = Field(None, description=f"{_SEVERITIES}; without a value there is no status")

    def with_threshold(self, severity: Severity | None) -> "Policy":
        """This policy with one threshold for all paths, as somebody asked for on the merge request; None: as it is."""
        if severity is None:
            return self
        paths = tuple(rule.model_copy(update={"severity": None}) for rule in self.paths)
        return self.model_copy(update={"severity": severity, "paths": paths})

    def threshold_for(self, path: str) -> Severity:
        """Give the lowest severity shown for this path: that of the last rule that matches and sets one."""
        rules = (rule.severity for rule in self._rules(path) if rule.severity)
        return next(rules, self.severity)

    def instructions_for(self, path: str) -> str:
        """Give the general instructions, then those of the last rule that matches and has some."""
        rules = (rule.instructions for rule in self._rules(path) if rule.instructions)
        return "\n".join(text for text in (self.instructions, next(rules, "")) if text)

    def _rules(self, path: str) -> Iterator[PathRule]:
        """The rules that match, the last one first."""
        return (rule for rule in reversed(self.paths) if matching_glob((rule.glob,), path))


def parse_policy(text: str, *, name: str = ".apprentice.yml") -> Policy:
    """Read a policy file; an empty one gives the defaults.

    Args:
        text: what stands in the file.
        name: the file's name for the messages.

    Raises:
        PolicyError: with all problems that were found.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise PolicyError([f"{name}: the file is larger than {MAX_BYTES // 1024} KiB"])
    reader = _Reader(text, name)
    policy = reader.read()
    if policy is None:
        raise PolicyError([message for _, message in sorted(reader.problems)])
    return policy


_TAG = "tag:yaml.org,2002:"
_SEVERITY_KEYS = ("severity", "fail_on")
_TEXT_KEYS = (*_SEVERITY_KEYS, "language", "instructions", "ignore", "include", "glob")
_READ_AS = {
    "bool": "true or false",
    "null": "no value",
    "int": "a number",
    "float": "a number",
}  # by YAML 1.1
_LINE_END = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # by YAML 1.1, as PyYAML counts lines
_Location = tuple[str | int, ...]
_Place = tuple[int, int]  # line and column, from 0


@dataclass
class _Reader:
    """One pass over one file. Problems are kept with their place, to be told in the file's order."""

    text: str
    name: str
    problems: list[tuple[_Place, str]] = field(default_factory=list)
    places: dict[_Location, yaml.Node] = field(default_factory=dict)

    def read(self) -> Policy | None:
        """Give the policy, or None when there are problems."""
        try:
            node = self._compose()
        except yaml.MarkedYAMLError as error:
            self._report_syntax(error)
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            place = (before.count("\n"), len(before) - before.rfind("\n") - 1)
            self._report_at(place, "not valid YAML: a character that is not allowed")
        except (ValueError, OverflowError):  # PyYAML's own slips, such as "\UFFFFFFFF"
            self._report_at((0, 0), "not valid YAML: a broken escape or number")
        else:
            policy = self._policy(node)
            return None if self.problems else policy
        return None

    def _compose(self) -> yaml.Node | None:
        """Build the tree, once the events have shown that it is harmless: no aliases, few levels."""
        depth = documents = 0
        for event in yaml.parse(self.text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                self._report(event, "aliases are not allowed; a glob that begins with * must be in quotes")
            elif isinstance(event, yaml.NodeEvent) and event.anchor:
                self._report(event, f"anchors are not allowed: take &{event.anchor} out")
            elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag:
                self._report(event, "tags are not allowed; a glob that begins with ! must be in quotes")
            documents += isinstance(event, yaml.DocumentStartEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if documents > 1:
                self._report(event, "a second document begins here; one is allowed")
                return None
            if depth > _MAX_DEPTH:
                self._report(event, f"nested too deeply: at most {_MAX_DEPTH} levels")
                return None
        return None if self.problems else yaml.compose(self.text, Loader=yaml.SafeLoader)

    def _report_syntax(self, error: yaml.MarkedYAMLError) -> None:
        place = _place(error.problem_mark or error.context_mark)
        line = _LINE_END.split(self.text)[place[0]]
        if "\t" in line[: place[1] + 1]:
            self._report_at(place, "a tab stands here; YAML indents with spaces only")
        elif error.context == "while scanning an alias":
            self._report_at(place, "a glob that begins with * must be in quotes")
        else:
            self._report_at(place, f"not valid YAML: {error.problem}")

    def _report(self, marked: yaml.Node | yaml.Event, message: str) -> None:
        self._report_at(_place(marked.start_mark), message)

    def _report_at(self, place: _Place, message: str) -> None:
        self.problems.append((place, f"{self.name}:{place[0] + 1}:{place[1] + 1}: {message}"))

    # --- from the tree to plain values

    def _policy(self, node: yaml.Node | None) -> Policy | None:
        if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == f"{_TAG}null"):
            return Policy()
        if not isinstance(node, yaml.MappingNode):
            self._report(node, f"the file must hold keys with values. Allowed: {_allowed(Policy)}")
            return None
        values = self._mapping(node, (), Policy)
        try:
            return Policy.model_validate(values)
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                reason = problem.get("ctx", {}).get("error")
                self._report_value(problem["loc"], missing=problem["type"] == "missing", reason=reason)
            return None

    def _mapping(self, node: yaml.MappingNode, at: _Location, model: type[_Section]) -> dict[str, object]:
        values: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if key.tag != f"{_TAG}str" or not isinstance(key, yaml.ScalarNode):
                self._report(key, f"a key must be a word{_hint(key)}. Allowed: {_allowed(model)}")
            elif key.value not in model.model_fields:
                where = _dotted(at) if at else "the policy"
                meant = _closest(key.value, list(model.model_fields)) or "."
                self._report(key, f"unknown key {_shown(key)} in {where}{meant} Allowed: {_allowed(model)}")
            elif key.value in lines:
                self._report(key, f"the key {_shown(key)} stands in line {lines[key.value]} already")
            else:
                lines[key.value] = _place(key.start_mark)[0] + 1
                if value.tag != f"{_TAG}null":
                    values[key.value] = self._value(value, (*at, key.value))
        return values

    def _value(self, node: yaml.Node, at: _Location) -> object:
        self.places[at] = node
        if isinstance(node, yaml.SequenceNode):
            return tuple(self._value(item, (*at, number)) for number, item in enumerate(node.value))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, PathRule) if _is_rule(at) else {}
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):  # a date that does not exist, a number of 5,000 digits
            return _NO_VALUE

    def _report_value(self, at: _Location, *, missing: bool, reason: object) -> None:
        """Say what is wrong with one value and what is allowed there."""
        if missing:
            self._report(self.places[at[:-1]], f"{_dotted(at[:-1])} has no {at[-1]}; it takes {_takes(at)}")
            return
        node = self.places[at]
        because = f" ({reason})" if reason else ""
        meant = _closest(node.value, [str(level) for level in Severity]) if at[-1] in _SEVERITY_KEYS else ""
        hint = _hint(node, text=any(key in _TEXT_KEYS for key in at))
        message = f"{_dotted(at)} cannot be {_shown(node)}{because}{meant or ';'} it takes {_takes(at)}{hint}"
        self._report(node, message)


_NO_VALUE = object()  # no key takes it


class _Mark(Protocol):
    line: int
    column: int


def _place(mark: _Mark | None) -> _Place:
    return (mark.line, mark.column) if mark else (0, 0)


def _is_rule(at: _Location) -> bool:
    return at[0] == "paths" and len(at) == 2  # noqa: PLR2004 -- ("paths", number)


def _allowed(model: type[_Section]) -> str:
    return ", ".join(model.model_fields)


def _dotted(at: _Location) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).removeprefix(".")


def _takes(at: _Location) -> str:
    """What the value at this place may be, in the words of the models."""
    if at[-1] in Policy.model_fields:
        return str(Policy.model_fields[str(at[-1])].description)
    if _is_rule(at):
        return "a glob with severity, instructions or both"
    return str(PathRule.model_fields["glob"].description)


def _shown(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "keys with values"
    cut = node.value if len(node.value) <= _MAX_SHOWN else node.value[:_MAX_SHOWN] + "…"
    plain = "".join(char if char.isprintable() else " " for char in cut)
    return f'"{plain}"' if node.tag == f"{_TAG}str" else plain


def _closest(word: object, known: Sequence[str]) -> str:
    """Suggest what may have been meant: Max-Findings is max_findings, majr is major."""
    plain = str(word)[:_MAX_SHOWN].lower().replace("-", "_").replace(" ", "_")
    close = difflib.get_close_matches(plain, known, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _hint(node: yaml.Node, *, text: bool = True) -> str:
    """Explain what quotes do: YAML 1.1 reads some bare words as something else."""
    if not isinstance(node, yaml.ScalarNode):
        return ""
    if not text:
        return "; write it without quotes" if node.style else ""
    read_as = _READ_AS.get(node.tag.removeprefix(_TAG))
    return f"; YAML reads it as {read_as} unless it is in quotes" if read_as else ""
