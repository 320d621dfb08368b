"""One of several processes that serve: ``python -m handclasp.service.worker``, started by `workers` and by nobody else.

It inherits a socket that listens, and one to its supervisor on which lines travel: the supervisor sends the
configuration and then asks for numbers; the worker says when it is ready, and answers. When that socket ends, the
supervisor is gone, and the worker stops as if it had been told to.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from dataclasses import replace
from typing import BinaryIO, cast

from handclasp.errors import HandclaspError

from .app import SignalingApp
from .configuration import Configuration
from .logs import set_up_logging
from .metrics import take_snapshot
from .server import run


def encode(configuration: Configuration) -> bytes:
    """The line that a supervisor sends first: to a process of its own, over a socket that nobody else has."""
    return base64.b64encode(pickle.dumps(configuration)) + b"\n"


def main(listener: int, control: int) -> None:
    """Serve on the inherited file descriptors until a signal or the end of the supervisor."""
    with socket.socket(fileno=control) as connection, connection.makefile("rb") as lines:
        configuration = cast("Configuration", pickle.loads(base64.b64decode(lines.readline())))  # noqa: S301 - see `encode`
        set_up_logging(configuration.log_level, configuration.log_format)

        def started(app: SignalingApp) -> None:
            connection.sendall(b"ready\n")
            threading.Thread(target=_answer, args=(app, lines, connection), daemon=True).start()

        with socket.socket(fileno=listener) as inherited:
            level = logging.getLevelNamesMapping()[configuration.log_level.upper()]
            try:
                run(
                    replace(configuration, metrics=""),
                    inherited,
                    ready=None,
                    log_level=level,
                    started=started,
                )
            except HandclaspError as exc:
                logging.getLogger("handclasp.service").error("%s", exc)  # noqa: TRY400 - it is the sentence that counts
                sys.exit(1)


def _answer(app: SignalingApp, lines: BinaryIO, connection: socket.socket) -> None:
    try:
        while lines.readline():
            connection.sendall(json.dumps(take_snapshot(app)).encode() + b"\n")
    except (OSError, ValueError):  # closed by the end of `main`
        return
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
