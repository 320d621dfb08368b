"""The service for `benchmarks.service`: ``python -m benchmarks.relay_handclasp PORT``."""

from __future__ import annotations

import json
import logging
import sys

from handclasp.service import Settings, serve

#: Without the limits that keep strangers from doing what a benchmark does: endless messages, thousands of sockets.
LIMITS = {"messages": 10**8, "direction_length": 10**11, "stored_length": 10**12, "challenge_life": 300.0}


def main(port: str) -> None:
    serve(
        port=int(port),
        ready=lambda _: print(json.dumps({"ready": True}), flush=True),
        settings=Settings(**LIMITS),
        log_level=logging.WARNING,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
