"""Damaged files: bytes and JSON values that hypothesis changes."""

import copy
import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

# Numbers at which readers break: signs, ends of types, and what is no number.
EXTREMES = (
    *(0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1),
    *(0.0, -0.0, 1e-45, 1e-30, 0.5, -1.5, 1e9, 1e30, 3.4e38, -3.4e38, 1e300, -1e300, float("inf"), float("-inf"), float("nan")),
)
ODD: tuple[Any, ...] = (
    *EXTREMES,
    *(10**400, None, True, False, "", "none", "x" * 5000, "\ud800", "\0\n;", "../../escaped", "1e999", "nan"),
    *([], [[]], [1, 2, 3], [None], ["a", "b"], [1e300] * 3, [[1.0, 2.0], [3.0]], {}, {"type": "LowField"}, {"a": {"b": []}}),
)


def damaged(content: bytes, most: int = 6, header: int = 512) -> SearchStrategy[bytes]:
    """The bytes with some overwritten, taken out, put in or cut off; half of the places lie in the first `header` bytes."""
    place = st.one_of(st.integers(0, min(header, max(len(content) - 1, 0))), st.integers(0, max(len(content) - 1, 0)))
    change = st.tuples(place, st.sampled_from(("write", "write", "write", "insert", "remove", "cut")), st.binary(min_size=1, max_size=8))
    return st.lists(change, min_size=1, max_size=most).map(lambda changes: _changed(content, changes))


def _changed(content: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    data = bytearray(content)
    for at, how, value in changes:
        if how == "write":
            data[at : at + len(value)] = value
        elif how == "insert":
            data[at:at] = value * 3
        elif how == "remove":
            del data[at : at + len(value)]
        else:
            del data[max(at, 1) :]
    return bytes(data)


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a JSON value's parts are, itself first; of long lists the first and last few."""
    found = [path]
    if isinstance(values, dict):
        for key, value in values.items():
            found += places(value, (*path, key))
    elif isinstance(values, list):
        for index in [*range(min(3, len(values))), *range(max(3, len(values) - 1), len(values))]:
            found += places(values[index], (*path, index))
    return found


def damaged_json(values: Any, most: int = 3) -> SearchStrategy[Any]:
    """The value with parts replaced by odd ones, or taken out."""
    change = st.tuples(st.sampled_from(places(values)), st.sampled_from(("replace", "replace", "remove")), st.sampled_from(ODD))
    return st.lists(change, min_size=1, max_size=most).map(lambda changes: _replaced(values, changes))


def damaged_json_text(values: Any) -> SearchStrategy[bytes]:
    """The same as text, or text that is no JSON any more."""
    text = json.dumps(values).encode()
    deep = st.sampled_from([b"[" * 20_000, b'{"a":' * 20_000, b"", b"\xff\xfe", b"\xef\xbb\xbf{}", b"9" * 5000])
    return st.one_of(damaged_json(values).map(lambda v: json.dumps(v).encode()), damaged(text), deep)


def _replaced(values: Any, changes: list[tuple[tuple[Any, ...], str, Any]]) -> Any:
    result = copy.deepcopy(values)
    for path, how, value in changes:
        if not path:
            result = copy.deepcopy(value)
            continue
        holder = result
        try:
            for key in path[:-1]:
                holder = holder[key]
            if how == "remove":
                del holder[path[-1]]
            else:
                holder[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return result
