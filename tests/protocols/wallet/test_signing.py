import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.accounts import LocalAccount, recover_message, recover_typed_data, verify_message
from handclasp.errors import RequestFailed
from handclasp.protocols.wallet import SigningRequest
from handclasp.protocols.wallet.signing import prepare_untrusted

ORIGIN = "https://shop.example"
CHAIN = "eip155:1"
PERSONAL, TYPED = "personal_sign", "eth_signTypedData_v4"
ACCOUNT = LocalAccount.generate()
ADDRESS = ACCOUNT.address
STRANGER = LocalAccount.generate().address

MAIL: dict[str, object] = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}, {"name": "chainId", "type": "uint256"}],
        "Mail": [{"name": "to", "type": "address"}, {"name": "contents", "type": "string"}],
    },
    "primaryType": "Mail",
    "domain": {"name": "Mail", "chainId": 1},
    "message": {"to": "0x" + "bb" * 20, "contents": "Hello, Bob!"},
}


def mail(contents: str) -> dict[str, object]:
    typed = copy.deepcopy(MAIL)
    typed["message"] = {"to": "0x" + "bb" * 20, "contents": contents}
    return typed


def prepare(method: str, *params: object) -> SigningRequest:
    return prepare_untrusted(ACCOUNT, ORIGIN, CHAIN, method, list(params))


def refused(method: str, params: object) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        prepare_untrusted(ACCOUNT, ORIGIN, CHAIN, method, params)
    return caught.value


def hexed(data: bytes) -> str:
    return "0x" + data.hex()


# --- personal_sign ---


def test_a_request_says_who_asks_for_what_and_by_which_account() -> None:
    request = prepare(PERSONAL, "hello", ADDRESS)
    assert (request.origin, request.chain, request.method) == (ORIGIN, CHAIN, PERSONAL)
    assert (request.address, request.shown) == (ADDRESS, "hello")


@pytest.mark.parametrize(
    "params", [("hello", ADDRESS), (ADDRESS, "hello")], ids=["data first", "address first"]
)
def test_both_orders_of_params_are_understood(params: tuple[str, str]) -> None:
    request = prepare(PERSONAL, *params)
    assert request.shown == "hello"
    verify_message("hello", request.sign(), ADDRESS)


@pytest.mark.parametrize("text", ["hello", "", "h\u00e9llo \u4e16\u754c \U0001f600", "two\nlines", "a\tb"])
def test_a_text_and_its_hex_are_the_same_message(text: str) -> None:
    plain, coded = prepare(PERSONAL, text, ADDRESS), prepare(PERSONAL, hexed(text.encode()), ADDRESS)
    assert plain.shown == coded.shown == text
    assert plain.sign() == coded.sign()
    verify_message(text, plain.sign(), ADDRESS)


def test_hex_digits_may_be_in_upper_case() -> None:
    assert prepare(PERSONAL, "0x4A4B", ADDRESS).shown == "JK"


@pytest.mark.parametrize("text", ["0x", "0X6869", "6869", "0x686", "0x68zz", "0x 68", "0x6869\n", "x6869"])
def test_what_is_not_exactly_hex_is_text(text: str) -> None:
    request = prepare(PERSONAL, text, ADDRESS)
    expected = "" if text == "0x" else text
    assert request.shown == expected
    verify_message(expected, request.sign(), ADDRESS)


@pytest.mark.parametrize("data", [b"\xff", b"\xc3(", b"hello\x80", bytes(range(256)), b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_shown_as_hex_and_signed_as_they_are(data: bytes) -> None:
    request = prepare(PERSONAL, hexed(data), ADDRESS)
    assert request.shown == hexed(data)
    verify_message(data, request.sign(), ADDRESS)


DECEITFUL = [
    pytest.param("pay 1\x1b[2K\rpay 0", id="terminal sequence"),
    pytest.param("pay 1000\x08\x08\x08", id="backspaces"),
    pytest.param("pay 1000\rpay 0   ", id="carriage return"),
    pytest.param("harmless\n\x1b[8mnot harmless", id="terminal sequence after a line feed"),
    pytest.param("harmless\n\rnot", id="carriage return after a line feed"),
    pytest.param("\u202eknab eht yap", id="right-to-left override"),
    pytest.param("to \u2066bob\u2069", id="isolates"),
    pytest.param("\x9b2J", id="C1 control"),
    pytest.param("a\x00b", id="zero byte"),
    pytest.param("a\x7fb", id="delete"),
    pytest.param("a\u2028b", id="line separator"),
    pytest.param("a\u00adb", id="soft hyphen"),
    pytest.param("a\U000e0041b", id="tag letter"),
]


@pytest.mark.parametrize("text", DECEITFUL)
def test_text_that_would_show_as_something_else_is_shown_as_hex(text: str) -> None:
    for data in (text, hexed(text.encode())):
        request = prepare(PERSONAL, data, ADDRESS)
        assert request.shown == hexed(text.encode())
        verify_message(text, request.sign(), ADDRESS)  # what is signed does not change


@pytest.mark.parametrize(
    "text", ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]
)
def test_scripts_and_emoji_that_need_joiners_are_shown_as_text(text: str) -> None:
    assert prepare(PERSONAL, text, ADDRESS).shown == text


@given(st.text() | st.binary().map(hexed))
@settings(deadline=None)
def test_what_is_shown_is_the_message_or_its_hex(data: str) -> None:
    with suppress(RequestFailed):  # a lone surrogate
        request = prepare(PERSONAL, data, ADDRESS)
        signers = {recover_message(shown, request.sign()) for shown in meanings(request.shown)}
        assert ADDRESS in signers
        assert all(c.isprintable() or c in "\n\t\u200c\u200d" for c in request.shown)


def meanings(shown: str) -> list[str | bytes]:
    """What a person can take *shown* for: a text, or bytes in hex."""
    try:
        return [shown, bytes.fromhex(shown.removeprefix("0x"))] if shown.startswith("0x") else [shown]
    except ValueError:
        return [shown]


def test_the_signature_carries_the_prefix_that_no_transaction_has() -> None:
    # 32 bytes, as a hash of a transaction has: signed as text of that length, they are worth nothing there.
    request = prepare(PERSONAL, hexed(bytes(32)), ADDRESS)
    assert request.shown == hexed(bytes(32))
    verify_message(bytes(32), request.sign(), ADDRESS)


def test_an_address_can_be_signed_as_a_message() -> None:
    # Two addresses: the order of the standard counts.
    request = prepare(PERSONAL, STRANGER, ADDRESS)
    verify_message(bytes.fromhex(STRANGER[2:]), request.sign(), ADDRESS)
    assert refused(PERSONAL, [ADDRESS, STRANGER]).code == 4100


# --- whose account ---


def test_the_address_may_be_written_in_any_case() -> None:
    for address in (ADDRESS, ADDRESS.lower(), "0x" + ADDRESS[2:].upper()):
        assert prepare(PERSONAL, "hello", address).address == ADDRESS
        assert prepare(TYPED, address, MAIL).address == ADDRESS


NEIGHBOUR = ADDRESS[:-1] + f"{int(ADDRESS[-1], 16) ^ 1:x}"


@pytest.mark.parametrize(
    "address",
    [STRANGER, STRANGER.lower(), NEIGHBOUR, "0x" + "00" * 20],
    ids=["stranger", "stranger in lower case", "one digit off", "zero"],
)
def test_another_account_is_unauthorized(address: str) -> None:
    assert refused(PERSONAL, ["hello", address]).code == 4100
    assert refused(PERSONAL, [address, "hello"]).code == 4100
    assert refused(TYPED, [address, MAIL]).code == 4100
    assert refused(TYPED, [MAIL, address]).code == 4100


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("", id="nothing"),
        pytest.param("0x", id="no digits"),
        pytest.param("bob.eth", id="a name"),
        pytest.param(ADDRESS[2:], id="no 0x"),
        pytest.param(ADDRESS[:-1], id="39 digits"),
        pytest.param(ADDRESS + "0", id="41 digits"),
        pytest.param(f"{CHAIN}:{ADDRESS}", id="account id"),
        pytest.param(f" {ADDRESS}", id="space in front"),
        pytest.param(f"{ADDRESS}\n", id="line feed behind"),
        pytest.param(None, id="null"),
        pytest.param(5, id="a number"),
        pytest.param([ADDRESS], id="a list"),
    ],
)
def test_what_is_no_address_is_invalid_params(address: object) -> None:
    for method, data in ((PERSONAL, "hello"), (TYPED, MAIL)):
        for params in ([data, address], [address, data]):
            error = refused(method, params)
            assert error.code == -32602
            assert error.message.startswith("address: ")


# --- malformed params ---


@pytest.mark.parametrize("method", [PERSONAL, TYPED])
@pytest.mark.parametrize("params", [None, "hello", 5, {}, {"data": "hello"}, [], ["hello"], [ADDRESS]])
def test_fewer_than_two_params_are_invalid(method: str, params: object) -> None:
    error = refused(method, params)
    assert (error.code, error.message) == (-32602, f"{method} takes a list of two params")


def test_a_third_param_means_nothing() -> None:
    assert prepare(PERSONAL, "hello", ADDRESS, "password").shown == "hello"
    assert prepare(TYPED, ADDRESS, MAIL, {}).address == ADDRESS


@pytest.mark.parametrize("data", [None, 5, True, ["hello"], {"text": "hello"}, 1.5])
def test_a_message_that_is_no_text_is_invalid(data: object) -> None:
    error = refused(PERSONAL, [data, ADDRESS])
    assert error.code == -32602
    assert "message is not a text" in error.message


def test_a_message_with_lone_surrogates_is_refused_before_anybody_is_asked() -> None:
    error = refused(PERSONAL, ["\ud800", ADDRESS])
    assert error.code == -32602
    assert "not valid Unicode" in error.message


# --- typed data ---


@pytest.mark.parametrize("order", [1, -1], ids=["address first", "data first"])
@pytest.mark.parametrize("data", [MAIL, json.dumps(MAIL)], ids=["an object", "JSON text"])
def test_typed_data_may_be_an_object_or_json_text_in_both_orders(data: object, order: int) -> None:
    request = prepare(TYPED, *[ADDRESS, data][::order])
    assert recover_typed_data(MAIL, request.sign()) == ADDRESS
    assert json.loads(request.shown) == MAIL


def test_all_of_the_typed_data_is_shown() -> None:
    shown = prepare(TYPED, ADDRESS, MAIL).shown
    for text in ("Hello, Bob!", "0x" + "bb" * 20, '"chainId": 1', "Mail", "contents"):
        assert text in shown


def test_of_a_key_given_twice_the_one_that_is_signed_is_shown() -> None:
    text = json.dumps(MAIL).replace('"contents": "Hello, Bob!"', '"contents": "shown", "contents": "signed"')
    request = prepare(TYPED, ADDRESS, text)
    assert '"shown"' not in request.shown
    assert recover_typed_data(mail("signed"), request.sign()) == ADDRESS


@pytest.mark.parametrize("text", DECEITFUL)
def test_typed_data_is_shown_without_what_could_hide_it(text: str) -> None:
    request = prepare(TYPED, ADDRESS, mail(text))
    assert all(c.isprintable() or c == "\n" for c in request.shown)
    assert json.loads(request.shown) == mail(text)  # escaped the way of JSON: nothing is lost
    assert recover_typed_data(mail(text), request.sign()) == ADDRESS


def test_typed_data_in_other_scripts_is_shown_as_text() -> None:
    assert "\u4e16\u754c \U0001f600" in prepare(TYPED, ADDRESS, mail("\u4e16\u754c \U0001f600")).shown


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="nothing"),
        pytest.param("hello", id="no JSON"),
        pytest.param("0x1234", id="hex"),
        pytest.param("[]", id="a list in text"),
        pytest.param("null", id="null in text"),
        pytest.param([], id="a list"),
        pytest.param(None, id="null"),
        pytest.param(5, id="a number"),
        pytest.param({}, id="empty"),
        pytest.param({**MAIL, "extra": 1}, id="one member more"),
        pytest.param({name: value for name, value in MAIL.items() if name != "domain"}, id="no domain"),
        pytest.param({**MAIL, "primaryType": "Nothing"}, id="unknown type"),
        pytest.param({**MAIL, "message": {"to": "0x" + "bb" * 20}}, id="a field missing"),
        pytest.param({**MAIL, "message": {"to": "bob", "contents": "x"}}, id="no address"),
        pytest.param(
            {**MAIL, "message": {"to": "0x" + "bb" * 20, "contents": "\ud800"}}, id="lone surrogate"
        ),
        pytest.param(json.dumps(MAIL).replace('"chainId": 1', '"chainId": NaN'), id="not a number"),
        pytest.param("[" * 100_000, id="deep nesting"),
        pytest.param('{"message":' * 50_000, id="deep objects"),
    ],
)
def test_malformed_typed_data_is_refused_before_anybody_is_asked(data: object) -> None:
    error = refused(TYPED, [ADDRESS, data])
    assert error.code == -32602
    assert error.message.startswith("typed data: ")


def test_typed_data_nested_too_deeply_is_refused() -> None:
    deep: object = "x"
    for _ in range(900):
        deep = [deep]
    error = refused(TYPED, [ADDRESS, {**MAIL, "message": {"to": deep, "contents": deep}}])
    assert error.code == -32602


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([ADDRESS, STRANGER]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*MAIL, "Mail", "name", "type"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.sampled_from([PERSONAL, TYPED]), values | st.lists(values, min_size=2, max_size=2))
@settings(deadline=None)
def test_no_params_raise_anything_but_request_failed(method: str, params: object) -> None:
    with suppress(RequestFailed):
        prepare_untrusted(ACCOUNT, ORIGIN, CHAIN, method, params)


@given(
    st.sampled_from([[], ["message"], ["types"], ["domain"], ["message", "to"], ["types", "Mail"]]), values
)
@settings(deadline=None)
def test_typed_data_with_anything_in_one_place_is_refused_or_can_be_signed(
    path: list[str], value: object
) -> None:
    typed: object = copy.deepcopy(MAIL)
    if path:
        place = typed
        for name in path[:-1]:
            place = place[name]  # type: ignore[index]
        place[path[-1]] = value  # type: ignore[index]
    else:
        typed = value
    try:
        request = prepare(TYPED, ADDRESS, typed)
    except RequestFailed:
        return
    assert recover_typed_data(typed, request.sign()) == ADDRESS  # type: ignore[arg-type]
