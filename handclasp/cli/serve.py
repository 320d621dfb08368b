"""``handclasp serve``: the signaling service as a program."""

from __future__ import annotations

import logging

from handclasp.service import serve

from .terminal import Output


def run(output: Output, host: str, port: int, log_level: str) -> None:
    """Serve until interrupted."""
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s %(message)s")

    def ready(http_url: str) -> None:
        url = "ws" + http_url.removeprefix("http")  # what invitations and --service hold
        output.event("ready", f"signaling service on [bold]{url}[/bold] (Ctrl-C ends it)", service=url)

    serve(host, port, ready=ready, log_level=logging.getLevelNamesMapping()[log_level.upper()])
