"""The golden octets of spec/vectors, by layer and by name."""

import json
from pathlib import Path
from typing import Any

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads((Path(__file__).parent.parent / "spec" / "vectors" / "vectors.json").read_text())


def valid(*layers: str) -> list[Vector]:
    return [vector for vector in VECTORS if vector["layer"] in layers and "invalid" not in vector]


def invalid(*layers: str) -> list[Vector]:
    return [vector for vector in VECTORS if vector["layer"] in layers and "invalid" in vector]


def octets(*names: str) -> bytes:
    """The octets of the vectors so named, one behind the other."""
    by_name = {vector["name"]: bytes.fromhex(vector["hex"]) for vector in VECTORS}
    return b"".join(by_name[name] for name in names)


def name(vector: Vector) -> str:
    """For the ids of parametrized tests."""
    return str(vector["name"])
