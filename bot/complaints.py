"""Say in the log what goes wrong again and again, but the same words only once."""

import structlog

log = structlog.get_logger()


class Complaints:
    """What was complained about, by task."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def failed(self, task: str, why: object) -> None:
        """A task failed."""
        words = str(why)
        if self._said.get(task) != words:
            log.warning("clerk", task=task, error=words)
        self._said[task] = words

    def worked(self, task: str) -> None:
        """A task was done."""
        if self._said.pop(task, None):
            log.info("clerk", task=task, outcome="works again")
