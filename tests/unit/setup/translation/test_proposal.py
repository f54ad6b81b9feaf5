# SPDX-License-Identifier: Apache-2.0
"""pycni/setup/translation/proposal.py: what comes out is right, or does not come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_test
from hypothesis import strategies as st

from pycni.errors import PycniError
from pycni.settings import load
from pycni.setup import config_check, conflist
from pycni.setup.translation.plugins import PLUGINS
from unit.setup.translation.samples import (
    BASH_CNI,
    BRIDGE,
    FLANNEL,
    MINICNI,
    NET_CONF,
    PODCIDR,
    PORTMAP,
    PROTOTYPE,
    finding,
    listed,
    result,
)

RANGED = PROTOTYPE | {"ipam": {"rangeStart": "10.244.0.10", "rangeEnd": "10.244.0.90"}}


@pytest.mark.parametrize(
    ("document", "cluster"),
    [
        (PROTOTYPE, ()),
        (RANGED, ()),
        (MINICNI, ()),
        (BASH_CNI | {"mtu": 1400, "dns": {"domain": "example"}}, ()),
        (PODCIDR, ("10.240.0.0/16",)),
        (listed(BRIDGE, PORTMAP, {"type": "tuning"}), ("10.88.0.0/16",)),
        (FLANNEL, ()),
        (NET_CONF, ()),
    ],
)
def test_what_is_proposed_passes_the_checks(
    tmp_path: Path, document: Any, cluster: tuple[str, ...]
) -> None:
    done = result(document, *cluster)
    file, network = tmp_path / "pycni.toml", tmp_path / "list"
    file.write_text(f'node_name = "n1"\n{done.settings}')
    network.write_text(json.dumps(done.network))

    assert done.refused == []
    settings = load(file)
    if done.network is not None:
        assert config_check.problems(network, settings) == []
        conflist.check(dict(done.network))


def test_the_list_is_the_operators() -> None:
    content = json.dumps(result(PROTOTYPE).network).encode()

    assert not conflist.is_ours(content)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (PROTOTYPE | {"subnet": "127.0.0.0/8"}, "pods cannot have addresses out of 127.0.0.0/8"),
        (PROTOTYPE | {"subnet": "224.0.0.0/8"}, "pods cannot have addresses"),
        (PROTOTYPE | {"subnet": "fd00::/56", "mtu": 1000}, "from 1280"),
        (NET_CONF | {"SubnetLen": 12}, "node_prefix"),
    ],
)
def test_what_setup_or_add_would_refuse_is_refused(document: Any, problem: str) -> None:
    done = result(document)

    assert problem in finding(document, "all keys together").says
    assert (done.settings, done.network) == ("", None)


def test_networks_that_differ_are_refused() -> None:
    found = finding(NET_CONF, "all keys together", "10.245.0.0/16")

    assert "2 cluster CIDRs" in found.says


def test_the_name_of_this_host_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCNI_NODE_NAME", "no_dns_name!")

    assert result(PROTOTYPE).refused == []


def test_a_refusal_leaves_nothing_to_be_copied_by_mistake() -> None:
    done = result(PROTOTYPE | {"mode": "geneve"})

    assert [one.key for one in done.refused] == ["mode"]
    assert (done.settings, done.network) == ("", None)


def test_an_unknown_key_of_the_list_is_refused() -> None:
    found = finding(listed(BRIDGE) | {"plugin": []}, "plugin", "10.88.0.0/16")

    assert "unknown key" in found.says


def test_errors_are_of_the_one_tree() -> None:
    documents: tuple[Any, ...] = ([], {}, {"type": "x"}, {"plugins": 3})
    for content in documents:
        with pytest.raises(PycniError):
            result(content)


KEYS = st.sampled_from(
    [*PROTOTYPE, *MINICNI, "plugins", "ipam", "rangeStart", "rangeEnd", "ranges", "podcidr",
     "delegate", "Network", "Backend", "Type", "dns", "capabilities", "gateway", "routes", "dst"]
)  # fmt: skip
LEAVES = st.sampled_from(
    ["testcni", "bash-cni", "bridge", "flannel", "vxlan", "portmap", "10.0.0.0/8", "10.1.0.0/24",
     "10.0.0.9", "fd00::/56", "fd00::9", "::ffff:1.2.3.4", "", "\ud800", 0, 24, 10**30, 0.5, True,
     None]
)  # fmt: skip
DOCUMENTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6)
)

FILES = st.builds(
    lambda document, kind: document | kind,
    st.dictionaries(KEYS, DOCUMENTS, max_size=8),
    st.sampled_from([{}, *({"type": one, "name": "n", "mode": "vxlan"} for one in PLUGINS)]),
)


@settings_of_test(max_examples=100, deadline=None)
@given(FILES, st.sampled_from([(), ("10.0.0.0/8",)]))
def test_whatever_is_in_a_file_it_is_translated_or_told(
    document: Any, cluster: tuple[str, ...]
) -> None:
    try:
        done = result(document, *cluster)
    except PycniError:
        return
    assert done.refused or done.settings or done.network
    assert all(one.says for one in done.findings)
