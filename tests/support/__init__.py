# SPDX-License-Identifier: Apache-2.0
"""What tests of several directories share. Nothing in here is collected as a test."""
