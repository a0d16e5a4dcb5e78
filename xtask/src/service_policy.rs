//! Keeps Debian's packages from starting their servers while they are installed.

use std::{fs, io, os::unix::fs::OpenOptionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::root::Prerequisite;

/// What `invoke-rc.d` and `deb-systemd-invoke` run before they start a server.
const PATH: &str = "/usr/sbin/policy-rc.d";
/// 101 is "action not allowed".
const DENY: &str =
    "#!/bin/sh\n# Written by `cargo xtask setup` while it installs packages.\nexit 101\n";
/// Runs the command in the arguments, and then removes the policy, whose path is `$0`. Ctrl-C reaches the command too.
/// This shell waits until the command has ended, also if xtask does not live as long.
const THEN_REMOVE: &str = r#"trap : HUP INT TERM; "$@"; status=$?; rm -f -- "$0"; exit "$status""#;

/// The same command, but while it runs no package starts a server. A policy that the host has already is left alone.
/// The command must be started: it also removes the policy.
///
/// # Errors
/// If the policy cannot be written.
pub(crate) fn without_servers(command: Command) -> Result<Command> {
    without_servers_at(Path::new(PATH), command)
        .with_context(|| format!("could not write {PATH}, which keeps servers from starting"))
}

/// Removes the policy that a killed set-up has left behind, because with it no server starts any more.
///
/// # Errors
/// [`Prerequisite`] if that needs root's rights.
pub(crate) fn remove_leftover() -> Result<()> {
    remove_leftover_at(Path::new(PATH))
}

fn without_servers_at(path: &Path, command: Command) -> io::Result<Command> {
    if path.exists() && !is_ours(path) {
        return Ok(command);
    }
    let mut file = fs::OpenOptions::new();
    let mut file = file
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)?;
    io::Write::write_all(&mut file, DENY.as_bytes())?;
    let mut shell = Command::new("sh");
    shell.args(["-c", THEN_REMOVE]).arg(path);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    Ok(shell)
}

fn remove_leftover_at(path: &Path) -> Result<()> {
    if !is_ours(path) {
        return Ok(());
    }
    fs::remove_file(path).map_err(|error| {
        let path = path.display();
        let left = format!(
            "{path} of an interrupted `cargo xtask setup` keeps servers from starting: {error}"
        );
        let remedy = vec![format!("sudo rm {path}")];
        Prerequisite {
            missing: left,
            remedy,
        }
        .into()
    })
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text == DENY)
}

#[cfg(test)]
mod tests {
    use std::{env, path::PathBuf, process};

    use super::*;

    fn path(test: &str) -> PathBuf {
        env::temp_dir().join(format!("policy-rc.d-{}-{test}", process::id()))
    }

    /// A shell that runs `script`, in which the policy's path is `$POLICY`.
    fn shell(path: &Path, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).env("POLICY", path);
        shell
    }

    #[test]
    fn servers_are_denied_only_while_the_command_runs() {
        let path = path("denied");
        // Not started directly: another test's fork may still have it open for writing.
        let script = r#"test -x "$POLICY" && sh "$POLICY" nginx start; echo "$?""#;
        // The second one finds what a killed set-up has left.
        drop(without_servers_at(&path, shell(&path, script)).unwrap());
        let mut command = without_servers_at(&path, shell(&path, script)).unwrap();
        assert_eq!(command.output().unwrap().stdout, b"101\n");
        assert!(!path.exists());
    }

    #[test]
    fn the_policy_is_removed_after_an_interrupted_command() {
        let path = path("interrupted");
        for signal in ["HUP", "INT", "TERM"] {
            // The parent is the shell that removes the policy.
            let script = format!(r#"kill -s {signal} "$PPID"; test -e "$POLICY" && exit 100"#);
            let mut command = without_servers_at(&path, shell(&path, &script)).unwrap();
            assert_eq!(command.status().unwrap().code(), Some(100), "{signal}");
            assert!(!path.exists(), "{signal}");
        }
    }

    #[test]
    fn a_leftover_is_removed_and_a_policy_of_the_host_stays() {
        let path = path("leftover");
        remove_leftover_at(&path).unwrap();
        fs::write(&path, DENY).unwrap();
        remove_leftover_at(&path).unwrap();
        assert!(!path.exists());

        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        remove_leftover_at(&path).unwrap();
        let mut command = without_servers_at(&path, shell(&path, "exit 7")).unwrap();
        assert_eq!(command.status().unwrap().code(), Some(7));
        assert_eq!(fs::read(&path).unwrap(), b"#!/bin/sh\nexit 0\n");
        fs::remove_file(&path).unwrap();
    }
}
