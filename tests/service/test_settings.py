from __future__ import annotations

import json
import logging
from contextlib import suppress
from typing import Any

import pytest

from handclasp.errors import ConfigurationError
from handclasp.service import Settings
from handclasp.service.journal import describe, server_logging
from handclasp.service.logs import JsonLines
from handclasp.service.settings import PresenceSettings
from handclasp.service.strict import FRAME_LENGTH, MESSAGE_LENGTH
from handclasp.service.wire import URL_LENGTH


def test_the_numbers_are_those_of_the_protocol() -> None:
    settings = Settings()
    assert (settings.challenge_life, settings.nonce_life, settings.pairing_life) == (120, 300, 300)
    assert (settings.grace, settings.headers_within, settings.first_frame_within) == (5, 5, 5)
    assert settings.body_within == 10
    assert (settings.messages, settings.outbox, settings.mailboxes) == (256, 64, 100_000)
    assert (settings.direction_length, settings.stored_length) == (2**20, 2**28)
    presence = settings.presence
    assert (presence.sockets, presence.records, presence.changes) == (10_000, 1_000, 1_000_000)
    assert (presence.advertised, presence.sought) == (64, 64)
    assert (presence.channels, presence.incoming, presence.channel_life) == (64, 256, 60)
    assert (presence.channel_messages, presence.channel_length) == (64, 2**20)
    assert (presence.socket_length, presence.waiting_length, presence.records_length) == (2**21, 2**28, 2**26)
    assert (presence.answers, presence.burst, presence.rate) == (256, 256, 16)
    assert (MESSAGE_LENGTH, FRAME_LENGTH, URL_LENGTH) == (65_535, 96 * 1024, 2048)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "5", None])
def test_a_setting_that_is_no_positive_number_is_named(value: object) -> None:
    with pytest.raises(ConfigurationError, match="grace"):
        Settings(grace=value)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"challenge_life": 301}, "challenge_life"),
        ({"nonce_life": 301}, "nonce_life"),
        ({"nonce_life": 100}, "nonce_life"),
        ({"direction_length": 87_379}, "direction_length"),
        ({"stored_length": 2**20 - 1}, "stored_length"),
        ({"presence": {"channel_length": 87_379}}, "channel_length"),
        ({"presence": {"socket_length": 87_379}}, "socket_length"),
        ({"presence": {"waiting_length": 2**21 - 1}}, "waiting_length"),
        ({"presence": {"burst": 0}}, "burst"),
    ],
)
def test_settings_that_contradict_each_other_or_the_protocol_are_named(
    changes: dict[str, Any], name: str
) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Settings(
            **{
                each: PresenceSettings(**value) if each == "presence" else value
                for each, value in changes.items()
            }
        )


def test_the_loggers_of_the_server_are_as_before_when_it_has_ended() -> None:
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "uvicorn.asgi", "handclasp.service")]
    before = [(each.level, list(each.filters)) for each in loggers]
    with suppress(RuntimeError), server_logging(logging.DEBUG):
        assert [(each.level, list(each.filters)) for each in loggers] != before
        raise RuntimeError
    assert [(each.level, list(each.filters)) for each in loggers] == before


def test_a_failure_of_the_server_is_told_without_its_message(caplog: pytest.LogCaptureFixture) -> None:
    secret = "c4n" + "4ry"  # in pieces, or the line of code would show it
    with server_logging(logging.INFO):
        try:
            int(secret)
        except ValueError:
            logging.getLogger("uvicorn.error").exception("a failure")
    assert "a failure" in caplog.text
    assert "ValueError" in caplog.text
    assert secret not in caplog.text


def test_a_flood_of_failures_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with server_logging(logging.INFO):
        for number in range(1000):
            logging.getLogger("asyncio").error(
                f"Fatal error on transport\nprotocol: <object at {number}>"  # noqa: G004 - as asyncio does
            )
            logging.getLogger("uvicorn.error").error("a failure")
    assert caplog.text.count("Fatal error on transport") == 10
    assert caplog.text.count("a failure") == 10
    assert "protocol" not in caplog.text


def test_a_line_of_json_holds_types_and_places_of_an_error_and_one_line_only() -> None:
    secret = "c4n" + "4ry"
    try:
        int(secret)
    except ValueError as exc:
        info = (type(exc), exc, exc.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, __file__, 1, "two\nlines of %s", ("text",), info)
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["level"], line["logger"], line["message"]) == ("error", "a", "two\nlines of text")
    assert line["error"].startswith("ValueError")
    assert secret not in text


def test_every_error_of_a_group_is_described_and_none_quoted() -> None:
    secret = "c4n" + "4ry"
    text = describe(ExceptionGroup(secret, [KeyError(secret), ExceptionGroup("", [OSError(secret)])]))
    assert text == "KeyError\nOSError"
