"""The kernel's interfaces: rtnetlink, nftables, conntrack, sysctl, network namespaces."""
