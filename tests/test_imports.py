import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import handclasp

HEAVY = {
    "aiortc",
    "click",
    "cryptography",
    "eth_account",
    "httpx",
    "rich",
    "trio_websocket",
}


def printed_by(*arguments: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after *code*."""
    return set(printed_by("-c", f"import sys\n{code}\nprint(*sys.modules)").split())


def loaded_by_command(*arguments: str) -> set[str]:
    """The modules that ``python -m handclasp`` has loaded when it ends."""
    code = f"""
import atexit, runpy, sys
sys.argv = {["handclasp", *arguments]!r}
atexit.register(lambda: print("\\nloaded:", *sys.modules))
runpy.run_module("handclasp", run_name="__main__", alter_sys=True)
"""
    _, _, names = printed_by("-c", code).rpartition("loaded:")
    return set(names.split())


def test_importing_the_package_loads_nothing_heavy_and_nothing_of_its_own() -> None:
    loaded = loaded_after("import handclasp")
    assert not loaded & HEAVY
    assert not loaded & {"asyncio", "trio", "anyio", "ssl"}
    assert {name for name in loaded if name.startswith("handclasp.")} == set()


@pytest.mark.parametrize("name", sorted(HEAVY))
def test_the_heavy_modules_exist_under_these_names(name: str) -> None:
    # Otherwise a misspelt name would make the test above a test of nothing.
    assert find_spec(name) is not None


def test_every_public_name_resolves_to_the_same_object_every_time() -> None:
    for name in handclasp.__all__:
        assert getattr(handclasp, name) is getattr(handclasp, name)
        assert getattr(handclasp, name).__name__ == name


def test_the_lazy_names_are_exactly_the_public_ones() -> None:
    assert set(handclasp._HOME) == set(handclasp.__all__)
    assert handclasp.__all__ == sorted(handclasp.__all__)
    assert set(dir(handclasp)) == {*handclasp.__all__, "__version__"}
    namespace: dict[str, object] = {}
    exec("from handclasp import *", namespace)  # noqa: S102
    assert set(handclasp.__all__) <= namespace.keys()


def test_the_names_that_type_checkers_see_are_the_lazy_ones() -> None:
    # Under TYPE_CHECKING the module imports each name in plain sight; the two lists must not drift apart.
    source = Path(handclasp.__file__).read_text()
    block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    seen = {
        name.strip(): module.removeprefix("from .")
        for module, _, names in (line.strip().partition(" import ") for line in block.splitlines())
        for name in names.split(",")
    }
    assert seen == handclasp._HOME


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = handclasp.nonsense


def test_the_version_is_that_of_the_distribution() -> None:
    assert handclasp.__version__ == version("handclasp")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["demo", "--help"], ["wallet", "--help"]])
def test_help_is_printed_without_loading_anything_but_click(arguments: list[str]) -> None:
    loaded = loaded_by_command(*arguments)
    assert "click" in loaded
    assert not loaded & (HEAVY - {"click"})
    assert not loaded & {"asyncio", "trio", "anyio"}
    assert {name for name in loaded if name.startswith("handclasp.")} == {
        "handclasp.cli",
        "handclasp.errors",
    }


@pytest.mark.parametrize(
    "code", ["from handclasp import Identity; Identity", "from handclasp import PeerId; PeerId"]
)
def test_identities_load_no_network_code(code: str) -> None:
    assert not loaded_after(code) & {"aiortc", "httpx", "trio", "trio_websocket", "eth_account"}


def test_importing_every_module_has_no_effects() -> None:
    # No log set-up, no threads, no event loop, and the environment as it was.
    code = """
import logging, os, pkgutil, sys, threading
from importlib import import_module
environment = dict(os.environ)
handlers = list(logging.getLogger().handlers)
limit, interval = sys.getrecursionlimit(), sys.getswitchinterval()
import handclasp
for module in pkgutil.walk_packages(handclasp.__path__, "handclasp."):
    if module.name != "handclasp.__main__":
        import_module(module.name)
assert "aiortc" in sys.modules and "eth_account" not in sys.modules
assert logging.getLogger().handlers == handlers
assert logging.getLogger("handclasp").handlers == []
assert threading.active_count() == 1, threading.enumerate()
assert (sys.getrecursionlimit(), sys.getswitchinterval()) == (limit, interval)
assert dict(os.environ) == environment
print("nothing happened")
"""
    assert printed_by("-c", code) == "nothing happened\n"
