"""A user's program with kr8s; says what it saw as JSON."""

import json
import sys

import kr8s
from kr8s.objects import Pod

kubeconfig, name, manifest = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

client = kr8s.api(kubeconfig=kubeconfig)
pod = Pod(manifest, api=client)
pod.create()

phases = []
for _, seen in client.watch(
    "pods", namespace="default", field_selector=f"metadata.name={name}"
):
    phases.append(seen.raw.get("status", {}).get("phase"))
    if phases[-1] == "Running":
        break

pod.wait("condition=Ready", timeout=60)
said = pod.exec(["sh", "-c", "echo said"]).stdout.decode()
log = "\n".join(pod.logs())
pod.label({"by": name})
found = [item.name for item in client.get("pods", label_selector=f"by={name}")]

pod.delete(grace_period=1)
pod.wait("delete", timeout=60)
after = 200 if pod.exists() else 404

json.dump(
    {"phases": phases, "said": said, "log": log, "found": found, "after": after},
    sys.stdout,
)
