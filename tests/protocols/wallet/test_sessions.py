import json
import re
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handclasp.errors import RequestFailed
from handclasp.protocols.wallet.sessions import (
    METHODS,
    Invocation,
    Scope,
    Session,
    parse_invocation_untrusted,
    parse_scopes_untrusted,
)

ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
CHAINS = frozenset({"eip155:1", "eip155:10"})
PROPOSED = {"chains": ["1", "10"], "methods": ["personal_sign"], "notifications": ["accountsChanged"]}


def proposal(**scopes: object) -> dict[str, object]:
    return {"scopes": scopes}


def parse_one(key: str, value: object) -> Scope:
    (scope,) = parse_scopes_untrusted({"scopes": {key: value}})
    return scope


def refused_scopes(params: object) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        parse_scopes_untrusted(params)
    return caught.value


def refused_invocation(params: object) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        parse_invocation_untrusted(params)
    return caught.value


# --- what a website proposes ---


def test_a_scope_for_a_namespace_names_its_chains() -> None:
    assert parse_one("eip155", PROPOSED) == Scope(
        "eip155", ("eip155:1", "eip155:10"), ("personal_sign",), ("accountsChanged",)
    )


def test_a_scope_for_one_chain_is_that_chain() -> None:
    assert parse_one("eip155:10", {"methods": ["personal_sign"]}) == Scope(
        "eip155:10", ("eip155:10",), ("personal_sign",)
    )
    assert parse_one("eip155:10", {"methods": [], "chains": []}).chains == ("eip155:10",)


def test_scopes_keep_their_order_and_unknown_members_are_passed_over() -> None:
    value = {**PROPOSED, "accounts": [ADDRESS], "capabilities": {"atomic": True}}
    params = {"scopes": {"solana": value, "eip155": value, "eip155:5": {"methods": []}}, "properties": {}}
    scopes = parse_scopes_untrusted(params)
    assert [scope.key for scope in scopes] == ["solana", "eip155", "eip155:5"]
    assert all(scope.accounts == () for scope in scopes)  # a website cannot claim accounts


@pytest.mark.parametrize(
    ("params", "where"),
    [
        pytest.param(None, "params", id="no params"),
        pytest.param([], "params", id="a list"),
        pytest.param("eip155", "params", id="a text"),
        pytest.param({}, "scopes", id="no scopes"),
        pytest.param({"scopes": None}, "scopes", id="null"),
        pytest.param({"scopes": [PROPOSED]}, "scopes", id="a list of scopes"),
        pytest.param({"scopes": {}}, "scopes", id="no scope"),
        pytest.param(
            {"scopes": {f"eip155:{n}": {"methods": []} for n in range(65)}}, "scopes", id="65 scopes"
        ),
        pytest.param(proposal(eip155=None), "scopes.eip155", id="scope is null"),
        pytest.param(proposal(eip155=["personal_sign"]), "scopes.eip155", id="scope is a list"),
        pytest.param(proposal(eip155={}), "scopes.eip155.methods", id="no methods"),
        pytest.param(proposal(eip155={"methods": None}), "scopes.eip155.methods", id="methods are null"),
        pytest.param(proposal(eip155={"methods": "personal_sign"}), "scopes.eip155.methods", id="one method"),
        pytest.param(proposal(eip155={"methods": [5]}), "scopes.eip155.methods", id="a number as method"),
        pytest.param(proposal(eip155={"methods": [""]}), "scopes.eip155.methods", id="an empty method"),
        pytest.param(proposal(eip155={"methods": ["x" * 201]}), "scopes.eip155.methods", id="a long method"),
        pytest.param(proposal(eip155={"methods": ["x"] * 65}), "scopes.eip155.methods", id="65 methods"),
        pytest.param(proposal(eip155={**PROPOSED, "chains": "1"}), "scopes.eip155.chains", id="one chain"),
        pytest.param(
            proposal(eip155={**PROPOSED, "chains": [1]}), "scopes.eip155.chains", id="a number as chain"
        ),
        pytest.param(
            proposal(eip155={**PROPOSED, "chains": None}), "scopes.eip155.chains", id="chains are null"
        ),
        pytest.param(
            proposal(eip155={**PROPOSED, "chains": ["1"] * 65}), "scopes.eip155.chains", id="65 chains"
        ),
        pytest.param(
            proposal(eip155={**PROPOSED, "notifications": {}}),
            "scopes.eip155.notifications",
            id="notifications",
        ),
    ],
)
def test_a_malformed_proposal_is_invalid_params_and_says_where(params: object, where: str) -> None:
    error = refused_scopes(params)
    assert error.code == -32602
    assert error.message.startswith(f"{where}: ")


def test_the_greatest_proposal_is_read() -> None:
    value = {"methods": ["x" * 200] * 64, "chains": ["1"] * 64, "notifications": ["y"] * 64}
    scopes = parse_scopes_untrusted({"scopes": {f"eip{n:03}": value for n in range(64)}})
    assert len(scopes) == 64


@pytest.mark.parametrize(
    ("key", "chains"),
    [
        pytest.param("eip155", ["eip155:1"], id="a full chain id as reference"),
        pytest.param("eip155", ["1", "x/y"], id="a slash in the reference"),
        pytest.param("eip155", [" 1"], id="a space in the reference"),
        pytest.param("eip155", ["1\n"], id="a line feed in the reference"),
        pytest.param("eip155", ["1" * 33], id="a long reference"),
        pytest.param("EIP155", ["1"], id="upper-case namespace"),
        pytest.param("ei", ["1"], id="short namespace"),
        pytest.param("", ["1"], id="empty namespace"),
        pytest.param("eip155:1", ["1"], id="chains in a scope for one chain"),
        pytest.param("eip155:", [], id="chain without a reference"),
        pytest.param(":1", [], id="chain without a namespace"),
        pytest.param("eip155:1:0xab", [], id="an account"),
        pytest.param("\ud800:1", [], id="lone surrogate"),
    ],
)
def test_a_chain_that_is_not_of_its_namespace_is_a_scope_mismatch(key: str, chains: list[str]) -> None:
    assert refused_scopes({"scopes": {key: {**PROPOSED, "chains": chains}}}).code == 5203


def test_a_refusal_repeats_no_more_than_the_beginning_of_a_key() -> None:
    error = refused_scopes({"scopes": {"k" * 100_000: None}})
    assert len(error.message) < 200


# --- what a wallet grants ---


def test_only_the_chains_and_methods_that_the_wallet_has_are_granted() -> None:
    proposed = Scope(
        "eip155",
        ("eip155:1", "eip155:5", "eip155:10", "solana:x"),
        ("personal_sign", "eth_sendTransaction", "eth_accounts"),
        ("accountsChanged",),
    )
    assert proposed.grant(CHAINS, ADDRESS) == Scope(
        "eip155", ("eip155:1", "eip155:10"), ("personal_sign", "eth_accounts"), (), (ADDRESS,)
    )


def test_accounts_that_the_website_put_into_its_proposal_are_not_granted() -> None:
    proposed = Scope("eip155:1", ("eip155:1",), ("personal_sign",), accounts=("0x" + "00" * 20,))
    granted = proposed.grant(CHAINS, ADDRESS)
    assert granted is not None
    assert granted.accounts == (ADDRESS,)


@pytest.mark.parametrize(
    "proposed",
    [
        Scope("eip155", ("eip155:5",), METHODS),
        Scope("eip155", (), METHODS),
        Scope("solana", ("solana:1",), METHODS),
        Scope("eip155", ("eip155:1",), ()),
        Scope("eip155", ("eip155:1",), ("eth_sign", "eth_sendTransaction", "Personal_Sign")),
    ],
)
def test_nothing_is_granted_where_no_chain_or_no_method_is_left(proposed: Scope) -> None:
    assert proposed.grant(CHAINS, ADDRESS) is None


def test_signing_raw_hashes_is_no_method() -> None:
    # eth_sign signs 32 bytes that may be a transaction.
    assert METHODS == ("eth_accounts", "personal_sign", "eth_signTypedData_v4")


# --- sessions ---

NAMESPACE = Scope("eip155", ("eip155:1", "eip155:10"), ("personal_sign",), (), (ADDRESS,))
ONE_CHAIN = Scope("eip155:5", ("eip155:5",), ("eth_accounts",), (), (ADDRESS,))


def test_a_session_has_the_form_of_caip_25() -> None:
    session = Session((NAMESPACE, ONE_CHAIN))
    assert session.to_json() == {
        "sessionId": session.session_id,
        "scopes": {
            "eip155": {
                "chains": ["1", "10"],
                "accounts": [ADDRESS],
                "methods": ["personal_sign"],
                "notifications": [],
            },
            "eip155:5": {"accounts": [ADDRESS], "methods": ["eth_accounts"], "notifications": []},
        },
    }
    json.dumps(session.to_json())


def test_a_granted_scope_can_be_proposed_again() -> None:
    for scope in (NAMESPACE, ONE_CHAIN):
        assert parse_one(scope.key, scope.to_json()) == replace(scope, accounts=())


def test_a_session_allows_what_one_of_its_scopes_grants_and_nothing_else() -> None:
    session = Session((NAMESPACE, ONE_CHAIN))
    assert session.allows("eip155:1", "personal_sign")
    assert session.allows("eip155:10", "personal_sign")
    assert session.allows("eip155:5", "eth_accounts")
    for chain, method in [
        ("eip155:5", "personal_sign"),  # a method of one scope on the chain of another
        ("eip155:1", "eth_accounts"),
        ("eip155:2", "personal_sign"),
        ("eip155", "personal_sign"),
        ("1", "personal_sign"),
        ("EIP155:1", "personal_sign"),
        ("eip155:1", "Personal_sign"),
        ("eip155:1", ""),
    ]:
        assert not session.allows(chain, method), (chain, method)
    assert not Session(()).allows("eip155:1", "personal_sign")


def test_session_ids_have_128_random_bits_and_show_in_no_repr() -> None:
    ids = {Session(()).session_id for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", session_id) for session_id in ids)
    session = Session((NAMESPACE,))
    assert session.session_id not in repr(session)


# --- invocations ---

INVOCATION = {
    "sessionId": "0" * 32,
    "chainId": "eip155:1",
    "request": {"method": "personal_sign", "params": ["0x00", ADDRESS]},
}


def test_an_invocation_is_read_and_answered_in_the_form_of_caip_27() -> None:
    call = parse_invocation_untrusted(INVOCATION)
    assert call == Invocation("0" * 32, "eip155:1", "personal_sign", ["0x00", ADDRESS])
    assert call.answer({"result": "0xab"}) == {
        "sessionId": "0" * 32,
        "chainId": "eip155:1",
        "result": {"method": "personal_sign", "result": "0xab"},
    }
    assert call.answer({"error": {"code": 4001}})["result"] == {
        "method": "personal_sign",
        "error": {"code": 4001},
    }


def test_an_invocation_may_have_no_params() -> None:
    call = parse_invocation_untrusted({**INVOCATION, "request": {"method": "eth_accounts"}})
    assert call.params is None


@pytest.mark.parametrize(
    ("params", "where"),
    [
        pytest.param(None, "params", id="no params"),
        pytest.param([INVOCATION], "params", id="a list"),
        pytest.param({}, "request", id="empty"),
        pytest.param({**INVOCATION, "request": None}, "request", id="request is null"),
        pytest.param({**INVOCATION, "request": "personal_sign"}, "request", id="request is a text"),
        pytest.param({**INVOCATION, "request": {}}, "request.method", id="no method"),
        pytest.param({**INVOCATION, "request": {"method": 5}}, "request.method", id="a number as method"),
        pytest.param({**INVOCATION, "request": {"method": ""}}, "request.method", id="an empty method"),
        pytest.param({**INVOCATION, "request": {"method": "x" * 201}}, "request.method", id="a long method"),
        pytest.param({**INVOCATION, "sessionId": None}, "sessionId", id="session is null"),
        pytest.param({**INVOCATION, "sessionId": 5}, "sessionId", id="a number as session"),
        pytest.param({**INVOCATION, "sessionId": "0" * 201}, "sessionId", id="a long session id"),
        pytest.param({**INVOCATION, "chainId": ["eip155:1"]}, "chainId", id="a list as chain"),
        pytest.param({**INVOCATION, "chainId": ""}, "chainId", id="an empty chain"),
        pytest.param({"request": INVOCATION["request"]}, "sessionId", id="nothing but the request"),
    ],
)
def test_a_malformed_invocation_is_invalid_params_and_says_where(params: object, where: str) -> None:
    error = refused_invocation(params)
    assert error.code == -32602
    assert error.message.startswith(f"{where}: ")


# --- anything else ---

NAMES = [
    "scopes",
    "eip155",
    "eip155:1",
    "chains",
    "methods",
    "notifications",
    "request",
    "sessionId",
    "chainId",
    "method",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
@settings(deadline=None)
def test_no_params_raise_anything_but_request_failed(params: object) -> None:
    with suppress(RequestFailed):
        parse_scopes_untrusted(params)
    with suppress(RequestFailed):
        parse_scopes_untrusted({"scopes": params})
    with suppress(RequestFailed):
        parse_scopes_untrusted({"scopes": {"eip155": params}})
    with suppress(RequestFailed):
        parse_invocation_untrusted(params)
