# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes on this machine, with pycni as its network: docs/cluster.md.

    product        programs of one Go module at one version
    recipe         what is built of Kubernetes' modules; go/ has our own Go programs
    containerd     what is built of containerd's and runc's
    golang         the Go toolchain, the machine's own or one from PyPI
    build          programs built once, into the cache
    oci, images    images, made of Debian packages and what was built
    layout         names and addresses of a cluster; pure
    keys           certificates and tokens
    kubeconfig     who speaks to which API server
    commands       command lines and configurations of the daemons; pure
    runtime        those of containerd, Debian's or one that was built
    init, machine  namespaces that look like a machine, and daemons in them
    proc           what proc(5) says of processes
    cgroups        control groups of a node
    control_plane  etcd, API server, controller manager, scheduler
    node           containerd, kubelet, kube-proxy
    network        pycni: the one place that brings it onto a machine
    kubectl        the API, as its administrator
    manifests      objects; pure
    life           the cluster as a whole: up and down
    scene          what the checks act with
    verdicts       how a check ends
    traces         what pods leave on a node
    agents         what pycni's agents say
    checks, ..._checks  what `make cluster` proves
    multus         Multus on the nodes, for second networks; multus_checks
    failing        a plugin whose first calls fail
    rest           nothing is written where nothing happens
    reboot         a node that loses its power
    boots, logind  one that is full of pods does, and is shut down in good order
    rollout        pycni comes, changes and goes: installers, helm, release, upgrades
    refusals, foreign, others  what cannot be, and what others do
    options        of the commands: which cluster, and what it is made of
    kills/         components killed and stopped under traffic
    suites, junit, e2e  Kubernetes' own tests: which, what they found, how they are run

Nothing of the machine's own network or kernel parameters is touched.
"""
