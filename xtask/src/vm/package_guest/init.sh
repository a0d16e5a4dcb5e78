#!/bin/busybox sh
# The first process of the guest with Debian: mounts the disk, adds what the tests need below /run, and
# hands over to systemd, which starts test.sh. If a step fails, this process ends, the kernel panics, and
# the run fails.
set -eu
busybox=/bin/busybox

$busybox mount -t devtmpfs none /dev
exec </dev/console >/dev/console 2>&1
while read -r module; do
    $busybox insmod "/modules/$module.ko"
done </modules/order
$busybox mount -t ext4 /dev/vda /debian

# systemd keeps what is mounted here already.
$busybox mount -t tmpfs -o mode=755 none /debian/run
$busybox cp -r /test /debian/run/test
units=/debian/run/systemd/system
$busybox mkdir -p "$units/multi-user.target.wants"
$busybox cat >"$units/test.service" <<end
[Unit]
Description=The tests of the package
# The installed service starts before or during the tests, never after them.
After=multi-user.target
[Service]
ExecStart=/run/test/test.sh
end
$busybox ln -s ../test.service "$units/multi-user.target.wants/"
# Nobody logs in, and the clock may be months ahead of the image.
for unit in getty.target apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer logrotate.timer; do
    $busybox ln -s /dev/null "$units/$unit"
done
exec $busybox switch_root /debian /sbin/init
