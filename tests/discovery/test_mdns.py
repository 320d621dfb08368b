"""Peers on the local network. Here the network is the loopback interface, which other tests may use at the same time:
every peer and every topic is new, and nobody minds strangers."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace

import dns.message
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSOutgoing

from handclasp.abc import Context, PeerRecord
from handclasp.discovery import mdns as mdns_module
from handclasp.discovery.mdns import MAX_ADDRESSES, MAX_TOPICS, MAX_TXT, MdnsDiscovery, from_url, mdns
from handclasp.errors import ConfigurationError, MisuseError
from handclasp.identity import Identity, PeerId
from handclasp.node.plugins import discovery_from_url

from ..namespaces import LOOPBACK, command  # noqa: TID252 - tests are no installed package

LIBP2P = Path(__file__).parents[2] / ".venv-libp2p"
SERVICE = "_p2p._udp.local."
GROUP, PORT = "224.0.0.251", 5353


@asynccontextmanager
async def backend() -> AsyncGenerator[MdnsDiscovery]:
    async with mdns(interfaces=["127.0.0.1"])(Context(Identity.generate())) as opened:
        assert isinstance(opened, MdnsDiscovery)
        yield opened


def somebody(*addresses: str) -> PeerRecord:
    peer = Identity.generate().peer_id
    return PeerRecord(peer, tuple(f"{a}/p2p/{peer}" for a in addresses or ["/ip4/192.0.2.1/tcp/4001/webrtc"]))


def topic() -> str:
    return secrets.token_hex(8)


async def finds_nobody(found: AsyncIterator[PeerRecord]) -> bool:
    """Whether nobody is known who was not reported yet."""
    async with trio.open_nursery() as nursery:

        async def look() -> None:
            pytest.fail(f"found {await anext(found)}")

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return True


async def have_heard_each_other(speaker: MdnsDiscovery, *listeners: MdnsDiscovery) -> None:
    """Wait until *listeners* know all that *speaker* has said so far: order is kept on this network."""
    marker, me = topic(), somebody()
    async with speaker.advertise(marker, me):
        for listener in listeners:
            async with listener.find(marker) as found:
                assert await anext(found) == me


# --- finding ---


async def test_a_peer_is_found_under_its_topics_and_its_id_as_it_turns_up() -> None:
    async with backend() as ours, backend() as theirs:
        tea, coffee, me = topic(), topic(), somebody("/ip4/192.0.2.1/tcp/1", "/ip6/2001:db8::1/tcp/1/webrtc")
        async with ours.find(tea) as a, ours.find(coffee) as b, ours.find(str(me.peer)) as c:
            async with theirs.advertise(tea, me), theirs.advertise(coffee, me):
                assert [await anext(found) for found in (a, b, c)] == [me] * 3


async def test_whoever_comes_later_asks_who_is_there_and_hears_nothing_of_those_who_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mdns_module, "_AGAIN", 0)  # nothing is announced any more when we come
    async with backend() as theirs, backend() as witness:
        tea, coffee, me = topic(), topic(), somebody()
        async with theirs.advertise(coffee, me):
            pass
        async with theirs.advertise(tea, me):
            await have_heard_each_other(theirs, witness)
            async with backend() as ours, ours.find(tea) as found, ours.find(coffee) as nothing:
                assert await anext(found) == me
                assert await finds_nobody(nothing)


async def test_a_topic_that_is_too_long_is_refused_though_its_hash_would_fit() -> None:
    longest = "é" * (MdnsDiscovery.MAX_TOPIC // 2)
    async with backend() as ours:
        async with ours.advertise(longest, me := somebody()), ours.find(longest) as found:
            assert await anext(found) == me
        for use in (ours.advertise(longest + "é", me), ours.find(longest + "é")):
            with pytest.raises(MisuseError):
                async with use:
                    pytest.fail("it was taken")


async def test_a_peer_is_found_once_however_many_records_it_has_and_not_under_other_topics() -> None:
    async with backend() as ours, backend() as theirs:
        tea, coffee, me = topic(), topic(), somebody()
        async with (
            ours.find(str(me.peer)) as by_id,
            ours.find(tea) as by_topic,
            ours.find(topic()) as elsewhere,
        ):
            async with (
                theirs.advertise(str(me.peer), me),
                theirs.advertise(tea, me),
                theirs.advertise(coffee, me),
            ):
                await have_heard_each_other(theirs, ours)
                assert await anext(by_id) == me
                assert await anext(by_topic) == me
                for found in (by_id, by_topic, elsewhere):
                    assert await finds_nobody(found)


async def test_a_peer_that_left_is_not_found_until_it_is_back() -> None:
    async with backend() as ours, backend() as theirs:
        tea, me = topic(), somebody()
        async with ours.find(tea) as all_the_time:
            async with theirs.advertise(tea, me):
                assert await anext(all_the_time) == me
            await have_heard_each_other(theirs, ours)
            assert await finds_nobody(all_the_time)
            async with ours.find(tea) as later:
                assert await finds_nobody(later)
            async with theirs.advertise(tea, me):
                assert await anext(all_the_time) == me


async def test_a_peer_with_other_addresses_is_reported_again() -> None:
    async with backend() as ours, backend() as theirs:
        tea, before = topic(), somebody("/ip4/192.0.2.1/tcp/1")
        after = PeerRecord(before.peer, (f"/ip4/192.0.2.2/tcp/1/p2p/{before.peer}",))
        async with ours.find(tea) as found:
            async with theirs.advertise(tea, before):
                assert await anext(found) == before
                async with theirs.advertise(tea, after):
                    assert await anext(found) == PeerRecord(before.peer, before.addresses + after.addresses)


async def test_a_peer_without_addresses_is_found_too() -> None:
    async with backend() as ours, backend() as theirs:
        tea, me = topic(), PeerRecord(Identity.generate().peer_id)
        async with ours.find(tea) as found, theirs.advertise(tea, me):
            assert await anext(found) == me


async def test_a_topic_may_be_any_text() -> None:
    async with backend() as ours, backend() as theirs:
        tea, me = topic() + "=\0\n" + "é" * 118, somebody()
        assert len(tea.encode()) == 255
        async with ours.find(tea) as found, theirs.advertise(tea, me):
            assert await anext(found) == me


async def test_an_announcement_that_was_lost_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async with backend() as ours, backend() as theirs, ours.find(tea := topic()) as found:
        responder, lost = theirs._responder, list[object]()
        send, silent = responder.async_send, SimpleNamespace(async_add=lost.append, async_remove=lost.append)

        def lose_the_first(out: DNSOutgoing) -> None:
            if out.is_query() or len(lost) > 1:
                send(out)
            else:
                lost.append(out)

        with monkeypatch.context() as changed:
            changed.setattr(responder, "registry", silent)  # so that no query of ours is answered
            changed.setattr(responder, "async_send", lose_the_first)
            async with theirs.advertise(tea, me := somebody()):
                assert await anext(found) == me
                assert len(lost) == 2


async def test_nothing_is_left_behind(leftovers: Callable) -> None:
    async with leftovers().none():
        for cancelled in (False, True):
            with trio.CancelScope() as scope:
                async with backend() as ours, ours.find(tea := topic()) as found:
                    async with ours.advertise(tea, me := somebody()):
                        assert await anext(found) == me
                        if cancelled:
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught is cancelled


async def test_opening_may_be_cancelled(leftovers: Callable) -> None:
    async with leftovers().none():
        with trio.CancelScope() as scope:
            scope.cancel()
            async with backend():
                await trio.lowlevel.checkpoint()


# --- settings ---


async def test_a_url_names_interfaces() -> None:
    async with discovery_from_url("mdns:?interface=127.0.0.1")(Context(Identity.generate())) as opened:
        assert isinstance(opened, MdnsDiscovery)
        async with opened.find(tea := topic()) as found, opened.advertise(tea, me := somebody()):
            assert await anext(found) == me


@pytest.mark.parametrize("url", ["mdns:?interface=lo", "mdns:?interface=", "mdns:?port=5353"])
def test_a_url_with_something_else_in_it_is_a_mistake_that_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"interface 'lo'|interface ''|option 'port'"):
        from_url(url)


async def test_an_address_of_another_machine_is_no_interface(leftovers: Callable) -> None:
    async with leftovers().none():
        with pytest.raises(ConfigurationError, match="mdns"):
            async with mdns(interfaces=["192.0.2.77"])(Context(Identity.generate())):
                pass


# --- on the wire ---


@contextmanager
def multicast() -> Iterator[socket.socket]:
    """A socket that hears and speaks to everybody on the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        here = socket.inet_aton("127.0.0.1")
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + here)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, here)
        sock.bind((GROUP, PORT))
        yield sock


async def records_on_the_wire(sock: socket.socket, needle: bytes) -> dict[str, dns.rrset.RRset]:
    """The records of the next packet that holds *needle*, by type."""
    listening = trio.socket.from_stdlib_socket(sock)
    while needle not in (packet := await listening.recv(9_000)):
        pass
    message = dns.message.from_wire(packet)
    assert message.flags & dns.flags.QR
    return {dns.rdatatype.to_text(each.rdtype): each for each in message.answer}


async def test_a_record_is_as_libp2p_specifies_it_and_does_not_tell_the_topic() -> None:
    with multicast() as sock:
        async with backend() as ours:
            me = somebody("/ip4/192.0.2.1/tcp/4001/webrtc", "/ip6/2001:db8::1/tcp/4002/ws")
            async with ours.advertise(tea := topic(), me):
                sent = await records_on_the_wire(sock, str(me.peer).encode())
    assert sent["PTR"].name.to_text() == SERVICE
    name = sent["PTR"][0].target
    assert name == sent["TXT"].name == sent["SRV"].name
    assert 32 <= len(name.labels[0]) <= 63
    assert str(me.peer).encode() not in name.labels[0]
    strings = sent["TXT"][0].strings
    assert [s for s in strings if s.startswith(b"dnsaddr=")] == [
        b"dnsaddr=" + a.encode() for a in me.addresses
    ]
    assert not any(tea.encode() in string for string in strings)
    srv, a, aaaa = (sent[kind][0].to_generic().data for kind in ("SRV", "A", "AAAA"))
    assert int.from_bytes(srv[4:6], "big") == 4001
    assert (socket.inet_ntoa(a), socket.inet_ntop(socket.AF_INET6, aaaa)) == ("192.0.2.1", "2001:db8::1")


async def test_addresses_that_do_not_fit_are_left_out() -> None:
    long = "/dns4/" + ".".join(["a" * 60] * 3) + "/tcp/1"
    some = [f"/dns4/{'a' * 60}.{number}.example/tcp/1" for number in range(20)]
    with multicast() as sock:
        async with backend() as ours:
            me = somebody(long, *some)
            assert len(me.addresses[0]) > 247
            async with ours.advertise(topic(), me):
                sent = await records_on_the_wire(sock, str(me.peer).encode())
    strings = sent["TXT"][0].strings
    assert sum(map(len, strings)) + len(strings) <= MAX_TXT
    kept = [string.removeprefix(b"dnsaddr=").decode() for string in strings if string.startswith(b"dnsaddr=")]
    assert 5 < len(kept) < 20
    assert tuple(kept) == me.addresses[1 : len(kept) + 1]


def say(*strings: bytes, pointer: str | None = None, ttl: int = 120) -> None:
    """Multicast a record as anybody on the network could."""
    name = pointer or f"{secrets.token_hex(16)}.{SERVICE}"
    message = dns.message.make_response(dns.message.make_query(SERVICE, "PTR"))
    message.question.clear()
    message.answer.append(dns.rrset.from_text(SERVICE, ttl, "IN", "PTR", name))
    if strings:
        data = b"".join(bytes([len(string)]) + string for string in strings)
        txt = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.TXT, data, 0, len(data))
        message.answer.append(dns.rrset.from_rdata(name, ttl, txt))
    with multicast() as sock:
        sock.sendto(message.to_wire(), (GROUP, PORT))


def dnsaddr(peer: PeerId, number: int = 1) -> bytes:
    return f"dnsaddr=/ip4/192.0.2.{number}/tcp/4001/p2p/{peer}".encode()


async def test_a_libp2p_peer_without_topics_is_found_under_its_id_only() -> None:
    peer = Identity.generate().peer_id
    async with backend() as ours, ours.find(str(peer)) as found, ours.find("") as nothing:
        say(dnsaddr(peer, 1), dnsaddr(peer, 2))
        addresses = tuple(f"/ip4/192.0.2.{number}/tcp/4001/p2p/{peer}" for number in (1, 2))
        assert await anext(found) == PeerRecord(peer, addresses)
        assert await finds_nobody(nothing)


async def test_malformed_records_are_passed_over_and_disturb_nobody() -> None:
    peer, other = (Identity.generate().peer_id for _ in range(2))
    async with backend() as ours, ours.find(str(peer)) as found, ours.find(str(other)) as nothing:
        say(b"dnsaddr=" + b"/" * 200)
        say(b"dnsaddr", b"=", b"", b"\xff" * 255, b"dnsaddr=\xff", b"topic=")
        say(f"dnsaddr=/ip4/192.0.2.1/udp/4001/quic-v1/webtransport/p2p/{peer}".encode())
        say(b"dnsaddr=/ip4/192.0.2.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")
        say(dnsaddr(other), pointer="elsewhere.example.")
        say(dnsaddr(PeerId(bytes(32))), pointer=SERVICE)
        say(pointer=SERVICE.replace("_p2p", "\\000\\255"))
        say()
        with multicast() as sock:
            for packet in (b"", b"\0", bytes(12), bytes(2) + b"\x84\0" + b"\xff" * 50, b"\xff" * 1_400):
                sock.sendto(packet, (GROUP, PORT))
        say(b"dnsaddr=nonsense", dnsaddr(peer), b"DNSADDR2=" + dnsaddr(peer, 2)[8:], dnsaddr(other))
        addresses = tuple(f"/ip4/192.0.2.{number}/tcp/4001/p2p/{peer}" for number in (1, 2))
        assert await anext(found) == PeerRecord(peer, addresses)
        assert await finds_nobody(nothing)


async def test_the_addresses_of_one_peer_are_bounded() -> None:
    peer, marker = (Identity.generate().peer_id for _ in range(2))
    async with backend() as ours, ours.find(str(peer)) as found, ours.find(str(marker)) as heard:
        say(*(dnsaddr(peer, number) for number in range(40)))
        assert len((await anext(found)).addresses) == MAX_ADDRESSES
        say(*(dnsaddr(peer, number) for number in range(100, 140)))
        say(dnsaddr(marker))
        assert (await anext(heard)).peer == marker
        assert await finds_nobody(found)


async def test_the_peers_that_are_remembered_are_bounded_and_a_place_is_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = [Identity.generate().peer_id for _ in range(60)]
    names = [f"{secrets.token_hex(16)}.{SERVICE}" for _ in peers]
    monkeypatch.setattr(mdns_module, "MAX_RECORDS", 30)  # with room for strangers
    async with backend() as ours, AsyncExitStack() as stack:
        found = [await stack.enter_async_context(ours.find(str(peer))) for peer in peers]
        for peer, name in zip(peers, names, strict=True):
            say(dnsaddr(peer), pointer=name)
        # Whoever is remembered is heard when it has another address, so this waits for all that came before.
        for peer, name in zip(peers, names, strict=True):
            say(dnsaddr(peer, 2), pointer=name)
        kept = await first_of(found)
        assert len(ours._records) <= 30
        say(dnsaddr(peers[kept], 2), pointer=names[kept], ttl=0)
        newcomer = Identity.generate().peer_id
        async with ours.find(str(newcomer)) as later:
            say(dnsaddr(newcomer))
            assert (await anext(later)).peer == newcomer


async def first_of(found: list[AsyncIterator[PeerRecord]]) -> int:
    """The number of the first iterator that yields."""
    numbers: list[int] = []

    async def wait(number: int) -> None:
        await anext(found[number])
        numbers.append(number)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(len(found)):
            nursery.start_soon(wait, number)
    return numbers[0]


def test_what_is_kept_of_a_record_is_bounded() -> None:
    peer = PeerId(bytes(range(32)))
    strings = [*(dnsaddr(peer, number) for number in range(40)), *(b"topic=%d" % n for n in range(40))]
    txt = b"".join(bytes([len(string)]) + string for string in strings)
    read = mdns_module._read_untrusted(txt)
    assert read is not None
    assert mdns_module._read_untrusted(bytes(9_000) + txt) is None, "more than any message holds"
    assert len(read.addresses) == MAX_ADDRESSES
    assert len(read.topics) == MAX_TOPICS


@given(txt=st.binary(max_size=2_000))
def test_any_record_is_read_or_passed_over(txt: bytes) -> None:
    assert mdns_module._read_untrusted(txt) is None


@given(before=st.binary(max_size=200).map(lambda data: bytes([len(data)]) + data), after=st.binary())
def test_an_address_is_read_whatever_stands_around_it(before: bytes, after: bytes) -> None:
    string = dnsaddr(peer := PeerId(bytes(range(32))))
    read = mdns_module._read_untrusted(before + bytes([len(string)]) + string + after)
    assert read is not None
    assert read.peer == peer


# --- with py-libp2p ---

LIBP2P_PEER = """
import json, sys, trio
from libp2p import new_host
from libp2p.discovery.events.peerDiscovery import peerDiscovery
from libp2p.discovery.mdns import create_mdns_discovery

def discovered(info):
    print(json.dumps([str(info.peer_id), sorted(map(str, info.addrs))]), flush=True)

async def main():
    host = new_host()
    peerDiscovery.register_peer_discovered_handler(discovered)
    addresses = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"]
    mdns = create_mdns_discovery(host.get_network(), port=4001, listen_addrs=addresses)
    print(json.dumps(str(host.get_id())), flush=True)
    await trio.to_thread.run_sync(mdns.broadcaster.register)
    await trio.to_thread.run_sync(sys.stdin.read)
    await trio.to_thread.run_sync(mdns.listener.stop)
    await trio.to_thread.run_sync(mdns.zeroconf.close)

trio.run(main)
"""

OUR_PEER = """
import json, subprocess, sys, trio
from handclasp.abc import Context, PeerRecord
from handclasp.discovery.mdns import mdns
from handclasp.identity import Identity

async def main():
    me = Identity.generate()
    addresses = tuple(f"/ip4/127.0.0.1/tcp/4002{way}/p2p/{me.peer_id}" for way in ("", "/webrtc"))
    process = await trio.lowlevel.open_process(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    lines = read_lines(process.stdout)
    async with process.stdin, process.stdout, mdns()(Context(me)) as backend:
        async with backend.advertise(str(me.peer_id), PeerRecord(me.peer_id, addresses)):
            theirs = json.loads(await anext(lines))
            async with backend.find(theirs) as found:
                record = await anext(found)
            said = ["", []]
            while said[0] != str(me.peer_id):  # it hears itself, too
                said = json.loads(await anext(lines))
            json.dump({"they are": theirs, "we saw": record.addresses, "they saw": said[1]}, sys.stdout)
    await process.wait()

async def read_lines(stream):
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\\n")
        for line in lines:
            yield line

trio.run(main)
"""


def test_py_libp2p_and_we_see_each_other() -> None:
    if not any(LIBP2P.glob("lib/*/site-packages/libp2p")):
        reason = (
            f"py-libp2p is missing from {LIBP2P}: "
            "'make test' installs it where a C compiler and libgmp-dev are present"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    theirs = [str(LIBP2P / "bin" / "python"), "-c", LIBP2P_PEER]
    done = subprocess.run(
        command(LOOPBACK, "-c", OUR_PEER, *theirs), stdout=subprocess.PIPE, check=True, timeout=120
    )
    seen = json.loads(done.stdout)
    they = seen["they are"]
    assert set(seen["we saw"]) == {
        f"/ip4/127.0.0.1/tcp/4001/p2p/{they}",
        f"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/{they}",
    }
    # It reads DNS-SD properties, of which there is only one for each key: the first address.
    assert seen["they saw"] == ["/ip4/127.0.0.1/tcp/4002"]
