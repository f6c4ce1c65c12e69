#!/bin/sh
# Makes the small guest of tests/machines.rs: OUT/kernel and OUT/initrd.
#   make.sh OUT BUSYBOX KERNEL.deb...
# BUSYBOX is /bin/busybox of Debian's busybox-static; the others are the packages that hold vmlinuz and the modules:
# linux-image-*, or linux-binary-* and linux-modules-* where it is split.
set -eu
out=$1 busybox=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/deb" "$work/root/bin" "$work/root/modules" "$out"
for deb in "$@"; do dpkg-deb -x "$deb" "$work/deb"; done
cp "$(find "$work/deb" -name 'vmlinuz*' -type f | head -n 1)" "$out/kernel"
cp "$busybox" "$work/root/bin/busybox"
modules=$(find "$work/deb" -type d -path '*lib/modules/*/kernel' | head -n 1)
for name in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk \
    failover net_failover virtio_net af_packet watchdog i6300esb; do
    file=$(find "$modules" -name "$name.ko*" | head -n 1)
    case $file in
    *.xz) xz -dc "$file" >"$work/root/modules/$name.ko" ;;
    ?*) cp "$file" "$work/root/modules/$name.ko" ;;
    esac
    [ -z "$file" ] || echo "$name" >>"$work/root/modules/order"
done
cat >"$work/root/lease" <<'END'
#!/bin/busybox sh
case $1 in bound | renew)
    busybox ip addr add "$ip/$mask" dev "$interface"
    busybox ip route add default via "$router"
    busybox mkdir -p /etc
    echo "nameserver $dns" >/etc/resolv.conf
    echo "lease $ip/$mask router $router dns $dns domain $domain name $hostname ntp $ntpsrv"
    ;;
esac
END
cat >"$work/root/init" <<'END'
#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /sys /dev /tmp
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox --install -s /bin
for name in $(cat /modules/order); do insmod "/modules/$name.ko"; done
echo 1 >/proc/sys/kernel/printk
echo "bramble-stage: initramfs $(cut -d' ' -f1 /proc/uptime) small guest"
exec setsid cttyhack sh
END
chmod +x "$work/root/init" "$work/root/lease"
(cd "$work/root" && find . | "$busybox" cpio -o -H newc 2>/dev/null) | gzip -1 >"$out/initrd"
