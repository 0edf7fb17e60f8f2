"""What is taken on each node."""

from podyard.api.documents import Document
from podyard.api.quantity import parse_quantity
from podyard.scheduler.accounts import NodeAccounts
from support.admission import pod
from support.stored_objects import make


def _pod(name: str, cpu: str = "100m", port: int = 0) -> Document:
    ports = [{"hostPort": port, "containerPort": 1}] if port else []
    return pod(
        name,
        containers=[
            {"name": "c", "resources": {"requests": {"cpu": cpu}}, "ports": ports}
        ],
    )


def _taken(accounts: NodeAccounts, name: str = "a") -> tuple[str, int]:
    usage = next(info for info in accounts.infos() if info.name == name).usage
    return str(usage.requested.get("cpu", parse_quantity("0"))), usage.pods


def test_an_assumed_pod_counts_at_once_and_once() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))

    accounts.place(_pod("p"), "a")
    accounts.place(_pod("q", "1"), "a")
    accounts.place(_pod("p"), "a")

    assert _taken(accounts) == ("1100m", 2)


def test_a_removed_pod_gives_its_room_back() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))
    accounts.place(_pod("p"), "a")
    accounts.place(_pod("q", port=80), "a")

    assert accounts.remove("uid-q")
    assert not accounts.remove("uid-q")

    assert _taken(accounts) == ("100m", 1)
    assert not accounts.infos()[0].usage.host_ports


def test_a_resized_pod_counts_anew() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))
    accounts.place(_pod("p"), "a")

    accounts.place(_pod("p", "300m"), "a")

    assert _taken(accounts) == ("300m", 1)


def test_a_pod_that_turns_up_elsewhere_moves() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))
    accounts.set_node(make("Node", "b"))
    accounts.place(_pod("p"), "a")

    accounts.place(_pod("p"), "b")

    assert _taken(accounts, "a") == ("0", 0)
    assert _taken(accounts, "b") == ("100m", 1)
    assert accounts.node_of("uid-p") == "b"


def test_pods_of_an_unknown_node_count_when_it_comes() -> None:
    accounts = NodeAccounts()
    accounts.place(_pod("p"), "a")
    assert accounts.infos() == ()

    accounts.set_node(make("Node", "a"))

    assert _taken(accounts) == ("100m", 1)


def test_a_pod_nobody_understands_is_one_pod() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))

    accounts.place(_pod("p", "rubbish"), "a")

    assert _taken(accounts) == ("0", 1)


def test_room_is_kept_for_a_nominated_pod() -> None:
    accounts = NodeAccounts()
    accounts.set_node(make("Node", "a"))
    high, low = _pod("high", "1"), _pod("low", "1")
    high["metadata"]["uid"], low["metadata"]["uid"] = "uid-high", "uid-low"
    high["spec"]["priority"] = 10

    accounts.nominate(high, "a")

    def taken(asking: Document) -> int:
        return accounts.infos(asking)[0].usage.pods

    assert taken(low) == 1
    assert taken(high) == 0
    higher = _pod("higher")
    higher["metadata"]["uid"], higher["spec"]["priority"] = "uid-higher", 11
    assert taken(higher) == 0
    assert accounts.outranked(higher, "a") == (high,)
    assert accounts.nominated_node("uid-high") == "a"

    accounts.place(high, "a")

    assert accounts.nominated_node("uid-high") == ""
    assert taken(low) == 1
    assert [placed.uid for placed in accounts.pods_on("a")] == ["uid-high"]
