"""Indexes that lie: changed by somebody who signs what was changed, so that digests agree."""

from __future__ import annotations

import copy
import hashlib
import json
from random import Random
from typing import Any

from benchmarks.trust.mutate import NUMBERS, Saved
from swann.index.disk.manifest import FEATURES, MANIFEST, encode_manifest

VALUES: tuple[Any, ...] = (
    *NUMBERS, 2**64, 10**30, None, True, "", "x", [], {}, [1], 0.5, 1e300, float("nan"),
    float("inf"), "../a", "int8", "squared_l2", 2, 3, 16, 59, 61,
)  # fmt: skip
_BEGIN = 64  # of the values, past a header; header lengths are read from the file
_FLOATS = tuple(
    bytes.fromhex(h) for h in ("0000c07f", "0000807f", "000080ff", "ffff7f7f", "01000000")
)  # NaN, infinities, the largest, the smallest


def places(part: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return every place in a JSON document."""
    inner = list(part.items() if isinstance(part, dict) else enumerate(part))
    found: list[tuple[Any, ...]] = []
    for key, value in inner:
        found.append((*way, key))
        if isinstance(value, (dict, list)):
            found += places(value, (*way, key))
    return found


def lie(saved: Saved, rng: Random) -> str:
    """Change a directory and sign it; return what was done."""
    manifest = saved.path / MANIFEST
    content = json.loads(saved.files[manifest])
    kind = rng.choice(("field", "field", "array", "array", "array", "shape", "gone", "feature"))
    names = sorted(content["arrays"])
    name = rng.choice(names)
    if kind == "field":
        what = _change_field(content, rng)
    elif kind == "array":
        what = _change_array(saved, content, name, rng)
    elif kind == "shape":
        what = _change_shape(saved, content, name, rng)
    elif kind == "gone":
        other = rng.choice(names)
        if rng.random() < 0.5:
            del content["arrays"][name]
        else:
            content["arrays"][name], content["arrays"][other] = (
                content["arrays"][other],
                content["arrays"][name],
            )
        what = f"arrays {name} and {other}"
    else:
        feature = rng.choice(FEATURES)
        known = content["features"]
        known.remove(feature) if feature in known else known.append(feature)
        what = f"feature {feature}"
    saved.put(manifest, encode_manifest(content))
    return what


def _change_field(content: dict[str, Any], rng: Random) -> str:
    way = rng.choice(places(content))
    part = content
    for key in way[:-1]:
        part = part[key]
    value = rng.choice(VALUES)
    if rng.random() < 0.1:
        del part[way[-1]]
        return f"no {way}"
    part[way[-1]] = copy.deepcopy(value)
    return f"{way} = {value!r}"


def _split(data: bytes) -> tuple[bytes, bytes]:
    begin = 10 + int.from_bytes(data[8:10], "little")
    return data[:begin], data[begin:]


def _sign(saved: Saved, content: dict[str, Any], name: str, header: bytes, values: bytes) -> None:
    digest = hashlib.sha256(values).hexdigest()
    content["arrays"][name] |= {"file": f"{name}-{digest[:16]}.npy", "sha256": digest}
    saved.put(saved.path / content["arrays"][name]["file"], header + values)


def _change_array(saved: Saved, content: dict[str, Any], name: str, rng: Random) -> str:
    header, values = _split(saved.files[saved.path / content["arrays"][name]["file"]])
    changed = bytearray(values)
    for _ in range(rng.choice((1, 1, 2, 5)) if changed else 0):
        place = rng.randrange(len(changed)) & ~3
        number = (rng.choice(NUMBERS) % 2**32).to_bytes(4, "little")
        stomp = rng.choice((number, number, rng.randbytes(4), rng.choice(_FLOATS)))
        changed[place : place + 4] = stomp[: len(changed) - place]
    if rng.random() < 0.1:
        changed = bytearray(rng.choice((b"\0", b"\xff", b"\x7f")) * len(changed))
    _sign(saved, content, name, header, bytes(changed))
    return f"values of {name}"


def _change_shape(saved: Saved, content: dict[str, Any], name: str, rng: Random) -> str:
    """Make an array longer or shorter, with a header and a manifest that say so."""
    entry = content["arrays"][name]
    header, values = _split(saved.files[saved.path / entry["file"]])
    shape = list(entry["shape"])
    axis = rng.randrange(len(shape))
    length = rng.choice((0, 1, shape[axis] - 1, shape[axis] + 1, 2 * shape[axis], 2**32, 2**62))
    old, shape[axis] = shape[axis], length
    text = header[10:].decode()
    said = text.replace(_tuple(entry["shape"]), _tuple(shape)).rstrip()
    padded = said.encode() + b" " * (-(10 + len(said) + 1) % _BEGIN) + b"\n"
    header = header[:8] + len(padded).to_bytes(2, "little") + padded
    if length <= 2 * old + 1:
        values = (values * 3)[: len(values) // max(old, 1) * length]
    entry["shape"] = shape
    _sign(saved, content, name, header, values)
    return f"{name} has shape {shape}"


def _tuple(shape: list[int]) -> str:
    return repr(tuple(shape))
