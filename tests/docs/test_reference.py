"""The reference names what there is: every public module, name, error, command and URL scheme."""

from __future__ import annotations

import importlib
import inspect
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import handclasp
from handclasp import errors
from handclasp.cli import main

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
TEXT = {page.stem: page.read_text() for page in sorted(REFERENCE.glob("*.md"))}
EVERYTHING = "\n".join(TEXT.values())
DIRECTIVE = re.compile(r"\.\. auto(module|class|function|data):: (\S+)")


def documented() -> set[str]:
    """The modules and names that the pages hand to autodoc."""
    return {name for _, name in DIRECTIVE.findall(EVERYTHING)}


def resolve(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", sorted(documented()))
def test_what_the_reference_names_is_there_and_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(resolve(name))


def exported(module: str) -> set[str]:
    return {f"{module}.{name}" for name in importlib.import_module(module).__all__}


#: Packages whose every exported name has to be on a page, by itself or with its whole module.
PUBLIC = [
    "handclasp.abc",
    "handclasp.accounts",
    "handclasp.node",
    "handclasp.node.plugins",
    "handclasp.transports.webrtc",
    "handclasp.transports.webrtc.engine",
    "handclasp.protocols.file",
    "handclasp.protocols.wallet",
    "handclasp.testing",
]


@pytest.mark.parametrize("module", PUBLIC)
def test_every_exported_name_is_in_the_reference(module: str) -> None:
    whole = {resolve(name) for name in documented() if inspect.ismodule(resolve(name))}
    single = {name for name in documented() if not inspect.ismodule(resolve(name))}
    missing = {
        name
        for name in exported(module)
        if name not in single
        and resolve(module) not in whole
        and inspect.getmodule(resolve(name)) not in whole
    }
    assert not missing, f"add to docs/reference: {sorted(missing)}"


def test_what_handclasp_exports_is_in_the_reference() -> None:
    missing = {name for name in handclasp.__all__ if not re.search(rf"\.{name}\b", EVERYTHING)}
    assert not missing


def test_every_error_is_drawn_in_the_tree() -> None:
    names = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.HandclaspError)
    }
    assert names == set(re.findall(r"\b[A-Z][A-Za-z]+(?=\n| {2,})", (errors.__doc__ or ""))) & names
    assert "handclasp.errors" in documented()


def test_every_command_is_on_its_page() -> None:
    assert set(main.commands) == set(re.findall(r"^\| `handclasp (\w+)", TEXT["command-line"], re.MULTILINE))


def test_every_url_scheme_is_on_the_page_of_the_command_line() -> None:
    ours = {
        entry.name
        for group in ("handclasp.discovery", "handclasp.transports")
        for entry in entry_points(group=group)
        if entry.value.startswith("handclasp.")
    }
    assert ours == {scheme for scheme in ours if re.search(rf"`{scheme}:", TEXT["command-line"])}
