//! Flags of the commands and their help.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use monitor::{
    cli::{Cli, environment},
    records::skipped::Skip,
};

use crate::pages::{code, read, table_rows};

#[test]
fn every_flag_of_run_and_replay_is_documented_with_its_default() {
    for (command, page) in [("run", "docs/running.md"), ("replay", "docs/replay.md")] {
        let documented: BTreeMap<_, _> = table_rows(page)
            .into_iter()
            .filter_map(|row| {
                let flag = code(row.first()?).first()?.split(' ').next()?.to_owned();
                let default = code(row.get(1)?).into_iter().next();
                (flag.starts_with("--") && flag != "--debug-kernel").then_some((flag, default))
            })
            .collect();
        assert_eq!(documented, flags(command), "{page}");
    }
    assert!(read("docs/running.md").contains("`--debug-kernel`"));
}

/// The flags of a command with their defaults, except hidden flags for developers.
fn flags(command: &str) -> BTreeMap<String, Option<String>> {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).expect("the command exists");
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter(|argument| {
            argument
                .get_long()
                .is_some_and(|name| name != "debug-kernel")
        })
        .filter_map(|argument| {
            // A flag without a value has an implicit default.
            let default = argument
                .get_default_values()
                .first()
                .filter(|_| argument.get_action().takes_values());
            let default = default.map(|value| value.to_string_lossy().into_owned());
            let default = default.or_else(|| help_default(argument));
            Some((format!("--{}", argument.get_long()?), default))
        })
        .filter(|(flag, _)| flag != "--help")
        .collect()
}

/// A flag that a file can replace has no default in clap, only in its help.
fn help_default(argument: &clap::Arg) -> Option<String> {
    let help = argument.get_help()?.to_string();
    let (_, default) = help.split_once("[default: ")?;
    Some(default.strip_suffix(']')?.to_owned())
}

#[test]
fn every_flag_of_run_has_its_variable_and_so_has_the_control_socket_everywhere() {
    let mut cli = Cli::command();
    cli.build();
    let mut found = 0;
    for command in cli.get_subcommands() {
        for flag in command.get_arguments() {
            let Some(name) = flag.get_long().filter(|name| *name != "help") else {
                continue;
            };
            let has_variable =
                !flag.is_hide_set() && (command.get_name() == "run" || name == "control");
            let expected = has_variable.then(|| environment::variable(name));
            let variable = flag
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            assert_eq!(variable, expected, "{} --{name}", command.get_name());
            found += usize::from(has_variable);
        }
    }
    assert!(found > 30, "{found}");
    assert_eq!(environment::variable("lb-timeout"), "WSMON_LB_TIMEOUT");
}

#[test]
fn every_flag_of_the_viewing_commands_is_documented() {
    for (page, commands) in [
        ("docs/frames.md", &["list", "inspect", "frames"][..]),
        ("docs/status.md", &["status", "alerts"]),
    ] {
        let command = Cli::command();
        let flags: BTreeSet<_> = commands
            .iter()
            .flat_map(|name| {
                let subcommand = command.find_subcommand(name).expect("the command exists");
                let flags = subcommand.get_arguments().filter(|a| !a.is_hide_set());
                let flags = flags.filter_map(|a| a.get_long());
                flags.map(move |flag| (*name, format!("--{flag}")))
            })
            .collect();
        let documented: BTreeSet<_> = table_rows(page)
            .into_iter()
            .filter_map(|row| {
                let flag = code(row.get(1)?).first()?.split(' ').next()?.to_owned();
                flag.starts_with("--").then(|| (row[0].clone(), flag))
            })
            .flat_map(|(of, flag)| {
                let named = move |name: &&&str| of == "all" || of == format!("`{name}`");
                let named = commands.iter().filter(named);
                named.map(move |name| (*name, flag.clone()))
            })
            .collect();
        assert_eq!(documented, flags, "{page}");
    }
}

#[test]
fn every_flag_of_the_live_view_is_documented() {
    let flags: BTreeSet<_> = flags("top").into_keys().collect();
    let documented: BTreeSet<_> = table_rows("docs/top.md")
        .into_iter()
        .filter_map(|row| Some(code(row.first()?).first()?.split(' ').next()?.to_owned()))
        .filter(|flag| flag.starts_with("--"))
        .collect();
    assert_eq!(documented, flags);
}

#[test]
fn every_reason_to_skip_a_packet_is_documented() {
    let documented: BTreeSet<_> = table_rows("docs/replay.md")
        .into_iter()
        .filter(|row| row.len() == 2)
        .filter_map(|row| code(row.first()?).into_iter().next())
        .collect();
    for &reason in Skip::ALL {
        assert!(documented.contains(reason.as_str()), "{}", reason.as_str());
    }
}
