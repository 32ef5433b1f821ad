"""Configuration files of any kind: settings, or faults that say what is wrong; never another error."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.config.faults import ConfigError
from relay.config.load import load
from relay.settings import Settings

EXAMPLE = (Path(__file__).parents[2] / "config.example.yaml").read_text()
BOUNDED = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.lists(st.text(max_size=5), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2), st.sampled_from(["env:NOPE", "file:/nope", "5m", "-1"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.yaml"


def loads(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        assert isinstance(load(file, {}), Settings)
    except ConfigError as error:
        assert error.faults
        assert all(fault.problem for fault in error.faults)


def places(node: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Every place of a document, as the keys that lead there."""
    found = [path]
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


DOCUMENT = yaml.safe_load(EXAMPLE)
PLACES = [place for place in places(DOCUMENT) if place]


@BOUNDED
@given(place=st.sampled_from(PLACES), value=ODD)
def test_any_value_at_any_place(file: Path, place: tuple[object, ...], value: object) -> None:
    """The example with one value replaced by something odd."""
    document = yaml.safe_load(EXAMPLE)
    node = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    loads(file, yaml.safe_dump(document, allow_unicode=True))


@BOUNDED
@given(start=st.integers(0, len(EXAMPLE)), length=st.integers(0, 60), text=st.text(max_size=12))
def test_any_text_anywhere(file: Path, start: int, length: int, text: str) -> None:
    """The example with a stretch of it overwritten."""
    loads(
        file, (EXAMPLE[:start] + text + EXAMPLE[start + length :]).encode("utf-8", "replace").decode("utf-8")
    )


@BOUNDED
@given(octets=st.binary(max_size=200))
def test_any_octets(file: Path, octets: bytes) -> None:
    """No YAML at all."""
    loads(file, octets.decode("utf-8", "surrogateescape"))
