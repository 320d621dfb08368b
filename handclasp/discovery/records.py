"""Records that their peer has signed: whoever passes them on can neither invent nor change one.

Source: docs/protocols/presence.md, "Text, topics and records".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from handclasp.abc import PeerRecord
from handclasp.errors import InvalidAddress, MisuseError, ProtocolViolation
from handclasp.identity import Identity, PeerId
from handclasp.multiaddr import parse
from handclasp.protobuf import decode_fields_untrusted, encode_field, last_bytes, last_int

__all__ = ["LIFETIME", "MAX_ADDRESSES", "MAX_RECORD", "SignedRecord", "hash_topic"]

#: Seconds that a record is good for. It is replaced four times as often, so clocks may differ by 90 minutes.
LIFETIME = 2 * 3600.0
#: Bytes of a record; the service takes no longer ones.
MAX_RECORD = 4_096
#: Addresses in a record: a node has a few for each of its transports.
MAX_ADDRESSES = 16

_DOMAIN = b"handclasp/1 peer record\n"


def hash_topic(topic: str) -> bytes:
    """What others see of a topic: 32 bytes. A topic that can be guessed is found by trying."""
    return hashlib.sha256(b"handclasp/1 topic " + topic.encode()).digest()


@dataclass(frozen=True)
class SignedRecord:
    """A record under one topic, as its peer has signed it."""

    record: PeerRecord
    sequence: int
    """Grows with each record that the peer signs for the topic."""
    expires: int
    """Unix time in seconds from which on it is good for nothing."""

    def sign(self, topic: bytes, identity: Identity) -> bytes:
        """The bytes to pass on, under the hash of a topic.

        Raises:
            MisuseError: the record is another peer's, or has too many or too long addresses.
        """
        peer, addresses = self.record.peer, self.record.addresses
        if peer != identity.peer_id:
            raise MisuseError(f"a record of {peer} can only be signed by that peer")
        payload = (
            encode_field(1, bytes(peer)) + encode_field(2, self.sequence) + encode_field(3, self.expires)
        )
        payload += b"".join(encode_field(4, address.encode()) for address in addresses)
        signed = encode_field(1, payload) + encode_field(2, identity.sign(_DOMAIN + topic + payload))
        if len(signed) > MAX_RECORD or len(addresses) > MAX_ADDRESSES:
            raise MisuseError(f"a record has at most {MAX_ADDRESSES} addresses and {MAX_RECORD} bytes")
        return signed

    @classmethod
    def from_bytes_untrusted(cls, data: bytes, topic: bytes, *, now: float) -> SignedRecord:
        """What a peer has signed for this topic.

        Raises:
            ProtocolViolation: malformed, too long, expired, or not signed by the peer in it for this topic.
        """
        if len(data) > MAX_RECORD:
            raise ProtocolViolation(f"a record has at most {MAX_RECORD} bytes")
        envelope = decode_fields_untrusted(data)
        payload, signature = last_bytes(envelope, 1), last_bytes(envelope, 2)
        if payload is None or signature is None:
            raise ProtocolViolation("a record is not signed")
        fields = decode_fields_untrusted(payload)
        name, sequence, expires = last_bytes(fields, 1), last_int(fields, 2), last_int(fields, 3)
        if name is None or sequence is None or expires is None:
            raise ProtocolViolation("a record lacks its peer, sequence or expiry")
        peer = PeerId.from_bytes_untrusted(name)
        if not peer.verify(signature, _DOMAIN + topic + payload):
            raise ProtocolViolation("a record is not signed by its peer for this topic")
        if expires <= now:
            raise ProtocolViolation("a record has expired")
        return cls(PeerRecord(peer, _addresses_untrusted(fields.get(4, []))), sequence, expires)


def _addresses_untrusted(values: list[int | bytes]) -> tuple[str, ...]:
    if len(values) > MAX_ADDRESSES:
        raise ProtocolViolation(f"a record has at most {MAX_ADDRESSES} addresses")
    addresses: list[str] = []
    for value in values:
        try:
            address = value.decode() if isinstance(value, bytes) else ""
            parse(address)
        except (UnicodeDecodeError, InvalidAddress):
            raise ProtocolViolation("a record holds something that is not an address") from None
        addresses.append(address)
    return tuple(addresses)
