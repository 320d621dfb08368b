import pytest

from handclasp.discovery.signaling.address import ServiceAddress
from handclasp.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "canonical", "host", "multiaddr"),
    [
        (
            "wss://signal.example",
            "wss://signal.example",
            "signal.example",
            "/dns4/signal.example/tcp/443/wss",
        ),
        (
            "wss://Signal.Example:443/",
            "wss://signal.example",
            "signal.example",
            "/dns4/signal.example/tcp/443/wss",
        ),
        ("ws://127.0.0.1:8787", "ws://127.0.0.1:8787", "127.0.0.1:8787", "/ip4/127.0.0.1/tcp/8787/ws"),
        ("ws://[::1]:8787", "ws://[::1]:8787", "[::1]:8787", "/ip6/::1/tcp/8787/ws"),
        (
            "wss://shop.example/a/b/",
            "wss://shop.example/a/b",
            "shop.example",
            "/dns4/shop.example/tcp/443/wss/http-path/a%2Fb",
        ),
    ],
)
def test_a_url_and_a_multiaddr_name_the_same_service(
    url: str, canonical: str, host: str, multiaddr: str
) -> None:
    service = ServiceAddress.from_url(url)
    assert (service.url, service.host, service.multiaddr) == (canonical, host, multiaddr)
    assert service.is_at(multiaddr)
    assert ServiceAddress.from_url(canonical) == service


def test_other_spellings_of_an_address_are_known_and_other_services_are_not() -> None:
    service = ServiceAddress.from_url("wss://signal.example/a")
    for spelling in (
        "/dns/signal.example/tcp/443/wss/http-path/a",
        "/dns6/SIGNAL.example/tcp/443/tls/ws/http-path/a",
    ):
        assert service.is_at(spelling)
    for other in (
        "/dns4/signal.example/tcp/443/wss",
        "/dns4/signal.example/tcp/443/wss/http-path/b",
        "/dns4/signal.example/tcp/443/ws/http-path/a",
        "/dns4/signal.example/tcp/444/wss/http-path/a",
        "/dns4/signal.example/udp/443/wss/http-path/a",
        "/dns4/evil.example/tcp/443/wss/http-path/a",
        "/dns4/signal.example",
        "/memory/1",
        "hello",
        "",
    ):
        assert not service.is_at(other)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "signal.example",
        "https://signal.example",
        "wss://",
        "wss://me:secret@signal.example",
        "wss://signal.example?x=1",
        "wss://signal.example#x",
        "wss://signal.example/../x",
        "wss://signal.example/a b",
        "wss://signal.example:0",
        "wss://signal.example:65536",
        "wss://signal.example:x",
        "wss://sign_al..example",
        "wss://[::1",
    ],
)
def test_what_is_no_url_of_a_service_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError):
        ServiceAddress.from_url(url)
