"""mDNS names in candidates, as browsers give them (draft-ietf-mmusic-mdns-ice-candidates): what aioice lacks."""

# aioice and dnspython carry few types.
# pyright: reportUnknownMemberType=false
from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aioice.ice
import aioice.mdns
import dns.exception
import dns.message

_NAME = re.compile(r"(?i)\.local ")  # host and port stand side by side in a candidate


@asynccontextmanager
async def resolving(text: str) -> AsyncGenerator[None]:
    """While the block runs, names in *text*, an SDP or a candidate, are resolved by a `Resolver`."""
    if _NAME.search(text) is None:
        yield
        return
    subscriber = object()
    # aioice offers no way to pass one in. All connections of a loop share it.
    (await aioice.ice.get_or_create_mdns_protocol(subscriber)).__class__ = Resolver
    try:
        yield
    finally:
        await aioice.ice.unref_mdns_protocol(subscriber)


class Resolver(aioice.mdns.MDnsProtocol):
    """aioice's resolver, which also understands answers that come with an NSEC record.

    Apple's responder, and so Safari, adds one that says which records there are not, its names compressed as
    RFC 6762 §18.14 wants it. dnspython refuses such a message as a whole. Here all behind the answers is cut off.
    """

    def datagram_received(self, data: Any, addr: tuple[Any, ...]) -> None:
        """Pass on the questions and the answers."""
        none = bytes(4)  # the numbers of authority and additional records (RFC 1035 §4.1.1)
        try:
            message = dns.message.from_wire(data[:8] + none + data[12:], ignore_trailing=True)
        except dns.exception.DNSException:
            return
        super().datagram_received(message.to_wire(), addr)
