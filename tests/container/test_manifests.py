"""Containers: what the image, Compose and Kubernetes files say fits this release and keeps to its promises."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from relay.config.environment import OTHERS, VARIABLES
from relay.config.load import load

ROOT = Path(__file__).parents[2]
KUBERNETES = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
GROUP = ROOT / "deploy" / "group"
KNOWN = {one.name for one in VARIABLES} | set(OTHERS)
READY, ALIVE = {"/readyz", "relay health"}, {"/healthz", "relay health --live"}
"""What probes may ask; a full spool is no reason for a restart."""


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
    ports = [one["containerPort"] for one in relay_of(file).get("ports", [])]
    for listener in settings.listeners:
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
    assert all("value" in one or "valueFrom" in one for one in relay["env"])
    mounts = {one["mountPath"]: one["name"] for one in relay["volumeMounts"]}
    assert set(mounts.values()) <= volumes
    assert {"/var/lib/relay", "/tmp"} <= set(mounts)
    assert {one["name"] for one in relay["env"]} <= KNOWN
    for probe, asks in {"startup": READY, "readiness": READY, "liveness": ALIVE}.items():
        said = relay[f"{probe}Probe"]
        assert (said["httpGet"]["path"] if "httpGet" in said else " ".join(said["exec"]["command"])) in asks


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


def test_the_group_is_several_pods_that_keep_nothing_and_go_one_at_a_time():
    file = ROOT / "deploy" / "kubernetes" / "group.yaml"
    found = {(one["kind"], one["metadata"]["name"]): one for one in parts(file)}
    deployment = found["Deployment", "relay"]["spec"]
    assert deployment["replicas"] == 3
    assert found["PodDisruptionBudget", "relay"]["spec"]["maxUnavailable"] == 1
    labels = deployment["template"]["metadata"]["labels"]
    for kind, name in (("Service", "relay"), ("Service", "relay-outside")):
        assert found[kind, name]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget", "relay"]["spec"]["selector"]["matchLabels"] == labels
    assert all("persistentVolumeClaim" not in one for one in pod_of(file)["volumes"])


def test_each_pod_of_the_group_has_its_name_and_the_database_from_a_secret(tmp_path):
    file = ROOT / "deploy" / "kubernetes" / "group.yaml"
    given = {one["name"]: one.get("valueFrom") for one in relay_of(file)["env"]}
    assert given["RELAY_REPLICA"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    reference = given["RELAY_SPOOL_URL"]["secretKeyRef"]
    (secret,) = [one for one in parts(file) if one["kind"] == "Secret"]
    assert reference["name"] == secret["metadata"]["name"]
    (text,) = [one["data"]["config.yaml"] for one in parts(file) if one["kind"] == "ConfigMap"]
    (tmp_path / "client-secret").write_text("x")
    (tmp_path / "config.yaml").write_text(text.replace("/run/secrets/relay", str(tmp_path)))
    url = secret["stringData"][reference["key"]]
    assert load(tmp_path / "config.yaml", {"RELAY_SPOOL_URL": url}).spool.url == url


def test_clients_outside_the_cluster_come_to_the_port_that_asks_who_they_are():
    file = ROOT / "deploy" / "kubernetes" / "group.yaml"
    (text,) = [one["data"]["config.yaml"] for one in parts(file) if one["kind"] == "ConfigMap"]
    proxied = {
        int(one["bind"].rpartition(":")[2]): bool(one.get("proxy_protocol_from"))
        for one in yaml.safe_load(text)["listeners"]
    }
    ports = {one["name"]: one["containerPort"] for one in relay_of(file)["ports"]}
    services = {one["metadata"]["name"]: one for one in parts(file) if one["kind"] == "Service"}
    for name, expected in (("relay", False), ("relay-outside", True)):
        (smtp,) = [one for one in services[name]["spec"]["ports"] if one["name"] == "smtp"]
        assert proxied[ports[smtp["targetPort"]]] is expected
    assert services["relay-outside"]["spec"]["externalTrafficPolicy"] == "Local"


def test_the_group_in_compose_is_shut_in_and_knows_its_balancer():
    compose = yaml.safe_load((GROUP / "compose.yaml").read_text())
    services, networks = compose["services"], compose["networks"]
    relays = {name: one for name, one in services.items() if name.startswith("relay")}
    assert len(relays) == 3
    for name, relay in relays.items():
        assert set(relay["environment"]) <= KNOWN | {"PGPASSWORD"}  # libpq's own
        assert "${" not in relay["environment"]["RELAY_SPOOL_URL"]
        assert relay["environment"]["RELAY_REPLICA"] == name
        assert (relay["read_only"], relay["cap_drop"], relay["stop_grace_period"]) == (True, ["ALL"], "45s")
    assert networks["group"]["internal"] is True
    assert services["postgres"]["networks"] == ["group"]
    balancer = services["haproxy"]["networks"]["group"]["ipv4_address"]
    (listener,) = yaml.safe_load((GROUP / "config.yaml").read_text())["listeners"]
    assert listener["proxy_protocol_from"] == [balancer]
    assert ipaddress.ip_address(balancer) in ipaddress.ip_network(
        networks["group"]["ipam"]["config"][0]["subnet"]
    )
    asked = re.findall(r"^  server \S+ (\w+):25", (GROUP / "haproxy.cfg").read_text(), re.MULTILINE)
    assert set(asked) == set(relays)


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
