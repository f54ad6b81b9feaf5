# SPDX-License-Identifier: Apache-2.0
"""The CNI contract: what runtimes send and get, and the plugin that they execute."""
