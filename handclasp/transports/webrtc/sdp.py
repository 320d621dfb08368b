"""The signaling messages of libp2p's ``/webrtc-signaling/0.0.1`` and the checks on what is in them.

Source: libp2p webrtc specification, "Signaling protocol": protobuf
``{optional Type type = 1; optional string data = 2}``; a candidate is the JSON of
``RTCIceCandidate.toJSON()``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import cast

from handclasp.errors import ProtocolViolation
from handclasp.jsontext import parse_json_untrusted
from handclasp.protobuf import decode_fields_untrusted, encode_field, last_bytes, last_int

#: Bytes. A data-channel SDP with 64 candidates has about 7 KiB; 32 KiB leaves room for verbose peers.
MAX_SDP = 32_768
#: Trickled candidates taken from one peer. Browsers gather well below 20.
MAX_CANDIDATES = 64
_MAX_CANDIDATE = 1_024  # bytes of one candidate's JSON


class Kind(enum.IntEnum):
    """The type field of a signaling message."""

    SDP_OFFER = 0
    SDP_ANSWER = 1
    ICE_CANDIDATE = 2


@dataclass(frozen=True)
class SignalingMessage:
    """One message: for a candidate *data* is JSON, else SDP text."""

    kind: Kind
    data: str

    def __bytes__(self) -> bytes:
        return encode_field(1, int(self.kind)) + encode_field(2, self.data.encode())

    @classmethod
    def from_bytes_untrusted(cls, message: bytes) -> SignalingMessage:
        """Parse one message.

        Raises:
            ProtocolViolation: malformed, too long, media besides one data channel section, or no fingerprint.
        """
        fields = decode_fields_untrusted(message)
        number = last_int(fields, 1) or 0  # proto3: a missing type is the first one, SDP_OFFER
        encoded = last_bytes(fields, 2) or b""
        try:
            kind, data = Kind(number), encoded.decode()
        except ValueError:
            raise ProtocolViolation("a signaling message is of an unknown type or not UTF-8") from None
        longest = _MAX_CANDIDATE if kind is Kind.ICE_CANDIDATE else MAX_SDP
        if len(encoded) > longest:
            raise ProtocolViolation(f"the data of {kind.name} is longer than {longest} bytes")
        if kind is not Kind.ICE_CANDIDATE:
            _check_sdp_untrusted(data)
        return cls(kind, data)


def candidate_from_json_untrusted(text: str) -> str | None:
    """The ``candidate:…`` attribute in a trickled candidate, or None for the end of candidates.

    Raises:
        ProtocolViolation: not the JSON of an ``RTCIceCandidate``.
    """
    try:
        value = parse_json_untrusted(text)
    except ValueError:
        raise ProtocolViolation("a candidate is not JSON") from None
    if value is None:
        return None
    candidate = cast("dict[str, object]", value).get("candidate") if isinstance(value, dict) else None
    if not isinstance(candidate, str):
        raise ProtocolViolation("a candidate has no text in its field 'candidate'")
    return candidate or None


def _check_sdp_untrusted(text: str) -> None:
    media = [line for line in text.splitlines() if line.startswith("m=")]
    # Media sections would make the engine set up codecs for a stranger.
    if len(media) != 1 or not media[0].startswith("m=application "):
        raise ProtocolViolation("the SDP must have exactly one section, m=application")
    # Without one the engine would try in vain until its deadline.
    if "\na=fingerprint:sha-256 " not in text.lower():
        raise ProtocolViolation("the SDP has no SHA-256 fingerprint")
    # Some engines guess one (RFC 8842 section 5.2 demands it), and then wait in vain.
    if "\na=setup:" not in text:
        raise ProtocolViolation("the SDP has no DTLS role")
