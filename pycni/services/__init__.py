# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Services: which addresses clients use, and which endpoints of them this node chooses.

Everything here is pure: objects in, decisions out. Nothing is read, listed or written.
"""
