//! The help texts: they fit a narrow terminal, and their examples are valid.

use clap::{Command, CommandFactory, Parser};
use monitor::cli::Cli;

use crate::pages::read;

const WIDTH: usize = 80;

/// Every command with its help on a terminal of [`WIDTH`] columns, short and long.
fn helps() -> Vec<(String, String)> {
    let mut root = Cli::command().term_width(WIDTH);
    root.build();
    let mut helps = Vec::new();
    collect(&root, &mut helps);
    assert!(helps.len() > 20, "{}", helps.len());
    helps
}

fn collect(command: &Command, helps: &mut Vec<(String, String)>) {
    // `wsmon help COMMAND` has the help of the command.
    if command.get_name() == "help" {
        return;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut command = command.clone();
    helps.push((name.to_owned(), command.render_help().to_string()));
    helps.push((name.to_owned(), command.render_long_help().to_string()));
    for subcommand in command.get_subcommands() {
        collect(subcommand, helps);
    }
}

#[test]
fn no_line_is_wider_than_a_narrow_terminal() {
    for (name, help) in helps() {
        for line in help.lines() {
            assert!(line.chars().count() <= WIDTH, "{name}: {line:?}");
        }
    }
}

#[test]
fn no_paragraph_ends_with_a_line_of_one_word() {
    let orphans: Vec<_> = helps()
        .into_iter()
        .flat_map(|(name, help)| {
            let orphans = orphans(&help).into_iter();
            orphans
                .map(|line| format!("{name}: {line}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(orphans.is_empty(), "{}", orphans.join("\n"));
}

/// The lines of one word that continue the line before.
fn orphans(help: &str) -> Vec<String> {
    let lines: Vec<_> = help.lines().collect();
    let continued = lines.windows(2).filter(|pair| {
        let [above, line] = [pair[0], pair[1]];
        let column = text_column(line);
        let words = line.split_whitespace().count();
        let starts_like_it = text_column(above) == column
            // The text of a flag that begins next to it.
            || above.chars().nth(column).is_some_and(|c| c != ' ')
                && column >= 2
                && above.chars().skip(column - 2).take(2).all(|c| c == ' ');
        // clap adds notes such as `[default: 30s]`, whose length the text does not decide.
        let is_note = line.ends_with(']');
        words == 1 && !is_note && !above.trim().is_empty() && starts_like_it
    });
    continued.map(|pair| pair[1].trim().to_owned()).collect()
}

fn text_column(line: &str) -> usize {
    line.chars().take_while(|c| *c == ' ').count()
}

#[test]
fn an_orphan_is_found_below_text_and_not_below_a_title() {
    let help =
        "Title:\n  wsmon\n\nTwo words\norphan\n\n  -a, --all  every one of\n             them\n";
    assert_eq!(orphans(help), ["orphan", "them"]);
    assert_eq!(orphans("  --flag\n      text\n"), [""; 0]);
}

/// The commands of a text: what follows `wsmon` in a line with this indent, up to a comment, a pipe or a
/// redirection.
fn examples(text: &str, indent: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter_map(|line| {
        let line = line.strip_prefix(indent)?;
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        let piped = line.split_once("| wsmon ").map(|(_, rest)| rest);
        line.strip_prefix("wsmon ").or(piped)
    });
    lines.map(words).collect()
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec!["wsmon".to_owned()], None);
    let line = line.split("  ").next().unwrap_or_default();
    for word in line.split(' ') {
        match (word, quote) {
            ("|" | "||" | ">" | "#" | "&&", None) => break,
            (_, None) => words.push(word.trim_matches(['\'', '"']).to_owned()),
            (_, Some(_)) => {
                let last = words.last_mut().expect("a quoted word has begun");
                *last = format!("{last} {}", word.trim_end_matches(['\'', '"']));
            }
        }
        let quotes = word.matches(['\'', '"']).count();
        if quotes % 2 == 1 {
            quote = quote.xor(Some(()));
        }
    }
    words
}

#[test]
fn every_example_is_valid() {
    let helps = helps().into_iter().map(|(name, text)| (name, text, "  "));
    let pages = [
        "README.md",
        "docs/running.md",
        "docs/frames.md",
        "docs/replay.md",
    ];
    let pages = pages.map(|page| (page.to_owned(), read(page), "    "));
    let mut found = 0;
    for (name, text, indent) in helps.chain(pages) {
        for example in examples(&text, indent) {
            found += 1;
            if let Err(error) = Cli::try_parse_from(&example) {
                // Help is an answer, not a refusal.
                assert!(!error.use_stderr(), "{name}: {example:?}: {error}");
            }
        }
    }
    assert!(found > 60, "{found}");
}

#[test]
fn an_example_ends_before_its_comment_and_before_a_pipe() {
    let text = "  a wsmon list\n  wsmon list --limit 0     all of them\n  sudo wsmon frames | head\n  \
                tcpdump -w - | wsmon replay --port 80 -\n  wsmon list --search 'a b' > x\n";
    let found: Vec<_> = examples(text, "  ")
        .iter()
        .map(|words| words.join(","))
        .collect();
    assert_eq!(
        found,
        [
            "wsmon,list,--limit,0",
            "wsmon,frames",
            "wsmon,replay,--port,80,-",
            "wsmon,list,--search,a b",
        ]
    );
}
