"""The documented configurations of nginx and Caddy, in front of a real service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from ..ports import free_port  # noqa: TID252 - no installed package
from ..serving import Service, connected, paired, serving, talk  # noqa: TID252 - tests are no installed package

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "run-on-several-machines.md").read_text()


def documented(language: str) -> str:
    (config,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return config


def program(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(f"/usr/sbin/{name}")
    if found is None:
        reason = f"{name} is not installed (Debian: apt-get install {package})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@asynccontextmanager
async def proxy(service: Service, name: str, folder: Path) -> AsyncGenerator[Service]:
    """The service as it looks through a proxy; its second instance is down."""
    port, dead = free_port(), free_port()
    there = f"127.0.0.1:{service.address[1]}"
    if name == "nginx":
        config = documented("nginx").replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
        config = re.sub(r"ssl_certificate(_key)? .*\n", "\n", config)
        config = config.replace("10.0.0.11:8787", there).replace("10.0.0.12:8787", f"127.0.0.1:{dead}")
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = config.replace("http {", "http {\n" + paths, 1)
        file = folder / "nginx.conf"
        file.write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log stderr;\n" + config
        )
        command = [program("nginx", "nginx-light"), "-p", str(folder), "-e", "stderr", "-c", str(file)]
    else:
        config = documented("caddy").replace("signal.example {", f"http://:{port} {{\n\tbind 127.0.0.1")
        config = config.replace("10.0.0.11:8787", there).replace("10.0.0.12:8787", f"127.0.0.1:{dead}")
        file = folder / "Caddyfile"
        file.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + config)
        command = [program("caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", str(file)]
    log = folder / f"{name}.log"
    environment = {
        **os.environ,
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "HOME": str(folder),
    }
    with log.open("wb") as output:
        process = await trio.lowlevel.open_process(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    proxied = Service(service.process, f"ws://127.0.0.1:{port}", service.log)
    try:
        with trio.fail_after(30):
            while not await answers(proxied):
                assert process.poll() is None, log.read_text()
                await trio.sleep(0.02)
        yield proxied
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def answers(service: Service) -> bool:
    try:
        async with connected(service) as raw:
            return (await raw.request("GET", "/health"))[0] == 200
    except (OSError, EOFError, trio.BrokenResourceError):
        return False


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_a_pairing_through_the_documented_proxy(tmp_path: Path, name: str) -> None:
    async with (
        serving(tmp_path, "--proxies", "127.0.0.1") as service,
        proxy(service, name, tmp_path) as proxied,
    ):
        for _ in range(4):  # one of the two instances is down, which nobody notices
            async with paired(proxied) as pair:
                await talk(pair, "A" * 80_000)


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_the_service_counts_by_client_behind_the_documented_proxy(tmp_path: Path, name: str) -> None:
    flags = ("--proxies", "127.0.0.1", "--address-burst", "4", "--address-rate", "0.01")
    async with serving(tmp_path, *flags) as service, proxy(service, name, tmp_path) as proxied:

        async def ask(source: str, forged: int) -> int:
            async with connected(proxied, source) as raw:
                return (await raw.request("GET", "/nothing", X_Forwarded_For=f"192.0.2.{forged}"))[0]

        assert [await ask("127.0.0.66", n) for n in range(5)] == [404] * 4 + [429], (
            "what a client writes is nothing"
        )
        assert await ask("127.0.0.67", 0) == 404
