# SPDX-License-Identifier: Apache-2.0
"""Cases for one plugin only, a module each; `profile` of a subject names it."""
