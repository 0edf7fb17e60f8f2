"""A user's program with lightkube; says what it saw as JSON."""

import json
import sys
import threading

import lightkube
from lightkube.resources.core_v1 import Pod

kubeconfig, name, manifest = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

config = lightkube.KubeConfig.from_file(kubeconfig)
client = lightkube.Client(config=config, namespace="default", field_manager="me")
client.create(Pod.from_dict(manifest))

phases = []
for _, seen in client.watch(Pod, fields={"metadata.name": name}):
    phases.append(seen.status.phase)
    if phases[-1] == "Running":
        break

said = client.exec(name, command=["sh", "-c", "echo said"], stdout=True).stdout
# Its reader outlives the connection it closes, and would take the first bytes of the
# next one that gets the same descriptor ("SSL: WRONG_VERSION_NUMBER").
for thread in threading.enumerate():
    if thread is not threading.current_thread():
        thread.join(timeout=10)
log = "".join(client.log(name))
client.patch(Pod, name, {"metadata": {"labels": {"by": name}}})
found = [item.metadata.name for item in client.list(Pod, labels={"by": name})]

client.delete(Pod, name, grace_period=1)
for kind, _ in client.watch(Pod, fields={"metadata.name": name}):
    if kind == "DELETED":
        break
try:
    client.get(Pod, name)
except lightkube.ApiError as error:
    after = error.status.code

json.dump(
    {"phases": phases, "said": said, "log": log, "found": found, "after": after},
    sys.stdout,
)
client.close()
