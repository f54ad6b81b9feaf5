# SPDX-License-Identifier: Apache-2.0
"""The settings file: defaults, every kind of mistake, and what only keys together violate."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from pycni import settings
from pycni.errors import InvalidSettings
from pycni.settings import Settings, lines

FILE = Path("/etc/pycni/pycni.toml")


def parse(text: str) -> Settings:
    return settings.parse(text, FILE)


def refused(text: str) -> InvalidSettings:
    with pytest.raises(InvalidSettings) as caught:
        parse(text)
    return caught.value


def test_an_absent_default_file_means_all_defaults(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "SETTINGS_PATH", tmp_path / "pycni.toml")
    monkeypatch.setattr(socket, "gethostname", lambda: "Node-One")

    loaded = settings.load()

    assert loaded.node_name == "node-one"
    assert loaded.vtep is None
    assert loaded.encap == "auto"
    assert loaded.store_url == "sqlite:/var/lib/pycni/cluster.db"
    assert loaded.socket_path == Path("/run/pycni/agent.sock")
    assert loaded.pin_root == Path("/sys/fs/bpf/pycni")
    assert loaded.cluster.cidrs == settings.DEFAULT_CLUSTER_CIDRS
    assert (loaded.cluster.node_prefix4, loaded.cluster.node_prefix6) == (24, 64)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="there is no settings file"):
        settings.load(tmp_path / "pycni.toml")


def test_a_file_is_read_with_its_values(tmp_path: Path) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text(
        """
        node_name = "worker-1.example"
        uplink = "eth0"
        vtep = "2001:db8::1"
        state_dir = "/srv/pycni"
        cluster_cidrs = ["10.32.0.0/12"]
        node_prefix = { ipv4 = 25 }
        vni = 42
        port = 8472
        mtu = 1400
        masquerade_mark = 0x100
        link_local_services = ["169.254.169.254"]
        """
    )

    loaded = settings.load(file)

    assert loaded.node_name == "worker-1.example"
    assert loaded.vtep == ip_address("2001:db8::1")
    assert loaded.store_url == "sqlite:/srv/pycni/cluster.db"
    assert loaded.cluster.cidrs == (ip_network("10.32.0.0/12"),)
    assert loaded.cluster.node_prefix4 == 25
    assert (loaded.vni, loaded.port, loaded.mtu) == (42, 8472, 1400)
    assert loaded.masquerade_mark == 0x100
    assert loaded.link_local_services == (ip_address("169.254.169.254"),)


def test_a_named_store_is_taken_as_it_is() -> None:
    assert parse('store = "sqlite:/shared/nodes.db"').store_url == "sqlite:/shared/nodes.db"


def test_services_need_a_place_where_they_are_listed() -> None:
    with pytest.raises(InvalidSettings, match="line 1: services = 'pods': there are none in store"):
        parse('services = "pods"')
    assert parse('services = "pods"\nservices_file = "/x.yaml"').services_file == Path("/x.yaml")
    assert parse('services_file = ""').services_file is None
    in_kubernetes = 'node_name = "one"\nservices = "pods"\nstore = "kube:"'
    assert parse(in_kubernetes).has_services


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse("").vni = 8


ENCAPS = 'must be "ebpf", "kernel", "auto", "direct", "auto-direct" or "ipip"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('node_name = "A_b"', "node_name = 'A_b': must be a DNS name"),
        ('node_name = ""', "node_name = '': must be a DNS name"),
        (f'node_name = "{"a." * 130}a"', "must be a DNS name"),
        ('node_name = "a\\n"', "must be a DNS name"),
        ('uplink = "an-overlong-name"', "uplink = 'an-overlong-name': must be the name"),
        ('uplink = "a/b"', "uplink = 'a/b': must be the name"),
        ('uplink = ".."', "uplink = '..': must be the name"),
        ('vtep = "node-one"', "vtep = 'node-one': must be an IP address"),
        ("vtep = 4", "vtep = 4: must be an IP address in quotes"),
        ('vtep = "127.0.0.1"', "vtep = '127.0.0.1': must be an address other nodes can reach"),
        ('vtep = "fe80::1"', "vtep = 'fe80::1': must be an address other nodes can reach"),
        ('vtep = "10.244.0.1"', "vtep = '10.244.0.1': must not be in one of cluster_cidrs"),
        ('state_dir = "state"', "state_dir = 'state': must be an absolute path"),
        ("bpffs = 1", "bpffs = 1: must be an absolute path"),
        ("store = 3", "store = 3: must be text in quotes"),
        ('cluster_cidrs = "10.0.0.0/8"', "cluster_cidrs = '10.0.0.0/8': must be a list"),
        ("cluster_cidrs = []", "cluster_cidrs and node_prefix: 0 cluster CIDRs"),
        ('cluster_cidrs = ["10.0.0.0/8", "11.0.0.0/8"]', "2 cluster CIDRs"),
        ('cluster_cidrs = ["10.0.0.1/8"]', "did you mean '10.0.0.0/8'?"),
        ('cluster_cidrs = ["10.0.0.0"]', "must be a network with its prefix length"),
        ('cluster_cidrs = ["10.0.0.0/64"]', "is no network"),
        ("node_prefix = 24", "node_prefix = 24: must be a table"),
        ('node_prefix = { ipv4 = "24" }', "node_prefix.ipv4 = '24': must be a whole number"),
        ("node_prefix = { ipv4 = 12 }", "nodes cannot have a /12 each out of"),
        ("vni = 0", "vni = 0: must be from 1 to 16777215"),
        ("vni = 16777216", "vni = 16777216: must be from 1 to 16777215"),
        ("vni = true", "vni = True: must be a whole number"),
        ("port = 65536", "port = 65536: must be from 1 to 65535"),
        ("encap = 'bpf'", f"encap = 'bpf': {ENCAPS}"),
        ("encap = true", f"encap = True: {ENCAPS}"),
        ("mtu = 575", "mtu = 575: must be 0 (automatic) or from 576"),
        ("mtu = 1279", "mtu = 1279: must be 1280 or more with IPv6 pods"),
        ("masquerade_mark = 0", "masquerade_mark = 0: must have exactly one"),
        ("masquerade_mark = 3", "masquerade_mark = 3: must have exactly one"),
        ("masquerade_mark = -1", "masquerade_mark = -1: must have exactly one"),
        ("masquerade_mark = 0x100000000", "must have exactly one of 32 bits"),
        ("masquerade_mark = 0x4000", "is a bit of kube-proxy's"),
        ("masquerade_mark = 0x8000", "is a bit of kube-proxy's"),
        ("answer_unreachable = 1", "answer_unreachable = 1: must be true or false"),
        ("link_local_services = true", "link_local_services = True: must be a list in brackets"),
        ('link_local_services = ["10.0.0.1"]', "must be an IPv4 link-local address"),
        ('link_local_services = ["fe80::1"]', "must be an IPv4 link-local address"),
        ("link_local_services = [7]", "must be an IPv4 link-local address"),
        ('link_local_services = ["here"]', "must be an IPv4 link-local address"),
        (
            'link_local_services = ["169.254.0.1", "169.254.0.2", "169.254.0.3", "169.254.0.4", '
            '"169.254.0.5"]',
            "must be 4 addresses or fewer",
        ),
        (f'run_dir = "/{"x" * 96}"', "must be 96 bytes or less, for a socket"),
        ("vni = ", "is not TOML"),
        ('uplink = "pycni0"', "uplink = 'pycni0': is pycni's own device"),
        ('uplink = "pcn0123456789ab"', "is the name of a pod's link"),
        ('state_dir = "/run/pycni"', "run_dir = '/run/pycni': must not be state_dir"),
        ('state_dir = "/srv"\nrun_dir = "/srv/x/.."', "line 2: run_dir = '/srv/x/..': must not"),
        (
            'state_dir = "/run/pycni/state"',
            "state_dir = '/run/pycni/state': must not be in run_dir",
        ),
        ('state_dir = "/sys/fs/bpf/pycni"', "must not be in /sys, where only the kernel"),
        ('run_dir = "/run/../proc/1"', "must not be in /proc"),
        ('cache_dir = "/proc/1"', "line 1: cache_dir = '/proc/1': must not be in /proc"),
        ('bpffs = "/var/lib"', "state_dir = '/var/lib/pycni': must not be in bpffs (/var/lib)"),
        ('bpffs = "/proc/bpf"', "must not be in /proc, where nothing can be mounted"),
        ('store = "sqlite:/proc/x.db"', "store = 'sqlite:/proc/x.db': must not be in /proc"),
    ],
)
def test_a_wrong_value_is_refused_with_key_value_and_file(text: str, message: str) -> None:
    error = refused(text)

    assert message in error.message
    assert str(FILE) in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("vtpe = 1", "unknown key vtpe: did you mean vtep?"),
        ("node_prefix = { ipv5 = 64 }", "unknown key node_prefix.ipv5: did you mean ipv"),
        ("zzz = 1", "unknown key zzz: there are node_name, uplink, "),
    ],
)
def test_an_unknown_key_is_refused_with_a_guess(text: str, message: str) -> None:
    assert message in refused(text).message


def test_all_mistakes_are_told_at_once() -> None:
    message = refused("vni = 0\nport = 0\nvtpe = 1").message

    assert "vni = 0" in message
    assert "port = 0" in message
    assert "vtpe" in message


def test_a_hostname_that_is_no_node_name_is_said_to_be_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "my_host")

    assert "node_name = 'my_host' (not set in the file; this is the default)" in refused("").message


@pytest.mark.parametrize("store", ["kube:", "kube:/etc/kubernetes/admin.conf"])
def test_a_node_of_kubernetes_has_the_name_that_its_pod_is_told(
    monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """A Node may have another name than its host."""
    monkeypatch.setenv("PYCNI_NODE_NAME", "worker-7.example")
    monkeypatch.setattr(socket, "gethostname", lambda: "ip-10-0-0-7")

    assert parse(f"store = '{store}'").node_name == "worker-7.example"
    assert parse(f"store = '{store}'\nnode_name = 'other'").node_name == "other"


def test_a_node_of_kubernetes_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYCNI_NODE_NAME", raising=False)

    error = refused("store = 'kube:'")

    assert "node_name is not set" in error.message
    assert "spec.nodeName" in error.hint


def test_a_name_in_the_environment_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCNI_NODE_NAME", "no_name")

    error = refused("store = 'kube:'")

    assert error.message.startswith("PYCNI_NODE_NAME = 'no_name' in the environment")
    assert "--hostname-override" in error.hint


def test_a_nodes_name_may_be_long_but_not_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes' names have up to 253 characters, DNS' labels up to 63."""
    longest = ".".join(["n" * 63] * 3 + ["n" * 61])
    assert len(longest) == 253
    monkeypatch.setenv("PYCNI_NODE_NAME", longest)
    assert parse("store = 'kube:'").node_name == longest

    monkeypatch.setenv("PYCNI_NODE_NAME", "n" * 64)

    assert "in labels of 63" in refused("store = 'kube:'").message


def test_a_pod_has_its_nodes_name_from_the_environment_and_a_file_goes_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    monkeypatch.setenv(settings.NODE_NAME, "node-seven.example.net")

    assert parse("").node_name == "node-seven.example.net"
    assert parse('node_name = "other"').node_name == "other"
    monkeypatch.setenv(settings.NODE_NAME, "Node_Seven")
    assert "node_name = 'Node_Seven'" in refused("").message
    monkeypatch.setenv(settings.NODE_NAME, "")
    assert parse("").node_name == "host"


def test_a_small_mtu_is_enough_without_ipv6() -> None:
    assert parse('mtu = 576\ncluster_cidrs = ["10.0.0.0/8"]').mtu == 576


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pycni.toml"
    file.write_bytes(b"\xff")

    with pytest.raises(InvalidSettings, match="is not UTF-8"):
        settings.load(file)


def test_a_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="cannot be read") as caught:
        settings.load(tmp_path)

    assert caught.value.hint == "it must be a regular file that root can read"


def test_what_never_ends_is_refused_at_once(tmp_path: Path) -> None:
    pipe, huge = tmp_path / "pipe", tmp_path / "huge"
    os.mkfifo(pipe)
    with huge.open("wb") as file:
        file.truncate(1 << 40)

    for path, why in (
        (Path("/dev/zero"), "it is a device, not a regular file"),
        (pipe, "it is a pipe, not a regular file"),
        (huge, "it has more than 1048576 bytes"),
    ):
        with pytest.raises(InvalidSettings) as caught:
            settings.load(path)

        assert caught.value.message == f"{path} cannot be read: {why}"


def test_directories_are_compared_behind_links(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "run")

    error = refused(f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"')

    assert f"must not be state_dir ({tmp_path}/state)" in error.message


def test_a_run_directory_in_the_state_directory_is_allowed() -> None:
    assert parse('run_dir = "/var/lib/pycni/run"').run_dir == Path("/var/lib/pycni/run")


def test_a_user_who_may_not_read_the_file_is_told_to_be_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(settings, "read_regular", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(InvalidSettings, match="cannot be read") as caught:
        settings.load(tmp_path / "pycni.toml")

    assert caught.value.hint == "run it as root"


def test_directories_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    loaded = Settings(
        node_name="node-one",
        state_dir=tmp_path / "state",
        run_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
    )

    settings.make_directories(loaded)
    settings.make_directories(loaded)

    for directory in (loaded.state_dir, loaded.run_dir, loaded.cache_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("# a node\n\nvni = 0", "line 3: vni = 0"),
        ("port = 1\nmut = 1450", "line 2: unknown key mut"),
        ("\nnode_prefix = { ipv4 = '24' }", "line 2: node_prefix.ipv4 = '24'"),
        ("\n[node_prefix]\nipv6 = 64\nipv4 = '24'", "line 4: node_prefix.ipv4 = '24'"),
        ("\nnode_prefix . ipv4 = '24'", "line 2: node_prefix.ipv4 = '24'"),
        ("\n\nmtu = 1279", "line 3: mtu = 1279"),
        ("\nvtep = '10.244.0.1'", "line 2: vtep = '10.244.0.1'"),
        (f"\nrun_dir = '/{'x' * 96}'", "line 2: run_dir = '/x"),
        ("vni = 1\nport = x", "(at line 2, column 8)"),
    ],
)
def test_the_line_of_a_mistake_is_named(text: str, place: str) -> None:
    assert place in refused(text).message


def test_each_of_several_mistakes_has_its_line() -> None:
    message = refused("vni = 0\nport = 0\n").message

    assert "line 1: vni = 0" in message
    assert "line 2: port = 0" in message


def test_a_default_that_is_wrong_has_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no_dns_name")

    assert "pycni.toml: node_name = " in refused("vni = 1\n").message


@pytest.mark.parametrize(
    "text",
    [
        "\n'vni' = 0\n",
        '\n"vni" = 0\n',
        "\nvni = 0 # port = 3\n",
        'store = """\nvni = 3"""\nvni = 0\n'.replace("vni = 3", "x"),
        "# vni = 1\nnode_prefix.ipv4 = 'x'\n",
        "\nnode_prefix = { ipv4 = 'x' }\n",
        "[node_prefix]\nipv4 = 3.5\n",
        '[ "node_prefix" ]\nipv4 = 3.5\n',
        "\nvni = [\n1\n",
        "\ncluster_cidrs = ['10.0.0.0/8', '10.244.0.0/16']\n",
        "\nnode_prefix = { ipv4 = 8 }\n",
        "vni = 7\nvni = 8\n",
    ],
)
def test_every_error_names_a_line(text: str) -> None:
    found = re.search(r"line (\d+)", refused(text).message)

    assert found is not None, refused(text).message
    assert int(found[1]) in (2, 3, 4)


def test_lines_are_those_of_the_keys(tmp_path: Path) -> None:
    file = tmp_path / "pycni.toml"
    file.write_text("# first\nvni = 7\n\n[node_prefix]\nipv6 = 64\n")

    assert lines(file) == {"vni": 2, "node_prefix": 4, "node_prefix.ipv6": 5}


def test_a_choice_names_what_there_is_to_choose() -> None:
    assert (
        'log_format = \'xml\': must be "logfmt" or "json"' in refused("log_format = 'xml'").message
    )


def test_processes_are_kept_from_the_overlays_port_unless_a_setting_lets_them() -> None:
    assert parse("").vxlan_by_kernel_only
    assert not parse("vxlan_by_kernel_only = false").vxlan_by_kernel_only
    assert "vxlan_by_kernel_only = 'no': must be true or false" in (
        refused('vxlan_by_kernel_only = "no"').message
    )
