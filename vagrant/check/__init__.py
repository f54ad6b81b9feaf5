# SPDX-License-Identifier: Apache-2.0
"""Proof that the lab's machines are a cluster: `make vagrant-test`, after `vagrant up`.

Runs on the host with nothing but Python's standard library and `vagrant`; guest.py runs in the
machines.
"""
