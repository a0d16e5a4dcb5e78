//! The programs attached at wsmon's hook on a cgroup, and those that conflict with it.

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use aya::programs::{CgroupSkbAttachType, loaded_programs};

use super::syscall;
use crate::kernel::host::cgroup;

/// `include/uapi/linux/bpf.h`: a program below replaces this one.
const BPF_F_ALLOW_OVERRIDE: u32 = 1;
/// All programs of a cgroup and of its ancestors run.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// A program, with the fields that this process may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedProgram {
    pub id: u32,
    /// At most 15 letters. `CAP_SYS_ADMIN` is needed to read it.
    pub name: Option<String>,
}

/// Why wsmon cannot or must not attach to a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where the program is attached: the cgroup to watch, or an ancestor.
    pub cgroup: PathBuf,
    pub hook: &'static str,
    pub program: AttachedProgram,
    pub kind: ConflictKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConflictKind {
    /// The kernel refuses any other program there and below.
    Exclusive,
    /// wsmon would replace it: it would no longer run for the cgroup to watch.
    Overridden,
}

/// The programs on `cgroup` itself.
pub fn programs_on(cgroup: &Path, hook: CgroupSkbAttachType) -> io::Result<Vec<AttachedProgram>> {
    let found = syscall::query(File::open(cgroup)?, attach_type(hook))?;
    Ok(named(found.program_ids))
}

/// The program that conflicts with wsmon on `cgroup`: there, or on the nearest ancestor
/// (`hierarchy_allows_attach` in `kernel/bpf/cgroup.c`).
pub fn conflict(cgroup: &Path, hook: CgroupSkbAttachType) -> io::Result<Option<Conflict>> {
    for (level, cgroup) in cgroup::with_ancestors(cgroup)?.into_iter().enumerate() {
        let found = syscall::query(File::open(&cgroup)?, attach_type(hook))?;
        if found.program_ids.is_empty() {
            continue;
        }
        let Some(kind) = conflict_kind(found.attach_flags, level) else {
            return Ok(None);
        };
        let program = named(found.program_ids).into_iter().next();
        return Ok(program.map(|program| Conflict {
            cgroup,
            hook: hook_name(hook),
            program,
            kind,
        }));
    }
    Ok(None)
}

/// `level` counts from the cgroup to watch upwards.
fn conflict_kind(attach_flags: u32, level: usize) -> Option<ConflictKind> {
    if attach_flags & BPF_F_ALLOW_MULTI != 0 {
        None
    } else if attach_flags & BPF_F_ALLOW_OVERRIDE != 0 && level > 0 {
        Some(ConflictKind::Overridden)
    } else {
        Some(ConflictKind::Exclusive)
    }
}

fn attach_type(hook: CgroupSkbAttachType) -> u32 {
    match hook {
        CgroupSkbAttachType::Ingress => 0,
        CgroupSkbAttachType::Egress => 1,
    }
}

fn hook_name(hook: CgroupSkbAttachType) -> &'static str {
    match hook {
        CgroupSkbAttachType::Ingress => "ingress",
        CgroupSkbAttachType::Egress => "egress",
    }
}

fn named(ids: Vec<u32>) -> Vec<AttachedProgram> {
    let names: Vec<(u32, String)> = match ids.is_empty() {
        true => Vec::new(),
        // Ends at the first program that may not be read.
        false => loaded_programs()
            .map_while(Result::ok)
            .filter(|info| ids.contains(&info.id()))
            .filter_map(|info| Some((info.id(), info.name_as_str()?.to_owned())))
            .collect(),
    };
    ids.into_iter()
        .map(|id| AttachedProgram {
            id,
            name: names
                .iter()
                .find(|(named, name)| *named == id && !name.is_empty())
                .map(|(_, name)| name.clone()),
        })
        .collect()
}

impl Conflict {
    pub fn remedy(&self) -> String {
        format!(
            "detach it (bpftool cgroup detach {} {} id {}), or pass another cgroup with --cgroup",
            self.cgroup.display(),
            self.hook,
            self.program.id
        )
    }
}

impl fmt::Display for AttachedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (id {})", self.id),
            None => write!(f, "id {}", self.id),
        }
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cgroup,
            hook,
            program,
            kind,
        } = self;
        let cgroup = cgroup.display();
        match kind {
            ConflictKind::Exclusive => write!(
                f,
                "program {program} is attached to {hook} of {cgroup} without BPF_F_ALLOW_MULTI, \
                 which excludes others"
            ),
            ConflictKind::Overridden => write!(
                f,
                "program {program} is attached to {hook} of {cgroup} with BPF_F_ALLOW_OVERRIDE, \
                 and wsmon would take its place"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_share_their_cgroup_leave_room_for_another() {
        use ConflictKind::{Exclusive, Overridden};
        for level in [0, 1] {
            assert_eq!(conflict_kind(BPF_F_ALLOW_MULTI, level), None);
            assert_eq!(conflict_kind(0, level), Some(Exclusive));
        }
        assert_eq!(conflict_kind(BPF_F_ALLOW_OVERRIDE, 0), Some(Exclusive));
        assert_eq!(conflict_kind(BPF_F_ALLOW_OVERRIDE, 1), Some(Overridden));
    }

    #[test]
    fn a_conflict_names_program_cgroup_and_the_command_that_detaches_it() {
        let conflict = Conflict {
            cgroup: "/sys/fs/cgroup/app".into(),
            hook: "egress",
            program: AttachedProgram {
                id: 12,
                name: Some("deny".to_owned()),
            },
            kind: ConflictKind::Exclusive,
        };
        let text = format!("{conflict}; {}", conflict.remedy());
        assert!(
            text.starts_with("program deny (id 12) is attached to egress of /sys/fs/cgroup/app"),
            "{text}"
        );
        assert!(
            text.contains("bpftool cgroup detach /sys/fs/cgroup/app egress id 12"),
            "{text}"
        );
    }
}
