//! Whether two screens say the same at different times.
//!
//! Numbers may differ: times, ports, counts, process ids. Words may not, nor the columns of the connections, nor
//! the order of the rows.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A number with its sign and its unit: `-47s`, `5m12s`, `1.2k`, `0.250 s`, `1 m 12 s`.
const NUMBER: &str = concat!(
    r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?",
    r"(?:(?:[nuµ]s|ms|[smhdkMGT])(?:[0-9]{2}[smh])?(?-u:\b))?",
    r"(?: (?:ms|us|µs|s|m|h|d)(?-u:\b))?(?: [0-9]+ [smh](?-u:\b))?",
);

/// An address with its port, which must not be taken for a number.
const ADDRESS: &str = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+(?::[0-9]+)?";

/// Further lines of a field on a page begin with so many blanks.
const INDENT: &str = "             ";

/// What may differ of text that is cut at the edge of the screen, because the numbers before it do.
const CUT: usize = 12;

/// The lines of the screens that are not alike, each from both.
pub(super) fn differences(shown: &str, expected: &str) -> Vec<String> {
    let [shown, expected] = [shown, expected].map(normalized);
    let count = shown.len().max(expected.len());
    let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
    (0..count)
        .map(|at| (line(&shown, at), line(&expected, at)))
        .filter(|(shown, expected)| !is_like(shown, expected))
        .map(|(shown, expected)| format!("shown    {shown}\nexpected {expected}"))
        .collect()
}

fn is_like(shown: &str, expected: &str) -> bool {
    match (shown.strip_suffix('…'), expected.strip_suffix('…')) {
        (Some(shown), Some(expected)) => {
            // The last number may be cut, too.
            let [shown, expected] = [shown, expected].map(|text| text.trim_end_matches(['N', '-']));
            let differs = shown.chars().count().abs_diff(expected.chars().count());
            differs <= CUT && (shown.starts_with(expected) || expected.starts_with(shown))
        }
        _ => shown == expected,
    }
}

/// The lines of a screen without what may differ. Wrapped text is one line.
fn normalized(screen: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut in_columns = false;
    for line in screen.lines() {
        let is_heading = line.starts_with("  VERDICT ");
        in_columns = (in_columns || is_heading) && !line.is_empty();
        match lines.last_mut() {
            _ if is_heading => lines.push(line.to_owned()),
            _ if in_columns => lines.push(columns(line)),
            Some(last) if line.starts_with(INDENT) => {
                *last += " ";
                *last += words(line).trim_start();
            }
            _ => lines.push(words(line)),
        }
    }
    lines
}

/// A row of columns, in which each number ends where it ended.
fn columns(line: &str) -> String {
    static PARTS: LazyLock<Regex> = LazyLock::new(|| {
        let parts = format!(r"(?<address> *{ADDRESS})|(?<bar>[█░]*) +{NUMBER}");
        Regex::new(&parts).unwrap()
    });
    let replaced = PARTS.replace_all(line, |found: &Captures<'_>| {
        let width = found[0].chars().count();
        match (found.name("address"), found.name("bar")) {
            (Some(address), _) => without_port(address.as_str()),
            (None, Some(bar)) if !bar.is_empty() => format!("{:>width$}", "bar N"),
            _ => format!("{:>width$}", "N"),
        }
    });
    replaced.into_owned()
}

/// A line of text, in which a number moves what comes after it.
fn words(line: &str) -> String {
    static PARTS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(&format!(r"(?<address>{ADDRESS})|{NUMBER}")).unwrap());
    if !line.contains(|c: char| c.is_ascii_digit()) {
        return line.to_owned();
    }
    let replaced = PARTS.replace_all(line, |found: &Captures<'_>| {
        let address = found.name("address");
        address.map_or_else(|| "N".to_owned(), |address| without_port(address.as_str()))
    });
    let words: Vec<&str> = replaced.split_whitespace().collect();
    words.join(" ")
}

fn without_port(address: &str) -> String {
    match address.split_once(':') {
        Some((address, _)) => format!("{address}:port"),
        None => address.to_owned(),
    }
}

#[test]
fn screens_that_differ_in_numbers_alone_are_alike() {
    let screen = "\
wsmon  12 open  7 zombies (5 confirmed)  1 at risk  up 1m12s         18:37:52Z
  VERDICT       PEER                  IDLE/LIMIT       PING IN   RTT OWNER
> black_holed!  10.77.1.12:53787      ██░░░░    13s/1m    -22s 250us shop/chat-6…
  quiet?        10.77.1.13:53788             9.8s            -   1ms shop/chat-6…

connection 315653 at 2026-11-22 18:37:52.500 UTC
  verdict    expired (confirmed) since 18:37:40.500, idle 60.2 s on a path that
             forgets
18:37:50  expired?  10.77.1.12:53787  idle 60.2 s on a path that for…";
    let later = "\
wsmon  12 open  7 zombies (5 confirmed)  1 at risk  up 58s           18:38:02Z
  VERDICT       PEER                  IDLE/LIMIT       PING IN   RTT OWNER
> black_holed!  10.77.1.12:40001      ░░░░░░   0.2s/1m     12s  20ms shop/chat-6…
  quiet?        10.77.1.13:40002              12s            -   2ms shop/chat-6…

connection 7 at 2026-11-22 18:38:02.500 UTC
  verdict    expired (confirmed) since 18:37:40.500, idle 1 m 2 s on a
             path that forgets
18:38:50  expired?  10.77.1.12:53787  idle 1 m 12 s on a path that f…";
    assert_eq!(differences(later, screen), [""; 0]);
    for (from, to) in [
        ("black_holed!", "black_holed?"),
        ("10.77.1.13:", "10.77.1.14:"),
        ("   1ms", "  1ms "),
        ("-   1ms", "3s   1ms"),
        ("/1m ", "/2m "),
        ("forgets\n", "closes\n"),
        ("on a path that for…", "on a road that for…"),
        ("at risk", "at_risk"),
    ] {
        let other = screen.replace(from, to);
        assert_ne!(other, screen, "{from}");
        assert_eq!(differences(&other, screen).len(), 1, "{from}");
    }
}
