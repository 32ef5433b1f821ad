"""Writes the chart's values.schema.json: what the values are, with relay's own schema for `config`.

python deploy/helm/schema.py > deploy/helm/relay/values.schema.json
"""

from __future__ import annotations

import json
from typing import Any

from relay.config.show import schema as relay_schema

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {"type": "object"}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
OBJECTS: Schema = {"type": "array", "items": ANY}
NETWORKS: Schema = {"type": "array", "items": {"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]+)?$"}}
SIZE: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?)?$"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
NAME: Schema = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
"""Of an object in Kubernetes, or empty."""


def section(**properties: Schema) -> Schema:
    """An object with these properties and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def one_of(*values: str) -> Schema:
    """One of these words."""
    return {"enum": list(values)}


def mail() -> Schema:
    """What relay is told, and where its mail lives."""
    return {
        "config": {"$ref": "#/$defs/RelayConfig"},
        "clientNetworks": NETWORKS,
        "secret": section(name=NAME, values=TEXTS),
        "spool": section(
            kind=one_of("volume", "postgresql", "none"),
            volume=section(size=SIZE, storageClass=TEXT, existingClaim=NAME),
            postgresql=section(
                url={"type": "string", "pattern": "^(postgres(ql)?://[^:@/]*(@.*)?)?$"},
                passwordSecret=section(name=NAME, key=TEXT),
                volumes=FLAG,
            ),
        ),
        "web": section(enabled=FLAG, metricsFrom=NETWORKS),
    }


def reach() -> Schema:
    """Who reaches it, and who watches it."""
    seconds: Schema = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
    share: Schema = {"type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 0}
    return {
        "service": section(
            type=one_of("ClusterIP", "NodePort", "LoadBalancer"),
            port=PORT,
            annotations=TEXTS,
            externalTrafficPolicy=one_of("", "Local", "Cluster"),
            loadBalancerSourceRanges=NETWORKS,
        ),
        "serviceMonitor": section(enabled=FLAG, interval=seconds, labels=TEXTS),
        "prometheusRule": section(enabled=FLAG, labels=TEXTS),
        "networkPolicy": section(
            enabled=FLAG,
            clients=OBJECTS,
            monitoring=OBJECTS,
            egressPorts={"type": "array", "items": PORT},
            egress=OBJECTS,
        ),
        "podDisruptionBudget": section(enabled=FLAG, maxUnavailable=share),
    }


def pod() -> Schema:
    """How the pod is made; what Kubernetes itself judges is any object here."""
    repository: Schema = {"type": "string", "minLength": 1}
    return {
        "replicas": {"type": "integer", "minimum": 0, "maximum": 100},
        "image": section(
            repository=repository, tag=TEXT, pullPolicy=one_of("Always", "IfNotPresent", "Never")
        ),
        "serviceAccount": section(create=FLAG, name=NAME, annotations=TEXTS),
        "nameOverride": NAME,
        "fullnameOverride": NAME,
        "podAnnotations": TEXTS,
        "podLabels": TEXTS,
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 45},
        "tmpSize": SIZE,
        "nodeSelector": TEXTS,
        "priorityClassName": TEXT,
        **dict.fromkeys(
            ("resources", "affinity", "global"), ANY
        ),  # Helm adds `global` to a part of another chart
        **dict.fromkeys(
            (
                "imagePullSecrets",
                "tolerations",
                "topologySpreadConstraints",
                "extraEnv",
                "extraVolumes",
                "extraVolumeMounts",
            ),
            OBJECTS,
        ),
    }


def values() -> Schema:
    """The schema of values.yaml."""
    body = relay_schema()
    parts = body.pop("$defs")
    dialect = body.pop("$schema")
    chart = section(**mail(), **reach(), **pod())
    return {
        "$schema": dialect,
        "title": "Values of the chart relay",
        **chart,
        "$defs": {**parts, "RelayConfig": body},
    }


if __name__ == "__main__":
    print(json.dumps(values(), indent=2))  # noqa: T201
