//! The results as the tables of docs/kernels.md.

use std::collections::BTreeSet;

use super::{Run, TARGETS};

/// Markdown tables: how the tests went, and what the verifier counted, if the load test ran.
pub(crate) fn tables(runs: &[Run<'_>]) -> String {
    let results = runs.iter().flat_map(|run| {
        TARGETS.map(|name| {
            let version = run.kernel.pin.version().to_owned();
            let target = run
                .results
                .targets
                .iter()
                .find(|target| target.name == name);
            let (passed, failed) = match target.map(|target| (target.status, target.tally())) {
                Some((Some(_), (passed, failed))) => (passed.to_string(), failed.to_string()),
                _ => ("did not end".to_owned(), String::new()),
            };
            vec![version, format!("`{name}`"), passed, failed]
        })
    });
    let results = markdown(&["Debian's kernel", "tests", "passed", "failed"], results);

    let verified: Vec<_> = runs.iter().map(|run| run.results.verified()).collect();
    let programs: BTreeSet<_> = verified.iter().flat_map(|counts| counts.keys()).collect();
    if programs.is_empty() {
        return results;
    }
    let mut head = vec!["verified instructions"];
    head.extend(runs.iter().map(|run| run.kernel.pin.series.as_str()));
    let verified = programs.into_iter().map(|program| {
        let counts = verified.iter().map(|counts| {
            let count = counts.get(program);
            count.map_or_else(|| "-".to_owned(), |count| thousands(*count))
        });
        [format!("`{program}`")].into_iter().chain(counts).collect()
    });
    let verified = markdown(&head, verified);
    format!("{results}\n{verified}")
}

fn markdown(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rule = "|---".repeat(head.len());
    let mut table = format!("| {} |\n{rule}|\n", head.join(" | "));
    for row in rows {
        table += &format!("| {} |\n", row.join(" | "));
    }
    table
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

    #[test]
    fn a_table_has_a_rule_under_its_head() {
        let rows = [vec!["1".to_owned(), "2".to_owned()]];
        assert_eq!(
            markdown(&["a", "b"], rows.into_iter()),
            "| a | b |\n|---|---|\n| 1 | 2 |\n"
        );
    }

    #[test]
    fn large_numbers_have_commas() {
        let numbers = [0, 999, 1_000, 12_345, 1_234_567];
        let texts = ["0", "999", "1,000", "12,345", "1,234,567"];
        assert_eq!(numbers.map(thousands), texts.map(str::to_owned));
    }
}
