//! The packages as the tools of the distributions see them.

use std::{path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::files::output;

/// What every package must contain.
const PROMISED: [&str; 12] = [
    "/etc/logrotate.d/wsmon",
    "/etc/wsmon.toml",
    "/usr/bin/wsmon",
    "/usr/lib/systemd/system/wsmon.service",
    "/usr/lib/sysusers.d/wsmon.conf",
    "/usr/share/bash-completion/completions/wsmon",
    "/usr/share/doc/wsmon/README.md",
    "/usr/share/doc/wsmon/deploy/wsmon.toml",
    "/usr/share/doc/wsmon/docs/running.md",
    "/usr/share/fish/vendor_completions.d/wsmon.fish",
    "/usr/share/man/man1/wsmon-run.1.gz",
    "/usr/share/man/man1/wsmon.1.gz",
];

/// Checks the packages with lintian and rpm.
///
/// # Errors
/// With what is wrong with one.
pub(crate) fn check(deb: &Path, rpm: &Path) -> Result<()> {
    let listed =
        |command: &mut Command| Ok::<_, anyhow::Error>(String::from_utf8(output(command)?)?);

    // Its last column is the path, with a dot before it.
    let contents = listed(Command::new("dpkg-deb").arg("--contents").arg(deb))?;
    let paths = contents
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let paths: Vec<_> = paths.filter_map(|path| path.strip_prefix('.')).collect();
    require_promised(deb, &paths)?;
    ensure!(
        contents.lines().all(|line| line.contains(" root/root ")),
        "not everything in {} belongs to root:\n{contents}",
        deb.display()
    );
    // Only errors fail. Its warnings are shown.
    let options = [
        "--allow-root",
        "--fail-on",
        "error",
        "--tag-display-limit",
        "0",
    ];
    let hints = listed(Command::new("lintian").args(options).arg(deb))?;
    print!("{hints}");

    let query = |what: &str| {
        listed(
            Command::new("rpm")
                .args(["--query", "--package", what])
                .arg(rpm),
        )
    };
    let files = query("--list")?;
    require_promised(rpm, &files.lines().collect::<Vec<_>>())?;
    let configuration = query("--configfiles")?;
    ensure!(
        configuration
            .lines()
            .eq(["/etc/logrotate.d/wsmon", "/etc/wsmon.toml"]),
        "{} has the configuration files {configuration}",
        rpm.display()
    );
    output(
        Command::new("rpm")
            .args(["--checksig", "--nosignature"])
            .arg(rpm),
    )?;
    Ok(())
}

fn require_promised(package: &Path, paths: &[&str]) -> Result<()> {
    for promised in PROMISED {
        ensure!(
            paths.contains(&promised),
            "{} does not contain {promised}",
            package.display()
        );
    }
    Ok(())
}
