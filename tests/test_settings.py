"""What is wrong with a file is said with file, line and key, and never with a secret."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcastsocks.errors import ConfigError
from mcastsocks.rules.users import Users
from mcastsocks.server.config import Config
from mcastsocks.settings import Location, Places, Settings, load, parse

BASE = """\
[inside]
listen = ["192.0.2.1:1080"]
[outside]
interface = "lo"
[auth]
methods = ["none"]
"""
RULE = """\
[[rules]]
name = "first"
allow = true
"""
HERE = "# <-"
HASH = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$3nLUQxTfZkz0iY0kbUJzDw"


def problems(text: str, model: type[Settings] = Config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, model, "relay.toml")
    return list(caught.value.problems)


def marked(text: str) -> int:
    """The number of the line that carries the mark."""
    return text[: text.index(HERE)].count("\n") + 1


WRONG = {
    # what                    text behind BASE                                       key, what the error says
    "syntax": ("[limits]\nconnections = = 5  # <-\n", "not TOML", "Invalid value"),
    "key twice": (
        '[log]\nformat = "json"\nformat = "json"  # <-\n',
        "not TOML",
        "Cannot overwrite a value",
    ),
    "unknown key": (
        "\n# limits\n[limits]\n\nconections = 5  # <-\n",
        "limits.conections",
        "unknown key; did you mean 'connections'?",
    ),
    "unknown key like no other": ("[log]\nzzz = 1  # <-\n", "log.zzz", "unknown key; known are format"),
    "unknown table": ("[plain]  # <-\nkind = 1\n", "plain", "unknown key; did you mean 'plane'?"),
    "unknown key in a list of tables": (
        RULE + '[[rules]]\nname = "second"\nallow = true\nclient = []  # <-\n',
        "rules[1].client",
        "unknown key; did you mean 'clients'?",
    ),
    "missing key": (RULE + '[[rules]]  # <-\nname = "second"\n', "rules[1].allow", "missing"),
    "text for a number": ('[limits]\ngroups = "5"  # <-\n', "limits.groups", "expected a whole number, not '5'"),
    "truth for a number": ("[limits]\ngroups = true  # <-\n", "limits.groups", "expected a whole number, not true"),
    "text for seconds": (
        '[limits]\nname_timeout_s = "1 s"  # <-\n',
        "limits.name_timeout_s",
        "expected a number, not '1 s'",
    ),
    "number for truth": (
        '[[rules]]\nname = "a"\nallow = 1  # <-\n',
        "rules[0].allow",
        "expected true or false, not 1",
    ),
    "number for text": (RULE + "users = [5]  # <-\n", "rules[0].users[0]", "expected text in quotes, not 5"),
    "text for a list": (RULE + 'users = "a"  # <-\n', "rules[0].users", "expected a list in brackets, not 'a'"),
    "table for a list of tables": ('[rules]  # <-\nname = "a"\n', "rules", "expected a list of tables: [[rules]]"),
    "list for a table": ("[[limits]]  # <-\ngroups = 5\n", "limits", "expected a table"),
    "number out of range": (
        "[limits]\ngroups = 0  # <-\n",
        "limits.groups",
        "expected greater than or equal to 1, not 0",
    ),
    "unknown word": ('[log]\nformat = "xml"  # <-\n', "log.format", "expected 'keyvalue' or 'json', not 'xml'"),
    "item of a list of several lines": (
        RULE + 'groups = [\n  "239.0.0.0/8",  # [1]\n\n  # "]"\n  "10.0.0.0/8",  # <-\n]\n',
        "rules[0].groups[1]",
        "expected groups: a network within 224.0.0.0/4 or ff00::/8, not '10.0.0.0/8'",
    ),
    "second of two tables": (
        RULE + '# [[rules]]\n\n[[rules]]\nname = "second"\nallow = true\nmax_ttl = 256  # <-\n',
        "rules[1].max_ttl",
        "expected less than or equal to 255, not 256",
    ),
    "inline table": (
        '[limits]\ngroups = 5\ndead_client_s = {a = "}"}  # <-\n',
        "limits.dead_client_s",
        "expected a whole number",
    ),
    "dotted key": ("[limits]\n[log]\n'format' = 'xml'  # <-\n", "log.format", "expected 'keyvalue' or 'json'"),
    "behind a text of several lines": (
        '[[rules]]\nname = """\n[[rules]]\nmax_ttl = 0 \\"""\n"""\nallow = true\nmax_ttl = 0  # <-\n',
        "rules[0].max_ttl",
        "expected greater than or equal to 1, not 0",
    ),
}


@pytest.mark.parametrize(("text", "key", "expected"), WRONG.values(), ids=WRONG)
def test_error_says_file_line_and_key_and_what_was_expected(text: str, key: str, expected: str) -> None:
    (problem,) = problems(BASE + text)
    assert problem.startswith(f"relay.toml:{marked(BASE + text)}: {key}: ")
    assert expected in problem


def test_error_inside_inline_tables_names_the_innermost_key() -> None:
    text = f"""\
auth = {{ methods = ["none"] }}
outside = {{ interface = "lo" }}
inside = {{ listen = [ "192.0.2.1:1080",
    "localhost:1" ] }}  {HERE}
"""
    (problem,) = problems(text)
    assert problem.startswith("relay.toml:4: inside.listen[1]: expected an address of this host and a port")
    assert problem.endswith("not 'localhost:1'")


def test_error_in_dotted_keys_has_their_line() -> None:
    text = f'inside.listen = ["192.0.2.1:1080"]\noutside.interface = ""  {HERE}\nauth.methods = ["none"]\n'
    assert problems(text) == [
        "relay.toml:2: outside.interface: expected the name or an address of a network interface, not ''"
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "\n\n"])
def test_missing_tables_are_all_named(text: str) -> None:
    assert problems(text) == [f"relay.toml:1: {table}: missing" for table in ("inside", "outside", "auth")]


@pytest.mark.parametrize(
    ("text", "line"), [('a = """\n\n', 2), ("a = [\n1,\n", 2), ("a = ", 1)], ids=["text", "list", "nothing"]
)
def test_file_that_ends_too_early_is_told_with_its_last_line(text: str, line: int) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"relay.toml:{line}: not TOML: ")


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    text = BASE + "[limits]\ngroups = 0\nconections = 1\nassociations = 'x'\n[log]\nformat = 5\n" + 300 * RULE
    lines = [int(re.match(r"relay\.toml:(\d+): ", problem)[1]) for problem in problems(text)]  # type: ignore[index]
    assert lines[:4] == [8, 9, 10, 12]
    assert lines == sorted(lines)


def test_error_at_the_end_of_five_thousand_rules_is_found() -> None:
    text = BASE + "".join(
        f'[[rules]]\nname = "{n}"\nallow = true\nto = [\n"198.51.100.0/24",\n]\n' for n in range(5000)
    )
    text += f'[[rules]]\nname = "last"\nallow = true\nclients = ["192.0.2.1/24"]  {HERE}\n'
    assert problems(text) == [
        f"relay.toml:{marked(text)}: rules[5000].clients[0]: the address has bits behind the prefix: "
        "expected 192.0.2.0/24, not '192.0.2.1/24'"
    ]


def test_five_thousand_errors_are_all_found() -> None:
    text = BASE + "".join(f'[[rules]]\nname = "{n}"\nallow = true\nmax_ttl = 0\n' for n in range(5000))
    found = problems(text)
    assert len(found) == 5000
    assert found[-1].startswith(f"relay.toml:{6 + 4 * 5000}: rules[4999].max_ttl: ")


def test_lists_nested_without_end_are_refused() -> None:
    assert problems("a = " + 100_000 * "[") == ["relay.toml: lists in lists too deep to be read"]


@pytest.mark.parametrize(
    "text",
    [
        f'[users]\nalice = "{HASH}"\n',
        f'[users.alice]\npassword = ["{HASH}"]\n',
        f'[users.alice]\npasswort = "{HASH}"\n',
        f'users = "{HASH}"\n',
        f'[users.alice]\npassword = "{HASH.replace("argon2id", "argon2i")}"\n',
        '[users.alice]\npassword = "3nLUQxTfZkz0iY0kbUJzDw"\n',
        f'[users.alice]\npassword = "{HASH}"\npassword = "{HASH}"\n',
        f'[users.alice]\npassword = "{HASH}\n',
        f"[users.alice]\npassword = {HASH}\n",
    ],
)
def test_no_error_repeats_a_password_or_its_hash(text: str) -> None:
    for problem in problems(text, Users):
        assert re.match(r"relay\.toml:[1-3]: ", problem)
        assert "3nLUQxTf" not in problem


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file or directory"):
        load(tmp_path / "nowhere.toml", Config)
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, Config)


def test_file_in_another_encoding_is_told_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_bytes(b"# one\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"relay\.toml:2: expected UTF-8 text, found octet X'e9'"):
        load(file, Config)


class Written:
    """A TOML text that grows, and the line on which each thing in it began."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw, self.text = draw, ""
        self.lines: dict[Location, int] = {}
        self.names = 0

    def note(self, location: Location) -> None:
        self.lines.setdefault(location, self.text.count("\n") + 1)

    def key(self) -> str:
        """A new key, as it is written; some need quotes."""
        self.names += 1
        form, name = self.draw(st.sampled_from([("{}", "k{}"), ('"{}"', "k. #[{}"), ("'{}'", 'k"]={}')]))
        self.last = name.format(self.names)
        return form.format(self.last)

    def pause(self, *kinds: str) -> None:
        self.text += self.draw(st.sampled_from(["", " ", *kinds]))

    def value(self, location: Location, depth: int = 0) -> None:
        kind = self.draw(st.sampled_from(["scalar", "scalar", "list", "table"] if depth < 3 else ["scalar"]))
        if kind == "scalar":
            self.text += self.draw(
                st.sampled_from(
                    [
                        "-1.5e3",
                        "true",
                        "1979-05-27 07:32:00.5",
                        '"# [a] = \\" {"',
                        "'\"]'",
                        '"""\n]"" \\"""\n"""',
                        "'''\n'#'''",
                    ]
                )
            )
        elif kind == "list":
            self.text += "["
            for index in range(self.draw(st.integers(0, 3))):
                self.text += "," if index else ""
                self.pause("\n", "# ]\n", "\n\n")
                self.note((*location, index))
                self.value((*location, index), depth + 1)
                self.pause("\n", "# ,\n")
            self.text += "]"
        else:
            self.text += "{"
            for index in range(self.draw(st.integers(0, 2))):
                self.text += ", " if index else " "
                self.pair(location, depth + 1)
            self.text += "}"

    def pair(self, location: Location, depth: int = 0) -> None:
        for dot in self.draw(st.sampled_from([("",), ("", ".")])):
            self.text += dot
            begin = self.text.count("\n") + 1
            self.text += self.key()
            location = (*location, self.last)
            self.lines[location] = begin
        self.text += " = "
        self.value(location, depth)

    def pairs(self, location: Location) -> None:
        for _ in range(self.draw(st.integers(0, 2))):
            self.pause("\n", "# [x]\n")
            self.pair(location)
            self.pause("# end")
            self.text += "\n"

    def table(self) -> None:
        """A table, or a list of two tables, each with a table inside."""
        key = self.key()
        location: Location = (self.last,)
        is_list = self.draw(st.booleans())
        for index in range(2 if is_list else 1):
            inner = (*location, index) if is_list else location
            self.note(location)
            self.note(inner)
            self.text += f"[[ {key} ]]\n" if is_list else f"[{key}] # =\n"
            self.pairs(inner)
            self.note((*inner, "sub"))
            self.text += f"[{key}.sub]\n"
            self.pairs((*inner, "sub"))


@st.composite
def documents(draw: st.DrawFn) -> Written:
    written = Written(draw)
    written.pairs(())
    for _ in range(draw(st.integers(0, 3))):
        written.table()
    return written


def holds(values: Any, location: Location) -> bool:
    for part in location:
        values = values[part]
    return True


@settings(max_examples=150, deadline=None)
@given(documents())
def test_every_key_and_item_of_any_file_is_found_on_its_line(written: Written) -> None:
    values = tomllib.loads(written.text)
    places = Places(written.text, "any.toml")
    for location, line in written.lines.items():
        assert holds(values, location)
        assert places.line(location) == line, location
        assert places.line((*location, "not there")) == line
