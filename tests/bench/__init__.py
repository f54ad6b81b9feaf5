# SPDX-License-Identifier: Apache-2.0
"""Measurements, printed and never judged by a timer: machines differ, ratios on one machine less.

dataplane  `python -m bench.dataplane`: packets between nodes and on a node, beside other ways
paths      what the packets go over: a client's namespace, a server's, and what lies between
           (wires: links and addresses; routed: as flannel does; limit: redirects alone)
measures   what is measured on them, and the goals
traffic    the packets: traffic.c (ends.h, server.h) and iperf3
runtimes   ns per program run
figures    ratios within rounds, goals, tables; report: Markdown, JSON, plot

lookups    `python -m bench.lookups`: what finding a pod's node costs, by kind of map (lookups.c)

cni        `python -m bench.cni`: what ADD and DEL cost, beside Debian's plugins
nodes      the lab in which they are measured: one namespace per plugin, all made alike
calls      plugins executed as a runtime does, the whole process timed
rounds     the measurements, in interleaved rounds
table      medians, spread, ratios and targets, as text and JSON
inside     where the time of an ADD goes, in the agent
"""
