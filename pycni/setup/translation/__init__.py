# SPDX-License-Identifier: Apache-2.0
"""The configuration of another network plugin, as settings and a network list of pycni.

Pure, but for `source.read`: nothing here looks at a node. A key becomes something, is not needed,
or is refused with what fits instead; no key is passed over. What a key means is in tables of rules
(`plugins.py`, `followers.py`, `ipam.py`, `net_conf.py`), and `proposal.py` puts together what they
found.
"""
