//! The commit that is built and packed.

use std::{env, process::Command};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;

use crate::{files::output, workspace};

/// The time that packed files get, in seconds since 1970: `SOURCE_DATE_EPOCH`, or else the time of the last commit.
///
/// # Errors
/// If the variable is not a number, or without a commit.
pub(crate) fn date() -> Result<u64> {
    if let Some(date) = env::var_os("SOURCE_DATE_EPOCH") {
        let date = date.to_string_lossy();
        return date
            .parse()
            .with_context(|| format!("invalid SOURCE_DATE_EPOCH {date:?}, expected seconds"));
    }
    let date = git(&["log", "-1", "--format=%ct"])?;
    date.parse()
        .context("git did not print the time of the last commit")
}

/// A date in seconds since 1970.
///
/// # Errors
/// If it is thousands of years away.
pub(crate) fn timestamp(date: u64) -> Result<Timestamp> {
    let date = i64::try_from(date).ok();
    date.and_then(|date| Timestamp::from_second(date).ok())
        .context("the date of the sources is out of range")
}

/// The last commit, with `-dirty` if the sources differ from it.
///
/// # Errors
/// Without a commit.
pub(crate) fn revision() -> Result<String> {
    git(&[
        "describe",
        "--always",
        "--abbrev=40",
        "--exclude=*",
        "--dirty",
    ])
}

/// Refuses sources that differ from the last commit: nobody could build them again.
///
/// # Errors
/// With the files that differ, and the remedy.
pub(crate) fn require_clean() -> Result<()> {
    let changes = git(&["status", "--porcelain"])?;
    refuse(&changes)
}

/// `changes` is the output of `git status --porcelain`.
fn refuse(changes: &str) -> Result<()> {
    const SHOWN: usize = 10;
    let changed: Vec<_> = changes.lines().collect();
    let more = match changed.len().checked_sub(SHOWN) {
        None | Some(0) => String::new(),
        Some(more) => format!("\n  and {more} more"),
    };
    ensure!(
        changed.is_empty(),
        "the sources differ from the last commit:\n  {}{more}\ncommit the changes, or pack them for a trial with \
         --allow-dirty",
        changed[..changed.len().min(SHOWN)].join("\n  ")
    );
    Ok(())
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut git = Command::new("git");
    let answer = output(git.arg("-C").arg(workspace::root()).args(arguments))
        .context("the sources have to be a git repository with a commit")?;
    Ok(String::from_utf8(answer)?.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_that_differ_from_the_commit_are_refused_with_the_remedy() {
        assert!(refuse("").is_ok());
        let refusal = refuse(" M README.md\n?? new").unwrap_err().to_string();
        assert!(
            refusal.contains("\n   M README.md\n  ?? new\n"),
            "{refusal}"
        );
        assert!(refusal.contains("--allow-dirty"), "{refusal}");
        let many = "?? new\n".repeat(12);
        let refusal = refuse(&many).unwrap_err().to_string();
        assert!(refusal.contains("\n  and 2 more\n"), "{refusal}");
    }
}
