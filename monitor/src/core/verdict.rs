//! The rules: from facts to a verdict.
