"""What is particular to folders: others write there, too."""

import json
import os
from pathlib import Path

import pytest
import trio

from handclasp.abc import Context, Discovery, PeerRecord
from handclasp.errors import ConfigurationError, WorldFault
from handclasp.identity import Identity
from handclasp_folder import LARGEST_RECORD, folder, from_url

ALICE = Identity.generate()
RECORD = PeerRecord(ALICE.peer_id, ("/memory/1",))

NONSENSE = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b"\xff",
    "a list": b"[]",
    "no peer": b'{"addresses": []}',
    "a peer that is none": b'{"peer": "me", "addresses": []}',
    "a number as peer": b'{"peer": 1, "addresses": []}',
    "numbers as addresses": json.dumps({"peer": str(ALICE.peer_id), "addresses": [1]}).encode(),
    "too long": json.dumps({"peer": str(ALICE.peer_id), "addresses": ["x" * LARGEST_RECORD]}).encode(),
    "too deep": b"[" * 30_000,
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
async def test_what_is_no_record_is_passed_over(tmp_path: Path, text: bytes) -> None:
    async with folder(tmp_path, interval=0.01)(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        async with backend.advertise("tea", RECORD):
            (topic,) = tmp_path.iterdir()
            (topic / "0.json").write_bytes(text)
            (topic / "1.json").mkdir()
            os.mkfifo(topic / "2.json")
            async with backend.find("tea") as found:
                assert await anext(found) == RECORD


async def test_nothing_is_left_in_the_folder_of_a_topic(tmp_path: Path) -> None:
    async with folder(tmp_path)(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with backend.advertise("tea", RECORD):
                pass
        async with backend.advertise("tea", RECORD):
            pass
    assert [file for topic in tmp_path.iterdir() for file in topic.iterdir()] == []


async def test_a_url_names_the_folder(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    async with from_url(f"folder://{tmp_path}/a%20b")(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        async with backend.advertise("tea", RECORD):
            assert len(list(place.iterdir())) == 1


@pytest.mark.parametrize("url", ["folder:", "folder://peers", "folder:peers"])
def test_a_url_that_names_no_folder_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(ConfigurationError, match="whole path"):
        from_url(url)


async def test_a_folder_that_went_away_is_nobodys_fault(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    async with folder(place)(Context(ALICE)) as backend:
        assert isinstance(backend, Discovery)
        place.rmdir()
        with pytest.raises(WorldFault, match="cannot be written to"):
            async with backend.advertise("tea", RECORD):
                pass


async def test_a_folder_that_is_not_there_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a folder"):
        async with folder(tmp_path / "nowhere")(Context(ALICE)):
            pass
