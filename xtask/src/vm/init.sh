#!/bin/busybox sh
# The first process of the guest. The first serial line is the kernel's; on the second one this
# reports the tests' results in lines that begin with @@. If a step fails, this process ends, the
# kernel panics, and the run fails.
set -eu
busybox=/bin/busybox
export PATH=/sbin:/usr/sbin:/bin:/usr/bin RUST_BACKTRACE=1

$busybox mount -t devtmpfs none /dev
read -r results </results
exec </dev/null >"/dev/$results" 2>&1
$busybox mount -t proc none /proc
$busybox mount -t sysfs none /sys
$busybox mount -t cgroup2 none /sys/fs/cgroup
$busybox mount -t tmpfs none /tmp
echo "@@ booted $($busybox uname -r)"

while read -r module; do
    $busybox insmod "/modules/$module.ko"
done </modules/order
ip link set lo up

filter=$($busybox cat /filter)
while read -r test; do
    echo "@@ begin $test"
    status=0
    # The filter is a list of words.
    "/tests/$test" --include-ignored --show-output $filter || status=$?
    # A test that crashed may leave an incomplete line.
    echo
    echo "@@ end $test $status"
done </tests/order
echo "@@ done"
$busybox poweroff -f
