"""JSON from strangers: UTF-8, and no deeper than anything that is meant.

The standard decoder calls itself for each level until Python's recursion limit, which others share: whatever
runs there meanwhile, a finalizer for example, fails for want of a stack. And where something has raised the
limit, 90 KB of ``[`` end the process.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

#: Objects and lists within each other. Typed data (EIP-712) goes deepest, with 10 in what is really signed.
MAX_DEPTH = 64

_TEXT_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def parse_json_untrusted(text: str | bytes) -> object:
    """The value that *text* is.

    Raises:
        ValueError: not JSON (RFC 8259, so no NaN), not UTF-8, or deeper than `MAX_DEPTH`.
    """
    if isinstance(text, bytes):
        text = text.decode()  # json would guess at UTF-16
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise ValueError(f"JSON is nested more than {MAX_DEPTH} levels deep")
    value: object = _DECODER.decode(text)
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _depth(text: str) -> int:
    """How deep it goes; up to the place where it stops being JSON, this is what a decoder finds."""
    depth = deepest = 0
    for found in _TEXT_OR_BRACKET.finditer(text):
        first = found[0][0]
        if first in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif first in "]}":
            depth -= 1
    return deepest
