"""A user's program with the official client; says what it saw as JSON."""

import json
import sys

import kubernetes
from kubernetes.stream import stream

kubeconfig, name, manifest = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
WATCHED = {"field_selector": f"metadata.name={name}", "timeout_seconds": 60}

with kubernetes.config.new_client_from_config(kubeconfig) as client:
    core = kubernetes.client.CoreV1Api(client)
    core.create_namespaced_pod("default", manifest)

    phases = []
    watch = kubernetes.watch.Watch()
    for event in watch.stream(core.list_namespaced_pod, "default", **WATCHED):
        phases.append(event["object"].status.phase)
        if phases[-1] == "Running":
            watch.stop()

    said = stream(
        core.connect_get_namespaced_pod_exec,
        name,
        "default",
        command=["sh", "-c", "echo said"],
        stdout=True,
        stderr=True,
    )
    log = core.read_namespaced_pod_log(name, "default")
    core.patch_namespaced_pod(name, "default", {"metadata": {"labels": {"by": name}}})
    listed = core.list_namespaced_pod("default", label_selector=f"by={name}").items

    core.delete_namespaced_pod(name, "default", grace_period_seconds=1)
    for event in watch.stream(core.list_namespaced_pod, "default", **WATCHED):
        if event["type"] == "DELETED":
            watch.stop()
    try:
        core.read_namespaced_pod(name, "default")
    except kubernetes.client.ApiException as error:
        after = error.status

found = [item.metadata.name for item in listed]
json.dump(
    {"phases": phases, "said": said, "log": log, "found": found, "after": after},
    sys.stdout,
)
