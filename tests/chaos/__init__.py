# SPDX-License-Identifier: Apache-2.0
"""Chaos: damage of every kind to the nodes of a lab, in random order, while traffic flows."""
