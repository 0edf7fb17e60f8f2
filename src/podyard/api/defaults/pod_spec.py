"""Defaults of a Pod spec, as Pods and Pod templates share them.

Source: ``pkg/apis/core/v1/defaults.go`` and the ``+default`` marks of ``core/v1``.
"""

from typing import Final

from podyard.api.documents import Document
from podyard.api.image_ref import default_pull_policy
from podyard.api.pod_templates import all_containers
from podyard.api.quantity import Quantity, parse_quantity

_MILLI_IN_NANO: Final = 10**6
_FILE_MODE: Final = 0o644
_TOKEN_LIFE_S: Final = 3600
_CERTIFICATE_LIFE_S: Final = 86400
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS: Final = ("postStart", "preStop")
#: Fields of volume sources with fixed defaults.
_SOURCE_DEFAULTS: Final[dict[str, Document]] = {
    "secret": {"defaultMode": _FILE_MODE},
    "configMap": {"defaultMode": _FILE_MODE},
    "downwardAPI": {"defaultMode": _FILE_MODE},
    "projected": {"defaultMode": _FILE_MODE},
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {
        "cachingMode": "ReadWrite",
        "fsType": "ext4",
        "readOnly": False,
        "kind": "Shared",
    },
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def default_pod_spec(spec: Document) -> None:
    """Fill in the defaults of a Pod spec, in place."""
    fill(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
        },
    )
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    mirror_service_account(spec)
    for _, container in all_containers(spec):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    round_up_quantities(spec.get("overhead"))


def fill(target: Document, values: Document) -> None:
    """Set the values whose keys are absent, ``null`` or empty text."""
    for key, value in values.items():
        if target.get(key) in {None, ""}:
            target[key] = value


def mirror_service_account(spec: Document) -> None:
    """Keep ``serviceAccount``, the old name of ``serviceAccountName``, in step."""
    name = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if name:
        spec["serviceAccountName"] = spec["serviceAccount"] = name


def round_up_quantities(amounts: Document | None) -> None:
    """Round a resource list up to thousandths, which is what the API keeps."""
    for name, text in (amounts or {}).items():
        quantity = parse_quantity(text)
        if quantity.nano % _MILLI_IN_NANO:
            milli = -(-quantity.nano // _MILLI_IN_NANO)
            rounded = Quantity(milli * _MILLI_IN_NANO, quantity.format)
            assert amounts is not None
            amounts[name] = str(rounded)


def _default_container(container: Document) -> None:
    fill(
        container,
        {
            "imagePullPolicy": default_pull_policy(container.get("image") or ""),
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
        },
    )
    resources = container.get("resources")
    if resources is None:
        resources = container["resources"] = {}
    round_up_quantities(resources.get("limits"))
    round_up_quantities(resources.get("requests"))
    for port in container.get("ports") or ():
        fill(port, {"protocol": "TCP"})
    for variable in container.get("env") or ():
        default_value_source(variable.get("valueFrom") or {})
    for name in _PROBES:
        if container.get(name) is not None:
            _default_probe(container[name])
    for name in _HOOKS:
        _default_handler((container.get("lifecycle") or {}).get(name) or {})


def default_value_source(source: Document) -> None:
    """Fill in the defaults of an ``env[].valueFrom`` or a downward API file."""
    if source.get("fieldRef") is not None:
        fill(source["fieldRef"], {"apiVersion": "v1"})
    if source.get("resourceFieldRef") is not None:
        fill(source["resourceFieldRef"], {"divisor": "0"})
    if source.get("fileKeyRef") is not None and "optional" not in source["fileKeyRef"]:
        source["fileKeyRef"]["optional"] = False


def _default_probe(probe: Document) -> None:
    for name, value in {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }.items():
        if not probe.get(name):
            probe[name] = value
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")
    _default_handler(probe)


def _default_handler(handler: Document) -> None:
    if handler.get("httpGet") is not None:
        fill(handler["httpGet"], {"path": "/", "scheme": "HTTP"})


def _default_volume(volume: Document) -> None:
    sources = [key for key in volume if key != "name" and volume[key] is not None]
    if not sources:
        volume["emptyDir"] = {}
    for name in sources:
        for key, value in _SOURCE_DEFAULTS.get(name, {}).items():
            if volume[name].get(key) is None:
                volume[name][key] = value
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        default_value_source(item)
    for source in (volume.get("projected") or {}).get("sources") or ():
        _default_projection(source)
    image = volume.get("image")
    if image is not None:
        policy = default_pull_policy(image.get("reference") or "")
        fill(image, {"pullPolicy": policy})
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template is not None:
        fill(template.setdefault("spec", {}), {"volumeMode": "Filesystem"})


def _default_projection(source: Document) -> None:
    for item in (source.get("downwardAPI") or {}).get("items") or ():
        default_value_source(item)
    token = source.get("serviceAccountToken")
    if token is not None and token.get("expirationSeconds") is None:
        token["expirationSeconds"] = _TOKEN_LIFE_S
    certificate = source.get("podCertificate")
    if certificate is not None and certificate.get("maxExpirationSeconds") is None:
        certificate["maxExpirationSeconds"] = _CERTIFICATE_LIFE_S
