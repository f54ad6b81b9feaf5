# SPDX-License-Identifier: Apache-2.0
"""A Vagrant box of a bare Debian, with the packages a node needs already on its disk.

It boots its kernel directly, having no boot loader, and carries what software emulation needs in a
Vagrantfile of its own, which Vagrant merges under the lab's.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from smoke.commands import run
from smoke.trees import chroot, tree

NAME = "pycni-smoke"
BOX = f"{NAME}.box"
DISK_GIGABYTES = 4
IMAGES = Path("/var/lib/libvirt/images")
"""Where libvirt may read kernels from."""

MACHINE = (
    *("systemd-sysv", "dbus", "udev", "openssh-server", "sudo", "iproute2", "ifupdown"),
    *("isc-dhcp-client", "kmod", "rsync", "ca-certificates", "linux-image-cloud-amd64"),
    *("initramfs-tools", "procps", "etcd-server"),
)
LISTS = re.compile(r"^(?:BASE|LAB)=\(([^)]*)\)", re.MULTILINE)
"""In provision.sh: what it would fetch from the archive."""

PUBLIC_KEY = "usr/share/rubygems-integration/all/gems/vagrant-*/keys/vagrant.pub"

FILES = {
    "etc/network/interfaces": "auto lo\niface lo inet loopback\n\n"
    "auto eth0\niface eth0 inet dhcp\n\nsource /etc/network/interfaces.d/*\n",
    "etc/fstab": "/dev/vda / ext4 noatime 0 1\n",
    "etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD: ALL\n",
    # To Debian's fq_codel a machine that stands still for a tenth of a second is congestion: it
    # drops packets.
    "etc/sysctl.d/90-queue.conf": "net.core.default_qdisc = pfifo_fast\n",
    "etc/machine-id": "",
    "etc/hostname": "box\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
REMOVED = ("var/lib/dbus/machine-id",)
"""systemd would take it over, and both machines have one identity."""
UNWANTED = ("apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer")
DISABLED = ("etcd", "containerd")
"""Installed ahead of time, and not yet set up."""

VAGRANTFILE = f"""
Vagrant.configure("2") do |config|
  config.ssh.insert_key = false
  config.vm.boot_timeout = 900
  config.vm.provider "libvirt" do |machine|
    machine.driver = "qemu"
    machine.cpu_mode = "maximum"
    machine.machine_type = "q35"
    machine.kernel = "{IMAGES}/vmlinuz"
    machine.initrd = "{IMAGES}/initrd"
    machine.cmd_line = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off quiet"
    machine.graphics_type = "none"
    machine.video_type = "none"
  end
end
"""


@dataclass(frozen=True)
class Box:
    """Files in the cache."""

    directory: Path

    @property
    def archive(self) -> Path:
        return self.directory / BOX

    @property
    def boot_files(self) -> tuple[Path, Path]:
        return self.directory / "vmlinuz", self.directory / "initrd"


def box(cache: Path, tools: Path, provision: Path, *, work: Path, log: Path) -> Box:
    """The box, from the cache or made in `work`, a directory of the same file system.

    `tools` is a tree with qemu-img and Vagrant's public key.
    """
    packages = [*MACHINE, *packages_of(provision)]
    machine = tree(cache, "machine", packages, work=work, log=log)
    recipe = [machine.name, VAGRANTFILE, repr(FILES), repr(REMOVED), repr(UNWANTED), repr(DISABLED)]
    digest = hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:12]
    directory = cache / f"box-{digest}"
    if not directory.is_dir():
        for old in cache.glob("box-*"):
            shutil.rmtree(old)
        aside = work / "box"
        aside.mkdir()
        _make(aside, machine, tools, log).rename(directory)
        shutil.rmtree(aside)
    return Box(directory)


def packages_of(provision: Path) -> list[str]:
    """The packages that a provisioning script installs."""
    return [name for names in LISTS.findall(provision.read_text()) for name in names.split()]


def _make(work: Path, machine: Path, tools: Path, log: Path) -> Path:
    made, root = work / "made", work / "root"
    made.mkdir()
    run("cp", "--archive", "--reflink=auto", machine, root)
    _configure(root, tools, log)
    for name in ("vmlinuz", "initrd"):
        (boot,) = (root / "boot").glob(f"{name}*-*")
        shutil.copy(boot, made / name)
    with (work / "disk.raw").open("wb") as file:
        file.truncate(DISK_GIGABYTES << 30)
    run("mke2fs", "-q", "-t", "ext4", "-d", root, work / "disk.raw", log=log)
    # Seen from the tree whose program works on it; like all mounts here, it ends with the process.
    run("mount", "--bind", work, tools / "mnt")
    convert = ("qemu-img", "convert", "-O", "qcow2")
    chroot(tools, *convert, "/mnt/disk.raw", "/mnt/box.img", log=log)
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIGABYTES}
    (work / "metadata.json").write_text(json.dumps(metadata))
    (work / "Vagrantfile").write_text(VAGRANTFILE)
    with tarfile.open(made / BOX, "w") as archive:
        for name in ("metadata.json", "Vagrantfile", "box.img"):
            archive.add(work / name, arcname=name)
    return made


def _configure(root: Path, tools: Path, log: Path) -> None:
    for name, text in FILES.items():
        (root / name).write_text(text)
    for name in REMOVED:
        (root / name).unlink(missing_ok=True)
    (root / "etc/sudoers.d/vagrant").chmod(0o440)
    chroot(root, "useradd", "--create-home", "--shell", "/bin/bash", "vagrant", log=log)
    (key,) = tools.glob(PUBLIC_KEY)
    authorized = root / "home/vagrant/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700)
    shutil.copy(key, authorized)
    authorized.chmod(0o600)
    chroot(root, "chown", "-R", "vagrant:vagrant", "/home/vagrant", log=log)
    chroot(root, "systemctl", "mask", *UNWANTED, log=log)
    chroot(root, "systemctl", "disable", *DISABLED, log=log)
