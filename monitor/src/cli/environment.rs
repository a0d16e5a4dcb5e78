//! Environment variables in place of flags.

use clap::{Arg, ArgAction, builder::BoolishValueParser};

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
