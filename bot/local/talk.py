"""HTTP to the student on this machine, past any proxy: health, adapters, plain requests."""

import http.client
import json
from pathlib import Path

from pydantic import BaseModel

from bot.local.command import HOST


class AdapterRefusedError(RuntimeError):
    """VLLM did not load an adapter; the message is its own."""


class Model(BaseModel):
    """One entry of vLLM's model list; a base has no parent."""

    id: str
    parent: str | None = None


class ModelList(BaseModel):
    """vLLM's answer to GET /v1/models."""

    data: tuple[Model, ...]


def healthy(port: int) -> bool:
    """Whether the server answers."""
    try:
        return request(port, "GET", "/health", seconds=5)[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def load_adapter(port: int, key: str, name: str, path: Path) -> None:
    """Load an adapter into the server. Raises AdapterRefusedError with the server's words."""
    body = {"lora_name": name, "lora_path": str(path)}
    status, text = request(port, "POST", "/v1/load_lora_adapter", key=key, body=body, seconds=120)
    if status != http.HTTPStatus.OK:
        raise AdapterRefusedError(text.strip() or f"HTTP {status}")


def request(
    port: int, method: str, path: str, *, seconds: float, key: str = "", body: dict[str, str] | None = None
) -> tuple[int, str]:
    """One request to the student on this machine, past any proxy; status and text."""
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    finally:
        connection.close()


def adapters_of(port: int, key: str) -> tuple[str, ...]:
    """The adapters that it has loaded; none where it does not answer."""
    try:
        _, text = request(port, "GET", "/v1/models", key=key, seconds=10)
        return tuple(model.id for model in ModelList.model_validate_json(text).data if model.parent)
    except (OSError, http.client.HTTPException, ValueError):
        return ()
