"""C7: the invitation is edited between the screen and the wallet. No session comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from handclasp.discovery.sealed import Conversation
from handclasp.discovery.signaling import Invitation
from handclasp.errors import HandshakeFailed, InvitationRefused, WrongPeer
from handclasp.identity import Identity


def test_whoever_has_another_invitation_in_mind_cannot_finish_the_handshake() -> None:
    """The same for every field, with a service that brings the two together in spite of it."""
    website, wallet, other = Identity.generate(), Identity.generate(), Identity.generate()
    genuine = Invitation("wss://s.example", "https://shop.example", website.peer_id, bytes(16), 2_000_000_000)
    for edited in (
        Invitation("wss://t.example", genuine.origin, genuine.peer, genuine.secret, genuine.expires),
        Invitation(genuine.service, "https://phish.example", genuine.peer, genuine.secret, genuine.expires),
        Invitation(genuine.service, genuine.origin, other.peer_id, genuine.secret, genuine.expires),
        Invitation(genuine.service, genuine.origin, genuine.peer, bytes(15) + b"x", genuine.expires),
        Invitation(genuine.service, genuine.origin, genuine.peer, genuine.secret, genuine.expires + 1),
        Invitation(genuine.service, genuine.origin, genuine.peer, genuine.secret, genuine.expires, "passkey"),
    ):
        site = Conversation(website, dialed=None, prologue=genuine.prologue)
        victim = Conversation(wallet, dialed=edited.peer, prologue=edited.prologue)
        site.receive_untrusted(victim.greet())
        with pytest.raises((HandshakeFailed, WrongPeer)):
            victim.receive_untrusted(site.send(None))
        assert not victim.may_send


@pytest.mark.parametrize(
    "edit", [lambda text: text.upper(), lambda text: text + "&x=1", lambda text: text[1:]]
)
def test_an_invitation_in_another_spelling_is_not_even_tried(edit: Callable[[str], str]) -> None:
    genuine = Invitation(
        "wss://s.example", "https://shop.example", Identity.generate().peer_id, bytes(16), 2**31
    )
    assert Invitation.from_text_untrusted(str(genuine), now=0) == genuine
    with pytest.raises(InvitationRefused):
        Invitation.from_text_untrusted(edit(str(genuine)), now=0)
