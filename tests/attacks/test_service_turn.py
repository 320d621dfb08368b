"""TURN: whom the service gives passwords, what they are good for, and where the relay does not lead."""

from __future__ import annotations

import json
import re
import socket
import time
from pathlib import Path

import pytest
import trio

from handclasp import Invitation, open_node, webrtc
from handclasp.abc import TransportFactory
from handclasp.protocols.wallet import PROTOCOL, Wallet, invite
from handclasp.service.ice import IceServers
from handclasp.service.secret import Secret
from handclasp.service.settings import IceSettings
from handclasp.transports.webrtc.aiortc import AiortcEngine

from ..serving import (  # noqa: TID252 - tests are no installed package
    Pair,
    Service,
    connected,
    paired,
    serving,
)
from ..turn import SECRET, Refused, coturn, documented, relay_at  # noqa: TID252 - same
from .pairing import ACCOUNT, Yes
from .test_service_watched import free_port, numbers

PRIVATE = [
    *("10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.254"),
    *(
        "127.0.0.1",
        "127.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "255.255.255.255",
    ),
]
PRIVATE_6 = [
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
]
PUBLIC = ["1.1.1.1", "172.32.0.1", "192.169.0.1", "11.0.0.1"]


def flags(folder: Path, turn: str = "turn:turn.example:3478?transport=udp") -> tuple[str, ...]:
    (folder / "secret").write_text(SECRET)
    stun = "stun:stun.example:3478"
    return ("--ice-stun", stun, "--ice-turn", turn, "--ice-secret-file", str(folder / "secret"))


def credential(now: float, secret: str = SECRET) -> tuple[str, str]:
    """What the service would hand out at a time."""
    settings = IceSettings(turn=("turn:x:1",), secret=Secret(secret.encode()))
    answer = IceServers(settings, lambda: now).answer(b"party", is_claimed=True)
    (server,) = answer["ice_servers"]
    return server["username"], server["credential"]


async def ask(service: Service, token: str | None) -> tuple[int, dict]:
    async with connected(service) as raw:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        status, _, body = await raw.request("GET", "/ice", **headers)
        return status, json.loads(body)


# Who gets one


async def test_a_password_is_for_the_two_parties_of_a_claimed_mailbox_and_for_nobody_else(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service, connected(service) as http:
        for stranger in (None, "ab" * 32):
            assert (await ask(service, stranger))[0] == 401
        _, _, body = await http.request("GET", "/challenge?mailbox=" + "0" * 32)
        status, alone = await ask(service, json.loads(body)["token"])
        assert status == 200
        assert alone == {
            "ice_servers": [{"urls": ["stun:stun.example:3478"]}],
            "expires_in": 600,
            "more": True,
        }
        async with paired(service) as pair:
            await check_both(service, pair)


async def check_both(service: Service, pair: Pair) -> None:
    names = set()
    for token in (pair.website_token, pair.wallet_token):
        status, answer = await ask(service, token)
        assert (status, answer["more"], answer["expires_in"]) == (200, False, 600)
        stun, turn = answer["ice_servers"]
        assert stun == {"urls": ["stun:stun.example:3478"]}
        assert turn["urls"] == ["turn:turn.example:3478?transport=udp"]
        until, _, name = turn["username"].partition(":")
        assert 590 <= int(until) - time.time() <= 600, "ten minutes at most"
        assert re.fullmatch("[0-9a-f]{16}", name)
        names.add(name)
        again = (await ask(service, token))[1]["ice_servers"][1]["username"]
        assert again.endswith(name), "quotas are counted by name"
        for told in (pair.mailbox, token, pair.nonce):
            assert name not in told
    assert len(names) == 2


async def test_a_password_is_gone_with_the_mailbox(tmp_path: Path) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service, paired(service) as pair:
        await pair.wallet.send(type="close")
        await pair.website.expect("end")
        for token in (pair.website_token, pair.wallet_token):
            assert (await ask(service, token))[0] == 401


async def test_a_service_without_servers_says_that_there_are_none(tmp_path: Path) -> None:
    async with serving(tmp_path) as service, paired(service) as pair:
        _, answer = await ask(service, pair.wallet_token)
        assert answer == {"ice_servers": [], "expires_in": 600, "more": False}


# What it is good for


async def test_what_the_service_hands_out_opens_a_relay_and_an_expired_or_altered_one_does_not(
    tmp_path: Path,
) -> None:
    now = time.time()
    username, password = credential(now)
    until, _, name = username.partition(":")
    async with coturn(tmp_path, documented()) as address:
        async with relay_at(address, username, password) as relay:
            await relay.allocate()
        for bad in (
            credential(now - 610),  # good until ten seconds ago
            (f"{int(until) + 3600}:{name}", password),  # for longer
            (f"{until}:somebody", password),
            (username, ("A" if password[0] != "A" else "B") + password[1:]),
            credential(now, SECRET[::-1]),  # made with another secret
            ("me", "secret"),
        ):
            async with relay_at(address, *bad) as relay:
                with pytest.raises(Refused, match="401"):
                    await relay.allocate()


# Where it does not lead


async def test_the_documented_relay_leads_into_no_private_network(tmp_path: Path) -> None:
    async with coturn(tmp_path, documented()) as address:
        async with relay_at(address, *credential(time.time())) as relay:
            await relay.allocate()
            for public in PUBLIC:
                await relay.permit(public)  # asking sends nothing there
            for private in PRIVATE:
                for way in (relay.permit, relay.bind):
                    with pytest.raises(Refused, match="403"):
                        await way(private)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_nor_does_it_over_ipv6(tmp_path: Path) -> None:
    options = ("--relay-ip=::1", "--allocation-default-address-family=ipv6")
    async with coturn(tmp_path, documented(), *options) as address:
        async with relay_at(address, *credential(time.time())) as relay:
            await relay.allocate()
            await relay.permit("2606:4700:4700::1111")
            for private in PRIVATE_6:
                with pytest.raises(Refused, match="403"):
                    await relay.permit(private)


async def test_without_the_list_it_would(tmp_path: Path) -> None:
    """The list is what refuses; coturn's defaults do not."""
    config = re.sub(r"^denied-peer-ip=.*\n", "", documented(), flags=re.MULTILINE)
    async with coturn(tmp_path, config) as address:
        async with relay_at(address, *credential(time.time())) as relay:
            await relay.allocate()
            for private in ("10.0.0.1", "192.168.0.1", "169.254.169.254"):
                await relay.permit(private)


# All of it


async def path_of(service: Service, transport: TransportFactory) -> set[str]:
    """Pair, and say how the two ends reach each other."""
    wallet, kinds = Wallet(ACCOUNT, Yes()), set[str]()
    async with (
        open_node(transports=[transport]) as website,
        open_node(transports=[transport], protocols={PROTOCOL: wallet.serve}) as node,
        invite(website, service=service.url, origin="https://shop.example") as pending,
        trio.open_nursery() as nursery,
    ):

        async def link() -> None:
            invitation = Invitation.from_text_untrusted(str(pending.invitation), now=0)
            kinds.add((await (await wallet.link(node, invitation)).path()).kind)

        nursery.start_soon(link)
        kinds.add((await (await pending.linked()).connection.path()).kind)
    return kinds


async def test_a_pairing_goes_through_the_relay_that_the_service_named(tmp_path: Path) -> None:
    config = re.sub(
        r"^denied-peer-ip=.*\n", "", documented(), flags=re.MULTILINE
    )  # both ends are on 127.0.0.1
    engine = AiortcEngine(addresses=["127.0.0.1"], gather_timeout=10, relay_only=True)
    async with coturn(tmp_path, config, "--allow-loopback-peers") as (host, port):
        turn = f"turn:{host}:{port}?transport=udp"
        async with serving(tmp_path, *flags(tmp_path, turn)) as service:
            assert await path_of(service, webrtc(engine=engine)) == {"relayed"}


async def test_whoever_takes_no_servers_from_the_service_uses_none(tmp_path: Path) -> None:
    port = free_port()
    options = (*flags(tmp_path, "turn:127.0.0.1:9?transport=udp"), "--metrics", f"127.0.0.1:{port}")
    async with serving(tmp_path, *options) as service:
        engine = AiortcEngine(addresses=["127.0.0.1"])
        assert await path_of(service, webrtc(engine=engine, take_offered=False)) == {"direct"}
        answers = (await numbers(port))["handclasp_answers_total{200}"]
        assert answers == 2, "a challenge and a link; nobody asked for servers"


async def test_a_service_that_names_servers_which_are_not_there_does_not_stop_a_direct_pairing(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, *flags(tmp_path, "turn:127.0.0.1:9?transport=udp")) as service:
        assert await path_of(service, webrtc(engine=AiortcEngine(addresses=["127.0.0.1"]))) == {"direct"}
