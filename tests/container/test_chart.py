"""The Helm chart, by Helm itself: what it makes is valid, fits the program, and wrong values are refused with the reason."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.helm.schema import values as values_schema
from relay.config.environment import VARIABLES
from relay.config.load import load
from relay.settings import Settings
from relay.simulator.pki import prepare
from tests.container.kube import CHART, GROUPS, HELM, ROOT, VERSIONS, faults, helm, rendered
from tests.container.test_manifests import KUBERNETES, parts

VALUES = sorted((Path(__file__).parent / "values").glob("*.yaml"))
KNOWN = {one.name for one in VARIABLES} | {"RELAY_CONFIG", "PGPASSWORD"}
MOUNT = "/run/secrets/relay"


class Release:
    """What one set of values makes."""

    def __init__(self, values: Path) -> None:
        self.values: dict[str, Any] = yaml.safe_load(values.read_text()) or {}
        self.items = rendered(values)
        (self.workload,) = self.kind("Deployment") + self.kind("StatefulSet")
        self.template = self.workload["spec"]["template"]
        self.pod = self.template["spec"]
        (self.container,) = self.pod["containers"]

    def kind(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.items if one["kind"] == name]

    def settings(self, folder: Path) -> Settings:
        """What relay makes of the configuration, with the pod's variables; files of secrets are in ``folder``."""
        (folder / "client-secret").write_text("x")
        _, pair = prepare(folder)
        text = self.kind("ConfigMap")[0]["data"]["config.yaml"]
        for name in ("/etc/web/tls.crt", "/etc/web/tls.key"):
            text = text.replace(name, str(pair))
        config = folder / "config.yaml"
        config.write_text(text.replace(MOUNT, str(folder)))
        environment = {one["name"]: one["value"] for one in self.container["env"] if "value" in one}
        return load(config, {name: text for name, text in environment.items() if name != "RELAY_CONFIG"})


@pytest.fixture(params=VALUES, ids=lambda one: one.stem)
def release(request: pytest.FixtureRequest) -> Release:
    return Release(request.param)


@pytest.mark.parametrize("values", VALUES, ids=lambda one: one.stem)
def test_helm_finds_nothing_to_complain_about(values):
    done = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(release, version):
    """Strictly: a misspelled field is a fault. The Prometheus operator's objects are of no schema that is there."""
    own = [one for one in release.items if one["apiVersion"] in GROUPS]
    others = {one["kind"] for one in release.items if one not in own}
    assert others <= {"ServiceMonitor", "PrometheusRule"}
    assert {one["kind"]: faults(one, version) for one in own} == {one["kind"]: [] for one in own}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", KUBERNETES, ids=lambda one: one.stem)
def test_kubernetes_knows_every_field_of_the_plain_manifests(file, version):
    assert [one for item in parts(file) for one in faults(item, version)] == []


def test_a_fault_would_be_seen():
    """The schemas notice a wrong kind and a name that does not exist."""
    (item,) = (one for one in rendered(VALUES[0]) if one["kind"] in ("StatefulSet", "Deployment"))
    item["spec"]["replicas"] = "one"
    item["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    said = " ".join(faults(item, VERSIONS[-1]))
    assert "replicas" in said
    assert "livenesProbe" in said


def test_ports_and_probes_are_those_of_the_program(release, tmp_path):
    settings = release.settings(tmp_path)
    ports = {one["name"]: one["containerPort"] for one in release.container["ports"]}
    web = {settings.web.port} if settings.web else set()
    assert sorted(ports.values()) == sorted([*(one.port for one in settings.listeners), *web])
    assert len(set(ports.values())) == len(ports)
    reached = {one["targetPort"] for service in release.kind("Service") for one in service["spec"]["ports"]}
    assert reached == set(ports)
    probes = {name: release.container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    if settings.web is None:
        asked_by = {name: " ".join(one["exec"]["command"]) for name, one in probes.items()}
        alive = {"liveness": "relay health --live"}  # a full spool is no reason for a restart
        assert asked_by == {"startup": "relay health", "readiness": "relay health", **alive}
    else:
        asked = {name: one["httpGet"] for name, one in probes.items()}
        assert {name: one["path"] for name, one in asked.items()} == {
            "startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz",
        }  # fmt: skip
        assert {one["port"] for one in asked.values()} == {"web"}
        assert {one.get("scheme", "HTTP") for one in asked.values()} == {
            "HTTPS" if settings.web.certificate else "HTTP"
        }
        (service,) = (one for one in release.kind("Service") if one["metadata"]["name"].endswith("-web"))
        assert service["metadata"]["name"] in settings.web.names
    privileged = [one for one in ports.values() if one < 1024]
    assert bool(privileged) == ("sysctls" in release.pod["securityContext"])


def test_what_the_pod_refers_to_is_there_or_named_by_the_values(release, tmp_path):
    """Secrets, configuration, volumes, account; and relay reads its secret where it is mounted."""
    made = {(one["kind"], one["metadata"]["name"]) for one in release.items}
    volumes = {one["name"]: one for one in release.pod["volumes"]}
    claims = [one["metadata"]["name"] for one in release.workload["spec"].get("volumeClaimTemplates", [])]
    mounts = {one["mountPath"]: one["name"] for one in release.container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes) | set(claims)
    assert {"/var/lib/relay", "/tmp", "/etc/relay"} <= set(mounts)
    assert ("ConfigMap", volumes["config"]["configMap"]["name"]) in made
    account = release.pod["serviceAccountName"]
    assert (("ServiceAccount", account) in made) or account == "default"
    secret = release.values.get("secret", {}).get("name", "relay-client-secret")
    assert volumes.get("secret", {}).get("secret", {}).get("secretName", "") == secret
    assert (mounts.get(MOUNT) == "secret") == bool(secret)
    text = release.kind("ConfigMap")[0]["data"]["config.yaml"]
    assert (f"file:{MOUNT}/client-secret" in text) == bool(secret)
    if release.values.get("secret", {}).get("values"):
        (own,) = release.kind("Secret")
        assert own["metadata"]["name"] == secret
        assert set(own["stringData"]) == {"client-secret"}
    if release.values.get("spool", {}).get("kind") == "postgresql":
        (password,) = [
            one["valueFrom"]["secretKeyRef"] for one in release.container["env"] if "valueFrom" in one
        ]
        assert password == {"name": "relay-database", "key": "relay-password"}
        assert release.settings(tmp_path).spool.url == release.values["spool"]["postgresql"]["url"]


def test_services_and_policies_mean_the_pod(release):
    labels = release.template["metadata"]["labels"].items()
    selectors = [release.workload["spec"]["selector"]["matchLabels"]]
    selectors += [one["spec"]["selector"] for one in release.kind("Service")]
    selectors += [one["spec"]["podSelector"]["matchLabels"] for one in release.kind("NetworkPolicy")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in release.kind("PodDisruptionBudget")]
    assert all(one.items() <= labels for one in selectors)
    for monitor in release.kind("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        found = [one for one in release.kind("Service") if wanted <= one["metadata"]["labels"].items()]
        (endpoint,) = monitor["spec"]["endpoints"]
        assert [port["name"] for one in found for port in one["spec"]["ports"]] == [endpoint["port"]]
    for policy in release.kind("NetworkPolicy"):
        out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        assert out == {53, 443, 587, 5433, 3128}


def test_the_pod_is_shut_in(release):
    pod, inside = release.pod, release.container["securityContext"]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert pod["terminationGracePeriodSeconds"] >= 45
    assert (pod["automountServiceAccountToken"], pod["enableServiceLinks"]) == (False, False)
    assert inside == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert {one["name"] for one in release.container["env"]} <= KNOWN


def test_each_kind_of_spool_keeps_its_promise(release, tmp_path):
    """One relay for a volume, or a volume for each; a waiting one is not killed; where nothing is kept, nothing is promised."""
    kind = release.values.get("spool", {}).get("kind", "volume")
    spec, settings = release.workload["spec"], release.settings(tmp_path)
    after = {one.answer_after for one in settings.listeners}
    assert after == ({"upstream"} if kind == "none" else {"spool"})
    volumes = release.values.get("spool", {}).get("postgresql", {}).get("volumes", False)
    stateful = kind == "volume" or volumes
    assert release.workload["kind"] == ("StatefulSet" if stateful else "Deployment")
    assert spec["replicas"] == (release.values["replicas"] if kind == "postgresql" else 1)
    claims = spec.get("volumeClaimTemplates", [])
    existing = release.values.get("spool", {}).get("volume", {}).get("existingClaim")
    assert len(claims) == (1 if stateful and not existing else 0)
    patience = release.container["startupProbe"]["failureThreshold"]
    assert patience == (2**31 - 1 if kind == "postgresql" else 300)


def test_the_rules_are_those_of_the_documents_and_prometheus_takes_them(tmp_path):
    rules = (ROOT / "docs" / "monitoring" / "relay.rules.yml").read_text()
    assert (CHART / "files" / "relay.rules.yml").read_text() == rules
    release = Release(Path(__file__).parent / "values" / "postgresql.yaml")
    (rule,) = release.kind("PrometheusRule")
    assert rule["spec"] == yaml.safe_load(rules)
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump(rule["spec"]))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("config.upstreams[0].tenantid=x", "additional properties 'tenantid' not allowed"),
        ("config.log.level=loud", "'/config/log/level'"),
        ("spool.kind=disk", "'volume', 'postgresql', 'none'"),
        ("replica=2", "additional properties 'replica' not allowed"),
        ("service.port=70000", "'/service/port'"),
        ("clientNetworks={everywhere}", "'/clientNetworks/0'"),
        ("terminationGracePeriodSeconds=5", "minimum"),
        ("spool.postgresql.url=postgresql://relay:plain@db/relay", "'/spool/postgresql/url'"),
        ("replicas=2", "more than one need spool.kind postgresql"),
        ("spool.kind=postgresql", "spool.postgresql.url is missing"),
        ("spool.kind=none,spool.volume.existingClaim=old", "one claim, one relay"),
        ("config.spool.url=sqlite:////x", "where mail lives is said by spool.kind"),
        ("web.enabled=false,serviceMonitor.enabled=true", "serviceMonitor needs web.enabled"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(given, said):
    done = helm("template", "mail", str(CHART), "--set", given)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_plain_secret_does_not_get_into_the_configmap(tmp_path):
    values = tmp_path / "values.yaml"
    values.write_text(
        "config: {upstreams: [{from_email: a@contoso.com, tenant_id: contoso.com,"
        " client_id: 66666666-7777-4888-9999-aaaaaaaaaaaa, client_secret: very-plain}]}"
    )
    done = helm("template", "mail", str(CHART), "--values", str(values))
    assert done.returncode != 0
    assert "could be read in the ConfigMap" in done.stderr
    assert "very-plain" not in done.stderr


def test_the_schema_is_relays_own():
    """`python deploy/helm/schema.py` writes it."""
    assert yaml.safe_load((CHART / "values.schema.json").read_text()) == values_schema()


def test_every_value_has_a_default_and_no_other():
    """What the schema knows is in values.yaml, where it is explained."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(values_schema()["properties"]) - {"global"}


def test_chart_and_program_are_one_release():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == version
    assert re.fullmatch(r"\d+\.\d+\.\d+", chart["version"])


def test_the_pages_commands_are_helms(tmp_path):
    """docs/helm.md: its values and `helm` commands, rendered in place of installed; its `kubectl` ones name what is there."""
    page = (ROOT / "docs" / "helm.md").read_text()
    (values,) = re.findall(r"^```yaml\n(# my-values.+?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my-values.yaml").write_text(values)
    blocks = re.findall(r"^```sh\n(.+?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [one for block in blocks for one in block.splitlines()]
    for line in lines:
        program, verb, *words = line.split()
        if program == "helm":
            assert verb in ("install", "upgrade")
            given = [one.replace("my-values.yaml", str(tmp_path / "my-values.yaml")) for one in words]
            done = subprocess.run(
                [str(HELM), "template", *given], capture_output=True, text=True, timeout=120, cwd=ROOT
            )
            assert done.returncode == 0, done.stderr
            items = [one for one in yaml.safe_load_all(done.stdout) if one]
            assert [fault for one in items for fault in faults(one, VERSIONS[-1])] == []
            assert "relay" in {one["metadata"]["name"] for one in items}
    assert [one.split()[:2] for one in lines].count(["helm", "install"]) == 1
    secrets = {one.split()[4] for one in lines if one.startswith("kubectl create secret")}
    assert secrets == {"relay-client-secret", "relay-database"}
