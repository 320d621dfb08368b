"""Every protocol, over every way to find a peer and every way to connect: what moving from one to another rests on.

`make matrix` runs it and prints the table.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from handclasp.node import open_node

from .protocols import ROWS, Meeting, Server
from .table import Table
from .ways import DISCOVERY, TRANSPORTS, Discovery, Transport


@pytest.mark.parametrize("transport", TRANSPORTS, ids=lambda transport: transport.name)
@pytest.mark.parametrize("discovery", DISCOVERY, ids=lambda discovery: discovery.name)
async def test_every_protocol(
    discovery: Discovery, transport: Transport, tmp_path: Path, matrix_table: Table
) -> None:
    received = tmp_path / "received"
    received.mkdir()
    server, factory = Server(received), transport.open()
    async with (
        discovery.open() as (of_server, of_client),
        open_node(discovery=of_server, transports=[factory], protocols=server.handlers) as answering,
        open_node(discovery=of_client(answering.addresses), transports=[factory]) as client,
    ):
        meeting = Meeting(client, answering.peer_id, server, tmp_path)
        for name, row in ROWS.items():
            began = trio.current_time()
            try:
                await row(meeting)
            except Exception:
                matrix_table.put(transport.name, discovery.name, name, None)
                raise
            matrix_table.put(transport.name, discovery.name, name, trio.current_time() - began)
        assert list(client.connections) == [answering.peer_id]
