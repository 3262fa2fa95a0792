"""What changed in a repository on this machine: runs `git` and reads its diffs.

The repository's own settings cannot make `git` run a diff program, a text converter or a pager here, and no
name given by the user is ever taken for an option. Files are named by their path from the top of the
repository, also when the folder is deeper.
"""

import codecs
import functools
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bot.diff import FileDiff, parse

MAX_FILE_BYTES = 1 << 20
"""Files larger than this are not read: their hunks go without context."""
MAX_COMMITS = 50
"""Most commit messages that make up a description, newest first."""


class GitError(RuntimeError):
    """git could not say what changed; the message tells the way out."""


@dataclass(frozen=True, slots=True)
class LocalChange:
    """A change that is not a merge request.

    Args:
        files: the changed files.
        title: one line, like a merge request's.
        description: the commits' messages, oldest first; may be empty.
        base: the revision that the policy is read from (`read_at`); None for a patch: the working tree.
        read_file: gives the text of a file after the change; None if it is absent, binary, larger than
            `MAX_FILE_BYTES`, or (for a patch) not known to be the file that the patch makes.
        note: what the user should know about the choice of the change, or None.
    """

    files: tuple[FileDiff, ...]
    title: str
    description: str
    base: str | None
    read_file: Callable[[str], str | None]
    note: str | None


def top_level(folder: Path) -> Path:
    """The top folder of the repository that the folder is in.

    Raises:
        GitError: there is none, or git is not installed.
    """
    return Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))


def branch_change(folder: Path) -> LocalChange:
    """What the commits of the checked-out branch change, from where they left the branch they will go to.

    That branch is the remote's default one (origin/HEAD), else origin/main, origin/master, main or master. On
    the default branch itself it is what it is pushed to: the commits not yet pushed are the change.

    Raises:
        GitError: no repository, no commit, or nothing to compare with.
    """
    top = top_level(folder)
    head = _commit(top, "HEAD")
    branch = _line(top, "symbolic-ref", "--quiet", "HEAD")
    target = _target(top, branch)
    tip = _commit(top, target)
    base = _merge_base(top, tip, head, target)
    title, description = _messages(top, "--no-merges", f"{base}..{head}")
    files = _diff(top, functools.partial(_blob, top, head), base, head)
    notes = [] if files else [f"There is nothing here that {_short(target)} lacks."]
    if count := len(_uncommitted(top)):
        notes.append(
            f"Uncommitted changes ({_count(count, 'file')}) are not in this review: "
            "`git add` them and review them with --staged."
        )
    return LocalChange(
        files=files,
        title=title or _short(branch or head),
        description=description,
        base=tip,
        read_file=functools.partial(_blob, top, head),
        note=" ".join(notes) or None,
    )


def range_change(folder: Path, rev_range: str) -> LocalChange:
    """What lies between two revisions.

    `A..B` is the difference of A and B, `A...B` what B changed since it left A, `A` alone is `A..HEAD`, and
    `A^!` is the one commit A (for a merge: its result against its first parent). A side left out is HEAD.

    Raises:
        GitError: no repository, or a revision that is not in it.
    """
    top = top_level(folder)
    note = None
    if rev_range.endswith("^!"):
        head = _commit(top, rev_range.removesuffix("^!"))
        policy = base = _first_parent(top, head)
        title, description = _messages(top, "--max-count=1", head)
    else:
        dots = "..." if "..." in rev_range else ".."
        left, separator, right = rev_range.partition(dots)
        policy = base = _commit(top, (left or "HEAD") if separator else rev_range)
        head = _commit(top, right or "HEAD")
        if dots == "...":
            base = _merge_base(top, base, head, left or "HEAD")
        elif _run(top, "merge-base", "--is-ancestor", base, head).returncode:
            note = (
                f"{left or 'HEAD'} has commits that {right or 'HEAD'} lacks; the review shows them undone. "
                f"Use `{left}...{right}` for the commits of {right or 'HEAD'} alone."
            )
        title, description = _messages(top, "--no-merges", f"{base}..{head}")
    files = _diff(top, functools.partial(_blob, top, head), base, head)
    if not files:
        note = f"Nothing changes in {rev_range}. One commit alone is `--range COMMIT^!`."
    return LocalChange(
        files=files,
        title=title or rev_range,
        description=description,
        base=policy,
        read_file=functools.partial(_blob, top, head),
        note=note,
    )


def staged_change(folder: Path) -> LocalChange:
    """What the next commit would change: the index against HEAD (against nothing before the first commit).

    Raises:
        GitError: no repository, or a merge conflict that is not resolved.
    """
    top = top_level(folder)
    if conflicts := _git(top, "diff", "--name-only", "--diff-filter=U", "-z").split(b"\0")[:-1]:
        names = ", ".join(map(_text, conflicts))
        raise GitError(f"merge conflict in {names}: resolve it and `git add` the result before a review")
    base = _find(top, "HEAD") or _empty_tree(top)
    files = _diff(top, functools.partial(_blob, top, ":0"), "--cached", base)
    notes = [] if files else ["Nothing is staged: `git add` what is to be reviewed."]
    if count := sum(state[1] != " " for state in _uncommitted(top)):
        notes.append(f"Changes that are not staged ({_count(count, 'file')}) are not in this review.")
    return LocalChange(
        files=files,
        title="Staged changes",
        description="",
        base=base,
        read_file=functools.partial(_blob, top, ":0"),
        note=" ".join(notes) or None,
    )


def patch_change(folder: Path, patch: bytes) -> LocalChange:
    """What a patch changes, as `git diff`, `git format-patch` or `diff -u` made it; needs no repository.

    A file of the working tree serves as context only where it is what the patch makes of it.

    Raises:
        bot.diff.DiffError: there is no diff in it.
    """
    if patch.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # `>` in Windows PowerShell
        files = parse(patch.decode("utf-16", "replace"))
    else:
        files = parse(_text(patch))
    root = _root(folder)

    def read_file(path: str) -> str | None:
        text = _working_file(root, path)
        lines = [] if text is None else text.split("\n")
        wanted = {number: line.text for file in files if file.path == path for number, line in file.new_lines.items()}
        there = {number: lines[number - 1].removesuffix("\r") for number in wanted if number <= len(lines)}
        return text if wanted and wanted == there else None

    return LocalChange(files=files, title="Patch", description="", base=None, read_file=read_file, note=None)


def read_at(folder: Path, rev: str | None, path: str) -> str | None:
    """The text of a file at a revision (None: in the working tree), or None where there is no such text file.

    Raises:
        GitError: the revision is not in the repository.
    """
    if rev is None:
        return _working_file(_root(folder), path)
    top = top_level(folder)
    tree = _find(top, rev, "tree")
    if tree is None:
        raise _unknown(top, rev)
    return _blob(top, tree, path)


def is_at(folder: Path, rev: str | None, path: str) -> bool:
    """Whether there is such a file at the revision (None: in the working tree), text or not."""
    if rev is None:
        return (_root(folder) / path).exists()
    return _run(top_level(folder), "cat-file", "-e", f"{rev}:{path}").returncode == 0


# --- choosing revisions


def _target(top: Path, branch: str | None) -> str:
    """The full name of the branch that the checked-out one will be merged into."""
    name = branch and _short(branch)
    default = _line(top, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
    defaults = [_short(default).removeprefix("origin/")] if default else ["main", "master"]
    if name in defaults:
        upstream = _line(top, "for-each-ref", "--format=%(upstream)", f"refs/heads/{name}")
        candidates = [upstream, f"refs/remotes/origin/{name}"]
    else:
        places = (
            "refs/remotes/origin/main",
            "refs/remotes/origin/master",
            "refs/heads/main",
            "refs/heads/master",
        )
        candidates = [default, *places]
    for candidate in candidates:
        if candidate and candidate != branch and _find(top, candidate):
            return candidate
    here = f"the branch {name}" if name else "this commit"
    raise GitError(
        f"there is no branch to compare {here} with (neither one it is pushed to, nor main or master): "
        "say what to review with `--range A..B`, or stage changes and use `--staged`"
    )


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/remotes/")


def _find(top: Path, rev: str, kind: str = "commit") -> str | None:
    return _line(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{{kind}}}")


def _commit(top: Path, rev: str) -> str:
    found = _find(top, rev)
    if found is None:
        raise _unknown(top, rev)
    return found


def _first_parent(top: Path, commit: str) -> str:
    """The commit before it; the empty tree for the first commit of all."""
    parent = _find(top, f"{commit}^1")
    if parent is None and (hint := _shallow_hint(top)):
        raise GitError(f"the commit before {commit} is not in this clone{hint}")
    return parent or _empty_tree(top)


def _unknown(top: Path, rev: str) -> GitError:
    if _find(top, "HEAD") is None:
        return GitError("the branch has no commit yet: stage the files with `git add` and use `--staged`")
    return GitError(f"unknown revision {rev!r}: it is no commit, branch or tag of {top}{_shallow_hint(top)}")


def _merge_base(top: Path, one: str, other: str, name: str) -> str:
    base = _line(top, "merge-base", one, other)
    if base is None:
        raise GitError(
            f"no commit is common to {_short(name)} and this change{_shallow_hint(top)}; "
            "`--range A..B` compares any two revisions"
        )
    return base


def _shallow_hint(top: Path) -> str:
    if _line(top, "rev-parse", "--is-shallow-repository") == "true":
        return " (the clone is shallow: run `git fetch --unshallow`, or set GIT_DEPTH to 0 in GitLab CI)"
    return ""


def _empty_tree(top: Path) -> str:
    return _text(_git(top, "hash-object", "-t", "tree", "--stdin")).strip()


# --- reading


def _diff(top: Path, read: Callable[[str], str | None], *revisions: str) -> tuple[FileDiff, ...]:
    options = (
        "--patch",
        "--unified=3",
        "--inter-hunk-context=0",
        "--find-renames",
        "--no-rename-empty",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        "--submodule=short",
        "--ignore-submodules=none",
    )
    files = parse(_text(_git(top, "diff", *options, *revisions, "--")))
    # A change may bring a .gitattributes that calls its own code binary: what is text is read as text.
    called_binary = {file.path for file in files if file.unreadable == "binary file"}
    paths = [path for path in called_binary if read(path) is not None]
    if not paths:
        return files
    literal = [f":(top,literal){path}" for path in sorted(paths)]
    again = {
        file.path: file for file in parse(_text(_git(top, "diff", "--text", *options, *revisions, "--", *literal)))
    }
    return tuple(again.get(file.path, file) for file in files)


def _messages(top: Path, *what: str) -> tuple[str, str]:
    """Title and description of some commits; both empty where there are none."""
    options = ("--no-show-signature", "--encoding=UTF-8", "-z", "--format=%B", f"--max-count={MAX_COMMITS}")
    said = _text(_git(top, "log", *options, *what, "--"))
    messages = [message.strip() for message in said.split("\0")[:-1]]
    if not messages:
        return "", ""
    title, _, body = messages[0].partition("\n")
    return title, body.strip() if len(messages) == 1 else "\n\n".join(reversed(messages))


def _uncommitted(top: Path) -> list[str]:
    """A line for each tracked file that differs from HEAD: its state in the index, in the tree, its name."""
    options = ("--porcelain=v1", "-z", "--no-renames", "--untracked-files=no", "--ignore-submodules=dirty")
    return _text(_git(top, "status", *options)).split("\0")[:-1]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _blob(top: Path, place: str, path: str) -> str | None:
    """The text of a file at a revision that is known to exist, or in the index (`:0`)."""
    if "\0" in path:
        return None
    with subprocess.Popen(  # noqa: S603 -- as in _run
        _command(top, "cat-file", "blob", f"{place}:{path}"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_environment(),
    ) as process:
        data = process.stdout.read(MAX_FILE_BYTES + 1) if process.stdout else b""
    return None if process.returncode else _file_text(data)


def _root(folder: Path) -> Path:
    try:
        return top_level(folder)
    except GitError:
        return folder


def _working_file(root: Path, path: str) -> str | None:
    """The text of a file below the folder, never of one outside of it or of git's own."""
    try:
        target = (root / path).resolve()
        below = target.relative_to(root.resolve())
        if ".git" in below.parts or not target.is_file():
            return None
        with target.open("rb") as file:
            return _file_text(file.read(MAX_FILE_BYTES + 1))
    except (OSError, ValueError):  # not there, not allowed, outside, or no name that a file can have
        return None


def _file_text(data: bytes) -> str | None:
    return None if len(data) > MAX_FILE_BYTES or b"\0" in data else _text(data)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# --- running git


def _command(folder: Path, *arguments: str) -> list[str]:
    settings = ("-c", "core.quotePath=false", "-c", "core.fsmonitor=false")
    return ["git", "-C", os.fspath(folder), "--no-pager", *settings, *arguments]


def _environment() -> dict[str, str]:
    """The user's own, without what changes diffs; hooks need its GIT_DIR and GIT_INDEX_FILE."""
    kept = {name: value for name, value in os.environ.items() if name != "GIT_DIFF_OPTS"}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # noqa: S603 -- a list, no shell; names from outside stand where no option can
            _command(folder, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed, or not in PATH: install it (for example `apt install git`)") from None


def _line(folder: Path, *arguments: str) -> str | None:
    """What git answers in one line; None where it has no answer."""
    done = _run(folder, *arguments)
    return None if done.returncode else _text(done.stdout).strip()


def _git(folder: Path, *arguments: str) -> bytes:
    done = _run(folder, *arguments)
    if done.returncode:
        raise GitError(_explained(folder, arguments[0], _text(done.stderr).strip()))
    return done.stdout


def _explained(folder: Path, command: str, said: str) -> str:
    if "not a git repository" in said:
        return f"{folder} is not in a git repository: go to one, or review a diff with `--patch FILE`"
    if "must be run in a work tree" in said:
        return f"{folder} has no working tree (a bare repository?): clone it, and review the clone"
    if "cannot change to" in said:
        return f"there is no folder {folder}"
    return f"`git {command}` failed in {folder}: {said}"
