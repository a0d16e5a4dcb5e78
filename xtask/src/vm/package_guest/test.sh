#!/bin/sh
# Installs, uses, upgrades, removes and purges the Debian package, then the rpm, as an administrator does, in this
# order: each test needs those before it, and the first failure ends the run. Reports like init.sh of the other guests, in the
# words of a Rust test.
set -u
cd /run/test
read -r results <results
exec </dev/null >"/dev/$results" 2>&1
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

tests="
the_package_installs_and_starts_nothing
a_wrong_file_fails_the_start_with_line_and_column
start_returns_when_the_programs_are_attached
a_wrong_file_changes_nothing_on_reload
a_reload_applies_and_the_silent_client_is_reported
members_of_the_group_list_connections_and_others_do_not
the_unit_is_confined
an_upgrade_keeps_configuration_state_and_enablement
removal_keeps_configuration_and_state
a_purge_leaves_nothing
the_rpm_installs_and_starts_nothing
the_rpm_starts_and_finds_the_connection
an_update_of_the_rpm_keeps_configuration_and_restarts
removal_of_the_rpm_keeps_configuration_and_state
"
config=/etc/wsmon.toml
state=/var/lib/wsmon/state.json
# The link that starts the unit at boot.
enabled=/etc/systemd/system/multi-user.target.wants/wsmon.service
# An emulated guest on a busy machine needs much longer than a server.
limit_seconds=120

the_package_installs_and_starts_nothing() {
    # Accounts leave copies of their files behind, so this one comes first.
    useradd --no-create-home member
    list_files >before
    apt-get install --yes ./wsmon.deb
    equal "$(dpkg --verify wsmon)" ""
    equal "$(systemd-analyze verify --man=no wsmon.service 2>&1)" ""
    refused systemctl is-enabled wsmon
    refused systemctl is-active wsmon
    logrotate --debug /etc/logrotate.d/wsmon
}

a_wrong_file_fails_the_start_with_line_and_column() {
    configure 60
    refused systemctl start wsmon
    equal "$(systemctl is-failed wsmon)" failed
    equal "$(systemctl show --property NRestarts --value wsmon)" 0
    systemctl status --full wsmon >status || true
    # The value in the last line.
    contains status "$config:4:39: "
}

start_returns_when_the_programs_are_attached() {
    configure 10m
    systemctl enable --now wsmon
    # The opening of this connection is seen only by programs that are attached already.
    ./silent_pair >peer &
    wait_for test -s peer
    wait_for listed "$(cat peer)"
    contains list '"known_from":"establishment"'
    equal "$(systemctl is-active wsmon)" active
    wsmon status
}

a_wrong_file_changes_nothing_on_reload() {
    before=$(main_pid)
    configure 60
    systemctl reload wsmon
    wait_for journal_has "$config:4:39: "
    equal "$(main_pid)" "$before"
    equal "$(systemctl is-active wsmon)" active
}

a_reload_applies_and_the_silent_client_is_reported() {
    before=$(main_pid)
    wsmon list --zombies --json >list
    equal "$(cat list)" ""
    configure 2s
    systemctl reload wsmon
    wait_for journal_has "reloaded $config: edge: path lb 10m -> lb 2s"
    wait_for listed "$(cat peer)" --zombies
    contains list '"kind":"expired"'
    wait_for journal_has '"status":"firing","alert":"zombie","kind":"expired"'
    equal "$(main_pid)" "$before"
}

members_of_the_group_list_connections_and_others_do_not() {
    refused runuser --user member -- wsmon list
    usermod --append --groups wsmon member
    runuser --user member -- wsmon list --json >list
    contains list "$(cat peer)"
}

the_unit_is_confined() {
    systemd-analyze security --no-pager --threshold=25 wsmon.service
}

an_upgrade_keeps_configuration_state_and_enablement() {
    before=$(main_pid)
    cp "$config" configured
    apt-get install --yes --option Dpkg::Options::=--force-confold ./newer.deb
    dpkg-query --show wsmon | grep -- '+newer$'
    cmp configured "$config"
    # What the newer package ships.
    contains "$config.dpkg-dist" "# newer"
    equal "$(systemctl is-enabled wsmon)" enabled
    equal "$(systemctl is-active wsmon)" active
    refused test "$(main_pid)" = "$before"
    # Written by the first process at its end.
    contains "$state" '"edge"'
    wait_for listed "$(cat peer)"
}

removal_keeps_configuration_and_state() {
    cp "$state" learned
    apt-get remove --yes wsmon
    refused command -v wsmon
    refused test -e /run/wsmon.sock
    refused systemctl is-active wsmon
    cmp configured "$config"
    test -s "$state"
}

a_purge_leaves_nothing() {
    apt-get purge --yes wsmon
    list_files >after
    diff before after
}

the_rpm_installs_and_starts_nothing() {
    change_rpm --install ./wsmon.rpm
    rpm --verify --nodeps wsmon
    getent group wsmon
    refused systemctl is-enabled wsmon
    refused systemctl is-active wsmon
}

the_rpm_starts_and_finds_the_connection() {
    configure 2s
    systemctl enable --now wsmon
    wait_for listed "$(cat peer)" --zombies
}

an_update_of_the_rpm_keeps_configuration_and_restarts() {
    before=$(main_pid)
    cp "$config" configured
    change_rpm --upgrade ./newer.rpm
    test -L "$enabled"
    equal "$(rpm --query --queryformat '%{RELEASE}' wsmon)" 2
    cmp configured "$config"
    # What the newer package ships.
    contains "$config.rpmnew" "# newer"
    equal "$(systemctl is-enabled wsmon)" enabled
    equal "$(systemctl is-active wsmon)" active
    refused test "$(main_pid)" = "$before"
    wait_for listed "$(cat peer)" --zombies
}

removal_of_the_rpm_keeps_configuration_and_state() {
    change_rpm --erase wsmon
    refused command -v wsmon
    refused test -e /run/wsmon.sock
    refused systemctl is-active wsmon
    # Without the unit's file, systemctl says nothing about this link.
    refused test -L "$enabled"
    cmp configured "$config.rpmsave"
    test -s "$state"
}

# Debian's rpm refuses to change a Debian system otherwise, and does not know that systemd is installed.
change_rpm() {
    rpm --force-debian --nodeps "$@"
}

# The configuration with this idle timeout. Without a unit it is wrong.
configure() {
    cat >"$config" <<end
[[listener]]
name = "edge"
ports = ["8080"]
path = [{ name = "lb", idle_timeout = "$1" }]
end
}

# Every path on the disk, except where the package manager and the services of Debian write.
list_files() {
    find / -xdev \( -path /tmp -o -path /var/tmp -o -path /var/cache -o -path /var/log -o -path /var/lib/apt \
        -o -path /var/lib/dpkg -o -path /var/lib/systemd \) -prune -o -print | sort
}

# The list of connections, or with `--zombies` of the dead ones, has this peer.
listed() {
    peer=$1
    shift
    wsmon list --json "$@" >list && grep --fixed-strings "\"peer\":\"$peer\"" list
}

journal_has() {
    journalctl --quiet --unit wsmon --output cat >journal
    grep --fixed-strings -- "$1" journal
}

main_pid() {
    systemctl show --property MainPID --value wsmon
}

wait_for() {
    deadline=$(($(date +%s) + limit_seconds))
    until "$@"; do
        if [ "$(date +%s)" -ge "$deadline" ]; then
            echo "waited $limit_seconds s in vain for: $*"
            return 1
        fi
        sleep 0.2
    done
}

equal() {
    if [ "$1" != "$2" ]; then
        echo "expected \"$2\", got \"$1\""
        return 1
    fi
}

contains() {
    if ! grep --fixed-strings --quiet -- "$2" "$1"; then
        echo "$1 does not contain $2:"
        cat "$1"
        return 1
    fi
}

refused() {
    if "$@"; then
        echo "this should have failed: $*"
        return 1
    fi
}

echo "@@ booted $(uname -r)"
echo "@@ begin package"
passed=0
failed=0
for test in $tests; do
    begin=$(date +%s)
    # A new shell, because `set -e` is off in a condition.
    (set -eux; "$test") >output 2>&1
    status=$?
    seconds=$(($(date +%s) - begin))
    if [ "$status" != 0 ]; then
        failed=1
        echo "test $test ... FAILED ($seconds s)"
        cat output
        echo "--- the journal of wsmon"
        journalctl --no-pager --unit wsmon --output short-monotonic
        break
    fi
    passed=$((passed + 1))
    echo "test $test ... ok ($seconds s)"
done
word=ok
[ "$failed" = 0 ] || word=FAILED
echo "test result: $word. $passed passed; $failed failed"
echo "@@ end package $failed"
echo "@@ done"
systemctl poweroff --force --force
