"""Several processes at one port: `handclasp serve --workers`."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest
import trio

from handclasp.errors import ConfigurationError
from handclasp.service.configuration import Configuration
from handclasp.service.metrics import add_up

from ..ports import free_port  # noqa: TID252 - no installed package
from ..serving import HANG, Raw, Service, connected, paired, serving, talk  # noqa: TID252 - no installed package


def workers_of(service: Service) -> list[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def flags(folder: Path, *more: str, workers: int = 2) -> tuple[str, ...]:
    return ("--workers", str(workers), "--state", f"sqlite:{folder}/state.db", *more)


async def answered(service: Service) -> bool:
    try:
        with trio.fail_after(5):
            async with connected(service) as raw:
                return (await raw.request("GET", "/health"))[0] == 200
    except (OSError, EOFError, trio.BrokenResourceError, trio.TooSlowError):
        return False


async def until_workers(service: Service, *, without: set[int], count: int) -> list[int]:
    with trio.fail_after(HANG):
        while True:
            found = workers_of(service)
            if len(found) == count and not without & set(found):
                return found
            await trio.sleep(0.01)


async def page(port: int, path: str) -> tuple[int, str]:
    sock = trio.socket.socket()
    with sock:
        await sock.connect(("127.0.0.1", port))
        status, _, body = await Raw(trio.SocketStream(sock)).request("GET", path)
        return status, body.decode()


def test_several_workers_without_a_state_that_they_share_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sqlite:PATH or redis://HOST"):
        Configuration(workers=2)


async def test_every_worker_takes_its_part_of_the_connections(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, *flags(tmp_path, "--metrics", f"127.0.0.1:{port}")) as service:
        assert len(workers_of(service)) == 2
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(answered, service)
        status, text = await page(port, "/metrics")
        assert status == 200
        assert 'handclasp_answers_total{status="200"} 60.0' in text
        assert "handclasp_workers 2.0" in text
        shares = Counter[int]()
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(_hold, service, shares)
        assert len(shares) == 2, shares
        assert min(shares.values()) >= 5, "the kernel deals them out"


async def _hold(service: Service, shares: Counter[int]) -> None:
    async with connected(service) as raw:
        assert (await raw.upgrade())[0] == 101
        host, port = raw.stream.socket.getsockname()
        shares[_owner(service, host, port)] += 1


def _owner(service: Service, host: str, port: int) -> int:
    """Which worker has the other end of a connection of ours."""
    packed = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
    inode = next(
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()
        if line.split()[2] == packed
    )
    for pid in workers_of(service):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if str(descriptor.readlink()) == f"socket:[{inode}]":
                return pid
    raise AssertionError("nobody has it")


async def test_a_worker_that_dies_is_replaced_and_no_connection_is_refused(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, *flags(tmp_path, "--metrics", f"127.0.0.1:{port}")) as service:
        before = workers_of(service)
        os.kill(before[0], signal.SIGKILL)
        results: list[bool] = []

        async def ask() -> None:
            results.append(await answered(service))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(ask)
        assert results.count(False) <= 1, "at most what the dead one had just accepted"
        after = await until_workers(service, without={before[0]}, count=2)
        assert before[1] in after
        assert "handclasp_worker_restarts_total 1.0" in (await page(port, "/metrics"))[1]
        assert (await page(port, "/ready"))[0] == 200


async def test_hangup_replaces_all_workers_one_by_one_and_no_connection_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service:
        before = set(workers_of(service))
        service.process.send_signal(signal.SIGHUP)
        with trio.fail_after(HANG):
            while before & set(workers_of(service)):
                assert await answered(service)
        assert await answered(service)
        assert len(await until_workers(service, without=before, count=2)) == 2


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", 0)])
async def test_a_signal_ends_all_workers_in_good_order(tmp_path: Path, name: str, status: int) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service:
        workers = workers_of(service)
        async with connected(service) as one, connected(service) as two, connected(service) as three:
            for raw in (one, two, three):
                assert (await raw.upgrade())[0] == 101
            service.process.send_signal(getattr(signal, name))
            for raw in (one, two, three):
                assert (await raw.expect("end"))["code"] == "restart"
                assert await raw.end() == 1012
        assert await service.wait() == status
        assert not any(map(is_alive, workers))


async def test_workers_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service:
        workers = workers_of(service)
        async with connected(service) as raw:
            assert (await raw.upgrade())[0] == 101
            service.process.kill()
            assert (await raw.expect("end"))["code"] == "restart"
        with trio.fail_after(HANG):
            while any(map(is_alive, workers)):  # noqa: ASYNC110 - nobody tells us
                await trio.sleep(0.01)


async def test_any_worker_serves_any_party(tmp_path: Path) -> None:
    async with serving(tmp_path, *flags(tmp_path)) as service:
        for _ in range(4):
            async with paired(service) as pair:
                await talk(pair)


async def test_workers_that_cannot_start_end_the_service_with_a_sentence(tmp_path: Path) -> None:
    """The state is in a folder that does not exist."""
    with pytest.raises(AssertionError) as failed:
        async with serving(tmp_path, "--workers", "2", "--state", "sqlite:/nowhere/state.db"):
            pass
    assert "workers end as soon as they start" in str(failed.value)


def test_numbers_of_workers_add_up() -> None:
    one = {"answers": {"200": 1.0}, "workers": {"": 1.0}}
    two = {"answers": {"200": 2.0, "404": 1.0}, "workers": {"": 1.0}}
    assert add_up([one, two]) == {"answers": {"200": 3.0, "404": 1.0}, "workers": {"": 2.0}}
    assert json.loads(json.dumps(add_up([one, two]))) == add_up([one, two])
