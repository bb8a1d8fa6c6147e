#!/bin/sh
# Process 1 of a machine, in namespaces of its own (all but user and time): gives it its file systems, so that every path
# is the usual one and manifests apply as they are, and becomes its init.
#
# boot.sh HOME NAME INIT FOLDER...: HOME has etc, etc.work, var, opt, proc and below as machine.ts made them; FOLDERs of the
# machine below are to be seen in the new one, too, wherever they are.
set -eu
home=$1 name=$2 init=$3
shift 3

# Paths are relative to it from here on: what lies on the way to it may be hidden soon.
cd "$home"
mount --rbind / below

hostname "$name"
mount -t proc proc /proc
mount -t sysfs sysfs /sys

# The hierarchies of cgroup v1, seen from the machine's own cgroup as their root.
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
while IFS=: read -r _ controllers _; do
  case $controllers in
    # cgroup v2 beside them would be taken for the hybrid of systemd.
    "") continue ;;
    name=*) options=none,$controllers ;;
    *) options=$controllers ;;
  esac
  folder=/sys/fs/cgroup/${controllers#name=}
  mkdir "$folder"
  mount -t cgroup -o "$options" cgroup "$folder"
done </proc/self/cgroup

# What kubelet sets in the kernel of the machine below, where it already finds what it wants, and what tells boots apart.
for file in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes kernel/random/boot_id; do
  mount --bind "proc/sys/$file" "/proc/sys/$file"
done

mount -t overlay -o "lowerdir=/etc,upperdir=etc,workdir=etc.work" overlay /etc
mount --bind var /var
mount --bind opt /opt
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/netns
for folder; do
  case $folder in
    /etc/* | /var/* | /opt/* | /run/*)
      mkdir -p "$folder"
      mount --bind "below$folder" "$folder"
      ;;
  esac
done
# Where HOME is hidden by now, so is this.
umount --lazy below 2>/dev/null || true

# What a Pod mounts with propagation must reach the machine.
mount --make-rshared /
touch /run/booted
exec "$init" -P
