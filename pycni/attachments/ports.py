# SPDX-License-Identifier: Apache-2.0
"""Host ports of an attachment, opened by its ADD. Runs in the node's network namespace."""

from __future__ import annotations

from pycni.attachments.attaching import Attaching
from pycni.cni import requests
from pycni.errors import NotAvailable
from pycni.pods import host_ports
from pycni.pods.port_records import PortRecord
from pycni.upkeep.host_ports import mend


def open_for(one: Attaching) -> None:
    """Open the ports that an ADD asks for, with their undo; makes the table if it is lost.

    Raises HostPortTaken, InvalidConfig, SetupError, NetlinkError, FileError.
    """
    forwards = host_ports.plan(
        one.wanted.ports, one.lease.addresses, owner=one.call.request.container_id
    )
    if not forwards:
        return
    pod = requests.pod_name(one.call.request)
    record = PortRecord(one.call.key.digest, pod, tuple(forwards))
    one.undo.callback(host_ports.teardown, one.settings, record)
    try:
        host_ports.setup(one.ipr, one.settings, record)
    except NotAvailable:
        mend(one.ipr, one.settings, one.node)
        host_ports.setup(one.ipr, one.settings, record)
