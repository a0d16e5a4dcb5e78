//! The hidden `wsmon man`: writes the man pages that a package installs.

use std::{env, fs, io, path::PathBuf, process::ExitCode};

use clap::{Args, Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};
use jiff::Timestamp;

use super::{
    Cli,
    exit::{CommandResult, Failure},
};

/// Write the man pages of wsmon and its commands.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Directory to write to; it must exist
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

pub fn run(args: &ManArgs) -> CommandResult {
    let directory = args.directory.display();
    let date = date().map_err(Failure::failed)?;
    for (name, page) in pages(&date).map_err(|error| Failure::failed(error.to_string()))? {
        fs::write(args.directory.join(&name), page).map_err(|error| {
            Failure::failed(format!("cannot write {name} to {directory}: {error}"))
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The date of the pages: today, or what the packager of a reproducible build chooses
/// (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn date() -> Result<String, String> {
    let now = match env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Timestamp::now(),
        Ok(epoch) => {
            let seconds = epoch.parse().ok();
            let time = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
            time.ok_or_else(|| format!("invalid SOURCE_DATE_EPOCH {epoch:?}, expected seconds"))?
        }
    };
    Ok(now.strftime("%Y-%m-%d").to_string())
}

/// The file name and the text of each page: `wsmon.1`, `wsmon-list.1`, …
fn pages(date: &str) -> io::Result<Vec<(String, String)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut pages = Vec::new();
    let mut commands = vec![&root];
    while let Some(command) = commands.pop() {
        pages.push(page(command, date)?);
        commands.extend(command.get_subcommands().filter(|c| !c.is_hide_set()));
    }
    Ok(pages)
}

fn page(command: &Command, date: &str) -> io::Result<(String, String)> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .date(date)
        .source(format!("wsmon {}", env!("CARGO_PKG_VERSION")))
        .manual("wsmon");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let help = command.get_after_help().map(ToString::to_string);
    after_help(&help.unwrap_or_default()).to_writer(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    // Each section has its own definition of the apostrophe.
    let preamble = Roff::new().render();
    let page = preamble.clone() + &page.replace(&preamble, "");
    // An empty line between two breaks is one break too many for mandoc.
    let page = page.replace(".br\n\n.br\n", ".sp\n");
    Ok((format!("{name}.1"), page))
}

/// The text after the options as sections: examples, remarks and exit status.
fn after_help(text: &str) -> Roff {
    let (mut examples, mut notes, mut status) = (Vec::new(), Vec::new(), None);
    for paragraph in text.split("\n\n") {
        let indented = paragraph
            .lines()
            .last()
            .is_some_and(|l| l.starts_with("  "));
        match paragraph.strip_prefix("Exit status:") {
            Some(text) => status = Some(text),
            None if indented => examples.extend(paragraph.lines().filter(|l| l.starts_with("  "))),
            None if paragraph.is_empty() => {}
            None => notes.push(paragraph),
        }
    }
    let mut roff = Roff::new();
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples {
            roff.text([roman(line)]);
        }
        roff.control("fi", []);
    }
    for (at, note) in notes.into_iter().enumerate() {
        let (begins, title): (_, &[&str]) = match at {
            0 => ("SH", &["NOTES"]),
            _ => ("PP", &[]),
        };
        roff.control(begins, title.iter().copied());
        flowing(&mut roff, note);
    }
    if let Some(status) = status {
        roff.control("SH", ["EXIT STATUS"]);
        flowing(&mut roff, status);
    }
    roff
}

/// A paragraph whose line breaks mean nothing.
fn flowing(roff: &mut Roff, text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        roff.text([roman(line)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_and_what_it_needs_to_be_found_in_it() {
        let pages = pages("2026-11-30").expect("pages");
        let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for command in Cli::command().get_subcommands() {
            let page = format!("wsmon-{}.1", command.get_name());
            assert_eq!(
                names.contains(&page.as_str()),
                !command.is_hide_set(),
                "{page}"
            );
        }
        assert!(names.contains(&"wsmon.1") && names.contains(&"wsmon-config-check.1"));
        let (_, list) = pages
            .iter()
            .find(|(name, _)| name == "wsmon-list.1")
            .expect("a page");
        assert_eq!(list.matches(".ie").count(), 1, "{list}");
        for part in [
            ".TH WSMON-LIST 1 2026-11-30 \"wsmon ",
            ".SH EXAMPLES\n.nf\n  wsmon list\n",
            ".SH \"EXIT STATUS\"\n0, 1 if",
        ] {
            assert!(list.contains(part), "{part}: {list}");
        }
    }

    #[test]
    fn help_is_divided_into_sections() {
        let text = "Examples:\n  wsmon x\n\n  wsmon y\n\nA remark\nof two lines.\n\nAnother.\n\nExit status: 0.";
        let page = after_help(text).to_roff();
        assert_eq!(
            page,
            ".SH EXAMPLES\n.nf\n  wsmon x\n  wsmon y\n.fi\n.SH NOTES\nA remark\nof two lines.\n.PP\nAnother.\n\
             .SH \"EXIT STATUS\"\n0.\n"
        );
    }
}
