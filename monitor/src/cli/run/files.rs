//! The files that the daemon writes: all are refused in the same way, before anything is attached.

use std::path::Path;

use super::settings::Settings;
use crate::cli::exit::Failure;

/// Refuses a file whose directory does not exist, and a directory in place of a file. wsmon creates no
/// directories: a mistyped path would stay unnoticed.
pub(super) fn refuse_misplaced(settings: &Settings) -> Result<(), Failure> {
    let files = [
        ("--alert-log", log_file(&settings.alert_log)),
        (
            "--access-log",
            settings.access_log.as_deref().and_then(log_file),
        ),
        ("--state", settings.state.as_deref()),
        ("--control", settings.control()),
    ];
    for (flag, file) in files {
        let Some(file) = file else { continue };
        refuse_file(flag, file)?;
    }
    match &settings.given_pod_logs {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(format!(
            "--pod-logs {}: there is no such directory",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

/// `-` is stderr.
fn log_file(log: &str) -> Option<&Path> {
    (log != "-").then_some(Path::new(log))
}

fn refuse_file(flag: &str, file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let directory = file.parent().filter(|path| *path != Path::new(""));
    if file.is_dir() {
        return Err(Failure::usage(format!(
            "{flag} {shown}: it is a directory, name a file in it"
        )));
    }
    match directory {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(format!(
            "{flag} {shown}: there is no directory {}; create it, or choose another path",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_its_directory_and_is_not_one_itself() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refusal = |file: &Path| {
            let refused = refuse_file("--state", file);
            refused.err().map(|failure| failure.to_string())
        };
        let [there, missing] = ["a", "no/a"].map(|name| folder.path().join(name));
        assert_eq!(refusal(&there), None);
        assert_eq!(refusal(Path::new("a")), None, "in the current directory");
        let folder = folder.path().display();
        assert_eq!(
            refusal(&missing).expect("refused"),
            format!(
                "--state {folder}/no/a: there is no directory {folder}/no; create it, or choose \
                 another path"
            )
        );
        assert_eq!(
            refusal(there.parent().expect("a folder")).expect("refused"),
            format!("--state {folder}: it is a directory, name a file in it")
        );
    }
}
