//! The pod of the committed Kubernetes manifest.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use tempfile::TempDir;

const MANIFEST: &str = "deploy/kubernetes/wsmon.yaml";

/// What the container of the pod gets.
pub(crate) struct Pod {
    pub(crate) host_pid: bool,
    /// User and group.
    pub(crate) user: String,
    /// Without `CAP_`.
    pub(crate) capabilities: BTreeSet<String>,
    pub(crate) no_new_privileges: bool,
    pub(crate) read_only: bool,
    pub(crate) seccomp: Seccomp,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) mounts: Vec<Mount>,
    /// Of volumes.
    _files: TempDir,
}

pub(crate) enum Seccomp {
    RuntimeDefault,
    Unconfined,
    Profile(PathBuf),
}

pub(crate) struct Mount {
    /// `None` for an empty directory.
    pub(crate) source: Option<PathBuf>,
    pub(crate) destination: String,
    pub(crate) read_only: bool,
}

impl Pod {
    pub(crate) fn of_the_manifest() -> Self {
        let path = lab::workspace().join(MANIFEST);
        let text = fs::read_to_string(&path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        Self::of(&documents)
    }

    fn of(documents: &[Value]) -> Self {
        let of_kind = |kind: &str| {
            let mut found = documents.iter().filter(|document| document["kind"] == kind);
            found.next().unwrap_or_else(|| panic!("no {kind}")).clone()
        };
        let spec = of_kind("DaemonSet")["spec"]["template"]["spec"].clone();
        assert_eq!(
            spec["hostNetwork"],
            Value::Null,
            "the tests have no such network"
        );
        assert_eq!(spec["securityContext"], Value::Null, "unknown to the tests");
        let [container] = array(&spec["containers"]) else {
            panic!("not one container: {spec}");
        };
        let context = &container["securityContext"];
        let known = [
            "allowPrivilegeEscalation",
            // Debian's podman does not use AppArmor, and this machine has no SELinux.
            "appArmorProfile",
            "capabilities",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
            "seccompProfile",
        ];
        for key in context.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "unknown to the tests: {key}");
        }
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        let files = tempfile::tempdir().unwrap();
        let volumes = array(&spec["volumes"]);
        let mounts = array(&container["volumeMounts"]).iter().map(|mount| {
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"]);
            Mount {
                source: source(volume.unwrap(), &of_kind("ConfigMap"), &files),
                destination: string(&mount["mountPath"]),
                read_only: mount["readOnly"] == true,
            }
        });
        let env = container["env"].as_array().into_iter().flatten();
        Self {
            host_pid: spec["hostPID"] == true,
            user: format!("{}:{}", context["runAsUser"], context["runAsGroup"]),
            capabilities: strings(&context["capabilities"]["add"])
                .into_iter()
                .collect(),
            no_new_privileges: context["allowPrivilegeEscalation"] == false,
            read_only: context["readOnlyRootFilesystem"] == true,
            seccomp: match context["seccompProfile"]["type"].as_str() {
                Some("RuntimeDefault") => Seccomp::RuntimeDefault,
                Some("Unconfined") => Seccomp::Unconfined,
                other => panic!("unknown to the tests: a seccomp profile {other:?}"),
            },
            args: strings(&container["args"]),
            env: env
                .map(|variable| (string(&variable["name"]), value_of(variable)))
                .collect(),
            mounts: mounts.collect(),
            _files: files,
        }
    }

    /// Takes a capability away, if the pod has it.
    pub(crate) fn take(&mut self, capability: &str) {
        self.capabilities.remove(capability);
    }
}

/// The value of an environment variable.
fn value_of(variable: &Value) -> String {
    match &variable["valueFrom"] {
        Value::Null => string(&variable["value"]),
        source => {
            assert_eq!(source["fieldRef"]["fieldPath"], "spec.nodeName", "{source}");
            "node-7".to_owned()
        }
    }
}

/// The directory behind a volume; `None` for an empty one.
fn source(volume: &Value, config_map: &Value, files: &TempDir) -> Option<PathBuf> {
    if !volume["emptyDir"].is_null() {
        return None;
    }
    let own = files.path().join(string(&volume["name"]));
    if !volume["configMap"].is_null() {
        assert_eq!(volume["configMap"]["name"], config_map["metadata"]["name"]);
        fs::create_dir(&own).unwrap();
        for (name, content) in config_map["data"].as_object().unwrap() {
            fs::write(own.join(name), string(content)).unwrap();
        }
        // For the user of the image.
        open_to_all(files.path());
        return Some(own);
    }
    let on_host = PathBuf::from(string(&volume["hostPath"]["path"]));
    if on_host.is_dir() {
        return Some(on_host);
    }
    // A machine without a kubelet has no logs of pods.
    fs::create_dir(&own).unwrap();
    Some(own)
}

fn open_to_all(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn array(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {value}"))
}

fn strings(value: &Value) -> Vec<String> {
    array(value).iter().map(string).collect()
}

fn string(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("not a text: {value}"))
        .to_owned()
}
