//! buildah: from a folder to an archive in the OCI format.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Result;

use crate::{
    cross::Target,
    files,
    release_build::PROGRAM,
    root::{Prerequisite, as_root, is_root},
    source,
    tar::{self, Compression},
    workspace,
};

const CONTAINERFILE: &str = "deploy/container/Containerfile";

/// Labels of the image in addition to those in the Containerfile.
pub(super) struct Labels<'a> {
    pub(super) version: &'a str,
    /// The commit.
    pub(super) revision: String,
    /// Seconds since 1970: also the time of every file.
    pub(super) created: u64,
    /// An SPDX expression.
    pub(super) licences: String,
}

/// Builds one image in a folder of its own, with its own storage, so that nothing is left on the machine.
pub(super) struct Builder<'a> {
    target: &'a Target,
    folder: PathBuf,
}

/// Fails unless this process can build an image.
///
/// # Errors
/// [`Prerequisite`] with the remedy.
pub(crate) fn require_programs() -> Result<()> {
    if !is_root() {
        return Err(Prerequisite {
            missing: "only root may give the program in the image its capabilities".to_owned(),
            remedy: vec![as_root("image")],
        }
        .into());
    }
    if workspace::on_path("buildah").is_none() {
        return Err(Prerequisite {
            missing: "not installed: buildah".to_owned(),
            remedy: vec![as_root("setup --tests")],
        }
        .into());
    }
    Ok(())
}

impl<'a> Builder<'a> {
    /// Empties its folder.
    pub(super) fn new(target: &'a Target) -> Result<Self> {
        let folder = workspace::root().join("target/image").join(target.name);
        let builder = Self { target, folder };
        files::recreate(&builder.rootfs())?;
        Ok(builder)
    }

    /// What becomes the file system of the image.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.folder.join("context/rootfs")
    }

    /// Writes the archive into `destination`, an existing folder, and returns its path.
    pub(super) fn build(&self, labels: &Labels<'_>, destination: &Path) -> Result<PathBuf> {
        let Labels {
            version, created, ..
        } = labels;
        let name = format!("localhost/{PROGRAM}:{version}");
        let mut build = self.buildah();
        build.args(["build", "--quiet", "--format=oci", "--no-cache"]);
        // No step runs a program, and `scratch` is empty: nothing is fetched.
        build.args(["--pull=never", "--isolation=chroot"]);
        build.arg(format!("--timestamp={created}"));
        build.arg("--identity-label=false");
        build.arg(format!(
            "--platform=linux/{}",
            self.target.debian_architecture
        ));
        let time = source::timestamp(*created)?.to_string();
        for (key, value) in [
            ("VERSION", *version),
            ("REVISION", &labels.revision),
            ("CREATED", &time),
            ("LICENSES", &labels.licences),
        ] {
            build.arg(format!("--build-arg={key}={value}"));
        }
        build.arg(format!("--tag={name}"));
        build
            .arg("--file")
            .arg(workspace::root().join(CONTAINERFILE));
        workspace::run(build.arg(self.folder.join("context")).stdout(Stdio::null()))?;

        let layout = self.folder.join("layout");
        files::recreate(&layout)?;
        let oci = format!("oci:{}:{name}", layout.display());
        workspace::run(self.buildah().args(["push", "--quiet", &name, &oci]))?;
        workspace::run(
            self.buildah()
                .args(["rmi", "--all", "--force"])
                .stdout(Stdio::null()),
        )?;
        let archive = format!("{PROGRAM}-{version}-{}.oci.tar", self.target.name);
        let archive = destination.join(archive);
        let parts = ["oci-layout", "index.json", "blobs"];
        tar::pack(&layout, &parts, *created, Compression::None, &archive)?;
        Ok(archive)
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.folder.join("storage"));
        command.arg("--runroot").arg(self.folder.join("run"));
        command.arg("--storage-driver=vfs");
        command
    }
}
