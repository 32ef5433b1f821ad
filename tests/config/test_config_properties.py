"""Whatever a file or the environment holds, loading gives settings or a ConfigError, and never shows a secret."""

from __future__ import annotations

from pathlib import Path

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.config import yamlfile
from relay.config.environment import VARIABLES
from relay.config.faults import ConfigError
from relay.config.load import load
from relay.config.show import show
from relay.config.tree import keys
from tests.config.config_kit import CLIENT, EIGHT, SECRET, TENANT

NAMES = sorted({key.rpartition(".")[2] for key in keys()})
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=30),
    st.sampled_from([TENANT, CLIENT, "a@b.cd", "*@b.cd", "/a(b/", "env:X", "file:/", "keyring:", "127.0.0.1:25",
                     "0.0.0.0:1", "user:a", "5m", "25MB", "sqlite:///x", "https://[", "http://a:b@c:99999", "system"]),
)  # fmt: skip
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=8)), inner, max_size=6),
    ),
    max_leaves=25,
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(file: Path | None, environ: dict[str, str]) -> str:
    """What loading came to, as text; only ConfigError may be raised."""
    try:
        loaded = load(file, environ)
    except ConfigError as error:
        assert error.faults
        assert all(fault.problem and fault.remedy for fault in error.faults)
        return str(error)
    return str(show(loaded)) + " ".join(loaded.warnings)


@QUICK
@given(
    data=st.dictionaries(
        st.sampled_from(sorted({key.partition(".")[0].partition("[")[0] for key in keys()})), TREES
    )
)
def test_any_tree_of_known_keys(tmp_path, data):
    """Right keys, wrong values, at any depth."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    assert outcome(file, {})


@QUICK
@given(octets=st.binary(max_size=300))
def test_any_octets(tmp_path, octets):
    """A file that is no configuration at all."""
    file = tmp_path / "config.yaml"
    file.write_bytes(octets)
    assert outcome(file, {})


@QUICK
@given(text=st.text(alphabet="ab:-[]{},&*!<>|#\"'%@` \n\t?~.1", max_size=80))
def test_any_yaml_punctuation(text):
    """Text made of YAML's own characters: parsed, or one fault that says where."""
    document = yamlfile.parse(text, "file")
    assert document.data is None or not document.faults or all(fault.line for fault in document.faults)


@QUICK
@example(values={"RELAY_CLIENT_SECRET_NEXT_FILE": "~nobody-has-this-name/secret", "RELAY_CA_FILE": "~0"})
@given(values=st.dictionaries(st.sampled_from([one.name for one in VARIABLES]), st.text(max_size=40)))
def test_any_environment(values):
    """Variables with any value; the secret is never shown."""
    environ = {**EIGHT, **values, "RELAY_CLIENT_SECRET": SECRET, "RELAY_CONFIG": ""}
    environ.pop("RELAY_CLIENT_SECRET_FILE", None)
    assert SECRET not in outcome(None, environ)


@QUICK
@given(
    place=st.sampled_from(
        ["tenant_id", "client_id", "client_secret", "managed_identity", "proxy", "password"]
    )
)
def test_a_secret_in_any_wrong_place_is_not_shown(tmp_path, place):
    """Pasted into the wrong field, the secret stays out of the report."""
    upstream = {
        "from_email": "a@b.cd",
        "tenant_id": TENANT,
        "client_id": CLIENT,
        "client_secret": "env:S",
        place: SECRET,
    }
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"upstreams": [upstream]}), encoding="utf-8")
    assert SECRET not in outcome(file, {"S": SECRET})
