"""The verifier for ``eip155``: accounts that are keys, and accounts that are contracts.

In the order of ERC-6492: a signature that ends in its mark is unwrapped first; an account with code is
asked (ERC-1271); if it was wrapped, it is asked again after what the wrapper says was done; a key is
recovered last. An account with code of its own has no key, so its answer is final.
"""

from __future__ import annotations

import re
from typing import Final

from handclasp.errors import DeadlineExceeded, LinkRefused

from . import contracts
from .caip import AccountId
from .chain_reader import ChainReader
from .eip155 import checksum_address, verify_message
from .text import encode

_SIGNATURE: Final = re.compile(rf"0x(?:[0-9a-fA-F]{{2}}){{0,{contracts.MAX_SIGNATURE}}}")
_OF_A_KEY: Final = 65  # bytes


class Eip155Verifier:
    """Verifies texts that Ethereum accounts signed (EIP-191 version ``E``); signatures are ``0x`` and hex.

    Without *reader*, accounts that are keys only. Whoever answers for a chain decides which contract accounts
    sign in: let *reader* ask a node that you trust as much as your own users' table.
    """

    def __init__(self, reader: ChainReader | None = None, *, deadline: float = 10.0) -> None:
        """See the class.

        Args:
            reader: whom to ask about accounts that are contracts, as `open_json_rpc` makes one.
            deadline: seconds for all questions about one signature, at most three of them.
        """
        self._reader = reader
        self._deadline = deadline

    async def verify(self, account: AccountId, text: str, signature_untrusted: str) -> None:
        """See `handclasp.accounts.Verifier.verify`.

        Raises:
            LinkRefused: ``signature``: malformed, malleable, made by another key, or not accepted by the
                contract; ``address``: not an address.
            ProtocolViolation: *text* has a lone surrogate.
            DeadlineExceeded: the node did not answer in time.
            ServiceUnavailable: the node cannot be reached or answers nonsense.
            ConfigurationError: the reader has no node for this chain.
        """
        address = checksum_address(account.address)
        if _SIGNATURE.fullmatch(signature_untrusted) is None:
            raise LinkRefused(
                "signature", f"is not 0x and the hex digits of at most {contracts.MAX_SIGNATURE} bytes"
            )
        signature = bytes.fromhex(signature_untrusted[2:])
        prepared = contracts.unwrap_untrusted(signature)
        if self._reader is None:
            if prepared is not None or len(signature) != _OF_A_KEY:
                raise LinkRefused(
                    "signature", "is of a contract account, and no node is asked about those here"
                )
            verify_message(text, signature_untrusted, address)
            return

        from anyio import move_on_after

        asked = contracts.question(
            contracts.text_digest(encode(text)), signature if prepared is None else prepared.signature
        )
        accepted = None
        with move_on_after(self._deadline) as scope:
            accepted = await _accepts(self._reader, AccountId(account.chain, address), asked, prepared)
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"the node for {account.chain} did not answer in {self._deadline:g} seconds"
            )
        if accepted:
            return
        if accepted is False:
            raise LinkRefused("signature", "is not accepted by the contract at this address")
        verify_message(text, signature_untrusted, address)


async def _accepts(
    reader: ChainReader, account: AccountId, asked: bytes, prepared: contracts.Prepared | None
) -> bool | None:
    """Whether the contract at the address of *account* accepts; None if that is for a key to say."""
    code = await reader.code(account.chain, account.address)
    if code:
        answer = await reader.call(account.chain, account.address, asked)
        if answer is not None and contracts.is_yes(answer):
            return True
    if prepared is not None:
        creation = contracts.prepare_and_ask(account.address, prepared, asked)
        answer = await reader.call(account.chain, None, creation)
        return answer is not None and contracts.is_prepared_yes(answer)
    # A key stands above the contract that its account borrows: EIP-7702 lets it take the contract away.
    return False if code and not contracts.is_delegated(code) else None
