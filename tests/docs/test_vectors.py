"""The vectors in the protocol pages are what the code computes."""

from __future__ import annotations

import re
from pathlib import Path

from handclasp import Identity, Invitation
from handclasp.abc import PeerRecord
from handclasp.discovery.records import SignedRecord, hash_topic
from handclasp.discovery.signaling.answers import encode

PROTOCOLS = Path(__file__).parents[2] / "docs" / "protocols"


def row(page: str, what: str) -> str:
    found = re.search(
        rf"^\| {re.escape(what)} \| `([^`]+)` \|$", (PROTOCOLS / page).read_text(), re.MULTILINE
    )
    assert found is not None, f"{page} has no row {what!r}"
    return found[1]


def test_the_vector_of_the_invitation_page_holds() -> None:
    written = row("invitation.md", "text")
    invitation = Invitation.from_text_untrusted(written, now=0)
    assert str(invitation) == written
    assert invitation.peer == Identity.from_seed(bytes(range(32))).peer_id
    assert invitation.secret == bytes(range(16))
    assert invitation.mailbox == row("invitation.md", "mailbox id")
    assert invitation.prologue.hex() == row("invitation.md", "prologue (hex)")


def test_the_vector_of_the_mailbox_page_holds() -> None:
    secret = "000102030405060708090a0b0c0d0e0f"
    identity = Identity.from_seed(bytes(32))
    invitation = Invitation(
        "wss://s.example", "https://a.example", identity.peer_id, bytes.fromhex(secret), 1
    )
    assert invitation.mailbox == row("mailbox.md", f"`{secret}`")


def test_the_vectors_of_the_presence_page_hold() -> None:
    identity = Identity.from_seed(bytes(32))
    record = SignedRecord(PeerRecord(identity.peer_id, ("/ip4/192.0.2.1/tcp/80/ws",)), 1, 2)
    assert hash_topic("chat").hex() == row("presence.md", "topic hash of `chat`")
    assert encode(record.sign(hash_topic("chat"), identity)) == row(
        "presence.md", "record under `chat`, sequence 1, expiry 2, address `/ip4/192.0.2.1/tcp/80/ws`"
    )
    proof = identity.sign(f"handclasp/1 peers\nsignal.example\n{'0' * 64}".encode())
    assert encode(proof) == row("presence.md", "proof for the host `signal.example` and a nonce of 64 zeros")
