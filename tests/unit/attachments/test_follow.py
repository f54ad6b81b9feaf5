"""pycni/attachments/follow.py: the endpoints of all leases follow their links."""

from dataclasses import replace
from ipaddress import ip_address

from pycni.attachments import follow
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


def test_one_link_that_fails_does_not_keep_the_others_from_being_followed(monkeypatch):
    other = replace(POD, ifindex=43)
    followed = []

    def follow_one(_ipr, _settings, lease):
        if lease is POD:
            raise DataplaneError("this one cannot")
        followed.append(lease.ifindex)

    monkeypatch.setattr(follow, "leases", lambda _: iter([POD, other]))
    monkeypatch.setattr(follow, "follow", follow_one)

    assert follow.follow_all(None, None) == ["this one cannot"]
    assert followed == [43]
