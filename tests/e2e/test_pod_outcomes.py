"""A table of Pods and what is to become of them. All are created at once."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from podyard.api.documents import Document
from support.api import condition, phase, pod_path, state_of, statuses, until
from support.manifests import (
    SLEEP,
    config_map,
    container,
    namespace,
    pod,
    secret,
)

NAMESPACE = "outcomes"


@dataclass(frozen=True)
class Case:
    """A Pod, and what is to be so of it.

    Attributes:
        containers: the regular ones.
        states: container → pattern of ``STATE REASON CODE``.
        last: likewise of the last termination.
        conditions: type → pattern of ``STATUS REASON``.
        restarts: container → at least that many.
        messages: container → pattern in the message of its state, or of its last.
        events: patterns of ``Type Reason message``.
        logs: container → patterns, each found in its log.
    """

    containers: tuple[Document, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    phase: str = ""
    states: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    events: tuple[str, ...] = ()
    logs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def lacks(self, api, name: str) -> list[str]:
        """Return what is not so (yet)."""
        seen = api.pod(name, NAMESPACE)
        entries = statuses(seen)
        lacking = []
        if self.phase and phase(seen) != self.phase:
            lacking.append(f"phase {self.phase}")
        for kind, wanted, last in (
            ("state", self.states, False),
            ("last", self.last, True),
        ):
            for owner, pattern in wanted.items():
                if not re.fullmatch(pattern, state_of(seen, owner, last=last)):
                    lacking.append(f"{kind} of {owner}: {pattern}")
        for kind, pattern in self.conditions.items():
            if not re.fullmatch(pattern, condition(seen, kind)):
                lacking.append(f"condition {kind}: {pattern}")
        for owner, count in self.restarts.items():
            if entries.get(owner, {}).get("restartCount", -1) < count:
                lacking.append(f"restarts of {owner}: {count}")
        for owner, pattern in self.messages.items():
            if not re.search(pattern, message_of(entries.get(owner, {}))):
                lacking.append(f"message of {owner}: {pattern}")
        events = api.events(name, NAMESPACE) if self.events else []
        lacking += [
            f"event {pattern}"
            for pattern in self.events
            if not any(re.match(pattern, event) for event in events)
        ]
        for owner, patterns in self.logs.items():
            log = api.log(name, NAMESPACE, container=owner)
            lacking += [
                f"log of {owner}: {pattern}"
                for pattern in patterns
                if not re.search(pattern, log, re.MULTILINE)
            ]
        return lacking


def message_of(entry: Document) -> str:
    return " | ".join(
        detail.get("message", "")
        for part in ("state", "lastState")
        for detail in (entry.get(part) or {}).values()
    )


def once(script: str, *, phase: str = "Succeeded", **more: Any) -> Case:
    """A Pod that runs one script to its end."""
    fields = more.pop("fields", {})
    spec = {"restartPolicy": "Never", **more.pop("spec", {})}
    return Case((container(script, **fields),), spec, phase=phase, **more)


def failing(main: Document, **more: Any) -> Case:
    """A Pod whose container cannot even be made."""
    return Case((main,), more.pop("spec", {}), phase="Pending", **more)


def mounts(**paths: str) -> list[Document]:
    return [{"name": name, "mountPath": path} for name, path in paths.items()]


DATA = {"volumes": [{"name": "data", "emptyDir": {}}]}
AT_DATA = mounts(data="/data")
#: The first time it does one thing, then another.
FIRST_TIME = "[ ! -e /data/again ] && touch /data/again"
PROBE = {"periodSeconds": 1, "failureThreshold": 1}
WAIT_READY = {**PROBE, "exec": {"command": ["true"]}}

CASES = {
    # --- restart policies, exit codes
    "ends-well": once(
        "exit 0",
        states={"main": "terminated Completed 0"},
        conditions={"Ready": "False PodCompleted", "Initialized": "True PodCompleted"},
        events=("Normal Scheduled ", "Normal Created ", "Normal Started "),
    ),
    "ends-badly": once(
        "exit 3",
        phase="Failed",
        states={"main": "terminated Error 3"},
        conditions={"Ready": "False PodFailed"},
    ),
    "one-of-two-ends-badly": Case(
        (container("exit 0"), container("exit 1", "second")),
        {"restartPolicy": "Never"},
        phase="Failed",
        states={"main": "terminated Completed 0", "second": "terminated Error 1"},
    ),
    "killed-by-a-signal": once(
        "sh -c 'kill -9 $$$$'; exit $?", phase="Failed", states={"main": ".* Error 137"}
    ),
    "on-failure-is-tried-again": Case(
        (container(f"{FIRST_TIME} && exit 5; exit 0", volumeMounts=AT_DATA),),
        {"restartPolicy": "OnFailure", **DATA},
        phase="Succeeded",
        states={"main": "terminated Completed 0"},
        restarts={"main": 1},
    ),
    "always-is-run-again-even-when-it-ended-well": Case(
        (container(f"{FIRST_TIME} && exit 0; {SLEEP}", volumeMounts=AT_DATA),),
        DATA,
        phase="Running",
        states={"main": "running"},
        last={"main": "terminated Completed 0"},
        restarts={"main": 1},
        conditions={"Ready": "True"},
    ),
    "crash-loop": Case(
        (container("echo crashing; exit 7"),),
        phase="Running",
        states={"main": "waiting CrashLoopBackOff"},
        last={"main": "terminated Error 7"},
        restarts={"main": 1},
        messages={"main": r"back-off \d\S* restarting failed container=main pod=crash-loop_"},
        conditions={"Ready": "False ContainersNotReady"},
        events=("Warning BackOff Back-off restarting failed container main in pod crash-loop_",),
        logs={"main": ("crashing",)},
    ),
    "crash-loop-after-success": Case(
        (container("exit 0"),),
        states={"main": "waiting CrashLoopBackOff"},
        last={"main": "terminated Completed 0"},
    ),
    "container-restart-rules": Case(
        (
            container(
                f"{FIRST_TIME} && exit 42; exit 1",
                volumeMounts=AT_DATA,
                restartPolicy="Never",
                restartPolicyRules=[
                    {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
                ],
            ),
        ),
        {"restartPolicy": "Never", **DATA},
        phase="Failed",
        states={"main": "terminated Error 1"},
        restarts={"main": 1},
    ),
    "out-of-memory": once(
        "echo eating; tail /dev/zero",
        phase="Failed",
        fields={"resources": {"limits": {"memory": "16Mi"}}},
        states={"main": "terminated OOMKilled .*"},
    ),
    "active-deadline": Case(
        (container(),),
        {"activeDeadlineSeconds": 1, "restartPolicy": "Never"},
        phase="Failed",
        events=("Normal DeadlineExceeded Pod was active on the node longer",),
    ),
    # --- init containers and sidecars
    "init-containers-run-in-order": once(
        "cat /data/order",
        fields={"volumeMounts": AT_DATA},
        spec={
            **DATA,
            "initContainers": [
                container("sleep 0.2; echo one >> /data/order", "one", volumeMounts=AT_DATA),
                container("echo two >> /data/order", "two", volumeMounts=AT_DATA),
            ],
        },
        states={"one": "terminated Completed 0", "two": "terminated Completed 0"},
        logs={"main": (r"\Aone\ntwo\n\Z",)},
    ),
    "init-container-fails-for-good": Case(
        (container(),),
        {"restartPolicy": "Never", "initContainers": [container("exit 4", "first")]},
        phase="Failed",
        states={"first": "terminated Error 4", "main": "waiting PodInitializing"},
        conditions={"Initialized": "False ContainersNotInitialized"},
    ),
    "init-container-in-a-crash-loop": Case(
        (container(),),
        {"initContainers": [container("exit 4", "first")]},
        phase="Pending",
        states={"first": "waiting CrashLoopBackOff", "main": "waiting PodInitializing"},
        last={"first": "terminated Error 4"},
        conditions={"Initialized": "False ContainersNotInitialized"},
    ),
    "sidecar-starts-first-and-is-stopped-last": once(
        "cat /data/side",
        fields={"volumeMounts": AT_DATA},
        spec={
            **DATA,
            "initContainers": [
                container(
                    f"sleep 0.3; echo side > /data/side; {SLEEP}",
                    "side",
                    restartPolicy="Always",
                    volumeMounts=AT_DATA,
                    startupProbe={
                        **PROBE,
                        "failureThreshold": 60,
                        "exec": {"command": ["test", "-e", "/data/side"]},
                    },
                ),
                container("test -e /data/side", "after", volumeMounts=AT_DATA),
            ],
        },
        states={"side": "terminated Completed 0", "after": "terminated Completed 0"},
        logs={"main": ("side",)},
    ),
    "sidecar-that-fails-is-restarted": Case(
        (container(),),
        {
            "restartPolicy": "Never",
            **DATA,
            "initContainers": [
                container(
                    f"{FIRST_TIME} && exit 2; {SLEEP}",
                    "side",
                    restartPolicy="Always",
                    volumeMounts=AT_DATA,
                )
            ],
        },
        phase="Running",
        states={"side": "running", "main": "running"},
        restarts={"side": 1},
    ),
    # --- images
    "image-cannot-be-pulled": failing(
        container(image="127.0.0.1:9/none:1"),
        states={"main": "waiting ImagePullBackOff"},
        messages={"main": r'Back-off pulling image "127.0.0.1:9/none:1"'},
        events=(
            r'Normal Pulling Pulling image "127.0.0.1:9/none:1"',
            r'Warning Failed Failed to pull image "127.0.0.1:9/none:1"',
            "Warning Failed Error: ErrImagePull",
            'Normal BackOff Back-off pulling image "127.0.0.1:9/none:1"',
            "Warning Failed Error: ImagePullBackOff",
        ),
    ),
    "image-is-never-pulled": failing(
        container(image="podyard.local/absent:1", imagePullPolicy="Never"),
        states={"main": "waiting ErrImageNeverPull"},
        messages={"main": 'Container image "podyard.local/absent:1" is not present with pull policy of Never'},
        events=("Warning ErrImageNeverPull Container image", "Warning Failed Error: ErrImageNeverPull"),
    ),
    "image-name-is-invalid": failing(
        container(image="Not//An:Image:::"),
        states={"main": "waiting InvalidImageName"},
        events=("Warning InspectFailed Failed to apply default image tag",),
    ),
    # --- containers that cannot be made or started
    "config-map-key-is-missing": failing(
        container(env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "none"}}}]),
        states={"main": "waiting CreateContainerConfigError"},
        messages={"main": f"couldn't find key none in ConfigMap {NAMESPACE}/settings"},
        events=("Warning Failed Error: couldn't find key none",),
    ),
    "secret-is-missing": failing(
        container(envFrom=[{"secretRef": {"name": "nowhere"}}]),
        states={"main": "waiting CreateContainerConfigError"},
        messages={"main": 'secret "nowhere" not found'},
    ),
    "optional-secret-is-missing": once(
        "echo ok", fields={"envFrom": [{"secretRef": {"name": "nowhere", "optional": True}}]}
    ),
    "volume-of-a-missing-config-map": failing(
        container(volumeMounts=AT_DATA),
        spec={"volumes": [{"name": "data", "configMap": {"name": "nowhere"}}]},
        states={"main": "waiting ContainerCreating"},
        events=(r'Warning FailedMount MountVolume.SetUp failed for volume "data" : configmap "nowhere" not found',),
    ),
    "command-that-is-not-there": Case(
        (container(command=["/not/there"]),),
        states={"main": "waiting (RunContainerError|CrashLoopBackOff)"},
        last={"main": "terminated StartError 128"},
        messages={"main": "/not/there"},
        events=("Warning Failed Error: .*not/there",),
    ),
    "command-that-is-not-there-and-never-restarted": Case(
        (container(command=["/not/there"]),),
        {"restartPolicy": "Never"},
        phase="Failed",
        states={"main": "terminated StartError 128"},
        messages={"main": "/not/there"},
    ),
    "root-is-refused": failing(
        container(securityContext={"runAsNonRoot": True}),
        states={"main": "waiting CreateContainerConfigError"},
        messages={"main": "container has runAsNonRoot and image will run as root"},
    ),
    "working-directory-is-a-file": Case(
        (container(workingDir="/bin/busybox"),),
        {"restartPolicy": "Never"},
        states={"main": "(waiting|terminated) .*(Error|CannotRun).*"},
    ),
    # --- hooks
    "post-start-has-run": Case(
        (
            container(
                "until [ -e /data/hook ]; do sleep 0.1; done; echo hooked; " + SLEEP,
                volumeMounts=AT_DATA,
                lifecycle={"postStart": {"exec": {"command": ["touch", "/data/hook"]}}},
            ),
        ),
        DATA,
        phase="Running",
        conditions={"Ready": "True"},
        logs={"main": ("hooked",)},
    ),
    "post-start-fails": Case(
        (
            container(
                lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo why; exit 9"]}}}
            ),
        ),
        {"terminationGracePeriodSeconds": 1},
        states={"main": "waiting (PostStartHookError|CrashLoopBackOff)"},
        restarts={"main": 1},
        events=(
            "Warning FailedPostStartHook PostStartHook failed",
            "Normal Killing FailedPostStartHook",
        ),
    ),
    # --- probes
    "liveness-fails": Case(
        (
            container(
                f"{FIRST_TIME} || touch /data/well; {SLEEP}",
                volumeMounts=AT_DATA,
                livenessProbe={
                    **PROBE,
                    "exec": {"command": ["sh", "-c", "test -e /data/well || { echo ill; false; }"]},
                },
            ),
        ),
        {"terminationGracePeriodSeconds": 1, **DATA},
        phase="Running",
        states={"main": "running"},
        restarts={"main": 1},
        events=(
            "Warning Unhealthy Liveness probe failed: ill",
            "Normal Killing Container main failed liveness probe, will be restarted",
        ),
    ),
    "readiness-fails": Case(
        (container(readinessProbe={**PROBE, "exec": {"command": ["false"]}}),),
        phase="Running",
        states={"main": "running"},
        conditions={
            "Ready": "False ContainersNotReady",
            "ContainersReady": "False ContainersNotReady",
            "Initialized": "True",
            "PodScheduled": "True",
            "PodReadyToStartContainers": "True",
        },
        events=("Warning Unhealthy Readiness probe failed",),
    ),
    "readiness-by-http-tcp-and-exec": Case(
        (
            container(
                "mkdir /www; echo ok > /www/ok; httpd -f -p 8080 -h /www",
                readinessProbe={**PROBE, "httpGet": {"port": "web", "path": "/ok"}},
                ports=[{"name": "web", "containerPort": 8080}],
            ),
            container(
                "httpd -f -p 8081", "tcp", readinessProbe={**PROBE, "tcpSocket": {"port": 8081}}
            ),
            container(SLEEP, "exec", readinessProbe=WAIT_READY),
        ),
        {"terminationGracePeriodSeconds": 1},
        phase="Running",
        conditions={"Ready": "True"},
    ),
    "readiness-gate-that-nobody-opens": Case(
        (container(),),
        {"readinessGates": [{"conditionType": "example.org/gate"}]},
        phase="Running",
        conditions={"Ready": "False ReadinessGatesNotReady", "ContainersReady": "True"},
    ),
    "startup-fails": Case(
        (container(startupProbe={**PROBE, "exec": {"command": ["false"]}}),),
        {"terminationGracePeriodSeconds": 1},
        restarts={"main": 1},
        events=(
            "Warning Unhealthy Startup probe failed",
            "Normal Killing Container main failed startup probe, will be restarted",
        ),
    ),
    # --- environment
    "environment": once(
        "",
        fields={
            "command": ["sh", "-c", "env; echo args: $0 $1", "$(A)", "$$(A)"],
            "resources": {"limits": {"cpu": "500m", "memory": "32Mi"}},
            "envFrom": [
                {"configMapRef": {"name": "settings"}, "prefix": "PRE_"},
                {"secretRef": {"name": "hidden"}},
            ],
            "env": [
                {"name": "A", "value": "first"},
                {"name": "B", "value": "$(A)-second-$(LATER)-$$(A)"},
                {"name": "LATER", "value": "x"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
                {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "WORD"}}},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
            ],
        },
        logs={
            "main": (
                "^PRE_colour=red$",
                "^WORD=abracadabra$",
                r"^B=first-second-\$\(LATER\)-\$\(A\)$",
                "^NAME=environment$",
                "^LABEL=outcome$",
                r"^IP=\d+\.\d+\.\d+\.\d+$",
                "^NODE=.",
                "^CPU=500$",
                "^MEMORY=33554432$",
                "^KEY=red$",
                "^PASSWORD=abracadabra$",
                r"^KUBERNETES_SERVICE_HOST=\d",
                "^KUBERNETES_SERVICE_PORT=443$",
                "^HOSTNAME=environment$",
                r"^args: first \$\(A\)$",
                r"\A(?![\s\S]*GONE=)",
            )
        },
    ),
    "names-and-resolver": once(
        "hostname; cat /etc/hosts /etc/resolv.conf",
        spec={
            "hostname": "own",
            "subdomain": "sub",
            "hostAliases": [{"ip": "10.9.9.9", "hostnames": ["alias", "alias.example.org"]}],
            "dnsPolicy": "None",
            "dnsConfig": {
                "nameservers": ["10.8.8.8"],
                "searches": ["example.org"],
                "options": [{"name": "ndots", "value": "2"}],
            },
        },
        logs={
            "main": (
                r"\Aown\n",
                "^# Kubernetes-managed hosts file.$",
                rf"^\d+\.\d+\.\d+\.\d+\town\.sub\.{NAMESPACE}\.svc\.cluster\.local\town$",
                "^10.9.9.9\talias\talias.example.org$",
                "^nameserver 10.8.8.8$",
                "^search example.org$",
                "^options ndots:2$",
            )
        },
    ),
    # --- volumes
    "volumes": once(
        "mount | grep /memory; cat /settings/colour; echo; stat -Lc %a /secret/WORD; cat /downward/labels; echo; "
        "cat /sub; echo; head -1 /all/ca.crt; test -s /all/token && echo has-token; "
        "cat /all/deep/colour; echo; cat /host/hostname | wc -l; "
        "touch /settings/x 2>/dev/null || echo read-only; cat /downward/cpu; echo",
        spec={
            "volumes": [
                {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
                {"name": "settings", "configMap": {"name": "settings"}},
                {"name": "secret", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
                {
                    "name": "downward",
                    "downwardAPI": {
                        "items": [
                            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                            {
                                "path": "cpu",
                                "resourceFieldRef": {
                                    "containerName": "main", "resource": "limits.cpu", "divisor": "1m"
                                },
                            },
                        ]
                    },
                },
                {
                    "name": "all",
                    "projected": {
                        "sources": [
                            {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}},
                            {"configMap": {"name": "kube-root-ca.crt"}},
                            {"configMap": {"name": "settings", "items": [{"key": "colour", "path": "deep/colour"}]}},
                        ]
                    },
                },
                {"name": "host", "hostPath": {"path": "/etc", "type": "Directory"}},
            ]
        },
        fields={
            "resources": {"limits": {"cpu": "250m"}},
            "volumeMounts": [
                *mounts(memory="/memory", settings="/settings", secret="/secret", downward="/downward"),
                *mounts(all="/all", host="/host"),
                {"name": "settings", "mountPath": "/sub", "subPath": "colour"},
            ],
        },
        logs={
            "main": (
                "^tmpfs on /memory type tmpfs .*8192k",
                "^red$",
                "^400$",
                '^app="outcome"$',
                "^-----BEGIN CERTIFICATE-----$",
                "^has-token$",
                "^1$",
                "^read-only$",
                "^250$",
            )
        },
    ),
    "host-path-of-the-wrong-type": failing(
        container(volumeMounts=AT_DATA),
        spec={"volumes": [{"name": "data", "hostPath": {"path": "/etc/hostname", "type": "Directory"}}]},
        states={"main": "waiting ContainerCreating"},
        events=('Warning FailedMount MountVolume.SetUp failed for volume "data" : hostPath type check failed',),
    ),
    # --- termination messages
    "termination-message": once(
        "echo -n last words > /dev/termination-log; exit 1",
        phase="Failed",
        messages={"main": "^last words"},
    ),
    "termination-message-from-the-log": once(
        "echo it was the log; exit 1",
        phase="Failed",
        fields={"terminationMessagePolicy": "FallbackToLogsOnError"},
        messages={"main": "it was the log"},
    ),
    # --- security
    "users-and-groups": once(
        "id; stat -c 'data %g %a' /data; touch /data/mine; stat -c 'mine %u %g' /data/mine",
        spec={
            "securityContext": {
                "runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456, "supplementalGroups": [4567]
            },
            **DATA,
        },
        fields={"volumeMounts": AT_DATA},
        logs={
            "main": (
                r"uid=1234.* gid=2345.*groups=(?=.*3456)(?=.*4567)",
                r"^data 3456 2777$",
                r"^mine 1234 3456$",
            )
        },
    ),
    "confined": once(
        "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x 2>/dev/null || echo read-only; "
        "chown 1 /data 2>/dev/null || echo no-chown",
        spec=DATA,
        fields={
            "volumeMounts": AT_DATA,
            "securityContext": {
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                "readOnlyRootFilesystem": True,
                "allowPrivilegeEscalation": False,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        },
        logs={
            "main": (
                r"^CapEff:\t0000000000000400$",
                r"^NoNewPrivs:\t1$",
                r"^Seccomp:\t2$",
                "^read-only$",
                "^no-chown$",
            )
        },
    ),
    "privileged": once(
        "mkdir /mnt; mount -t tmpfs none /mnt && echo mounted",
        fields={"securityContext": {"privileged": True}},
        logs={"main": ("^mounted$",)},
    ),
    "sysctl": once(
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        spec={
            "securityContext": {
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "99"}]
            }
        },
        logs={"main": ("^99$",)},
    ),
    "own-namespaces": once(
        "echo pid $$$$; ls /sys/class/net | tr '\\n' ' '; ls /proc | grep -cE '^[0-9]+$'",
        logs={"main": ("^pid 1$", "eth0 lo|lo eth0")},
    ),
    "shared-processes": Case(
        (container(f"cat /proc/1/comm; {SLEEP}"), container(SLEEP, "other")),
        {"shareProcessNamespace": True, "terminationGracePeriodSeconds": 1},
        phase="Running",
        logs={"main": ("^catatonit$",)},
    ),
    "limits-are-seen-inside": once(
        "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; "
        "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us "
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us; true",
        fields={"resources": {"limits": {"memory": "24Mi", "cpu": "200m"}}},
        logs={"main": ("^25165824$", "^20000")},
    ),
    # --- refused by the node or not placed
    "too-much-is-asked": Case(
        (container(resources={"requests": {"cpu": "9999"}}),),
        phase="Pending",
        conditions={"PodScheduled": "False Unschedulable"},
        events=(r"Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pods(api):
    """All Pods of the table, created one after the other without waiting."""
    api.create(namespace(NAMESPACE))
    api.create(
        config_map("settings", NAMESPACE, colour="red"),
        secret("hidden", NAMESPACE, WORD="abracadabra"),
    )
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    until(lambda: api.ask("GET", path).status == 200)
    for name, case in CASES.items():
        api.create(
            pod(
                name,
                *case.containers,
                namespace=NAMESPACE,
                labels={"app": "outcome"},
                **case.spec,
            )
        )
    yield
    api.delete(f"/api/v1/namespaces/{NAMESPACE}")


@pytest.mark.parametrize("name", CASES)
def test_a_pod_becomes_what_its_spec_says(api, pods, name):
    case = CASES[name]
    lacking: list[str] = []

    def is_so() -> bool:
        lacking[:] = case.lacks(api, name)
        return not lacking

    try:
        until(is_so, within_s=90)
    except TimeoutError:
        story = api.explain(api.pod(name, NAMESPACE))
        raise AssertionError(f"lacks {lacking}\n{story}") from None
    if case.phase in {"Succeeded", "Failed"}:
        api.delete(pod_path(name, NAMESPACE))
