//! The results as the tables of docs/kernels.md.

use super::{guest::TARGETS, results::Target, run::Run};

/// Distributions that ship a series. The row names the tested package.
const DISTRIBUTIONS: [(&str, &str); 8] = [
    ("5.15", "Ubuntu 22.04"),
    ("6.1", "Debian 12, Amazon Linux 2023"),
    ("6.8", "Ubuntu 24.04, Ubuntu 22.04 HWE"),
    ("6.12", "Debian 13, RHEL 10"),
    ("6.18", "Talos 1.12 and 1.13"),
    ("7.0", "Ubuntu 26.04, Ubuntu 24.04 HWE"),
    ("7.1", "Fedora 44"),
    ("7.3", "Debian 13 backports"),
];
/// The programs whose instructions the verifier counts.
const PROGRAMS: [&str; 7] = [
    "ingress",
    "egress",
    "inet_sock_set_state",
    "nested_set_state",
    "tcp_retransmit_skb",
    "tcp_receive_reset",
    "tcp_send_reset",
];
/// Content of a cell without data.
const UNKNOWN: &str = "-";

/// A table in Markdown. The first two cells of a row identify the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) head: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    /// Results of the tests.
    pub(crate) fn of_results(runs: &[Run]) -> Self {
        let head = ["series", "processor", "package", "ships in"];
        let head = head.into_iter().map(str::to_owned);
        let targets = TARGETS.iter().map(|target| format!("`{target}`"));
        let rows = runs.iter().map(|run| {
            let mut row = key(run);
            row.push(run.kernel.version.clone());
            row.push(distributions(&run.kernel.name.series).to_owned());
            row.extend(TARGETS.iter().map(|name| {
                let mut targets = run.results.targets.iter();
                outcome(targets.find(|target| target.name == *name))
            }));
            row.push(run.results.loop_helper().unwrap_or(UNKNOWN).to_owned());
            row
        });
        Self {
            head: head.chain(targets).chain(["loop".to_owned()]).collect(),
            rows: rows.collect(),
        }
    }

    /// Instructions that the verifier processed, in the configuration with the most.
    pub(crate) fn of_instructions(runs: &[Run]) -> Self {
        let head = ["series", "processor"].map(str::to_owned).into_iter();
        let rows = runs.iter().map(|run| {
            let verified = run.results.verified();
            let count = |program: &&str| match verified.get(*program) {
                Some(count) => thousands(*count),
                None => UNKNOWN.to_owned(),
            };
            key(run)
                .into_iter()
                .chain(PROGRAMS.iter().map(count))
                .collect()
        });
        Self {
            head: head
                .chain(PROGRAMS.iter().map(|program| format!("`{program}`")))
                .collect(),
            rows: rows.collect(),
        }
    }

    /// The table in these lines, if there is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let cells = |line: &str| -> Option<Vec<String>> {
            let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
            Some(
                inside
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect(),
            )
        };
        let mut lines = text.lines().filter_map(cells);
        let head = lines.next()?;
        Some(Self {
            head,
            rows: lines.skip(1).collect(),
        })
    }

    /// Replaces its rows with those of `newer` about the same guests, sorted by processor and
    /// series. A table with another header is ignored.
    pub(crate) fn update(&mut self, newer: Self) {
        if self.head != newer.head {
            *self = newer;
            return;
        }
        for row in newer.rows {
            match self.rows.iter_mut().find(|old| old[..2] == row[..2]) {
                Some(old) => *old = row,
                None => self.rows.push(row),
            }
        }
        self.rows.sort_by_key(|row| {
            let numbers: Vec<u64> = row[0]
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            (std::cmp::Reverse(row[1].clone()), numbers, row[0].clone())
        });
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "| {} |", self.head.join(" | "))?;
        writeln!(f, "{}|", "|---".repeat(self.head.len()))?;
        self.rows
            .iter()
            .try_for_each(|row| writeln!(f, "| {} |", row.join(" | ")))
    }
}

/// The full report for a terminal: both tables, and the guests' durations.
pub(crate) fn tables(runs: &[Run]) -> String {
    let mut text = Table::of_results(runs).to_string();
    text += &format!(
        "\nVerified instructions:\n{}\n",
        Table::of_instructions(runs)
    );
    let seconds = runs
        .iter()
        .map(|run| format!("{} {:.0} s", run.kernel.name, run.seconds));
    text += &format!("guests took {}", seconds.collect::<Vec<_>>().join(", "));
    text
}

fn key(run: &Run) -> Vec<String> {
    vec![
        run.kernel.name.series.clone(),
        run.kernel.name.architecture.to_string(),
    ]
}

fn distributions(series: &str) -> &'static str {
    let is_of = |known: &str| {
        series
            .strip_prefix(known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    };
    DISTRIBUTIONS
        .into_iter()
        .find(|(known, _)| is_of(known))
        .map_or(UNKNOWN, |(_, names)| names)
}

fn outcome(target: Option<&Target>) -> String {
    match target.map(|target| (target.status, target.tally())) {
        None => UNKNOWN.to_owned(),
        Some((Some(0), (passed, 0))) => format!("{passed} passed"),
        Some((Some(_), (passed, failed))) if failed > 0 => {
            format!("{failed} of {} failed", passed + failed)
        }
        Some(_) => "did not end".to_owned(),
    }
}

/// A number with commas: `12,345`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 3]]) -> Table {
        let owned = |cells: &[&str; 3]| cells.iter().map(|&cell| cell.to_owned()).collect();
        Table {
            head: owned(&["series", "processor", "x"]),
            rows: rows.iter().map(owned).collect(),
        }
    }

    #[test]
    fn a_table_is_unchanged_after_writing_and_reading() {
        let table = table(&[["6.1", "x86_64", "1"]]);
        let text = table.to_string();
        assert_eq!(
            text,
            "| series | processor | x |\n|---|---|---|\n| 6.1 | x86_64 | 1 |\n"
        );
        assert_eq!(Table::parse(&text), Some(table));
        assert_eq!(Table::parse("no table\n"), None);
    }

    #[test]
    fn a_run_replaces_the_rows_of_its_guests_and_leaves_the_others() {
        let mut old = table(&[["6.1", "x86_64", "old"], ["6.12", "x86_64", "kept"]]);
        old.update(table(&[
            ["6.12-16k", "aarch64", "new"],
            ["6.8", "x86_64", "new"],
            ["6.1", "x86_64", "new"],
        ]));
        let expected = table(&[
            ["6.1", "x86_64", "new"],
            ["6.8", "x86_64", "new"],
            ["6.12", "x86_64", "kept"],
            ["6.12-16k", "aarch64", "new"],
        ]);
        assert_eq!(old, expected);
    }

    #[test]
    fn a_series_differs_from_one_with_the_same_prefix() {
        assert_eq!(distributions("6.1"), "Debian 12, Amazon Linux 2023");
        assert_eq!(distributions("6.12-16k"), "Debian 13, RHEL 10");
        assert_eq!(distributions("5.15.0-204-generic"), "Ubuntu 22.04");
        assert_eq!(distributions("6.19"), UNKNOWN);
    }

    #[test]
    fn large_numbers_have_commas() {
        let numbers = [0, 999, 1_000, 12_345, 1_234_567];
        let texts = ["0", "999", "1,000", "12,345", "1,234,567"];
        assert_eq!(numbers.map(thousands), texts.map(str::to_owned));
    }
}
