# SPDX-License-Identifier: Apache-2.0
"""Kernels of distributions under qemu: does the dataplane load and forward on them?

    apt        Debian's archive, read with a configuration of our own
    kernels    which kernels there are; fetched once, unpacked, with their modules
    root       the guests' root file system: the machine's own distribution
    payload    what is under test, as an installed wheel, and the tests that run inside
    qemu       a guest: started, told what to run, ended
    guest/     what runs inside
    node       a pycni node in a guest, with pods
    link       two guests joined by a virtual link, which can be captured
    cluster    two nodes, brought up and shown to forward
    netkit     pods on netkit pairs
    lan        pods on the LAN
    conformance  the suite, for pods on the LAN by ipvlan
    scenarios  what is shown on each kernel
    report     the table

Nothing of the machine's network is touched: guests have no network but the link between them.
"""
