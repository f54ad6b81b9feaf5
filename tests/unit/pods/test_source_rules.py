# SPDX-License-Identifier: Apache-2.0
"""pycni/pods/source_rules.py: the rules of a pod's further interface, and what refuses them."""

import errno
from ipaddress import ip_address

import pytest

from pycni.errors import PycniError
from pycni.kernel.netlink import NetlinkError
from pycni.kernel.rules import Rule
from pycni.pods import pod_end, source_rules

POD, POD6 = ip_address("10.244.1.5"), ip_address("fd00:10:244:1::5")
INDEX = 3


class Pod:
    """In the place of an Rtnl in the pod: remembers rules, refuses those of some versions."""

    def __init__(self, refused=0, code=errno.EAFNOSUPPORT):
        self.rules = []
        self.refused, self.code = refused, code

    def add_rule(self, rule):
        if rule.source.version == self.refused:
            raise NetlinkError(self.code)
        self.rules.append(rule)

    def delete_rule(self, rule):
        (found,) = [one for one in self.rules if one.source == rule.source] or [None]
        if found is None:
            raise NetlinkError(errno.ENOENT)
        self.rules.remove(found)


def test_each_address_has_a_rule_until_it_is_removed():
    pod = Pod()

    source_rules.setup(pod, INDEX, [POD, POD6])
    assert pod.rules == [
        Rule(one, source_rules.PRIORITY, source_rules.table_of(INDEX)) for one in (POD, POD6)
    ]
    source_rules.remove(pod, [POD, POD6])
    source_rules.remove(pod, [POD, POD6])

    assert pod.rules == []


def test_rules_that_the_kernel_refuses_leave_none_and_say_what_is_missing():
    pod = Pod(refused=6)

    with pytest.raises(PycniError, match="eth1") as error:
        pod_end._add_rules(pod, INDEX, [POD, POD6], ifname="eth1")

    assert pod.rules == []
    assert "MULTIPLE_TABLES" in error.value.hint


def test_another_refusal_to_remove_is_told():
    class Stuck:
        def delete_rule(self, _):
            raise NetlinkError(errno.EPERM)

    with pytest.raises(NetlinkError):
        source_rules.remove(Stuck(), [POD])


def test_two_interfaces_of_a_pod_have_two_tables():
    assert source_rules.table_of(2) != source_rules.table_of(3)
