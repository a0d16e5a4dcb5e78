//! The tables between two markers in kernels.md.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::{run::Run, table::Table};
use crate::files::read_text;

const PAGE: &str = "kernels.md";
const BEGIN: &str = "<!-- results: cargo xtask vm --out docs -->\n";
const BETWEEN: &str = "\nVerified instructions of the configuration with the most:\n\n";
const END: &str = "<!-- end of results -->\n";

/// Writes the results of these runs into the page in a folder. The rows of other guests stay.
///
/// # Errors
/// If the page is missing or has no markers.
pub(crate) fn update(folder: &Path, runs: &[Run]) -> Result<()> {
    let path = folder.join(PAGE);
    let text = read_text(&path)?;
    let (before, results, after) =
        split(&text).with_context(|| format!("{} has no line {BEGIN}", path.display()))?;
    let mut tables = results.split(BETWEEN).map(Table::parse);
    let mut updated = |newer: Table| match tables.next().flatten() {
        Some(mut table) => {
            table.update(newer);
            table
        }
        None => newer,
    };
    let results = updated(Table::of_results(runs));
    let instructions = updated(Table::of_instructions(runs));
    let text = format!("{before}{BEGIN}{results}{BETWEEN}{instructions}{END}{after}");
    fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// The text before, between and behind the markers.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (results, after) = rest.split_once(END)?;
    Some((before, results, after))
}

#[cfg(test)]
mod tests {
    use super::{super::pins::Pins, *};
    use crate::workspace;

    #[test]
    fn the_page_has_a_row_for_every_pinned_kernel_with_its_version() {
        let path = workspace::root().join("docs").join(PAGE);
        let text = fs::read_to_string(path).unwrap();
        let (_, results, _) = split(&text).expect("marks");
        let (outcomes, instructions) = results.split_once(BETWEEN).expect("two tables");
        let outcomes = Table::parse(outcomes).unwrap();
        let instructions = Table::parse(instructions).unwrap();
        for pin in Pins::read().unwrap().kernels {
            let key = [pin.name.series.clone(), pin.name.architecture.to_string()];
            let row = |table: &Table| table.rows.iter().find(|row| row[..2] == key).cloned();
            let outcome = row(&outcomes).unwrap_or_else(|| panic!("no row for {}", pin.name));
            assert_eq!(outcome[2], pin.version(), "{}", pin.name);
            assert!(
                row(&instructions).is_some(),
                "no instructions of {}",
                pin.name
            );
        }
    }
}
