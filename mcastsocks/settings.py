"""TOML files checked by a pydantic model; what is wrong is said with file, line and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mcastsocks.errors import ConfigError

_Location = tuple[int | str, ...]
_SECRET = "password"


class Settings(BaseModel):
    """Base of every table of a file: a key that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Model = TypeVar("_Model", bound=Settings)


def load(path: Path, model: type[_Model]) -> _Model:
    """The file's values. Raises ConfigError with a line for each problem."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8 text, found octet X'{error.object[error.start]:02x}'") from None
    return parse(text, model, str(path))


def parse(text: str, model: type[_Model], name: str) -> _Model:
    """The same for text; `name` stands before each problem."""
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        what, line = (found[1], found[2] or len(text.splitlines())) if found else (str(error), "?")
        raise ConfigError(f"{name}:{line}: not TOML: {what}") from None
    except ValidationError as error:
        problems = [
            f"{name}:{_line_of(text, problem['loc'])}: {_key(problem['loc'])}: {_explain(problem, model)}"
            for problem in error.errors()
        ]
        raise ConfigError(*problems) from None


def _key(location: _Location) -> str:
    """rules[0].groups[1], counted from 0 as TOML's own tools do."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "file"


def _explain(problem: Any, model: type[Settings]) -> str:
    kind, location = problem["type"], problem["loc"]
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        close = get_close_matches(str(location[-1]), known, 1)
        return f"unknown key; did you mean {close[0]!r}?" if close else f"unknown key; known are {', '.join(known)}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    value = problem["input"]
    if _SECRET in location or not isinstance(value, str | int | float | bool) or repr(value) in message:
        return message
    return f"{message}, not {value!r}"


def _known_keys(model: Any, location: _Location) -> list[str]:
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


def _line_of(text: str, location: _Location) -> int:
    """The line on which the statement begins that sets a key, or the nearest table that holds it."""
    lines = text.splitlines(keepends=True)
    for depth in range(len(location), 0, -1):
        if _holds(_prefix(lines, len(lines)), location[:depth]):
            return _begin_of(lines, location[:depth])
    return 1


def _begin_of(lines: list[str], location: _Location) -> int:
    """Asked of the TOML parser: where the shortest run of lines that parses and holds the key grew, by bisection.

    A run that ends inside a statement of several lines does not parse; the next that does stands for it.
    """
    lacks, holds = 0, len(lines)
    low, high = lacks, holds
    while high - low > 1:
        middle = (low + high) // 2
        count = next((n for n in range(middle, holds) if _prefix(lines, n) is not None), holds)
        if count == holds or _holds(_prefix(lines, count), location):
            high, holds = middle, count
        else:
            low, lacks = count, count
    return next(n for n in range(holds - 1, lacks - 1, -1) if _prefix(lines, n) is not None) + 1


def _prefix(lines: list[str], count: int) -> dict[str, Any] | None:
    try:
        return tomllib.loads("".join(lines[:count]))
    except tomllib.TOMLDecodeError:
        return None


def _holds(values: Any, location: _Location) -> bool:
    for part in location:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True
