"""Reads Graph's answers: bounded, whatever comes; the error's code and words, or what came instead of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import aiohttp

from relay.deliver.classify import CONTROLS, LONGEST_TEXT
from relay.deliver.graph.contract import Answer
from relay.deliver.login import without_token
from relay.tokens.contract import Token

LONGEST_ERROR = 64 * 1024
LONGEST_ANSWER = 8 * 1024 * 1024
"""Octets read of a refusal, and of a success (a draft comes back with its body, which may be 4 MB)."""
LONGEST_CODE = 100
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_BLANKS = re.compile(r"\s+")


async def read_answer(
    response: aiohttp.ClientResponse, progress: Callable[[], None], token: Token | None, mailbox: str
) -> Answer:
    """The answer, with at most so many octets of it in memory; what is longer is cut off and the connection ended."""
    bound = LONGEST_ANSWER if response.status < 300 else LONGEST_ERROR
    octets = bytearray()
    async for piece in response.content.iter_any():
        octets += piece
        progress()
        if len(octets) > bound:
            response.close()
            break
    content = _object(bytes(octets[:bound]))
    if response.status < 300:
        return Answer(response.status, response.headers, content=content)
    code, text = words_of(content, bytes(octets[:bound]))
    if token is not None:
        text = without_token(text, mailbox, token.value)
    return Answer(response.status, response.headers, code, text)


def words_of(content: dict[str, Any], octets: bytes) -> tuple[str, str]:
    """``error.code`` and ``error.message``; without them no code, and the plain text of whatever came."""
    error = content.get("error")
    if isinstance(error, dict):
        return _flat(str(error.get("code") or ""))[:LONGEST_CODE], _flat(str(error.get("message") or ""))
    return "", _flat(_TAG.sub(" ", octets[:16384].decode("utf-8", "replace")))


def _object(octets: bytes) -> dict[str, Any]:
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(text: str) -> str:
    return _BLANKS.sub(" ", CONTROLS.sub(" ", text)).strip()[:LONGEST_TEXT]
