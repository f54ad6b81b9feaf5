#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a Debian 12 machine a node of a pycni cluster. Run again, it changes what differs: after a
# change of the sources it is the upgrade.
#   provision.sh ADDRESS STORE     this machine's address among the nodes; that of the etcd machine
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
address=$1 store=$2
source=/pycni venv=/opt/pycni

# 1. Packages; BASE is all a node needs, LAB is for looking and testing.
BASE=(clang libbpf-dev linux-libc-dev libbpfcc libnftables1 python3-venv containerd runc
	containernetworking-plugins)
LAB=(tcpdump busybox-static rsync)
wanted=("${BASE[@]}" "${LAB[@]}")
if [ "$address" = "$store" ]; then wanted+=(etcd-server); fi
missing=()
for package in "${wanted[@]}"; do
	[ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
	apt-get update -q
	apt-get install -qy --no-install-recommends "${missing[@]}"
fi

# put FILE: replace FILE by stdin, if it differs; true if it did
put() {
	local new
	new=$(mktemp)
	cat >"$new"
	if cmp -s "$new" "$1"; then
		rm "$new"
		return 1
	fi
	install -D -m 0644 "$new" "$1"
	rm "$new"
}

# 2. The store, on one machine. Plain HTTP: this network has nobody else in it.
if [ "$address" = "$store" ]; then
	if put /etc/default/etcd <<-END; then
		ETCD_LISTEN_CLIENT_URLS=http://$store:2379
		ETCD_ADVERTISE_CLIENT_URLS=http://$store:2379
		ETCD_AUTO_COMPACTION_RETENTION=1h
	END
		systemctl restart etcd
	fi
	systemctl enable --now etcd
fi

# 3. pycni, from dist/wheels if somebody has put it and what it needs there, else from the sources.
# --no-compile: only what is imported gets compiled, by `pycni install` below.
pycni=$source options=(-q --no-compile)
if [ -d $source/dist/wheels ]; then
	pycni=pycni options+=(--no-index --find-links "$source/dist/wheels")
fi
if [ -x $venv/bin/pycni ]; then # again: of one version there are many, while it is worked on
	$venv/bin/pip install "${options[@]}" --force-reinstall --no-deps "$pycni"
else
	python3 -m venv $venv
fi
$venv/bin/pip install "${options[@]}" "$pycni"

# 4. This node's settings. The address also tells which interface leads to the other nodes.
put /etc/pycni/pycni.toml <<-END || true
	node_name = "$(hostname)"
	vtep = "$address"
	store = "etcd://$store:2379"
END

# 5. The other machine may not have come that far: wait for the store, five minutes at most.
for _ in {1..300}; do
	if (exec 3<>"/dev/tcp/$store/2379") 2>/dev/null; then break; fi
	sleep 1
done

# 6. The plugin where Debian's containerd looks for it, and the units.
$venv/bin/pycni install --bin-dir /usr/lib/cni --systemd
systemctl daemon-reload
systemctl enable pycni-setup pycni-agent
systemctl restart pycni-setup pycni-agent
systemctl enable --now containerd
$venv/bin/pycni status
