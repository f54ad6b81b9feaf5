#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
# From the initial RAM disk to the root: disks in the order that vm.qemu gives them.
set -e
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /modules/*; do
	$b insmod "$module"
done
$b mount -t ext4 /dev/vda /root
$b mount -t ext4 -o ro /dev/vdb /root/usr/lib/modules
$b mount -t ext4 -o ro /dev/vdc /root/pycni
exec $b switch_root /root /pycni/guest/init.sh
