//! The format of printed records, chosen by the same flags in every command that has them.

use clap::{Args, ValueEnum};

use super::table::terminal_width;

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct FormatArgs {
    /// Format of the output [default: table]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<OutputFormat>,

    /// Same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people; a table is cut to the width of the terminal
    Table,
    /// The same with every column and whole lines, however wide
    Wide,
    /// JSON: one object per line; check and profiles print one array
    Json,
}

impl FormatArgs {
    pub fn is_json(self) -> bool {
        self.json || self.output == Some(OutputFormat::Json)
    }

    /// The width to which a table is cut; `None` if it is printed whole.
    pub fn table_width(self) -> Option<usize> {
        match self.output {
            Some(OutputFormat::Wide) => None,
            _ => terminal_width(),
        }
    }
}
