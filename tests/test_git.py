import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.diff import Change, DiffError, FileDiff
from bot.git import (
    MAX_FILE_BYTES,
    GitError,
    LocalChange,
    branch_change,
    patch_change,
    range_change,
    read_at,
    staged_change,
    top_level,
)

ROOT = Path(__file__).parent.parent


class Repo:
    """A real repository in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "-b", "main")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("utf-8", "replace").strip()

    def write(self, path: str, content: str | bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())

    def commit(self, message: str, **files: str | bytes) -> str:
        for path, content in files.items():
            self.write(path, content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def _only_the_tests_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "ada@example.com")


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    _only_the_tests_settings(monkeypatch)


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repositories of the next two fixtures, made once: a test gets copies."""
    folder = tmp_path_factory.mktemp("templates")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _only_the_tests_settings(monkeypatch)
        repo = Repo(folder / "first")
        repo.commit("first", a="1\n2\n3\n")
        shutil.copytree(repo.folder, folder / "branched")
        repo = Repo(folder / "branched")
        repo.git("switch", "--quiet", "--create", "feature")
        repo.commit("Add b\n\nBecause of c.", b="b\n")
        repo.commit("Change a", a="1\ntwo\n3\n")
        repo.git("switch", "--quiet", "main")
        repo.commit("main goes on", c="c\n")
        repo.git("switch", "--quiet", "feature")
    return folder


def copy(template: Path, folder: Path) -> Repo:
    repo = Repo(shutil.copytree(template, folder))
    repo.git("update-index", "--refresh")  # the copies' times and numbers are others
    return repo


@pytest.fixture
def repo(templates: Path, tmp_path: Path) -> Repo:
    return copy(templates / "first", tmp_path / "repo")


@pytest.fixture
def branched(templates: Path, tmp_path: Path) -> Repo:
    """Branch `feature` with two commits; main went on after it began."""
    return copy(templates / "branched", tmp_path / "repo")


def paths(change: LocalChange) -> list[str]:
    return [file.path for file in change.files]


def lines(file: FileDiff) -> list[str]:
    return [line.kind + line.text for hunk in file.hunks for line in hunk.lines]


# --- the branch


def test_a_branch_is_compared_with_where_it_left_main(branched: Repo) -> None:
    change = branch_change(branched.folder)
    assert paths(change) == ["a", "b"]
    assert lines(change.files[0]) == [" 1", "-2", "+two", " 3"]
    assert [line.new for line in change.files[0].hunks[0].lines] == [1, None, 2, 3]
    assert change.title == "Change a"
    assert change.description == "Add b\n\nBecause of c.\n\nChange a"
    assert change.base == branched.git("rev-parse", "main")
    assert change.note is None
    assert (change.read_file("a"), change.read_file("b"), change.read_file("c")) == (
        "1\ntwo\n3\n",
        "b\n",
        None,
    )


def test_one_commit_gives_title_and_body(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--create", "feature")
    repo.commit("Add ü\n\nBody.\nMore.", b="b\n")
    change = branch_change(repo.folder)
    assert (change.title, change.description) == ("Add ü", "Body.\nMore.")


def test_it_works_from_a_folder_below(branched: Repo) -> None:
    branched.commit("deep", **{"deep/er/d": "d\n"})
    change = branch_change(branched.folder / "deep" / "er")
    assert paths(change) == ["a", "b", "deep/er/d"]
    assert change.read_file("deep/er/d") == "d\n"
    assert top_level(branched.folder / "deep") == branched.folder.resolve()


def test_uncommitted_changes_are_mentioned(branched: Repo) -> None:
    branched.write("a", "changed again\n")
    branched.write("untracked", "x")
    change = branch_change(branched.folder)
    assert lines(change.files[0]) == [" 1", "-2", "+two", " 3"]
    assert change.read_file("a") == "1\ntwo\n3\n"
    assert change.note is not None
    assert "(1 file)" in change.note
    assert "--staged" in change.note
    branched.write("b", "too\n")
    branched.git("add", "b")
    assert "(2 files)" in (branch_change(branched.folder).note or "")


def test_a_branch_without_news_is_empty_with_a_note(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--create", "feature")
    change = branch_change(repo.folder)
    assert (change.files, change.title) == ((), "feature")
    assert change.note == "There is nothing here that main lacks."


def clone(repo: Repo, name: str, *options: str) -> Repo:
    folder = repo.folder.parent / name
    subprocess.run(["git", "clone", "--quiet", *options, repo.folder.as_uri(), folder], check=True)
    return Repo(folder)


def test_the_remotes_default_branch_comes_before_local_main(branched: Repo) -> None:
    branched.git("branch", "develop", "main")
    branched.git("switch", "--quiet", "develop")
    tip = branched.commit("dev", d="d\n")
    copy = clone(branched, "copy")
    copy.git("switch", "--quiet", "--create", "mine")
    copy.git("branch", "main", "HEAD~1")
    copy.commit("mine", e="e\n")
    change = branch_change(copy.folder)
    assert (paths(change), change.base) == (["e"], tip)


@pytest.mark.parametrize("tracking", ["--track", "--no-track"])
def test_on_the_default_branch_the_unpushed_commits_are_the_change(branched: Repo, tracking: str) -> None:
    branched.git("switch", "--quiet", "main")
    copy = clone(branched, "copy")
    copy.git("switch", "--quiet", "--detach")
    copy.git("branch", "--force", tracking, "main", "origin/main")
    copy.git("switch", "--quiet", "main")
    copy.commit("mine", e="e\n")
    assert paths(branch_change(copy.folder)) == ["e"]


def test_a_detached_head_is_compared_with_origin_main(branched: Repo) -> None:
    branched.git("switch", "--quiet", "main")
    copy = clone(branched, "copy")
    copy.git("switch", "--quiet", "--detach", "origin/feature")
    copy.git("remote", "set-head", "origin", "--delete")
    assert paths(branch_change(copy.folder)) == ["a", "b"]


def test_main_alone_has_nothing_to_be_compared_with(repo: Repo) -> None:
    with pytest.raises(GitError, match=r"the branch main with.*--range A\.\.B.*--staged"):
        branch_change(repo.folder)
    repo.git("switch", "--quiet", "--detach")
    repo.git("branch", "--quiet", "--move", "main", "trunk")
    with pytest.raises(GitError, match="compare this commit with"):
        branch_change(repo.folder)


def test_branches_without_a_common_commit_are_an_error(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--orphan", "other")
    repo.commit("other", z="z\n")
    with pytest.raises(GitError, match=r"no commit is common to main and this change; `--range A\.\.B`"):
        branch_change(repo.folder)


def test_a_shallow_clone_says_how_to_get_the_rest(branched: Repo) -> None:
    branched.git("switch", "--quiet", "main")
    copy = clone(branched, "copy", "--depth=1", "--no-single-branch")
    copy.git("switch", "--quiet", "feature")
    with pytest.raises(GitError, match=r"no commit is common.*git fetch --unshallow.*GIT_DEPTH"):
        branch_change(copy.folder)
    with pytest.raises(GitError, match=r"unknown revision 'HEAD~1'.*git fetch --unshallow"):
        range_change(copy.folder, "HEAD~1..HEAD")
    with pytest.raises(GitError, match=r"the commit before .* is not in this clone.*git fetch --unshallow"):
        range_change(copy.folder, "HEAD^!")


# --- a range


@pytest.mark.parametrize(
    ("rev_range", "changed", "base"),
    [
        ("main...feature", ["a", "b"], "main"),
        ("main...", ["a", "b"], "main"),
        ("main..feature", ["a", "b", "c"], "main"),
        ("feature~1..feature", ["a"], "feature~1"),
        ("feature~1..", ["a"], "feature~1"),
        ("feature~1", ["a"], "feature~1"),
        ("feature~1^!", ["b"], "feature~2"),
        ("..main", ["a", "b", "c"], "feature"),
        ("...main", ["c"], "feature"),
        ("feature^{/Add}..feature", ["a"], "feature~1"),
    ],
)
def test_a_range_is_what_lies_between(branched: Repo, rev_range: str, changed: list[str], base: str) -> None:
    change = range_change(branched.folder, rev_range)
    assert paths(change) == changed
    assert change.base == branched.git("rev-parse", base)


def test_two_dots_between_branches_that_parted_get_a_note(branched: Repo) -> None:
    note = range_change(branched.folder, "main..feature").note or ""
    assert "main has commits that feature lacks" in note
    assert "`main...feature`" in note
    assert "HEAD has commits that main lacks" in (range_change(branched.folder, "..main").note or "")
    assert range_change(branched.folder, "feature~1..feature").note is None


def test_a_range_reads_its_own_side_and_tells_its_commits(branched: Repo) -> None:
    change = range_change(branched.folder, "main...feature~1")
    assert (change.read_file("a"), change.read_file("b")) == ("1\n2\n3\n", "b\n")
    assert (change.title, change.description) == ("Add b", "Because of c.")
    change = range_change(branched.folder, "main~1..main")
    assert (change.title, change.read_file("b")) == ("main goes on", None)


def test_an_empty_range_says_so(branched: Repo) -> None:
    change = range_change(branched.folder, "HEAD")
    assert (change.files, change.title) == ((), "HEAD")
    assert "Nothing changes in HEAD" in (change.note or "")
    assert "COMMIT^!" in (change.note or "")


def test_the_first_commit_adds_everything(branched: Repo) -> None:
    change = range_change(branched.folder, "main~1^!")
    assert [(file.path, file.change) for file in change.files] == [("a", Change.ADDED)]
    assert (change.title, change.read_file("a")) == ("first", "1\n2\n3\n")
    assert read_at(branched.folder, change.base, "a") is None


def test_a_merge_is_its_result_against_its_first_parent(branched: Repo) -> None:
    branched.git("switch", "--quiet", "main")
    branched.git("merge", "--quiet", "--no-ff", "--message", "Merge it", "feature")
    for rev_range in ("HEAD^!", "HEAD^1..HEAD", "HEAD^"):
        change = range_change(branched.folder, rev_range)
        assert paths(change) == ["a", "b"]
        assert not any(file.unreadable for file in change.files)
    assert range_change(branched.folder, "HEAD^!").title == "Merge it"
    (combined, *_) = patch_change(branched.folder, b"diff --cc a\nindex 1,2..3\n@@@ -1 -1 +1 @@@\n").files
    assert "first parent" in (combined.unreadable or "")


@pytest.mark.parametrize("rev", ["nope", "--help", "-p", "--output=x", "", "-", "HEAD:a", "a"])
def test_an_unknown_revision_is_named_and_never_an_option(branched: Repo, rev: str) -> None:
    for rev_range in {rev, f"{rev}...main" if rev else "", f"main..{rev}" if rev else ""}:
        with pytest.raises(GitError, match="unknown revision '") as error:
            range_change(branched.folder, rev_range)
        assert repr(rev) in str(error.value)
    with pytest.raises(GitError, match="unknown revision '"):
        range_change(branched.folder, f"{rev}^!")
    assert {place.name for place in branched.folder.iterdir()} == {".git", "a", "b"}


def test_a_branch_named_like_an_option_is_a_branch(branched: Repo) -> None:
    branched.git("update-ref", "refs/heads/--stat", "main")
    assert paths(range_change(branched.folder, "--stat...feature")) == ["a", "b"]


# --- the index


def test_what_is_staged_is_reviewed_from_the_index(branched: Repo) -> None:
    branched.write("a", "staged\n")
    branched.write("new", "new\n")
    branched.git("add", "--all")
    branched.write("a", "not staged\n")
    change = staged_change(branched.folder)
    assert [(file.path, file.change) for file in change.files] == [
        ("a", Change.MODIFIED),
        ("new", Change.ADDED),
    ]
    assert (change.read_file("a"), change.read_file("new"), change.read_file("no")) == (
        "staged\n",
        "new\n",
        None,
    )
    assert change.base == branched.git("rev-parse", "HEAD")
    assert (change.title, change.description) == ("Staged changes", "")
    assert change.note == "Changes that are not staged (1 file) are not in this review."


def test_nothing_staged_says_so(branched: Repo) -> None:
    change = staged_change(branched.folder)
    assert (change.files, change.note) == ((), "Nothing is staged: `git add` what is to be reviewed.")


def test_before_the_first_commit_only_the_index_can_be_reviewed(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "young")
    repo.write("a", "a\n")
    repo.git("add", "a")
    change = staged_change(repo.folder)
    assert [(file.path, file.change, lines(file)) for file in change.files] == [("a", Change.ADDED, ["+a"])]
    assert (change.read_file("a"), change.note) == ("a\n", None)
    assert read_at(repo.folder, change.base, ".apprentice.yml") is None
    for ask in (branch_change, lambda folder: range_change(folder, "main")):
        with pytest.raises(GitError, match=r"no commit yet.*--staged"):
            ask(repo.folder)


def test_a_conflict_is_to_be_resolved_first(branched: Repo) -> None:
    branched.git("switch", "--quiet", "main")
    branched.commit("other", a="1\nzwei\n3\n")
    done = subprocess.run(["git", "merge", "feature"], cwd=branched.folder, capture_output=True, check=False)
    assert done.returncode == 1
    with pytest.raises(GitError, match="merge conflict in a: resolve it and `git add`"):
        staged_change(branched.folder)


def test_a_hook_sees_the_index_of_its_commit(branched: Repo) -> None:
    hook = branched.folder / ".git/hooks/pre-commit"
    hook.parent.mkdir(exist_ok=True)
    code = (
        "import pathlib; from bot.git import staged_change;"
        " change = staged_change(pathlib.Path.cwd()); print(change.files[0].path, change.read_file('a'))"
    )
    hook.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -c "{code}" >seen 2>&1\n')
    hook.chmod(0o755)
    branched.write("a", "by commit -a\n")
    branched.git("commit", "--quiet", "--all", "--message", "all")
    assert (branched.folder / "seen").read_text() == "a by commit -a\n\n"


# --- a patch


def test_a_patch_needs_no_repository(tmp_path: Path) -> None:
    change = patch_change(tmp_path, b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+\xff\xc3\xa4\n")
    assert lines(change.files[0]) == ["-a", "+\ufffdä"]
    assert (change.base, change.note, change.read_file("x")) == (None, None, None)
    assert patch_change(tmp_path, b"").files == ()
    with pytest.raises(DiffError, match="no diff"):
        patch_change(tmp_path, b"\x7fELF")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_patch_written_by_powershell_is_read(tmp_path: Path, encoding: str) -> None:
    patch = "diff --git a/x b/x\r\n--- a/x\r\n+++ b/x\r\n@@ -1 +1 @@\r\n-a\r\n+ü\r\n".encode(encoding)
    change = patch_change(tmp_path, patch)
    assert (change.files[0].path, lines(change.files[0])) == ("x", ["-a", "+ü"])


def test_a_file_is_context_only_where_it_is_what_the_patch_makes(branched: Repo) -> None:
    patch = branched.git("diff", "main...feature").encode() + b"\n"
    (branched.folder / "deep").mkdir()
    change = patch_change(branched.folder / "deep", patch)
    assert (change.read_file("a"), change.read_file("b"), change.read_file("c")) == (
        "1\ntwo\n3\n",
        "b\n",
        None,
    )
    branched.write("a", "1\r\ntwo\r\n3")
    assert change.read_file("a") == "1\r\ntwo\r\n3"
    branched.write("a", "0\n1\ntwo\n3\n")
    assert change.read_file("a") is None
    branched.write("a", "1\n")
    assert change.read_file("a") is None
    (branched.folder / "a").unlink()
    assert change.read_file("a") is None


def test_a_deleted_file_has_no_text(branched: Repo) -> None:
    change = patch_change(branched.folder, b"--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n")
    assert (change.files[0].path, change.read_file("a")) == ("a", None)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/hostname",
        "link",
        "linked/outside",
        ".git/config",
        "fold",
        "pipe",
        "big",
        "bin",
        "n" * 5000,
    ],
)
def test_nothing_outside_the_folder_is_read(branched: Repo, path: str) -> None:
    outside = branched.folder.parent
    for place in ("outside", "repo/.git/config", "repo/big", "repo/bin"):
        (outside / place).write_text("secret\n" + "\0" * (place == "repo/bin") + "x" * (1 << 20) * ("big" in place))
    (branched.folder / "link").symlink_to(outside / "outside")
    (branched.folder / "linked").symlink_to(outside)
    (branched.folder / "fold").mkdir()
    os.mkfifo(branched.folder / "pipe")
    first = Path("/etc/hostname").read_text().split("\n")[0] if path == "/etc/hostname" else "secret"
    change = patch_change(branched.folder, f"--- {path}\n+++ {path}\n@@ -0,0 +1 @@\n+{first}\n".encode())
    assert change.files[0].path == path
    assert change.read_file(path) is None
    assert read_at(branched.folder, None, path) is None


def test_a_path_with_a_null_byte_is_no_file(branched: Repo) -> None:
    change = patch_change(branched.folder, b'--- "a/a\\000"\n+++ "b/a\\000"\n@@ -1 +1 @@\n-x\n+1\n')
    assert change.files[0].path == "a\0"
    assert change.read_file("a\0") is None
    assert branch_change(branched.folder).read_file("a\0") is None


# --- reading at a revision


def test_a_file_is_read_at_a_revision(branched: Repo) -> None:
    branched.write("a", "in the tree\n")
    read = [read_at(branched.folder, rev, "a") for rev in ("main", "feature", None)]
    assert read == ["1\n2\n3\n", "1\ntwo\n3\n", "in the tree\n"]
    assert read_at(branched.folder, "main", "b") is None
    assert read_at(branched.folder / ".git", None, "config") is not None
    with pytest.raises(GitError, match="unknown revision '--all'"):
        read_at(branched.folder, "--all", "a")


def test_without_a_repository_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("here\n")
    assert read_at(tmp_path, None, "a") == "here\n"


def test_large_and_binary_files_are_not_read(repo: Repo) -> None:
    repo.git("switch", "--quiet", "--create", "feature")
    repo.commit(
        "sizes",
        fits=b"x" * MAX_FILE_BYTES,
        large=b"x" * (MAX_FILE_BYTES + 1),
        binary=b"a\0b",
        latin=b"\xe4\n",
    )
    change = branch_change(repo.folder)
    assert len(change.read_file("fits") or "") == MAX_FILE_BYTES
    assert (change.read_file("large"), change.read_file("binary")) == (None, None)
    assert change.read_file("latin") == "\ufffd\n"


# --- odd files


def test_every_odd_file_is_told(tmp_path: Path) -> None:  # noqa: PLR0915 -- many kinds of files
    library = Repo(tmp_path / "library")
    first = library.commit("one", x="x\n")
    second = library.commit("two", x="y\n")
    repo = Repo(tmp_path / "odd")
    long = "".join(f"line {number}\n" for number in range(1, 31))
    repo.write("crlf.txt", "one\r\ntwo\r\n")
    repo.write("empty-gone", "")
    repo.write("feed.c", "a\fb\nc\u2028d\n\x85\n\x1c\n")
    repo.write("gone.txt", "gone\n")
    repo.write("mode.sh", "x\n")
    repo.write("no-end", "a")
    repo.write("move-me", "only moved\n")
    repo.write("move-and-edit", long)
    repo.write("pic.png", b"\x89PNG\0\1")
    repo.write("turns", "was a file\n")
    (repo.folder / "link").symlink_to("mode.sh")
    (repo.folder / "sub").mkdir()
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{first},sub")
    repo.git("commit", "--quiet", "--message", "sub")
    repo.commit("base", **{"-rf": "x\n", 'ü "q".txt': "x\n"})

    repo.git("switch", "--quiet", "--create", "feature")
    repo.write("crlf.txt", "one\r\nTWO\r\n")
    (repo.folder / "empty-gone").unlink()
    repo.write("empty-new", "")
    repo.write("feed.c", "a\fb\nc\u2028D\n\x85\n\x1c\n")
    (repo.folder / "gone.txt").unlink()
    (repo.folder / "mode.sh").chmod(0o755)
    repo.write("no-end", "b")
    (repo.folder / "move-me").rename(repo.folder / "moved")
    (repo.folder / "move-and-edit").rename(repo.folder / "moved and edited")
    repo.write("moved and edited", long.replace("line 15\n", "line fifteen\n"))
    repo.write("pic.png", b"\x89PNG\0\2")
    (repo.folder / "turns").unlink()
    (repo.folder / "turns").symlink_to("mode.sh")
    (repo.folder / "link").unlink()
    (repo.folder / "link").symlink_to("feed.c")
    repo.git("update-index", "--cacheinfo", f"160000,{second},sub")
    repo.write("-rf", "--- a/x\n+++ b/x\n")
    repo.write("--help", "x\n")
    repo.write('ü "q".txt', b"\xff\n")
    repo.write("tab\tin it", "x\n")
    repo.write("new\nline", "x\n")
    repo.write("back\\slash", "x\n")
    repo.git("add", "--", ".", ":!sub")
    repo.git("commit", "--quiet", "--message", "odd")

    change = branch_change(repo.folder)
    told = {file.path: file.unreadable or lines(file) for file in change.files if file.path != "turns"}
    assert told == {
        "--help": ["+x"],
        "-rf": ["-x", "+--- a/x", "++++ b/x"],
        "back\\slash": ["+x"],
        "crlf.txt": [" one", "-two", "+TWO"],
        "empty-gone": "empty file",
        "empty-new": "empty file",
        "feed.c": [" a\fb", "-c\u2028d", "+c\u2028D", " \x85", " \x1c"],
        "gone.txt": ["-gone"],
        "link": "symlink",
        "mode.sh": "mode change only",
        "moved": "renamed without a change",
        "moved and edited": [
            *(f" line {number}" for number in (12, 13, 14)),
            "-line 15",
            "+line fifteen",
            *(f" line {number}" for number in (16, 17, 18)),
        ],
        "new\nline": ["+x"],
        "no-end": ["-a", "+b"],
        "pic.png": "binary file",
        "sub": "submodule",
        "tab\tin it": ["+x"],
        'ü "q".txt': ["-x", "+\ufffd"],
    }
    turned = [(file.change, file.unreadable) for file in change.files if file.path == "turns"]
    assert turned == [(Change.DELETED, None), (Change.ADDED, "symlink")]
    edited = next(file for file in change.files if file.path == "moved and edited")
    assert (edited.old_path, edited.change) == ("move-and-edit", Change.RENAMED)
    assert sorted(edited.new_lines) == [12, 13, 14, 15, 16, 17, 18]
    for file in change.files:
        text = change.read_file(file.path)
        for number, line in file.new_lines.items():
            assert text is not None
            assert text.split("\n")[number - 1].removesuffix("\r") == line.text
    assert change.read_file("sub") is None
    patch = repo.git("diff", "--binary", "--no-rename-empty", "main", "feature").encode()
    assert paths(patch_change(repo.folder, patch)) == paths(change)
    assert staged_change(repo.folder).files == ()


def test_the_users_settings_do_not_change_the_diff(
    branched: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "evil"
    program.write_text(
        f"#!/bin/sh\ntouch {tmp_path}/ran\necho '[GNUPG:] SIG_CREATED ' >&2\n"
        "echo -----BEGIN PGP SIGNATURE-----\necho\necho x\necho -----END PGP SIGNATURE-----\n"
    )
    program.chmod(0o755)
    tens = [f"{number}\n" for number in range(30)]
    branched.git("switch", "--quiet", "main")
    branched.commit("long", d="".join(tens))
    branched.git("switch", "--quiet", "--create", "mine")
    tens[5] = tens[15] = "changed\n"
    (branched.folder / "a").rename(branched.folder / "moved")
    (branched.folder / "sub").mkdir()
    branched.git("update-index", "--add", "--cacheinfo", f"160000,{branched.git('rev-parse', 'HEAD')},sub")
    branched.commit("all", **{".gitattributes": "* diff=evil\n", "deep/d": "d\n", "d": "".join(tens)})
    branched.git("config", "gpg.program", f"{program}")
    branched.git("commit", "--quiet", "--gpg-sign", "--allow-empty", "--message", "signed")
    (tmp_path / "ran").unlink()
    plain = branch_change(branched.folder)
    assert [len(file.hunks) for file in plain.files] == [1, 2, 1, 0, 0]
    assert paths(plain) == [".gitattributes", "d", "deep/d", "moved", "sub"]
    for name, value in {
        "color.ui": "always",
        "core.fsmonitor": f"{program}",
        "core.pager": f"{program}",
        "core.quotePath": "true",
        "diff.context": "0",
        "diff.evil.command": f"{program}",
        "diff.evil.textconv": f"{program}",
        "diff.external": f"{program}",
        "diff.ignoreSubmodules": "all",
        "diff.interHunkContext": "50",
        "diff.mnemonicPrefix": "true",
        "diff.noprefix": "true",
        "diff.relative": "true",
        "diff.renames": "false",
        "diff.submodule": "log",
        "diff.suppressBlankEmpty": "true",
        "log.showSignature": "true",
        "pager.diff": "true",
        "status.showUntrackedFiles": "all",
        "status.short": "true",
        "status.branch": "true",
    }.items():
        branched.git("config", name, value)
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(program))
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=0")
    monkeypatch.setenv("GIT_PAGER", str(program))
    odd = branch_change(branched.folder / "deep")
    assert (odd.files, odd.title, odd.description, odd.note) == (
        plain.files,
        plain.title,
        plain.description,
        None,
    )
    assert staged_change(branched.folder).files == ()
    assert not (tmp_path / "ran").exists()


# --- no repository, no git


@pytest.mark.parametrize(
    "ask",
    [
        top_level,
        branch_change,
        staged_change,
        lambda folder: range_change(folder, "A..B"),
        lambda folder: read_at(folder, "main", "a"),
    ],
)
def test_what_is_no_repository_gets_a_clear_message(
    ask: Callable[[Path], object], tmp_path: Path, repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(GitError, match=r"is not in a git repository.*--patch FILE"):
        ask(tmp_path)
    with pytest.raises(GitError, match=r"there is no folder .*missing"):
        ask(tmp_path / "missing")
    subprocess.run(["git", "clone", "--quiet", "--bare", repo.folder, tmp_path / "bare.git"], check=True)
    with pytest.raises(GitError, match=r"no working tree \(a bare repository\?\)"):
        ask(tmp_path / "bare.git")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / ".git").write_text("rubbish")
    with pytest.raises(GitError, match=r"`git rev-parse` failed in .*broken: fatal: invalid gitfile format"):
        ask(tmp_path / "broken")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("git") is None
    with pytest.raises(GitError, match="git is not installed"):
        ask(repo.folder)


def test_a_patch_is_read_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "x").write_text("b\n")
    change = patch_change(tmp_path, b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
    assert change.read_file("x") == "b\n"


def test_a_change_cannot_hide_its_code_by_calling_it_binary(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "main")
    git("commit", "--allow-empty", "-m", "Start")
    git("switch", "-c", "topic")
    (tmp_path / ".gitattributes").write_text("*.py -diff\n")
    (tmp_path / "a.py").write_text("import os\n")
    (tmp_path / "b.bin").write_bytes(b"a\0b")
    git("add", "-A")
    git("commit", "-m", "Hide")
    files = {file.path: file for file in branch_change(tmp_path).files}
    assert files["a.py"].unreadable is None
    assert files["a.py"].new_lines[1].text == "import os"
    assert files["b.bin"].unreadable == "binary file"
