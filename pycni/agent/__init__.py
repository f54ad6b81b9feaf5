# SPDX-License-Identifier: Apache-2.0
"""The node agent: the process that answers the plugin and keeps the node true."""
