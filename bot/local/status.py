"""What `apprentice student status` prints, for people and for scripts."""

import json
from dataclasses import dataclass

from bot.local.state import RunningStudent


@dataclass(frozen=True, slots=True)
class Status:
    """What `apprentice student status` shows; `state` is `not running` or the supervisor's phase."""

    state: str
    student: RunningStudent | None = None
    adapters: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    restarts: int = 0
    seconds: float = 0.0
    memory: int = 0  # bytes, of all its processes


def as_json(found: Status) -> str:
    """The status for scripts."""
    student = found.student
    return json.dumps(
        {
            "state": found.state,
            "url": student and student.url,
            "model": student and student.model,
            "model_path": student and str(student.model_path),
            "base_sha256": student and student.base_sha256,
            "context": student and student.context,
            "adapters": list(found.adapters),
            "problems": list(found.problems),
            "port": student and student.port,
            "pid": student and student.pid,
            "uptime_seconds": round(found.seconds, 1),
            "restarts": found.restarts,
            "memory_bytes": found.memory,
            "log": student and str(student.log),
            "key_file": student and str(student.key_file),
        },
        indent=2,
    )


def described(found: Status) -> str:
    """The status as a person reads it."""
    student = found.student
    if student is None:
        return "No student is running. Start one: apprentice student start"
    minutes, seconds = divmod(int(found.seconds), 60)
    rows = {
        "student": found.state,
        "model": f"{student.model} ({student.model_path})",
        "adapters": ", ".join(found.adapters) or "none",
        "address": student.url,
        "process": f"{student.pid}, up {minutes // 60} h {minutes % 60} min {seconds} s",
        "restarts": str(found.restarts),
        "memory": f"{found.memory / 1e9:.1f} GB",
        "log": str(student.log),
    }
    lines = [f"{name:<9} {text}" for name, text in rows.items()]
    return "\n".join([*lines, *found.problems])
