//! Environment variables in place of flags.

use std::env;

use clap::{
    Arg, ArgAction,
    builder::BoolishValueParser,
    error::{ContextKind, ContextValue},
};

/// The variable of a flag: `WSMON_LB_TIMEOUT` of `--lb-timeout`.
pub fn variable(flag: &str) -> String {
    format!("WSMON_{}", flag.to_uppercase().replace('-', "_"))
}

/// Lets a flag be set by its variable. Help states this rule once, not at each flag.
pub(super) fn settable(flag: Arg) -> Arg {
    let Some(name) = flag.get_long().filter(|_| !flag.is_hide_set()) else {
        return flag;
    };
    let variable = variable(name);
    let flag = flag.env(variable).hide_env(true);
    match flag.get_action() {
        // Also 1, yes and on.
        ArgAction::SetTrue => flag.value_parser(BoolishValueParser::new()),
        _ => flag,
    }
}

/// Names the variable instead of the flag in an error about a value that the variable has.
pub fn blamed(error: clap::Error) -> clap::Error {
    blamed_by(error, |variable| env::var(variable).ok())
}

/// clap keeps no origin of a value. A flag that repeats its variable is named by the variable.
fn blamed_by(mut error: clap::Error, get: impl Fn(&str) -> Option<String>) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    };
    // Such as `--lb-timeout <DURATION>`.
    let flag = text(ContextKind::InvalidArg).and_then(|argument| argument.split(' ').next());
    let name = flag.and_then(|flag| flag.strip_prefix("--"));
    let (Some(name), Some(value)) = (name, text(ContextKind::InvalidValue)) else {
        return error;
    };
    let variable = variable(name);
    // A list is refused for one of its parts.
    let has_it = |set: String| set == *value || set.split(',').any(|part| part == value);
    if get(&variable).is_some_and(has_it) {
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    fn refused(value: &str, variable: &str) -> String {
        let flag = Arg::new("lb").long("lb-timeout").value_name("DURATION");
        let flag = flag
            .value_parser(clap::value_parser!(u16))
            .value_delimiter(',');
        let command = Command::new("wsmon").arg(flag);
        let error = command.try_get_matches_from(["wsmon", "--lb-timeout", value]);
        let get = |name: &str| (name == "WSMON_LB_TIMEOUT").then(|| variable.to_owned());
        blamed_by(error.expect_err("refused"), get).to_string()
    }

    #[test]
    fn an_invalid_value_is_reported_with_the_name_of_what_has_it() {
        for (value, variable, name) in [
            ("soon", "60", "--lb-timeout <DURATION>"),
            ("soon", "soon", "WSMON_LB_TIMEOUT"),
            ("60,soon", "60,soon", "WSMON_LB_TIMEOUT"),
        ] {
            let text = refused(value, variable);
            let beginning = format!("error: invalid value 'soon' for '{name}'");
            assert!(text.starts_with(&beginning), "{text}");
        }
    }
}
