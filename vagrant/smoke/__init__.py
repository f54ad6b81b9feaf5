# SPDX-License-Identifier: Apache-2.0
"""A real `vagrant up` where there is neither virtualisation nor a box: `make vagrant-smoke`.

Everything is built from Debian's archive and run in a cell: processes, mounts and network of its
own, which end with it, however it ends. What stays is the cache, in ~/.cache/pycni/box.
"""
