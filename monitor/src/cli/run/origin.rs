//! What set a value: a flag, an environment variable or the file.

use std::{env, ffi::OsStr};

use crate::cli::environment;

/// The name to show in a refusal: `--state`, `WSMON_STATE` or `daemon.state`. `given` is the value of the
/// flag or of its variable; without it, the value is that of `key` in the file.
pub(super) fn origin(flag: &str, key: &str, given: Option<&OsStr>) -> String {
    let variable = environment::variable(flag);
    named(flag, key, given, env::var_os(&variable).as_deref())
}

/// clap keeps no origin of a value. A flag that repeats its variable is named by the variable.
fn named(flag: &str, key: &str, given: Option<&OsStr>, in_variable: Option<&OsStr>) -> String {
    match given {
        None => key.to_owned(),
        Some(_) if given == in_variable => environment::variable(flag),
        Some(_) => format!("--{flag}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_overrides_a_variable_and_a_variable_the_file() {
        let name = |given: Option<&str>, variable: Option<&str>| {
            let [given, variable] = [given, variable].map(|value| value.map(OsStr::new));
            named("pod-logs", "daemon.pod_logs", given, variable)
        };
        assert_eq!(name(Some("/a"), None), "--pod-logs");
        assert_eq!(name(Some("/a"), Some("/b")), "--pod-logs");
        assert_eq!(name(Some("/b"), Some("/b")), "WSMON_POD_LOGS");
        assert_eq!(name(None, None), "daemon.pod_logs");
    }
}
