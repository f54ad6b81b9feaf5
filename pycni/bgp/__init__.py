# SPDX-License-Identifier: Apache-2.0
"""BGP by BIRD 2: its configuration, its control socket, and what is learnt from it.

BIRD is a process of its own, which this package neither starts nor ends. It routes no packet.
"""
