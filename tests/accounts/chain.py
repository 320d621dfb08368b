"""A real Ethereum node (anvil) on a free port, and contracts to put on it.

``contracts/compiled.json`` holds what solc made of ``contracts/Wallet.sol``; the compiler and its settings stand in
it. The contracts that misbehave are a few bytes each, and stand here as such.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from eth_account import Account

from handclasp.accounts import ChainId, LocalAccount, checksum_address
from handclasp.accounts.keccak import keccak256

HERE = Path(__file__).parent
COMPILED: dict[str, str] = json.loads((HERE / "contracts" / "compiled.json").read_text())
CHAIN = ChainId("eip155", "31337")  # anvil's own
OWNER = LocalAccount(Account.from_key(b"\1" * 32))
NEXT_OWNER = LocalAccount(Account.from_key(b"\2" * 32))
STRANGER = LocalAccount(Account.from_key(b"\3" * 32))

# PUSH4 magic, SHL by 224 bits, MSTORE at 0: what follows decides how much of it is returned, and how.
_MAGIC = "631626ba7e 60e0 1b 6000 52"
ALWAYS = bytes.fromhex(f"{_MAGIC} 6020 6000 f3")
MISBEHAVING = {
    "another magic": "63ffffffff 60e0 1b 6000 52 6020 6000 f3",
    "zero": "6020 6000 f3",
    "one": "6001 6000 52 6020 6000 f3",
    "the magic at the wrong end": "631626ba7e 6000 52 6020 6000 f3",
    "the magic with a tail": f"{_MAGIC} 6001 601f 53 6020 6000 f3",
    "31 bytes": f"{_MAGIC} 601f 6000 f3",
    "33 bytes": f"{_MAGIC} 6021 6000 f3",
    "4 bytes": f"{_MAGIC} 6004 6000 f3",
    "64 bytes": f"{_MAGIC} 6040 6000 f3",
    "nothing": "00",
    "a revert": "6000 6000 fd",
    "a revert with the magic": f"{_MAGIC} 6020 6000 fd",
    "an invalid instruction": "fe",
    "all gas": "5b 6000 56",
    "yes, if nobody asks": "32 15 600a 57 6000 6000 fd 5b" + f"{_MAGIC} 6020 6000 f3",  # tx.origin is zero
}
HUGE = bytes.fromhex("62200000 6000 f3")  # returns 2 MiB


class Node:
    """A node of our own, which mines each transaction at once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(trust_env=False)
        self._rich: str = self.ask("eth_accounts")[0]

    def ask(self, method: str, *params: object):  # type: ignore[no-untyped-def]  # noqa: ANN201 - any JSON
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = self._client.post(self.url, json=request, timeout=60).json()
        assert "error" not in reply, reply
        return reply["result"]

    def send(self, to: str | None, data: bytes) -> str | None:
        """Send a transaction, which has to succeed; the address of what it created."""
        transaction = {"from": self._rich, "data": f"0x{data.hex()}", "gas": hex(5_000_000)}
        sent = self.ask("eth_sendTransaction", transaction | ({} if to is None else {"to": to}))
        until = time.monotonic() + 60
        while (receipt := self.ask("eth_getTransactionReceipt", sent)) is None:  # it is being mined
            assert time.monotonic() < until
        assert receipt["status"] == "0x1"
        created: str | None = receipt["contractAddress"]
        return None if created is None else checksum_address(created)

    def create(self, creation: bytes) -> str:
        """Create a contract; its address."""
        address = self.send(None, creation)
        assert address is not None
        return address

    def place(self, code: bytes) -> str:
        """Create a contract with *code*, its address."""
        # PUSH2 length, DUP1, PUSH1 where the code begins, CODECOPY to 0, RETURN it
        return self.create(bytes.fromhex(f"61{len(code):04x} 80 600c 6000 39 6000 f3") + code)

    def set_code(self, address: str, code: bytes) -> None:
        self.ask("anvil_setCode", address, f"0x{code.hex()}")

    def code(self, address: str) -> str:
        code: str = self.ask("eth_getCode", address, "latest")
        return code

    def close(self) -> None:
        self._client.close()


def creation_of_wallet(owner: str, following: str = STRANGER.address) -> bytes:
    return bytes.fromhex(COMPILED["Wallet"]) + _words(owner, following)


def make_wallet(owner: str, following: str = STRANGER.address) -> bytes:
    """The call that lets the factory make a wallet."""
    return bytes.fromhex("24b1f8db") + _words(owner, following)


SETTLE = bytes.fromhex("11da60b4")


def address_of_wallet(factory: str, owner: str, following: str = STRANGER.address) -> str:
    """Where the factory makes it (EIP-1014)."""
    salt = bytes(32)
    hashed = keccak256(creation_of_wallet(owner, following))
    return checksum_address("0x" + keccak256(b"\xff" + bytes.fromhex(factory[2:]) + salt + hashed)[12:].hex())


def _words(*addresses: str) -> bytes:
    return b"".join(bytes(12) + bytes.fromhex(address[2:]) for address in addresses)


@contextmanager
def run_node() -> Generator[Node]:
    """Run anvil until the block ends; skip where it is not installed."""
    with subprocess.Popen(
        [_program(), "--host", "127.0.0.1", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:  # to its end if the program ends early
                said += line
                if line.startswith("Listening on "):
                    break
            else:
                pytest.fail(f"anvil ended: {said}")
            # It goes on talking, and would stop when nobody listens.
            listener = threading.Thread(target=process.stdout.read)
            listener.start()
            node = Node(f"http://{line.split()[-1]}")
            yield node
            node.close()
        finally:
            process.kill()
    listener.join()


def _program() -> str:
    installed = sorted((HERE / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil*"))
    program = str(installed[0]) if installed else shutil.which("anvil")
    if program is None:
        reason = "no Ethereum node is installed (make anvil, which needs npm; Debian: apt-get install npm)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program
