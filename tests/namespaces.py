"""Networks of our own, for tests that multicast or need two machines: nobody else hears what is sent in them.

Each lives in a Linux network namespace that ends with the process that runs in it. An
unprivileged user may make one where user namespaces are allowed.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: One machine without a network, whose loopback interface carries multicast.
LOOPBACK = "ip link set lo up && ip route add 224.0.0.0/4 dev lo"

#: Two machines on one cable: 10.0.0.1, where the program runs, and 10.0.0.2, where what follows `ON_OTHER` runs.
CABLE = """
mount -t tmpfs tmpfs /run
ip link set lo up
ip netns add other
ip link add here type veth peer name there netns other
ip addr add 10.0.0.1/24 dev here
ip link set here up
nsenter --net=/run/netns/other sh -ec '
  ip link set lo up
  ip addr add 10.0.0.2/24 dev there
  ip link set there up
'
"""
ON_OTHER = ["nsenter", "--net=/run/netns/other"]


def command(network: str, *arguments: str) -> list[str]:
    """The command that runs Python with *arguments* in a network of its own; skips where there can be none."""
    _require()
    script = f'set -e\n{network}\nexec "$@"'
    return ["unshare", "-rnm", "sh", "-c", script, "sh", sys.executable, *arguments]


def _require() -> None:
    try:
        probe = ["unshare", "-rnm", "sh", "-ec", LOOPBACK]
        problem = subprocess.run(probe, capture_output=True, text=True, check=False).stderr
    except FileNotFoundError as exc:  # not Linux
        problem = str(exc)
    if problem:
        reason = (
            f"this test needs a network namespace ('unshare -rn', and 'ip' of iproute2): {problem.strip()}"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
