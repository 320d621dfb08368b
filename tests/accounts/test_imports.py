import subprocess
import sys

import pytest

from handclasp import accounts


def printed_by(script: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after *code*."""
    return set(printed_by(f"import sys\n{code}\nprint(*sys.modules)").split())


def test_importing_the_package_loads_none_of_its_parts() -> None:
    loaded = loaded_after("import handclasp.accounts")
    assert {name for name in loaded if name.startswith("handclasp.accounts.")} == set()
    assert not loaded & {"eth_account", "eth_hash", "eth_keys", "Crypto"}


def test_reading_and_checking_a_message_does_not_load_eth_account() -> None:
    text = (
        "example.com wants you to sign in with your Ethereum account:\n"
        "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2\n\n\nURI: https://example.com\nVersion: 1\nChain ID: 1\n"
        "Nonce: 32891756\nIssued At: 2026-01-02T03:04:05Z\nExpiration Time: 2026-01-02T03:14:05Z"
    )
    loaded = loaded_after(
        f"""
from handclasp.accounts import Expectation, SignInMessage, check
message = SignInMessage.from_text_untrusted({text!r})
expectation = Expectation(
    domain=message.domain, uri=message.uri, nonce=message.nonce, chain_ids=frozenset({{message.chain_id}}),
    request_id=None, resources=(), address=message.address,
)
check(message, expectation, now=message.issued_at)
"""
    )
    assert {"handclasp.accounts.siwx", "eth_hash"} <= loaded
    assert not loaded & {"eth_account", "eth_keys"}


SOLANA = """\
example.com wants you to sign in with your Solana account:
GwAF45zjfyGzUbd3i3hXxzGeuchzEZXwpRYHZM5912F1

URI: https://example.com
Version: 1
Chain ID: 5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp
Nonce: 32891756
Issued At: 2026-01-02T03:04:05Z"""
READ = f"from handclasp.accounts import *\nSignInMessage.from_text_untrusted({SOLANA!r})"


@pytest.mark.parametrize(
    ("code", "used", "not_used"),
    [
        (READ, "base58", {"eth_account", "eth_hash", "cryptography", "nacl", "anyio", "httpx"}),
        (
            "from handclasp.accounts import Eip155Verifier\nEip155Verifier()",
            "handclasp.accounts.eip155_verifier",
            {"eth_account", "eth_hash", "cryptography", "nacl", "anyio", "httpx", "base58"},
        ),
        (
            "from handclasp.accounts import SolanaVerifier\nSolanaVerifier()",
            "nacl",
            {"eth_account", "eth_hash", "cryptography", "anyio", "httpx"},
        ),
    ],
    ids=["a message", "eip155", "solana"],
)
def test_each_namespace_loads_what_it_needs(code: str, used: str, not_used: set[str]) -> None:
    loaded = loaded_after(code)
    assert used in loaded
    assert not loaded & not_used


USES = [
    "accounts.preload()",
    "accounts.LocalAccount.generate()",
    "accounts.recover_message('text', '0x' + '01' * 65)",
    "accounts.recover_typed_data(typed, '0x' + '01' * 65)",
]


@pytest.mark.parametrize("use", USES)
def test_signing_and_verifying_leave_the_recursion_limit_as_it_was(use: str) -> None:
    # eth-account's import raises it to 100,000, where this text ends the process instead of the call
    script = f"""
import json, sys
from handclasp import accounts
typed = {{
    "types": {{"EIP712Domain": [{{"name": "name", "type": "string"}}], "A": [{{"name": "b", "type": "bool"}}]}},
    "primaryType": "A", "domain": {{"name": "Test"}}, "message": {{"b": True}},
}}
{use}
assert "eth_account" in sys.modules
try:
    json.loads("[" * 99_000)
except RecursionError:
    print(sys.getrecursionlimit())
"""
    assert printed_by(script) == "1000\n"


WATCH = """
import sys, threading
from handclasp import accounts
real = sys.setrecursionlimit
def watch(limit):
    real(limit)
    changed(limit)
sys.setrecursionlimit = watch
"""


def test_the_recursion_limit_is_raised_only_before_the_bulk_of_eth_account_loads() -> None:
    # Other threads parse what strangers send meanwhile.
    script = f"""{WATCH}
seen = []
def changed(limit):
    seen.append((limit, "eth_account" in sys.modules))
accounts.preload()
print(seen[:2], sorted(set(seen[2:])), "eth_account" in sys.modules)
"""
    assert printed_by(script) == "[(100000, False), (1000, False)] [(1000, True)] True\n"


def test_a_second_thread_that_comes_while_the_limit_is_raised_does_not_keep_it_so() -> None:
    script = f"""{WATCH}
seen = []
second = threading.Thread(target=accounts.LocalAccount.generate)
def changed(limit):
    seen.append(limit)
    if len(seen) == 1:
        second.start()
        second.join(0.05)  # as far as it comes while this thread is loading
accounts.LocalAccount.generate()
second.join()
print(seen[0], set(seen[1:]), sys.getrecursionlimit())
"""
    assert printed_by(script) == "100000 {1000} 1000\n"


VERIFY = """accounts.verify_message(
    "Some data",
    "0xb91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
    "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a0291c",
    "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23",
)"""


def done_at_once(first: str, second: str, point: str) -> str:
    """Run *first* in a thread, and *second* in another as soon as the module *point* is loading."""
    return printed_by(
        f"""
import importlib, sys, threading
from handclasp import accounts
done = []
barrier = threading.Barrier(2)
def one():
    barrier.wait()
    {first}
    done.append("one")
def two():
    barrier.wait()
    while ones.is_alive() and {point!r} not in sys.modules:
        ones.join(0.001)  # not a bare loop, which would take the other thread's time
    {second}
    done.append("two")
ones, twos = threading.Thread(target=one), threading.Thread(target=two)
ones.start()
twos.start()
ones.join()
twos.join()
assert {point!r} in sys.modules
print(*sorted(done))
"""
    )


# eth-account's modules import each other: a second thread that enters the circle elsewhere breaks both
@pytest.mark.parametrize(
    "point", ["sys", "handclasp.accounts.eip155", "eth_account", "eth_abi", "eth_keyfile"]
)
def test_preloading_and_verifying_at_the_same_time_both_succeed(point: str) -> None:
    assert done_at_once("accounts.preload()", VERIFY, point) == "one two\n"


@pytest.mark.parametrize("point", ["sys", "eth_account"])
def test_verifying_while_the_application_imports_eth_account_succeeds(point: str) -> None:
    assert done_at_once("importlib.import_module('eth_account')", VERIFY, point) == "one two\n"


def test_what_is_loaded_already_is_not_loaded_again() -> None:
    script = f"""{WATCH}
seen = []
changed = seen.append
accounts.preload()
before = len(seen), set(sys.modules)
accounts.preload()
print((len(seen), set(sys.modules)) == before, len(seen) > 0)
"""
    assert printed_by(script) == "True True\n"


def test_every_public_name_is_there() -> None:
    for name in accounts.__all__:
        assert getattr(accounts, name).__name__ == name
        assert name in dir(accounts)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = accounts.nonsense
