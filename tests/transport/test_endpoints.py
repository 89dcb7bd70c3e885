"""Endpoints and clusters as people write them: what is right is understood, what is wrong is named."""

import pytest

from lessor.core import limits
from lessor.core.effects import Role
from lessor.core.encoding import INT_MAX
from lessor.core.errors import BadRequest
from lessor.transport.endpoints import of_role, parse, parse_cluster, parse_list

HIGHEST = 65535 - limits.PORTS_PER_NODE + 1


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("tcp://127.0.0.1:7411", "127.0.0.1", 7411),
        ("  tcp://127.0.0.1:7411\n", "127.0.0.1", 7411),
        ("tcp://node-1.example.org:1", "node-1.example.org", 1),
        ("tcp://lessor_node1_1:7411", "lessor_node1_1", 7411),
        ("tcp://[::1]:7411", "[::1]", 7411),
        ("tcp://[fe80::1%eth0]:7411", "[fe80::1%eth0]", 7411),
        ("tcp://::1:7411", "::1", 7411),
        (f"tcp://h:{HIGHEST}", "h", HIGHEST),
        ("tcp://h:07411", "h", 7411),
    ],
)
def test_an_endpoint_is_a_host_and_a_base_port(endpoint: str, host: str, port: int) -> None:
    assert parse(endpoint) == (host, port)


@pytest.mark.parametrize(
    ("endpoint", "fault"),
    [
        ("", r"looks like tcp://HOST:PORT, not ''"),
        ("127.0.0.1:7411", r"looks like tcp://HOST:PORT, not '127.0.0.1:7411'"),
        ("ipc://127.0.0.1:7411", r"looks like tcp://HOST:PORT, not 'ipc:"),
        ("TCP://127.0.0.1:7411", r"looks like tcp://HOST:PORT, not 'TCP:"),
        ("tcp://127.0.0.1", r"looks like tcp://HOST:PORT, not 'tcp://127.0.0.1'"),
        ("tcp://:7411", r"looks like tcp://HOST:PORT, not 'tcp://:7411'"),
        ("tcp://", r"looks like tcp://HOST:PORT, not 'tcp://'"),
        ("tcp://h:", rf"port of an endpoint is from 1 to {HIGHEST} .*, not ''"),
        ("tcp://h:0", rf"port of an endpoint is from 1 to {HIGHEST} .*, not '0'"),
        ("tcp://h:-1", r"port of an endpoint .*, not '-1'"),
        ("tcp://h:+7", r"port of an endpoint .*, not '\+7'"),
        ("tcp://h: 7", r"port of an endpoint .*, not ' 7'"),
        ("tcp://h:7_4", r"port of an endpoint .*, not '7_4'"),
        ("tcp://h:7.5", r"port of an endpoint .*, not '7.5'"),
        ("tcp://h:http", r"port of an endpoint .*, not 'http'"),
        ("tcp://h:*", r"port of an endpoint .*, not '\*'"),
        ("tcp://h:\u0667", r"port of an endpoint .*, not '\u0667'"),  # a digit, but none of ours
        ("tcp://h:7411/", r"port of an endpoint .*, not '7411/'"),
        (f"tcp://h:{HIGHEST + 1}", rf"port of an endpoint is from 1 to {HIGHEST} \(the ones above belong to it\)"),
        ("tcp://h:65536", r"port of an endpoint .*, not '65536'"),
        ("tcp://h:" + "9" * 5000, r"port of an endpoint .*, not '9{80}…'"),
        ("tcp://*:7411", r"host of an endpoint is a name or an address, not '\*'"),
        ("tcp://two words:7411", r"host of an endpoint .*, not 'two words'"),
        ("tcp://a;b:7411", r"host of an endpoint .*, not 'a;b'"),
        ("tcp://-h:7411", r"host of an endpoint .*, not '-h'"),
        ("tcp://h/x:7411", r"host of an endpoint .*, not 'h/x'"),
        ("tcp://hôte:7411", r"host of an endpoint .*, not 'hôte'"),
        ("tcp://user@h:7411", r"host of an endpoint .*, not 'user@h'"),
        ("tcp://" + "h" * 5000 + "!:7411", r"host of an endpoint .*, not 'h{80}…'"),
    ],
)
def test_each_bad_endpoint_is_refused_with_the_fault_named(endpoint: str, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        parse(endpoint)


def test_a_list_of_endpoints_may_have_spaces_and_a_comma_too_many() -> None:
    assert parse_list(" tcp://h1:7411 , tcp://h2:7411,,") == ["tcp://h1:7411", "tcp://h2:7411"]


@pytest.mark.parametrize(
    ("endpoints", "fault"),
    [
        ("", "name at least one endpoint, such as tcp://"),
        (" , ,", "name at least one endpoint"),
        ("tcp://h1:7411,h2:7411", "looks like tcp://HOST:PORT, not 'h2:7411'"),
        ("tcp://h1:7411 tcp://h2:7411", "host of an endpoint"),
        ("tcp://h1:7411;tcp://h2:7411", "host of an endpoint"),
    ],
)
def test_a_bad_list_of_endpoints_is_refused_with_the_fault_named(endpoints: str, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        parse_list(endpoints)


def test_a_cluster_is_read_as_numbers_and_endpoints_in_the_order_of_the_numbers() -> None:
    members = parse_cluster("3=tcp://h3:7411, 1=tcp://h1:7411 ,2=tcp://h2:7411")
    assert list(members.items()) == [(1, "tcp://h1:7411"), (2, "tcp://h2:7411"), (3, "tcp://h3:7411")]


def test_the_largest_cluster_and_the_largest_number_are_understood() -> None:
    text = ",".join(f"{number}=tcp://h{number}:7411" for number in range(1, limits.NODES_MAX))
    members = parse_cluster(f"{text},{INT_MAX}=tcp://h:7411")
    assert len(members) == limits.NODES_MAX
    assert max(members) == INT_MAX


@pytest.mark.parametrize(
    ("cluster", "fault"),
    [
        ("", "a member looks like 1=tcp://HOST:PORT, not ''"),
        ("tcp://h1:7411", "a member looks like 1=tcp://HOST:PORT, not 'tcp://h1:7411'"),
        ("1=tcp://h1:7411,", "a member looks like 1=tcp://HOST:PORT, not ''"),
        ("0=tcp://h1:7411", "a member looks like .*, not '0="),
        ("-1=tcp://h1:7411", "a member looks like .*, not '-1="),
        ("=tcp://h1:7411", "a member looks like .*, not '="),
        ("one=tcp://h1:7411", "a member looks like .*, not 'one="),
        ("1 =tcp://h1:7411", "a member looks like .*, not '1 ="),
        (f"{INT_MAX + 1}=tcp://h1:7411", "a member looks like .*, not '9223372036854775808="),
        ("9" * 5000 + "=tcp://h1:7411", "a member looks like .*, not '9{80}…'"),
        ("1=h1:7411", "looks like tcp://HOST:PORT, not 'h1:7411'"),
        ("1==tcp://h1:7411", "looks like tcp://HOST:PORT, not '=tcp:"),
        ("1=tcp://h1:99999", "port of an endpoint"),
        ("1=tcp://h1:7411,1=tcp://h2:7411", "node 1 is named twice"),
        ("1=tcp://h1:7411,01=tcp://h2:7411", "node 1 is named twice"),
        (
            ",".join(f"{number}=tcp://h{number}:7411" for number in range(1, limits.NODES_MAX + 2)),
            f"a cluster has at most {limits.NODES_MAX} nodes, not {limits.NODES_MAX + 1}",
        ),
    ],
)
def test_each_bad_cluster_is_refused_with_the_fault_named(cluster: str, fault: str) -> None:
    with pytest.raises(BadRequest, match=fault):
        parse_cluster(cluster)


@pytest.mark.parametrize("distance", range(limits.PORTS_PER_NODE))
def test_nodes_of_one_host_whose_ports_overlap_are_refused_by_their_numbers(distance: int) -> None:
    with pytest.raises(BadRequest, match=r"nodes 2 and 7 overlap: each uses 5 ports"):
        parse_cluster(f"2=tcp://h:7411,7=tcp://h:{7411 + distance},3=tcp://h:7600")


def test_nodes_of_one_host_may_lie_side_by_side_and_nodes_of_two_hosts_anyhow() -> None:
    assert len(parse_cluster("1=tcp://h:7411,2=tcp://h:7416,3=tcp://h:7406")) == 3
    assert len(parse_cluster("1=tcp://h1:7411,2=tcp://h2:7411,3=tcp://h3:7413")) == 3


def test_each_role_has_the_port_of_its_number_above_the_base() -> None:
    ports = {role: of_role("tcp://[::1]:7411", role) for role in list(Role)[: limits.PORTS_PER_NODE]}
    assert ports == {
        Role.GATEWAY: "tcp://[::1]:7411",
        Role.PROPOSER: "tcp://[::1]:7412",
        Role.ACCEPTOR: "tcp://[::1]:7413",
        Role.LEARNER: "tcp://[::1]:7414",
        Role.FEED: "tcp://[::1]:7415",
    }
