"""Identify: what a peer is, which protocols it speaks and where it can be reached.

Source: libp2p identify specification (protobuf ``Identify``, one message with a uvarint length, then the
stream is closed). What a peer says about itself is a claim; only its peer id is proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import trio

from handclasp import multiaddr
from handclasp.abc import Stream
from handclasp.errors import ConnectionLost, ProtocolViolation
from handclasp.identity import PeerId, public_key_from_protobuf_untrusted, public_key_to_protobuf
from handclasp.messages import encode_message, receive_message_untrusted
from handclasp.protobuf import (
    Fields,
    decode_fields_untrusted,
    encode_field,
    last_bytes,
)

__all__ = ["PROTOCOL", "PeerInfo", "ask", "tell"]

PROTOCOL = "/ipfs/id/1.0.0"
PROTOCOL_VERSION = "handclasp/1"
#: Bytes of the longest message that is read; a peer with 64 addresses and 100 protocols needs about 8 KiB.
MAX_MESSAGE = 64 * 1024
#: Addresses and protocols that are kept of one peer.
MAX_ADDRESSES, MAX_PROTOCOLS = 64, 512
MAX_AGENT = 256  # characters

# fields of Identify
_PUBLIC_KEY, _LISTEN_ADDRESS, _PROTOCOL, _OBSERVED, _PROTOCOL_VERSION, _AGENT = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class PeerInfo:
    """What a peer says about itself."""

    peer: PeerId
    """Who it is: proved."""
    agent: str
    """Its software, for example ``handclasp/0.1.0``."""
    protocols: tuple[str, ...]
    """The protocol ids it answers."""
    addresses: tuple[str, ...]
    """Multiaddrs under which it says it can be dialled; those that this project does not know are left out."""
    observed_address: str | None
    """How this node looks from there, as a multiaddr."""


async def tell(
    stream: Stream, me: PeerId, protocols: Sequence[str], addresses: Sequence[str], observed: str | None
) -> None:
    """Answer the peer: send who this node is."""
    message = encode_field(_PROTOCOL_VERSION, PROTOCOL_VERSION.encode())
    message += encode_field(_AGENT, _agent().encode())
    message += encode_field(_PUBLIC_KEY, public_key_to_protobuf(me.public_key))
    for address in addresses:
        message += encode_field(_LISTEN_ADDRESS, multiaddr.to_bytes(address))
    if observed is not None:
        message += encode_field(_OBSERVED, multiaddr.to_bytes(observed))
    for protocol in protocols:
        message += encode_field(_PROTOCOL, protocol.encode())
    await stream.send_all(encode_message(message))


async def ask(stream: Stream, peer: PeerId) -> PeerInfo:
    """Read what *peer* says on a stream that speaks `PROTOCOL`.

    Raises:
        ProtocolViolation: malformed, too long, or about another peer.
        ConnectionLost: the stream broke.
    """
    try:
        message = await receive_message_untrusted(stream, MAX_MESSAGE)
    except trio.BrokenResourceError as exc:
        raise ConnectionLost(f"the peer did not tell who it is: {exc}") from exc
    return _parse_untrusted(message, peer)


def _parse_untrusted(message: bytes, peer: PeerId) -> PeerInfo:
    fields = decode_fields_untrusted(message)
    key = last_bytes(fields, _PUBLIC_KEY)
    if key is not None and public_key_from_protobuf_untrusted(key) != peer.public_key:
        raise ProtocolViolation("the peer names another key than its own")
    observed = last_bytes(fields, _OBSERVED)
    agent = last_bytes(fields, _AGENT) or b""
    return PeerInfo(
        peer,
        agent.decode(errors="replace")[:MAX_AGENT],
        tuple(value.decode(errors="replace") for value in _all_bytes(fields, _PROTOCOL)[:MAX_PROTOCOLS]),
        tuple(_known(_all_bytes(fields, _LISTEN_ADDRESS)[:MAX_ADDRESSES])),
        None if observed is None else next(_known([observed]), None),
    )


def _all_bytes(fields: Fields, number: int) -> list[bytes]:
    return [value for value in fields.get(number, ()) if isinstance(value, bytes)]


def _known(addresses: Sequence[bytes]) -> Iterator[str]:
    """Those of the addresses whose protocols we know."""
    for address in addresses:
        try:
            yield multiaddr.from_bytes_untrusted(address)
        except ProtocolViolation:
            continue


def _agent() -> str:
    from importlib.metadata import version  # takes a millisecond

    return f"handclasp/{version('handclasp')}"
