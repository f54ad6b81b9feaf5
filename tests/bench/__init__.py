"""Measurements, printed and never judged by a timer: machines differ, ratios on one machine less.

cni        `python -m bench.cni`: what ADD and DEL cost, beside Debian's plugins
nodes      the lab in which they are measured: one namespace per plugin, all made alike
calls      plugins executed as a runtime does, the whole process timed
rounds     the measurements, in interleaved rounds
table      medians, spread, ratios and targets, as text and JSON
inside     where the time of an ADD goes, in the agent
"""
