"""``make bench``: what pairing and a signature cost beside bare aiortc, in one run.

Repetitions are interleaved, bare and ours in turn, so that a slower moment of the machine meets both.
"""

from __future__ import annotations

import argparse
import statistics

import trio
from rich.progress import track

from handclasp.testing import open_service

from .processes import Worker, worker
from .report import Figure, figure, publish


async def bare_once(offerer: Worker, answerer: Worker) -> tuple[float, float]:
    """One bare connection: milliseconds from the order to open at both ends, and of a round trip."""
    begun = trio.current_time()
    await offerer.send({"go": True})
    offer = await offerer.until("sdp")
    await answerer.send({"sdp": offer["sdp"]})
    answer = await answerer.until("sdp")
    await offerer.send({"sdp": answer["sdp"]})
    await offerer.until("open")
    await answerer.until("open")
    connected = (trio.current_time() - begun) * 1000
    round_trip = (await offerer.until("round_trip"))["round_trip"]
    for one in (offerer, answerer):
        await one.send({"done": True})
        await one.until("closed")
    return connected, round_trip


async def ours_once(website: Worker, wallet: Worker) -> dict[str, float]:
    """One pairing and its signatures, in milliseconds."""
    await website.send("go")
    await wallet.send((await website.until("uri"))["uri"])
    scan = (await wallet.until("step", "read"))["at"]
    opened = max(
        (await wallet.until("step", "wallet-connected"))["at"],
        (await website.until("step", "website-connected"))["at"],
    )
    told = await website.until("round_trip")
    signature = (await wallet.until("signature"))["signature"]
    return {
        "connect": (opened - scan) * 1000,
        "signed": told["round_trip"],
        "unsigned": told["unsigned"],
        "signature": signature,
    }


async def measure(repetitions: int) -> list[Figure]:
    connects, trips, ours = [], [], []
    async with (
        open_service() as service,
        worker("workers", "bare-offerer") as offerer,
        worker("workers", "bare-answerer") as answerer,
        worker("workers", "website", service) as website,
        worker("workers", "wallet") as wallet,
    ):
        await bare_once(offerer, answerer)  # one of each that does not count
        await ours_once(website, wallet)
        for _ in track(range(repetitions), "pairing, bare and ours in turn"):
            connected, trip = await bare_once(offerer, answerer)
            connects.append(connected)
            trips.append(trip)
            ours.append(await ours_once(website, wallet))

    def of(name: str) -> list[float]:
        return [one[name] for one in ours]

    without_signature = [one["signed"] - one["signature"] for one in ours]
    bare_connect, bare_trip = statistics.median(connects), statistics.median(trips)
    return [
        figure("bare aiortc: connect", connects, "ms"),
        figure(
            "scan to DataChannel open",
            of("connect"),
            "ms",
            against="bare aiortc: connect",
            ratio=statistics.median(of("connect")) / bare_connect,
            at_most=2,
        ),
        figure("bare aiortc: message and answer", trips, "ms"),
        figure(
            "eth_accounts round trip",
            of("unsigned"),
            "ms",
            against="bare aiortc: message and answer",
            ratio=statistics.median(of("unsigned")) / bare_trip,
        ),
        figure("signature (eth-account)", of("signature"), "ms"),
        figure("personal_sign round trip", of("signed"), "ms"),
        figure(
            "personal_sign without the signature",
            without_signature,
            "ms",
            against="bare aiortc: message and answer",
            ratio=statistics.median(without_signature) / bare_trip,
            at_most=2,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    arguments = parser.parse_args()
    publish("pairing", trio.run(measure, arguments.repetitions))


if __name__ == "__main__":
    main()
