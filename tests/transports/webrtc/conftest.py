"""What is true of WebRTC is tested on every engine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import pytest

from handclasp.abc import TransportFactory
from handclasp.transports.webrtc import Engine, webrtc
from handclasp.transports.webrtc.aiortc import AiortcEngine

#: Makes an engine; takes what `AiortcEngine` and `NativeEngine` both take.
EngineFactory = Callable[..., Engine]


def native_engine() -> EngineFactory:
    """`NativeEngine`; skips where its extra cannot be installed, but not in CI."""
    if importlib.util.find_spec("wrtc") is None:
        reason = "the extra 'native' is missing: 'make test' installs it where wrtc has a wheel"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from handclasp.transports.webrtc.native import NativeEngine

    return NativeEngine


@pytest.fixture
def aiortc() -> EngineFactory:
    return AiortcEngine


@pytest.fixture
def native() -> EngineFactory:
    return native_engine()


@pytest.fixture(params=["aiortc", "native"])
def engine(request: pytest.FixtureRequest) -> EngineFactory:
    """Each engine in turn."""
    return AiortcEngine if request.param == "aiortc" else native_engine()


@pytest.fixture
def loopback_webrtc(engine: EngineFactory) -> TransportFactory:
    """The WebRTC transport on each engine in turn, on 127.0.0.1."""
    return webrtc(engine=engine(addresses=["127.0.0.1"]))
