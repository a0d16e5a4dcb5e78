//! The flag for colours in the output of commands.

use std::io;

use clap::{Args, ColorChoice};

pub use crate::diagnostics::color::Color;
use crate::diagnostics::color::is_wanted;

#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ColorArgs {
    /// Use colours: on a terminal, unless NO_COLOR is set or TERM is dumb; always; or never
    #[arg(long, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

impl ColorArgs {
    /// Whether stdout gets colours.
    pub fn is_on(self) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_wanted(&io::stdout()),
        }
    }
}
