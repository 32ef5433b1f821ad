"""The example, the reference page and the JSON Schema name every key of the model, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from relay.config.environment import OTHERS, VARIABLES
from relay.config.findings import Findings, Origin
from relay.config.load import load
from relay.config.show import schema
from relay.config.tree import generic, keys
from relay.config.validate import validate
from relay.config.yamlfile import Document, parse
from tests.config.config_kit import SECRET

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.example.yaml"
PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
# In the example, a setting switched off is `#key: value`; prose has a blank after the #.
_SWITCHED_OFF = re.compile(r"^(\s*)#(?=(- )?[a-z_]+:)", re.MULTILINE)


def all_switched_on() -> Document:
    """The example with every setting that is commented out put in force."""
    return parse(_SWITCHED_OFF.sub(r"\1", EXAMPLE.read_text(encoding="utf-8")), "example")


def paths_of(value: Any, path: str = "") -> set[str]:
    """Key paths of a document, list positions left open."""
    found: set[str] = set()
    for key, one in value.items() if isinstance(value, dict) else ():
        here = f"{path}.{key}" if path else key
        found |= {here} | paths_of(one, here)
    for one in value if isinstance(value, list) else ():
        found |= paths_of(one, f"{path}[]")
    return found


def test_the_example_loads():
    """As it stands, with the one variable it asks for, and nothing to warn of but its own file mode."""
    settings = load(EXAMPLE, {"RELAY_CLIENT_SECRET": SECRET})
    assert settings.upstreams[0].name == "Microsoft 365"
    assert [one for one in settings.warnings if "has mode" not in one] == []


def test_the_example_holds_every_key():
    """In force or switched off: each key of the model, and no key beside them."""
    document = all_switched_on()
    assert document.faults == []
    assert paths_of(document.data) == set(keys())


def test_the_examples_switched_off_settings_are_valid():
    """Each value in the example may be taken as it is."""
    findings = Findings(Origin(None))
    assert validate(all_switched_on().data, findings) is not None
    assert findings.faults == []


def test_the_example_shows_defaults():
    """A key in force in the example changes nothing: its value is the default."""
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    own = {"server_name", "from_email", "tenant_id", "client_id", "client_secret"}
    fewer = {"upstreams": [{key: data["upstreams"][0][key] for key in own}]}
    config, bare = (
        validate(parse(yaml.safe_dump(one), "x").data, Findings(Origin(None))) for one in (data, fewer)
    )
    assert config is not None
    assert bare is not None
    for section in ("recipients", "spool", "log", "default_sender", "upstreams"):
        assert getattr(config, section) == getattr(bare, section), section


def test_the_page_documents_every_key():
    """Each key has its row, each row its key, with the model's description."""
    rows = dict(re.findall(r"^\| `([a-z_.\[\]]+)` \| [^|]* \| ([^|]+) \|$", PAGE, re.MULTILINE))
    assert set(rows) == set(keys())
    for key, field in keys().items():
        assert rows[key] == field.description


def test_the_page_documents_every_variable():
    """Each environment variable has its row, with the key it sets; none is documented that does not exist."""
    for variable in VARIABLES:
        assert f"| `{variable.name}` | `{variable.path}` |" in PAGE
        assert generic(variable.path) in keys()
    named = set(re.findall(r"\bRELAY_[A-Z_]+\b", PAGE))
    assert named <= {variable.name for variable in VARIABLES} | set(OTHERS)
    assert "RELAY_CONFIG" in named


def test_the_schema_describes_every_key():
    """An editor can explain each key; unknown keys are refused there too."""
    body = json.loads(json.dumps(schema()))
    sections = [body, *body["$defs"].values()]
    assert {key.rpartition(".")[2] for key in keys()} == {
        key for one in sections for key in one["properties"]
    }
    for section in sections:
        assert section["additionalProperties"] is False
        for key, rules in section["properties"].items():
            assert rules.get("description"), key
