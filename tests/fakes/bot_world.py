"""The bot's steps over a GitLab stand-in, a store on SQLite and a student, without the durable queue around them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bot.comment import parse_marker
from bot.conversation import Conversation
from bot.desk import Claim, Due
from bot.domain import MergeRef
from bot.forge import SUMMARY_MARKER
from bot.gitlab import GitLabForge
from bot.merge_review import MergeReview, Ready
from bot.settings import Settings
from bot.step import Done, End, Wait, now
from bot.store import ReviewState, Store
from bot.telemetry import Metrics
from tests.e2e.place import careful
from tests.fakes import gitlab as fake_gitlab
from tests.fakes import student as fake_student
from tests.fakes.gitlab import GitLab, MergeRequest, Note, Project, User
from tests.fakes.student import FakeStudent, Request, Said

SALT = "a-salt"
PAY = "def pay(cents):\n    query(f'insert {cents}')  # BUG\n    send(cents)\n"


@dataclass
class BotWorld:
    """All of it, with one merge request that has one bug."""

    gitlab: GitLab
    project: Project
    merge: MergeRequest
    alice: User
    student: FakeStudent
    forge: GitLabForge
    store: Store
    steps: MergeReview
    talk: Conversation
    metrics: Metrics

    @property
    def ref(self) -> MergeRef:
        return MergeRef(self.project.id, self.merge.iid)

    @property
    def notes(self) -> list[Note]:
        """The bot's notes that say a finding, wherever they stand."""
        ours = (note for note in self.merge.all_notes() if note.author is self.gitlab.bot)
        return [note for note in ours if parse_marker(note.body)]

    @property
    def summaries(self) -> list[str]:
        return [note.body for note in self.merge.all_notes() if note.body.rstrip().endswith(SUMMARY_MARKER)]

    @property
    def statuses(self) -> list[str]:
        return [status.state for status in self.project.statuses]

    @property
    def wrote(self) -> list[str]:
        """All that was asked of GitLab and is no reading."""
        return [f"{request.method} {request.path}" for request in self.gitlab.requests if request.method != "GET"]

    def policy(self, text: str) -> None:
        self.project.push("main", {".apprentice.yml": text})

    def push(self, text: str = PAY.replace("send", "give"), path: str = "pay.py") -> None:
        self.project.push("pay", {path: text})

    def claim(self, *, full: bool = False, asked: bool = False) -> Claim:
        """Its turn has come."""
        self.store.ask(Due(self.ref, now(), "a test", full=full, asked=asked))
        claim = self.store.claim(self.ref, now())
        assert claim is not None
        return claim

    def ready(self, claim: Claim, tries: int = 0) -> Ready:
        """The first step, which must come to something."""
        ready = self.steps.ask(claim, tries)
        assert isinstance(ready, Ready), ready
        return ready

    def review(self, *, full: bool = False, asked: bool = False) -> End | None:
        """One whole review; None: it was posted. It waits for nothing."""
        claim = self.claim(full=full, asked=asked)
        ready = self.steps.ask(claim, 0)
        end: Done | Wait | End | Ready = ready
        if isinstance(ready, Ready):
            end = self.steps.post(claim, ready)
        if isinstance(ready, Ready) and isinstance(end, Done):
            after = (self.steps.resolve_outdated, self.steps.summarise, self.steps.seed, self.steps.gate)
            for step in after:
                assert step(claim, ready) == Done()
        assert not isinstance(end, Wait), end
        found = end if isinstance(end, End) else None
        self.steps.close(claim, found.state if found else ReviewState.POSTED, found.why if found else "")
        if isinstance(ready, Ready) and found is None:
            self.steps.shadow(claim, ready)
        return found


@contextmanager
def bot_world(folder: Path, answer: Callable[[Request], Said] = careful) -> Iterator[BotWorld]:
    """A merge request that nobody has reviewed yet."""
    with fake_gitlab.serve() as gitlab, fake_student.serve(answer) as student:
        project = gitlab.project("team/tools/shop")
        alice = project.add_member("alice")
        project.push("main", {"README.md": "A shop.\n"})
        project.push("pay", {"pay.py": PAY}, user=alice)
        merge = project.open_merge_request("pay", title="Pay by query", author=alice)
        chosen = Settings(student_url=student.url, student_retries=0, data_dir=folder, state_dir=folder / "state")
        store = Store(f"sqlite:///{folder / 'bot.sqlite'}")
        store.migrate()
        forge = GitLabForge(gitlab.url, gitlab.bot_token, timeout_seconds=5)
        metrics = Metrics()
        steps, talk = MergeReview(forge, store, chosen), Conversation(forge, store, SALT, metrics)
        try:
            yield BotWorld(gitlab, project, merge, alice, student, forge, store, steps, talk, metrics)
        finally:
            forge.close()
            store.close()
