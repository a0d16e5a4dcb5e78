//! The table of values in `docs/kubernetes.md`, from the comments in the chart's `values.yaml`.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The lines of the page around the table.
const BEGIN: &str = "<!-- values:";
const END: &str = "<!-- end of values -->";

/// The values of a chart, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ValuesTable(Vec<Row>);

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// With the keys around it: `image.tag`.
    key: String,
    /// As written, or `None` if it has more than one line.
    default: Option<String>,
    /// The first sentence of the comment.
    meaning: String,
}

impl ValuesTable {
    /// Reads the text of a `values.yaml`. A key below a comment is a value. A key without one holds the keys
    /// below it.
    ///
    /// # Errors
    /// If a key has neither a comment nor keys.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let lines: Vec<_> = text.lines().collect();
        let mut rows = Vec::new();
        let mut parents: Vec<(usize, &str)> = Vec::new();
        let mut comment = Vec::new();
        let mut at = 0;
        while let Some(line) = lines.get(at).copied() {
            at += 1;
            let indent = indent(line);
            let line = line.trim();
            if let Some(text) = line.strip_prefix('#') {
                comment.push(text.trim());
                continue;
            }
            let Some((key, inline)) = line.split_once(':') else {
                ensure!(line.is_empty(), "unexpected line {line:?} in values.yaml");
                comment.clear();
                continue;
            };
            parents.retain(|(column, _)| *column < indent);
            let inline = inline.trim();
            if comment.is_empty() {
                ensure!(inline.is_empty(), "{key} in values.yaml has no comment");
                parents.push((indent, key));
                continue;
            }
            let nested: Vec<_> = lines[at..]
                .iter()
                .take_while(|line| self::indent(line) > indent)
                .map(|line| line.trim())
                .collect();
            at += nested.len();
            let path = parents.iter().map(|(_, parent)| *parent).chain([key]);
            rows.push(Row {
                key: path.collect::<Vec<_>>().join("."),
                default: match (inline, nested.as_slice()) {
                    ("", [only]) => Some((*only).to_owned()),
                    ("", _) => None,
                    (inline, _) => Some(inline.to_owned()),
                },
                meaning: first_sentence(&comment.join(" ")),
            });
            comment.clear();
        }
        Ok(Self(rows))
    }

    /// Checks that every property of the schema is a value of the file. The opposite holds if the schema
    /// accepts the file.
    ///
    /// # Errors
    /// With the property that is missing.
    pub(super) fn covers(&self, schema: &Value) -> Result<()> {
        self.covers_properties(schema, schema, "")
    }

    fn covers_properties(&self, root: &Value, object: &Value, prefix: &str) -> Result<()> {
        let properties = object["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let key = format!("{prefix}{name}");
            // Helm's own key, or a value with its keys.
            if key == "global" || self.0.iter().any(|row| row.key == key) {
                continue;
            }
            let reference = property["$ref"].as_str();
            let property = reference
                .and_then(|reference| root.pointer(reference.strip_prefix('#')?))
                .unwrap_or(property);
            ensure!(
                property["properties"].is_object(),
                "values.schema.json has {key}, and values.yaml does not"
            );
            self.covers_properties(root, property, &format!("{key}."))?;
        }
        Ok(())
    }

    /// The page with this table in the place of its old one.
    ///
    /// # Errors
    /// If the page has no place for it.
    pub(super) fn insert_into(&self, page: &str) -> Result<String> {
        let begin = page
            .find(BEGIN)
            .with_context(|| format!("no line {BEGIN}"))?;
        let line = page[begin..]
            .find('\n')
            .context("no table below the line")?;
        let (above, rest) = page.split_at(begin + line + 1);
        let Some(end) = rest.find(END) else {
            bail!("no line {END}");
        };
        Ok(format!("{above}\n{self}\n{}", &rest[end..]))
    }
}

impl fmt::Display for ValuesTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| value | default | meaning |\n|---|---|---|")?;
        for Row {
            key,
            default,
            meaning,
        } in &self.0
        {
            let default = match default {
                Some(default) => format!("`{default}`"),
                None => "in the file".to_owned(),
            };
            writeln!(f, "| `{key}` | {default} | {meaning} |")?;
        }
        Ok(())
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Without the full stop.
fn first_sentence(text: &str) -> String {
    let end = text.find(". ").unwrap_or(text.len());
    text[..end].trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VALUES: &str = "\
# About the file.

image:
  # Where it is. More.
  repository: example
  # Empty for
  # the version.
  tag: \"\"

# Who comes.
listeners:
  - name: web
    ports: [1]
  # - name: other

# One line.
selector:
  os: linux

other:
  # A number.
  port: 1
";

    fn row(key: &str, default: Option<&str>, meaning: &str) -> Row {
        Row {
            key: key.to_owned(),
            default: default.map(str::to_owned),
            meaning: meaning.to_owned(),
        }
    }

    #[test]
    fn a_key_below_a_comment_is_a_value_with_all_that_is_below_it() {
        assert_eq!(
            ValuesTable::parse(VALUES).unwrap().0,
            [
                row("image.repository", Some("example"), "Where it is"),
                row("image.tag", Some("\"\""), "Empty for the version"),
                row("listeners", None, "Who comes"),
                row("selector", Some("os: linux"), "One line"),
                row("other.port", Some("1"), "A number"),
            ]
        );
    }

    #[test]
    fn a_value_without_a_comment_is_refused() {
        let error = ValuesTable::parse("image:\n  tag: x\n").unwrap_err();
        assert_eq!(error.to_string(), "tag in values.yaml has no comment");
    }

    #[test]
    fn a_property_of_the_schema_without_a_value_is_found() {
        let table = ValuesTable::parse(VALUES).unwrap();
        let port = json!({ "properties": { "port": {} } });
        let schema = |other| {
            json!({
                "properties": { "global": {}, "selector": { "properties": { "x": {} } }, "other": other },
                "definitions": { "port": port },
            })
        };
        table
            .covers(&schema(json!({ "$ref": "#/definitions/port" })))
            .unwrap();
        for missing in [json!({}), json!({ "properties": { "host": {} } })] {
            table.covers(&schema(missing)).unwrap_err();
        }
    }

    #[test]
    fn the_table_replaces_the_one_on_the_page() {
        let table = ValuesTable::parse("# A. B.\nx: 1\n").unwrap();
        let page = format!("before\n{BEGIN} note -->\nold\n{END}\nafter\n");
        let written = table.insert_into(&page).unwrap();
        assert_eq!(
            written,
            format!(
                "before\n{BEGIN} note -->\n\n| value | default | meaning |\n|---|---|---|\n| `x` | `1` | A |\n\n{END}\nafter\n"
            )
        );
        assert_eq!(table.insert_into(&written).unwrap(), written);
        table.insert_into("no place").unwrap_err();
    }
}
