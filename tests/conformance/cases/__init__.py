# SPDX-License-Identifier: Apache-2.0
"""The cases for every plugin. Importing this registers all of them."""

from conformance.cases import (
    add,
    capabilities,
    chain,
    check,
    concurrency,
    configuration,
    delegation,
    delete,
    dns,
    environment,
    garbage,
    gc,
    hostlocal,
    kills,
    netns,
    requests,
    status,
    version,
)

__all__ = [
    "add",
    "capabilities",
    "chain",
    "check",
    "concurrency",
    "configuration",
    "delegation",
    "delete",
    "dns",
    "environment",
    "garbage",
    "gc",
    "hostlocal",
    "kills",
    "netns",
    "requests",
    "status",
    "version",
]
