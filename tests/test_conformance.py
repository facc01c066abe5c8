"""spec/conformance.md: every statement of the draft stands there, with tests that exist or a gap that is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
STATEMENTS = range(1, 109)
_ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \|$", re.M)
_TEST = re.compile(r"`(test_[a-z0-9_]+)`")


def rows(text: str) -> dict[int, str]:
    """What proves each statement, by number; a number that stands twice is an error."""
    found = _ROW.findall(text)
    numbers = [int(number) for number, _, _ in found]
    assert len(numbers) == len(set(numbers)), f"twice: {sorted(n for n in numbers if numbers.count(n) > 1)}"
    return {int(number): proof for number, _, proof in found}


def defined_tests(root: Path) -> set[str]:
    return {
        node.name
        for path in root.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def flaws(text: str, tests: set[str]) -> list[str]:
    proofs = rows(text)
    found = [f"{number} is missing" for number in STATEMENTS if number not in proofs]
    for number, proof in proofs.items():
        named = _TEST.findall(proof)
        found += [f"{number}: no test {name}" for name in named if name not in tests]
        if not named and "gap:" not in proof and "reading:" not in proof:
            found.append(f"{number}: neither a test, nor a gap, nor what to read")
    return found


def test_every_statement_has_tests_that_exist_or_a_gap_that_is_named() -> None:
    text = (ROOT / "spec/conformance.md").read_text()
    assert flaws(text, defined_tests(ROOT / "tests")) == []


def test_the_check_finds_what_is_missing() -> None:
    text = "| 1 | a | `test_gone` |\n| 2 | b | gap: later |\n| 3 | c | nothing |\n"
    found = flaws(text, {"test_here"})
    assert found[0] == "4 is missing"
    assert found[-2:] == ["1: no test test_gone", "3: neither a test, nor a gap, nor what to read"]


def test_golden_bytes_are_a_copy_of_the_shared_ones() -> None:
    """Beside the project there may be the originals; a plain clone has only the copy."""
    shared = ROOT.parent / "shared" / "vectors.json"
    if shared.exists():
        assert (ROOT / "spec/vectors/vectors.json").read_bytes() == shared.read_bytes()
