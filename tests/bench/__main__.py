"""`make bench`: measured figures and ratios, side by side in one run. No test depends on them.

python -m tests.bench [--fast] [--reviews 1000]

--fast leaves out what needs a running vLLM, and the reviewers of others, which are installed first.
"""

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2

from bot import settings
from bot.answer import ANSWER_TOKENS, answer_schema
from bot.diff import parse
from bot.domain import Usage
from bot.git import LocalChange, patch_change
from bot.local.state import running
from bot.plan import Question, Room
from bot.policy import parse_policy
from bot.review import Prepared, Speaker, prepare, review
from bot.student import Student
from bot.tokens import token_counter
from tests.bench.reviews import bench_reviews
from tests.fakes.student import FINE, Said, serve

FILES, LINES = 20, 30
"""The change of the overhead bench: 20 files, 600 changed lines."""


def say(name: str, figure: str, goal: str = "") -> None:
    """Print one figure."""
    print(f"{name:<62} {figure:>22}  {goal}", flush=True)


def sample_patch(files: int, lines: int, salt: str = "") -> bytes:
    """A patch of new functions in Python, with realistic line lengths."""
    parts = []
    for number in range(files):
        body = []
        for line in range(lines):
            if line % 10 == 0:
                body.append(f"def step_{salt}{number}_{line}(order, stock, *, limit=10):")
            else:
                body.append(f"    stock['{salt}part-{line}'] = min(order.count_{line} * {line}, limit)")
        path = f"shop/module_{number}.py"
        parts += [f"diff --git a/{path} b/{path}", "new file mode 100644", "--- /dev/null", f"+++ b/{path}"]
        parts += [f"@@ -0,0 +1,{lines} @@", *(f"+{line}" for line in body)]
    return ("\n".join(parts) + "\n").encode()


def timed(run: Callable[[], object], times: int) -> float:
    """Median seconds of several runs after one that is not counted."""
    run()
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def command(*arguments: str, patch: bytes = b"", **environment: str) -> Callable[[], object]:
    """A whole `apprentice` process as a user starts it, in an empty folder."""
    folder = tempfile.mkdtemp(prefix="apprentice-bench-")
    known = {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}

    def run() -> None:
        subprocess.run(
            [str(Path(sys.executable).parent / "apprentice"), *arguments],
            input=patch,
            cwd=folder,
            env=known | environment,
            check=True,
            capture_output=True,
        )

    return run


def bench_overhead() -> None:
    """Start-up, and what the bot itself costs beside the student."""
    python = timed(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), 5)
    start = timed(command("--help"), 7)
    say("start-up: apprentice --help (median of 7)", f"{start:.2f} s", f"goal <= 0.5 s; python alone {python:.2f} s")
    patch = sample_patch(FILES, LINES)
    with serve(lambda _: Said(FINE)) as student:
        whole = timed(
            command("review", "--patch", "-", "--format", "json", patch=patch, APPRENTICE_STUDENT_URL=student.url), 5
        )
        requests = len(student.requests) // 6
        running_process = timed(lambda: asyncio.run(_whole_review(patch, student.url)), 5)
    say(
        f"overhead: whole review, zero-latency student, {FILES} files, {FILES * LINES} lines",
        f"{whole:.2f} s",
        f"{requests} requests; less start-up {whole - start:.2f} s, goal <= 0.3 s",
    )
    say("overhead: the same review in a process that runs already", f"{running_process:.2f} s", "no imports")


async def _whole_review(patch: bytes, url: str) -> None:
    """What `apprentice review` does once it is loaded: parse, redact, plan, ask, judge."""
    with tempfile.TemporaryDirectory() as folder:
        change = patch_change(Path(folder), patch)
    policy = parse_policy("")
    async with Student(url) as student:
        base = await student.base()
        prepared = prepare(change, policy, Room(6_000, token_counter(None), 200))
        outcome = await review(prepared, policy, student, Speaker(base.id, None), concurrency=8, step=lambda *_: None)
        assert not outcome.errors, outcome.errors


def bench_parse() -> None:
    """How fast a diff is read."""
    text = sample_patch(1_000, 100).decode()
    seconds = timed(lambda: parse(text), 3)
    say("diff parse rate (100,000 lines in 1,000 files)", f"{100_000 / seconds:,.0f} lines/s")


def bench_ack(seconds: int) -> None:
    """How fast deliveries are acknowledged by a receiver that has nothing else to do: connections kept, and fresh."""
    for name, options in (("8 connections", []), ("8 connections, a fresh one for each delivery", ["--fresh"])):
        print(f"\nack, {name}, {seconds} s", flush=True)
        subprocess.run([sys.executable, "-m", "tests.bench.ack", "--seconds", str(seconds), *options], check=True)


# --- with vLLM ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of the requests: what it generated, in how long."""

    usage: Usage
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens read and written per second."""
        return (self.usage.prompt_tokens + self.usage.completion_tokens) / self.seconds


async def bench_vllm(rounds: int) -> None:
    """The same requests at the same concurrency: through a review, and sent bare. In turn, each time new ones."""
    chosen = settings.load({})
    here = running(chosen.state_dir)
    if here is None:
        say("tokens/s against bare vLLM", "left out", "no student is running: apprentice student start")
        return
    key = here.key or ""
    ours: list[Pass] = []
    bare: list[Pass] = []
    cached: list[float] = []
    async with Student(here.url, key=key, model=here.model, timeout_seconds=900) as student:
        context = (await student.base()).max_model_len or 4096
        room = Room(context - 2 * ANSWER_TOKENS, token_counter(here.tokenizer), chosen.max_requests)
        await _review(_change("warm", room), student, here.model)
        for number in range(rounds):
            before = await _cache_counters(here.url, key)
            ours.append(await _review(_change(f"a{number}", room), student, here.model))
            after = await _cache_counters(here.url, key)
            cached.append((after[0] - before[0]) / max(after[1] - before[1], 1))
            bare.append(await _bare(_change(f"b{number}", room), here.url, key, here.model))
    for name, passes in (("apprentice review", ours), ("bare vLLM", bare)):
        middle = statistics.median(one.rate for one in passes)
        generated = statistics.median(one.usage.completion_tokens / one.seconds for one in passes)
        say(f"{name} (median of {rounds})", f"{middle:,.0f} tokens/s", f"{generated:.1f} generated tokens/s")
    ratios = [one.rate / other.rate for one, other in zip(ours, bare, strict=True)]
    say(
        "ratio review / bare, pair by pair",
        f"{statistics.median(ratios):.2f}",
        f"goal >= 0.9; {min(ratios):.2f} to {max(ratios):.2f}; model {here.model}",
    )
    say("prefix-cache hit rate during a review (vLLM's metrics)", f"{statistics.median(cached):.0%}")


CONCURRENCY = 4


def _change(salt: str, room: Room) -> Prepared:
    """A change that no earlier pass has left in the prefix cache."""
    with tempfile.TemporaryDirectory() as folder:
        change: LocalChange = replace(patch_change(Path(folder), sample_patch(8, 20, salt)), title=f"Pass {salt}")
    return prepare(change, parse_policy(""), room)


async def _review(prepared: Prepared, student: Student, model: str) -> Pass:
    begun = time.perf_counter()
    outcome = await review(
        prepared,
        parse_policy(""),
        student,
        Speaker(model, None),
        concurrency=CONCURRENCY,
        step=lambda *_: None,
    )
    assert not outcome.errors, outcome.errors
    return Pass(outcome.review.usage, time.perf_counter() - begun)


async def _bare(prepared: Prepared, url: str, key: str, model: str) -> Pass:
    """The requests with nothing around them: no openai client, no parsing, no triage."""
    gate = asyncio.Semaphore(CONCURRENCY)
    usages: list[Usage] = []
    async with httpx2.AsyncClient(timeout=900, headers={"authorization": f"Bearer {key}"}) as client:

        async def one(question: Question) -> None:
            body = {
                "model": model,
                "messages": question.messages,
                "max_tokens": ANSWER_TOKENS,
                "temperature": 0,
                "seed": 0,
                "logprobs": True,
                "top_logprobs": 20,
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": answer_schema(question.part.places)},
                },
            }
            async with gate:
                response = await client.post(f"{url}/chat/completions", json=body)
            told = response.raise_for_status().json()["usage"]
            usages.append(Usage(1, told["prompt_tokens"], 0, told["completion_tokens"]))

        begun = time.perf_counter()
        await asyncio.gather(*(one(question) for question in prepared.plan.questions))
        return Pass(sum(usages, Usage()), time.perf_counter() - begun)


async def _cache_counters(url: str, key: str) -> tuple[float, float]:
    async with httpx2.AsyncClient(headers={"authorization": f"Bearer {key}"}) as client:
        text = (await client.get(url.removesuffix("/v1") + "/metrics")).text
    found = [
        sum(
            float(value)
            for value in re.findall(rf"^vllm:prefix_cache_{name}_total{{[^}}]*}} (\S+)$", text, re.MULTILINE)
        )
        for name in ("hits", "queries")
    ]
    return found[0], found[1]


def main() -> None:
    """Run the benches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="leave out vLLM and the reviewers of others")
    parser.add_argument("--merges", type=int, default=20, help="merge requests reviewed one by one")
    parser.add_argument("--reviews", type=int, default=200, help="merge requests reviewed at once, for the memory")
    parser.add_argument("--ack-seconds", type=int, default=5, help="how long deliveries are sent")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of passes with vLLM")
    arguments = parser.parse_args()
    bench_overhead()
    bench_parse()
    bench_ack(arguments.ack_seconds)
    print()
    bench_reviews(merges=arguments.merges, reviews=arguments.reviews, peers=not arguments.fast)
    print()
    if not arguments.fast:
        asyncio.run(bench_vllm(arguments.rounds))


if __name__ == "__main__":
    main()
