# SPDX-License-Identifier: Apache-2.0
"""One CNI call on one attachment, from the checked call to its answer."""
