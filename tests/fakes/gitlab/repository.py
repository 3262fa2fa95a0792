"""A bare git repository, and what git says of it. Answers about fixed commits are kept."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Content = bytes | str | tuple[str, bytes] | None
"""A file's new content: bytes, text, (git mode, bytes), or None where it is deleted."""

RENAMES = "--find-renames=30%"
_SHA = re.compile(r"[0-9a-f]{40}")


class GitError(RuntimeError):
    """git refused."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a diff. `text` is what stands after its header: bare hunks, or the line for binary files."""

    old_path: str
    new_path: str
    a_mode: str
    b_mode: str
    status: str
    text: str

    @property
    def new_file(self) -> bool:
        return self.status == "A"

    @property
    def deleted_file(self) -> bool:
        return self.status == "D"

    @property
    def renamed_file(self) -> bool:
        return self.status == "R"


@dataclass(frozen=True, slots=True)
class Commit:
    id: str
    parents: tuple[str, ...]
    author_name: str
    author_email: str
    authored: str
    committer_name: str
    committer_email: str
    committed: str
    message: str

    @property
    def title(self) -> str:
        return self.message.partition("\n")[0]


class Repository:
    """A bare repository in a folder, made when it is not there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: dict[tuple[str, ...], object] = {}
        if not (path / "HEAD").exists():
            path.mkdir(parents=True, exist_ok=True)
            self.git("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(path))
            config = "[gc]\n\tauto = 0\n[receive]\n\tadvertisePushOptions = true\n\tautogc = false\n"
            with (path / "config").open("a") as file:
                file.write(config)

    def git(self, *arguments: str, given: bytes | None = None) -> bytes:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
        done = subprocess.run(
            ["git", "-C", str(self.path), "-c", "core.quotePath=false", *arguments],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout

    # --- writing

    def commit(
        self,
        branch: str,
        changes: Mapping[str, Content],
        *,
        message: str,
        author: str,
        when: int,
        parent: str | None,
    ) -> str:
        """Put a commit on a branch (whatever stood there before) and return its SHA."""
        person = f"{author} {when} +0000"
        said = message.encode()
        stream = [f"commit refs/heads/{branch}\nmark :1\nauthor {person}\ncommitter {person}\n".encode()]
        stream.append(b"data %d\n%s\n" % (len(said), said))
        if parent:
            stream.append(f"from {parent}\n".encode())
        for path, content in changes.items():
            mode, data = _mode(content)
            if data is None:
                stream.append(f"D {_quoted(path)}\n".encode())
            elif mode == "160000":
                stream.append(f"M 160000 {data.decode()} {_quoted(path)}\n".encode())
            else:
                stream.append(f"M {mode} inline {_quoted(path)}\ndata {len(data)}\n".encode() + data + b"\n")
        stream.append(b"get-mark :1\n")
        said = self.git("fast-import", "--quiet", "--force", "--date-format=raw", given=b"".join(stream))
        return said.decode().strip()

    def point(self, ref: str, sha: str | None) -> None:
        """Move a reference, or delete it."""
        self.git("update-ref", *(("-d", ref) if sha is None else (ref, sha)))

    # --- reading

    def heads(self) -> dict[str, str]:
        said = self.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads").decode()
        pairs = (line.split(" ", 1) for line in said.splitlines())
        return {name.removeprefix("refs/heads/"): sha for sha, name in pairs}

    def resolve(self, revision: str) -> str | None:
        """The commit that a name stands for."""
        if not revision or revision.startswith("-") or "\0" in revision:
            return None
        key = ("resolve", revision)
        if _SHA.fullmatch(revision) and key in self._kept:
            return str(self._kept[key])
        try:
            sha = self.git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}").decode().strip()
        except GitError:
            return None
        self._kept["resolve", sha] = sha
        return sha

    def merge_base(self, one: str, other: str) -> str | None:
        key = ("merge-base", one, other)
        if key not in self._kept:
            try:
                self._kept[key] = self.git("merge-base", one, other).decode().strip()
            except GitError:
                self._kept[key] = ""
        return str(self._kept[key]) or None

    def blob(self, sha: str, path: str) -> tuple[str, bytes] | None:
        """The id and the content of a file at a commit."""
        key = ("blob", sha, path)
        if key not in self._kept:
            try:
                data = self.git("cat-file", "blob", f"{sha}:{path}")
                self._kept[key] = (self.git("rev-parse", f"{sha}:{path}").decode().strip(), data)
            except (GitError, ValueError):
                self._kept[key] = None
        kept = self._kept[key]
        return kept if isinstance(kept, tuple) else None

    def raw_diff(self, base: str, head: str) -> bytes:
        key = ("raw", base, head)
        if key not in self._kept:
            self._kept[key] = self.git("diff", "--no-color", "--no-ext-diff", "--full-index", "-M", base, head)
        kept = self._kept[key]
        assert isinstance(kept, bytes)
        return kept

    def diff(self, base: str, head: str, paths: Sequence[str] = ()) -> tuple[FileChange, ...]:
        """The files that differ between two commits, of all or of some paths."""
        key = ("diff", base, head, *paths)
        if key not in self._kept:
            options = ("--no-color", "--no-ext-diff", "--full-index", RENAMES, "--patch-with-raw", "-z")
            literal = [f":(top,literal){path}" for path in paths if path]
            self._kept[key] = _changes(self.git("diff", *options, base, head, "--", *literal))
        kept = self._kept[key]
        assert isinstance(kept, tuple)
        return kept

    def commits(self, base: str, head: str) -> tuple[Commit, ...]:
        """The commits from base (without it) to head, oldest first."""
        key = ("log", base, head)
        if key not in self._kept:
            self._kept[key] = self._log("--reverse", f"{base}..{head}")
        kept = self._kept[key]
        assert isinstance(kept, tuple)
        return kept

    def commit_of(self, sha: str) -> Commit:
        key = ("commit", sha)
        if key not in self._kept:
            self._kept[key] = self._log("--max-count=1", sha)[0]
        kept = self._kept[key]
        assert isinstance(kept, Commit)
        return kept

    def _log(self, *what: str) -> tuple[Commit, ...]:
        form = "%H%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00%x01"
        said = self.git("log", f"--format={form}", *what, "--").decode(errors="replace")
        commits = []
        for entry in said.split("\0\1"):
            if entry.strip("\n"):
                sha, parents, *rest = entry.lstrip("\n").split("\0")
                commits.append(Commit(sha, tuple(parents.split()), *rest))
        return tuple(commits)


def _mode(content: Content) -> tuple[str, bytes | None]:
    if isinstance(content, tuple):
        return content
    return "100644", content.encode() if isinstance(content, str) else content


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _changes(said: bytes) -> tuple[FileChange, ...]:
    """Read `git diff --patch-with-raw -z`: the entries with their exact paths, then their patches in order."""
    entries = []
    while said.startswith(b":"):
        head, said = said[1:].split(b"\0", 1)
        a_mode, b_mode, _, _, status = head.decode().split(" ")
        first, said = said.split(b"\0", 1)
        second = first
        if status[0] in "RC":
            second, said = said.split(b"\0", 1)
        one = (a_mode, b_mode, status[0], first.decode(errors="replace"), second.decode(errors="replace"))
        # a file that becomes a symlink has two patches: one is deleted, one is new
        entries += [(a_mode, "000000", "D", *one[3:]), ("000000", b_mode, "A", *one[3:])] if status == "T" else [one]
    patches = re.split(rb"(?m)^(?=diff --git )", said.lstrip(b"\0"))[1:]
    return tuple(
        FileChange(old, new, "0" if a == "000000" else a, "0" if b == "000000" else b, status, _hunks(patch))
        for (a, b, status, old, new), patch in zip(entries, patches, strict=True)
    )


def _hunks(patch: bytes) -> str:
    found = re.search(rb"(?m)^(?:@@ |Binary files )", patch)
    return patch[found.start() :].decode(errors="replace") if found else ""
