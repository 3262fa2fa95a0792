"""The whole way with a real vLLM: review, base against adapter, and vLLM killed in the middle of a review."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bot.answer import SEVERITY_LABELS, answer_schema
from bot.diff import parse
from bot.local import server
from bot.local.state import RunningStudent, running
from bot.prompt import Brief, Part, review_messages
from bot.student import Reply, Student

pytestmark = pytest.mark.vllm

PATCH = (
    "--- a/pay.py\n+++ b/pay.py\n@@ -1,2 +1,3 @@\n def pay(cents):\n+    query(f'insert {cents}')\n     send(cents)\n"
)


def command(student: RunningStudent, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APPRENTICE_")}
    environment["APPRENTICE_STATE_DIR"] = str(student.log.parent)
    return [sys.executable, "-m", "bot", "review", "--patch", "-", "--format", "json", *arguments], environment


def review(student: RunningStudent, patch: str, folder: Path, *arguments: str) -> tuple[int, dict[str, object], str]:
    line, environment = command(student, *arguments)
    done = subprocess.run(line, input=patch.encode(), env=environment, cwd=folder, capture_output=True, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr.decode()


def requests_served(student: RunningStudent) -> int:
    return len(re.findall(r"POST /v1/chat/completions HTTP/1.1\" 200", student.log.read_text()))


def test_a_change_is_reviewed_by_vllm_and_its_access_log_says_so(vllm_student: RunningStudent, tmp_path: Path) -> None:
    before = requests_served(vllm_student)
    code, document, errors = review(vllm_student, PATCH, tmp_path)
    assert (code, errors) == (0, "")
    assert document["read"] == ["pay.py"]
    assert document["model"] == vllm_student.model
    usage = document["usage"]
    assert isinstance(usage, dict)
    assert requests_served(vllm_student) - before == usage["requests"] >= 1
    assert usage["prompt_tokens"] > 100
    assert usage["completion_tokens"] > 20
    for finding in document["findings"]:  # type: ignore[attr-defined]
        assert finding["line"] == 2
        assert finding["quote"].strip() == "query(f'insert {cents}')"
        assert 0 <= finding["confidence"] <= 1


async def ask(student: RunningStudent, adapter: str | None) -> Reply:
    (file,) = parse(PATCH)
    part = Part(file.path, file.hunks[0].lines)
    async with Student(student.url, key=student.key, model=student.model, adapter=adapter) as client:
        return await client.ask(review_messages(part, Brief()), schema=answer_schema(part.places), max_tokens=300)


def test_base_and_adapter_answer_differently_through_the_same_client(
    vllm_student: RunningStudent, tiny_adapter: Path
) -> None:
    async def go() -> tuple[Reply, Reply, Reply, bool]:
        before = await ask(vllm_student, None)
        async with Student(vllm_student.url, key=vllm_student.key, model=vllm_student.model) as client:
            if "tiny-hot" not in {model.id for model in await client.models()}:
                await client.load_adapter("tiny-hot", tiny_adapter)
            listed = {model.id: model.parent for model in await client.models()}
            adapted = await ask(vllm_student, "tiny-hot")
            after = await ask(vllm_student, None)
            await client.unload_adapter("tiny-hot")
        return before, adapted, after, listed["tiny-hot"] == vllm_student.model

    before, adapted, after, has_parent = asyncio.run(go())
    assert has_parent
    assert adapted.text != before.text
    assert after.text == before.text
    for reply in (before, adapted):  # the grammar holds whoever answers
        document = json.loads(reply.text) if reply.finish_reason == "stop" else {"severity": "none"}
        assert document["severity"] in SEVERITY_LABELS
        assert reply.logprobs


def test_a_review_by_an_adapter_names_it_and_an_unknown_one_is_refused(
    vllm_student: RunningStudent, tiny_adapter: Path, tmp_path: Path
) -> None:
    server.add_adapters(vllm_student, vllm_student.log.parent, {"tiny": tiny_adapter})
    _, document, _ = review(vllm_student, PATCH, tmp_path, "--adapter", "tiny")
    assert document["adapter"] == "tiny"
    code, document, errors = review(vllm_student, PATCH, tmp_path, "--adapter", "nobody")
    assert code == 3
    assert "nobody" in errors
    assert document["read"] == []


def test_vllm_killed_in_the_middle_of_a_review(vllm_student: RunningStudent, tmp_path: Path) -> None:
    count = 60
    patch = "".join(f"--- a/f{n}.py\n+++ b/f{n}.py\n@@ -0,0 +1 @@\n+value_{n} = {n}\n" for n in range(count))
    state_dir, before = vllm_student.log.parent, requests_served(vllm_student)
    now = running(state_dir)  # its supervisor is another one since a test stopped and started it
    assert now is not None
    line, environment = command(vllm_student)
    reviewing = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=tmp_path
    )

    def kill() -> None:
        while requests_served(vllm_student) < before + 3 and reviewing.poll() is None:
            time.sleep(0.05)
        for process in psutil.Process(now.pid).children(recursive=True):
            process.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    out, err = reviewing.communicate(patch.encode(), timeout=300)
    killer.join()
    document = json.loads(out)
    assert reviewing.returncode == 3
    assert b"Traceback" not in err
    assert b"error:" in err
    assert document["read"]  # what there was before is kept
    assert document["not_read"]
    assert len(document["read"]) + len(document["not_read"]) == count
    deadline = time.monotonic() + 300
    while server.status(state_dir).state != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.5)
