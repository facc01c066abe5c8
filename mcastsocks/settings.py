"""TOML files checked by a pydantic model; what is wrong is said with file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from mcastsocks.errors import ConfigError

Location = tuple[int | str, ...]
"""Keys and indexes from the top of a file: ("rules", 0, "groups", 1)."""

_EXPECTED = {
    "bool_type": "expected true or false",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected text in quotes",
    "list_type": "expected a list in brackets",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "too_short": "expected at least one item",
}
"""For kinds of pydantic's errors, where its own words are about Python."""


class Settings(BaseModel):
    """Base of every table of a file: a key that nobody knows is an error, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    holds_secrets: ClassVar[bool] = False
    """A file of this model has values that no error may repeat."""


_Model = TypeVar("_Model", bound=Settings)


def load(path: Path, model: type[_Model]) -> _Model:
    """The file's values. Raises ConfigError with a line for each problem."""
    return parse(read(path), model, str(path))


def read(path: Path) -> str:
    """The file's text. Raises ConfigError."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        found = f"octet X'{error.object[error.start]:02x}'"
        raise ConfigError(f"{path}:{line}: expected UTF-8 text, found {found}") from None


def parse(text: str, model: type[_Model], name: str) -> _Model:
    """The same for text; `name` stands before each problem."""
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        place = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        what, line = (place[1], place[2] or max(1, len(text.splitlines()))) if place else (str(error), "?")
        raise ConfigError(f"{name}:{line}: not TOML: {what}") from None
    except RecursionError:
        raise ConfigError(f"{name}: lists in lists too deep to be read") from None
    except ValidationError as error:
        places = Places(text, name)
        found = sorted(error.errors(), key=lambda problem: places.line(problem["loc"]))
        raise ConfigError(*(f"{places[problem['loc']]}: {_explain(problem, model)}" for problem in found)) from None


def problems(*found: tuple[Location, str]) -> ValidationError:
    """What a validator of a whole table raises, to say where in that table the problems are."""
    return ValidationError.from_exception_data(
        "problems",
        [
            InitErrorDetails(type=PydanticCustomError("problem", "{why}", {"why": why}), loc=location, input=None)
            for location, why in found
        ],
    )


class Places:
    """Where the keys and list items of a TOML text stand, for the problems that are found in them."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = _Scanner(text).lines
        self._name = name

    def __getitem__(self, location: Location) -> str:
        """`FILE:LINE: KEY`."""
        return f"{self._name}:{self.line(location)}: {_key(self._as_written(location))}"

    def line(self, location: Location) -> int:
        """Where it begins; for what is not there itself, the nearest key or table around it."""
        location = self._as_written(location)
        depths = range(len(location), 0, -1)
        return next((self._lines[location[:depth]] for depth in depths if location[:depth] in self._lines), 1)

    def _as_written(self, location: Location) -> Location:
        """Without the index of a list that is written as its one table."""
        written: Location = ()
        for part in location:
            if not isinstance(part, int) or (*written, part) in self._lines:
                written += (part,)
        return written


def _key(location: Location) -> str:
    """rules[0].groups[1], counted from 0 as TOML's own tools do."""
    if location[-1:] == ("[key]",):  # pydantic's word for the key of a dictionary
        location = location[:-1]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "file"


def _explain(problem: Any, model: type[Settings]) -> str:
    kind, location, value = problem["type"], problem["loc"], problem["input"]
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        close = get_close_matches(str(location[-1]), known, 1)
        return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known are {', '.join(known)}"
    if kind == "list_type" and isinstance(value, dict):
        return f"expected a list of tables: [[{location[-1]}]]"
    message = _EXPECTED.get(kind) or problem["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if model.holds_secrets or not isinstance(value, str | int | float | bool) or ", not " in message:
        return message
    return f"{message}, not {str(value).lower() if isinstance(value, bool) else repr(value)}"


def _known_keys(model: Any, location: Location) -> list[str]:
    """The keys of the table at a location: models inside lists and dictionaries are found in their annotations."""
    for part in location:
        if isinstance(part, str) and part in getattr(model, "model_fields", {}):
            model = model.model_fields[part].annotation
        model = next((found for found in _models_in(model)), model)
    return sorted(getattr(model, "model_fields", {}))


def _models_in(annotation: Any) -> Sequence[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]


class _Scanner:
    """Walks once over TOML that tomllib has accepted, and notes on which line everything begins."""

    _TOKEN = re.compile(
        r"""
        (?P<space>  [ \t\r]+ | \#[^\n]* )
      | (?P<newline> \n )
      | (?P<quoted> \"{3} (?:\\.|[^\\])*? \"{3,5} | '{3} .*? '{3,5} | " (?:\\.|[^"\\])* " | '[^']*' )
      | (?P<mark>   [][{},=.] )
      | (?P<bare>   [^\s\#"'\][{},=.]+ )
        """,
        re.VERBOSE | re.DOTALL,
    )

    def __init__(self, text: str) -> None:
        self.lines: dict[Location, int] = {}
        self._lengths: dict[Location, int] = {}  # of the lists of tables so far
        self._line = 1
        self._tokens = self._TOKEN.finditer(text)
        self._advance()
        table: Location = ()
        while self._token:
            if self._skip("\n"):
                continue
            table = self._header() if self._token == "[" else self._pair(table)

    def _advance(self) -> None:
        """To the next token that means something; the empty one at the end."""
        for found in self._tokens:
            if found.lastgroup != "space":
                self._token, self._begin = found[0], self._line
                self._line += found[0].count("\n")
                return
        self._token = ""

    def _skip(self, token: str) -> bool:
        if self._token != token:
            return False
        self._advance()
        return True

    def _header(self) -> Location:
        begin, location = self._begin, Location()
        self._advance()
        is_list = self._skip("[")
        keys = self._keys()
        for depth, key in enumerate(keys, 1):
            location += (key,)
            self.lines.setdefault(location, begin)
            if is_list and depth == len(keys):
                self._lengths[location] = self._lengths.get(location, 0) + 1
            if location in self._lengths:
                location += (self._lengths[location] - 1,)
                self.lines.setdefault(location, begin)
        while self._skip("]"):
            pass
        return location

    def _pair(self, table: Location) -> Location:
        begin, location = self._begin, table
        for key in self._keys():
            location += (key,)
            self.lines.setdefault(location, begin)
        self._skip("=")
        self._value(location)
        return table

    def _keys(self) -> list[str]:
        keys = []
        while True:
            quoted = self._token[0] in "\"'"
            keys.append(tomllib.loads(f"key = {self._token}")["key"] if quoted else self._token)
            self._advance()
            if not self._skip("."):
                return keys

    def _value(self, location: Location) -> None:
        if self._skip("["):
            index = 0
            while not self._skip("]"):
                if not (self._skip("\n") or self._skip(",")):
                    self.lines[*location, index] = self._begin
                    self._value((*location, index))
                    index += 1
        elif self._skip("{"):
            while not self._skip("}"):
                if not (self._skip("\n") or self._skip(",")):
                    self._pair(location)
        else:
            while self._token not in ("", "\n", ",", "]", "}"):
                self._advance()
