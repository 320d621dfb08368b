"""``handclasp serve``: the signaling service as a program."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .terminal import Output


def add_flags(parameters: list[click.Parameter]) -> None:
    """Put a flag for each option of the service before those that are there; once."""
    if not any(isinstance(each, _Flag) for each in parameters):
        parameters[:0] = _flags()


class _Flag(click.Option):
    """A flag that sets an option of the service."""


def _flags() -> list[click.Parameter]:
    from handclasp.service.configuration import LOG_FORMATS, LOG_LEVELS, options
    from handclasp.service.secret import Secret

    types: Mapping[type, Any] = {
        int: int,
        float: float,
        str: str,
        tuple: str,
        Path: click.Path(path_type=Path),
    }
    choices: Mapping[str, click.ParamType[Any]] = {
        "log_level": click.Choice(LOG_LEVELS),
        "log_format": click.Choice(LOG_FORMATS),
    }
    flags: list[click.Parameter] = []
    for option in options():
        if option.kind is Secret:
            continue
        is_list = option.kind is tuple
        default = "" if option.default in (None, "", ()) else f"  [default: {option.default}]"
        flags.append(
            _Flag(
                [option.flag, _parameter(option.key)],
                type=choices.get(option.key, types[option.kind]),
                multiple=is_list,
                metavar=None if option.key in choices else _METAVARS[option.kind],
                help=option.about.replace("`", "") + (" May be repeated." if is_list else "") + default,
            )
        )
    return flags


_METAVARS: Mapping[type, str] = {int: "N", float: "SECONDS", str: "TEXT", tuple: "TEXT", Path: "FILE"}


def _parameter(key: str) -> str:
    return key.replace(".", "__")


def run(output: Output, config: Path | None, given: Mapping[str, object]) -> None:
    """Serve until interrupted."""
    from handclasp.service.configuration import PREFIX, load
    from handclasp.service.logs import set_up_logging
    from handclasp.service.server import serve_as

    flags = {name.replace("__", "."): value for name, value in given.items() if value not in (None, ())}
    file = config or (Path(named) if (named := os.environ.get(f"{PREFIX}CONFIG")) else None)
    configuration = load(file, os.environ, flags)
    set_up_logging(configuration.log_level, configuration.log_format)

    def ready(http_url: str) -> None:
        url = "ws" + http_url.removeprefix("http")  # what invitations and --service hold
        output.event("ready", f"signaling service on [bold]{url}[/bold] (Ctrl-C ends it)", service=url)

    level = logging.getLevelNamesMapping()[configuration.log_level.upper()]
    serve_as(configuration, ready=ready, log_level=level)
