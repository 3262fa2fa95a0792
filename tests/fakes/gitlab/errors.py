"""What the API refuses, as an exception with the answer's status and body."""


class Refused(Exception):  # noqa: N818 -- it is an answer
    """An answer of 4xx. `body` is sent as JSON."""

    def __init__(self, status: int, body: dict[str, object], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body, self.headers = status, body, headers or {}


def bad_request(message: str) -> Refused:
    return Refused(400, {"message": f"400 Bad request - {message}"})


def invalid(parameter: str, reason: str) -> Refused:
    """A parameter that is missing or of the wrong kind."""
    return Refused(400, {"error": f"{parameter} {reason}"})


def forbidden() -> Refused:
    return Refused(403, {"message": "403 Forbidden"})


def not_found(what: str = "") -> Refused:
    return Refused(404, {"message": f"404 {what} Not Found" if what else "404 Not found"})
