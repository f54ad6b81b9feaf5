# SPDX-License-Identifier: Apache-2.0
"""Pods straight on the uplink's network: their macvlan or ipvlan links, their leases, the node's
own child.

Packets of these pods pass none of our programs (docs/lan.md).
"""
