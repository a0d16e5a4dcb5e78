//! Keeps Debian's packages from starting their servers while they are installed.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What `invoke-rc.d` and `deb-systemd-invoke` ask before they start a server.
const PATH: &str = "/usr/sbin/policy-rc.d";
/// 101 is "action not allowed".
const DENY: &str =
    "#!/bin/sh\n# Written by `cargo xtask setup` while it installs packages.\nexit 101\n";

/// As long as this lives, no package starts a server. A policy that the host has already is left alone.
pub(crate) struct ServicePolicy {
    written: Option<PathBuf>,
}

impl ServicePolicy {
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn deny() -> io::Result<Self> {
        Self::deny_at(Path::new(PATH))
    }

    fn deny_at(path: &Path) -> io::Result<Self> {
        // Left behind by a setup that was killed.
        let is_ours = fs::read_to_string(path).is_ok_and(|text| text == DENY);
        if path.exists() && !is_ours {
            return Ok(Self { written: None });
        }
        let mut file = fs::OpenOptions::new();
        let mut file = file
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(path)?;
        io::Write::write_all(&mut file, DENY.as_bytes())?;
        Ok(Self {
            written: Some(path.to_owned()),
        })
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.written
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("could not remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::PermissionsExt as _, process, process::Command};

    use super::*;

    #[test]
    fn servers_are_denied_only_while_it_lives_and_a_host_s_own_policy_stays() {
        let path = env::temp_dir().join(format!("policy-rc.d-{}", process::id()));
        let policy = ServicePolicy::deny_at(&path).unwrap();
        // Not started directly: another test's fork may still have it open for writing.
        let status = Command::new("sh")
            .arg(&path)
            .args(["nginx", "start"])
            .status()
            .unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(status.code(), Some(101));
        // The second one finds what a killed setup has left.
        drop(ServicePolicy::deny_at(&path).unwrap());
        assert!(!path.exists());
        drop(policy);

        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(ServicePolicy::deny_at(&path).unwrap());
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
    }
}
