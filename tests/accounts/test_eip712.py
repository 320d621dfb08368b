import copy
from collections.abc import Callable

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import LocalAccount, recover_typed_data
from handclasp.accounts.eip712 import hash_typed_data_untrusted
from handclasp.accounts.keccak import keccak256
from handclasp.errors import ProtocolViolation

Json = dict[str, object]

# The example of EIP-712.
MAIL: Json = {
    "types": {
        "EIP712Domain": [
            {"name": "name", "type": "string"},
            {"name": "version", "type": "string"},
            {"name": "chainId", "type": "uint256"},
            {"name": "verifyingContract", "type": "address"},
        ],
        "Person": [{"name": "name", "type": "string"}, {"name": "wallet", "type": "address"}],
        "Mail": [
            {"name": "from", "type": "Person"},
            {"name": "to", "type": "Person"},
            {"name": "contents", "type": "string"},
        ],
    },
    "primaryType": "Mail",
    "domain": {
        "name": "Ether Mail",
        "version": "1",
        "chainId": 1,
        "verifyingContract": "0xCcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC",
    },
    "message": {
        "from": {"name": "Cow", "wallet": "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"},
        "to": {"name": "Bob", "wallet": "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"},
        "contents": "Hello, Bob!",
    },
}


def one(type_: str, value: object) -> Json:
    """Typed data with one field of *type_*."""
    return {
        "types": {
            "EIP712Domain": [{"name": "name", "type": "string"}],
            "Inner": [{"name": "number", "type": "uint8"}],
            "Chain": [{"name": "next", "type": "Chain"}],
            "Outer": [{"name": "field", "type": type_}],
        },
        "primaryType": "Outer",
        "domain": {"name": "Test"},
        "message": {"field": value},
    }


def second_opinion(typed: Json) -> tuple[bytes, bytes]:
    typed = copy.deepcopy(typed)
    types = typed["types"]
    assert isinstance(types, dict)
    # eth-account wants no types that are not used
    for name in ("Inner", "Chain"):
        if name not in str(types["Outer"]):
            types.pop(name)
    signable = encode_typed_data(full_message=typed)
    return signable.header, signable.body


def test_the_example_of_the_standard_hashes_and_signs_to_the_published_values() -> None:
    domain_separator, struct_hash = hash_typed_data_untrusted(MAIL)
    assert domain_separator.hex() == "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"
    assert struct_hash.hex() == "c52c0ee5d84264471806290a3f2c4cecfc5490626bf912d01f240d7a274b371e"
    account = LocalAccount(Account.from_key(keccak256(b"cow")))
    assert account.sign_typed_data(MAIL) == (
        "0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
        "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c"
    )
    assert recover_typed_data(MAIL, account.sign_typed_data(MAIL)) == account.address


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("bool", True),
        ("bool", False),
        ("string", ""),
        ("string", "Grüße"),
        ("bytes", "0x"),
        ("bytes", "0x00ff"),
        ("bytes1", "0xff"),
        ("bytes32", "0x" + "ab" * 32),
        ("address", "0x" + "ab" * 20),
        ("uint8", 255),
        ("uint256", 2**256 - 1),
        ("uint256", str(2**256 - 1)),
        ("uint256", "0x" + "f" * 64),
        ("uint64", "0x0a"),
        ("int8", -128),
        ("int8", "-128"),
        ("int256", -(2**255)),
        ("int256", 2**255 - 1),
        ("uint8[]", []),
        ("uint8[]", [1, 2, 3]),
        ("uint8[3]", [1, 2, 3]),
        ("uint8[2][]", [[1, 2], [3, 4]]),
        ("string[]", ["a", "b"]),
        ("Inner", {"number": 1}),
        ("Inner", None),
        ("Inner[]", [{"number": 1}, {"number": 2}]),
        ("Inner[2][1]", [[{"number": 1}, {"number": 2}]]),
        ("Chain", {"next": {"next": None}}),
    ],
)
def test_a_value_of_every_type_hashes_as_eth_account_hashes_it(type_: str, value: object) -> None:
    typed = one(type_, value)
    assert hash_typed_data_untrusted(typed) == second_opinion(typed)


values = st.recursive(
    st.one_of(
        st.integers(8, 256)
        .map(lambda bits: bits // 8 * 8)
        .flatmap(lambda bits: st.tuples(st.just(f"uint{bits}"), st.integers(0, 2**bits - 1))),
        st.integers(-(2**255), 2**255 - 1).map(lambda number: ("int256", number)),
        st.booleans().map(lambda value: ("bool", value)),
        st.text(max_size=9).map(lambda value: ("string", value)),
        st.binary(max_size=40).map(lambda value: ("bytes", f"0x{value.hex()}")),
        st.binary(min_size=1, max_size=32).map(lambda value: (f"bytes{len(value)}", f"0x{value.hex()}")),
        st.integers(0, 255).map(lambda number: ("Inner", {"number": number})),
    ),
    lambda inner: st.tuples(inner, st.integers(0, 3)).map(
        lambda pair: (f"{pair[0][0]}[]", [pair[0][1]] * pair[1])
    ),
    max_leaves=4,
)


@given(values)
def test_any_value_hashes_as_eth_account_hashes_it(value: tuple[str, object]) -> None:
    typed = one(*value)
    assert hash_typed_data_untrusted(typed) == second_opinion(typed)


@pytest.mark.parametrize(
    ("type_", "value", "where"),
    [
        ("bool", "no", "message.field"),
        ("bool", 1, "message.field"),
        ("bool", None, "message.field"),
        ("string", None, "message.field"),
        ("string", 1, "message.field"),
        ("string", "\ud800", "message.field"),
        ("bytes", "text", "message.field"),
        ("bytes", "0x0", "message.field"),
        ("bytes", "0xgg", "message.field"),
        ("bytes", "0x00\n", "message.field"),
        ("bytes", 0, "message.field"),
        ("bytes", None, "message.field"),
        ("bytes4", "0x00", "message.field"),
        ("bytes4", "0x0000000000", "message.field"),
        ("address", "0x" + "ab" * 19, "message.field"),
        ("address", "0x" + "ab" * 21, "message.field"),
        ("address", "vitalik.eth", "message.field"),
        ("address", 0, "message.field"),
        ("uint8", 256, "message.field"),
        ("uint8", -1, "message.field"),
        ("uint8", "-1", "message.field"),
        ("uint8", "256", "message.field"),
        ("uint8", 1.0, "message.field"),
        ("uint8", True, "message.field"),
        ("uint8", None, "message.field"),
        ("uint8", "", "message.field"),
        ("uint8", "0x", "message.field"),
        ("uint8", "01", "message.field"),
        ("uint8", " 1", "message.field"),
        ("uint8", "1_0", "message.field"),
        ("uint8", "1e1", "message.field"),
        ("uint8", "-0x1", "message.field"),
        ("uint8", "\u0661", "message.field"),
        ("uint256", 2**256, "message.field"),
        ("uint256", "9" * 5000, "message.field"),
        ("int8", 128, "message.field"),
        ("int8", -129, "message.field"),
        ("uint8[]", None, "message.field"),
        ("uint8[]", "12", "message.field"),
        ("uint8[]", {"0": 1}, "message.field"),
        ("uint8[]", [1, 256], "message.field[]"),
        ("uint8[2]", [1], "message.field"),
        ("uint8[2]", [1, 2, 3], "message.field"),
        ("Inner", {}, "message.field"),
        ("Inner", {"number": 1, "hidden": 2}, "message.field"),
        ("Inner", {"Number": 1}, "message.field"),
        ("Inner", {"number": 256}, "message.field.number"),
        ("Inner", [], "message.field"),
        ("Inner", {1: 1}, "message.field"),
        *(
            (type_, 0, "types.Outer")
            for type_ in (
                "",
                "uint",
                "int",
                "uint7",
                "uint0",
                "uint264",
                "uint08",
                "bytes0",
                "bytes33",
                "byte",
                "Missing",
                "Missing[]",
                "uint8[",
                "uint8]",
                "uint8[-1]",
                "uint8[01]",
                "[]",
                "uint8 ",
                "uint8 a,uint8",
                "uint8\n",
                "uint8" + "[]" * 126,
            )
        ),
    ],
)
def test_a_value_that_would_have_to_be_converted_is_refused(type_: str, value: object, where: str) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        hash_typed_data_untrusted(one(type_, value))
    assert str(caught.value).startswith(f"typed data: {where}: ")


def _set(path: str, value: object) -> Callable[[Json], None]:
    def change(typed: Json) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            step = typed[parent]
            assert isinstance(step, dict)
            typed = step
        typed[last] = value

    return change


def _drop(name: str) -> Callable[[Json], None]:
    return lambda typed: typed.__delitem__(name)


FIELD = {"name": "x", "type": "bool"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        *((_drop(name), "the whole") for name in MAIL),
        (_set("extra", 1), "the whole"),
        (_set("types", []), "types"),
        (_set("types", {}), "types"),
        (_set("types", {1: []}), "types"),
        (_set("types.EIP712Domain", []), "types"),
        (_set("types.EIP712Domain", None), "types.EIP712Domain"),
        (_set("types.EIP712Domain", [{"name": "name", "type": "bytes"}]), "types.EIP712Domain"),
        (_set("types.EIP712Domain", [{"name": "origin", "type": "string"}]), "types.EIP712Domain"),
        (_set("types.uint256", [FIELD]), "types"),
        (_set("types.bytes", [FIELD]), "types"),
        (_set("types.string", [FIELD]), "types"),
        (_set("types.A(bool x)", [FIELD]), "types"),
        (_set("types.A[]", [FIELD]), "types"),
        (_set("types.", [FIELD]), "types"),
        (_set("types.A\n", [FIELD]), "types"),
        (_set("types.A" + "a" * 128, [FIELD]), "types"),
        (_set("types.A", {}), "types.A"),
        (_set("types.A", [[]]), "types.A"),
        (_set("types.A", [FIELD | {"more": 1}]), "types.A"),
        (_set("types.A", [{"name": "x"}]), "types.A"),
        (_set("types.A", [{"name": 1, "type": "bool"}]), "types.A"),
        (_set("types.A", [{"name": "x", "type": 1}]), "types.A"),
        (_set("types.A", [{"name": "x,bool y", "type": "bool"}]), "types.A"),
        (_set("types.A", [{"name": "", "type": "bool"}]), "types.A"),
        (_set("types.A", [FIELD, FIELD]), "types.A"),
        (_set("types.A", [{"name": f"x{n}", "type": "bool"} for n in range(65)]), "types.A"),
        (_set("types.A", [{"name": "x", "type": "B"}]), "types.A"),
        (lambda typed: typed["types"].update({f"A{n}": [FIELD] for n in range(62)}), "types"),  # type: ignore[attr-defined]
        (_set("primaryType", "mail"), "primaryType"),
        (_set("primaryType", "EIP712Domain"), "primaryType"),
        (_set("primaryType", None), "primaryType"),
        (_set("primaryType", ["Mail"]), "primaryType"),
        (_set("domain", None), "domain"),
        (_set("domain", {}), "domain"),
        (_set("domain.salt", "0x" + "00" * 32), "domain"),
        (_set("domain.chainId", "one"), "domain.chainId"),
        (_set("message", None), "message"),
        (_set("message", []), "message"),
        (_set("message.cc", "hidden"), "message"),
        (_set("message.to.wallet", "0x"), "message.to.wallet"),
    ],
)
def test_typed_data_of_another_shape_is_refused(change: Callable[[Json], None], where: str) -> None:
    typed = copy.deepcopy(MAIL)
    change(typed)
    with pytest.raises(ProtocolViolation) as caught:
        hash_typed_data_untrusted(typed)
    assert str(caught.value).startswith(f"typed data: {where}: ")


def test_the_types_that_a_type_refers_to_are_hashed_in_the_order_of_their_names() -> None:
    flag = [{"name": "flag", "type": "bool"}]
    typed = one("bool", value=True)
    typed["primaryType"] = "Pair"
    typed["types"] = {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "C": flag,
        "A": flag,
        "B": [{"name": "c", "type": "C[]"}],
        "Pair": [{"name": "b", "type": "B"}, {"name": "a", "type": "A"}],
    }
    typed["message"] = {"b": None, "a": None}
    encoded = "Pair(B b,A a)A(bool flag)B(C[] c)C(bool flag)"
    assert hash_typed_data_untrusted(typed)[1] == keccak256(keccak256(encoded.encode()) + bytes(64))


def test_the_fields_of_the_domain_are_hashed_in_the_order_in_which_they_are_declared() -> None:
    typed = copy.deepcopy(MAIL)
    types = typed["types"]
    assert isinstance(types, dict)
    types["EIP712Domain"] = types["EIP712Domain"][::-1]
    encoded = "EIP712Domain(address verifyingContract,uint256 chainId,string version,string name)"
    words = [b"\xcc" * 20, b"\x01", keccak256(b"1"), keccak256(b"Ether Mail")]
    expected = keccak256(keccak256(encoded.encode()) + b"".join(word.rjust(32, b"\0") for word in words))
    assert hash_typed_data_untrusted(typed)[0] == expected


def test_values_are_nested_up_to_the_limit_and_not_beyond() -> None:
    def chain(levels: int) -> object:
        value: object = None
        for _ in range(levels):
            value = {"next": value}
        return value

    hash_typed_data_untrusted(one("Chain", chain(31)))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        hash_typed_data_untrusted(one("Chain", chain(32)))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        hash_typed_data_untrusted(one("Chain", chain(100_000)))
    lists: object = True
    for _ in range(31):
        lists = [lists]
    hash_typed_data_untrusted(one("bool" + "[]" * 31, lists))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        hash_typed_data_untrusted(one("bool" + "[]" * 32, [lists]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["types", "primaryType", "domain", "message"]), json_values)
def test_any_json_in_any_place_is_refused(name: str, value: object) -> None:
    with pytest.raises(ProtocolViolation):
        hash_typed_data_untrusted(MAIL | {name: value})
