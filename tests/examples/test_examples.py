"""The examples and the README's program do what they say, connected over 127.0.0.1 only."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from types import ModuleType

import pytest
import trio
import trio.testing

from handclasp import webrtc
from handclasp.scope import open_scope
from handclasp.testing import open_service
from handclasp.transports.webrtc.aiortc import AiortcEngine

ROOT = Path(__file__).parents[2]


def load(name: str, source: str) -> ModuleType:
    """The program as a module whose WebRTC stays on this machine."""
    module = ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 - our own examples
    module.__dict__["webrtc"] = functools.partial(webrtc, engine=AiortcEngine(addresses=["127.0.0.1"]))
    return module


async def test_the_echo_example_gets_its_echo(capsys: pytest.CaptureFixture[str]) -> None:
    await load("echo", (ROOT / "examples/echo.py").read_text()).main()
    assert capsys.readouterr().out == "hello, alice\n"


async def test_the_hello_example_greets_who_visits(capsys: pytest.CaptureFixture[str]) -> None:
    hello = load("hello", (ROOT / "examples/hello.py").read_text())
    async with open_scope() as scope:
        scope.start_soon(hello.wait)
        address = ""
        while not address:  # until it has printed where it waits
            await trio.testing.wait_all_tasks_blocked(0.01)
            address = capsys.readouterr().out.strip()
        await hello.visit(address)
    assert capsys.readouterr().out == "hello, Ada\n"


async def test_the_readme_website_gets_a_signature_from_the_example_wallet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["wallet.py", "--yes"])
    program = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert program is not None
    website = load("readme", program[1])
    wallet = load("wallet", (ROOT / "examples/wallet.py").read_text())
    signatures: list[str] = []

    async def run_website(service: str) -> None:
        signatures.append(await website.website(service))

    async with open_service() as service, trio.open_nursery() as nursery:
        nursery.start_soon(run_website, service)
        uri = ""
        while not uri:  # until the website has printed its invitation
            await trio.testing.wait_all_tasks_blocked(0.01)
            uri = capsys.readouterr().out.strip()
        await wallet.main(uri)

    assert capsys.readouterr().out.startswith("linked eip155:1:0x")
    assert re.fullmatch(r"0x[0-9a-f]{130}", signatures[0])
