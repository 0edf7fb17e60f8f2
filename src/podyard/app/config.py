"""Flags, environment and YAML file → one frozen config.

Precedence: flag, then ``PODYARD_*``, then the file, then the default. File keys
equal the flags; settings of the kubelet keep their KubeletConfiguration names
(kubelet.config.k8s.io/v1beta1) and stand beside them.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from podyard.api.feature_gates import FeatureGateError, FeatureGates
from podyard.app.handlers import parse_handlers
from podyard.containerd.build import RuntimeHandlerConfig
from podyard.lib.durations import parse_duration
from podyard.lib.values import dataclass
from podyard.lib.yaml_json import YamlError, load_yaml
from podyard.node.eviction.decide import (
    DEFAULT_HARD,
    Threshold,
    parse_thresholds,
)
from podyard.node.images.access.decide import VERIFICATION_POLICIES, parse_allowlist
from podyard.node.shutdown.decide import ShutdownPeriod, build_periods
from podyard.registry.hosts import Registry, parse_registries

#: How long all Pods together may take to stop where nothing is said, seconds.
STOP_GRACE_S: Final = 10.0


class ConfigError(Exception):
    """A setting that cannot be used; the message names where it stands."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a person may choose. Spans end in ``_s``, seconds.

    Attributes:
        name: the instance; several run side by side.
        data_dir: objects, certificates, logs, volumes and images.
        root_dir: where node credentials (``config.json``) are looked for.
        runtime_endpoint: a CRI socket; empty for the private containerd.
        runtime_cni_bin_dir: where the CNI plugins are.
        listen: further addresses the API server listens on.
        port: the API server's port; 0 for any free one, None for the usual one.
        node_port: likewise for the node's own endpoints.
        node_name: name of the Node object; empty for the host's name.
        built_in_dns: whether to answer names of Services and Pods.
        ip_families: ``IPv4``, and ``IPv6`` where Pods are to have both.
        pod_cidrs: the addresses of Pods, one range a family; empty for free ones.
        service_cidrs: likewise, the ClusterIPs.
        semantics: ``documented`` or ``upstream``.
        static_pod_path: a directory of manifests; empty for none.
    """

    name: str = "default"
    data_dir: Path = Path()
    root_dir: Path = Path("/var/lib/kubelet")
    runtime_endpoint: str = ""
    runtime_cni_bin_dir: str = ""
    listen: tuple[str, ...] = ()
    port: int | None = None
    node_port: int | None = None
    node_name: str = ""
    ip_families: tuple[str, ...] = ("IPv4",)
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    semantics: str = "documented"
    enable_admission_plugins: tuple[str, ...] = ()
    feature_gates: Mapping[str, bool] | None = None
    log_level: str = "info"
    runtimes: tuple[RuntimeHandlerConfig, ...] = ()
    registries: tuple[Registry, ...] = ()
    built_in_dns: bool = True
    # KubeletConfiguration
    static_pod_path: str = ""
    max_pods: int = 110
    pod_pids_limit: int = -1
    cgroup_driver: str = ""
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    resolv_conf: str = "/etc/resolv.conf"
    serialize_image_pulls: bool = False
    max_parallel_image_pulls: int = 5
    registry_pull_qps: float = 5.0
    registry_burst: int = 10
    image_pull_progress_timeout_s: float = 300.0
    credential_provider_config: str = ""
    credential_provider_dir: str = ""
    pull_verification_policy: str = "NeverVerifyPreloadedImages"
    pull_verification_allowlist: tuple[str, ...] = ()
    image_gc_high_threshold_percent: int = 85
    image_gc_low_threshold_percent: int = 80
    image_minimum_gc_age_s: float = 120.0
    image_maximum_gc_age_s: float = 0.0
    container_log_max_size: str = "10Mi"
    container_log_max_files: int = 5
    seccomp_default: bool = False
    max_container_restart_period_s: float = 300.0
    eviction_hard: Mapping[str, str] | None = None
    eviction_soft: Mapping[str, str] | None = None
    eviction_soft_grace_s: Mapping[str, float] | None = None
    eviction_minimum_reclaim: Mapping[str, str] | None = None
    eviction_max_pod_grace_s: int = 0
    eviction_pressure_transition_s: float = 300.0
    shutdown_grace_s: float = 0.0
    shutdown_grace_critical_s: float = 0.0
    shutdown_grace_by_priority: tuple[ShutdownPeriod, ...] = ()


Parse = Callable[[object], object]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _path(value: object) -> Path:
    text = _text(value)
    if not text:
        raise ValueError("must not be empty")
    return Path(text).expanduser().absolute()


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a whole number")
    try:
        return int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _port(value: object) -> int:
    number = _integer(value)
    if not 0 <= number <= 65535:
        raise ValueError("must be a port between 0 and 65535")
    return number


def _between(low: int, high: int) -> Parse:
    def parse(value: object) -> int:
        number = _integer(value)
        if not low <= number <= high:
            raise ValueError(f"must be between {low} and {high}")
        return number

    return parse


def _boolean(value: object) -> bool:
    match value:
        case bool():
            return value
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
        case _:
            raise ValueError("must be true or false")


def _span(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return parse_duration(_text(value))


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part for part in value.split(",") if part)
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return tuple(value)
    raise ValueError("must be a list of strings")


def _families(value: object) -> tuple[str, ...]:
    families = _texts(value)
    if families not in {("IPv4",), ("IPv4", "IPv6")}:
        raise ValueError("must be IPv4 or IPv4,IPv6")
    return families


def _ranges(longest: Mapping[int, int]) -> Parse:
    """Read ``IPV4`` or ``IPV4,IPV6``; prefixes may have so many bits, by family."""

    def parse(value: object) -> tuple[str, ...]:
        ranges = [ipaddress.ip_network(text) for text in _texts(value)]
        if [network.version for network in ranges] not in ([4], [4, 6]):
            raise ValueError("must be an IPv4 range, or one and an IPv6 range")
        for network in ranges:
            most = longest[network.version]
            if network.prefixlen > most:
                raise ValueError(f"{network} must have a prefix of at most {most} bits")
        return tuple(map(str, ranges))

    return parse


def _choice(*names: str) -> Parse:
    def parse(value: object) -> str:
        if value not in names:
            raise ValueError(f"must be one of: {', '.join(names)}")
        return str(value)

    return parse


def _gates(value: object) -> Mapping[str, bool]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part]
        value = {name: _boolean(on) for name, _, on in pairs}
    if not isinstance(value, dict):
        raise ValueError("must be a map of gate names to true or false")
    return {str(name): _boolean(on) for name, on in value.items()}


def _maps(value: object) -> tuple[Mapping[str, object], ...]:
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise ValueError("must be a list of maps")
    return tuple(value)


def _runtimes(value: object) -> tuple[RuntimeHandlerConfig, ...]:
    return parse_handlers(_maps(value))


def _registries(value: object) -> tuple[Registry, ...]:
    return parse_registries(_maps(value))


def _allowlist(value: object) -> tuple[str, ...]:
    return parse_allowlist(_texts(value))


def _amounts(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError("must be a map of signals to amounts")
    return {str(signal): str(amount) for signal, amount in value.items()}


def _spans(value: object) -> Mapping[str, float]:
    if not isinstance(value, dict):
        raise ValueError("must be a map of signals to spans")
    return {str(signal): _span(span) for signal, span in value.items()}


def _periods(value: object) -> tuple[ShutdownPeriod, ...]:
    keys = {"priority", "shutdownGracePeriodSeconds"}
    if not isinstance(value, list):
        raise ValueError("must be a list of priorities with their grace periods")
    found = []
    for item in value:
        if not isinstance(item, dict) or set(item) != keys:
            raise ValueError(f"each takes {' and '.join(sorted(keys))}")
        grace_s = _span(item["shutdownGracePeriodSeconds"])
        found.append(ShutdownPeriod(_integer(item["priority"]), grace_s))
    return tuple(found)


def _nested_restart_period(value: object) -> float:
    if not isinstance(value, dict) or set(value) - {"maxContainerRestartPeriod"}:
        raise ValueError("takes maxContainerRestartPeriod only")
    period_s = _span(value.get("maxContainerRestartPeriod", 300))
    if not 1 <= period_s <= 300:
        raise ValueError("maxContainerRestartPeriod must be between 1s and 300s")
    return period_s


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its key in the file (and flag), its field, how it is read."""

    key: str
    field: str
    parse: Parse
    help: str
    flag: bool = True
    metavar: str = "VALUE"


SETTINGS: Final = (
    Setting("name", "name", _text, "which instance on this machine", metavar="NAME"),
    Setting(
        "data-dir", "data_dir", _path, "objects, logs, volumes, images", metavar="DIR"
    ),
    Setting(
        "root-dir",
        "root_dir",
        _path,
        "where node credentials (config.json) are looked for",
        metavar="DIR",
    ),
    Setting(
        "runtime-endpoint",
        "runtime_endpoint",
        _text,
        "a CRI socket (unix:///…) instead of the private containerd",
        metavar="URL",
    ),
    Setting(
        "cni-bin-dir",
        "runtime_cni_bin_dir",
        _text,
        "where the CNI plugins are (default: found)",
        metavar="DIR",
    ),
    Setting(
        "listen",
        "listen",
        _texts,
        "further addresses to listen on, besides loopback and the Pod bridge",
        metavar="ADDRESS",
    ),
    Setting(
        "port",
        "port",
        _port,
        "port of the API server; 0 for any free one (default: 6443 or a free one)",
        metavar="PORT",
    ),
    Setting(
        "node-port",
        "node_port",
        _port,
        "port of the node's own endpoints; 0 for any free one",
        metavar="PORT",
    ),
    Setting(
        "node-name",
        "node_name",
        _text,
        "name of the Node (default: the host's name)",
        metavar="NAME",
    ),
    Setting(
        "ip-families",
        "ip_families",
        _families,
        "addresses of Pods and Services: IPv4 (default) or IPv4,IPv6",
        metavar="FAMILIES",
    ),
    Setting(
        "pod-cidr",
        "pod_cidrs",
        _ranges({4: 29, 6: 124}),
        "addresses of Pods, as RANGE or IPV4_RANGE,IPV6_RANGE (default: free ones)",
        metavar="RANGES",
    ),
    Setting(
        "service-cidr",
        "service_cidrs",
        _ranges({4: 27, 6: 123}),
        "addresses of Services, likewise",
        metavar="RANGES",
    ),
    Setting(
        "semantics",
        "semantics",
        _choice("documented", "upstream"),
        "where the documentation and the kubelet disagree: documented or upstream",
    ),
    Setting(
        "enable-admission-plugins",
        "enable_admission_plugins",
        _texts,
        "admission plugins to switch on",
        metavar="NAMES",
    ),
    Setting(
        "feature-gates",
        "feature_gates",
        _gates,
        "gates as in Kubernetes v1.36, Name=true,…",
        metavar="GATES",
    ),
    Setting(
        "built-in-dns",
        "built_in_dns",
        _boolean,
        "answer names of Services and Pods: true (default) or false",
    ),
    Setting(
        "log-level",
        "log_level",
        _choice("debug", "info", "warning", "error"),
        "how much to log",
    ),
    Setting(
        "runtimes",
        "runtimes",
        _runtimes,
        "runtime handlers of the private containerd",
        flag=False,
    ),
    Setting(
        "registries",
        "registries",
        _registries,
        "mirrors, plain HTTP and private authorities of registries",
        flag=False,
    ),
    Setting(
        "staticPodPath",
        "static_pod_path",
        _text,
        "directory of static Pod manifests",
        flag=False,
    ),
    Setting("maxPods", "max_pods", _between(1, 5000), "Pods on this node", flag=False),
    Setting(
        "podPidsLimit",
        "pod_pids_limit",
        _integer,
        "processes in a Pod; -1 for no limit",
        flag=False,
    ),
    Setting(
        "cgroupDriver",
        "cgroup_driver",
        _choice("cgroupfs", "systemd"),
        "default: what the host needs",
        flag=False,
    ),
    Setting(
        "clusterDomain",
        "cluster_domain",
        _text,
        "DNS domain of the cluster",
        flag=False,
    ),
    Setting("clusterDNS", "cluster_dns", _texts, "DNS servers for Pods", flag=False),
    Setting("resolvConf", "resolv_conf", _text, "the host's resolver file", flag=False),
    Setting(
        "serializeImagePulls",
        "serialize_image_pulls",
        _boolean,
        "one pull at a time",
        flag=False,
    ),
    Setting(
        "maxParallelImagePulls",
        "max_parallel_image_pulls",
        _between(1, 1000),
        "pulls at a time",
        flag=False,
    ),
    Setting(
        "registryPullQPS",
        "registry_pull_qps",
        _between(0, 1_000_000),
        "pulls begun a second, more wait for their turn; 0 is any number",
        flag=False,
    ),
    Setting(
        "registryBurst",
        "registry_burst",
        _between(1, 1_000_000),
        "pulls that may begin at once",
        flag=False,
    ),
    Setting(
        "imagePullProgressTimeout",
        "image_pull_progress_timeout_s",
        _span,
        "a pull that gets no byte for so long ends; 0s is never",
        flag=False,
    ),
    Setting(
        "imageCredentialProviderConfigFile",
        "credential_provider_config",
        _text,
        "a CredentialProviderConfig file, or a directory of them",
        flag=False,
    ),
    Setting(
        "imageCredentialProviderBinDir",
        "credential_provider_dir",
        _text,
        "directory of credential provider plugins",
        flag=False,
    ),
    Setting(
        "imagePullCredentialsVerificationPolicy",
        "pull_verification_policy",
        _choice(*VERIFICATION_POLICIES),
        "which present images a Pod must prove access to",
        flag=False,
    ),
    Setting(
        "preloadedImagesVerificationAllowlist",
        "pull_verification_allowlist",
        _allowlist,
        "images any Pod may use, with NeverVerifyAllowlistedImages",
        flag=False,
    ),
    Setting(
        "imageGCHighThresholdPercent",
        "image_gc_high_threshold_percent",
        _between(0, 100),
        "disk use that starts image collection",
        flag=False,
    ),
    Setting(
        "imageGCLowThresholdPercent",
        "image_gc_low_threshold_percent",
        _between(0, 100),
        "disk use image collection aims for",
        flag=False,
    ),
    Setting(
        "imageMinimumGCAge",
        "image_minimum_gc_age_s",
        _span,
        "how long an unused image stays",
        flag=False,
    ),
    Setting(
        "imageMaximumGCAge",
        "image_maximum_gc_age_s",
        _span,
        "an image unused for longer goes even where there is room; 0s is never",
        flag=False,
    ),
    Setting(
        "containerLogMaxSize",
        "container_log_max_size",
        _text,
        "size at which a log is rotated",
        flag=False,
    ),
    Setting(
        "containerLogMaxFiles",
        "container_log_max_files",
        _between(2, 1000),
        "log files kept a container",
        flag=False,
    ),
    Setting(
        "seccompDefault",
        "seccomp_default",
        _boolean,
        "RuntimeDefault where a Pod says nothing",
        flag=False,
    ),
    Setting(
        "crashLoopBackOff",
        "max_container_restart_period_s",
        _nested_restart_period,
        "maxContainerRestartPeriod",
        flag=False,
    ),
    Setting(
        "evictionHard",
        "eviction_hard",
        _amounts,
        "what has to be left, by signal; below it Pods go at once",
        flag=False,
    ),
    Setting(
        "evictionSoft",
        "eviction_soft",
        _amounts,
        "what has to be left, by signal; below it Pods go after a grace period",
        flag=False,
    ),
    Setting(
        "evictionSoftGracePeriod",
        "eviction_soft_grace_s",
        _spans,
        "how long a soft threshold may be crossed, by signal",
        flag=False,
    ),
    Setting(
        "evictionMinimumReclaim",
        "eviction_minimum_reclaim",
        _amounts,
        "how much more than a threshold is to be had again, by signal",
        flag=False,
    ),
    Setting(
        "evictionMaxPodGracePeriod",
        "eviction_max_pod_grace_s",
        _between(0, 86400),
        "the most seconds a Pod gets when a soft threshold is crossed",
        flag=False,
    ),
    Setting(
        "evictionPressureTransitionPeriod",
        "eviction_pressure_transition_s",
        _span,
        "how long the node shows pressure after it was last under it",
        flag=False,
    ),
    Setting(
        "shutdownGracePeriod",
        "shutdown_grace_s",
        _span,
        "how long Pods may take to stop when the node goes away",
        flag=False,
    ),
    Setting(
        "shutdownGracePeriodCriticalPods",
        "shutdown_grace_critical_s",
        _span,
        "the end of that, kept for critical Pods",
        flag=False,
    ),
    Setting(
        "shutdownGracePeriodByPodPriority",
        "shutdown_grace_by_priority",
        _periods,
        "priority and shutdownGracePeriodSeconds of each group of Pods",
        flag=False,
    ),
)

_BY_KEY: Final = {setting.key: setting for setting in SETTINGS}


def default_data_dir(name: str) -> Path:
    """Return where an instance keeps its data unless told otherwise."""
    return Path("/var/lib/podyard") / name


def environment_name(setting: Setting) -> str:
    """Return the variable a flag may be given by."""
    return "PODYARD_" + setting.key.upper().replace("-", "_")


def load_config(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
) -> Config:
    """Return the config.

    Args:
        flags: setting key to value, for the flags that were given.
        environment: where ``PODYARD_*`` are looked for.
        file: a YAML file, or ``None``.

    Raises:
        ConfigError: a value or key is wrong; the message says where and what to do.
    """
    values: dict[str, object] = {}
    if file is None and environment.get("PODYARD_CONFIG"):
        file = Path(environment["PODYARD_CONFIG"])
    if file is not None:
        for key, value in _read_file(file).items():
            setting = _BY_KEY.get(key)
            if setting is None:
                raise ConfigError(f'{file}: unknown key "{key}"; {_suggest(key)}')
            values[setting.field] = _parse(setting, value, f"{file}: {key}")
    for setting in SETTINGS:
        name = environment_name(setting)
        if setting.flag and name in environment:
            values[setting.field] = _parse(setting, environment[name], name)
        if flags.get(setting.key) is not None:
            values[setting.field] = _parse(
                setting, flags[setting.key], f"--{setting.key}"
            )
    config = Config(**values)  # type: ignore[arg-type] # each parser gave its field's type
    return _complete(config)


def _complete(config: Config) -> Config:
    if not config.name or len(config.name) > 32 or not _is_label(config.name):
        raise ConfigError(
            f'--name: "{config.name}" must be a DNS label of at most 32 characters: '
            "lower-case letters, digits and '-', starting and ending with a letter or "
            "digit"
        )
    try:
        FeatureGates(config.feature_gates or {})
    except FeatureGateError as error:
        raise ConfigError(f"feature-gates: {error}") from error
    try:
        thresholds(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        shutdown_periods(config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    low = config.image_gc_low_threshold_percent
    if low >= config.image_gc_high_threshold_percent:
        raise ConfigError(
            "imageGCLowThresholdPercent must be below imageGCHighThresholdPercent"
        )
    if (
        config.pull_verification_allowlist
        and config.pull_verification_policy != "NeverVerifyAllowlistedImages"
    ):
        raise ConfigError(
            "preloadedImagesVerificationAllowlist goes with "
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages only"
        )
    if config.data_dir == Path():
        return replace(config, data_dir=default_data_dir(config.name))
    return config


def thresholds(config: Config) -> tuple[Threshold, ...]:
    """Return what has to be left on the node.

    Raises:
        ValueError: a signal or an amount is none.
    """
    hard = config.eviction_hard
    return parse_thresholds(
        DEFAULT_HARD if hard is None else hard,
        config.eviction_soft or {},
        config.eviction_soft_grace_s or {},
        config.eviction_minimum_reclaim or {},
    )


def shutdown_periods(config: Config) -> tuple[ShutdownPeriod, ...]:
    """Return how long Pods get when the node goes away, by priority.

    Raises:
        ValueError: the settings exclude each other.
    """
    return build_periods(
        config.shutdown_grace_s,
        config.shutdown_grace_critical_s,
        config.shutdown_grace_by_priority,
    )


def stop_grace_s(config: Config) -> float:
    """Return how long all Pods together get where nobody says, seconds."""
    periods = shutdown_periods(config)
    return sum(period.grace_s for period in periods) if periods else STOP_GRACE_S


def _is_label(text: str) -> bool:
    ends = text[0] + text[-1]
    return (
        text.isascii()
        and ends.isalnum()
        and all(c.isdigit() or c.islower() or c == "-" for c in text)
    )


def _parse(setting: Setting, value: object, where: str) -> object:
    try:
        return setting.parse(value)
    except ValueError as error:
        got = f" (got {value!r})" if isinstance(value, str | int | float) else ""
        raise ConfigError(f"{where}: {error}{got}") from error


def _suggest(key: str) -> str:
    """Return what somebody may have meant, or all there is."""
    lower = {known.lower(): known for known in _BY_KEY}
    near = get_close_matches(key.lower().replace("_", "-"), lower, n=3)
    if near:
        return f"did you mean {' or '.join(lower[known] for known in near)}?"
    return f"known keys: {', '.join(_BY_KEY)}"


def _read_file(file: Path) -> dict[str, object]:
    try:
        text = file.read_text()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 text") from error
    try:
        content, doubled = load_yaml(text)
    except YamlError as error:
        reason = str(error).removeprefix("yaml: ")
        raise ConfigError(f"{file}: is not valid YAML: {reason}") from error
    if doubled:
        raise ConfigError(f'{file}: key "{doubled[0]}" stands twice in a map')
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a map of settings")
    return {str(key): value for key, value in content.items()}
