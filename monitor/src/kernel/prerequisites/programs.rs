//! Checks the programs with the verifier, and reports other programs at their hooks.

use std::path::Path;

use super::{Missing, Prerequisite};
use crate::kernel::{
    bpf::{
        attachments::{self, AttachedProgram},
        loader::{LoadError, LoadSettings, Loaded, PACKET_HOOKS, VerifierLog},
        refusal::Refusal,
    },
    host::cgroup::usable_cgroup2,
};

/// The rows of the programs, and the verifier's log if one was refused.
#[derive(Clone, Debug)]
pub struct ProgramSurvey {
    pub rows: Vec<Prerequisite>,
    /// Of the program that was refused, if `verbose`.
    pub refusal: Option<Refusal>,
}

/// The log of more instructions than this fills megabytes, and each try with a larger buffer takes the
/// verifier seconds. It would only show a loop many times.
const MAX_LOGGED_INSTRUCTIONS: u32 = 50_000;

/// Loads every program once for the verifier's verdict, and unloads it again. `verbose` adds what was
/// chosen for this kernel, and requests the log of a refusal.
pub fn survey(cgroup: Option<&Path>, settings: &LoadSettings, verbose: bool) -> ProgramSurvey {
    let settings = LoadSettings {
        max_connections: 1,
        ..*settings
    };
    let mut refusal = None;
    let mut rows = match Loaded::new(&[], &settings) {
        Ok(loaded) => {
            let mut rows = accepted(&loaded);
            if verbose {
                rows.push(Prerequisite::required(
                    "loop",
                    Ok(loaded.loop_kind().helper().to_owned()),
                ));
            }
            rows
        }
        Err(LoadError::Refused(refused)) => {
            let missing = Missing::new(
                format!("Linux {}: {}", refused.release, refused.reason),
                Refusal::REMEDY,
            );
            let name = format!("program {}", refused.program);
            if verbose {
                refusal = Some(with_full_log(refused, &settings));
            }
            vec![Prerequisite::required(name, Err(missing))]
        }
        Err(LoadError::Lacking(lacking)) => vec![Prerequisite::required(
            "kernel features",
            Err(Missing::new(lacking.to_string(), lacking.remedy())),
        )],
        Err(other) => vec![Prerequisite::required(
            "programs",
            Err(Missing::new(other.to_string(), Refusal::REMEDY)),
        )],
    };
    rows.extend(usable_cgroup2(cgroup).ok().map(|cgroup| Prerequisite {
        name: "other programs".to_owned(),
        required: true,
        outcome: neighbours(&cgroup.path),
    }));
    ProgramSurvey { rows, refusal }
}

fn accepted(loaded: &Loaded) -> Vec<Prerequisite> {
    let mut rows: Vec<_> = loaded
        .programs()
        .map(|(name, info)| {
            let detail = match info.verified_instruction_count() {
                Some(count) => format!("{count} instructions verified"),
                None => "loads".to_owned(),
            };
            Prerequisite::required(format!("program {name}"), Ok(detail))
        })
        .collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// Repeats the refusal with the verifier's log, unless that would be too long.
fn with_full_log(brief: Refusal, settings: &LoadSettings) -> Refusal {
    if brief
        .instructions
        .is_none_or(|count| count > MAX_LOGGED_INSTRUCTIONS)
    {
        return brief;
    }
    let settings = LoadSettings {
        verifier_log: VerifierLog::Full,
        ..*settings
    };
    match Loaded::new(&[], &settings) {
        Err(LoadError::Refused(full)) => full,
        _ => brief,
    }
}

/// The programs that would share their hooks with wsmon, or the one that conflicts with it.
fn neighbours(cgroup: &Path) -> Result<String, Missing> {
    let mut found: Vec<AttachedProgram> = Vec::new();
    for (_, hook) in PACKET_HOOKS {
        // If the query fails, the attach reports what is wrong.
        if let Ok(Some(conflict)) = attachments::conflict(cgroup, hook) {
            return Err(Missing::new(conflict.to_string(), conflict.remedy()));
        }
        found.extend(attachments::programs_on(cgroup, hook).unwrap_or_default());
    }
    if found.is_empty() {
        return Ok("none on this cgroup".to_owned());
    }
    let names: Vec<_> = found.iter().map(AttachedProgram::to_string).collect();
    Ok(format!("run with wsmon: {}", names.join(", ")))
}
