"""File, environment and flags, and the page that documents them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from handclasp.cli import main
from handclasp.errors import ConfigurationError
from handclasp.service import Settings
from handclasp.service.configuration import Configuration, Option, load, options
from handclasp.service.secret import Secret
from handclasp.service.settings import IceSettings, PresenceSettings

RANDOM = "9f0c41d27be35a6880d1e2f3a4b5c6d7"


def written(folder: Path, text: str) -> Path:
    file = folder / "handclasp.toml"
    file.write_text(text)
    return file


def test_nothing_said_is_the_defaults() -> None:
    assert load() == Configuration()
    assert load().settings == Settings()


def test_a_flag_counts_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "port = 1\ngrace = 1\noutbox = 1\n[presence]\nhosts = ['a', 'b:81']\nrate = 2\n")
    environment = {"HANDCLASP_SERVE_PORT": "2", "HANDCLASP_SERVE_GRACE": "2.5", "HOME": "/"}
    configuration = load(file, environment, {"port": 3})
    assert configuration.port == 3
    assert (configuration.settings.grace, configuration.settings.outbox) == (2.5, 1)
    assert configuration.settings.presence == PresenceSettings(hosts=("a", "b:81"), rate=2.0)


def test_a_list_in_the_environment_has_commas() -> None:
    presence = load(environment={"HANDCLASP_SERVE_PRESENCE_HOSTS": "a, b:81,"}).settings.presence
    assert presence.hosts == ("a", "b:81")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "'prot'"),
        ("[presence]\nprot = 1", "'presence.prot'"),
        ("[prot]\nhosts = []", "'prot.hosts'"),
        ("port = '1'", "port is a whole number"),
        ("port = true", "port is a whole number"),
        ("port = 1.5", "port is a whole number"),
        ("grace = 'x'", "grace is a number"),
        ("host = 1", "host is a text"),
        ("proxies = '10.0.0.0/8'", "proxies is a list"),
        ("proxies = [1]", "proxies is a list"),
        ("proxies = ['x']", "proxies"),
        ("origins = ['https://shop.example/']", "origins"),
        ("origins = ['https://shop.example:443']", "origins"),
        ("origins = ['*']", "origins"),
        ("port = 65536", "port"),
        ("workers = 0", "workers"),
        ("workers = 2", "memory:"),
        ("drain = -1", "drain"),
        ("log_level = 'trace'", "log_level"),
        ("log_format = 'xml'", "log_format"),
        ("metrics = '9464'", "metrics"),
        ("metrics = 'a:b'", "metrics"),
        ("[ice]\nturn = ['turn:x:1']", "ice.secret"),
        ("[ice]\nturn = ['stun:x:1']", "ice.turn"),
        ("[ice]\nstun = ['x:1']", "ice.stun"),
        ("[ice]\nlife = 601", "ice.life"),
        (f"[ice]\nsecret = '{RANDOM}'", "ice.secret_file"),
        ("[ice]\nsecret_file = '/nowhere'", "/nowhere"),
        ("port = ", "handclasp.toml"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load(written(tmp_path, text))
    assert named in str(refused.value)


def test_a_file_that_is_not_there_and_a_variable_that_is_unknown_are_named() -> None:
    with pytest.raises(ConfigurationError, match="nowhere"):
        load(Path("/nowhere.toml"))
    with pytest.raises(ConfigurationError, match="HANDCLASP_SERVE_PROXY "):
        load(environment={"HANDCLASP_SERVE_PROXY": "10.0.0.0/8"})
    with pytest.raises(ConfigurationError, match="HANDCLASP_SERVE_PORT is a whole number"):
        load(environment={"HANDCLASP_SERVE_PORT": "tcp://10.0.0.1:8787"})


# Secrets


@pytest.mark.parametrize(
    "weak",
    [
        "short",
        RANDOM[:31],
        "a" * 40,
        "abab" * 16,
        "changeme-changeme-changeme-changeme",
        "this-is-an-EXAMPLE-secret-0123456789abcdef",
        "north" + RANDOM,
    ],
)
def test_a_weak_or_known_secret_is_refused_and_not_repeated(tmp_path: Path, weak: str) -> None:
    (tmp_path / "secret").write_text(weak + "\n")
    for attempt in (
        lambda: load(environment={"HANDCLASP_SERVE_ICE_SECRET": weak}),
        lambda: load(environment={"HANDCLASP_SERVE_ICE_SECRET_FILE": str(tmp_path / "secret")}),
        lambda: load(written(tmp_path, f"[ice]\nsecret_file = '{tmp_path}/secret'")),
    ):
        with pytest.raises(ConfigurationError) as refused:
            attempt()
        assert weak not in str(refused.value)


def test_a_secret_comes_from_a_file_or_from_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(RANDOM + "\n")
    by_file = load(flags={"ice.secret_file": tmp_path / "secret", "ice.turn": ("turn:x:1",)})
    by_environment = load(
        environment={"HANDCLASP_SERVE_ICE_SECRET": RANDOM}, flags={"ice.turn": ("turn:x:1",)}
    )
    for configuration in (by_file, by_environment):
        assert configuration.settings.ice == IceSettings(turn=("turn:x:1",), secret=Secret(RANDOM.encode()))
        assert RANDOM not in repr(configuration)
    with pytest.raises(ConfigurationError, match="one of the two"):
        load(environment={"HANDCLASP_SERVE_ICE_SECRET": RANDOM, "HANDCLASP_SERVE_ICE_SECRET_FILE": "x"})


# One list


def cells(option: Option) -> str:
    """The row of the page for an option."""
    is_secret = option.kind is Secret
    default = {"": "", "()": "none", "None": ""}.get(str(option.default), f"`{option.default}`")
    key = "" if is_secret else f"`{option.key}`"
    flag = "" if is_secret else f"`{option.flag}`"
    return f"| {key} | `{option.variable}` | {flag} | {default} | {option.about} |"


def test_the_page_has_every_option_with_its_names_its_default_and_its_reason() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "service.md"
    rows = [
        line
        for line in page.read_text().splitlines()
        if "`HANDCLASP_SERVE_" in line and line.startswith("| ")
    ]
    assert rows == [cells(option) for option in options()], (
        "PYTHONPATH=. python tests/service/test_configuration.py prints them"
    )


def test_every_option_says_what_it_is_for() -> None:
    assert not [option.key for option in options() if not option.about]


def test_the_command_has_a_flag_for_every_option_and_none_for_a_secret() -> None:
    text = CliRunner().invoke(main, ["serve", "--help"]).output
    flags = {word.strip() for word in text.split() if word.startswith("--")}
    assert flags == {option.flag for option in options() if option.kind is not Secret} | {
        "--help",
        "--config",
        "--json",
    }


def test_asking_for_the_commands_loads_nothing_of_the_service() -> None:
    code = (
        "import sys\nfrom handclasp.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('handclasp.service' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False"


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    file = written(tmp_path, "prot = 1")
    result = CliRunner().invoke(main, ["serve", "--json", "--config", str(file)])
    assert result.exit_code == 1
    event = json.loads(result.output)
    assert (event["event"], event["error"]) == ("error", "ConfigurationError")
    assert "'prot'" in event["detail"]


if __name__ == "__main__":
    print("\n".join(map(cells, options())))  # noqa: T201 - the rows of the page
