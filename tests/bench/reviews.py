"""What a review costs: how soon its first comment stands, what it asks of GitLab, how much memory it leaves behind.

python -m tests.bench.reviews [--merges 20] [--reviews 200] [--peers]

The reviewer runs as a process of its own, over TLS, against the GitLab stand-in and a student that answers at once.
Every merge request adds one file with one defect, which the student finds.
"""

import argparse
import asyncio
import contextlib
import json
import re
import ssl
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import platformdirs
import psutil
import trustme

from tests.bench import routes  # noqa: F401 -- declares what only the others ask for
from tests.bench.peers import (
    SECRET,
    Reviewer,
    Surroundings,
    UnavailableError,
    clean_environment,
    ours,
    pr_agent,
    prxref,
)
from tests.fakes import gitlab as fake_gitlab
from tests.fakes import student as fake_student
from tests.fakes.gitlab import GitLab, MergeRequest, Project, User
from tests.fakes.student import FINE, FakeStudent, Request, Said, suspect

START_SECONDS = 120
REVIEW_SECONDS = 60
QUIET_SECONDS = 1.0
AT_ONCE = 8
WARM_UP = 20
CHATTER_SECONDS = 0.1
DEFECT_LINE, DEFECT = 3, "    query(f'insert into orders values ({cents})')  # BUG"
_FILE = re.compile(r"src/pay_\d+\.py")

PR_AGENT_SAYS = """```yaml
review:
  estimated_effort_to_review_[1-5]: 1
  relevant_tests: |
    No
  key_issues_to_review:
    - relevant_file: |
        {path}
      issue_header: |
        Injection
      issue_content: |
        The value is formatted into the query.
      start_line: {line}
      end_line: {line}
  security_concerns: |
    No
```"""


def answer(request: Request) -> Said:
    """Find the defect of the merge request, in the form that the reviewer asks for."""
    asked = str(request["messages"])
    named = _FILE.search(asked)
    path = named[0] if named else "src/pay.py"
    if "key_issues_to_review" in asked:  # PR-Agent
        return Said(PR_AGENT_SAYS.format(path=path, line=DEFECT_LINE))
    if '"findings"' in asked:  # prxref
        found = {"file": path, "line": DEFECT_LINE, "severity": "error", "confidence": 0.9}
        words = {"title": "Bind the value", "body": "cents is formatted into the query on this line."}
        return Said(json.dumps({"findings": [found | words], "escalations": []}))
    if "BUG" not in asked:
        return Said(FINE)
    return Said(suspect(line=DEFECT_LINE, quote=DEFECT.strip(), severity="major", title="Injection"))


# --- the place


@contextlib.contextmanager
def tls(port: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Put TLS before a port of this machine (one of the reviewers speaks nothing else); gives address and authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    address: list[str] = []
    loop, begun = asyncio.new_event_loop(), threading.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError, ssl.SSLError):
            writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def run() -> None:
        server = await asyncio.start_server(connect, "127.0.0.1", 0, ssl=context)
        address.append(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        begun.set()

    def serve() -> None:
        loop.run_until_complete(run())
        loop.run_forever()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    begun.wait()
    yield address[0], ca_file
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@dataclass
class Bench:
    """A reviewer that runs, and what is around it."""

    gitlab: GitLab
    project: Project
    student: FakeStudent
    process: psutil.Process
    people: tuple[User, User]
    number: int = 0
    acks: dict[int, float] = field(default_factory=dict)

    @property
    def memory(self) -> float:
        """MB of the reviewer's processes now."""
        everyone = [self.process, *self.process.children(recursive=True)]
        return sum(one.memory_info().rss for one in everyone) / 1e6

    @property
    def cpu(self) -> float:
        """CPU seconds of the reviewer so far: on a shared machine this says more than the clock."""
        times = self.process.cpu_times()
        return times.user + times.system

    def open(self) -> MergeRequest:
        """Open the next merge request."""
        self.number += 1
        branch = f"pay-{self.number}"
        body = "\n".join(
            ("import db", f"def pay_{self.number}(cents):", DEFECT, "    db.send(cents)", "    return cents")
        )
        self.project.push(branch, {f"src/pay_{self.number}.py": body + "\n"}, user=self.people[0])
        return self.project.open_merge_request(branch, title=f"Pay {self.number}", author=self.people[0])

    def first_comment(self, merge: MergeRequest) -> float | None:
        """Seconds from the merge request to the reviewer's first comment at a line."""
        with self.gitlab.lock:
            notes = [note for note in merge.all_notes() if note.author is self.gitlab.bot and note.position]
            return (min(note.created_at for note in notes) - merge.created_at).total_seconds() if notes else None

    def wait_for(self, merge: MergeRequest) -> float:
        """Wait for that comment."""
        deadline = time.monotonic() + REVIEW_SECONDS
        while (seconds := self.first_comment(merge)) is None:
            if time.monotonic() > deadline:
                raise UnavailableError(f"no comment at a line within {REVIEW_SECONDS} s")
            if not self.process.is_running() or self.process.status() == psutil.STATUS_ZOMBIE:
                raise UnavailableError("its server ended")
            time.sleep(0.01)
        return seconds

    def settle(self) -> None:
        """Wait until the reviewer asks for nothing more."""
        self.gitlab.settle(60)
        last, since = -1, time.monotonic()
        while time.monotonic() - since < QUIET_SECONDS:
            count = self.gitlab.count(user=self.gitlab.bot.username)
            if count != last:
                last, since = count, time.monotonic()
            time.sleep(0.05)

    def note_acks(self) -> None:
        """Keep how long the reviewer took to take each delivery: the stand-in remembers the newest only."""
        for hook in self.project.hooks:
            for delivery in list(hook.deliveries):
                if delivery.status is not None and delivery.status < httpx2.codes.BAD_REQUEST:
                    self.acks[delivery.id] = delivery.seconds


@contextlib.contextmanager
def bench(reviewer: Reviewer) -> Iterator[Bench]:
    """Run a reviewer with a GitLab and a student."""
    with (
        tempfile.TemporaryDirectory(prefix="apprentice-bench-", ignore_cleanup_errors=True) as name,
        fake_gitlab.serve() as gitlab,
        fake_student.serve(answer) as student,
        tls(int(gitlab.address.rpartition(":")[2]), Path(name)) as (address, ca_file),
    ):
        gitlab.settings.external_url = address
        project = gitlab.project("team/shop")
        people = project.add_member("dana"), project.add_member("erik")
        project.push("main", {"README.md": "A shop.\n"}, user=people[0])
        port = _free_port()
        here = Surroundings(address, ca_file, gitlab.bot_token, student.url, Path(name), port)
        with (Path(name) / "log").open("wb") as log:
            process = subprocess.Popen(
                reviewer.command(here),
                env={**clean_environment(), **reviewer.environment(here)},
                cwd=name,
                stdout=log,
                stderr=log,
            )
        try:
            _await_ready(f"http://127.0.0.1:{port}{reviewer.ready}", process)
            project.add_hook(f"http://127.0.0.1:{port}/webhook", token=SECRET)
            yield Bench(gitlab, project, student, psutil.Process(process.pid), people)
        except UnavailableError as error:
            tail = (Path(name) / "log").read_text("utf-8", "replace").splitlines()[-5:]
            raise UnavailableError("\n".join((str(error), *tail))) from None
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(url, timeout=2, trust_env=False).is_success:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise UnavailableError("its server does not start")
        time.sleep(0.1)


def _free_port() -> int:
    from tests.conftest import free_port  # noqa: PLC0415 -- it loads pytest, which takes a while

    return free_port()


# --- the figures


@dataclass(frozen=True, slots=True)
class Figures:
    """What a reviewer needed.

    Args:
        name: of the reviewer; `note`: how it was set up.
        first: seconds from each merge request's opening to its first comment.
        requests: to GitLab for one merge request, by method (the median of each).
        questions: to the student, and `mails` to people, for one merge request.
        idle, warm, after: MB when it had started, after some reviews, and after all.
        reviews: how many there were after it was warm; `seconds`: how long they took, `cpu` seconds of it computing.
        acks: seconds of each delivery's answer while they ran.
    """

    name: str
    note: str
    first: tuple[float, ...]
    requests: dict[str, float]
    questions: float
    mails: float
    idle: float
    warm: float
    after: float
    reviews: int
    seconds: float
    cpu: float
    acks: tuple[float, ...]

    @property
    def reads(self) -> float:
        return self.requests.get("GET", 0) + self.requests.get("HEAD", 0)

    @property
    def writes(self) -> float:
        return sum(self.requests.values()) - self.reads


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them is."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def measure(reviewer: Reviewer, *, merges: int, reviews: int) -> Figures:
    """Take all figures of one reviewer.

    Raises:
        UnavailableError: it does not review here.
    """
    with bench(reviewer) as here:
        idle = here.memory
        here.wait_for(here.open())  # not counted: it loads, and learns who it is
        here.settle()
        first, requests, questions, mails = [], [], [], []
        for _ in range(merges):
            seen, asked, mailed = len(here.gitlab.requests), len(here.student.requests), len(here.gitlab.notifications)
            first.append(here.wait_for(here.open()))
            here.settle()
            mine = [one for one in here.gitlab.requests[seen:] if one.user == here.gitlab.bot.username]
            requests.append(Counter(one.method for one in mine))
            questions.append(len(here.student.requests) - asked)
            mails.append(len(here.gitlab.notifications) - mailed)
        methods = sorted({method for one in requests for method in one})
        many(here, max(0, WARM_UP - merges))
        warm, cpu, begun = here.memory, here.cpu, time.perf_counter()
        here.acks.clear()
        many(here, reviews, chatter=True)
        seconds = time.perf_counter() - begun
        here.settle()
        return Figures(
            name=reviewer.name,
            note=reviewer.note,
            first=tuple(first),
            requests={method: statistics.median(one[method] for one in requests) for method in methods},
            questions=statistics.median(questions),
            mails=statistics.median(mails),
            idle=idle,
            warm=warm,
            after=here.memory,
            reviews=reviews,
            seconds=seconds,
            cpu=here.cpu - cpu,
            acks=tuple(here.acks.values()),
        )


def many(here: Bench, count: int, *, chatter: bool = False) -> None:
    """So many reviews, several at once; with people who talk meanwhile where `chatter` says so."""
    open_now: list[MergeRequest] = []
    left = count
    deadline = time.monotonic() + REVIEW_SECONDS
    said = time.monotonic()
    while left or open_now:
        while left and len(open_now) < AT_ONCE:
            open_now.append(here.open())
            left -= 1
        waiting = [merge for merge in open_now if here.first_comment(merge) is None]
        if len(waiting) < len(open_now):
            deadline = time.monotonic() + REVIEW_SECONDS
        elif time.monotonic() > deadline:
            raise UnavailableError(f"{len(waiting)} merge requests without a comment for {REVIEW_SECONDS} s")
        open_now = waiting
        if chatter and waiting and time.monotonic() - said > CHATTER_SECONDS:
            waiting[0].comment(here.people[1], "How is it going?")
            said = time.monotonic()
        here.note_acks()
        time.sleep(0.02)


def show(all_figures: Sequence[Figures]) -> None:
    """Print the figures side by side; those of the others with their ratio to ours."""
    print(f"{'':<46}" + "".join(f"{one.name:>22}" for one in all_figures))

    def row(name: str, values: Sequence[float], form: str, goal: str = "") -> None:
        cells = [f"{values[0]:{form}}"]
        cells += [
            f"{value:{form}} ({value / values[0]:.1f}x)" if values[0] else f"{value:{form}}" for value in values[1:]
        ]
        print(f"{name:<46}" + "".join(f"{cell:>22}" for cell in cells) + (f"  {goal}" if goal else ""))

    row("event -> first comment, p50 s", [percentile(one.first, 0.5) for one in all_figures], ".2f", "goal <= 0.5")
    row("event -> first comment, p95 s", [percentile(one.first, 0.95) for one in all_figures], ".2f")
    row("GitLab reads a merge request of one file", [one.reads for one in all_figures], ".0f", "goal <= 6")
    row("GitLab writes", [one.writes for one in all_figures], ".0f")
    row("questions to the student", [one.questions for one in all_figures], ".0f")
    row("e-mails to each person", [one.mails for one in all_figures], ".0f")
    row("memory when started, MB", [one.idle for one in all_figures], ".0f")
    row(f"memory after {WARM_UP} reviews, MB", [one.warm for one in all_figures], ".0f")
    row("memory after all, MB", [one.after for one in all_figures], ".0f")
    row("grown by, kB a review", [(one.after - one.warm) * 1000 / one.reviews for one in all_figures], ".0f")
    row(f"reviews a minute, {AT_ONCE} at once", [one.reviews * 60 / one.seconds for one in all_figures], ".0f")
    row("CPU ms a review, of the reviewer", [one.cpu * 1000 / one.reviews for one in all_figures], ".0f")
    for share in (0.5, 0.95, 0.99):
        goal = "goal < 100" if share == 0.99 else ""
        values = [percentile(one.acks, share) * 1000 for one in all_figures]
        row(f"ack while reviews run, p{share * 100:.0f} ms", values, ".1f", goal)
    for one in all_figures:
        methods = ", ".join(f"{count:g} {method}" for method, count in one.requests.items())
        print(f"{one.name}: {len(one.first)} merge requests one by one ({methods} each), then {one.reviews} at once"
              f" with {len(one.acks)} deliveries{f'; {one.note}' if one.note else ''}")  # fmt: skip


def bench_reviews(*, merges: int, reviews: int, peers: bool) -> None:
    """Measure the bot, and the others beside it where they can be had."""
    figures = [measure(ours(), merges=merges, reviews=reviews)]
    cache = platformdirs.user_cache_path("apprentice") / "bench"
    missing = []
    for make in (pr_agent, prxref) if peers else ():
        try:
            figures.append(measure(make(cache), merges=merges, reviews=min(reviews, 50)))
        except UnavailableError as error:
            missing.append(f"{make.__name__} is left out: {error}")
    show(figures)
    print(*missing, sep="\n", end="\n" if missing else "", flush=True)


def main() -> None:
    """Run it by itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--merges", type=int, default=20, help="merge requests one by one")
    parser.add_argument("--reviews", type=int, default=200, help="merge requests at once")
    parser.add_argument("--peers", action="store_true", help="PR-Agent and prxref beside it")
    chosen = parser.parse_args()
    bench_reviews(merges=chosen.merges, reviews=chosen.reviews, peers=chosen.peers)


if __name__ == "__main__":
    main()
