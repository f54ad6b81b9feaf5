# SPDX-License-Identifier: Apache-2.0
"""One end of a tunnel of WireGuard, as wg(8) makes it.

`wireguard.py DEVICE` gives the device a key of its own, and prints the public one.
`wireguard.py DEVICE KEY ADDRESS` has it send everything to who has that key, at that address.
"""

from __future__ import annotations

import base64
import os
import sys

from pyroute2 import WireGuard

PORT = 51820

device, *peer = sys.argv[1:]
with WireGuard() as wireguard:
    if peer:
        key, address = peer
        wireguard.set(
            device,
            peer={
                "public_key": key,
                "endpoint_addr": address,
                "endpoint_port": PORT,
                "allowed_ips": ["0.0.0.0/0", "::/0"],
            },
        )
    else:
        private = base64.b64encode(os.urandom(32)).decode()
        wireguard.set(device, listen_port=PORT, private_key=private)
        (found, *_) = wireguard.info(device)
        public = found.get("WGDEVICE_A_PUBLIC_KEY")
        print(public.decode() if isinstance(public, bytes) else public)  # noqa: T201
