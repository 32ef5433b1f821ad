"""Kubernetes' own schemas, and Helm: `.ci/kubernetes` brings both."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".tools" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "relay"
HELM = PLACE / "helm"
VERSIONS = ("1.29", "1.37")
"""Of Kubernetes: the first with native sidecars, and a new one."""
GROUPS = {
    "v1": "core.v1", "apps/v1": "apps.v1", "policy/v1": "policy.v1", "networking.k8s.io/v1": "networking.v1",
}  # fmt: skip


@cache
def _definitions(version: str) -> dict[str, Any]:
    assert (PLACE / ".complete").exists(), "Helm and Kubernetes' schemas are missing: run `make test`"
    known: dict[str, Any] = json.loads((PLACE / f"{version}.json").read_text())["$defs"]
    return known


def faults(item: dict[str, Any], version: str) -> list[str]:
    """What that Kubernetes would not take of an object: wrong kinds, and fields that it does not know."""
    name = f"io.k8s.api.{GROUPS[item['apiVersion']]}.{item['kind']}"
    validator = Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": _definitions(version)})
    return [f"{one.json_path}: {one.message[:300]}" for one in validator.iter_errors(item)]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Helm itself, to its end."""
    assert (PLACE / ".complete").exists(), "Helm is missing: run `make test`"
    return subprocess.run([str(HELM), *words], capture_output=True, text=True, timeout=120)


def rendered(values: Path) -> list[dict[str, Any]]:
    """The objects that a file of values makes."""
    done = helm("template", "mail", str(CHART), "--namespace", "office", "--values", str(values))
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]
