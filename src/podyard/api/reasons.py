"""Why things are as they are: every reason Podyard gives, what it means, what to do.

The page ``docs/reference/reasons.md`` is made of this table, and so is what
``podyard explain reason`` prints. A test compares it with what the code says.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from podyard.lib.values import dataclass


class Place(StrEnum):
    """Where a reason is seen."""

    WAITING = "container, waiting"
    TERMINATED = "container, terminated"
    POD = "status.reason of a Pod"
    CONDITION = "condition of a Pod"
    EVENT = "event of a Pod"
    NODE = "event of a Node"
    NODE_CONDITION = "condition of a Node"
    OTHER = "event"
    OTHER_CONDITION = "condition"


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason.

    Attributes:
        name: as it is spelled everywhere; ``*`` stands for the name of a resource.
        places: where it is seen.
        means: what it means.
        advice: what to do about it; empty where nothing is to be done.
        is_the_runtimes: the container runtime says it, and it is passed on.
    """

    name: str
    places: tuple[Place, ...]
    means: str
    advice: str = ""
    is_the_runtimes: bool = False


_LOOK_AT_PULLS: Final = "`podyard explain pull POD` tells every step of the pull."
_ADMISSION: Final = (Place.POD, Place.EVENT)

CONTAINERS: Final = (
    Reason(
        "ContainerCreating",
        (Place.WAITING,),
        "The sandbox, volumes or image of the Pod are being made ready.",
        "If it stays so, the Pod's events say what is missing.",
    ),
    Reason(
        "PodInitializing",
        (Place.WAITING,),
        "Init containers have not finished yet, or the Pod with some is being made.",
        "If it stays so, look at the log of the init container.",
    ),
    Reason(
        "CrashLoopBackOff",
        (Place.WAITING,),
        "The container keeps ending and waits before it is started again: 10 s, then "
        "twice as long each time, up to `maxContainerRestartPeriod`.",
        "Look at `kubectl logs --previous` and at `lastState`; ten good minutes set "
        "the wait back.",
    ),
    Reason(
        "ErrImagePull",
        (Place.WAITING,),
        "Pulling the image failed just now.",
        _LOOK_AT_PULLS,
    ),
    Reason(
        "ImagePullBackOff",
        (Place.WAITING,),
        "Pulling the image failed and waits before the next try; new credentials end "
        "the wait at once.",
        _LOOK_AT_PULLS,
    ),
    Reason(
        "ErrImageNeverPull",
        (Place.WAITING, Place.EVENT),
        "The image is not on the node and `imagePullPolicy` is `Never`, or the Pod may "
        "not use the one that is.",
        "Load it (`podyard image load`), or let it be pulled.",
    ),
    Reason(
        "ImageInspectError",
        (Place.WAITING,),
        "The runtime could not say whether the image is there.",
        "Look at the runtime (`podyard status`).",
    ),
    Reason(
        "InvalidImageName",
        (Place.WAITING,),
        "The name of the image is none.",
        "Correct `image`; it is not tried again before that.",
    ),
    Reason(
        "RegistryUnavailable",
        (Place.WAITING,),
        "The registry cannot be reached.",
        "`podyard registry test IMAGE` goes the way step by step.",
    ),
    Reason(
        "SignatureValidationFailed",
        (Place.WAITING,),
        "The runtime refused the signature of the image.",
        "Look at the runtime's signature policy.",
    ),
    Reason(
        "CreateContainerConfigError",
        (Place.WAITING,),
        "Something the container refers to is missing or may not be used: a ConfigMap "
        "or Secret key, a user, a path, a handler that is gone.",
        "The message names it; the container starts when it is there.",
    ),
    Reason(
        "CreateContainerError",
        (Place.WAITING,),
        "The runtime refused to make the container.",
        "The message is the runtime's own.",
    ),
    Reason(
        "RunContainerError",
        (Place.WAITING,),
        "The container was made but did not start, often because its command does not "
        "exist.",
        "Look at `lastState`, which holds the runtime's words.",
    ),
    Reason(
        "PostStartHookError",
        (Place.WAITING,),
        "The `postStart` hook failed, so the container was ended.",
        "`podyard hooks POD --logs` shows the delivery and what it said.",
    ),
    Reason(
        "RestartingAllContainers",
        (Place.WAITING, Place.TERMINATED),
        "A container ended in a way whose restart rule starts the whole Pod anew.",
    ),
    Reason(
        "Completed",
        (Place.TERMINATED,),
        "The container ended with exit code 0.",
    ),
    Reason(
        "Error",
        (Place.TERMINATED,),
        "The container ended with another exit code; 137 is SIGKILL, 143 SIGTERM.",
        "Look at its log, and at `podyard explain stop POD` where it was stopped.",
        is_the_runtimes=True,
    ),
    Reason(
        "Unknown",
        (Place.TERMINATED,),
        "The runtime lost the container's exit code, when it was restarted for "
        "example; 255 stands for it.",
        is_the_runtimes=True,
    ),
    Reason(
        "OOMKilled",
        (Place.TERMINATED,),
        "A process of the container was ended because the container was out of memory.",
        "Raise `resources.limits.memory`, or find what takes it.",
    ),
    Reason(
        "StartError",
        (Place.TERMINATED,),
        "The runtime could not start the container's process.",
        "The message is the runtime's own.",
    ),
    Reason(
        "ContainerCannotRun",
        (Place.TERMINATED,),
        "An older runtime's word for a process that could not be started.",
    ),
    Reason(
        "ContainerStatusUnknown",
        (Place.TERMINATED,),
        "The container was running and is not there any more; nobody knows how it "
        "ended.",
        "Somebody may have removed it behind Podyard's back.",
    ),
)

PODS: Final = (
    Reason(
        "Evicted",
        _ADMISSION,
        "The node was short of memory, disk or processes, or the Pod passed a limit of "
        "local storage.",
        "The message says of what; set requests near what the Pod needs.",
    ),
    Reason(
        "DeadlineExceeded",
        _ADMISSION,
        "The Pod ran for longer than `activeDeadlineSeconds`.",
    ),
    Reason(
        "Terminated",
        (Place.POD,),
        "The Pod was ended in order before the machine shut down.",
        "It stays so; make another, or call `podyard down` before a shutdown.",
    ),
    Reason(
        "NodeShutdown",
        _ADMISSION,
        "The Pod came to the node while its machine was about to shut down.",
        "Make it again once the node is Ready.",
    ),
    Reason(
        "Preempting",
        _ADMISSION,
        "The Pod was ended to make room for a critical one on the node.",
    ),
    Reason(
        "OutOf*",
        _ADMISSION,
        "The node has too little of a resource (`OutOfcpu`, `OutOfpods` …) for a Pod "
        "that was put on it past the scheduler.",
        "Leave the choice of the node to the scheduler.",
    ),
    Reason(
        "NodeAffinity",
        _ADMISSION,
        "The Pod is bound to a node that its selector or affinity rules out.",
    ),
    Reason(
        "NodeName",
        _ADMISSION,
        "The Pod is bound to another node.",
    ),
    Reason(
        "NodePorts",
        _ADMISSION,
        "A host port that the Pod wants is taken on the node.",
    ),
    Reason(
        "TaintToleration",
        _ADMISSION,
        "A static Pod does not tolerate a NoExecute taint of its node.",
    ),
    Reason(
        "AppArmor",
        _ADMISSION,
        "The Pod wants an AppArmor profile that the node does not have.",
    ),
    Reason(
        "SysctlForbidden",
        _ADMISSION,
        "The Pod sets a sysctl that is not known to be safe.",
    ),
    Reason(
        "PodOSNotSupported",
        _ADMISSION,
        "`spec.os` is not linux.",
    ),
    Reason(
        "PodOSSelectorNodeLabelDoesNotMatch",
        _ADMISSION,
        "The Pod selects nodes of another operating system.",
    ),
    Reason(
        "SupplementalGroupsPolicyNotSupported",
        _ADMISSION,
        "The runtime does not know `supplementalGroupsPolicy: Strict`.",
    ),
    Reason(
        "UnexpectedAdmissionError",
        _ADMISSION,
        "What the Pod asks for cannot be understood, an amount for example.",
    ),
    Reason(
        "FailedCreatePodSandBox",
        (Place.POD, Place.EVENT),
        "The sandbox could not be made. As reason of a Pod: its RuntimeClass or "
        "handler is not there, and the Pod has failed for that.",
        "The event has the runtime's words, or lists the handlers there are; "
        "`podyard runtime ls`.",
    ),
    Reason(
        "Unschedulable",
        (Place.CONDITION,),
        "No node takes the Pod.",
        "`podyard explain schedule POD` says what each node lacks.",
    ),
    Reason(
        "SchedulingGated",
        (Place.CONDITION,),
        "`schedulingGates` hold the Pod back.",
        "Whoever set the gates takes them away.",
    ),
    Reason(
        "ContainersNotInitialized",
        (Place.CONDITION,),
        "Init containers have not finished, or sidecars have not started.",
    ),
    Reason(
        "ContainersNotReady",
        (Place.CONDITION,),
        "Containers do not run, or their readiness probe fails; the message names "
        "them.",
    ),
    Reason(
        "ReadinessGatesNotReady",
        (Place.CONDITION,),
        "A condition that `readinessGates` names is not True.",
    ),
    Reason(
        "UnknownContainerStatuses",
        (Place.CONDITION,),
        "Nobody knows yet how the containers are.",
    ),
    Reason("PodCompleted", (Place.CONDITION,), "The Pod has ended well."),
    Reason("PodFailed", (Place.CONDITION,), "The Pod has failed."),
    Reason(
        "RestartAllContainersStarted",
        (Place.CONDITION,),
        "All containers of the Pod are being started anew.",
    ),
    Reason(
        "TerminationByKubelet",
        (Place.CONDITION,),
        "The node ended the Pod: it was short of something, makes room, or goes away.",
    ),
    Reason(
        "PreemptionByScheduler",
        (Place.CONDITION,),
        "The scheduler ends the Pod for a more important one.",
    ),
    Reason(
        "EvictionByEvictionAPI",
        (Place.CONDITION,),
        "Somebody asked for the eviction of the Pod, `kubectl drain` for example.",
    ),
    Reason(
        "DeletionByTaintManager",
        (Place.CONDITION,),
        "The Pod does not tolerate a NoExecute taint of its node.",
    ),
    Reason(
        "DeletionByPodGC",
        (Place.CONDITION,),
        "The Pod's node is gone, or nobody ever ran it and it is to go.",
    ),
)

EVENTS: Final = (
    Reason("Scheduled", (Place.EVENT,), "The scheduler has found a node."),
    Reason(
        "FailedScheduling",
        (Place.EVENT,),
        "No node takes the Pod; it is tried again when something changes.",
        "`podyard explain schedule POD` says what each node lacks.",
    ),
    Reason(
        "Preempted",
        (Place.EVENT,),
        "The Pod is ended for a more important one.",
    ),
    Reason(
        "TaintManagerEviction",
        (Place.EVENT,),
        "The Pod's node has a NoExecute taint that it does not tolerate, or no longer.",
    ),
    Reason(
        "NodeNotReady",
        (Place.EVENT, Place.NODE),
        "The node has stopped telling that it is well; Pods on it count as not ready.",
        "Look at `podyard status` and the node's conditions.",
    ),
    Reason("Pulling", (Place.EVENT,), "The image is being pulled."),
    Reason("Pulled", (Place.EVENT,), "The image was pulled, or is there already."),
    Reason(
        "Failed",
        (Place.EVENT,),
        "An image was not pulled, or a container not made or started; the message has "
        "the reason of the container.",
    ),
    Reason(
        "BackOff",
        (Place.EVENT,),
        "A pull or a container that failed waits before the next try.",
    ),
    Reason(
        "InspectFailed",
        (Place.EVENT,),
        "The name of the image is none, or the runtime could not look it up.",
    ),
    Reason(
        "FailedToRetrieveImagePullSecret",
        (Place.EVENT,),
        "A Secret that `imagePullSecrets` names is not there; the pull goes on "
        "without.",
        "Make the Secret in the Pod's namespace.",
    ),
    Reason(
        "CredentialProviderFailed",
        (Place.EVENT,),
        "A credential provider plugin failed; the pull goes on without it.",
        "Look at the plugin; `podyard registry test IMAGE` runs it.",
    ),
    Reason(
        "CredentialHelperFailed",
        (Place.EVENT,),
        "A credential helper of the node's `config.json` failed.",
        "Look at the helper; `podyard registry test IMAGE` runs it.",
    ),
    Reason("Created", (Place.EVENT,), "The container was made."),
    Reason("Started", (Place.EVENT,), "The container was started."),
    Reason(
        "Killing",
        (Place.EVENT,),
        "The container is being ended; the message says why.",
        "`podyard explain stop POD` shows how the grace period was used.",
    ),
    Reason(
        "SandboxChanged",
        (Place.EVENT,),
        "The Pod's sandbox is gone or has changed; it is made anew, with its "
        "containers.",
    ),
    Reason(
        "FailedCreatePodContainer",
        (Place.EVENT,),
        "The Pod's cgroup could not be made.",
        "`podyard doctor` looks at the host's cgroups.",
    ),
    Reason(
        "FailedKillPod",
        (Place.EVENT,),
        "The Pod's containers or sandbox could not be ended; it is tried again.",
    ),
    Reason(
        "FailedMount",
        (Place.EVENT,),
        "A volume could not be made ready; it is tried again.",
        "The message names the volume and what is missing.",
    ),
    Reason(
        "FailedUnMount",
        (Place.EVENT,),
        "A volume could not be taken down; it is tried again.",
    ),
    Reason(
        "NetworkNotReady",
        (Place.EVENT,),
        "The runtime has no Pod network yet.",
        "`podyard status`; another runtime brings its own CNI settings.",
    ),
    Reason(
        "MissingClusterDNS",
        (Place.EVENT,),
        "The Pod wants cluster DNS and there is none; it gets the host's resolvers.",
    ),
    Reason(
        "DNSConfigForming",
        (Place.EVENT,),
        "More name servers or search domains than a resolver takes; some are left out.",
    ),
    Reason(
        "FailedPostStartHook",
        (Place.EVENT,),
        "The `postStart` hook failed.",
        "`podyard hooks POD --logs`",
    ),
    Reason(
        "FailedPreStopHook",
        (Place.EVENT,),
        "The `preStop` hook failed; the container is stopped all the same.",
        "`podyard hooks POD --logs`",
    ),
    Reason(
        "PreStopHookUsedGracePeriod",
        (Place.EVENT,),
        "The `preStop` hook left nothing of the grace period.",
        "Raise `terminationGracePeriodSeconds`, or shorten the hook.",
    ),
    Reason(
        "LifecycleHTTPFallback",
        (Place.EVENT,),
        "An HTTPS hook got an answer in plain HTTP and was made again that way.",
        "Set `scheme: HTTP`.",
    ),
    Reason(
        "Unhealthy",
        (Place.EVENT,),
        "A probe failed; the message says which one and what it saw.",
    ),
    Reason(
        "ProbeWarning",
        (Place.EVENT,),
        "A probe succeeded with a remark, a redirect to another host for example.",
    ),
    Reason(
        "FailedValidation",
        (Place.EVENT,),
        "Two Pods on the node have one name; the newer is left out.",
    ),
)

NODES: Final = (
    Reason("Starting", (Place.NODE,), "The node agent starts."),
    Reason("Rebooted", (Place.NODE,), "The host was started anew."),
    Reason("NodeReady", (Place.NODE,), "The node is ready."),
    Reason(
        "NodeHas*",
        (Place.NODE,),
        "A pressure condition of the node has changed (`NodeHasDiskPressure`, "
        "`NodeHasSufficientMemory` …).",
    ),
    Reason("KubeletReady", (Place.NODE_CONDITION,), "The node is well and takes Pods."),
    Reason(
        "KubeletNotReady",
        (Place.NODE_CONDITION,),
        "The node cannot run Pods now; the message says why.",
        "Look at the runtime and its network (`podyard status`).",
    ),
    Reason(
        "KubeletHas*",
        (Place.NODE_CONDITION,),
        "Whether the node is short of memory, disk or processes.",
        "Free some, or change `evictionHard`.",
    ),
    Reason(
        "NodeStatusUnknown",
        (Place.NODE_CONDITION,),
        "The node has stopped telling how it is.",
    ),
    Reason(
        "NodeStatusNeverUpdated",
        (Place.NODE_CONDITION,),
        "The node has never told how it is.",
    ),
    Reason(
        "Shutdown",
        (Place.NODE,),
        "The machine is about to shut down, or is not after all.",
    ),
    Reason(
        "EvictionThresholdMet",
        (Place.NODE,),
        "The node is short of something and gets it back: unused images and containers "
        "go first, then Pods.",
    ),
    Reason(
        "FreeDiskSpaceFailed",
        (Place.NODE,),
        "Removing unused images has not freed enough.",
    ),
    Reason("ImageGCFailed", (Place.NODE,), "Removing unused images failed."),
    Reason(
        "InvalidDiskCapacity",
        (Place.NODE,),
        "The runtime tells nothing of the disk its images are on.",
    ),
)

OTHERS: Final = (
    Reason(
        "OwnerRefInvalidNamespace",
        (Place.OTHER,),
        "An owner reference names an object of another namespace; it counts as gone.",
    ),
    Reason(
        "FailedBinding",
        (Place.OTHER,),
        "No volume fits the claim, and it names no class that would make one.",
    ),
    Reason(
        "WaitForFirstConsumer",
        (Place.OTHER,),
        "The claim is bound once a Pod that uses it has a node.",
    ),
    Reason(
        "WaitForPodScheduled",
        (Place.OTHER,),
        "A Pod uses the claim, but has no node yet.",
    ),
    Reason(
        "ExternalProvisioning",
        (Place.OTHER,),
        "The volume is made by somebody else, who is waited for.",
    ),
    Reason("ProvisioningSucceeded", (Place.OTHER,), "The volume was made."),
    Reason("ProvisioningFailed", (Place.OTHER,), "The volume could not be made."),
    Reason(
        "ClaimLost",
        (Place.OTHER,),
        "The volume of the claim is gone; its data are lost.",
    ),
    Reason(
        "ClaimMisbound",
        (Place.OTHER,),
        "Claim and volume name each other wrongly.",
    ),
    Reason(
        "VolumeFailedDelete",
        (Place.OTHER,),
        "The data of a volume could not be removed; it is tried again.",
    ),
    Reason("NoPods", (Place.OTHER,), "A disruption budget selects no Pod."),
    Reason(
        "NotDeleted",
        (Place.OTHER,),
        "A Pod that may go by its budget has not gone within two minutes.",
    ),
    Reason(
        "CalculateExpectedPodCountFailed",
        (Place.OTHER,),
        "The owners of a budget's Pods do not say how many there should be.",
        "Use whole numbers in budgets of Pods without a scalable owner.",
    ),
    Reason(
        "UnmanagedPods",
        (Place.OTHER,),
        "A budget selects Pods that nobody would make again.",
    ),
    Reason(
        "SufficientPods",
        (Place.OTHER_CONDITION,),
        "The disruption budget lets a Pod go.",
    ),
    Reason(
        "InsufficientPods",
        (Place.OTHER_CONDITION,),
        "The disruption budget lets no Pod go.",
    ),
    Reason(
        "SyncFailed",
        (Place.OTHER_CONDITION,),
        "The disruption budget could not be worked out.",
    ),
    Reason(
        "SomeResourcesRemain",
        (Place.OTHER_CONDITION,),
        "The namespace that is to go still holds objects; the message counts them.",
    ),
    Reason(
        "SomeFinalizersRemain",
        (Place.OTHER_CONDITION,),
        "Objects of the namespace that is to go have finalizers.",
        "Whoever set the finalizers has to take them away.",
    ),
    Reason(
        "ContentDeletionFailed",
        (Place.OTHER_CONDITION,),
        "Objects of the namespace that is to go could not be deleted; it is tried "
        "again.",
    ),
)

#: Headings and their reasons.
SECTIONS: Final = (
    ("Containers", CONTAINERS),
    ("Pods", PODS),
    ("Events of Pods", EVENTS),
    ("Nodes", NODES),
    ("Namespaces, claims and budgets", OTHERS),
)


def all_reasons() -> Iterator[Reason]:
    """Iterate over every reason."""
    for _, reasons in SECTIONS:
        yield from reasons


def find_reasons(name: str) -> tuple[Reason, ...]:
    """Return what is known of a reason, whatever its case; none where it is unknown."""
    wanted = name.lower()
    return tuple(
        reason
        for reason in all_reasons()
        if reason.name.lower() == wanted
        or (
            reason.name.endswith("*")
            and wanted.startswith(reason.name[:-1].lower())
            and wanted != reason.name[:-1].lower()
        )
    )


def near_reasons(name: str) -> tuple[str, ...]:
    """Return the names that are most like one that is unknown."""
    lower = {reason.name.lower(): reason.name for reason in all_reasons()}
    return tuple(lower[one] for one in get_close_matches(name.lower(), lower))
