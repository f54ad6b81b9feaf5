# SPDX-License-Identifier: Apache-2.0
"""The container image of pycni, and the manifests that run it. `make image`, `make manifests`.

    requirements.txt   the wheels beside pycni's own, by their digests
    architectures.py   what machines it can be for
    tree.py            what is in the image: Debian packages and wheels, unpacked
    emulator.py        programs of a tree for another architecture run here
    proof.py           the tree runs, and nothing in it lacks a library
    build.py           the tree as an archive that `ctr images import` reads
    manifests.py       deploy/kubernetes/pycni.yaml and the chart, from the files beside it

No daemon and no container runtime is asked. The same sources give the same digest.
"""
