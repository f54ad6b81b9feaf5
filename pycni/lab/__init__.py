# SPDX-License-Identifier: Apache-2.0
"""A cluster on one machine: nodes and pods as network namespaces, joined by a bridge.

Each node has its own agent, settings, BPF file system and CNI directories; pods are attached by
executing the installed plugin, as a runtime does. Nothing of the machine's own network is touched.

    layout     names and addresses, pure
    topology   namespaces and links
    processes  agents and commands inside a namespace
    runtime    what a container runtime does with the plugin
    peer       the program that runs inside pods: pings and transfers, exactly counted
    cluster    the lab as a whole: up, down, and what is in it
    checks     what `make lab` proves
"""
