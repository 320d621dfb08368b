"""How the service is set up: a TOML file, the environment and flags, all three from one list of options.

The list is the fields of `Configuration` and of `Settings`, with what is written below each.
``docs/reference/service.md`` shows it; a test compares the two.
"""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections.abc import Generator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, get_type_hints

from handclasp.errors import ConfigurationError

from .secret import Secret
from .settings import Settings

#: Of the names in the environment. Not ``HANDCLASP_``: Kubernetes sets ``HANDCLASP_PORT`` where it runs such a service.
PREFIX = "HANDCLASP_SERVE_"
IN_MEMORY = "memory:"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
_MOST_WORKERS = 256
_FILE = "_file"  # at the end of an option that names the file with a secret


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What ``handclasp serve`` is told; *settings* is what any other server can give `create_app`, too.

    Raises:
        ConfigurationError: a value cannot be; the message names it.
    """

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = 8787
    """Port to listen on; 0 takes a free one."""

    workers: int = 1
    """Processes that share the port; more than one need a `state` that they share."""

    state: str = field(default=IN_MEMORY, repr=False)
    """Where mailboxes are kept: `memory:` for one process, `sqlite:PATH` for several on one machine, or
    `redis://HOST/0` for several machines. A URL with a password in it belongs in the environment."""

    metrics: str = ""
    """Address and port, `127.0.0.1:9464`, at which Prometheus finds the metrics (needs the extra `metrics`), and
    `/health` and `/ready` are answered, too. Empty: nowhere."""

    log_level: str = "info"
    """What is logged: `debug`, `info`, `warning` or `error` and worse."""

    log_format: str = "text"
    """`text` for people, or `json`: one object a line."""

    drain: float = 0.0
    """Seconds between the signal to stop and the stop, in which `/ready` says no and everything else still works: as
    long as the proxy in front takes to notice."""

    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        _check_choice("log_level", self.log_level, LOG_LEVELS)
        _check_choice("log_format", self.log_format, LOG_FORMATS)
        if not 0 <= self.port <= 65_535:  # noqa: PLR2004 - TCP's
            raise ConfigurationError(f"port: {self.port} is none")
        if not 1 <= self.workers <= _MOST_WORKERS:
            raise ConfigurationError(f"workers: between 1 and {_MOST_WORKERS}, not {self.workers}")
        if self.workers > 1 and self.state == IN_MEMORY:
            raise ConfigurationError(
                f"workers: {self.workers} processes need a state that they share (sqlite:PATH or redis://HOST): "
                "with memory: each would have mailboxes of its own"
            )
        if not 0 <= self.drain < float("inf"):
            raise ConfigurationError("drain: a number of seconds, 0 for none")
        if self.metrics:
            self.metrics_address()

    def metrics_address(self) -> tuple[str, int]:
        """Where `metrics` says.

        Raises:
            ConfigurationError: it says nothing of the kind.
        """
        host, colon, port = self.metrics.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65_535:  # noqa: PLR2004 - TCP's
            raise ConfigurationError(f"metrics: {self.metrics!r} is no address and port (127.0.0.1:9464)")
        return host.removeprefix("[").removesuffix("]"), int(port)


@dataclass(frozen=True)
class Option:
    """One of them, and what it is called in each place."""

    path: tuple[str, ...]
    """Its table in the file, if any, and its name."""

    kind: type
    default: object
    about: str

    @property
    def key(self) -> str:
        """In the file, where no secret may be."""
        return ".".join(self.path)

    @property
    def variable(self) -> str:
        """In the environment."""
        return PREFIX + "_".join(self.path).upper()

    @property
    def flag(self) -> str:
        """On the command line; no secret is: every user of the machine can read those."""
        return "--" + "-".join(self.path).replace("_", "-")


@cache
def options() -> tuple[Option, ...]:
    """Every option, in the order of the fields."""
    return (*_options_of(Configuration, ()), *_options_of(Settings, ()))


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Configuration:
    """Read the configuration: a flag counts before the environment, and that before the file.

    Args:
        file: a TOML file, or None for none.
        environment: for example ``os.environ``; names without `PREFIX` are not looked at.
        flags: values by `Option.key`.

    Raises:
        ConfigurationError: something is unknown or cannot be; the message says where.
    """
    known = {option.key: option for option in options()}
    values: dict[str, object] = {}
    if file is not None:
        values |= _from_file(file, known)
    values |= _from_environment(environment or {}, known)
    values |= flags or {}
    for option in known.values():
        if option.kind is Path and option.key in values:
            secret = option.key.removesuffix(_FILE)
            if secret in values:
                raise ConfigurationError(f"{secret} and {option.key}: one of the two")
            values[secret] = Secret.from_file(cast("Path", values.pop(option.key)))
    return cast("Configuration", _build(Configuration, (), values))


def _from_file(file: Path, known: Mapping[str, Option]) -> dict[str, object]:
    try:
        table = tomllib.loads(file.read_text())
    except OSError as exc:
        raise ConfigurationError(f"the configuration {file} cannot be read: {exc.strerror}") from None
    except ValueError as exc:
        raise ConfigurationError(f"{file}: {exc}") from None
    values: dict[str, object] = {}
    for key, value in _flat(table):
        option = known.get(key)
        if option is None:
            raise ConfigurationError(f"{file}: there is no option {key!r}")
        if option.kind is Secret:
            raise ConfigurationError(
                f"{file}: {key} does not belong in here, name a file with it in {key}_file"
            )
        values[key] = _checked(f"{file}: {key}", option.kind, value)
    return values


def _flat(table: Mapping[str, object], prefix: str = "") -> Generator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(cast("dict[str, object]", value), f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _checked(where: str, kind: type, value: object) -> object:
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is tuple:
        if isinstance(value, list) and all(isinstance(each, str) for each in cast("list[object]", value)):
            return tuple(cast("list[str]", value))
        raise ConfigurationError(f"{where} is a list of texts")
    if type(value) is not kind:  # bool is an int to isinstance
        raise ConfigurationError(f"{where} is {_KINDS[kind]}, not {value!r}")
    return value


def _from_environment(environment: Mapping[str, str], known: Mapping[str, Option]) -> dict[str, object]:
    by_variable = {option.variable: option for option in known.values()}
    values: dict[str, object] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name == f"{PREFIX}CONFIG":
            continue
        option = by_variable.get(name)
        if option is None:
            raise ConfigurationError(f"{name} in the environment is no option of the service")
        values[option.key] = parse(name, option, text)
    return values


def parse(where: str, option: Option, text: str) -> object:
    """The value that a text stands for.

    Raises:
        ConfigurationError: none; the message begins with *where*, and holds no secret.
    """
    if option.kind is Secret:
        try:
            return Secret(text.encode())
        except ConfigurationError as exc:
            raise ConfigurationError(f"{where}: {exc}") from None
    if option.kind is tuple:
        return tuple(each.strip() for each in text.split(",") if each.strip())
    try:
        return cast("object", option.kind(text))
    except ValueError:
        raise ConfigurationError(f"{where} is {_KINDS[option.kind]}, not {text!r}") from None


_KINDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "the name of a file",
}


def _options_of(cls: type, path: tuple[str, ...]) -> Generator[Option]:
    texts, kinds = _texts_of(cls), _kinds_of(cls)
    for each in fields(cls):
        kind = kinds[each.name]
        if _is_table(kind):
            if kind is not Settings:
                yield from _options_of(kind, (*path, each.name))
            continue
        yield Option((*path, each.name), kind, _default_of(each), texts.get(each.name, ""))
        if kind is Secret:
            about = f"The file with `{'.'.join((*path, each.name))}` in its first line."
            yield Option((*path, each.name + _FILE), Path, None, about)


def _is_table(kind: type) -> bool:
    return is_dataclass(kind)


def _kinds_of(cls: type) -> dict[str, type]:
    """The plain type of each field: ``tuple`` for a tuple of texts, ``Secret`` for one that may be missing."""
    kinds: dict[str, type] = {}
    for name, hint in get_type_hints(cls).items():
        if hint == Secret | None:
            kinds[name] = Secret
        else:
            kinds[name] = cast("type", getattr(hint, "__origin__", hint))
    return kinds


def _default_of(each: Field[Any]) -> object:
    return None if each.default is MISSING else cast("object", each.default)


def _texts_of(cls: type) -> dict[str, str]:
    """What is written below each field. Python does not keep it, so it is read from the source."""
    try:
        body = ast.parse(inspect.cleandoc(inspect.getsource(cls))).body[0]
    except (OSError, TypeError):
        return {}  # installed without its source: the options work, their help is empty
    texts: dict[str, str] = {}
    statements = cast("ast.ClassDef", body).body
    for statement, after in pairwise(statements):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            texts[statement.target.id] = " ".join(str(after.value.value).split())
    return texts


def _build(cls: type, path: tuple[str, ...], values: Mapping[str, object]) -> object:
    arguments: dict[str, object] = {}
    for name, kind in _kinds_of(cls).items():
        if _is_table(kind):
            arguments[name] = _build(kind, path if kind is Settings else (*path, name), values)
        elif (key := ".".join((*path, name))) in values:
            arguments[name] = values[key]
    return cls(**arguments)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name}: one of {', '.join(choices)}, not {value!r}")
