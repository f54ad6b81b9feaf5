# SPDX-License-Identifier: Apache-2.0
"""The kernel's interfaces: rtnetlink, nftables, conntrack, sysctl, network namespaces."""
