//! Why the kernel refuses a program: one line, and the verifier's log on demand.

use std::fmt;

use aya::programs::ProgramError;

use crate::{diagnostics::error_chain::one_line, kernel::host::kernel_release};

/// The kernel's refusal of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub program: &'static str,
    pub release: String,
    /// The error, and the verifier's last message.
    pub reason: String,
    /// How many instructions the verifier processed, if it reports that.
    pub instructions: Option<u32>,
    log: String,
}

impl Refusal {
    pub const REMEDY: &'static str = "run a kernel that docs/kernels.md lists, or report this line \
        (`wsmon check -v` shows the verifier's log)";

    pub(super) fn new(program: &'static str, error: &ProgramError) -> Self {
        let (reason, log) = match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = verifier_log.to_string();
                let reason = match last_word(&log) {
                    Some(line) => format!("{line} ({io_error})"),
                    None => io_error.to_string(),
                };
                (reason, log)
            }
            other => (one_line(other), String::new()),
        };
        Self {
            program,
            release: kernel_release(),
            reason,
            instructions: instructions(&log),
            log,
        }
    }

    /// The end of the verifier's log.
    pub fn log_tail(&self) -> LogTail<'_> {
        LogTail(&self.log)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            release,
            reason,
            ..
        } = self;
        write!(
            f,
            "Linux {release} refuses program {program}: {reason}; {}",
            Self::REMEDY
        )
    }
}

impl std::error::Error for Refusal {}

/// Shows the last lines of a log, and how many it leaves out.
#[derive(Clone, Copy, Debug)]
pub struct LogTail<'a>(&'a str);

impl LogTail<'_> {
    pub const LINES: usize = 120;
    /// A line of the verifier is rarely longer than 200 bytes.
    const LINE_BYTES: usize = 400;
}

impl fmt::Display for LogTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.lines().collect();
        let hidden = lines.len().saturating_sub(Self::LINES);
        if hidden > 0 {
            writeln!(f, "({hidden} earlier lines left out)")?;
        }
        for line in &lines[hidden..] {
            let end = line.floor_char_boundary(Self::LINE_BYTES);
            writeln!(f, "{}", &line[..end])?;
        }
        Ok(())
    }
}

/// The last line before the verifier's statistics, which has the reason.
fn last_word(log: &str) -> Option<&str> {
    log.lines()
        .map(str::trim)
        .take_while(|line| !is_statistic(line))
        .filter(|line| !line.is_empty())
        .last()
}

/// Whether the statistics begin here (`print_verification_stats` in `kernel/bpf/verifier.c`). Linux 7.3
/// adds a line for each function.
fn is_statistic(line: &str) -> bool {
    const BEGINNINGS: [&str; 3] = ["verification time ", "stack depth ", "processed "];
    BEGINNINGS.iter().any(|text| line.starts_with(text))
        || (line.starts_with("subprog ") && line.contains(" insns_self "))
}

/// Of `processed 1000001 insns (limit 1000000) max_states_per_insn …`.
fn instructions(log: &str) -> Option<u32> {
    let line = log
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("processed "))?;
    line.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const TOO_LARGE: &str = "BPF program is too large. Processed 1000001 insn\n\
        verification time 841233 usec\n\
        stack depth 288+32+160\n\
        processed 1000001 insns (limit 1000000) max_states_per_insn 24 total_states 9000 \
        peak_states 9000 mark_read 12\n";

    #[test]
    fn the_verifiers_last_message_is_the_line_before_its_statistics() {
        assert_eq!(
            last_word(TOO_LARGE),
            Some("BPF program is too large. Processed 1000001 insn")
        );
        assert_eq!(instructions(TOO_LARGE), Some(1_000_001));
        let of_each_function = "BPF program is too large. Processed 1000001 insn\n\
            verification time 841233 usec\nstack depth 0+0\n\
            subprog 24 (emit) static insns_self 0 insns_total 0 stack 0\n";
        assert_eq!(last_word(of_each_function), last_word(TOO_LARGE));
        assert_eq!(
            last_word("\nR2 invalid mem access 'scalar'\n"),
            Some("R2 invalid mem access 'scalar'")
        );
        assert_eq!((last_word(""), instructions("")), (None, None));
    }

    #[test]
    fn a_refusal_is_one_line_with_kernel_program_reason_and_remedy() {
        let refusal = Refusal {
            program: "ingress",
            release: "6.19.14".to_owned(),
            reason: last_word(TOO_LARGE).unwrap().to_owned(),
            instructions: None,
            log: TOO_LARGE.to_owned(),
        };
        let line = refusal.to_string();
        assert!(
            line.starts_with("Linux 6.19.14 refuses program ingress: BPF program is too large."),
            "{line}"
        );
        assert!(line.contains("docs/kernels.md"), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn without_a_verifiers_log_the_errno_is_the_reason() {
        let error = ProgramError::IOError(io::Error::from_raw_os_error(libc::EPERM));
        let refusal = Refusal::new("egress", &error);
        assert_eq!(refusal.reason, "Operation not permitted (os error 1)");
        assert_eq!(refusal.log_tail().to_string(), "");
    }

    #[test]
    fn a_long_log_is_cut_to_its_end_and_marked_as_cut() {
        let log: String = (0..1000)
            .map(|i| format!("{i}: {}\n", "x".repeat(500)))
            .collect();
        let tail = LogTail(&log).to_string();
        assert_eq!(tail.lines().next(), Some("(880 earlier lines left out)"));
        assert_eq!(tail.lines().count(), LogTail::LINES + 1);
        assert!(tail.len() < LogTail::LINES * 410, "{}", tail.len());
        assert!(tail.lines().last().unwrap().starts_with("999: "));
    }
}
