"""Backends named by URLs: what is found, and what the error says when nothing is, or too much."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from handclasp.abc import Context
from handclasp.errors import ConfigurationError
from handclasp.identity import Identity
from handclasp.node.plugins import (
    DISCOVERY_GROUP,
    TRANSPORTS_GROUP,
    discovery_from_url,
    transport_from_url,
)
from handclasp.transports.webrtc.transport import WebRTCTransport

BACKEND = """
from contextlib import asynccontextmanager
from handclasp.errors import ConfigurationError

def from_url(url):
    if url.endswith("?nonsense"):
        raise ConfigurationError(f"{url}: unknown option 'nonsense'")

    @asynccontextmanager
    async def open_backend(context):
        yield (url, context.identity.peer_id)

    return open_backend
"""


class Site:
    """A directory on the import path, with distributions in it as pip would leave them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, entry_points: str, source: str = BACKEND) -> None:
        (self.path / f"{name}.py").write_text(source)
        info = self.path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entry_points)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.syspath_prepend(tmp_path)
    return Site(tmp_path)


def entry(scheme: str, target: str, group: str = DISCOVERY_GROUP) -> str:
    return f"[{group}]\n{scheme} = {target}\n"


async def test_an_installed_backend_is_opened_by_its_url(site: Site) -> None:
    site.install("plug_one", entry("plugged", "plug_one:from_url"))
    alice = Identity.generate()
    async with discovery_from_url("plugged://host:1/path?x=1")(Context(alice)) as backend:
        assert backend == ("plugged://host:1/path?x=1", alice.peer_id)


async def test_discovery_and_transports_are_two_groups(site: Site) -> None:
    site.install("plug_two", entry("plugged", "plug_two:from_url", TRANSPORTS_GROUP))
    async with transport_from_url("plugged:")(Context(Identity.generate())) as (url, _):  # type: ignore[misc]
        assert url == "plugged:"
    with pytest.raises(ConfigurationError, match=r"handclasp\.discovery"):
        discovery_from_url("plugged:")


async def test_our_own_transport_has_a_url() -> None:
    factory = transport_from_url("webrtc:?address=127.0.0.1")
    async with factory(Context(Identity.generate())) as transport:
        assert isinstance(transport, WebRTCTransport)


def test_a_backend_is_imported_when_its_url_is_used_and_not_before(site: Site) -> None:
    site.install("plug_lazy", entry("lazy", "plug_lazy:from_url"))
    site.install("plug_other", entry("other", "plug_other:from_url"))
    discovery_from_url("other:")
    assert "plug_lazy" not in sys.modules
    discovery_from_url("lazy:")
    assert "plug_lazy" in sys.modules


def test_an_unknown_scheme_is_answered_with_those_that_are_known(site: Site) -> None:
    site.install("plug_known", entry("known-one", "plug_known:from_url"))
    with pytest.raises(
        ConfigurationError, match=r"no installed package handles unknown: .*known-one:"
    ) as caught:
        discovery_from_url("unknown://host")
    assert "mdns:" in str(caught.value), "ours are known, too"


@pytest.mark.parametrize("url", ["", "known-one", "//host", "/path"])
def test_what_is_no_url_is_answered_in_the_same_way(site: Site, url: str) -> None:
    site.install("plug_known", entry("known-one", "plug_known:from_url"))
    with pytest.raises(ConfigurationError, match=r"is not a URL.*known-one:"):
        discovery_from_url(url)


def test_a_scheme_that_two_packages_claim_is_refused_and_both_are_named(site: Site) -> None:
    site.install("plug_first", entry("claimed", "plug_first:from_url"))
    site.install("plug_second", entry("claimed", "plug_second:from_url"))
    with pytest.raises(
        ConfigurationError, match=r"several .* claimed: .*plug_first:from_url, plug_second:from_url"
    ):
        discovery_from_url("claimed:")


def test_a_package_that_is_found_twice_claims_its_scheme_once(site: Site, tmp_path: Path) -> None:
    # An editable installation beside an installed one has its entry points twice.
    site.install("plug_twice", entry("twice", "plug_twice:from_url"))
    (tmp_path / "plug_twice-1.0.dist-info").rename(tmp_path / "plug_again-1.0.dist-info")
    (tmp_path / "plug_twice.py").rename(tmp_path / "kept.py")
    site.install("plug_twice", entry("twice", "plug_twice:from_url"))
    assert discovery_from_url("twice:")


def test_a_package_that_a_backend_needs_and_is_not_there_is_named(site: Site) -> None:
    site.install("plug_needy", entry("needy", "plug_needy:from_url"), "import a_package_that_nobody_has\n")
    with pytest.raises(ConfigurationError, match=r"needy: needs .*a_package_that_nobody_has"):
        discovery_from_url("needy:")


def test_what_a_backend_says_about_its_url_comes_out_as_it_is(site: Site) -> None:
    site.install("plug_strict", entry("strict", "plug_strict:from_url"))
    with pytest.raises(ConfigurationError, match="unknown option 'nonsense'"):
        discovery_from_url("strict:?nonsense")
