import base64
import hashlib
import string
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from handclasp.discovery.signaling import Invitation
from handclasp.discovery.signaling.invitation import LONGEST_LIFETIME, POLICIES, SECRET_LENGTH
from handclasp.errors import ConfigurationError, InvitationRefused
from handclasp.identity import Identity, PeerId

PEER = Identity.from_seed(bytes(range(32))).peer_id
SECRET = bytes(range(16))
EXPIRES = 1_764_000_000
NOW = EXPIRES - 60

# docs/protocols/invitation.md and docs/protocols/mailbox.md
TEXT = (
    "handclasp:1?service=wss://signal.example&origin=https://shop.example"
    "&peer=12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB"
    "&secret=AAECAwQFBgcICQoLDA0ODw&expires=1764000000"
)
MAILBOX = "1744803b76013fe6dbf79b16d340b7c1"
PROLOGUE = (
    "68616e64636c6173702f3120696e7669746174696f6e"
    "1b3485ff0169753f3f29387712f1f803a72da488d33cad1d3b994815aeaa542a"
)
INVITATION = Invitation("wss://signal.example", "https://shop.example", PEER, SECRET, EXPIRES)


def parse(text: str) -> Invitation:
    return Invitation.from_text_untrusted(text, now=NOW)


def refused(text: str) -> InvitationRefused:
    with pytest.raises(InvitationRefused) as caught:
        parse(text)
    return caught.value


def parsed_or_refusal(text: str) -> Invitation | str:
    try:
        return parse(text)
    except InvitationRefused as exc:
        return str(exc)


def with_field(name: str, value: str) -> str:
    """The sample with another value in one field."""
    head, separator, rest = TEXT.partition(f"{name}=")
    _, ampersand, behind = rest.partition("&")
    return f"{head}{separator}{value}{ampersand}{behind}"


# --- vectors ---


def test_the_text_is_that_of_the_documentation() -> None:
    assert str(INVITATION) == TEXT
    assert parse(TEXT) == INVITATION


def test_the_mailbox_id_is_that_of_the_documentation() -> None:
    assert INVITATION.mailbox == MAILBOX


def test_the_prologue_is_that_of_the_documentation() -> None:
    assert INVITATION.prologue.hex() == PROLOGUE
    assert INVITATION.prologue == b"handclasp/1 invitation" + hashlib.sha256(TEXT.encode()).digest()


def test_the_mailbox_id_depends_on_the_secret_only() -> None:
    # The service must not be able to tell two websites apart by it, nor find the secret from it.
    other = Invitation(
        "ws://localhost:1", "http://localhost", Identity.generate().peer_id, SECRET, 5, "passkey"
    )
    assert other.mailbox == MAILBOX
    assert replace(INVITATION, secret=bytes(16)).mailbox != MAILBOX
    assert SECRET.hex() not in MAILBOX


# --- round trip ---

labels = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.sampled_from(["", ":1", ":8443", ":65535"])
paths = st.lists(st.from_regex(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,6}", fullmatch=True), max_size=3).map(
    lambda segments: "".join(f"/{segment}" for segment in segments)
)
private = st.sampled_from(
    ["localhost", "app.localhost", "127.0.0.1", "10.1.2.3", "192.168.0.9", "[::1]", "[fd00::5]"]
)
public = st.one_of(names, st.sampled_from(["8.8.8.8", "[2001:4860:4860::8888]", "xn--bcher-kva.example"]))


def urls(plain: str, secure: str, path: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}://{}{}{}".format, st.just(secure), public | private, ports, path),
        st.builds("{}://{}{}{}".format, st.just(plain), private, ports, path),
    )


invitations = st.builds(
    Invitation,
    service=urls("ws", "wss", paths),
    origin=urls("http", "https", st.just("")),
    peer=st.builds(PeerId, st.binary(min_size=32, max_size=32)),
    secret=st.binary(min_size=16, max_size=16),
    expires=st.integers(NOW + 1, 2**40),
    policy=st.sampled_from(POLICIES),
)


@given(invitations)
@settings(deadline=None)
def test_an_invitation_survives_its_text(invitation: Invitation) -> None:
    text = str(invitation)
    assert parse(text) == invitation
    assert str(parse(text)) == text


@given(st.text(max_size=200) | st.text(string.printable, max_size=80).map(lambda tail: TEXT[:-10] + tail))
@settings(deadline=None)
def test_any_text_is_the_one_form_of_an_invitation_or_refused(text: str) -> None:
    try:
        invitation = parse(text)
    except InvitationRefused:
        return
    assert str(invitation) == text


# --- edits: claim C7 ---

EDIT_ALPHABET = string.ascii_letters + string.digits + "-._~:/?#[]@!$&'()*+,;=% \n\x00\u00e9\u0430"


def single_edits(text: str) -> list[str]:
    """Every text that is one replacement, insertion, deletion or swap of neighbours away."""
    edits: set[str] = set()
    for at in range(len(text) + 1):
        edits.update(text[:at] + new + text[at:] for new in EDIT_ALPHABET)
        edits.update(text[:at] + new + text[at + 1 :] for new in EDIT_ALPHABET)
        edits.add(text[:at] + text[at + 1 :])
        edits.add(text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :])
    edits.discard(text)
    return sorted(edits)


@cache
def outcomes_of_single_edits() -> dict[str, Invitation | str]:
    """What comes of every such text: an invitation, or the sentence with which it is refused."""
    return {edited: parsed_or_refusal(edited) for edited in single_edits(TEXT)}


def test_an_edit_of_one_character_is_refused_or_makes_another_handshake() -> None:
    accepted = {
        edited: outcome
        for edited, outcome in outcomes_of_single_edits().items()
        if isinstance(outcome, Invitation)
    }
    for edited, invitation in accepted.items():
        assert invitation != INVITATION
        assert invitation.prologue != INVITATION.prologue
        assert str(invitation) == edited
    assert len(accepted) > 100  # another host, secret or expiry is a well-formed invitation to somewhere else


@given(invitations, st.data())
@settings(deadline=None)
def test_an_edit_of_any_invitation_is_refused_or_makes_another_handshake(
    invitation: Invitation, data: st.DataObject
) -> None:
    text = str(invitation)
    at = data.draw(st.integers(0, len(text) - 1))
    edited = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 2)) :]
    if edited == text:
        return
    try:
        other = parse(edited)
    except InvitationRefused:
        return
    assert other != invitation
    assert other.prologue != invitation.prologue


@pytest.mark.parametrize(
    "changed",
    [
        replace(INVITATION, service="wss://signal2.example"),
        replace(INVITATION, origin="https://shop2.example"),
        replace(INVITATION, peer=PeerId(bytes(32))),
        replace(INVITATION, secret=bytes(15) + b"\x01"),
        replace(INVITATION, expires=EXPIRES + 1),
        replace(INVITATION, policy="same-lan"),
    ],
)
def test_every_field_is_in_the_prologue(changed: Invitation) -> None:
    assert changed.prologue != INVITATION.prologue


def test_a_service_cannot_lower_the_policy_without_breaking_the_handshake() -> None:
    demanding = replace(INVITATION, policy="same-lan-or-passkey")
    stripped = parse(str(demanding).removesuffix("&policy=same-lan-or-passkey"))
    assert stripped == INVITATION
    assert stripped.prologue != demanding.prologue


# --- the whole ---


@pytest.mark.parametrize(
    ("text", "field"),
    [
        pytest.param("", "version", id="empty"),
        pytest.param("https://shop.example", "version", id="something else"),
        pytest.param("handclasp:1", "version", id="no fields"),
        pytest.param("handclasp:1?", "invitation", id="empty fields"),
        pytest.param(TEXT.replace(":1?", ":2?"), "version", id="later version"),
        pytest.param(TEXT.replace(":1?", ":1.0?"), "version", id="version with a dot"),
        pytest.param(TEXT.replace("handclasp:", "Handclasp:"), "version", id="upper-case scheme"),
        pytest.param(TEXT.replace("handclasp:", "handclasp://"), "version", id="scheme with slashes"),
        pytest.param(" " + TEXT, "version", id="space in front"),
        pytest.param(TEXT + " ", "expires", id="space behind"),
        pytest.param(TEXT + "\n", "expires", id="line feed behind"),
        pytest.param(TEXT + "&", "invitation", id="ampersand behind"),
        pytest.param(TEXT.replace("&", "&&", 1), "invitation", id="two ampersands"),
        pytest.param(TEXT.replace("&", "&amp;", 1), "invitation", id="HTML entity"),
        pytest.param(TEXT.replace("&", ";"), "origin", id="semicolons"),
        pytest.param(TEXT + "#fragment", "expires", id="fragment"),
        pytest.param(TEXT + "&evil=1", "invitation", id="unknown field"),
        pytest.param(TEXT + "&evil", "invitation", id="field without a value"),
        pytest.param(TEXT + "&=x", "invitation", id="field without a name"),
        pytest.param(TEXT.replace("&origin", "&Origin"), "invitation", id="upper-case field"),
        pytest.param(TEXT.replace("&origin", "&%6frigin"), "invitation", id="percent encoded field"),
        pytest.param(TEXT.replace("secret=", "secret"), "invitation", id="no equals sign"),
    ],
)
def test_a_text_of_another_form_is_refused(text: str, field: str) -> None:
    assert refused(text).field == field


FIELDS = ["service", "origin", "peer", "secret", "expires"]


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_but_the_policy_has_to_be_there(name: str) -> None:
    scheme, _, rest = TEXT.partition("?")
    kept = "&".join(part for part in rest.split("&") if not part.startswith(f"{name}="))
    error = refused(f"{scheme}?{kept}")
    assert (error.field, error.reason) == (name, "missing")


@pytest.mark.parametrize("name", [*FIELDS, "policy"])
def test_no_field_may_be_given_twice(name: str) -> None:
    text = str(replace(INVITATION, policy="passkey"))
    (part,) = (part for part in text.partition("?")[2].split("&") if part.startswith(f"{name}="))
    for repeated in (f"{text}&{part}", text.replace(part, f"{part}&{part}"), f"{text}&{name}=other"):
        error = refused(repeated)
        assert (error.field, error.reason) == (name, "given twice")


@pytest.mark.parametrize("name", [*FIELDS, "policy"])
def test_an_empty_field_is_refused(name: str) -> None:
    text = str(replace(INVITATION, policy="passkey"))
    (part,) = (part for part in text.partition("?")[2].split("&") if part.startswith(f"{name}="))
    assert refused(text.replace(part, f"{name}=")).field == name


@pytest.mark.parametrize("at", range(5))
def test_fields_in_another_order_are_refused(at: int) -> None:
    scheme, _, rest = str(replace(INVITATION, policy="passkey")).partition("?")
    parts = rest.split("&")
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    error = refused(f"{scheme}?{'&'.join(parts)}")
    assert (error.field, error.reason) == ("invitation", "not in canonical form")


def test_at_most_600_characters_are_read() -> None:
    room = 600 - len(TEXT)
    assert len(str(parse(with_field("service", "wss://signal.example/" + "a" * (room - 1))))) == 600
    error = refused(with_field("service", "wss://signal.example/" + "a" * room))
    assert (error.field, error.reason) == ("invitation", "longer than 600 characters")


def test_a_huge_text_is_refused() -> None:
    assert refused("handclasp:1?" + "service=wss://a&" * 1_000_000).field == "invitation"


# --- service and origin ---

# One row each; {} stands for the scheme, which is secure for both.
BAD_URLS = [
    pytest.param("", id="nothing"),
    pytest.param("shop.example", id="no scheme"),
    pytest.param("//shop.example", id="scheme-relative"),
    pytest.param("{}:shop.example", id="no slashes"),
    pytest.param("{}:/shop.example", id="one slash"),
    pytest.param("{}:///shop.example", id="three slashes"),
    pytest.param("{}://", id="no host"),
    pytest.param("{}://:443", id="port only"),
    pytest.param("ftp://shop.example", id="foreign scheme"),
    pytest.param("javascript:alert(1)", id="script"),
    pytest.param("{}://shop.example/", id="trailing slash"),
    pytest.param("{}://SHOP.example", id="upper-case host"),
    pytest.param("{}://shop.Example", id="upper-case last label"),
    pytest.param("{}://shop.example:443", id="default port"),
    pytest.param("{}://shop.example:", id="empty port"),
    pytest.param("{}://shop.example:08443", id="port with a leading zero"),
    pytest.param("{}://shop.example:+8443", id="port with a sign"),
    pytest.param("{}://shop.example:65536", id="port too large"),
    pytest.param("{}://shop.example:-1", id="negative port"),
    pytest.param("{}://shop.example:http", id="port by name"),
    pytest.param("{}://shop.example:\N{ARABIC-INDIC DIGIT EIGHT}", id="port in other digits"),
    pytest.param("{}://me@shop.example", id="user"),
    pytest.param("{}://me:secret@shop.example", id="user and password"),
    pytest.param("{}://@shop.example", id="empty user"),
    pytest.param("{}://shop.example@evil.example", id="host as user"),
    pytest.param("{}://shop.example?", id="empty query"),
    pytest.param("{}://shop.example?a", id="query"),
    pytest.param("{}://shop.example#", id="empty fragment"),
    pytest.param("{}://shop.example#a", id="fragment"),
    pytest.param("{}://shop.example\\@evil.example", id="backslash"),
    pytest.param("{}://shop.example ", id="space behind"),
    pytest.param(" {}://shop.example", id="space in front"),
    pytest.param("{}://shop .example", id="space inside"),
    pytest.param("{}://shop\t.example", id="tab inside"),
    pytest.param("{}://shop\n.example", id="line feed inside"),
    pytest.param("{}://shop\x00.example", id="zero byte"),
    pytest.param("{}://shop\x1b[2J.example", id="terminal sequence"),
    pytest.param("\x01{}://shop.example", id="control character in front"),
    pytest.param("{}://shop%2eexample", id="percent-encoded dot"),
    pytest.param("{}://shop.ex%61mple", id="percent-encoded letter"),
    pytest.param("{}://b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example", id="IDN not in ASCII"),
    pytest.param("{}://sh\N{CYRILLIC SMALL LETTER O}p.example", id="Cyrillic letter"),
    pytest.param("{}://shop\N{IDEOGRAPHIC FULL STOP}example", id="another dot"),
    pytest.param("{}://\N{DOUBLE-STRUCK CAPITAL C}.example", id="compatibility character"),
    pytest.param("{}://\ud800.example", id="lone surrogate"),
    pytest.param("{}://shop.example.", id="trailing dot"),
    pytest.param("{}://.shop.example", id="leading dot"),
    pytest.param("{}://shop..example", id="empty label"),
    pytest.param("{}://-shop.example", id="label begins with a hyphen"),
    pytest.param("{}://shop-.example", id="label ends with a hyphen"),
    pytest.param("{}://sh_op.example", id="underscore"),
    pytest.param("{}://sh*p.example", id="asterisk"),
    pytest.param("{}://" + "a" * 64 + ".example", id="label of 64"),
    pytest.param("{}://" + ".".join(["a" * 62] * 4) + ".ab", id="name of 254"),
    pytest.param("{}://127.1", id="IPv4 in two parts"),
    pytest.param("{}://2130706433", id="IPv4 as a number"),
    pytest.param("{}://0x7f.1", id="IPv4 in hexadecimal"),
    pytest.param("{}://0x7f000001", id="IPv4 as a hexadecimal number"),
    pytest.param("{}://0177.0.0.1", id="IPv4 in octal"),
    pytest.param("{}://127.0.0.01", id="IPv4 with a leading zero"),
    pytest.param("{}://127.0.0.1.", id="IPv4 with a trailing dot"),
    pytest.param("{}://256.0.0.1", id="IPv4 out of range"),
    pytest.param("{}://1.2.3.4.5", id="IPv4 in five parts"),
    pytest.param("{}://shop.0x", id="last label is a hexadecimal prefix"),
    pytest.param("{}://::1", id="IPv6 without brackets"),
    pytest.param("{}://[]", id="empty brackets"),
    pytest.param("{}://[::1", id="bracket not closed"),
    pytest.param("{}://::1]", id="bracket not opened"),
    pytest.param("{}://[::1]a", id="text behind the bracket"),
    pytest.param("{}://a[::1]", id="text before the bracket"),
    pytest.param("{}://[[::1]]", id="two brackets"),
    pytest.param("{}://[shop.example]", id="name in brackets"),
    pytest.param("{}://[127.0.0.1]", id="IPv4 in brackets"),
    pytest.param("{}://[0:0:0:0:0:0:0:1]", id="IPv6 not compressed"),
    pytest.param("{}://[::0001]", id="IPv6 with leading zeros"),
    pytest.param("{}://[FD00::1]", id="IPv6 in upper case"),
    pytest.param("{}://[1::2::3]", id="IPv6 with two gaps"),
    pytest.param("{}://[::1.2.3.4]", id="IPv6 with an IPv4 tail"),
    pytest.param("{}://[::ffff:1.2.3.4]", id="mapped IPv4"),
    pytest.param("{}://[::ffff:102:304]", id="mapped IPv4 in hexadecimal"),
    pytest.param("{}://[fe80::1%eth0]", id="IPv6 zone"),
    pytest.param("{}://[fe80::1%25eth0]", id="IPv6 zone, percent-encoded"),
    pytest.param("{}://[fe80::1%\x1b[2J]", id="terminal sequence in an IPv6 zone"),
    pytest.param("{}://[v1.x]", id="future IP version"),
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_service_that_is_not_a_canonical_url_is_refused(url: str) -> None:
    assert refused(with_field("service", url.replace("{}", "wss"))).field == "service"


@pytest.mark.parametrize("url", BAD_URLS)
def test_an_origin_that_is_not_a_canonical_url_is_refused(url: str) -> None:
    assert refused(with_field("origin", url.replace("{}", "https"))).field == "origin"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("service", "https://signal.example"),
        ("service", "http://localhost"),
        ("service", "WSS://signal.example"),
        ("service", "ws://localhost:80"),
        ("service", "wss://signal.example/path/"),
        ("service", "wss://signal.example//path"),
        ("service", "wss://signal.example/a//b"),
        ("service", "wss://signal.example/."),
        ("service", "wss://signal.example/.."),
        ("service", "wss://signal.example/a/../b"),
        ("service", "wss://signal.example/a/./b"),
        ("service", "wss://signal.example/%61"),
        ("service", "wss://signal.example/a;b"),
        ("service", "wss://signal.example/a b"),
        ("service", "wss://signal.example/a\\b"),
        ("service", "wss://signal.example/\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("origin", "wss://shop.example"),
        ("origin", "HTTPS://shop.example"),
        ("origin", "http://localhost:80"),
        ("origin", "https://shop.example/path"),
        ("origin", "https://shop.example/.."),
        ("origin", "null"),
    ],
)
def test_what_is_wrong_for_one_of_the_two_is_refused(name: str, url: str) -> None:
    assert refused(with_field(name, url)).field == name


PUBLIC = [
    "shop.example",
    "localhost.shop.example",
    "notlocalhost",
    "8.8.8.8",
    "172.32.0.1",
    "192.169.0.1",
    "100.64.0.1",  # carrier-grade NAT: strangers share it
    "[2001:4860:4860::8888]",
    "10.shop.example",
    "127.0.0.1.example",
]


@pytest.mark.parametrize("host", PUBLIC)
def test_a_public_host_is_reached_with_tls_only(host: str) -> None:
    for name, plain, secure in (("service", "ws", "wss"), ("origin", "http", "https")):
        error = refused(with_field(name, f"{plain}://{host}"))
        assert error.field == name
        assert secure in error.reason
        parse(with_field(name, f"{secure}://{host}"))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "app.localhost",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.1.1",
        "[::1]",
        "[fd00::1]",
        "[fe80::1]",
    ],
)
def test_this_machine_and_private_networks_need_no_tls(host: str) -> None:
    assert parse(with_field("service", f"ws://{host}:8787")).service == f"ws://{host}:8787"
    assert parse(with_field("origin", f"http://{host}:8787")).origin == f"http://{host}:8787"


# --- the other fields ---


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(str(PEER)[:-1], id="cut short"),
        pytest.param(str(PEER) + "1", id="too long"),
        pytest.param(str(PEER).lower(), id="lower case"),
        pytest.param(str(PEER) + " ", id="space behind"),
        pytest.param("1" + str(PEER), id="zero byte in front"),
        pytest.param("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", id="RSA peer"),
        pytest.param("0" * 52, id="not base58"),
        pytest.param(bytes(PEER).hex(), id="hexadecimal"),
    ],
)
def test_a_peer_that_is_not_a_canonical_peer_id_is_refused(value: str) -> None:
    assert refused(with_field("peer", value)).field == "peer"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("AAECAwQFBgcICQoLDA0OD", id="21 characters"),
        pytest.param("AAECAwQFBgcICQoLDA0ODwA", id="23 characters"),
        pytest.param("AAECAwQFBgcICQoLDA0ODw==", id="padding"),
        pytest.param("AAECAwQFBgcICQoLDA0OD+", id="plus of the other alphabet"),
        pytest.param("AAECAwQFBgcICQoLDA0OD/", id="slash of the other alphabet"),
        pytest.param("AAECAwQFBgcICQoLDA0OD=", id="equals sign inside"),
        pytest.param("AAECAwQFBgcICQoLDA0OD ", id="space"),
        pytest.param("AAECAwQFBgcICQoLDA0ODw\n", id="line feed behind"),
        pytest.param("AAECAwQFBgcICQoLDA0OD\N{FULLWIDTH LATIN SMALL LETTER W}", id="another w"),
        pytest.param("000102030405060708090a0b0c0d0e0f", id="hexadecimal"),
        pytest.param("AAECAwQFBgcICQoLDA0OD%77", id="percent encoding"),
    ],
)
def test_a_secret_that_is_not_22_characters_of_base64url_is_refused(value: str) -> None:
    assert refused(with_field("secret", value)).field == "secret"


@pytest.mark.parametrize("last", "xyz0123456789-_")
def test_a_secret_with_unused_bits_set_is_refused(last: str) -> None:
    # A lenient decoder reads these like the "w" at the end: 16 texts would stand for one invitation.
    value = "AAECAwQFBgcICQoLDA0OD" + last
    assert base64.urlsafe_b64decode(value + "==") == SECRET
    assert refused(with_field("secret", value)).field == "invitation"


@pytest.mark.parametrize(
    "value",
    [
        "0",
        "01764000000",
        "+1764000000",
        "-1",
        "1764000000.0",
        "1.764e9",
        "1_764_000_000",
        "0x69247d00",
        "soon",
    ],
)
def test_an_expiry_that_is_not_a_plain_number_is_refused(value: str) -> None:
    assert refused(with_field("expires", value)).field == "expires"


@pytest.mark.parametrize("value", ["1764000000\n", " 1764000000", "\N{ARABIC-INDIC DIGIT ONE}764000000"])
def test_an_expiry_in_other_characters_is_refused(value: str) -> None:
    assert refused(with_field("expires", value)).field == "expires"


def test_an_expiry_beyond_all_time_is_refused_and_not_computed_with() -> None:
    assert parse(with_field("expires", str(2**40))).expires == 2**40
    for value in (str(2**40 + 1), "9" * 13, "9" * 14, "9" * 300):
        assert refused(with_field("expires", value)).field == "expires"


@pytest.mark.parametrize("value", ["open", "", "Passkey", "same-lan,passkey", "none", "passkey "])
def test_a_policy_that_is_unknown_or_goes_without_saying_is_refused(value: str) -> None:
    error = refused(f"{TEXT}&policy={value}")
    assert error.field == ("invitation" if value == "open" else "policy")


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_of_the_documentation_is_known(policy: str) -> None:
    text = TEXT if policy == "open" else f"{TEXT}&policy={policy}"
    assert parse(text).policy == policy
    assert str(parse(text)) == text


# --- time ---


def test_an_invitation_is_refused_from_its_expiry_on() -> None:
    assert Invitation.from_text_untrusted(TEXT, now=EXPIRES - 0.001) == INVITATION
    for now in (EXPIRES, EXPIRES + 0.5, EXPIRES + 10**9):
        with pytest.raises(InvitationRefused, match="expired") as caught:
            Invitation.from_text_untrusted(TEXT, now=now)
        assert caught.value.field == "expires"


# --- making one ---


def create(
    service: str = "wss://signal.example",
    origin: str = "https://shop.example",
    lifetime: float = 120,
    policy: str = "open",
) -> Invitation:
    return Invitation.create(
        service=service, origin=origin, peer=PEER, now=NOW, lifetime=lifetime, policy=policy
    )


def test_a_new_invitation_is_good_for_its_lifetime_and_has_a_secret_of_its_own() -> None:
    one, other = create(), create(policy="passkey")
    assert one.secret != other.secret
    assert len(one.secret) == SECRET_LENGTH
    assert (one.expires, one.policy, other.policy) == (NOW + 120, "open", "passkey")
    assert parse(str(one)) == one


def test_what_cannot_stand_in_an_invitation_is_a_configuration_error_that_names_it() -> None:
    with pytest.raises(ConfigurationError, match="service: has a path"):
        create(service="wss://signal.example/")
    with pytest.raises(ConfigurationError, match="service: ws:// is for"):
        create(service="ws://signal.example")
    with pytest.raises(ConfigurationError, match="origin: has a path"):
        create(origin="https://shop.example/")
    with pytest.raises(ConfigurationError, match="policy: unknown"):
        create(policy="strict")
    with pytest.raises(ConfigurationError, match="invitation: longer than 600"):
        create(service="wss://signal.example/" + "a" * 600)


@pytest.mark.parametrize("lifetime", [0, -1, 0.1, LONGEST_LIFETIME + 1, float("inf"), float("nan")])
def test_a_lifetime_that_no_service_grants_is_a_configuration_error(lifetime: float) -> None:
    with pytest.raises(ConfigurationError, match=r"lifetime|expires"):
        create(lifetime=lifetime)


def test_a_field_cannot_smuggle_in_another() -> None:
    with pytest.raises(ConfigurationError):
        create(origin="https://shop.example&policy=open")


# --- the secret stays secret ---


def test_the_repr_does_not_show_the_secret() -> None:
    text = repr(INVITATION)
    assert "shop.example" in text
    assert "AAECAwQFBgcICQoLDA0ODw" not in text
    assert SECRET.hex() not in text
    assert repr(SECRET)[2:-1] not in text
    assert "secret" not in text


def test_no_refusal_shows_the_secret_or_control_characters() -> None:
    # Refusals are printed and logged; eight characters of the secret are 48 bits of it.
    secret = "AAECAwQFBgcICQoLDA0ODw"
    pieces = [secret[at : at + 8] for at in range(len(secret) - 7)]
    for edited, outcome in outcomes_of_single_edits().items():
        if isinstance(outcome, str):
            assert not any(piece in outcome for piece in pieces), edited
            assert outcome.isprintable(), edited


@given(st.sampled_from([*FIELDS, "policy", "other"]), st.text(max_size=20))
@example("origin", "https://[0:0::1%\x1b[2J]")
@example("origin", "https://\x1b[2J\u2100.example")
@example("service", "wss://[::1]:\x1b")
@example("peer", "\x1b[2J")
@settings(deadline=None)
def test_no_refusal_repeats_control_characters_from_the_invitation(name: str, value: str) -> None:
    text = with_field(name, value) if name in FIELDS else f"{TEXT}&{name}={value}"
    outcome = parsed_or_refusal(text)
    assert isinstance(outcome, Invitation) or outcome.isprintable()
