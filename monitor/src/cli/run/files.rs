//! The files that the daemon writes: all are refused in the same way, before anything is attached.

use std::{ffi::OsStr, path::Path};

use super::{RunArgs, origin::origin, settings::Settings};
use crate::cli::{client::DEFAULT_CONTROL, exit::Failure};

/// Refuses a file whose directory does not exist, and a directory in place of a file. wsmon creates no
/// directories: a mistyped path would stay unnoticed.
pub(super) fn refuse_misplaced(args: &RunArgs, settings: &Settings) -> Result<(), Failure> {
    let control_key = match settings.control == Path::new(DEFAULT_CONTROL) {
        // Nothing may have set it.
        true => "--control",
        false => "daemon.control",
    };
    let files = [
        (
            log_file(&settings.alert_log),
            origin("alert-log", "alerts.log", os(&args.alert_log)),
        ),
        (
            settings.access_log.as_deref().and_then(log_file),
            origin("access-log", "daemon.access_log", os(&args.access_log)),
        ),
        (
            settings.state.as_deref(),
            origin("state", "daemon.state", os(&args.state)),
        ),
        (
            settings.control(),
            origin("control", control_key, os(&args.control)),
        ),
    ];
    for (file, origin) in files {
        let Some(file) = file else { continue };
        refuse_file(&origin, file)?;
    }
    match &settings.given_pod_logs {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(format!(
            "{} {}: there is no such directory",
            origin("pod-logs", "daemon.pod_logs", os(&args.pod_logs)),
            directory.display()
        ))),
        _ => Ok(()),
    }
}

fn os<T: AsRef<OsStr>>(given: &Option<T>) -> Option<&OsStr> {
    given.as_ref().map(AsRef::as_ref)
}

/// `-` is stderr.
fn log_file(log: &str) -> Option<&Path> {
    (log != "-").then_some(Path::new(log))
}

fn refuse_file(origin: &str, file: &Path) -> Result<(), Failure> {
    let shown = file.display();
    let directory = file.parent().filter(|path| *path != Path::new(""));
    if file.is_dir() {
        return Err(Failure::usage(format!(
            "{origin} {shown}: it is a directory, name a file in it"
        )));
    }
    match directory {
        Some(directory) if !directory.is_dir() => Err(Failure::usage(format!(
            "{origin} {shown}: there is no directory {}; create it, or choose another path",
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
