from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handclasp.accounts import ChainId, SignInMessage
from handclasp.errors import LinkRefused

# The example of EIP-4361, with the domain it had when most wallets were written.
EXAMPLE = """\
service.org wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json"""

FULL = """\
https://[::1]:8443 wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

Sign in. (It's free!) [ok?] #1 ~a_b;c,d=e&f*g+h$ @me/

URI: https://[::1]:8443/login?next=/a%20b#top
Version: 1
Chain ID: 11155111
Nonce: abcDEF0123456789
Issued At: 2026-01-02T03:04:05.250Z
Expiration Time: 2026-01-02T03:14:05Z
Not Before: 2026-01-02T03:04:00.001Z
Request ID: some-id:1@x%2F
Resources:
- urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6
- did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"""

LEAST = """\
example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2


URI: https://example.com
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z"""


def refused_field(text: str) -> str:
    with pytest.raises(LinkRefused) as caught:
        SignInMessage.from_text_untrusted(text)
    return caught.value.field


def edited(old: str, new: str, text: str = FULL) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_the_example_of_the_standard_is_read_field_by_field() -> None:
    assert SignInMessage.from_text_untrusted(EXAMPLE) == SignInMessage(
        domain="service.org",
        address="0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
        statement="I accept the ServiceOrg Terms of Service: https://service.org/tos",
        uri="https://service.org/login",
        chain_id=ChainId("eip155", "1"),
        nonce="32891756",
        issued_at=datetime(2021, 9, 30, 16, 25, 24, tzinfo=UTC),
        resources=(
            "ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/",
            "https://example.com/my-web2-claim.json",
        ),
    )


@pytest.mark.parametrize("origin", ["example.com", "example.com:3388", "https://example.com"])
def test_the_examples_of_the_standard_as_it_stands_are_read(origin: str) -> None:
    # EIP-4361 §Examples: implicit scheme, implicit scheme with a port, explicit scheme
    text = EXAMPLE.replace("service.org", "example.com").replace("ServiceOrg", "ExampleOrg")
    text = text.replace("example.com wants", f"{origin} wants")
    message = SignInMessage.from_text_untrusted(text)
    assert (message.scheme, message.domain) == (
        ("https", "example.com") if "://" in origin else (None, origin)
    )
    assert str(message) == text


def test_a_message_with_every_field_is_read_field_by_field() -> None:
    assert SignInMessage.from_text_untrusted(FULL) == SignInMessage(
        scheme="https",
        domain="[::1]:8443",
        address="0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
        statement="Sign in. (It's free!) [ok?] #1 ~a_b;c,d=e&f*g+h$ @me/",
        uri="https://[::1]:8443/login?next=/a%20b#top",
        version="1",
        chain_id=ChainId("eip155", "11155111"),
        nonce="abcDEF0123456789",
        issued_at=datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC),
        expiration_time=datetime(2026, 1, 2, 3, 14, 5, tzinfo=UTC),
        not_before=datetime(2026, 1, 2, 3, 4, 0, 1000, tzinfo=UTC),
        request_id="some-id:1@x%2F",
        resources=(
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        ),
    )


@pytest.mark.parametrize("text", [EXAMPLE, FULL, LEAST])
def test_printing_gives_the_text_that_was_read(text: str) -> None:
    assert str(SignInMessage.from_text_untrusted(text)) == text


def test_without_a_statement_there_are_two_empty_lines() -> None:
    message = SignInMessage.from_text_untrusted(LEAST)
    assert message.statement is None
    assert str(message).split("\n")[1:5] == [message.address, "", "", "URI: https://example.com"]
    assert str(replace(message, statement="Hi.")).split("\n")[1:6] == [
        message.address,
        "",
        "Hi.",
        "",
        "URI: https://example.com",
    ]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        # the text as a whole
        ("", "message"),
        (FULL + "\n", "message"),
        (FULL + "\nmore", "message"),
        (LEAST + "\n", "message"),
        (LEAST + " ", "issued_at"),
        (FULL.replace("\n", "\r\n"), "message"),
        (FULL.replace("\n", "\r"), "message"),
        ("\n" + FULL, "message"),
        (" " + FULL, "scheme"),
        (edited("wants you", "wants  you"), "message"),
        (edited("account:", "account"), "message"),
        (edited("Ethereum", "Bitcoin"), "message"),
        (edited("Sign in. ", "Sign in. " + "a" * 8192), "message"),
        # scheme
        (edited("https://[::1]:8443 wants", "://[::1]:8443 wants"), "scheme"),
        (edited("https://[::1]:8443 wants", "HTTPS://[::1]:8443 wants"), "scheme"),
        (edited("https://[::1]:8443 wants", "1https://[::1]:8443 wants"), "scheme"),
        (edited("https://[::1]:8443 wants", "https ://[::1]:8443 wants"), "scheme"),
        (edited("https://[::1]:8443 wants", "ht\ntps://[::1]:8443 wants"), "message"),
        # domain
        *(
            (edited("[::1]:8443 wants", f"{domain} wants"), "domain")
            for domain in (
                "",
                "Example.com",
                "user@example.com",
                "example.com/",
                "example.com/path",
                "example.com#",
                "example.com:",
                "example.com:0",
                "example.com:0443",
                "example.com:65536",
                "example.com:999999",
                "example.com.",
                ".example.com",
                "example..com",
                "-example.com",
                "example-.com",
                "exa mple.com",
                "exa%6dple.com",
                "exämple.com",
                "example.com\r",
                "example.com\t",
                "a" * 64 + ".com",
                "a." * 126 + "abcd",
                "127.1",
                "127.0.0.01",
                "256.0.0.1",
                "1",
                "0x7f000001",
                "example.0x7f",
                "[::1",
                "[]",
                "[0::1]",
                "[::g]",
                "[::1]x",
                "[fe80::1%eth0]",
                "::1",
            )
        ),
        # address
        (edited("0xC02aaA", "0xc02aaA"), "address"),
        (edited("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "0x" + "c0" * 20), "address"),
        (edited("0xC02aaA39b2", "0XC02aaA39b2"), "address"),
        (edited("C756Cc2", "C756Cc"), "address"),
        (edited("C756Cc2", "C756Cc20"), "address"),
        (edited("C756Cc2", "C756Cc2 "), "address"),
        (edited("C756Cc2", "C756Cc2\r"), "address"),
        (edited("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "vitalik.eth"), "address"),
        # statement
        (edited("Cc2\n\n", "Cc2\n"), "statement"),
        (edited("@me/\n\n", "@me/\n"), "statement"),
        (edited("@me/", "@me/\nsecond line"), "statement"),
        (edited("Cc2\n", "Cc2\n\n\n", LEAST), "uri"),  # an empty statement
        *((edited("@me/", f"@me/{c}"), "statement") for c in '"%<>\\^`{|}\t\r\0\x7f\x85\u2028é\ud800'),
        # uri
        (edited("URI: https", "URI:https"), "uri"),
        (edited("URI: https", "URI:  https"), "uri"),
        (edited("URI: https", "uri: https"), "uri"),
        *(
            (edited("https://[::1]:8443/login?next=/a%20b#top", uri), "uri")
            for uri in (
                "",
                "/login",
                "example.com/login",
                "https:",
                "HTTPS://example.com",
                "https//example.com",
                "https://user@example.com/",
                "https://user:pass@example.com/",
                "https://example.com/a b",
                "https://example.com/%2",
                "https://example.com/%zz",
                "https://example.com/<x>",
                "https://example.com/\\x",
                "https://example.com/[x]",
                "https://example.com/#a#b",
                "https://example.com:port/",
                "https://example.com:123456/",
                "https://[::1/",
                "https://[::g]/",
                "https://[1.2.3.4]/",
                "https://exämple.com/",
                "https://example.com/\r",
                "https://example.com/" + "a" * 2048,
            )
        ),
        # version
        (edited("Version: 1\n", "Version: 2\n"), "version"),
        (edited("Version: 1\n", "Version: 1 \n"), "version"),
        (edited("Version: 1\n", "Version: 01\n"), "version"),
        (edited("Version: 1\n", ""), "version"),
        # chain id
        *(
            (edited("Chain ID: 11155111", line), "chain_id")
            for line in (
                "Chain Id: 1",
                "Chain ID: ",
                "Chain ID: 0",
                "Chain ID: 01",
                "Chain ID: -1",
                "Chain ID: +1",
                "Chain ID: 1.0",
                "Chain ID: 0x1",
                "Chain ID: 1_0",
                "Chain ID: \u0661",
                "Chain ID: 1 ",
                "Chain ID: 9223372036854775772",
                "Chain ID: " + "1" * 5000,
                "Chain ID: eip155:1",
            )
        ),
        # nonce
        *(
            (edited("Nonce: abcDEF0123456789", line), "nonce")
            for line in (
                "nonce: abcDEF0123456789",
                "Nonce: ",
                "Nonce: abcdefg",
                "Nonce: abcd-efgh",
                "Nonce: abcd efgh",
                "Nonce: abcdefgé",
                "Nonce: abcdefgh\r",
                "Nonce: " + "a" * 129,
            )
        ),
        # times
        *(
            (edited(f"{label}: {value}", f"{label}: {new}"), field)
            for label, field, value in (
                ("Issued At", "issued_at", "2026-01-02T03:04:05.250Z"),
                ("Expiration Time", "expiration_time", "2026-01-02T03:14:05Z"),
                ("Not Before", "not_before", "2026-01-02T03:04:00.001Z"),
            )
            for new in (
                "",
                "2026-01-02",
                "2026-01-02 03:04:05Z",
                "2026-01-02t03:04:05Z",
                "2026-01-02T03:04:05z",
                "2026-01-02T03:04:05",
                "2026-01-02T03:04:05+00:00",
                "2026-01-02T03:04:05-00:00",
                "2026-01-02T03:04:05+01:00",
                "2026-01-02T03:04:05.000Z",
                "2026-01-02T03:04:05.25Z",
                "2026-01-02T03:04:05.250000Z",
                "2026-01-02T03:04:05,250Z",
                "2026-1-2T03:04:05Z",
                "2026-13-02T03:04:05Z",
                "2026-02-29T03:04:05Z",
                "2026-01-02T24:00:00Z",
                "2026-01-02T03:60:05Z",
                "2016-12-31T23:59:60Z",
                "0000-01-02T03:04:05Z",
                "12026-01-02T03:04:05Z",
                "2026-01-02T03:04:05Z ",
                "2026-01-02T03:04:05Z\r",
                "٢٠٢٦-01-02T03:04:05Z",
                "1767323045",
            )
        ),
        (edited("Issued At: 2026-01-02T03:04:05.250Z\n", ""), "issued_at"),
        # request id
        *(
            (edited("some-id:1@x%2F", new), "request_id")
            for new in ("", "a b", "a/b", "a?", "%2", "é", "a\r")
        ),
        # resources
        (edited("Resources:", "Resources: "), "resources"),
        (edited("Resources:\n-", "Resources: -"), "resources"),
        (LEAST + "\nResources:", "resources"),
        (LEAST + "\nResources:\n", "resources"),
        (edited("- urn:uuid", "-urn:uuid"), "resources"),
        (edited("- urn:uuid", "- urn uuid"), "resources"),
        (edited("- urn:uuid", "- "), "resources"),
        (edited("- urn:uuid", "* urn:uuid"), "resources"),
        (edited("- did:key", "did:key"), "message"),
        (FULL + "\n- ", "resources"),
        (FULL + "\n- https://user@example.com", "resources"),
        (LEAST + "\nResources:" + "\n- a:b" * 33, "resources"),
        # order and repetition
        (LEAST + "\nIssued At: 2021-09-30T16:25:24Z", "issued_at"),
        (LEAST + "\nNonce: 32891756", "nonce"),
        (
            LEAST + "\nNot Before: 2021-09-30T16:25:24Z\nExpiration Time: 2021-09-30T16:25:25Z",
            "expiration_time",
        ),
        (LEAST + "\nRequest ID: 1\nRequest ID: 1", "request_id"),
        (LEAST + "\nRequest ID: 1\nNot Before: 2021-09-30T16:25:24Z", "not_before"),
        (FULL + "\nRequest ID: 1", "request_id"),
        (FULL + "\nResources:\n- a:b", "resources"),
        (edited("Version: 1\nChain ID: 11155111\n", "Chain ID: 11155111\nVersion: 1\n"), "version"),
    ],
)
def test_a_text_that_is_not_canonical_is_refused_with_its_field(text: str, field: str) -> None:
    assert refused_field(text) == field


@pytest.mark.parametrize("end", range(len(FULL.split("\n")) - 1))
def test_a_text_that_ends_early_is_refused(end: int) -> None:
    text = "\n".join(FULL.split("\n")[:end])
    if "Issued At" in text and not text.endswith("Resources:"):
        assert str(SignInMessage.from_text_untrusted(text)) == text  # the rest is optional
    else:
        refused_field(text)


@pytest.mark.parametrize(
    "domain",
    [
        "example.com",
        "localhost:3000",
        "a.b.c.example.com:65535",
        "xn--exmple-cua.com",
        "127.0.0.1",
        "[2001:db8::1]",
        "0a",
    ],
)
def test_an_origin_as_browsers_show_it_is_a_domain(domain: str) -> None:
    text = edited("[::1]:8443 wants", f"{domain} wants")
    assert SignInMessage.from_text_untrusted(text).domain == domain


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com",
        "https://example.com/",
        "https://example.com:8443/a/b;c=d//e?f=g/?#h/?",
        "https://[2001:db8::7]/c=GB",
        "file:///etc/hosts",
        "urn:oasis:names:specification:docbook:dtd:xml:4.1.2",
        "mailto:john.doe@example.com",
        "a:/",
        "a:/b//c",
        "tel:+1-816-555-1212",
    ],
)
def test_a_uri_of_rfc_3986_is_taken(uri: str) -> None:
    text = edited("https://[::1]:8443/login?next=/a%20b#top", uri)
    assert SignInMessage.from_text_untrusted(text).uri == uri


def test_limits_are_reached_but_not_passed() -> None:
    message = SignInMessage.from_text_untrusted(LEAST)
    most = replace(
        message, resources=("a:b",) * 32, nonce="n" * 128, chain_id=ChainId("eip155", "9223372036854775771")
    )
    most = replace(most, statement="s" * (8192 - len(str(most)) - 1))
    assert len(str(most)) == 8192
    assert SignInMessage.from_text_untrusted(str(most)) == most
    with pytest.raises(LinkRefused, match="message: is longer than 8192"):
        replace(most, request_id="1")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scheme", ""),
        ("domain", "evil.example wants you to sign in with your Ethereum account:\n"),
        ("address", "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"),
        ("statement", ""),
        ("statement", "one\ntwo"),
        ("uri", "https://example.com\nVersion: 1"),
        ("version", "2"),
        ("chain_id", ChainId("eip155", "0")),
        ("chain_id", ChainId("eip155", str(2**63))),
        ("nonce", "32891756\nIssued At: 2021-09-30T16:25:24Z"),
        ("issued_at", datetime(2021, 9, 30)),  # noqa: DTZ001 - the missing zone is the point
        ("issued_at", datetime(2021, 9, 30, microsecond=1, tzinfo=UTC)),
        ("expiration_time", datetime.max.replace(microsecond=0, tzinfo=timezone(timedelta(hours=-1)))),
        ("not_before", datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))),
        ("request_id", ""),
        ("request_id", "1\nResources:"),
        ("resources", ("a:b", "a:b\n- c:d")),
        ("resources", ("",)),
    ],
)
def test_a_field_cannot_forge_another_when_a_message_is_made(field: str, value: object) -> None:
    with pytest.raises(LinkRefused) as caught:
        replace(SignInMessage.from_text_untrusted(LEAST), **{field: value})
    assert caught.value.field == field


def test_times_of_any_zone_are_kept_and_printed_in_utc() -> None:
    message = SignInMessage.from_text_untrusted(LEAST)
    # fold=1: the second 02:30 of that night, which compares unequal to everything outside its zone
    repeated = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Vienna"))
    zoned = replace(message, issued_at=repeated)
    assert "Issued At: 2026-10-25T01:30:00Z" in str(zoned)
    assert zoned.issued_at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert SignInMessage.from_text_untrusted(str(zoned)) == zoned


def test_the_nonce_does_not_show_in_the_repr() -> None:
    assert "abcDEF0123456789" not in repr(SignInMessage.from_text_untrusted(FULL))


def test_a_refusal_does_not_quote_what_was_sent() -> None:
    with pytest.raises(LinkRefused) as caught:
        SignInMessage.from_text_untrusted(edited("Nonce: abcDEF", "Nonce: \x1b[2Jcanary-"))
    assert "canary" not in str(caught.value)


# --- every message and every edit

PCHAR = "abcXYZ019-._~!$&'()*+,;=:@"
hosts = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{1,8}){1,2}", fullmatch=True) | st.just(
    "[::1]"
)
uris = st.from_regex(
    r"[a-z][a-z0-9+.-]{0,5}:(//[a-zA-Z0-9.-]{1,9}(:[0-9]{1,5})?(/[a-z%@]?)?|[a-z:]{1,9})(\?[a-z=/?]{0,9})?",
    fullmatch=True,
).filter(lambda uri: "%" not in uri)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])).map(
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000)
)
safe_moments = moments.filter(lambda moment: 1 < moment.year < 9999)
addresses = st.sampled_from(
    [
        "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
        "0x0000000000000000000000000000000000000000",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    ]
)
messages = st.builds(
    SignInMessage,
    scheme=st.none() | st.from_regex(r"[a-z][a-z0-9+.-]{0,6}", fullmatch=True),
    domain=st.builds(
        lambda host, port: f"{host}{port}", hosts, st.just("") | st.integers(1, 65535).map(":{}".format)
    ),
    address=addresses,
    statement=st.none() | st.text(PCHAR + " /?#[]", min_size=1, max_size=60),
    uri=uris,
    chain_id=st.integers(1, 2**63 - 37).map(lambda number: ChainId("eip155", str(number))),
    nonce=st.from_regex(r"[A-Za-z0-9]{8,20}", fullmatch=True),
    issued_at=safe_moments,
    expiration_time=st.none() | safe_moments,
    not_before=st.none() | safe_moments,
    request_id=st.none() | st.text(PCHAR, min_size=1, max_size=20),
    resources=st.lists(uris, max_size=4).map(tuple),
)


@given(messages)
def test_a_printed_message_reads_back_as_itself(message: SignInMessage) -> None:
    text = str(message)
    assert SignInMessage.from_text_untrusted(text) == message
    assert str(SignInMessage.from_text_untrusted(text)) == text


@given(
    messages.map(str) | st.sampled_from([EXAMPLE, FULL, LEAST]),
    st.integers(min_value=0),
    st.sampled_from(["replace", "insert", "delete"]),
    st.characters() | st.sampled_from("\n\r :-0aA"),
)
@example(LEAST, len(LEAST) - 1, "insert", ".")
def test_an_edit_of_one_character_is_refused_or_changes_the_value(
    text: str, position: int, edit: str, character: str
) -> None:
    position %= len(text)
    rest = text[position if edit == "insert" else position + 1 :]
    changed = text[:position] + ("" if edit == "delete" else character) + rest
    try:
        value = SignInMessage.from_text_untrusted(changed)
    except LinkRefused:
        return
    assert str(value) == changed
    assert (value == SignInMessage.from_text_untrusted(text)) == (changed == text)


@given(st.text(max_size=200))
def test_garbage_is_refused(text: str) -> None:
    refused_field(text)
