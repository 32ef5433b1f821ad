"""Containers: what the image, Compose and Kubernetes files say fits this release and keeps to its promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.config.environment import VARIABLES
from relay.config.load import load

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
KNOWN = {one.name for one in VARIABLES} | {"RELAY_CONFIG"}


def parts(file: Path) -> list[dict[str, Any]]:
    """The objects of a manifest."""
    return [one for one in yaml.safe_load_all(file.read_text()) if one]


def pod_of(file: Path) -> dict[str, Any]:
    """The pod's specification."""
    return next(
        one["spec"]["template"]["spec"] for one in parts(file) if one["kind"] in ("Deployment", "StatefulSet")
    )


def relay_of(file: Path) -> dict[str, Any]:
    """Relay's container."""
    pod = pod_of(file)
    return next(one for one in [*pod.get("initContainers", []), *pod["containers"]] if one["name"] == "relay")


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda one: one.stem)
def test_the_configuration_in_a_manifest_is_one_that_relay_takes(file, tmp_path):
    (text,) = [one["data"]["config.yaml"] for one in parts(file) if one["kind"] == "ConfigMap"]
    (tmp_path / "client-secret").write_text("x")
    config = tmp_path / "config.yaml"
    config.write_text(text.replace("/run/secrets/relay", str(tmp_path)))
    settings = load(config, {})
    (listener,) = settings.listeners
    ports = [one["containerPort"] for one in relay_of(file).get("ports", [])]
    assert listener.host == "127.0.0.1" or listener.port in ports
    if settings.web is not None:
        assert settings.web.port in ports


@pytest.mark.parametrize("file", KUBERNETES, ids=lambda one: one.stem)
def test_a_pod_is_shut_in_and_given_time_to_drain(file):
    pod, relay = pod_of(file), relay_of(file)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["terminationGracePeriodSeconds"] >= 45
    inside = relay["securityContext"]
    assert (inside["readOnlyRootFilesystem"], inside["allowPrivilegeEscalation"]) == (True, False)
    assert inside["capabilities"] == {"drop": ["ALL"]}
    volumes = {one["name"] for one in pod["volumes"]} | {"spool"}
    mounts = {one["mountPath"]: one["name"] for one in relay["volumeMounts"]}
    assert set(mounts.values()) <= volumes
    assert {"/var/lib/relay", "/tmp"} <= set(mounts)
    assert {one["name"] for one in relay["env"]} <= KNOWN
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert relay[probe].get("exec", {}).get("command") == ["relay", "health"] or relay[probe]["httpGet"]["path"] in (
            "/healthz", "/readyz",
        )  # fmt: skip


def test_the_sidecar_is_a_native_one_and_promises_nothing_it_cannot_keep():
    file = ROOT / "deploy" / "kubernetes" / "sidecar.yaml"
    assert relay_of(file)["restartPolicy"] == "Always"
    assert relay_of(file) in pod_of(file)["initContainers"]
    assert "answer_after: upstream" in file.read_text()


def test_the_shared_relay_is_one_with_a_volume():
    (state,) = [
        one["spec"]
        for one in parts(ROOT / "deploy" / "kubernetes" / "shared.yaml")
        if one["kind"] == "StatefulSet"
    ]
    assert state["replicas"] == 1
    assert [one["metadata"]["name"] for one in state["volumeClaimTemplates"]] == ["spool"]
    assert state["template"]["spec"]["enableServiceLinks"] is False


def test_compose_uses_variables_that_exist_and_shuts_relay_in():
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    relay = compose["services"]["relay"]
    assert set(relay["environment"]) <= KNOWN
    assert (relay["read_only"], relay["cap_drop"], relay["stop_grace_period"]) == (True, ["ALL"], "45s")
    assert compose["networks"]["mail"]["internal"] is True
    subnet = compose["networks"]["mail"]["ipam"]["config"][0]["subnet"]
    assert relay["environment"]["RELAY_ALLOW"] == subnet


def test_the_image_is_built_in_stages_and_runs_as_nobody_special():
    text = (ROOT / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert len(stages) == 2
    assert "pip uninstall" in stages[0]
    assert "pip install" not in stages[1]
    assert re.search(r"^USER 10001$", stages[1], re.MULTILINE)
    for word in ("HEALTHCHECK", "VOLUME /var/lib/relay", "STOPSIGNAL SIGTERM"):
        assert word in stages[1]
