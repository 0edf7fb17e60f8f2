"""Defaults of the core kinds.

Source: ``pkg/apis/core/v1/defaults.go`` (v1.36).
"""

import base64
from collections.abc import Callable, Iterable
from typing import Final

from podyard.api.defaults.pod_spec import (
    default_pod_spec,
    fill,
    round_up_quantities,
)
from podyard.api.documents import Document
from podyard.api.resources import (
    ResourceList,
    compute_qos_class,
    is_hugepage,
    is_pod_level_resource,
    pod_limits,
    pod_requests,
    requests_from_limits,
)

_AFFINITY_TIMEOUT_S: Final = 10800
_NAME_LABEL: Final = "kubernetes.io/metadata.name"
_CLUSTER_POLICY: Final = "Cluster"


def default_pod(pod: Document) -> None:
    """Fill in a Pod's defaults, in place."""
    spec = pod.setdefault("spec", {})
    default_pod_spec(spec)
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for container in containers:
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = requests_from_limits(resources)
    if spec.get("resources") is not None:
        _default_pod_level_resources(spec["resources"], pod)
    if spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    if spec.get("hostNetwork"):
        _default_host_ports(containers)


def _default_host_ports(containers: Iterable[Document]) -> None:
    for container in containers:
        for port in container.get("ports") or ():
            if not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort")


def _default_pod_level_resources(resources: Document, pod: Document) -> None:
    requests, limits = resources.get("requests"), resources.get("limits")
    if not requests and not limits:
        return
    limits, requests = dict(limits or {}), dict(requests or {})
    for name, amount in _of_containers(pod_limits, pod).items():
        if is_hugepage(name) and name not in requests:
            limits.setdefault(name, str(amount))
    if limits:
        resources["limits"] = limits
        for name, amount in _of_containers(pod_requests, pod).items():
            if is_pod_level_resource(name) and not is_hugepage(name):
                requests.setdefault(name, str(amount))
        for name, text in limits.items():
            if is_pod_level_resource(name):
                requests.setdefault(name, text)
    if requests:
        resources["requests"] = requests


def _of_containers(amounts: Callable[..., ResourceList], pod: Document) -> ResourceList:
    spec = {key: value for key, value in pod["spec"].items() if key != "resources"}
    return amounts({"spec": spec}, include_overhead=False)


def prepare_pod(pod: Document) -> None:
    """Give a new Pod its first status: pending, with its QoS class."""
    pod["status"] = {"phase": "Pending", "qosClass": compute_qos_class(pod)}


def default_service(service: Document) -> None:
    """Fill in a Service's defaults, in place; addresses are the allocator's."""
    spec = service.setdefault("spec", {})
    fill(spec, {"sessionAffinity": "None", "type": "ClusterIP"})
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        if (config.get("clientIP") or {}).get("timeoutSeconds") is None:
            client_ip = {"timeoutSeconds": _AFFINITY_TIMEOUT_S}
            spec["sessionAffinityConfig"] = {"clientIP": client_ip}
    for port in spec.get("ports") or ():
        fill(port, {"protocol": "TCP"})
        if port.get("targetPort") in {None, "", 0}:
            port["targetPort"] = port.get("port")
    _default_service_policies(spec)
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def _default_service_policies(spec: Document) -> None:
    type_ = spec["type"]
    is_external = type_ in {"NodePort", "LoadBalancer"} or (
        type_ == "ClusterIP" and spec.get("externalIPs")
    )
    if is_external:
        fill(spec, {"externalTrafficPolicy": _CLUSTER_POLICY})
    if type_ in {"ClusterIP", "NodePort", "LoadBalancer"}:
        fill(spec, {"internalTrafficPolicy": _CLUSTER_POLICY})
    if type_ == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
        spec["allocateLoadBalancerNodePorts"] = True


def default_secret(secret: Document) -> None:
    """Fill in a Secret's type and move ``stringData`` into ``data``, in place."""
    fill(secret, {"type": "Opaque"})
    texts = secret.pop("stringData", None)
    if texts:
        data = dict(secret.get("data") or {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()
        secret["data"] = data


def default_config_map(config_map: Document) -> None:
    """Leave out an empty ``data``, as it is never printed."""
    if config_map.get("data") == {}:
        del config_map["data"]


def default_namespace(namespace: Document) -> None:
    """Label a namespace with its name; new ones are active."""
    metadata = namespace.setdefault("metadata", {})
    if metadata.get("name"):
        labels = dict(metadata.get("labels") or {})
        metadata["labels"] = {**labels, _NAME_LABEL: metadata["name"]}
    namespace.setdefault("spec", {})
    fill(namespace.setdefault("status", {}), {"phase": "Active"})


def prepare_namespace(namespace: Document) -> None:
    """Make a new namespace active and have its contents deleted before it goes."""
    default_namespace(namespace)
    namespace["status"] = {"phase": "Active"}
    finalizers = namespace["spec"].get("finalizers") or []
    if "kubernetes" not in finalizers:
        namespace["spec"]["finalizers"] = [*finalizers, "kubernetes"]


def default_node(node: Document) -> None:
    """Give a Node without allocatable its capacity."""
    status = node.get("status") or {}
    if status.get("allocatable") is None and status.get("capacity"):
        status["allocatable"] = dict(status["capacity"])
    round_up_quantities(status.get("capacity"))
    round_up_quantities(status.get("allocatable"))


def default_endpoints(endpoints: Document) -> None:
    """Fill in the protocol of every port."""
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            fill(port, {"protocol": "TCP"})
