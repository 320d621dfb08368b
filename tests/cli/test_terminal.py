from __future__ import annotations

import re

import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.cli.terminal import describe_signature, qr_code
from handclasp.protocols.wallet import SigningRequest

LIGHT_ABOVE, LIGHT_BELOW = "█▀", "█▄"


def test_the_printed_qr_code_has_the_modules_of_the_invitation() -> None:
    uri = "handclasp:1?service=wss://signal.example&secret=AAECAwQFBgcICQoLDA0ODw"
    expected = [
        [bool(dark) for dark in row]
        for row in segno.make(uri, error="l", micro=False, boost_error=False).matrix_iter(border=4)
    ]
    printed: list[list[bool]] = []
    for line in qr_code(uri).split("\n"):
        blocks = re.sub(r"\[[^\]]*\]", "", line)
        printed += [[c not in LIGHT_ABOVE for c in blocks], [c not in LIGHT_BELOW for c in blocks]]
    assert printed[: len(expected)] == expected


@given(st.text())
@settings(max_examples=200)
def test_what_a_website_wants_signed_cannot_move_the_cursor_or_forge_markup(text: str) -> None:
    from rich.console import Console

    request = SigningRequest("https://shop.example", "eip155:1", "personal_sign", "0x00", text, lambda: "")
    console = Console(width=10_000, emoji=False)
    with console.capture() as capture:
        console.print(describe_signature(request), highlight=False, soft_wrap=True)
    printed = capture.get()
    assert all(character.isprintable() or character == "\n" for character in printed)
    if text.isprintable():
        assert text in printed
