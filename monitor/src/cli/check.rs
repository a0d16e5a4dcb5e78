//! `wsmon check`: checks whether wsmon can run on this host.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use super::{
    exit::{CommandResult, Failure, PREREQUISITE_MISSING},
    format_args::FormatArgs,
    wrap::wrap,
};
use crate::kernel::{
    bpf::{loader::LoadSettings, refusal::Refusal},
    prerequisites::{
        self, Prerequisite, capabilities,
        programs::{self, ProgramSurvey},
    },
};

/// Check this host and the privileges, with a remedy for each missing prerequisite.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  wsmon check                        prerequisites that are met and missing
  wsmon check -v                     also the choices for this kernel and the verifier's log
  wsmon check --json | jq '.[] | select(.ok | not)'
  wsmon check --cgroup /sys/fs/cgroup/system.slice

Exit status: 0 if every requirement is met, 3 if not.")]
pub struct CheckArgs {
    /// Cgroup v2 directory to watch; by default the root of the hierarchy
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Also print the choices for this kernel and, to stderr, the end of the verifier's log if it refuses
    /// a program
    #[arg(short, long)]
    pub verbose: bool,
    /// Load programs that every kernel refuses
    #[arg(long, hide = true)]
    pub refused_shape: bool,
}

/// Prints the survey to stdout. Fails only if stdout does.
pub fn run(args: &CheckArgs) -> CommandResult {
    capabilities::make_effective();
    print_survey(args).map_err(|error| Failure::failed(format!("cannot print: {error}")))
}

fn print_survey(args: &CheckArgs) -> io::Result<ExitCode> {
    let mut survey = prerequisites::for_programs(args.cgroup.as_deref());
    // Without the privileges, a refusal proves nothing about the programs.
    let can_load = !survey.iter().any(Prerequisite::is_fatal);
    survey.extend(prerequisites::for_older_connections());
    if can_load {
        let settings = LoadSettings {
            refused_shape: args.refused_shape,
            ..LoadSettings::default()
        };
        let ProgramSurvey { rows, refusal } =
            programs::survey(args.cgroup.as_deref(), &settings, args.verbose);
        survey.extend(rows);
        if let Some(refusal) = refusal {
            write_log(&refusal, &mut io::stderr().lock())?;
        }
    }
    let mut stdout = io::stdout().lock();
    if args.format.is_json() {
        write_json(&survey, &mut stdout)?;
    } else {
        write_table(&survey, args.format.table_width(), &mut stdout)?;
    }
    stdout.flush()?;
    Ok(exit_code(&survey))
}

/// Writes the end of the verifier's log.
fn write_log(refusal: &Refusal, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "the verifier's log of program {}:", refusal.program)?;
    write!(out, "{}", refusal.log_tail())
}

/// 0 if all required prerequisites are met, otherwise 3.
pub fn exit_code(survey: &[Prerequisite]) -> ExitCode {
    if survey.iter().any(Prerequisite::is_fatal) {
        ExitCode::from(PREREQUISITE_MISSING)
    } else {
        ExitCode::SUCCESS
    }
}

/// `yes`, `no` for a missing requirement, `—` for a missing recommendation. Long texts are broken into
/// lines that fit `terminal`, the columns of a terminal.
pub fn write_table(
    survey: &[Prerequisite],
    terminal: Option<usize>,
    out: &mut impl Write,
) -> io::Result<()> {
    let width = survey
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    let margin = " ".repeat("yes  ".len() + width + "  ".len());
    let mut write = |first: &str, text: &str| {
        let lines = wrap(text, terminal.unwrap_or(usize::MAX), first, &margin);
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    };
    for Prerequisite {
        name,
        required,
        outcome,
    } in survey
    {
        match outcome {
            Ok(detail) => write(&format!("yes  {name:width$}  "), detail)?,
            Err(missing) => {
                let mark = if *required { "no " } else { "—  " };
                write(&format!("{mark}  {name:width$}  "), &missing.what)?;
                write(&margin, &format!("remedy: {}", missing.remedy))?;
            }
        }
    }
    let fatal = survey.iter().filter(|row| row.is_fatal()).count();
    match fatal {
        0 => writeln!(out, "\nwsmon can run here"),
        1 => writeln!(out, "\nwsmon cannot run here: 1 prerequisite is missing"),
        _ => writeln!(
            out,
            "\nwsmon cannot run here: {fatal} prerequisites are missing"
        ),
    }
}

/// One row of `--json`.
#[derive(Serialize)]
struct CheckRow<'a> {
    name: &'a str,
    required: bool,
    ok: bool,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

pub fn write_json(survey: &[Prerequisite], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<_> = survey.iter().map(CheckRow::of).collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)
}

impl<'a> CheckRow<'a> {
    fn of(
        Prerequisite {
            name,
            required,
            outcome,
        }: &'a Prerequisite,
    ) -> Self {
        let (detail, remedy) = match outcome {
            Ok(detail) => (detail, None),
            Err(missing) => (&missing.what, Some(missing.remedy.as_str())),
        };
        Self {
            name,
            required: *required,
            ok: outcome.is_ok(),
            detail,
            remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::prerequisites::Missing;

    fn survey() -> Vec<Prerequisite> {
        vec![
            Prerequisite::required("kernel", Ok("6.1.0".to_owned())),
            Prerequisite::required("CAP_BPF", Err(Missing::new("cannot load", "run as root"))),
            Prerequisite::recommended("CAP_SYS_PTRACE", Err(Missing::new("no names", "grant it"))),
        ]
    }

    fn written(write: impl Fn(&[Prerequisite], &mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&survey(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_shows_a_remedy_below_each_missing_prerequisite() {
        let table = written(|survey, out| write_table(survey, None, out));
        let expected = "\
            yes  kernel          6.1.0\n\
            no   CAP_BPF         cannot load\n     \
                                 remedy: run as root\n";
        let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat(&table).starts_with(&flat(expected)), "{table}");
        let columns: Vec<_> = ["6.1.0", "cannot load", "remedy: run", "no names"]
            .map(|cell| column(&table, cell))
            .into();
        assert_eq!(columns, [21; 4], "{table}");
        assert!(
            table.ends_with("cannot run here: 1 prerequisite is missing\n"),
            "{table}"
        );
    }

    #[test]
    fn long_texts_stay_in_their_column() {
        let table = written(|survey, out| write_table(survey, Some(30), out));
        let margin = " ".repeat(21);
        let expected = format!("\n{margin}remedy:\n{margin}grant it\n");
        assert!(table.contains(&expected), "{table}");
        assert!(!table.contains("remedy: grant it"), "{table}");
    }

    /// In characters, as a terminal shows it.
    fn column(table: &str, cell: &str) -> usize {
        let line = table.lines().find(|line| line.contains(cell)).unwrap();
        line[..line.find(cell).unwrap()].chars().count()
    }

    #[test]
    fn json_distinguishes_missing_from_present() {
        let rows: serde_json::Value = serde_json::from_str(&written(write_json)).unwrap();
        assert_eq!(rows[0]["ok"], true);
        assert_eq!(rows[0].get("remedy"), None);
        assert_eq!(rows[1]["ok"], false);
        assert_eq!(rows[1]["required"], true);
        assert_eq!(rows[1]["remedy"], "run as root");
    }

    #[test]
    fn only_a_missing_requirement_fails_the_check() {
        let mut survey = survey();
        assert_eq!(exit_code(&survey), ExitCode::from(3));
        survey.remove(1);
        assert_eq!(exit_code(&survey), ExitCode::SUCCESS);
    }
}
