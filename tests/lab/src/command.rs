//! Short-lived external commands: `ip` and `nft`.

use std::{
    env,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::LabError;

/// The programs the lab calls, each with its Debian package.
const PROGRAMS: [(&str, &str); 2] = [("ip", "iproute2"), ("nft", "nftables")];

pub(crate) fn require_programs() -> Result<(), LabError> {
    require(&PROGRAMS)
}

/// Fails for the first program that is not installed.
pub(crate) fn require(programs: &[(&'static str, &'static str)]) -> Result<(), LabError> {
    for &(program, package) in programs {
        if find_program(program).is_none() {
            return Err(LabError::MissingProgram { program, package });
        }
    }
    Ok(())
}

/// A command by its full path: sudo and cron often have no sbin in their PATH.
pub(crate) fn command(program: &str) -> Command {
    Command::new(find_program(program).unwrap_or_else(|| PathBuf::from(program)))
}

/// Runs `command` to its end with `input` on standard input, and returns its output.
pub(crate) fn run(mut command: Command, input: &str) -> Result<String, LabError> {
    let shown = show(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LabError::io(format!("start `{shown}`")))?;
    // A command that ends without reading its input reports the cause on stderr; that is the error
    // to show.
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child
        .wait_with_output()
        .map_err(LabError::io(format!("wait for `{shown}`")))?;
    if !output.status.success() {
        return Err(LabError::Command {
            command: shown,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    written
        .transpose()
        .map_err(LabError::io(format!("write to `{shown}`")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn show(command: &Command) -> String {
    let mut shown = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        shown.push(' ');
        shown.push_str(&argument.to_string_lossy());
    }
    shown
}

/// Finds a program on PATH, or in the folders of system programs that a user's PATH often lacks.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_reported_with_its_stderr() {
        let mut shell = command("sh");
        shell.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = run(shell, "").unwrap_err().to_string();
        assert!(error.contains("no such thing"), "{error}");
    }

    #[test]
    fn standard_input_reaches_the_command() {
        assert_eq!(run(command("cat"), "one\ntwo\n").unwrap(), "one\ntwo\n");
    }
}
