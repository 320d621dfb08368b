"""Questions to a chain that change nothing: what `Eip155Verifier` needs, and a JSON-RPC client that does it.

A node is believed in what it says of contract accounts and in nothing else; what it sends is bounded and
checked like anything from the network. Source: EIP-1474, and the ``error`` member of JSON-RPC 2.0 §5.1.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Protocol, cast

from handclasp.errors import ConfigurationError, ServiceUnavailable
from handclasp.jsontext import parse_json_untrusted
from handclasp.request_body import one_piece

from .caip import ChainId

if TYPE_CHECKING:
    import httpx

MAX_REPLY: Final = 1024 * 1024
"""Bytes of one reply. Code is the largest: 24 KiB by EIP-170, some chains allow ten times that, hex doubles it."""
GAS: Final = 30_000_000
"""Gas for one call: what a whole block had for years, a second of a node's time, ten costly verifications."""

_HEX: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_QUANTITY: Final = re.compile(r"0x(?:0|[1-9a-fA-F][0-9a-fA-F]{0,15})")
_OK: Final = 200
# EIP-1474 and JSON-RPC 2.0 §5.1: the node did not try. Every other code says that the call failed, or is used
# for that by some node.
_NOT_TRIED: Final = frozenset({-32700, -32600, -32601, -32602, -32001, -32002, -32004, -32005, -32006})


class ChainReader(Protocol):
    """Reads a chain of the namespace ``eip155`` as it is now. Cancelling leaves nothing behind."""

    async def code(self, chain: ChainId, address: str) -> bytes:
        """The code at *address* (``eth_getCode``), empty for an account that is a key.

        Raises:
            WorldFault: the node cannot be asked.
        """
        ...

    async def call(self, chain: ChainId, to: str | None, data: bytes) -> bytes | None:
        """What *to* returns to a message with *data* (``eth_call``), or None if it fails, for whatever reason.

        Without *to*, *data* is the code that creates a contract, and what it returns. The sender must not
        be the zero address, which contracts may take for a sign that nothing is at stake.

        Raises:
            WorldFault: the node cannot be asked.
        """
        ...


@asynccontextmanager
async def open_json_rpc(urls: Mapping[ChainId, str]) -> AsyncGenerator[ChainReader]:
    """Ask the nodes at *urls*, ``https:``, or ``http:`` on this machine: others could answer in their place.

    Each node is asked once which chain it serves: on another one, the same address can have another owner.
    Gas is limited to 30,000,000 a call and replies to 1 MiB. The reader is closed with the block.

    Raises:
        ConfigurationError: a URL is not of that kind.
    """
    for chain, url in urls.items():
        _check_url(chain, url)
    import httpx

    # Neither proxies nor credentials from the environment; a reply is read as it is, so a small one stays small.
    headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
    encrypted = any(
        url.startswith("https:") for url in urls.values()
    )  # else no TLS context, which takes 20 ms
    async with httpx.AsyncClient(trust_env=False, verify=encrypted, headers=headers) as client:
        yield _JsonRpc(client, dict(urls))


def _check_url(chain: ChainId, text: str) -> None:
    import httpx

    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as exc:
        # Without the URL: it may hold a key of the node's operator.
        raise ConfigurationError(f"the node for {chain} is not at a URL: {exc}") from None
    local = url.host in {"localhost", "127.0.0.1", "::1"}
    if not url.host or (url.scheme != "https" and not (url.scheme == "http" and local)):
        raise ConfigurationError(
            f"the node for {chain} has to be at an https: URL, or at http: on this machine"
        )


class _JsonRpc:
    """See `open_json_rpc`."""

    def __init__(self, client: httpx.AsyncClient, urls: Mapping[ChainId, str]) -> None:
        self._client = client
        self._urls = urls
        self._confirmed: set[ChainId] = set()

    async def code(self, chain: ChainId, address: str) -> bytes:
        reply = await self._ask(chain, "eth_getCode", [address, "latest"])
        if reply is None:
            raise _nonsense(chain)
        return reply

    async def call(self, chain: ChainId, to: str | None, data: bytes) -> bytes | None:
        # A sender that no contract can know, so none treats it differently.
        message = {"from": f"0x{secrets.token_hex(20)}", "gas": hex(GAS), "data": f"0x{data.hex()}"}
        if to is not None:
            message["to"] = to
        return await self._ask(chain, "eth_call", [message, "latest"])

    async def _ask(self, chain: ChainId, method: str, params: list[object]) -> bytes | None:
        if chain not in self._confirmed:
            await self._confirm(chain)
        result = await self._request_untrusted(chain, method, params)
        if result is None:
            return None
        if _HEX.fullmatch(result) is None:
            raise _nonsense(chain)
        return bytes.fromhex(result[2:])

    async def _confirm(self, chain: ChainId) -> None:
        served = await self._request_untrusted(chain, "eth_chainId", [])
        if served is None or _QUANTITY.fullmatch(served) is None:
            raise _nonsense(chain)
        if str(int(served, 16)) != chain.reference:
            raise ConfigurationError(f"the node for {chain} serves eip155:{int(served, 16)}")
        self._confirmed.add(chain)

    async def _request_untrusted(self, chain: ChainId, method: str, params: list[object]) -> str | None:
        """The result, or None if the node reports that the call failed."""
        body = await self._post_untrusted(
            chain, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        )
        try:
            value = parse_json_untrusted(body)
        except ValueError:
            raise _nonsense(chain) from None
        reply = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        error, result = reply.get("error"), reply.get("result")
        if isinstance(error, dict):
            code = cast("dict[str, object]", error).get("code")
            if not isinstance(code, int):
                raise _nonsense(chain)
            if code in _NOT_TRIED:
                raise ServiceUnavailable(f"the node for {chain} did not do {method} (error {code})")
            return None
        if not isinstance(result, str):
            raise _nonsense(chain)
        return result

    async def _post_untrusted(self, chain: ChainId, content: object) -> bytes:
        import httpx
        from anyio import CancelScope

        url = self._urls.get(chain)
        if url is None:
            raise ConfigurationError(f"no node is named for {chain}")
        body = json.dumps(content).encode()
        request = self._client.build_request("POST", url, content=body)
        request.stream = one_piece(body)
        try:
            response = await self._client.send(request, stream=True)
            try:
                return await _read_untrusted(chain, response)
            finally:
                with CancelScope(shield=True):
                    await response.aclose()
        except httpx.HTTPError as exc:
            raise ServiceUnavailable(f"the node for {chain} cannot be asked: {type(exc).__name__}") from exc


async def _read_untrusted(chain: ChainId, response: httpx.Response) -> bytes:
    from anyio import CancelScope

    # Some nodes answer an error with a status of its own, and the same JSON.
    if response.status_code != _OK and not _is_json(response):
        raise ServiceUnavailable(f"the node for {chain} answered with status {response.status_code}")
    body = bytearray()
    with CancelScope() as scope:
        async for piece in response.aiter_raw():  # compressed is no JSON
            body += piece
            if len(body) > MAX_REPLY:
                scope.cancel()  # to break off would leave httpx's generators half run
    if len(body) > MAX_REPLY:
        raise ServiceUnavailable(f"the node for {chain} answered with more than {MAX_REPLY} bytes")
    return bytes(body)


def _is_json(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip() == "application/json"


def _nonsense(chain: ChainId) -> ServiceUnavailable:
    return ServiceUnavailable(f"the node for {chain} answered with something that is no reply of a node")
