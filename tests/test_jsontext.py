"""JSON from strangers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handclasp.jsontext import MAX_DEPTH, parse_json_untrusted

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_json_writes_is_read(value: object) -> None:
    assert parse_json_untrusted(json.dumps(value)) == value
    assert parse_json_untrusted(json.dumps(value).encode()) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":', ' [ "]" , '])
def test_the_depth_is_bounded_whatever_nests(opening: str) -> None:
    levels = opening.count("[") + opening.count("{")
    fits = MAX_DEPTH // levels
    closing = opening[::-1].translate({ord("["): "]", ord("{"): "}", **dict.fromkeys(map(ord, '"a:], '))})
    inner = "1"
    assert parse_json_untrusted(opening * fits + inner + closing * fits)
    with pytest.raises(ValueError, match="levels deep"):
        parse_json_untrusted(opening * (fits + 1) + inner + closing * (fits + 1))
    with pytest.raises(ValueError, match="levels deep"):
        parse_json_untrusted(opening * 100_000)


def test_brackets_in_texts_and_beside_each_other_are_not_depth() -> None:
    many = MAX_DEPTH * 3
    assert parse_json_untrusted(json.dumps(["[{" * many, '\\"[' * many])) == ["[{" * many, '\\"[' * many]
    assert parse_json_untrusted("[" + ",".join(["[]"] * many) + "]") == [[]] * many


@pytest.mark.parametrize(
    "text", ["", "{", "NaN", "[Infinity]", "-Infinity", b"\xff", '"\\ud800', "1 2", "[" * 65]
)
def test_what_is_not_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json_untrusted(text)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_no_other_encoding_is_guessed(encoding: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json_untrusted('{"a": 1}'.encode(encoding))


@given(st.text(alphabet='[]{}"\\,:a1 ', max_size=300))
def test_arbitrary_text_raises_nothing_else(text: str) -> None:
    try:
        parsed = parse_json_untrusted(text)
    except ValueError:
        return
    assert parsed == json.loads(text)
