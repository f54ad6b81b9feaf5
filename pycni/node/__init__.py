# SPDX-License-Identifier: Apache-2.0
"""What makes a host a node: overlay, uplink, ways to the other nodes, masquerading, its record."""
