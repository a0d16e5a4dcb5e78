//! Reads the shape of the file, and goes on without what it cannot read.
//!
//! serde stops at the first error. Here the smallest part of the document that has the error is removed,
//! and the rest is read again, until nothing is wrong any more. So one reading reports all errors.

use std::ops::Range;

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use super::{Problem, Problems, file::File};

/// What could be read of a file.
pub(super) struct Reading {
    pub(super) file: File,
    /// What could not.
    pub(super) problems: Vec<Problem>,
    /// The bytes of the tables and lists from which something was removed. A further problem there would
    /// only be a consequence.
    pub(super) damaged: Vec<Range<usize>>,
}

/// # Errors
///
/// The first error of the syntax.
pub(super) fn read(text: &str) -> Result<Reading, Problems> {
    let mut document = DeTable::parse(text).map_err(|error| Problem::of_toml(text, &error))?;
    let (mut problems, mut damaged) = (Vec::new(), Vec::new());
    let file = loop {
        let error = match File::deserialize(Deserializer::from(document.clone())) {
            Ok(file) => break file,
            Err(error) => error,
        };
        let at = error.span().unwrap_or_default();
        if !damaged.contains(&at) {
            problems.push(Problem::of_toml(text, &error));
        }
        let around = document.span();
        match remove(document.get_mut(), &around, &at) {
            Some(container) => damaged.push(container),
            // Nothing has this error alone, so nothing can be read.
            None => break File::default(),
        }
    };
    Ok(Reading {
        file,
        problems,
        damaged,
    })
}

/// Removes the smallest key or element whose text contains `at`. Returns the place of the table or list
/// that held it, which is at `around` or inside.
fn remove(
    table: &mut DeTable<'_>,
    around: &Range<usize>,
    at: &Range<usize>,
) -> Option<Range<usize>> {
    let mut wrong = None;
    for (key, value) in table.iter_mut() {
        if let Some(container) = remove_inside(value, at) {
            return Some(container);
        }
        if contains(&key.span(), at) || contains(&value.span(), at) {
            wrong = Some(key.get_ref().clone());
        }
    }
    table.remove(&*wrong?)?;
    Some(around.clone())
}

fn remove_inside(value: &mut Spanned<DeValue<'_>>, at: &Range<usize>) -> Option<Range<usize>> {
    let around = value.span();
    match value.get_mut() {
        DeValue::Table(table) => remove(table, &around, at),
        DeValue::Array(list) => {
            if let Some(container) = list.iter_mut().find_map(|value| remove_inside(value, at)) {
                return Some(container);
            }
            let wrong = list.iter().position(|value| contains(&value.span(), at))?;
            let elements = std::mem::replace(list, DeArray::new())
                .into_iter()
                .enumerate();
            let others = elements.filter(|(index, _)| *index != wrong);
            *list = others.map(|(_, value)| value).collect();
            Some(around)
        }
        _ => None,
    }
}

/// A table with a header has the span of the header alone, so what is in it is searched in any case.
fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}
