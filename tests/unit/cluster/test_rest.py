# SPDX-License-Identifier: Apache-2.0
"""tests/cluster/rest.py: what counts as a write."""

from cluster import rest

METRICS = """\
# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",group="pycni.dev",resource="nodenetworks",verb="LIST"} 7
apiserver_request_total{code="200",group="pycni.dev",resource="nodenetworks",verb="WATCH"} 3
apiserver_request_total{code="200",group="pycni.dev",resource="nodenetworks",verb="APPLY"} 2
apiserver_request_total{code="409",group="pycni.dev",resource="nodenetworks",verb="APPLY"} 1
apiserver_request_total{code="201",group="pycni.dev",resource="podblocks",verb="POST"} 4
apiserver_request_total{code="200",group="",resource="nodes",verb="PATCH"} 9
# TYPE other_total counter
other_total{group="pycni.dev",resource="nodenetworks",verb="PATCH"} 5
"""


def test_requests_that_may_write_are_counted_whatever_became_of_them():
    assert rest.writes(METRICS) == {("APPLY", "nodenetworks"): 3, ("POST", "podblocks"): 4}


def test_a_write_is_seen_as_one_more():
    more = rest.writes(METRICS.replace("} 2\n", "} 3\n")) - rest.writes(METRICS)

    assert more == {("APPLY", "nodenetworks"): 1}
    assert not rest.writes(METRICS) - rest.writes(METRICS)
