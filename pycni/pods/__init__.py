# SPDX-License-Identifier: Apache-2.0
"""What a pod has on its node: link, lease, endpoints, source rules, host ports, rate limits."""
