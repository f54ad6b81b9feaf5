# SPDX-License-Identifier: Apache-2.0
"""Making a host a node and undoing it; installing the plugin and the systemd units."""
