//! podman, with a storage of its own.

use std::{
    env, fs,
    path::PathBuf,
    process::{Command, Output},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use lab::workspace;
use serde_json::Value;

use crate::{
    network::PodNetwork,
    pod::{Pod, Seccomp},
};

/// Set by `cargo xtask image --test`: the archive of the image.
const IMAGE: &str = "WSMON_IMAGE";

/// podman gives a user other than root the capabilities of the container at once. Docker gives it none, only the
/// right to get them from the file of a program, and Kubernetes promises no more. So a hook takes them away from
/// each container before it is created.
const HOOK: &str = r#"{
  "version": "1.0.0",
  "hook": { "path": "/usr/bin/env", "args": ["env", "python3", "SCRIPT"] },
  "when": { "always": true },
  "stages": ["precreate"]
}"#;
const SCRIPT: &str = "\
import json, sys
config = json.load(sys.stdin)
process = config['process']
if process['user']['uid'] != 0:
    bounding = process['capabilities'].get('bounding', [])
    process['capabilities'] = {'bounding': bounding}
json.dump(config, sys.stdout)
";

/// The image, loaded into a storage that all tests share.
#[derive(Clone, Copy)]
pub(crate) struct Podman {
    loaded: &'static Loaded,
}

struct Loaded {
    folder: PathBuf,
    image: String,
}

/// How a container ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// Both streams.
    pub(crate) text: String,
}

impl Podman {
    pub(crate) fn new() -> Self {
        static LOADED: OnceLock<Loaded> = OnceLock::new();
        Self {
            loaded: LOADED.get_or_init(Loaded::new),
        }
    }

    /// Runs a pod without a network to its end.
    pub(crate) fn run(self, pod: &Pod) -> Ended {
        let mut command = self.loaded.run_command(pod);
        command.args(["--rm", "--network=none", &self.loaded.image]);
        ended(&output(command.args(&pod.args)))
    }

    /// Starts a pod in its network.
    pub(crate) fn start(self, pod: &Pod, network: &PodNetwork) -> Container {
        static TAKEN: AtomicU32 = AtomicU32::new(0);
        let number = TAKEN.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsmon-{}-{number}", std::process::id());
        let resolver = self.loaded.folder.join(format!("{name}.resolv.conf"));
        fs::write(&resolver, "nameserver 127.0.0.1\n").unwrap();
        let mut command = self.loaded.run_command(pod);
        command.args(["--detach", "--name", &name]);
        command.arg(format!("--network=ns:{}", network.path()));
        command.arg(format!(
            "--volume={}:/etc/resolv.conf:ro",
            resolver.display()
        ));
        command.arg(&self.loaded.image).args(&pod.args);
        succeed(&mut command);
        Container {
            loaded: self.loaded,
            name,
        }
    }

    /// The configuration of the image.
    pub(crate) fn inspect(self) -> Value {
        let mut command = self.loaded.podman();
        let text = succeed(command.args(["image", "inspect", &self.loaded.image]));
        let images: Value = serde_json::from_str(&text).unwrap();
        images[0]["Config"].clone()
    }

    /// The paths of its files, relative to its root.
    pub(crate) fn files(self) -> Vec<String> {
        let mut command = self.loaded.podman();
        let id = succeed(command.args(["create", &self.loaded.image]));
        let container = Container {
            loaded: self.loaded,
            name: id.trim().to_owned(),
        };
        let archive = self.loaded.folder.join("rootfs.tar");
        let mut export = self.loaded.podman();
        export
            .args(["export", "--output"])
            .arg(&archive)
            .arg(&container.name);
        succeed(&mut export);
        let list = succeed(Command::new("tar").arg("--list").arg("--file").arg(archive));
        list.lines().map(str::to_owned).collect()
    }
}

impl Loaded {
    fn new() -> Self {
        let archive = env::var_os(IMAGE).expect("run these tests with `cargo xtask image --test`");
        // In the workspace, because a temporary folder may be in memory.
        let folder = workspace().join("target/image/podman");
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let hooks = folder.join("hooks");
        fs::create_dir_all(&hooks).unwrap();
        let script = folder.join("take-capabilities.py");
        fs::write(&script, SCRIPT).unwrap();
        let hook = HOOK.replace("SCRIPT", script.to_str().unwrap());
        fs::write(hooks.join("hook.json"), hook).unwrap();
        let mut loaded = Self {
            folder,
            image: String::new(),
        };
        let printed = succeed(
            loaded
                .podman()
                .args(["load", "--quiet", "--input"])
                .arg(archive),
        );
        let name = printed.trim().rsplit(' ').next().unwrap();
        name.clone_into(&mut loaded.image);
        loaded
    }

    fn podman(&self) -> Command {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.folder.join("storage"));
        command.arg("--runroot").arg(self.folder.join("run"));
        command.args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
        ]);
        command.arg("--hooks-dir").arg(self.folder.join("hooks"));
        command
    }

    /// `podman run` with everything of the pod except image, arguments and network.
    fn run_command(&self, pod: &Pod) -> Command {
        let mut command = self.podman();
        command.args(["run", "--cap-drop=ALL", "--user", &pod.user]);
        // The defaults exceed what a container without CAP_SYS_RESOURCE may set, such as this test's.
        command.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]);
        command.args(
            pod.capabilities
                .iter()
                .map(|name| format!("--cap-add={name}")),
        );
        command.args(pod.host_pid.then_some("--pid=host"));
        command.args(
            pod.no_new_privileges
                .then_some("--security-opt=no-new-privileges"),
        );
        if pod.read_only {
            command.args(["--read-only", "--read-only-tmpfs=false"]);
        }
        match &pod.seccomp {
            Seccomp::RuntimeDefault => {}
            Seccomp::Unconfined => {
                command.arg("--security-opt=seccomp=unconfined");
            }
            Seccomp::Profile(path) => {
                command.arg(format!("--security-opt=seccomp={}", path.display()));
            }
        }
        for (name, value) in &pod.env {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        for mount in &pod.mounts {
            let destination = &mount.destination;
            let options = if mount.read_only { "ro" } else { "rw" };
            command.arg(match &mount.source {
                Some(source) => format!("--volume={}:{destination}:{options}", source.display()),
                // As the kubelet makes it: everyone may write.
                None => format!("--tmpfs={destination}:{options},mode=0777,notmpcopyup"),
            });
        }
        command
    }
}

/// A container, killed if it runs, and removed when the value is dropped.
pub(crate) struct Container {
    loaded: &'static Loaded,
    /// Or its id.
    name: String,
}

impl Container {
    /// Runs wsmon inside; returns what it printed to stdout.
    pub(crate) fn exec(&self, arguments: &[&str]) -> String {
        let mut command = self.loaded.podman();
        command.args(["exec", &self.name, "/usr/bin/wsmon"]);
        succeed(command.args(arguments))
    }

    /// Both streams of wsmon so far.
    pub(crate) fn log(&self) -> String {
        let mut command = self.loaded.podman();
        ended(&output(command.args(["logs", &self.name]))).text
    }

    #[track_caller]
    pub(crate) fn assert_running(&self) {
        let mut command = self.loaded.podman();
        let state = succeed(command.args(["inspect", "--format={{.State.Status}}", &self.name]));
        assert_eq!(state.trim(), "running", "{}", self.log());
    }

    /// Stops it as an engine does.
    pub(crate) fn stop(self) -> Ended {
        let mut command = self.loaded.podman();
        succeed(command.args(["stop", "--time=10", &self.name]));
        let mut command = self.loaded.podman();
        let status = succeed(command.args(["inspect", "--format={{.State.ExitCode}}", &self.name]));
        Ended {
            status: status.trim().parse().unwrap(),
            text: self.log(),
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let mut command = self.loaded.podman();
        let removed = output(command.args(["rm", "--force", "--time=0", &self.name]));
        if !removed.status.success() {
            eprintln!("{}: {}", self.name, ended(&removed).text);
        }
    }
}

fn output(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup` installs it"))
}

/// The standard output of a command that has to succeed.
#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}",
        ended(&output).text
    );
    String::from_utf8(output.stdout).unwrap()
}

fn ended(output: &Output) -> Ended {
    let streams = [&output.stdout, &output.stderr];
    let texts = streams.map(|stream| String::from_utf8_lossy(stream).into_owned());
    Ended {
        status: output.status.code().unwrap_or(-1),
        text: texts.concat(),
    }
}
