import copy
import json
import pickle
import traceback
from pathlib import Path

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from handclasp.accounts import (
    LocalAccount,
    checksum_address,
    recover_message,
    verify_message,
    verify_typed_data,
)
from handclasp.errors import ConfigurationError, LinkRefused, MisuseError, ProtocolViolation

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
# A published vector: web3.js, accounts.sign("Some data", key).
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
ADDRESS = "0x2c7536E3605D9C16a7a3D7b1898e529396a65c23"
TEXT = "Some data"
R = "b91467e570a6466aa9e9876cbcd013baba02900b8979d43fe208a4a4f339f5fd"
S = "6007e74cd82e037b800186422fc2da167c747ef045e5d18a5f5d4300f8e1a029"
SIGNATURE = f"0x{R}{S}1c"
OTHER = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
TYPED = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Note": [{"name": "text", "type": "string"}],
    },
    "primaryType": "Note",
    "domain": {"name": "Test"},
    "message": {"text": "Hello"},
}


@pytest.fixture
def account() -> LocalAccount:
    return LocalAccount(Account.from_key(KEY))


def refused_field(signature: str, text: str | bytes = TEXT, address: str = ADDRESS) -> str:
    with pytest.raises(LinkRefused) as caught:
        verify_message(text, signature, address)
    return caught.value.field


def word(number: int) -> str:
    return f"{number:064x}"


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        # the test cases of EIP-55
        "0x52908400098527886E0F7030069857D2E4169EE7",
        "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
        "0xde709f2102306220921060314715629080e2fb77",
        "0x27b1fdb04752bbc536007a920d24acb045561c26",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_an_address_gets_the_checksum_of_eip_55(address: str) -> None:
    assert checksum_address(address) == address
    assert checksum_address(address.lower()) == address
    assert checksum_address("0x" + address[2:].upper()) == address


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("", "40 hex digits"),
        ("0x", "40 hex digits"),
        (ADDRESS[2:], "40 hex digits"),
        (ADDRESS[:-1], "40 hex digits"),
        (ADDRESS + "0", "40 hex digits"),
        (ADDRESS + "\n", "40 hex digits"),
        (" " + ADDRESS, "40 hex digits"),
        (ADDRESS.replace("0x", "0X"), "40 hex digits"),
        (ADDRESS.replace("2c", "2g"), "40 hex digits"),
        (ADDRESS.replace("2c", "2\uff43"), "40 hex digits"),
        (ADDRESS.replace("2c75", "2C75"), "checksum"),
        (ADDRESS.replace("65c23", "65c24"), "checksum"),
    ],
)
def test_what_is_not_an_address_is_refused(address: str, reason: str) -> None:
    with pytest.raises(LinkRefused, match=reason) as caught:
        checksum_address(address)
    assert caught.value.field == "address"


# --- signatures over a text


def test_the_published_vector_is_signed_and_verified(account: LocalAccount) -> None:
    assert account.address == ADDRESS
    assert account.sign_message(TEXT) == SIGNATURE
    assert recover_message(TEXT, SIGNATURE) == ADDRESS
    verify_message(TEXT, SIGNATURE, ADDRESS)
    verify_message(TEXT.encode(), SIGNATURE, ADDRESS.lower())


def test_the_published_vector_with_a_text_beyond_ascii_is_verified() -> None:
    signature = (  # the documentation of eth-account
        "0xe6ca9bba58c88611fad66a6ce8f996908195593807c4b38bd528d2cff09d4eb3"
        "3e5bfbbf4d3e39b1a2fd816a7680c19ebebaf3a141b239934ad43cb33fcec8ce1c"
    )
    verify_message("I♥SF", signature, "0x5ce9454909639D2D17A3F753ce7d93fa0b9aB12E")


@pytest.mark.parametrize("signature", [f"0x{R}{S}01", f"0x{(R + S).upper()}1C"])
def test_v_may_leave_out_27_and_hex_may_be_upper_case(signature: str) -> None:
    verify_message(TEXT, signature, ADDRESS)


@pytest.mark.parametrize("v", ["1b", "00"])
def test_the_other_v_is_another_key(v: str) -> None:
    assert recover_message(TEXT, f"0x{R}{S}{v}") != ADDRESS
    assert refused_field(f"0x{R}{S}{v}") == "signature"


def test_both_parities_of_v_occur_and_verify() -> None:
    account = LocalAccount.generate()
    seen: set[str] = set()
    for number in range(64):
        text = f"text {number}"
        signature = account.sign_message(text)
        seen.add(signature[-2:])
        verify_message(text, signature, account.address)
        verify_message(text, f"{signature[:-2]}{int(signature[-2:], 16) - 27:02x}", account.address)
    assert seen == {"1b", "1c"}


@pytest.mark.parametrize(
    "v", [f"{v:02x}" for v in range(256) if v not in (0, 1, 27, 28)] + ["25", "26"], ids=lambda v: f"v={v}"
)
def test_every_other_v_is_refused(v: str) -> None:
    with pytest.raises(LinkRefused, match="has a v other than"):
        verify_message(TEXT, f"0x{R}{S}{v}", ADDRESS)


def test_the_mirrored_signature_with_a_high_s_is_refused() -> None:
    mirrored = f"0x{R}{word(ORDER - int(S, 16))}1b"
    # It is valid mathematics, or this test would prove nothing:
    from eth_account.messages import encode_defunct

    assert Account.recover_message(encode_defunct(text=TEXT), signature=mirrored) == ADDRESS
    with pytest.raises(LinkRefused, match="high s"):
        verify_message(TEXT, mirrored, ADDRESS)


@pytest.mark.parametrize(
    ("r", "s", "reason"),
    [
        (word(0), S, "out of range"),
        (word(ORDER), S, "out of range"),
        (word(2**256 - 1), S, "out of range"),
        (R, word(0), "out of range"),
        (R, word(ORDER), "out of range"),
        (R, word(2**256 - 1), "out of range"),
        (R, word(ORDER // 2 + 1), "high s"),
        (R, word(ORDER // 2), "not made by"),
        (R, word(1), "not made by"),
        (word(5), S, "not a point of the curve"),
    ],
)
def test_r_and_s_out_of_range_are_refused(r: str, s: str, reason: str) -> None:
    with pytest.raises(LinkRefused, match=reason) as caught:
        verify_message(TEXT, f"0x{r}{s}1c", ADDRESS)
    assert caught.value.field == "signature"


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0x",
        SIGNATURE[2:],
        SIGNATURE.replace("0x", "0X"),
        SIGNATURE[:-2],  # 64 bytes
        SIGNATURE + "00",  # 66 bytes
        SIGNATURE[:-1],
        SIGNATURE + "\n",
        " " + SIGNATURE,
        SIGNATURE.replace("b9", "g9"),
        SIGNATURE.replace("b914", "b9_4"),
        SIGNATURE.replace("b914", "b9+4"),
        SIGNATURE.replace("b914", "b9\u0661\u0664"),
        f"0x{R}{S}1c" + "6492" * 16,
    ],
)
def test_a_signature_that_is_not_65_bytes_of_hex_is_refused(signature: str) -> None:
    with pytest.raises(LinkRefused, match="is not 0x and 130 hex digits"):
        verify_message(TEXT, signature, ADDRESS)


def test_a_signature_of_another_account_is_refused() -> None:
    assert refused_field(SIGNATURE, address=OTHER) == "signature"
    assert refused_field(LocalAccount.generate().sign_message(TEXT)) == "signature"


@pytest.mark.parametrize(
    "text", ["Some data ", "some data", "", b"Some dat\xe1", "\x19Ethereum Signed Message:\n9Some data"]
)
def test_a_signature_over_another_text_is_refused(text: str | bytes) -> None:
    assert refused_field(SIGNATURE, text=text) == "signature"


def test_what_is_not_an_address_has_signed_nothing() -> None:
    assert refused_field(SIGNATURE, address="0x") == "address"


def test_a_text_that_is_not_unicode_is_neither_signed_nor_verified(account: LocalAccount) -> None:
    with pytest.raises(ProtocolViolation, match="Unicode"):
        account.sign_message("\ud800")
    with pytest.raises(ProtocolViolation, match="Unicode"):
        verify_message("\ud800", SIGNATURE, ADDRESS)


@given(st.text() | st.binary())
def test_what_was_signed_verifies(text: str | bytes) -> None:
    account = LocalAccount(Account.from_key(KEY))
    verify_message(text, account.sign_message(text), ADDRESS)


@given(st.binary(min_size=64, max_size=64), st.sampled_from([0, 1, 27, 28]))
def test_random_bytes_are_refused_as_a_signature(r_and_s: bytes, v: int) -> None:
    assert refused_field(f"0x{r_and_s.hex()}{v:02x}") == "signature"


@given(st.integers(0, len(SIGNATURE) - 1), st.characters())
def test_an_edit_of_one_character_of_a_signature_is_refused(position: int, character: str) -> None:
    edited = SIGNATURE[:position] + character + SIGNATURE[position + 1 :]
    if edited.lower() == SIGNATURE and edited[:2] == "0x":
        verify_message(TEXT, edited, ADDRESS)
    else:
        assert refused_field(edited) == "signature"


# --- signatures over typed data


def test_typed_data_is_signed_and_verified(account: LocalAccount) -> None:
    signature = account.sign_typed_data(TYPED)
    verify_typed_data(TYPED, signature, ADDRESS)
    verify_typed_data(json.loads(json.dumps(TYPED)), signature, ADDRESS.lower())


def test_a_signature_over_other_typed_data_or_of_another_account_is_refused(account: LocalAccount) -> None:
    signature = account.sign_typed_data(TYPED)
    for typed, address in (
        (TYPED | {"message": {"text": "Hello!"}}, ADDRESS),
        (TYPED | {"domain": {"name": "Test2"}}, ADDRESS),
        (TYPED, OTHER),
    ):
        with pytest.raises(LinkRefused) as caught:
            verify_typed_data(typed, signature, address)
        assert caught.value.field == "signature"


def test_a_text_and_typed_data_never_share_a_signature(account: LocalAccount) -> None:
    assert refused_field(account.sign_typed_data(TYPED)) == "signature"
    with pytest.raises(LinkRefused):
        verify_typed_data(TYPED, SIGNATURE, ADDRESS)


def test_malformed_typed_data_is_neither_signed_nor_verified(account: LocalAccount) -> None:
    malformed = TYPED | {"message": {"text": 1}}
    with pytest.raises(ProtocolViolation, match=r"message\.text"):
        account.sign_typed_data(malformed)
    with pytest.raises(ProtocolViolation, match=r"message\.text"):
        verify_typed_data(malformed, SIGNATURE, ADDRESS)


# --- the key


def keystore(path: Path, **changes: object) -> Path:
    content = Account.encrypt(KEY, "correct", kdf="pbkdf2", iterations=1)
    path.write_text(json.dumps(content | changes))
    return path


def test_a_generated_account_is_new_each_time() -> None:
    assert LocalAccount.generate().address != LocalAccount.generate().address


def test_an_account_is_loaded_from_a_keystore(tmp_path: Path) -> None:
    account = LocalAccount.from_keystore(keystore(tmp_path / "key.json"), "correct")
    assert account.address == ADDRESS
    assert account.sign_message(TEXT) == SIGNATURE


def test_the_published_keystores_open(tmp_path: Path) -> None:
    # Web3 Secret Storage, test vector PBKDF2-SHA-256.
    content = {
        "crypto": {
            "cipher": "aes-128-ctr",
            "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
            "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
            "kdf": "pbkdf2",
            "kdfparams": {
                "c": 262144,
                "dklen": 32,
                "prf": "hmac-sha256",
                "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
            },
            "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
        },
        "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
        "version": 3,
    }
    path = tmp_path / "key.json"
    path.write_text(json.dumps(content))
    account = LocalAccount.from_keystore(path, "testpassword")
    key = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
    assert account.address == Account.from_key(key).address


def test_a_wrong_password_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="password does not open"):
        LocalAccount.from_keystore(keystore(tmp_path / "key.json"), "wrong")


def test_a_keystore_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the keystore"):
        LocalAccount.from_keystore(tmp_path / "key.json", "correct")
    with pytest.raises(ConfigurationError, match="cannot read the keystore"):
        LocalAccount.from_keystore(tmp_path, "correct")


CRYPTO = {
    "cipher": "aes-128-ctr",
    "cipherparams": {"iv": "00" * 16},
    "ciphertext": "00" * 32,
    "kdf": "pbkdf2",
    "kdfparams": {"c": 1, "dklen": 32, "prf": "hmac-sha256", "salt": "00"},
    "mac": "00" * 32,
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 20_000,
        b'{"version":3,"x":' + b'{"x":' * 600 + b"1" + b"}" * 601,
        b"{}",
        b'{"version": 3}',
        b" " * 64 * 1024 + b'{"version": 3}',
        *(
            json.dumps(content).encode()
            for content in (
                {"version": 4, "crypto": CRYPTO},
                {"version": "3", "crypto": CRYPTO},
                {"version": 3, "crypto": None},
                {"version": 3, "crypto": []},
                {"version": 3, "crypto": CRYPTO | {"kdf": "none"}},
                {"version": 3, "crypto": CRYPTO | {"kdfparams": {}}},
                {
                    "version": 3,
                    "crypto": CRYPTO | {"kdfparams": {"c": 0, "dklen": 32, "prf": "hmac-sha256", "salt": ""}},
                },
                {
                    "version": 3,
                    "crypto": CRYPTO | {"kdfparams": {"c": 1, "dklen": 32, "prf": "sha256", "salt": ""}},
                },
                {
                    "version": 3,
                    "crypto": CRYPTO | {"kdfparams": {"c": 1, "dklen": 32, "prf": 1, "salt": ""}},
                },
                {
                    "version": 3,
                    "crypto": CRYPTO
                    | {"kdfparams": {"c": 2**80, "dklen": 32, "prf": "hmac-sha256", "salt": ""}},
                },
                {
                    "version": 3,
                    "crypto": CRYPTO
                    | {"kdf": "scrypt", "kdfparams": {"n": 3, "r": 1, "p": 1, "dklen": 32, "salt": ""}},
                },
                {"version": 3, "crypto": CRYPTO | {"ciphertext": "zz"}},
                {"version": 3, "crypto": CRYPTO | {"ciphertext": 1}},
                {"version": 3, "crypto": CRYPTO | {"mac": None}},
            )
        ),
    ],
)
def test_what_is_not_a_keystore_is_said_not_to_be_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is not an Ethereum keystore"):
        LocalAccount.from_keystore(path, "correct")


def test_a_keystore_of_a_validator_key_is_refused_though_its_password_is_right(tmp_path: Path) -> None:
    from eth_keyfile import create_keyfile_json

    content = create_keyfile_json(bytes.fromhex(KEY), b"correct", version=4, kdf="pbkdf2", iterations=1)
    path = tmp_path / "key.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="of version 3"):
        LocalAccount.from_keystore(path, "correct")


def test_a_keystore_of_more_than_64_kib_is_refused(tmp_path: Path) -> None:
    path = keystore(tmp_path / "key.json")
    size = path.stat().st_size
    path.write_text(path.read_text() + " " * (64 * 1024 - size))
    LocalAccount.from_keystore(path, "correct")
    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigurationError, match="is not an Ethereum keystore"):
        LocalAccount.from_keystore(path, "correct")


def test_a_keystore_whose_key_is_not_a_key_is_refused(tmp_path: Path) -> None:
    from eth_keyfile.keyfile import encrypt_aes_ctr
    from eth_utils import keccak

    content = Account.encrypt(KEY, "correct", kdf="pbkdf2", iterations=1)
    for secret in (bytes(32), bytes(31), b"\xff" * 32):
        from hashlib import pbkdf2_hmac

        parameters = content["crypto"]["kdfparams"]
        derived = pbkdf2_hmac("sha256", b"correct", bytes.fromhex(parameters["salt"]), 1, 32)
        ciphertext = encrypt_aes_ctr(secret, derived[:16], int(content["crypto"]["cipherparams"]["iv"], 16))
        crypto = content["crypto"] | {
            "ciphertext": ciphertext.hex(),
            "mac": keccak(derived[16:] + ciphertext).hex(),
        }
        path = keystore(tmp_path / "key.json", crypto=crypto)
        with pytest.raises(ConfigurationError, match="is not an Ethereum keystore"):
            LocalAccount.from_keystore(path, "correct")


def test_neither_key_nor_password_shows_anywhere(
    account: LocalAccount, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    password = "canary-password"
    path = keystore(tmp_path / "key.json")
    LocalAccount.from_keystore(path, "correct").sign_message(TEXT)
    account.sign_typed_data(TYPED)
    shown = [repr(account), str(account), f"{account}", repr(dir(account))]
    for action in (
        lambda: LocalAccount.from_keystore(path, password),
        lambda: account.sign_typed_data({}),
        lambda: account.sign_message("\ud800"),
    ):
        with pytest.raises((ConfigurationError, ProtocolViolation)) as caught:
            action()
        shown += traceback.format_exception(caught.value)
    everything = "".join(shown + caplog.messages).lower()
    for secret in (KEY[8:40], str(int(KEY, 16)), repr(bytes.fromhex(KEY)).lower()[2:-1], "canary-password"):
        assert secret not in everything
    assert repr(account) == f"LocalAccount({ADDRESS})"


def test_an_account_cannot_be_pickled_or_copied(account: LocalAccount) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(MisuseError, match="cannot be pickled"):
            attempt(account)
