"""The canary: fails when a private part of aiortc or aioice that we use has moved, and says which one."""

from __future__ import annotations

import ast
import asyncio
import inspect
import struct
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import aioice
import aioice.ice
import aioice.stun
import aiortc
import pytest
from aiortc import rtcsctptransport

from handclasp.transports.webrtc.aiortc import chunks, internals, recovery
from handclasp.transports.webrtc.aiortc import sctp as association
from handclasp.transports.webrtc.aiortc.chunks import Chunk, InboundStream
from handclasp.transports.webrtc.aiortc.internals import (
    DtlsTransport,
    IceConnection,
    QuietPeerConnection,
    StunProtocol,
)
from handclasp.transports.webrtc.aiortc.recovery import LossRecovery
from handclasp.transports.webrtc.aiortc.sctp import SctpTransport

MODULES = (internals, chunks, recovery, association)
INSTALLED = f"aiortc {version('aiortc')} and aioice {version('aioice')}"

#: Ours, theirs, and which of our methods replace one of theirs. The others are our own.
SUBCLASSES = [
    (QuietPeerConnection, aiortc.RTCPeerConnection, {"_RTCPeerConnection__log_debug"}),
    (StunProtocol, aioice.ice.StunProtocol, {"datagram_received", "_StunProtocol__log_debug"}),
    (
        IceConnection,
        aioice.Connection,
        {
            "get_component_candidates",
            "_check_periodic",
            "data_received",
            "query_consent",
            "_Connection__log_info",
        },
    ),
    (DtlsTransport, aiortc.RTCDtlsTransport, set()),
    (
        LossRecovery,
        aiortc.RTCSctpTransport,
        {"_receive_sack_chunk", "_t3_expired", "_t3_restart", "_t3_start", "_update_rto"},
    ),
    (
        SctpTransport,
        aiortc.RTCSctpTransport,
        {
            "_data_channel_send",
            "_get_inbound_stream",
            "_handle_data",
            "_mark_received",
            "_send",
            "_send_chunk",
            "_send_sack",
            "_set_state",
            "_transmit",
        },
    ),
    (InboundStream, rtcsctptransport.InboundStream, {"add_chunk", "pop_messages"}),
    (Chunk, rtcsctptransport.DataChunk, {"__init__"}),
]
OWN = {
    "adopt",
    "knows",
    "_relay_only",
    "selected_pair",
    "received",
    "consumed",
    "_sack_is_due",
    "flush",
    "_everything_acknowledged",
    "_data_channel_id",
    "datagrams_received",
    "flight",
    "_take_data",
    "_out_of_order",
    "_send_message",
    "_t3_runs",
    "send_all",
    "ready",
    "receive_untrusted",
    "send_packet",
    "_send_packets",
    "_flush_records",
    "_ice",
    "receive_packet_untrusted",
    "_take_sack",
    "_start_recovery",
    "_measure_round_trip",
    "_transmit_now",
    "_repeat_lost",
    "_dispatch",
    "_put",
    "_acknowledge",
    "_receive_gaps",
    "_adjust_window",
    "_t3_arm",
    "_t3_ends",
    "_probe",
}
REPLACED = [(ours, theirs, name) for ours, theirs, names in SUBCLASSES for name in sorted(names)]


def source() -> str:
    return "\n".join(Path(inspect.getfile(module)).read_text() for module in (internals, chunks, association))


def private_names() -> set[str]:
    """Every private attribute that the modules read or write and do not define themselves."""
    tree = ast.parse(source().replace("from __future__ import annotations", ""))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    ours = {name for cls, _, replaced in SUBCLASSES for name in vars(cls) if name not in replaced}
    declared = {name for cls, _, _ in SUBCLASSES for name in cls.__annotations__}
    return (used - ours - declared) | {"_data_channel_id"}


@pytest.fixture
def untouched() -> Iterator[list[object]]:
    """The objects that we reach into, as aiortc makes them."""

    async def make() -> aiortc.RTCPeerConnection:
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        channels.append(peer.createDataChannel("x"))
        return peer

    channels: list[object] = []

    with asyncio.Runner() as runner:
        peer = runner.run(make())
        assert peer.sctp is not None
        dtls = peer.sctp.transport
        gatherer = dtls.transport.iceGatherer
        yield [peer, peer.sctp, dtls, dtls.transport, gatherer, gatherer._connection, *channels]
        runner.run(peer.close())


@pytest.mark.parametrize("name", sorted(private_names()))
def test_a_private_name_is_still_there(untouched: list[object], name: str) -> None:
    set_later = f"self.{name} = " in inspect.getsource(rtcsctptransport.RTCSctpTransport)
    of_a_chunk = name in rtcsctptransport.DataChunk.__annotations__
    assert set_later or of_a_chunk or any(hasattr(thing, name) for thing in untouched), (
        f"the aiortc engine uses {name}, which is not in {INSTALLED}: read what became of it, "
        "adapt aiortc/internals.py, and run the tests of this folder against a browser, too"
    )


def test_the_names_that_matter_are_among_those_checked() -> None:
    assert {"_connection", "_nominated", "_advertised_rwnd", "_cwnd", "_ssl"} <= private_names()


@pytest.mark.parametrize(
    ("ours", "theirs", "name"), REPLACED, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_method_that_we_replace_is_still_there_and_takes_the_same(
    ours: type, theirs: type, name: str
) -> None:
    assert name in vars(ours), f"{ours.__name__} does not replace {name} any more: take it off this list"
    assert hasattr(theirs, name), (
        f"{theirs.__name__} of {INSTALLED} has no {name} any more: ours is never called"
    )
    old, new = getattr(theirs, name), getattr(ours, name)
    if name == "__init__":
        return  # made by us alone
    assert list(inspect.signature(new).parameters) == list(inspect.signature(old).parameters), (
        f"{theirs.__name__}.{name} takes other arguments in {INSTALLED}"
    )
    assert inspect.iscoroutinefunction(new) == inspect.iscoroutinefunction(old)


@pytest.mark.parametrize(("ours", "theirs", "replaced"), SUBCLASSES)
def test_none_of_our_methods_replaces_one_of_theirs_by_accident(
    ours: type, theirs: type, replaced: set[str]
) -> None:
    functions = {
        name
        for name, value in vars(ours).items()
        if inspect.isroutine(value) or isinstance(value, property | classmethod)
    }
    assert functions <= replaced | OWN, "add the new method to this test's lists"
    assert not {name for name in functions - replaced if hasattr(theirs, name)}


def test_the_id_of_the_next_channel_is_read_once_for_each_and_set_by_the_start() -> None:
    text = inspect.getsource(rtcsctptransport.RTCSctpTransport)
    assert (
        text.count("self._data_channel_id")
        == text.count("self._data_channel_id = ") + text.count("self._data_channel_id: ") + 1
    ), f"RTCSctpTransport of {INSTALLED} uses _data_channel_id in another way"


def test_a_chunk_to_send_has_every_field_that_aiortc_gives_one() -> None:
    theirs = {name for name in rtcsctptransport.DataChunk.__annotations__ if name.startswith("_")}
    chunk = Chunk(0, 1, 2, 3, 4, b"data")
    assert theirs == {name for name in theirs if hasattr(chunk, name)}
    assert theirs <= {*vars(Chunk), "_book_size"}


def test_log_functions_are_looked_up_on_the_object() -> None:
    """Else replacing them would keep nothing out of the log."""
    for theirs, call in (
        (aiortc.RTCPeerConnection, "self.__log_debug("),
        (aioice.ice.StunProtocol, "self.__log_debug("),
        (aioice.Connection, "self.__log_info("),
    ):
        text = inspect.getsource(theirs)
        assert call in text
        assert text.count("logger.debug") + text.count("logger.info") == 1, (
            f"{theirs.__name__} logs elsewhere, too"
        )


# --- what the subclasses are for ---


class Receiver:
    """What a socket hands its datagrams to."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.requests: list[object] = []
        self.known = ("192.0.2.1", 9)

    def knows(self, address: tuple[str, int]) -> bool:
        return address == self.known

    def data_received(self, data: bytes, _component: int) -> None:
        self.data.append(data)

    def request_received(self, message: object, _address: object, _protocol: object) -> None:
        self.requests.append(message)


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def protocol(receiver: Receiver) -> Iterator[StunProtocol]:
    async def make() -> StunProtocol:
        made = StunProtocol(receiver)  # type: ignore[arg-type]
        made.local_candidate = aioice.Candidate.from_sdp("1 1 udp 1 192.0.2.2 9 typ host")
        return made

    with asyncio.Runner() as runner:
        yield runner.run(make())


KNOWN, STRANGER = ("192.0.2.1", 9), ("192.0.2.66", 9)
CLIENT_HELLO = bytes([22, 254, 253]) + bytes(60)


def binding_request() -> bytes:
    return bytes(aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST))


def test_data_passes_from_where_ice_led_us(protocol: StunProtocol, receiver: Receiver) -> None:
    protocol.datagram_received(CLIENT_HELLO, KNOWN)
    assert receiver.data == [CLIENT_HELLO]


def test_data_of_strangers_does_not_pass(protocol: StunProtocol, receiver: Receiver) -> None:
    protocol.datagram_received(CLIENT_HELLO, STRANGER)
    protocol.datagram_received(CLIENT_HELLO, ("192.0.2.1", 10))
    assert not receiver.data


def test_an_empty_datagram_passes_from_nobody(protocol: StunProtocol, receiver: Receiver) -> None:
    protocol.datagram_received(b"", KNOWN)
    protocol.datagram_received(b"", STRANGER)
    assert not receiver.data


def test_stun_passes_from_anywhere(protocol: StunProtocol, receiver: Receiver) -> None:
    protocol.datagram_received(binding_request(), STRANGER)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("attribute", [0x0024, 0x8028, 0x8029, 0x0001, 0x0006, 0x0009, 0x0020])
def test_malformed_stun_does_no_harm(protocol: StunProtocol, receiver: Receiver, attribute: int) -> None:
    for value in (b"", b"\xff", b"\xff" * 3, b"\xff" * 64):
        body = struct.pack("!HH", attribute, len(value)) + value + bytes(-len(value) % 4)
        message = binding_request()[:2] + struct.pack("!H", len(body)) + binding_request()[4:] + body
        protocol.datagram_received(message, STRANGER)
    assert all(data[0] <= 3 for data in receiver.data), "at most what DTLS ignores"
