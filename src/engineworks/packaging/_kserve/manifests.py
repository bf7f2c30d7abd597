"""Kubernetes manifests for KServe, as plain values. Knows no engine's runtime.

Held in tests against the schemas that KServe publishes (charts/kserve-crd).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engineworks.packaging._numbers import Numbers

#: Seconds: a container may take so long to open its engine.
_START_S = 120

_CLOSED = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "capabilities": {"drop": ["ALL"]},
}


def _probes(live: str, ready: str, port: int) -> dict[str, Any]:
    def get(path: str, period_s: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": port},
            "periodSeconds": period_s,
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        }

    return {
        "startupProbe": get(ready, 2, _START_S // 2),
        "readinessProbe": get(ready, 5, 2),
        "livenessProbe": get(live, 10, 3),
    }


def _resources(numbers: Numbers, options: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {
        "cpu": str(numbers.threads * numbers.instances),
        "memory": str(options.get("memory", "1Gi")),
    }
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _service(name: str, predictor: Mapping[str, Any], numbers: Numbers, options: Any) -> Any:
    scaling = {
        "minReplicas": int(options.get("min_replicas", 1)),
        "maxReplicas": int(options.get("max_replicas", 4)),
        # One request runs in each instance and one waits: more is another replica's.
        "scaleMetric": "concurrency",
        "scaleTarget": 2 * numbers.instances,
        "timeout": 60,
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {**scaling, **predictor}},
    }


def python_server(name: str, model: str, numbers: Numbers, options: Mapping[str, Any]) -> list[Any]:
    """KServe's own Python server with `model.py`, in the image of this package's Dockerfile.

    Args:
        name: Of the service, as Kubernetes takes names.
        model: The model that must be ready.
        numbers: As chosen for the engine.
        options: The recipe's.
    """
    container = {
        "name": "kserve-container",
        "image": str(options.get("image", f"{name}:latest")),
        "args": ["--http_port=8080", f"--threads={numbers.threads}"],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": _resources(numbers, options),
        "securityContext": _CLOSED,
        **_probes("/v2/health/live", f"/v2/models/{model}/ready", 8080),
    }
    return [_service(name, {"containers": [container]}, numbers, options)]


def own_server(name: str, model: str, numbers: Numbers, options: Mapping[str, Any]) -> list[Any]:
    """`engineworks serve` behind KServe's gateway, which asks clients who they are."""
    container = {
        "name": "kserve-container",
        "image": str(options.get("server_image", f"{name}-server:latest")),
        "command": ["engineworks", "serve", f"{model}=/engine"],
        "args": ["--host", "0.0.0.0", "--port", "8080", "--no-auth"],  # noqa: S104 - in a pod
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "resources": _resources(numbers, options),
        "securityContext": _CLOSED,
        **_probes("/health/live", "/health/ready", 8080),
    }
    return [_service(f"{name}-server", {"containers": [container]}, numbers, options)]


def triton(name: str, model: str, numbers: Numbers, options: Mapping[str, Any]) -> list[Any]:
    """The package for Triton: a runtime whose image holds what it lists, and a service on it."""
    container = {
        "name": "kserve-container",
        "image": str(options.get("triton_image", f"{name}-triton:latest")),
        "command": ["tritonserver"],
        "args": [
            "--model-store=/mnt/models",
            "--http-port=8080",
            "--grpc-port=9000",
            "--allow-grpc=true",
            "--allow-http=true",
            "--disable-auto-complete-config",
        ],
        "resources": _resources(numbers, options),
        "securityContext": _CLOSED,
        **_probes("/v2/health/live", f"/v2/models/{model}/ready", 8080),
    }
    runtime = {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": f"{name}-triton"},
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": "8002",
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": "triton", "version": "2", "autoSelect": False}],
            "protocolVersions": ["v2", "grpc-v2"],
            "containers": [container],
        },
    }
    storage = str(options.get("storage_uri", f"pvc://models/{name}/model_repository"))
    predictor = {
        "model": {
            "modelFormat": {"name": "triton", "version": "2"},
            "protocolVersion": "v2",
            "runtime": f"{name}-triton",
            "storageUri": storage,
        }
    }
    return [runtime, _service(f"{name}-triton", predictor, numbers, options)]
