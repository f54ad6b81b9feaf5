"""The pinned BPF maps of a node, typed."""
