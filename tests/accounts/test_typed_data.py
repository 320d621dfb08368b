import copy
import json
from collections.abc import Callable

import pytest
from eth_account import Account
from eth_account.messages import SignableMessage
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import LocalAccount, recover_typed_data
from handclasp.accounts.keccak import keccak256
from handclasp.accounts.typed_data import check_typed_data_untrusted
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


COW = LocalAccount(Account.from_key(keccak256(b"cow")))


def assert_signed(typed: Json, domain: bytes, message: bytes) -> None:
    """That what is signed is the hash of *domain* and *message*: a type's text hashed, and the words."""
    # Nothing of eth-account's encoding of typed data is used here.
    expected = SignableMessage(b"\x01", keccak256(domain), keccak256(message))
    assert Account.recover_message(expected, signature=COW.sign_typed_data(typed)) == COW.address


def same(one: Json, other: Json) -> bool:
    """Whether the two are signed as the same."""
    return recover_typed_data(other, COW.sign_typed_data(one)) == COW.address


def test_the_example_of_the_standard_signs_to_the_published_signature() -> None:
    assert COW.sign_typed_data(MAIL) == (
        "0x4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"
        "07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b915621c"
    )
    assert recover_typed_data(MAIL, COW.sign_typed_data(MAIL)) == COW.address
    assert COW.address == "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"


def test_the_examples_of_metamask_sign_to_the_published_signatures() -> None:
    # eth-sig-util, signTypedData V4: arrays and a type that is not used; a type that refers to itself.
    domain_type = MAIL["types"]["EIP712Domain"]  # type: ignore[index]
    arrays = MAIL | {
        "types": {
            "EIP712Domain": domain_type,
            "Person": [{"name": "name", "type": "string"}, {"name": "wallets", "type": "address[]"}],
            "Mail": [
                {"name": "from", "type": "Person"},
                {"name": "to", "type": "Person[]"},
                {"name": "contents", "type": "string"},
            ],
            "Group": [{"name": "name", "type": "string"}, {"name": "members", "type": "Person[]"}],
        },
        "message": {
            "from": {
                "name": "Cow",
                "wallets": [
                    "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826",
                    "0xDeaDbeefdEAdbeefdEadbEEFdeadbeEFdEaDbeeF",
                ],
            },
            "to": [
                {
                    "name": "Bob",
                    "wallets": [
                        "0xbBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB",
                        "0xB0BdaBea57B0BDABeA57b0bdABEA57b0BDabEa57",
                        "0xB0B0b0b0b0b0B000000000000000000000000000",
                    ],
                }
            ],
            "contents": "Hello, Bob!",
        },
    }
    assert COW.sign_typed_data(arrays) == (
        "0x65cbd956f2fae28a601bebc9b906cea0191744bd4c4247bcd27cd08f8eb6b71c"
        "78efdf7a31dc9abee78f492292721f362d296cf86b4538e07b51303b67f749061b"
    )

    def person(name: str, mother: object = None, father: object = None) -> Json:
        return {"name": name, "mother": mother, "father": father}

    recursive = MAIL | {
        "types": {
            "EIP712Domain": domain_type,
            "Person": [
                {"name": "name", "type": "string"},
                {"name": "mother", "type": "Person"},
                {"name": "father", "type": "Person"},
            ],
        },
        "primaryType": "Person",
        "domain": MAIL["domain"] | {"name": "Family Tree"},  # type: ignore[operator]
        "message": person(
            "Jon",
            mother=person("Lyanna", father=person("Rickard")),
            father=person("Rhaegar", father=person("Aeris II")),
        ),
    }
    dragon = LocalAccount(Account.from_key(keccak256(b"dragon")))
    assert dragon.sign_typed_data(recursive) == (
        "0xf2ec61e636ff7bb3ac8bc2a4cc2c8b8f635dd1b2ec8094c963128b358e79c85c"
        "5ca6dd637ed7e80f0436fe8fce39c0e5f2082c9517fe677cc2917dcd6c84ba881c"
    )


DOMAIN = keccak256(b"EIP712Domain(string name)") + keccak256(b"Test")
SEVEN = (7).to_bytes(32, "big")
INNER = keccak256(b"Inner(uint8 number)") + SEVEN


@pytest.mark.parametrize(
    ("type_", "value", "word"),
    [
        # EIP-712 §encodeData, by hand
        ("bool", True, bytes(31) + b"\1"),
        ("bool", False, bytes(32)),
        ("string", "", keccak256(b"")),
        ("string", "Grüße", keccak256("Grüße".encode())),
        ("string", "0x41", keccak256(b"0x41")),
        ("string", "7", keccak256(b"7")),
        ("bytes", "0x", keccak256(b"")),
        ("bytes", "0x00ff", keccak256(b"\x00\xff")),
        ("bytes", "0x00FF", keccak256(b"\x00\xff")),
        ("bytes1", "0xff", b"\xff" + bytes(31)),
        ("bytes32", "0x" + "ab" * 32, b"\xab" * 32),
        ("address", "0x" + "ab" * 20, bytes(12) + b"\xab" * 20),
        ("address", "0x" + "AB" * 20, bytes(12) + b"\xab" * 20),
        ("address", "0x" + "aB" * 20, bytes(12) + b"\xab" * 20),  # not its EIP-55 checksum
        ("uint8", 255, bytes(31) + b"\xff"),
        ("uint256", 2**256 - 1, b"\xff" * 32),
        ("uint256", str(2**256 - 1), b"\xff" * 32),
        ("uint256", "0x" + "f" * 64, b"\xff" * 32),
        ("uint64", "10", bytes(31) + b"\x0a"),
        ("uint64", "0x10", bytes(31) + b"\x10"),
        ("uint64", "0x0A", bytes(31) + b"\x0a"),
        ("int8", -128, b"\xff" * 31 + b"\x80"),
        ("int8", "-128", b"\xff" * 31 + b"\x80"),
        ("int8", "0x7f", bytes(31) + b"\x7f"),
        ("int256", -(2**255), b"\x80" + bytes(31)),
        ("int256", 2**255 - 1, b"\x7f" + b"\xff" * 31),
        ("uint8[]", [], keccak256(b"")),
        ("uint8[0]", [], keccak256(b"")),
        ("uint8[]", [7, "7", "0x7"], keccak256(SEVEN * 3)),
        ("int8[2]", ["-1", 7], keccak256(b"\xff" * 32 + SEVEN)),
        ("uint8[2][]", [[7, 7], [7, 7]], keccak256(keccak256(SEVEN * 2) * 2)),
        ("string[]", ["a", "0x"], keccak256(keccak256(b"a") + keccak256(b"0x"))),
        ("bytes[]", ["0x", "0x07"], keccak256(keccak256(b"") + keccak256(b"\7"))),
        ("bytes2[]", ["0x0700"], keccak256(b"\7" + bytes(31))),
        ("bool[]", [False, True], keccak256(bytes(63) + b"\1")),
        ("Inner", {"number": 7}, keccak256(INNER)),
        ("Inner", {"number": "7"}, keccak256(INNER)),
        ("Inner", None, bytes(32)),
        ("Inner[]", [{"number": "0x7"}, None], keccak256(keccak256(INNER) + bytes(32))),
        ("Inner[2][1]", [[{"number": 7}] * 2], keccak256(keccak256(keccak256(INNER) * 2))),
    ],
)
def test_a_value_of_every_type_is_signed_as_the_word_that_the_standard_gives_it(
    type_: str, value: object, word: bytes
) -> None:
    encoded = f"Outer({type_} field)" + ("Inner(uint8 number)" if "Inner" in type_ else "")
    assert_signed(one(type_, value), DOMAIN, keccak256(encoded.encode()) + word)


def test_a_linked_list_is_signed_down_to_its_end() -> None:
    type_hash = keccak256(b"Chain(Chain next)")
    last = keccak256(type_hash + bytes(32))
    outer = keccak256(b"Outer(Chain field)Chain(Chain next)")
    assert_signed(one("Chain", {"next": {"next": None}}), DOMAIN, outer + keccak256(type_hash + last))


def hex_of(size: int) -> st.SearchStrategy[str]:
    return st.binary(min_size=size, max_size=size).map(lambda data: f"0x{data.hex()}")


KINDS: dict[str, st.SearchStrategy[object]] = {
    **{f"uint{bits}": st.integers(0, 2**bits - 1) for bits in range(8, 257, 8)},
    **{f"int{bits}": st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in range(8, 257, 8)},
    **{f"bytes{size}": hex_of(size) for size in range(1, 33)},
    "address": hex_of(20),
    "bool": st.booleans(),
    "string": st.text(max_size=3),
    "bytes": st.binary(max_size=3).map(lambda data: f"0x{data.hex()}"),
    "Inner": st.none() | st.builds(lambda number: {"number": number}, st.integers(0, 255)),
}


@st.composite
def two_of_a_kind(draw: st.DrawFn) -> tuple[str, object, object]:
    type_ = draw(st.sampled_from(sorted(KINDS)))
    value = KINDS[type_]
    for _ in range(draw(st.integers(0, 2))):
        type_, value = f"{type_}[]", st.lists(value, max_size=3)
    return type_, draw(value), draw(value)


@given(two_of_a_kind())
def test_two_values_are_signed_as_the_same_only_if_they_are_the_same(
    values: tuple[str, object, object],
) -> None:
    type_, value, other = values
    typed = one(type_, value)
    assert same(typed, json.loads(json.dumps(typed)))
    assert same(typed, one(type_, other)) == (value == other)


@given(st.integers(-(2**255), 2**255 - 1))
def test_an_integer_is_signed_as_the_same_in_each_of_its_forms(number: int) -> None:
    typed = one("int256[]", [number])
    assert same(typed, one("int256[]", [str(number)]))
    if number >= 0:
        assert same(typed, one("int256[]", [f"0x{number:064x}"]))


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
        ("uint8", "-0", "message.field"),
        ("uint8", "0X1", "message.field"),
        ("uint8", "+1", "message.field"),
        ("uint8", " 1", "message.field"),
        ("uint8", "1_0", "message.field"),
        ("uint8", "1e1", "message.field"),
        ("uint8", "-0x1", "message.field"),
        ("uint8", "\u0661", "message.field"),
        ("uint256", 2**256, "message.field"),
        ("uint256", "9" * 5000, "message.field"),
        ("int8", 128, "message.field"),
        ("int8", -129, "message.field"),
        ("int8", "0xff", "message.field"),
        ("bool", "false", "message.field"),
        ("bool[]", [True, 0], "message.field[]"),
        ("bytes[]", ["text"], "message.field[]"),
        ("bytes4[]", ["0x00"], "message.field[]"),
        ("string[]", [None], "message.field[]"),
        ("Inner[]", [{"number": 1, "hidden": 2}], "message.field[]"),
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
                "EIP712Domain",
                "EIP712Domain[]",
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
        check_typed_data_untrusted(one(type_, value))
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
        (_set("types.EIP712Domain", [FIELD]), "types.EIP712Domain"),
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
        (_set("domain.chainId", None), "domain.chainId"),
        (_set("domain.verifyingContract", "0x"), "domain.verifyingContract"),
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
        check_typed_data_untrusted(typed)
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
    assert_signed(typed, DOMAIN, keccak256(encoded.encode()) + bytes(64))


NAMES = ("name", "version", "chainId", "verifyingContract", "salt")


def with_domain(names: list[str]) -> Json:
    types = dict(zip(NAMES, ("string", "string", "uint256", "address", "bytes32"), strict=True))
    values = dict(zip(NAMES, ("N", "1", "0x7", "0x" + "Ab" * 20, "0x" + "cd" * 32), strict=True))
    return one("bool", value=True) | {
        "types": {
            "EIP712Domain": [{"name": name, "type": types[name]} for name in names],
            "Outer": [{"name": "field", "type": "bool"}],
        },
        "domain": {name: values[name] for name in reversed(names)},  # the order of the values means nothing
    }


@given(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
def test_a_domain_is_signed_as_it_is_declared_or_refused(names: list[str]) -> None:
    # eth-account hashes the fields in the order of the EIP, whatever order the type declares
    typed = with_domain(names)
    if names != sorted(names, key=NAMES.index):
        with pytest.raises(ProtocolViolation, match=r"types\.EIP712Domain: has its fields in another order"):
            COW.sign_typed_data(typed)
        return
    fields = {
        "name": ("string name", keccak256(b"N")),
        "version": ("string version", keccak256(b"1")),
        "chainId": ("uint256 chainId", SEVEN),
        "verifyingContract": ("address verifyingContract", bytes(12) + b"\xab" * 20),
        "salt": ("bytes32 salt", b"\xcd" * 32),
    }
    encoded = f"EIP712Domain({','.join(fields[name][0] for name in names)})"
    domain = keccak256(encoded.encode()) + b"".join(fields[name][1] for name in names)
    assert_signed(typed, domain, keccak256(b"Outer(bool field)") + bytes(31) + b"\1")


STRUCTS = ("A", "B", "a", "_b")
graphs = st.fixed_dictionaries(
    {
        name: st.lists(
            st.sampled_from(["bool", *STRUCTS, *(f"{struct}[]" for struct in STRUCTS)]), max_size=3
        )
        for name in STRUCTS
    }
)


@given(graphs)
def test_a_type_is_signed_with_those_that_it_refers_to_or_refused(graph: dict[str, list[str]]) -> None:
    used = {"A"}
    for _ in graph:
        used |= {type_.removesuffix("[]") for name in used for type_ in graph[name]} - {"bool"}
    typed = one("bool", value=True)
    typed["primaryType"] = "A"
    typed["types"] = {"EIP712Domain": [{"name": "name", "type": "string"}]} | {
        struct: [{"name": f"x{n}", "type": type_} for n, type_ in enumerate(types)]
        for struct, types in graph.items()
    }
    typed["message"] = {
        f"x{n}": [] if "[" in type_ else True if type_ == "bool" else None
        for n, type_ in enumerate(graph["A"])
    }
    if any(type_.removesuffix("[]") == "A" for name in used - {"A"} for type_ in graph[name]):
        with pytest.raises(ProtocolViolation, match="primaryType: refers to itself by way of another"):
            COW.sign_typed_data(typed)
        return
    encoded = "".join(
        f"{name}({','.join(f'{type_} x{n}' for n, type_ in enumerate(graph[name]))})"
        for name in ("A", *sorted(used - {"A"}))
    )
    words = {"bool": bytes(31) + b"\1"} | dict.fromkeys(STRUCTS, bytes(32))
    words |= {f"{struct}[]": keccak256(b"") for struct in STRUCTS}
    assert_signed(typed, DOMAIN, keccak256(encoded.encode()) + b"".join(words[type_] for type_ in graph["A"]))


@pytest.mark.parametrize("field", [FIELD, {"name": "chainId", "type": "uint64"}])
def test_a_field_of_the_domain_that_the_standard_does_not_define_is_said_to_be_one(field: Json) -> None:
    typed = with_domain(["name"])
    typed["types"]["EIP712Domain"].append(field)  # type: ignore[index]
    with pytest.raises(ProtocolViolation, match=r"types\.EIP712Domain: has a field that EIP-712 does not"):
        check_typed_data_untrusted(typed)


def test_types_that_are_not_used_are_checked_and_not_signed() -> None:
    typed = copy.deepcopy(MAIL)
    types = typed["types"]
    assert isinstance(types, dict)
    types["Archive"] = [{"name": "mails", "type": "Mail[]"}]
    types["Flag"] = [FIELD]
    before = copy.deepcopy(typed)
    assert same(MAIL, typed)
    assert typed == before
    types["Flag"] = [{"name": "x", "type": "Missing"}]
    with pytest.raises(ProtocolViolation, match=r"types\.Flag: has a field of unknown type"):
        COW.sign_typed_data(typed)


def test_a_primary_type_that_another_refers_to_is_refused() -> None:
    # eth-account cannot tell which of the two is the primary one
    typed = one("bool", value=True)
    typed["types"] = {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Root": [{"name": "a", "type": "A"}],
        "A": [{"name": "b", "type": "B[]"}],
        "B": [{"name": "a", "type": "A"}],
    }
    circle: Json = {"b": [{"a": {"b": []}}]}
    with pytest.raises(ProtocolViolation, match="primaryType: refers to itself by way of another struct"):
        check_typed_data_untrusted(typed | {"primaryType": "A", "message": circle})
    COW.sign_typed_data(typed | {"primaryType": "Root", "message": {"a": circle}})


def test_a_message_that_would_take_long_to_encode_is_refused() -> None:
    def structs(number: int) -> Json:
        return one("Inner[]", [{"number": 1}] * number)

    # four steps each: itself, its number, and the two fields of the types in use
    COW.sign_typed_data(structs(16_382))
    with pytest.raises(ProtocolViolation, match="message: takes more than 65536 steps"):
        check_typed_data_untrusted(structs(16_383))
    with pytest.raises(ProtocolViolation, match="message: takes more than 65536 steps"):
        check_typed_data_untrusted(one("uint8[]", [1] * 65_536))
    # A hundred structs, whose types eth-account would print a hundred times.
    typed = one("T0[]", [{f"x{n}": [] for n in range(50)}] * 100)
    types = typed["types"]
    assert isinstance(types, dict)
    for number in range(50):
        types[f"T{number}"] = [{"name": f"x{n}", "type": f"T{min(number + 1, 49)}[]"} for n in range(50)]
    with pytest.raises(ProtocolViolation, match="message: takes more than 65536 steps"):
        check_typed_data_untrusted(typed)


def test_values_are_nested_up_to_the_limit_and_not_beyond() -> None:
    def chain(levels: int) -> object:
        value: object = None
        for _ in range(levels):
            value = {"next": value}
        return value

    COW.sign_typed_data(one("Chain", chain(31)))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        check_typed_data_untrusted(one("Chain", chain(32)))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        check_typed_data_untrusted(one("Chain", chain(100_000)))
    lists: object = True
    for _ in range(31):
        lists = [lists]
    COW.sign_typed_data(one("bool" + "[]" * 31, lists))
    with pytest.raises(ProtocolViolation, match="deeper than 32"):
        check_typed_data_untrusted(one("bool" + "[]" * 32, [lists]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["types", "primaryType", "domain", "message"]), json_values)
def test_any_json_in_any_place_is_refused(name: str, value: object) -> None:
    with pytest.raises(ProtocolViolation):
        check_typed_data_untrusted(MAIL | {name: value})
