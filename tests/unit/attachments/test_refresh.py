"""pycni/attachments/refresh.py: the endpoints of all leases are as their links."""

from dataclasses import replace
from ipaddress import ip_address

from pycni.attachments import refresh
from pycni.errors import DataplaneError
from pycni.names import AttachmentKey
from pycni.pods.lease import Lease

POD = Lease(
    key_digest=AttachmentKey("podnet", "c1", "eth0").digest,
    network="podnet",
    container_id="c1",
    ifname="eth0",
    mac="02:00:00:00:00:01",
    addresses=(ip_address("192.0.2.1"),),
    masquerade=True,
    ifindex=42,
)


def test_one_link_that_fails_does_not_keep_the_others_from_being_refreshed(monkeypatch):
    other = replace(POD, ifindex=43)
    refreshed = []

    def refresh_one(_ipr, _settings, lease):
        if lease is POD:
            raise DataplaneError("this one cannot")
        refreshed.append(lease.ifindex)

    monkeypatch.setattr(refresh, "leases", lambda _: iter([POD, other]))
    monkeypatch.setattr(refresh, "refresh", refresh_one)

    assert refresh.refresh_all(None, None) == ["this one cannot"]
    assert refreshed == [43]
