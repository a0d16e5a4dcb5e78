//! Counts as people read them.

use std::fmt;

/// A whole number for people: `1,204`.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{}", self.0),
            more => write!(f, "{},{:03}", Self(more / 1_000), more % 1_000),
        }
    }
}

/// `1 zombie`, `1,204 zombies`, `2 processes`.
#[derive(Clone, Copy, Debug)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = self;
        let plural = match (count, noun.ends_with('s')) {
            (1, _) => "",
            (_, true) => "es",
            (_, false) => "s",
        };
        write!(f, "{} {noun}{plural}", Grouped(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas_and_a_plural() {
        for (count, shown) in [
            (0, "0"),
            (999, "999"),
            (1_204, "1,204"),
            (1_204_005, "1,204,005"),
        ] {
            assert_eq!(Grouped(count).to_string(), shown);
        }
        let zombies = [0, 1, 1_204].map(|count| Counted(count, "zombie").to_string());
        assert_eq!(zombies, ["0 zombies", "1 zombie", "1,204 zombies"]);
        assert_eq!(Counted(2, "process").to_string(), "2 processes");
    }
}
