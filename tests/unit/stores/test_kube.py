# SPDX-License-Identifier: Apache-2.0
"""What only the Kubernetes store does: its client, lists and watches, Nodes, claims."""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.cluster import IPAddress
from pycni.errors import ClusterError, FileError, InvalidSettings, PlaceLost, StoreError, TryAgain
from pycni.stores import Put, Rejected, Removed, Rival, Synced, check_url, open_store
from pycni.stores.existence import what_is_missing
from pycni.stores.kube import KubeStore, body, client, following, heart, objects, own, store
from pycni.stores.kube.access import Access
from pycni.stores.kube.bucket import Bucket
from pycni.stores.kube.client import Client
from pycni.stores.kube.following import Batch, Phase
from pycni.stores.kube.news import News
from pycni.stores.roster import Roster
from unit.stores.certificates import make_authority, make_certificate
from unit.stores.kube_api import (
    CLUSTER_NETWORKS,
    LEASES,
    MUTE,
    NODE_NETWORKS,
    NODES,
    OFF,
    OLD,
    POD_BLOCKS,
    Api,
    kubeconfig,
    serving,
)
from unit.stores.kube_nodes import Nodes
from unit.stores.stores_in_tests import (
    CLUSTER,
    ELSEWHERE,
    IN_THE_NEXT_NODES,
    MACHINE_ONE,
    NODE_ONE,
    NODE_TWO,
    VTEP_ONE,
    VTEP_TWO,
    register_one,
    register_two,
    watch,
)

STATUS_GONE = b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}'
STATUS_FAILED = b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd"}}'


pytestmark = pytest.mark.usefixtures("impatience")


def ask(api: Api, **access: object) -> Client:
    return Client(Access((("127.0.0.1", api.port),), tls=False, **access))


def network(vtep: IPAddress) -> dict[str, object]:
    """A NodeNetwork of node one."""
    spec = {"nodeID": 1, "vtep": str(vtep), "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]}
    return {"metadata": {"name": NODE_ONE}, "spec": spec}


def next_change(events: Iterator[object]) -> object:
    """The next event that is no Synced."""
    return next(event for event in events if event != Synced())


# Lists and watches


@pytest.mark.parametrize("streams", ["on", OFF, OLD, MUTE])
@pytest.mark.parametrize(("gzips", "members"), [(False, False), (True, False), (True, True)])
def test_nodes_are_followed_whether_the_server_streams_lists_or_not(
    api: Api, kube: KubeStore, streams: str, gzips: bool, members: bool
) -> None:
    api.streams_lists, api.gzips, api.flushes_members = streams, gzips, members
    one = register_one(kube)

    with closing(watch(kube)) as events:
        assert next_change(events) == Put(NODE_ONE, one)
        assert next(events) == Synced()
        two = register_two(kube)
        assert next_change(events) == Put(NODE_TWO, two)
        kube.remove(NODE_ONE)
        assert next_change(events) == Removed(NODE_ONE)
        kube.remove(NODE_TWO)
        assert next_change(events) == Removed(NODE_TWO)


def test_a_server_that_cannot_stream_lists_is_not_asked_again(api: Api, kube: KubeStore) -> None:
    api.streams_lists = OFF

    for _ in range(3):
        with closing(watch(kube)) as events:
            assert next(events) == Synced()

    assert len(api.asked("GET", "sendInitialEvents")) == 1


def test_a_list_comes_in_pages(api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycni.stores.kube.pages.PAGE", 2)
    api.streams_lists = OFF
    for number in range(5):
        kube.register(f"node-{number}", VTEP_ONE + number, identity=MACHINE_ONE)

    with closing(watch(kube)) as events:
        assert len([next(events) for _ in range(5)]) == 5
        assert next(events) == Synced()

    assert len(api.asked("GET", "continue=")) >= 2


def lost_while_away(api: Api) -> None:
    """One node goes, another comes in its place, and the server forgets both changes."""
    with api.objects.changed:
        document = api.objects.get(NODE_NETWORKS, NODE_ONE)
        assert document is not None
        api.objects.delete(NODE_NETWORKS, NODE_ONE)
        api.objects.put(NODE_NETWORKS, "node-three", {"spec": document["spec"]})
        api.objects.forget()


@pytest.mark.parametrize("streams", ["on", OFF])
def test_410_in_the_stream_lists_anew_and_tells_the_difference(
    api: Api, kube: KubeStore, streams: str
) -> None:
    api.streams_lists = streams
    register_one(kube), register_two(kube)
    with closing(watch(kube)) as events:
        assert [type(next(events)) for _ in range(3)] == [Put, Put, Synced]
        lost_while_away(api)

        assert next_change(events) == Removed(NODE_ONE)
        put = next(events)
        assert isinstance(put, Put)
        assert put.name == "node-three"


def test_410_on_the_request_lists_anew(api: Api, kube: KubeStore) -> None:
    register_one(kube)
    with closing(watch(kube)) as events:
        assert [type(next(events)) for _ in range(2)] == [Put, Synced]
        api.break_all()
        lost_while_away(api)

        assert next_change(events) == Removed(NODE_ONE)

    assert len(api.asked("GET", "sendInitialEvents")) == 2


@pytest.mark.parametrize("line", [STATUS_GONE, STATUS_FAILED, b"no JSON", b"[]", b'{"type":"?"}'])
def test_a_watch_whose_first_line_is_an_error_goes_on(
    api: Api, kube: KubeStore, line: bytes
) -> None:
    api.streams_lists = OFF
    with closing(watch(kube)) as events:
        assert next(events) == Synced()
        api.next_lines.append(line)

        one = register_one(kube)

        assert next_change(events) == Put(NODE_ONE, one)


def test_a_watch_that_ended_goes_on_from_its_last_bookmark(api: Api, kube: KubeStore) -> None:
    api.streams_lists = OFF
    one = register_one(kube)
    with closing(watch(kube)) as events:
        assert [next(events), next(events)] == [Put(NODE_ONE, one), Synced()]
        threading.Timer(0.3, api.bookmark).start()
        threading.Timer(0.6, api.break_all).start()
        threading.Timer(0.9, register_two, (kube,)).start()

        assert isinstance(next_change(events), Put)

    versions = [part.partition("resourceVersion=")[2] for part in api.asked("GET", "watch=1")]
    assert len(api.asked("GET", "nodenetworks?limit=500")) == 3  # two are by register
    assert int(versions[-1]) > int(versions[-2])


def test_a_watch_that_breaks_in_the_middle_of_a_line_misses_nothing(
    api: Api, kube: KubeStore
) -> None:
    api.streams_lists = OFF
    with closing(watch(kube)) as events:
        assert next(events) == Synced()
        api.cuts_after = 100
        register_one(kube)
        threading.Timer(0.3, setattr, (api, "cuts_after", None)).start()

        assert isinstance(next_change(events), Put)


def test_a_dead_watch_is_given_up_and_asked_for_again(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(following, "SILENCE", -0.5)
    with closing(watch(kube)) as events:
        assert next(events) == Synced()
        threading.Timer(1.2, register_one, (kube,)).start()

        assert isinstance(next_change(events), Put)

    assert len(api.asked("GET", "watch=1")) >= 3


def test_the_server_may_be_away_while_nodes_are_followed(
    api: Api, kube: KubeStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with closing(watch(kube)) as events:
        assert next(events) == Synced()
        api.stop()
        threading.Timer(0.5, api.start).start()
        threading.Timer(0.7, register_one, (kube,)).start()

        assert isinstance(next_change(events), Put)

    messages = [record.message for record in caplog.records]
    assert len([one for one in messages if one.startswith("watch failed")]) == 1
    assert "watch is back" in " ".join(messages)


def test_a_busy_server_is_given_the_time_it_asks_for(api: Api, kube: KubeStore) -> None:
    api.busy.append((503, {"Retry-After": "1"}))
    began = time.monotonic()

    kube.nodes()

    assert 1.0 <= time.monotonic() - began < 4.0


def test_a_server_too_busy_for_the_first_list_is_given_the_time_it_asks_for(
    api: Api, kube: KubeStore
) -> None:
    """Whoever watches begins again at once."""
    with closing(watch(kube)) as events:
        api.busy.append((429, {"Retry-After": "1"}))
        began = time.monotonic()

        with pytest.raises(TryAgain, match="busy"):
            next(events)

    assert 1.0 <= time.monotonic() - began < 4.0


def test_a_server_that_forgets_all_the_time_is_not_asked_all_the_time(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one behind others, which have compacted what it lists."""
    monkeypatch.setattr(following, "BASE", 0.4)
    monkeypatch.setattr(following, "CAP", 0.8)
    monkeypatch.setattr("pycni.backoff.random.uniform", lambda _low, high: high)
    api.objects.forgotten = 1 << 40
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()

    assert set(kube.watch(stop)) == {Synced()}

    assert len(api.requests) < 16


def test_a_call_to_a_server_that_stays_busy_ends(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.1)
    api.busy.append((429, {"Retry-After": "60"}))

    with pytest.raises(TryAgain, match="busy"):
        kube.nodes()


def test_the_first_list_that_breaks_off_is_an_error(api: Api, kube: KubeStore) -> None:
    register_one(kube)
    api.cuts_after = 200
    with closing(watch(kube)) as events, pytest.raises(StoreError, match="broke off"):
        list(events)


def test_a_list_whose_moment_is_forgotten_is_an_error(api: Api, kube: KubeStore) -> None:
    api.objects.forget()
    with pytest.raises(StoreError, match="ran out"):
        list(store.pages(kube.client, NODE_NETWORKS, **{"continue": "0.1"}))


def test_an_object_that_changes_back_while_all_is_listed_anew_is_as_it_was() -> None:
    as_it_was = objects.raw(network(VTEP_ONE))
    news = News("", Roster(CLUSTER))
    for batch in (Batch(Phase.BEGIN), Batch(Phase.PART, {NODE_ONE: as_it_was}), Batch(Phase.END)):
        list(news.of(batch))

    parts = [objects.raw(network(VTEP_TWO)), as_it_was]
    for batch in (Batch(Phase.BEGIN), *(Batch(Phase.PART, {NODE_ONE: one}) for one in parts)):
        assert list(news.of(batch)) == []

    assert list(news.of(Batch(Phase.END))) == [Synced()]


# The client


def test_a_token_that_was_replaced_is_shown_at_the_next_request(api: Api, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    api.tokens = {"old"}
    asking = ask(api, token_file=file)
    assert asking.get(f"{NODE_NETWORKS}/x") is None

    api.tokens = {"new"}
    with pytest.raises(StoreError, match="does not accept our credentials"):
        asking.get(f"{NODE_NETWORKS}/x")
    assert len(api.asked("GET", "/x")) == 3
    file.write_text("new\n")

    assert asking.get(f"{NODE_NETWORKS}/x") is None


@pytest.mark.parametrize(
    ("text", "what"),
    [("a b", "blanks"), ("a\nb", "more than one line"), ("a\x07b", "characters that no token has")],
)
def test_what_a_wrong_token_has_is_told(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "token").write_text(text)

    with pytest.raises(FileError, match=f"is none: it has {what}$"):
        Access((("127.0.0.1", 1),), token_file=tmp_path / "token").bearer()


def test_a_token_that_cannot_be_read_is_an_error(api: Api, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        ask(api, token_file=tmp_path / "none").get(f"{NODE_NETWORKS}/x")


def test_what_rbac_lacks_is_named(api: Api, kube: KubeStore) -> None:
    api.forbidden = {("GET", NODE_NETWORKS)}

    with pytest.raises(StoreError, match=r"forbids GET /apis/.*nodenetworks") as e:
        kube.nodes()

    assert "rbac.yaml" in e.value.hint


def test_a_cluster_without_the_crds_says_what_to_apply(api: Api, kube: KubeStore) -> None:
    api.absent = {NODE_NETWORKS}

    with pytest.raises(StoreError, match="has no") as caught:
        kube.nodes()

    assert "crds.yaml" in caught.value.hint


def test_a_server_that_is_not_there_is_passed_over(api: Api) -> None:
    asking = Client(Access((("127.0.0.1", 1), ("127.0.0.1", api.port)), tls=False))

    assert asking.get(f"{NODE_NETWORKS}/x") is None


def test_a_server_that_never_answers_is_an_error(api: Api, kube: KubeStore) -> None:
    api.silent = True
    request = client.Request("GET", NODE_NETWORKS, timeout=0.2)

    with pytest.raises(StoreError, match="no answer in time"):
        kube.client.call(request)


def test_an_answer_that_is_too_long_is_an_error(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BODY_MAX", 10)
    with pytest.raises(StoreError, match="more than 10 bytes"):
        kube.nodes()


def test_a_line_that_is_too_long_is_an_error(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "LINE_MAX", 10)
    register_one(kube)
    with closing(watch(kube)) as events, pytest.raises(StoreError, match="more than 10 bytes"):
        list(events)


def test_who_asks_all_the_time_is_slowed_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    now = [0.0]
    tokens = Bucket(lambda: now[0])
    assert [tokens.take() for _ in range(10)] == [0.0] * 10
    assert tokens.take() == pytest.approx(0.2)
    tokens.give_back()

    for _ in range(100):
        now[0] += 1.0
        for _ in range(5):
            tokens.take()

    assert tokens.take() > 4.0


def test_a_call_that_would_wait_too_long_for_its_turn_is_an_error(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube.client._bucket, "take", lambda: 60.0)
    with pytest.raises(TryAgain, match="more often than it may"):
        kube.nodes()


def tls(directory: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    return context


def test_another_authority_is_taken_when_its_file_is_replaced(tmp_path: Path) -> None:
    for number in "12":
        make_authority(tmp_path, f"ca{number}")
        make_certificate(tmp_path, f"server{number}", authority=f"ca{number}")
    ca = tmp_path / "ca.crt"
    ca.write_bytes((tmp_path / "ca1.pem").read_bytes())
    with serving(tls(tmp_path, "server1")) as api:
        asking = Client(Access((("127.0.0.1", api.port),), ca_file=ca))
        assert asking.get(f"{NODE_NETWORKS}/x") is None
        api.stop()
        api.start(tls(tmp_path, "server2"))
        with pytest.raises(StoreError, match="certificate is not accepted") as caught:
            asking.get(f"{NODE_NETWORKS}/x")
        assert caught.value.hint.startswith(f"{ca} must have the authority")

        ca.write_bytes((tmp_path / "ca2.pem").read_bytes())

        assert asking.get(f"{NODE_NETWORKS}/x") is None


def test_a_client_certificate_of_a_kubeconfig_is_shown(tmp_path: Path) -> None:
    make_authority(tmp_path, "ca")
    for name in ("server", "client"):
        make_certificate(tmp_path, name, authority="ca")
    context = tls(tmp_path, "server")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tmp_path / "ca.pem")
    pem = b"".join((tmp_path / f"client.{kind}").read_bytes() for kind in ("pem", "key"))
    with serving(context) as api:
        servers = (("127.0.0.1", api.port),)
        shown = Client(Access(servers, ca_data=(tmp_path / "ca.pem").read_text(), cert_data=pem))
        files = Client(
            Access(
                servers,
                ca_file=tmp_path / "ca.pem",
                cert_file=tmp_path / "client.pem",
                key_file=tmp_path / "client.key",
            )
        )

        for asking in (shown, files):
            assert asking.get(f"{NODE_NETWORKS}/x") is None
        with pytest.raises(StoreError):
            Client(Access(servers, ca_file=tmp_path / "ca.pem")).get(f"{NODE_NETWORKS}/x")


def test_an_authority_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be used"):
        Client(Access((("127.0.0.1", 1),), ca_file=tmp_path / "none")).get("/x")


# URLs and kubeconfigs


@pytest.mark.parametrize(
    "url", ["kube:relative", "kube:?context=a", "kube:?other=a", "kube:?server=a@b", "kube:?x"]
)
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettings, match="store = "):
        check_url(url)


def test_a_process_outside_of_pods_needs_a_kubeconfig(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(InvalidSettings, match="this process is in none"):
        open_store("kube:", CLUSTER)


@pytest.mark.parametrize(
    ("user", "problem"),
    [
        ({"exec": {"command": "x"}}, "has exec: pycni runs no programs"),
        ({"username": "a"}, "has username"),
        ({"token": 1}, "token is not text"),
        ({"client-certificate-data": "YQ=="}, "need each other"),
        ({"client-key-data": "?"}, "not base64"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(
    api: Api, tmp_path: Path, user: dict[str, str], problem: str
) -> None:
    file = kubeconfig(tmp_path, api, **user)

    with pytest.raises(InvalidSettings, match=problem):
        open_store(f"kube:{file}", CLUSTER)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("current-context", "other"), "no current-context"),
        (('"test"', '"b"', 1), "no context"),
        (("http://", "ftp://"), "is not https://HOST:PORT"),
        (('{"server"', '{"insecure-skip-tls-verify": true, "server"'), "insecure-skip-tls-verify"),
        (('{"server"', '{"proxy-url": "http://x", "server"'), "proxy-url"),
        (("{", "[", 1), "not YAML"),
    ],
)
def test_a_wrong_kubeconfig_says_why(
    api: Api, tmp_path: Path, change: tuple[str, str], problem: str
) -> None:
    file = kubeconfig(tmp_path, api)
    file.write_text(file.read_text().replace(*change))

    with pytest.raises(InvalidSettings, match=problem):
        open_store(f"kube:{file}", CLUSTER)


def test_a_kubeconfig_that_is_no_mapping_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        open_store(f"kube:{tmp_path}/none", CLUSTER)
    (tmp_path / "list").write_text("[]")
    with pytest.raises(InvalidSettings, match="is not a kubeconfig"):
        open_store(f"kube:{tmp_path}/list", CLUSTER)


def test_files_of_a_kubeconfig_that_never_end_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileError, match="pipe cannot be read: it is a pipe"):
        open_store(f"kube:{pipe}", CLUSTER)
    servers = (("127.0.0.1", 1),)
    with pytest.raises(FileError, match=r"cannot be used: .*it is a device"):
        Client(Access(servers, ca_file=Path("/dev/zero"))).get("/x")
    with pytest.raises(FileError, match=r"cannot be read: .*it is a pipe"):
        Access(servers, token_file=pipe).bearer()


# Clusters and Nodes


def test_who_may_not_make_the_cluster_is_told_to_apply_the_manifest(
    api: Api, tmp_path: Path
) -> None:
    url = f"kube:{kubeconfig(tmp_path, api)}"
    assert "no ClusterNetwork" in what_is_missing(url, CLUSTER)

    with pytest.raises(StoreError, match="there is no ClusterNetwork default"):
        open_store(url, CLUSTER, create=False)

    open_store(url, CLUSTER)
    assert what_is_missing(url, CLUSTER) == ""


def test_a_cluster_network_with_nonsense_in_it_is_another_cluster(api: Api, tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, api)
    api.objects.put(CLUSTER_NETWORKS, "default", {"spec": {"cidrs": ["nonsense", 7]}})

    with pytest.raises(ClusterError, match="other parameters"):
        open_store(f"kube:{file}", CLUSTER)


def test_a_node_without_pod_cidrs_says_which_flags_to_set(api: Api, kube: KubeStore) -> None:
    Nodes(api).put(NODE_ONE)

    with pytest.raises(StoreError, match="gave the Node node-one no pod CIDR") as caught:
        register_one(kube)

    assert "--allocate-node-cidrs" in caught.value.hint


def test_a_node_that_kubernetes_does_not_know_is_not_registered(api: Api, kube: KubeStore) -> None:
    api.make_node = lambda _name: None

    with pytest.raises(StoreError, match="has no Node node-one"):
        register_one(kube)


@pytest.mark.parametrize(
    ("cidrs", "problem"),
    [
        (["10.99.0.0/24", "fd00:10:244::/64"], "10.99.0.0/24 is not in cluster_cidrs"),
        (["10.244.0.0/25", "fd00:10:244::/64"], "10.244.0.0/25 is not a /24"),
        (["10.244.0.0/24"], "none of 10.244.0.0/24 is in fd00:10:244::/56"),
        (["nonsense"], "nonsense is no network"),
    ],
)
def test_pod_cidrs_that_do_not_fit_the_cluster_are_refused_with_both(
    api: Api, kube: KubeStore, cidrs: list[str], problem: str
) -> None:
    Nodes(api).put(NODE_ONE, *cidrs)

    with pytest.raises(ClusterError, match=problem):
        register_one(kube)


def test_a_pod_cidr_of_a_node_that_went_is_waited_for(api: Api, kube: KubeStore) -> None:
    one = register_one(kube)
    Nodes(api).put(NODE_TWO, *map(str, one.pod_cidrs))

    with pytest.raises(StoreError, match="is still that of node node-one"):
        register_two(kube)


def test_a_machine_whose_own_kubelet_is_the_node_takes_its_record_over(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have another machine ID at each start."""
    register_one(kube)
    node = api.objects.get(NODES, NODE_ONE)
    assert node is not None
    monkeypatch.setattr(store, "boot_id", lambda: "this boot")
    Nodes(api).put(NODE_ONE, *node["spec"]["podCIDRs"], boot="this boot")

    again = kube.register(NODE_ONE, VTEP_TWO, identity="another")

    assert again.vtep == VTEP_TWO


def test_a_record_belongs_to_its_node(api: Api, kube: KubeStore) -> None:
    register_one(kube)

    network, node = api.objects.get(NODE_NETWORKS, NODE_ONE), api.objects.get(NODES, NODE_ONE)
    assert network is not None
    assert node is not None
    assert network["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


# Heartbeats


def test_heartbeats_write_nothing_and_ask_seldom(api: Api, kube: KubeStore) -> None:
    register_one(kube)
    version = api.objects.version
    kube.heartbeat(NODE_ONE, instance="a")
    asked = len(api.requests)

    for _ in range(30):
        kube.heartbeat(NODE_ONE, instance="a")

    assert len(api.requests) == asked
    assert [
        one for one in api.objects.history if one.version > version and one.path != LEASES
    ] == []


def test_a_record_of_a_node_that_was_made_anew_changes_its_owner(api: Api, kube: KubeStore) -> None:
    one = register_one(kube)
    api.objects.delete(NODES, NODE_ONE)
    Nodes(api).put(NODE_ONE, *map(str, one.pod_cidrs))

    kube.heartbeat(NODE_ONE)

    network, node = api.objects.get(NODE_NETWORKS, NODE_ONE), api.objects.get(NODES, NODE_ONE)
    assert network is not None
    assert node is not None
    assert network["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_what_the_watch_tells_while_a_heartbeat_looks_is_not_lost(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    get = Client.get

    def get_before_it_goes(self: Client, path: str) -> object:
        found = get(self, path)
        if path.startswith(NODE_NETWORKS):
            monkeypatch.setattr(Client, "get", get)
            api.objects.delete(NODE_NETWORKS, NODE_ONE)
            own.doubt(self.where, [NODE_ONE])
        return found

    monkeypatch.setattr(Client, "get", get_before_it_goes)
    kube.heartbeat(NODE_ONE)
    assert api.objects.get(NODE_NETWORKS, NODE_ONE) is None

    kube.heartbeat(NODE_ONE)

    assert api.objects.get(NODE_NETWORKS, NODE_ONE) is not None


def test_a_record_that_the_garbage_collector_took_is_made_again(api: Api, kube: KubeStore) -> None:
    one = register_one(kube)
    kube.heartbeat(NODE_ONE)
    with closing(watch(kube)) as events:
        assert [next(events), next(events)] == [Put(NODE_ONE, one), Synced()]
        api.objects.delete(NODE_NETWORKS, NODE_ONE)
        assert [next(events), next(events)] == [Removed(NODE_ONE), Synced()]

        kube.heartbeat(NODE_ONE)

        assert next(events) == Put(NODE_ONE, one)


def test_a_record_is_not_made_again_without_its_node_or_with_other_cidrs(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube)
    kube.heartbeat(NODE_ONE)
    api.make_node = lambda _name: None
    api.objects.delete(NODE_NETWORKS, NODE_ONE)
    api.objects.delete(NODES, NODE_ONE)
    own.doubt(kube.client.where, [NODE_ONE])
    with pytest.raises(PlaceLost, match=r"not registered .* has no Node of that name"):
        kube.heartbeat(NODE_ONE)

    Nodes(api).put(NODE_ONE, "10.244.7.0/24", "fd00:10:244:7::/64")

    with pytest.raises(PlaceLost, match="made the Node node-one anew"):
        kube.heartbeat(NODE_ONE)

    Nodes(api).put(NODE_ONE, "10.99.7.0/24", "fd00:10:244:7::/64")

    with pytest.raises(PlaceLost, match="are not of this cluster"):
        kube.heartbeat(NODE_ONE)
    assert api.objects.get(NODE_NETWORKS, NODE_ONE) is None


@pytest.mark.parametrize("cidrs", [("10.244.7.0/24", "fd00:10:244:7::/64"), ()])
def test_a_record_is_not_given_to_a_node_that_was_made_anew_with_other_cidrs(
    api: Api, kube: KubeStore, cidrs: tuple[str, ...]
) -> None:
    """Another node may have its pod CIDRs now, and could not register beside it."""
    register_one(kube)
    api.objects.delete(NODES, NODE_ONE)
    Nodes(api).put(NODE_ONE, *cidrs)
    before = api.objects.get(NODE_NETWORKS, NODE_ONE)

    for _ in range(2):
        with pytest.raises(PlaceLost, match="made the Node node-one anew"):
            kube.heartbeat(NODE_ONE)

    assert api.objects.get(NODE_NETWORKS, NODE_ONE) == before


def test_a_record_that_went_before_its_first_heartbeat_is_a_place_that_is_lost(
    kube: KubeStore,
) -> None:
    with pytest.raises(PlaceLost, match="is not registered"):
        kube.heartbeat(NODE_ONE)


def test_a_machine_that_registered_last_has_the_place_and_one_that_was_refused_has_not(
    kube: KubeStore,
) -> None:
    kube.register(NODE_ONE, VTEP_ONE, identity="x", instance="a")
    ours = kube.heartbeat(NODE_ONE, instance="b")
    theirs = kube.heartbeat(NODE_ONE, instance="a")

    assert ours is not None
    assert ours.has_place
    assert theirs is not None
    assert not theirs.has_place


def test_a_rival_that_gave_no_sign_for_long_is_none(kube: KubeStore) -> None:
    register_one(kube)
    note = own.note(Rival("other", "192.0.2.9"), time.time() - own.RIVAL_LASTS - 1)
    kube.client.merge(
        f"{NODE_NETWORKS}/{NODE_ONE}", {"metadata": {"annotations": {heart.RIVAL: note}}}
    )

    assert kube.heartbeat(NODE_ONE, instance="a") is None


# Published addresses


def test_of_two_that_publish_an_address_at_once_one_has_it(kube: KubeStore) -> None:
    """The other has claimed it, and not told anybody yet."""
    register_one(kube), register_two(kube)
    assert kube._blocks.claim(ELSEWHERE, NODE_TWO, uid="u") == NODE_TWO

    assert kube.publish(NODE_ONE, ELSEWHERE) == NODE_TWO

    assert kube.nodes()[0].extra == ()


def test_an_address_that_kubernetes_may_give_away_is_not_published(kube: KubeStore) -> None:
    register_one(kube)

    with pytest.raises(StoreError, match="which Kubernetes gives to nodes"):
        kube.publish(NODE_ONE, IN_THE_NEXT_NODES)


def test_a_claim_that_a_killed_publishing_left_is_swept_when_it_is_old(
    api: Api, kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    kube._blocks.claim(ELSEWHERE, NODE_ONE, uid="u")
    register_one(kube)
    assert len(api.objects.list(POD_BLOCKS)) == 1

    monkeypatch.setattr("pycni.stores.kube.blocks.YOUNG", -60.0)
    register_one(kube)

    assert api.objects.list(POD_BLOCKS) == []


def test_a_claim_that_is_withdrawn_is_gone_and_so_are_those_of_a_removed_node(
    api: Api, kube: KubeStore
) -> None:
    register_one(kube)
    kube.publish(NODE_ONE, ELSEWHERE)
    kube.withdraw(NODE_ONE, ELSEWHERE)
    assert api.objects.list(POD_BLOCKS) == []
    kube.publish(NODE_ONE, ELSEWHERE)

    kube.remove(NODE_ONE)

    assert api.objects.list(POD_BLOCKS) == []


def test_a_claim_that_comes_and_goes_is_tried_again_later(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "create", lambda *_: False)
    with pytest.raises(TryAgain, match="comes and goes"):
        kube._blocks.claim(ELSEWHERE, NODE_ONE, uid="u")


def test_an_own_object_that_changes_all_the_time_is_tried_again_later(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    monkeypatch.setattr(Client, "apply", lambda *_: False)
    with pytest.raises(TryAgain, match="changes all the time"):
        kube.publish(NODE_ONE, ELSEWHERE)


def test_a_change_of_the_own_object_meanwhile_is_not_lost(
    kube: KubeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    register_one(kube)
    other = ip_network("10.215.0.34/32")
    apply, calls = Client.apply, []

    def late(self: Client, path: str, document: dict[str, object]) -> bool:
        calls.append(path)
        if len(calls) == 1:
            kube.publish(NODE_ONE, other)
        return apply(self, path, document)

    monkeypatch.setattr(Client, "apply", late)
    kube.publish(NODE_ONE, ELSEWHERE)

    assert set(kube.nodes()[0].extra) == {ELSEWHERE, other}


# Who may write


def test_a_node_writes_its_own_objects_only(api: Api, tmp_path: Path) -> None:
    api.tokens, api.node_of = {"one", "two", "admin"}, {"one": NODE_ONE, "two": NODE_TWO}
    stores = {}
    for token in ("admin", "one", "two"):
        url = f"kube:{kubeconfig(tmp_path, api, token=token)}"
        stores[token] = open_store(url, CLUSTER, create=token == "admin")
    register_one(stores["one"])

    with pytest.raises(StoreError, match="denied"):
        stores["two"].register(NODE_ONE, VTEP_ONE, identity=MACHINE_ONE)
    with pytest.raises(StoreError, match="denied") as caught:  # as `pycni forget` in a pod
        stores["two"].remove(NODE_ONE)

    assert "as administrator use kubectl" in caught.value.hint

    assert [node.name for node in stores["two"].nodes()] == [NODE_ONE]


def test_nothing_but_a_record_is_set_aside(api: Api, kube: KubeStore) -> None:
    specs: list[object] = [{}, [], None, "text", {"vtep": {}}]
    for number, spec in enumerate(specs):
        api.objects.put(NODE_NETWORKS, f"odd-{number}", {"spec": spec})
    with closing(watch(kube)) as events:
        assert {type(next(events)) for _ in range(5)} == {Rejected}
        assert next(events) == Synced()


def test_without_tls_a_store_warns(kube: KubeStore) -> None:
    assert "without TLS" in kube.warnings()[0]
