# SPDX-License-Identifier: Apache-2.0
"""Which addresses, routes and DNS an attachment gets: from our pools, or from another plugin."""
