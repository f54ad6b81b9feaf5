# SPDX-License-Identifier: Apache-2.0
"""A black-box conformance suite for CNI plugins: any binary, any configuration.

`python -m conformance` (README.md) executes a plugin as container runtimes do, in namespaces that
end with the run, and compares what it says with what the kernel has. Only the standard library is
used; nothing of the plugin under test is imported.

    registry, results   what a case is, and what became of it
    subject             a plugin under test, read from TOML or the command line
    sandbox             the disposable machine a plugin is run on
    worker, report      all cases of one subject; what is printed of several
    bench               what a case works with: pods, calls, comparisons
    runtime, call       the part of libcni, and raw calls
    oracle, netlink     what the kernel and the file system have
    attributes, records of netlink: encoding, and values
    schema              what a result of each version looks like
    traffic             pings and transfers between namespaces
    fake_ipam           an IPAM plugin that does what a case tells it to
    cases, profiles     the cases for every plugin, and those for one
"""
