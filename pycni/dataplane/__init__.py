# SPDX-License-Identifier: Apache-2.0
"""The pinned BPF maps of a node, typed."""
