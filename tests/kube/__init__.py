# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes store against a real API server, which `make cluster` built: `make test-kube`."""
