#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The first process of a guest: what a node's own init would have mounted; then it serves.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
modprobe virtio_console
modprobe virtio_net
ip link set lo up
exec python3 -IS /pycni/guest/serve.py
