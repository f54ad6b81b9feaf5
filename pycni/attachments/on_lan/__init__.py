# SPDX-License-Identifier: Apache-2.0
"""One CNI call about a pod on the LAN: macvlan and ipvlan (docs/lan.md)."""
