#!/bin/bash
# image.sh [SUITE] builds the disk image of the VM tests, a Debian trixie (default), bookworm or forky.
#
# The result is a directory VM_DIR/SUITE-HASH with disk.img, vmlinuz and initrd; its name is the only
# thing printed on stdout. HASH covers this file and image/*: an unchanged recipe is not built twice,
# and a changed one never meets a stale image. VM_DIR is target/vm unless it is set.
set -euo pipefail

readonly SUITE=${1:-trixie}
readonly MIRROR=http://deb.debian.org/debian
readonly SIZE=4G
# What every guest needs: an init, a NAS, a CIFS client, a container engine, a transcoder, Kerberos, users with sessions, and the tools of the tests.
readonly PACKAGES=systemd,systemd-sysv,dbus,udev,kmod,procps,psmisc,e2fsprogs,python3,iproute2,nftables,samba,cifs-utils,linux-image-amd64,initramfs-tools,podman,crun,ffmpeg,krb5-kdc,krb5-admin-server,krb5-user,keyutils,libpam-systemd,dbus-user-session
# What else shares a host with nasmount and has its own mind about the network: with the newest kernel, in the suite that is run by request.
readonly NEIGHBOURS=network-manager,firewalld,docker.io,docker-cli,iptables
# linux-image-cloud-amd64 is smaller, but these have to be there; the build fails if one is not.
readonly MODULES="cifs autofs4 9p 9pnet_virtio virtio_blk nf_tables nft_reject_inet nft_socket tcp_diag inet_diag veth sch_netem"
# Units that cost boot time or touch the network and that no test needs.
readonly MASKED="smbd.service nmbd.service samba-ad-dc.service winbind.service apt-daily.timer apt-daily-upgrade.timer
  dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer logrotate.timer man-db.timer
  systemd-pstore.service systemd-networkd.service getty@tty1.service autofs.service krb5-kdc.service
  krb5-admin-server.service NetworkManager.service NetworkManager-wait-online.service firewalld.service docker.service
  docker.socket containerd.service"

here=$(cd "$(dirname "$0")" && pwd)
# autofs, one of today's ways in the bench, is not in the newest Debian
case $SUITE in
  forky) packages=$PACKAGES,$NEIGHBOURS ;;
  *) packages=$PACKAGES,autofs ;;
esac
VM_DIR=${VM_DIR:-$(cd "$here/../.." && pwd)/target/vm}
mkdir -p "$VM_DIR"

say() { echo "image.sh: $*" >&2; }

# In unshare mode (not root) the files of the tree belong to subordinate ids, so every later step needs that namespace.
as_owner() { if [ "$(id -u)" = 0 ]; then "$@"; else mmdebstrap --unshare-helper "$@"; fi; }

install_host_tools() {
  local missing=()
  command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
  command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
  command -v mkfs.ext4 >/dev/null || [ -x /sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
  command -v setpriv >/dev/null || missing+=(util-linux)
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
  [ ${#missing[@]} = 0 ] && return
  if [ "$(id -u)" != 0 ]; then
    say "missing on this host; run: sudo apt-get install --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
}

# bootstrap ROOT: the Debian tree, with the modules that find the root file system in the initrd. A mirror may be some weeks behind, which
# for a suite that is not released is more than its signature is valid for.
bootstrap() {
  mmdebstrap --variant=minbase --quiet --include="$packages" --components=main \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Check-Valid-Until "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/host"
      echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"
      printf "virtio_pci\nvirtio_blk\next4\n" >>"$1/etc/initramfs-tools/modules"' \
    --customize-hook="for m in $MODULES; do chroot \"\$1\" sh -c 'modinfo -k \$(ls /lib/modules) '\$m >/dev/null; done" \
    --customize-hook='chroot "$1" useradd --uid 3000 --shell /usr/sbin/nologin nasuser' \
    --customize-hook="copy-in '$here/image/vm-agent.service' /etc/systemd/system" \
    --customize-hook="chroot \"\$1\" systemctl --quiet mask $(echo $MASKED)" \
    --customize-hook='chroot "$1" systemctl --quiet enable vm-agent.service' \
    --customize-hook='mkdir -p "$1/etc/systemd/journald.conf.d"
      printf "[Journal]\nStorage=volatile\n" >"$1/etc/systemd/journald.conf.d/vm.conf"
      echo vm >"$1/etc/hostname"; : >"$1/etc/fstab"; rm -f "$1/etc/resolv.conf"
      sed -i "s/^root:[^:]*:/root::/" "$1/etc/shadow"' \
    "$SUITE" "$1" "$MIRROR" >&2
}

hash=$(cd "$here" && sha256sum image.sh image/* | sha256sum | cut -c1-12)
final=$VM_DIR/$SUITE-$hash

exec 9>"$VM_DIR/.$SUITE.lock"
flock 9
if [ ! -d "$final" ]; then
  install_host_tools
  export PATH=$PATH:/sbin:/usr/sbin
  say "building $SUITE (some minutes, once per change of the recipe)"
  tmp=$VM_DIR/.$SUITE.building
  as_owner rm -rf "$tmp"
  mkdir -p "$tmp"
  chmod 755 "$tmp"
  trap 'as_owner rm -rf "$tmp"' EXIT
  bootstrap "$tmp/root"
  cp "$tmp"/root/boot/vmlinuz-* "$tmp/vmlinuz"
  as_owner sh -c 'cat "$1"/root/boot/initrd.img-*' - "$tmp" >"$tmp/initrd"
  truncate -s "$SIZE" "$tmp/disk.img"
  as_owner sh -c 'mkfs.ext4 -q -E lazy_itable_init=1 -d "$1/root" "$1/disk.img" && rm -rf "$1/root"' - "$tmp"
  rm -rf "$VM_DIR/$SUITE"-????????????
  mv "$tmp" "$final"
  trap - EXIT
fi
echo "$final"
