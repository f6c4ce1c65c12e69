#!/bin/sh
# Makes the Raspberry Pi guest of tests/machines.rs: OUT/vmlinuz, OUT/initrd and the device trees of three boards.
#   make-pi.sh OUT BUSYBOX KERNEL.deb...
# BUSYBOX is /bin/busybox of Debian's busybox-static for arm64; the others are the arm64 packages that hold vmlinuz, the
# modules and the device trees: linux-binary-*, linux-modules-* and linux-base-*. Needs cpio.
set -eu
out=$1 busybox=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/deb" "$work/root/bin" "$work/root/modules" "$out"
for deb in "$@"; do dpkg-deb -x "$deb" "$work/deb"; done
# As a card has it: gzip, which the firmware unpacks.
gzip -1 <"$(find "$work/deb" -name 'vmlinuz*' -type f | head -n 1)" >"$out/vmlinuz"
for tree in bcm2837-rpi-3-b bcm2711-rpi-4-b bcm2712-rpi-5-b; do
    cp "$(find "$work/deb" -name "$tree.dtb" | head -n 1)" "$out/"
done
cp "$busybox" "$work/root/bin/busybox"
modules=$(find "$work/deb" -type d -path '*lib/modules/*/kernel' | head -n 1)
# The card's host of a Pi 3 in QEMU, that of a Pi 4, and the watchdog, without which neither can reset.
for name in bcm2835 sdhci sdhci-pltfm sdhci-iproc bcm2835_wdt; do
    file=$(find "$modules/drivers/mmc" "$modules/drivers/watchdog" -name "$name.ko*" | head -n 1)
    case $file in
    *.xz) xz -dc "$file" >"$work/root/modules/$name.ko" ;;
    ?*) cp "$file" "$work/root/modules/$name.ko" ;;
    esac
    [ -z "$file" ] || echo "$name" >>"$work/root/modules/order"
done
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
# By way of the kernel's own console: on QEMU's raspi4b the machine locked up soon after user space began; whether writes
# of programs to the serial port are the cause is not known.
echo "<0>guest: $(cat /proc/cmdline)" >/dev/kmsg
# The card takes its time; virt has none.
tries=0
while ! ls /dev/mmcblk* >/dev/null 2>&1 && [ $tries -lt 20 ] && [ -e /proc/device-tree/soc ]; do
    sleep 1
    tries=$((tries + 1))
done
echo "bramble-stage: initramfs $(cut -d' ' -f1 /proc/uptime) small guest"
exec setsid cttyhack sh
END
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio -o -H newc 2>/dev/null) | gzip -1 >"$out/initrd"
