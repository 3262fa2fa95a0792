"""Read the parameters of forms as Rails does, into nested tables and lists."""

import re
from email.parser import BytesParser
from itertools import pairwise

from tests.fakes.gitlab.model import JSON


def flat(pairs: list[tuple[str, str]]) -> JSON:
    """`a[b][c]=1&d[]=2` as nested tables and lists, as Rails reads it."""
    values: JSON = {}
    for key, value in pairs:
        names = re.findall(r"[^\[\]]+|(?<=\[)(?=\])", key) or [key]
        spot = values
        for name, following in pairwise([*names, None]):
            if following is None:
                spot[name] = value
            elif following == "":
                listed = spot.setdefault(name, [])
                if isinstance(listed, list):
                    listed.append(value)
                break
            else:
                inner = spot.setdefault(name, {})
                spot = inner if isinstance(inner, dict) else {}
    return values


def parts(kind: str, given: bytes) -> list[tuple[str, str]]:
    """The fields of a multipart form; files are not expected."""
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + given)
    pairs = []
    for part in message.walk():
        name, data = part.get_param("name", header="Content-Disposition"), part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(data, bytes):
            pairs.append((name, data.decode(errors="replace")))
    return pairs
