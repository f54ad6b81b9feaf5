# SPDX-License-Identifier: Apache-2.0
"""Upkeep: one description of what a node must have, and what is not so.

`setup` makes a node from it, the agent mends by it, `pycni status` prints it, and the plugin's
STATUS asks for its cheap part. There is no other list of checks.
"""
