"""The laws behind the scheduler's tables."""

from hypothesis import given
from hypothesis import strategies as st

import podyard.scheduler.plugins
from podyard.api.documents import Document
from podyard.api.predicates import unschedulable_reasons
from podyard.lib.parts import load_parts
from podyard.scheduler.accounts import NodeAccounts
from podyard.scheduler.decide import Placement, decide_placement
from podyard.scheduler.parts import SchedulerPlugin
from support.admission import pod
from support.stored_objects import make

PLUGINS = load_parts(podyard.scheduler.plugins, SchedulerPlugin)

taints = st.lists(
    st.sampled_from(
        [
            {"key": "k", "effect": "NoSchedule"},
            {"key": "k", "effect": "PreferNoSchedule"},
        ]
    ),
    max_size=2,
)
nodes = st.lists(
    st.tuples(st.integers(0, 4), taints, st.booleans()), min_size=1, max_size=4
)
pods = st.lists(
    st.tuples(st.integers(0, 1500), st.sampled_from([0, 80, 81]), st.booleans()),
    max_size=12,
)


def _node(index: int, cpu: int, tainted: list[Document], cordoned: bool) -> Document:
    return make(
        "Node",
        f"n{index}",
        spec={"taints": tainted, "unschedulable": cordoned},
        status={"allocatable": {"cpu": str(cpu), "memory": "4Gi", "pods": "5"}},
    )


def _pod(index: int, milli: int, port: int, tolerant: bool) -> Document:
    container: Document = {
        "name": "c",
        "resources": {"requests": {"cpu": f"{milli}m"}},
        "ports": [{"hostPort": port, "containerPort": 1}] if port else [],
    }
    tolerations = [{"operator": "Exists"}] if tolerant else []
    return pod(f"p{index}", containers=[container], tolerations=tolerations)


@given(nodes, pods)
def test_a_pod_only_goes_where_it_fits_and_stays_out_only_where_none_does(
    machines: list[tuple[int, list[Document], bool]],
    asked: list[tuple[int, int, bool]],
) -> None:
    accounts = NodeAccounts()
    for index, machine in enumerate(machines):
        accounts.set_node(_node(index, *machine))

    for index, wish in enumerate(asked):
        document = _pod(index, *wish)
        infos = accounts.infos()
        verdict = decide_placement(document, infos, PLUGINS)
        fitting = {
            info.name
            for info in infos
            if not unschedulable_reasons(document, info.node, info.usage)
        }
        if isinstance(verdict, Placement):
            assert verdict.node_name in fitting
            accounts.place(document, verdict.node_name)
        else:
            assert not fitting

    for info in accounts.infos():
        cpu = info.node["status"]["allocatable"]["cpu"]
        taken = info.usage.requested.get("cpu")
        assert info.usage.pods <= 5
        assert taken is None or taken.milli_value <= int(cpu) * 1000
