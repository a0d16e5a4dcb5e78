//! Errors with their causes. The messages of aya and hyper leave the cause to `source()`.

use std::error::Error;

/// Joins the messages of an error and its causes into one line. A message that already ends with its
/// cause's is not repeated.
pub(crate) fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !line.ends_with(&message) {
            line = format!("{line}: {message}");
        }
        cause = error.source();
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("`bpf_link_create` failed")]
        Hidden(#[source] io::Error),
        #[error("cannot open: {0}")]
        Shown(#[source] io::Error),
        #[error(transparent)]
        Wrapped(Box<Failed>),
    }

    #[test]
    fn a_hidden_cause_is_added_and_a_shown_one_is_not_repeated() {
        let cause = || io::Error::from_raw_os_error(libc::EPERM);
        let expected = "`bpf_link_create` failed: Operation not permitted (os error 1)";
        let wrapped = Failed::Wrapped(Box::new(Failed::Hidden(cause())));
        assert_eq!(one_line(&Failed::Hidden(cause())), expected);
        assert_eq!(one_line(&wrapped), expected);
        let expected = "cannot open: Operation not permitted (os error 1)";
        assert_eq!(one_line(&Failed::Shown(cause())), expected);
    }
}
