"""How the suites say what they check, and which claim a backend breaks."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from handclasp.abc import Stream

#: Seconds that a claim may take before it counts as broken: far more than anything but a hang needs.
PATIENCE = 60.0


@contextmanager
def claim(sentence: str, *, within: float = PATIENCE) -> Generator[None]:
    """The block shows that *sentence* is true; whatever goes wrong in it carries the sentence as a note.

    Raises:
        AssertionError: the block took longer than *within* seconds, or found something else.
    """
    try:
        with trio.fail_after(within):
            yield
    except trio.TooSlowError:
        raise AssertionError(f"{sentence}: still waiting after {within:.0f} s") from None
    except Exception as exc:
        exc.add_note(f"The claim was: {sentence}.")
        raise


@contextmanager
def raises(*kinds: type[BaseException]) -> Generator[None]:
    """The block must raise one of *kinds*, which is then over; another error comes out as it is."""
    try:
        yield
    except kinds:
        return
    raise AssertionError(
        f"{' or '.join(kind.__qualname__ for kind in kinds)} was due, and nothing was raised"
    )


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody that it has changed; the claim around it limits how long."""
    pause = 0.001
    while not condition():
        await trio.sleep(pause)
        pause *= 2  # seldom enough in the end for a clock that jumps


async def read_all(stream: Stream) -> bytes:
    """What a stream holds until its end."""
    data = bytearray()
    async for chunk in stream:
        data += chunk
    return bytes(data)
