# SPDX-License-Identifier: Apache-2.0
"""The two ways to attach a pod: by a link whose packets pass our programs, or on the LAN.

The network's `device` says which. DEL and GC go by what is there instead, whatever the network has
become since: delete.py and gc.py know both.
"""

from __future__ import annotations

from pycni.attachments import add as by_programs
from pycni.attachments import check as programs_check
from pycni.attachments import status as programs_status
from pycni.attachments.on_lan import add as on_lan
from pycni.attachments.on_lan import check as lan_check
from pycni.attachments.on_lan import status as lan_status
from pycni.cni.call import Call
from pycni.cni.result import Result


def add(call: Call) -> Result:
    """ADD. Raises PycniError; then nothing is left behind."""
    return on_lan.add(call) if call.conf.on_lan else by_programs.add(call)


def check(call: Call) -> None:
    """CHECK. Raises CheckMismatch, UnknownContainer."""
    lan_check.check(call) if call.conf.on_lan else programs_check.check(call)


def status(call: Call) -> None:
    """STATUS. Raises NotAvailable, InvalidConfig."""
    lan_status.check(call) if call.conf.on_lan else programs_status.check(call)
