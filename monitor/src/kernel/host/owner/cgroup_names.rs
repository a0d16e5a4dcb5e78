//! Reads what a cgroup belongs to from its path: a systemd unit, a container, a Kubernetes pod.
//!
//! Only names are read, so anybody who may create a cgroup can make it look like another. The patterns:
//!
//! | by | path ends in |
//! |---|---|
//! | systemd | `/system.slice/nginx.service`, `/user.slice/user-0.slice/session-3.scope` |
//! | Docker | `/system.slice/docker-ID.scope`, or `/docker/ID` with the cgroupfs driver |
//! | Podman | `/machine.slice/libpod-ID.scope/container` |
//! | containerd, CRI-O | `/kubepods.slice/….slice/cri-containerd-ID.scope`, `…/crio-ID.scope` |
//! | kubelet, systemd driver | `…/kubepods-burstable-podUID.slice/…`, UID with underscores |
//! | kubelet, cgroupfs driver | `/kubepods/burstable/podUID/ID` |
//! | runc, drivers confused | `…/kubepods-podUID.slice:cri-containerd:ID` |

/// What the path of a cgroup names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CgroupNames {
    /// The innermost systemd unit: a service, a scope, or a socket unit, which owns the listener that
    /// it passes on. Escapes like `\x2d` are resolved.
    pub(super) unit: Option<String>,
    /// The 64 hexadecimal digits of the innermost container.
    pub(super) container: Option<String>,
    /// The UID of the innermost Kubernetes pod, with dashes. A static pod's has none.
    pub(super) pod: Option<String>,
}

impl CgroupNames {
    pub(super) fn of(cgroup: &str) -> Self {
        let innermost = || cgroup.rsplit('/');
        // With confused drivers one component names both pod and container.
        let pieces = || cgroup.rsplit(['/', ':']);
        Self {
            unit: innermost().find(|name| is_unit(name)).map(unit_name),
            container: pieces().find_map(container_id).map(str::to_owned),
            pod: pieces().find_map(pod_uid),
        }
    }
}

fn is_unit(name: &str) -> bool {
    [".service", ".scope", ".socket"]
        .iter()
        .any(|kind| name.strip_suffix(kind).is_some_and(|rest| !rest.is_empty()))
}

/// systemd prefixes an underscore to a name that could be a kernel file (`cg_escape` in
/// `src/basic/cgroup-util.c`), and escapes bytes not allowed in a unit name as `\x2d`
/// (systemd.unit(5)).
fn unit_name(escaped: &str) -> String {
    let mut rest = escaped.strip_prefix('_').unwrap_or(escaped);
    let mut plain = Vec::with_capacity(rest.len());
    while let Some(at) = rest.find(r"\x") {
        let (before, escape) = rest.split_at(at);
        plain.extend_from_slice(before.as_bytes());
        let byte = escape
            .get(2..4)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                plain.push(byte);
                rest = &escape[4..];
            }
            None => {
                plain.extend_from_slice(br"\x");
                rest = &escape[2..];
            }
        }
    }
    plain.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&plain).into_owned()
}

/// `docker-ID.scope`, `ID`; the monitor of a container (`libpod-conmon-ID.scope`) does not match.
fn container_id(piece: &str) -> Option<&str> {
    let name = piece.strip_suffix(".scope").unwrap_or(piece);
    let (engine, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_monitor = engine.ends_with("conmon");
    (id.len() == 64 && id.bytes().all(is_hex) && !is_monitor).then_some(id)
}

/// `kubepods-burstable-podUID.slice`, `kubepods-podUID.slice`, `podUID`.
fn pod_uid(piece: &str) -> Option<String> {
    let uid = match piece.strip_suffix(".slice") {
        Some(name) => {
            let (parents, uid) = name.rsplit_once("-pod")?;
            parents.contains("kubepods").then_some(uid)?
        }
        None => piece.strip_prefix("pod")?,
    };
    let uid = uid.replace('_', "-");
    is_pod_uid(&uid).then_some(uid)
}

/// 32 hexadecimal digits, with or without four dashes.
pub(super) fn is_pod_uid(uid: &str) -> bool {
    let digits = uid.bytes().filter(|&byte| byte != b'-');
    matches!(uid.len(), 32 | 36) && digits.clone().count() == 32 && digits.into_iter().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ID` and `UID` stand for a container's and a pod's, `U_I_D` for the pod's with underscores.
    fn of(cgroup: &str) -> (Option<String>, bool, bool) {
        let path = cgroup
            .replace("U_I_D", &UID.replace('-', "_"))
            .replace("UID", UID)
            .replace("ID", ID);
        let names = CgroupNames::of(&path);
        if let Some(id) = &names.container {
            assert_eq!(id, ID, "{path}");
        }
        if let Some(uid) = &names.pod {
            assert_eq!(uid, UID, "{path}");
        }
        (
            names.unit.map(|unit| unit.replace(ID, "ID")),
            names.container.is_some(),
            names.pod.is_some(),
        )
    }

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";

    #[track_caller]
    fn assert_all(table: &[(&str, Option<&str>, bool, bool)]) {
        for &(cgroup, unit, container, pod) in table {
            let expected = (unit.map(str::to_owned), container, pod);
            assert_eq!(of(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_systemd_unit_is_the_innermost_service_scope_or_socket() {
        assert_all(&[
            ("/", None, false, false),
            ("/system.slice", None, false, false),
            ("/init.scope", Some("init.scope"), false, false),
            (
                "/system.slice/nginx.service",
                Some("nginx.service"),
                false,
                false,
            ),
            ("/system.slice/api.socket", Some("api.socket"), false, false),
            (
                "/system.slice/getty.slice/getty@tty1.service",
                Some("getty@tty1.service"),
                false,
                false,
            ),
            (
                "/user.slice/user-0.slice/session-3.scope",
                Some("session-3.scope"),
                false,
                false,
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-ws.service",
                Some("app-ws.service"),
                false,
                false,
            ),
            // A service that has created its own cgroups.
            (
                "/system.slice/php-fpm.service/workers/1",
                Some("php-fpm.service"),
                false,
                false,
            ),
            (
                "/machine.slice/machine-web.scope/payload",
                Some("machine-web.scope"),
                false,
                false,
            ),
            ("/system.slice/.service", None, false, false),
        ]);
    }

    #[test]
    fn a_units_name_is_unescaped() {
        for (escaped, plain) in [
            (r"app-org.gnome\x2dws.service", "app-org.gnome-ws.service"),
            (r"a\x20b\x5cc.service", r"a b\c.service"),
            (r"\xc3\xa4.service", "ä.service"),
            ("_cgroup.service", "cgroup.service"),
            (r"half\x2.service", r"half\x2.service"),
            (r"no\x+1.service", r"no\x+1.service"),
            (r"ä\xä.service", r"ä\xä.service"),
            (r"bad\xff.service", "bad\u{fffd}.service"),
        ] {
            let unit = CgroupNames::of(&format!("/system.slice/{escaped}")).unit;
            assert_eq!(unit.as_deref(), Some(plain));
        }
    }

    #[test]
    fn a_container_is_recognized_by_its_64_digits_with_any_engine() {
        assert_all(&[
            (
                "/system.slice/docker-ID.scope",
                Some("docker-ID.scope"),
                true,
                false,
            ),
            ("/docker/ID", None, true, false),
            (
                "/docker/ID/system.slice/nginx.service",
                Some("nginx.service"),
                true,
                false,
            ),
            (
                "/machine.slice/libpod-ID.scope/container",
                Some("libpod-ID.scope"),
                true,
                false,
            ),
            (
                "/machine.slice/libpod-conmon-ID.scope",
                Some("libpod-conmon-ID.scope"),
                false,
                false,
            ),
            (
                "/system.slice/nerdctl-ID.scope",
                Some("nerdctl-ID.scope"),
                true,
                false,
            ),
            ("/default/ID", None, true, false),
            ("/ecs/0123/ID", None, true, false),
            ("/docker/ID0", None, false, false),
            ("/docker/0123456789ab", None, false, false),
        ]);
    }

    #[test]
    fn a_pod_is_recognized_by_its_uid_with_either_driver() {
        assert_all(&[
            (
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podU_I_D.slice/cri-containerd-ID.scope",
                Some("cri-containerd-ID.scope"),
                true,
                true,
            ),
            (
                "/kubepods.slice/kubepods-podU_I_D.slice/crio-ID.scope/container",
                Some("crio-ID.scope"),
                true,
                true,
            ),
            (
                "/kubepods.slice/kubepods-podU_I_D.slice/crio-conmon-ID.scope",
                Some("crio-conmon-ID.scope"),
                false,
                true,
            ),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podU_I_D.slice",
                None,
                false,
                true,
            ),
            ("/kubepods/burstable/podUID/ID", None, true, true),
            ("/kubepods/podUID/ID", None, true, true),
            (
                "/system.slice/containerd.service/kubepods-burstable-podU_I_D.slice:cri-containerd:ID",
                Some("containerd.service"),
                true,
                true,
            ),
            // kind: a node that is a container.
            (
                "/docker/ID/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podU_I_D.slice/cri-containerd-ID.scope",
                Some("cri-containerd-ID.scope"),
                true,
                true,
            ),
            ("/kubepods/burstable/podcast", None, false, false),
            ("/user.slice/my-podU_I_D.slice", None, false, false),
        ]);
    }

    #[test]
    fn a_static_pods_uid_has_no_dashes() {
        let uid = "0123456789abcdef0123456789abcdef";
        let path = format!("/kubepods.slice/kubepods-burstable-pod{uid}.slice/crio-{ID}.scope");
        assert_eq!(CgroupNames::of(&path).pod.as_deref(), Some(uid));
    }

    #[test]
    fn the_innermost_of_nested_containers_counts() {
        let outer = "f".repeat(64);
        let names = CgroupNames::of(&format!("/docker/{outer}/docker/{ID}"));
        assert_eq!(names.container.as_deref(), Some(ID));
    }
}
