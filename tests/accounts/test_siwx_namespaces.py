"""The text of every namespace, line by line: what may be left out, and that nothing else can be done to it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import base58
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import ChainId, SignInMessage, checksum_address
from handclasp.errors import LinkRefused

ETHEREUM = """\
example.com:8443 wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

Sign in to Example

URI: https://example.com:8443/login
Version: 1
Chain ID: 10
Nonce: abcDEF0123456789
Issued At: 2026-01-02T03:04:05.250Z
Expiration Time: 2026-01-02T03:14:05Z
Not Before: 2026-01-02T03:04:00Z
Request ID: mailbox-7
Resources:
- urn:peer:website
- urn:peer:wallet"""

# Solana's profile of CAIP-122: the order of EIP-4361. npm @solana/wallet-standard-util 1.1.2, which wallets use, prints
# this, too, and one empty line where there is no statement.
SOLANA = ETHEREUM.replace("Ethereum", "Solana").replace(
    "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "GwAF45zjfyGzUbd3i3hXxzGeuchzEZXwpRYHZM5912F1"
)
SOLANA = SOLANA.replace("Chain ID: 10", "Chain ID: 5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp")

# CAIP-122's own template: the chain before the resources.
ALGORAND = """\
example.com:8443 wants you to sign in with your Algorand account:
4EWWI7JNVXSFN4YRYA5DMN53U7NUHYC5YSMF67FAXDNRLDWDIWGM5DQGBA

Sign in to Example

URI: https://example.com:8443/login
Version: 1
Nonce: abcDEF0123456789
Issued At: 2026-01-02T03:04:05.250Z
Expiration Time: 2026-01-02T03:14:05Z
Not Before: 2026-01-02T03:04:00Z
Request ID: mailbox-7
Chain ID: wGHE2Pwdvd7S12BL5FaOP20EGYesN73k
Resources:
- urn:peer:website
- urn:peer:wallet"""

TEXTS = {"eip155": ETHEREUM, "solana": SOLANA, "algorand": ALGORAND}
LABELS = {
    "URI": "uri",
    "Version": "version",
    "Chain ID": "chain_id",
    "Nonce": "nonce",
    "Issued At": "issued_at",
    "Expiration Time": "expiration_time",
    "Not Before": "not_before",
    "Request ID": "request_id",
    "Resources": "resources",
}
OPTIONAL = {"expiration_time", "not_before", "request_id"}


@pytest.fixture(params=TEXTS)
def namespace(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def text(namespace: str) -> str:
    return TEXTS[namespace]


def refused_field(text: str) -> str:
    with pytest.raises(LinkRefused) as caught:
        SignInMessage.from_text_untrusted(text)
    return caught.value.field


def edited(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def labelled(text: str) -> dict[str, str]:
    """The labelled lines by their fields."""
    lines = {}
    for line in text.split("\n"):
        for label, field in LABELS.items():
            if line.startswith(f"{label}:"):
                lines[field] = line
    return lines


# --- as they should be


def test_a_text_is_read_field_by_field(namespace: str, text: str) -> None:
    message = SignInMessage.from_text_untrusted(text)
    assert message == SignInMessage(
        domain="example.com:8443",
        address=text.split("\n")[1],
        statement="Sign in to Example",
        uri="https://example.com:8443/login",
        chain_id=ChainId(namespace, labelled(text)["chain_id"].removeprefix("Chain ID: ")),
        nonce="abcDEF0123456789",
        issued_at=datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC),
        expiration_time=datetime(2026, 1, 2, 3, 14, 5, tzinfo=UTC),
        not_before=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        request_id="mailbox-7",
        resources=("urn:peer:website", "urn:peer:wallet"),
    )
    assert str(message) == text
    assert str(message.account) == f"{message.chain_id}:{message.address}"


def test_the_example_of_solanas_profile_is_read_once_it_is_canonical() -> None:
    example = """\
service.org wants you to sign in with your Solana account:
GwAF45zjfyGzUbd3i3hXxzGeuchzEZXwpRYHZM5912F1

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 32891757
Issued At: 2021-09-30T16:25:24.000Z
Resources:
- ipfs://Qme7ss3ARVgxv6rXqVPiikMJ8u2NLgmgszg13pYrDKEoiu
- https://example.com/my-web2-claim.json"""
    assert refused_field(example) == "issued_at"
    example = example.replace(".000Z", "Z")
    assert refused_field(example) == "chain_id"
    # The example of CAIP-122 itself names the chain by all 44 characters, which no CAIP-2 reference has.
    genesis = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"
    assert refused_field(example.replace("Chain ID: 1", f"Chain ID: {genesis}")) == "chain_id"
    example = example.replace("Chain ID: 1", f"Chain ID: {genesis[:32]}")
    assert str(SignInMessage.from_text_untrusted(example)) == example


@pytest.mark.parametrize(("name", "empty_lines"), [("eip155", 2), ("solana", 1), ("algorand", 2)])
def test_without_a_statement_there_are_as_many_empty_lines_as_the_namespace_has(
    name: str, empty_lines: int
) -> None:
    message = replace(SignInMessage.from_text_untrusted(TEXTS[name]), statement=None)
    assert str(message) == edited(TEXTS[name], "\n\nSign in to Example\n\n", "\n" * (empty_lines + 1))
    assert SignInMessage.from_text_untrusted(str(message)) == message
    for other in {0, 1, 2, 3, 4} - {empty_lines}:
        refused_field(edited(TEXTS[name], "\n\nSign in to Example\n\n", "\n" * (other + 1)))


def test_a_statement_that_reads_like_the_next_field_is_told_from_it(namespace: str) -> None:
    message = SignInMessage.from_text_untrusted(TEXTS[namespace])
    for statement in ("URI:", "URI:https://evil.example", "uri: x", "x URI: y", "Nonce: 12345678", "- a:b"):
        said = replace(message, statement=statement)
        assert SignInMessage.from_text_untrusted(str(said)) == said
    statement = "URI: https://evil.example"
    if namespace == "solana":
        with pytest.raises(LinkRefused, match="statement: begins like the next field"):
            replace(message, statement=statement)
        refused_field(edited(str(message), "Sign in to Example", statement))
    else:
        said = replace(message, statement=statement)
        assert SignInMessage.from_text_untrusted(str(said)) == said


def test_the_optional_lines_may_be_left_out_and_no_others(text: str) -> None:
    for field, line in labelled(text).items():
        without = edited(text, f"{line}\n", "")
        if field in OPTIONAL:
            message = SignInMessage.from_text_untrusted(without)
            assert getattr(message, field) is None
            assert str(message) == without
        elif field == "resources":
            assert refused_field(without) == "message"
        else:
            assert refused_field(without) == field
    bare = text.partition("\nResources")[0]
    assert SignInMessage.from_text_untrusted(bare).resources == ()


# --- what can be done to lines


def test_no_line_may_stand_twice(text: str) -> None:
    lines = text.split("\n")
    for number, line in enumerate(lines):
        twice = "\n".join([*lines[: number + 1], line, *lines[number + 1 :]])
        if line.startswith("- "):
            assert len(SignInMessage.from_text_untrusted(twice).resources) == 3
        else:
            refused_field(twice)
    bare = text.partition("\nResources")[0]
    for field, line in labelled(text).items():
        if field != "resources":
            assert refused_field(f"{bare}\n{line}") == field


def test_no_two_lines_may_change_places(text: str) -> None:
    lines = text.split("\n")
    for first in range(len(lines)):
        for second in range(first + 1, len(lines)):
            swapped = lines.copy()
            swapped[first], swapped[second] = lines[second], lines[first]
            if lines[first] == lines[second]:
                continue
            if lines[first].startswith("- "):
                assert SignInMessage.from_text_untrusted("\n".join(swapped)).resources[0] == "urn:peer:wallet"
            else:
                refused_field("\n".join(swapped))


def test_the_order_of_another_namespace_is_refused() -> None:
    chain = f"{labelled(ALGORAND)['chain_id']}\n"
    early = edited(edited(ALGORAND, chain, ""), "Nonce: ", f"{chain}Nonce: ")
    assert refused_field(early) == "nonce"
    for text in (ETHEREUM, SOLANA):
        chain = f"{labelled(text)['chain_id']}\n"
        assert (
            refused_field(edited(edited(text, chain, ""), "Resources:", f"{chain}Resources:")) == "chain_id"
        )


@pytest.mark.parametrize("label", LABELS)
def test_a_label_has_one_form(text: str, label: str) -> None:
    field = LABELS[label]
    line = labelled(text)[field]
    for wrong in (
        label.lower(),
        label.upper() if label != "URI" else "Uri",
        f" {label}",
        f"{label} ",
        f"\t{label}",
        label.translate(str.maketrans("aeU", "\u0430\u0435\uff35")),  # look-alikes
        f"{label}\u200b",
        f"\ufeff{label}",
        label[:-1],
    ):
        found = refused_field(edited(text, f"{line}\n", f"{wrong}{line.removeprefix(label)}\n"))
        # A line that is not recognised stands in the place of the next one.
        assert found == field or field in OPTIONAL | {"resources"}


CONTROLS = [
    "\0",
    "\t",
    "\v",
    "\f",
    "\r",
    "\x1b",
    "\x7f",
    "\x85",
    "\u00a0",
    "\u200b",
    "\u202e",
    "\u2028",
    "\ufeff",
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: f"U+{ord(control):04X}")
def test_no_line_may_hold_a_control_or_an_invisible_character(text: str, control: str) -> None:
    lines = text.split("\n")
    for number, line in enumerate(lines):
        for at in {0, len(line) // 2, len(line)}:
            changed = line[:at] + control + line[at:]
            refused_field("\n".join([*lines[:number], changed, *lines[number + 1 :]]))


@pytest.mark.parametrize(
    "ending", ["\n", "\r\n", "\r", " ", "\0", "\n\n", "\n- ", "\n-", "\nmore", "\n- a:b\n"]
)
def test_nothing_may_follow(text: str, ending: str) -> None:
    refused_field(text + ending)


@pytest.mark.parametrize("ending", ["\r\n", "\r", "\v", "\u2028", "\n\n", "\n "])
def test_lines_end_with_a_line_feed_alone(text: str, ending: str) -> None:
    refused_field(text.replace("\n", ending))


def test_a_letter_that_looks_like_another_is_refused_wherever_it_stands(text: str) -> None:
    look_alikes = str.maketrans("aceopxyABEHKMOPTX0", "асеорхуАВЕНКМОРТХО")  # noqa: RUF001 - the point
    for at, letter in enumerate(text):
        other = letter.translate(look_alikes)
        if other != letter:
            refused_field(text[:at] + other + text[at + 1 :])
        if "!" <= letter <= "~":
            refused_field(text[:at] + chr(ord(letter) + 0xFEE0) + text[at + 1 :])  # its wide form


# --- the fields that differ


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("solana", "mainnet"),
        ("solana", "solana:mainnet"),
        ("solana", "1"),
        ("solana", ""),
        ("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvd"),
        ("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpK"),
        ("solana", "0eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
        ("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp "),
        ("solana", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
        ("solana", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73k-"),
        ("algorand", "mainnet-v1.0"),
        ("algorand", "283"),
        ("algorand", ""),
        ("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73"),
        ("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73kt"),
        ("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73+"),
        ("algorand", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73k="),
        ("algorand", "algorand:wGHE2Pwdvd7S12BL5FaOP20EGYesN73k"),
        ("eip155", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
        ("eip155", "wGHE2Pwdvd7S12BL5FaOP20EGYesN73k"),
    ],
)
def test_a_chain_has_one_name(name: str, reference: str) -> None:
    text = TEXTS[name]
    assert refused_field(edited(text, labelled(text)["chain_id"], f"Chain ID: {reference}")) == "chain_id"


def test_an_address_of_another_namespace_is_refused(text: str) -> None:
    address = text.split("\n")[1]
    for other in TEXTS.values():
        if other != text:
            assert refused_field(edited(text, address, other.split("\n")[1])) == "address"


@pytest.mark.parametrize(
    "change", [str.lower, str.upper, str.swapcase, lambda address: address[:-2], str.title]
)
def test_an_address_has_one_form(text: str, change: Callable[[str], str]) -> None:
    address = text.split("\n")[1]
    if change(address) != address:
        assert refused_field(edited(text, address, change(address))) == "address"


@pytest.mark.parametrize("name", ["solana", "algorand"])
def test_a_scheme_has_no_place_but_in_eip_4361(name: str) -> None:
    assert refused_field(f"https://{TEXTS[name]}") == "scheme"
    with pytest.raises(LinkRefused, match="scheme: has no place"):
        replace(SignInMessage.from_text_untrusted(TEXTS[name]), scheme="https")


@pytest.mark.parametrize(
    "kind", ["Bitcoin", "ethereum", "SOLANA", "Algorand ", "", "Solana\u200b", "S\u043elana"]
)
def test_an_account_of_another_kind_is_refused(text: str, kind: str) -> None:
    for known in ("Ethereum", "Solana", "Algorand"):
        if known in text:
            assert refused_field(edited(text, known, kind)) == "message"


@pytest.mark.parametrize("chain", [ChainId("cosmos", "cosmoshub-3"), ChainId("bip122", "0" * 32)])
def test_a_message_for_a_chain_without_a_text_cannot_be_made(chain: ChainId) -> None:
    with pytest.raises(LinkRefused, match="chain_id: is of none of the namespaces eip155, solana, algorand"):
        replace(SignInMessage.from_text_untrusted(ETHEREUM), chain_id=chain)


def test_the_limits_are_those_of_every_namespace(text: str) -> None:
    message = SignInMessage.from_text_untrusted(text)
    for field, longest, too_long in (
        ("nonce", "n" * 128, "n" * 129),
        ("uri", "a:" + "b" * 2046, "a:" + "b" * 2047),
        ("resources", ("a:b",) * 32, ("a:b",) * 33),
        ("domain", ".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 62])),
    ):
        most = replace(message, **{field: longest})
        assert SignInMessage.from_text_untrusted(str(most)) == most
        with pytest.raises(LinkRefused) as caught:
            replace(message, **{field: too_long})
        assert caught.value.field == field
    with pytest.raises(LinkRefused, match="message: is longer than 8192"):
        replace(message, statement="s" * 8192)


# --- every message


def _algorand(key: bytes) -> str:
    return base64.b32encode(key + hashlib.new("sha512_256", key).digest()[-4:]).decode().rstrip("=")


keys = st.binary(min_size=32, max_size=32)
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
accounts = st.one_of(
    st.tuples(
        st.integers(1, 2**63 - 37).map(lambda number: ChainId("eip155", str(number))),
        keys.map(lambda key: checksum_address(f"0x{key[:20].hex()}")),
    ),
    st.tuples(
        st.text(BASE58, min_size=32, max_size=32).map(lambda reference: ChainId("solana", reference)),
        keys.map(lambda key: base58.b58encode(key).decode()),
    ),
    st.tuples(
        keys.map(lambda key: ChainId("algorand", base64.urlsafe_b64encode(key).decode()[:32])),
        keys.map(_algorand),
    ),
)
STATEMENT = "abcXYZ019-._~!$&'()*+,;=:@/?#[] "
moments = st.integers(0, 10**14).map(
    lambda milliseconds: datetime(2, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
)


@st.composite
def messages(draw: st.DrawFn) -> SignInMessage:
    chain, address = draw(accounts)
    return SignInMessage(
        domain=draw(st.sampled_from(["example.com", "localhost:3000", "[::1]", "127.0.0.1:1"])),
        address=address,
        statement=draw(
            st.none()
            | st.text(STATEMENT, min_size=1, max_size=40).filter(lambda said: not said.startswith("URI: "))
            | st.sampled_from(["Version: 1", "Nonce: 12345678", " ", "Resources:"])
        ),
        uri=draw(st.sampled_from(["https://example.com", "urn:a:b", "a:/"])),
        chain_id=chain,
        nonce=draw(st.from_regex(r"[A-Za-z0-9]{8,20}", fullmatch=True)),
        issued_at=draw(moments),
        expiration_time=draw(st.none() | moments),
        not_before=draw(st.none() | moments),
        request_id=draw(st.none() | st.from_regex(r"[A-Za-z0-9:@!-]{1,10}", fullmatch=True)),
        resources=tuple(draw(st.lists(st.sampled_from(["a:b", "https://example.com/#x"]), max_size=3))),
    )


@given(messages())
def test_a_printed_message_reads_back_as_itself(message: SignInMessage) -> None:
    assert SignInMessage.from_text_untrusted(str(message)) == message


@given(messages(), st.data())
def test_an_edit_is_refused_or_is_another_message(message: SignInMessage, data: st.DataObject) -> None:
    text = str(message)
    at = data.draw(st.integers(0, len(text)))
    until = data.draw(st.integers(at, min(len(text), at + 3)))
    changed = text[:at] + data.draw(st.text("\n\r :-/0aAU\u0430", max_size=3)) + text[until:]
    try:
        other = SignInMessage.from_text_untrusted(changed)
    except LinkRefused:
        return
    assert str(other) == changed
    assert (other == message) == (changed == text)


@given(messages(), messages())
def test_lines_of_two_messages_make_none_or_a_third(one: SignInMessage, two: SignInMessage) -> None:
    first, second = str(one).split("\n"), str(two).split("\n")
    for cut in range(min(len(first), len(second))):
        mixed = "\n".join(first[:cut] + second[cut:])
        try:
            assert str(SignInMessage.from_text_untrusted(mixed)) == mixed
        except LinkRefused:
            continue
