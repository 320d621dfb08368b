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
    domain=message.domain, uri=message.uri, nonce=message.nonce, chain_ids=frozenset({{1}}),
    request_id=None, resources=(), address=message.address,
)
check(message, expectation, now=message.issued_at)
"""
    )
    assert {"handclasp.accounts.siwe", "eth_hash"} <= loaded
    assert not loaded & {"eth_account", "eth_keys"}


USES = [
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


def test_a_second_thread_that_comes_while_the_limit_is_raised_does_not_keep_it_so() -> None:
    script = """
import sys, threading
from handclasp.accounts import LocalAccount
first = threading.Thread(target=LocalAccount.generate)
first.start()
while sys.getrecursionlimit() == 1000:
    first.join(0.001)  # not a bare loop, which would take the other thread's time
    assert first.is_alive(), "the limit was never raised: nothing to guard against any more"
LocalAccount.generate()
first.join()
print(sys.getrecursionlimit())
"""
    assert printed_by(script) == "1000\n"


def test_every_public_name_is_there() -> None:
    for name in accounts.__all__:
        assert getattr(accounts, name).__name__ == name
        assert name in dir(accounts)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = accounts.nonsense
