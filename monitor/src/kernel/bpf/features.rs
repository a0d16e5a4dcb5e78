//! The features that the programs need from the running kernel, apart from its types, and which of two
//! ways they loop. Features are probed, because vendors backport newer ones to older kernels.

use std::{fmt, io, os::fd::AsFd};

use btf::Btf;

use super::{
    offsets::{BtfError, tracepoint_id},
    syscall::{self, Instruction, LoadVerdict, ProgramKind},
};

/// How the programs repeat a step; the `LOOP_KIND` global of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LoopKind {
    /// `bpf_loop` (Linux 5.17, commit e6f2dd0f8067).
    Loop = 0,
    /// `bpf_for_each_map_elem` over an array (Linux 5.13, commit 69c087ba6225).
    ForEachMapElem = 1,
}

impl LoopKind {
    /// The helper that the programs call.
    pub fn helper(self) -> &'static str {
        match self {
            Self::Loop => "bpf_loop",
            Self::ForEachMapElem => "bpf_for_each_map_elem",
        }
    }
}

/// The features of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    pub bpf_loop: bool,
    pub for_each_map_elem: bool,
    /// `bpf_sk_storage_get` in tracing programs (Linux 5.11).
    pub storage_in_tracing: bool,
    /// `bpf_get_socket_cookie` in tracing programs (Linux 5.12).
    pub cookie_in_tracing: bool,
    /// Programs are compiled to machine code. The interpreter supports no callbacks.
    pub jit: bool,
    /// An atomic exchange is compiled to machine code (Linux 5.12, on arm64 5.18).
    pub atomic_exchange: bool,
}

/// A required feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Loop,
    StorageInTracing,
    CookieInTracing,
    Jit,
    AtomicExchange,
}

/// Why the programs cannot run on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking(pub Vec<Feature>);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error(transparent)]
    Tracepoint(#[from] BtfError),
    #[error("cannot probe the kernel for {feature}: {source}")]
    Refused {
        feature: &'static str,
        source: io::Error,
    },
}

/// Any tracepoint serves, because the allowed helpers do not depend on which.
const TRACEPOINT: &str = "inet_sock_set_state";

impl Features {
    /// Probes the running kernel with programs of a few instructions.
    pub(super) fn of_running_kernel(btf: &Btf) -> Result<Self, ProbeError> {
        let btf_id = tracepoint_id(btf, TRACEPOINT)?;
        let packets = ProgramKind::CgroupSkb;
        let tracing = ProgramKind::Tracepoint { btf_id };
        Ok(Self {
            bpf_loop: has_helper(packets, 181, "bpf_loop")?,
            for_each_map_elem: has_helper(packets, 164, "bpf_for_each_map_elem")?,
            storage_in_tracing: has_helper(tracing, 107, "socket storage")?,
            cookie_in_tracing: has_helper(tracing, 46, "socket cookies")?,
            jit: is_compiled(&NOTHING, "the JIT compiler")?,
            atomic_exchange: is_compiled(&EXCHANGE, "atomic exchange")?,
        })
    }

    /// The way to loop, or everything that is missing.
    pub fn loop_kind(&self) -> Result<LoopKind, Lacking> {
        let &Self {
            bpf_loop,
            for_each_map_elem,
            storage_in_tracing,
            cookie_in_tracing,
            jit,
            atomic_exchange,
        } = self;
        let needed = [
            (Feature::Loop, bpf_loop || for_each_map_elem),
            (Feature::StorageInTracing, storage_in_tracing),
            (Feature::CookieInTracing, cookie_in_tracing),
            (Feature::Jit, jit),
            // Without a JIT compiler this is missing too, so it is not reported separately.
            (Feature::AtomicExchange, atomic_exchange || !jit),
        ];
        let missing: Vec<_> = needed
            .into_iter()
            .filter_map(|(feature, is_there)| (!is_there).then_some(feature))
            .collect();
        match (missing.is_empty(), bpf_loop) {
            (true, true) => Ok(LoopKind::Loop),
            (true, false) => Ok(LoopKind::ForEachMapElem),
            (false, _) => Err(Lacking(missing)),
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "bpf_for_each_map_elem (Linux 5.13) or bpf_loop (5.17)",
            Self::StorageInTracing => "socket storage in tracing programs (Linux 5.11)",
            Self::CookieInTracing => "socket cookies in tracing programs (Linux 5.12)",
            Self::Jit => "a BPF JIT compiler that is switched on",
            Self::AtomicExchange => {
                "atomic exchange in the JIT compiler (Linux 5.12, on arm64 Linux 5.18)"
            }
        })
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(Feature::to_string).collect();
        write!(f, "the kernel lacks {}", names.join(", "))
    }
}

impl Lacking {
    pub fn remedy(&self) -> &'static str {
        match self.0[..] {
            [Feature::Jit] => "sysctl net.core.bpf_jit_enable=1",
            [Feature::AtomicExchange] => "run Linux 5.18 or newer (docs/kernels.md)",
            _ => "run Linux 5.15 or newer (docs/kernels.md)",
        }
    }
}

/// Whether the kernel lets programs of this kind call a helper. The probe passes no arguments, so the
/// verifier refuses it in any case; its log shows the reason.
fn has_helper(kind: ProgramKind, id: i32, feature: &'static str) -> Result<bool, ProbeError> {
    const UNKNOWN: [&str; 4] = [
        "unknown func",
        "invalid func",
        "cannot use helper",
        "helper call is not allowed",
    ];
    match syscall::load(kind, &[Instruction::call(id), Instruction::EXIT]) {
        LoadVerdict::Loaded(_) => Ok(true),
        LoadVerdict::Refused { error, log } if log.is_empty() => Err(ProbeError::Refused {
            feature,
            source: error,
        }),
        LoadVerdict::Refused { log, .. } => Ok(!UNKNOWN.iter().any(|reason| log.contains(reason))),
    }
}

const NOTHING: [Instruction; 2] = [Instruction::set(0, 0), Instruction::EXIT];

/// Exchanges a register with eight bytes of the stack.
const EXCHANGE: [Instruction; 5] = [
    Instruction::set(2, 0),
    Instruction::new(0x7b, 10, 2, -8, 0),
    Instruction::new(0xdb, 10, 2, -8, 0xe1),
    Instruction::set(0, 0),
    Instruction::EXIT,
];

/// Whether the kernel compiles a program to machine code. A program that the JIT cannot compile is
/// interpreted, or refused if there is no interpreter.
fn is_compiled(program: &[Instruction], feature: &'static str) -> Result<bool, ProbeError> {
    match syscall::load(ProgramKind::CgroupSkb, program) {
        LoadVerdict::Loaded(program) => syscall::is_jited(program.as_fd())
            .map_err(|source| ProbeError::Refused { feature, source }),
        LoadVerdict::Refused { error, .. } if error.raw_os_error() == Some(libc::EPERM) => {
            Err(ProbeError::Refused {
                feature,
                source: error,
            })
        }
        LoadVerdict::Refused { .. } => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::kernel::bpf::offsets;

    const ALL: Features = Features {
        bpf_loop: true,
        for_each_map_elem: true,
        storage_in_tracing: true,
        cookie_in_tracing: true,
        jit: true,
        atomic_exchange: true,
    };
    /// Linux 5.15 on x86_64.
    const WITHOUT_LOOP: Features = Features {
        bpf_loop: false,
        ..ALL
    };
    /// Linux 5.10 and older.
    const OLD: Features = Features {
        bpf_loop: false,
        for_each_map_elem: false,
        storage_in_tracing: false,
        cookie_in_tracing: false,
        jit: true,
        atomic_exchange: false,
    };

    /// Kernels by their features, as docs/kernels.md lists them.
    #[test]
    fn every_kernel_gets_its_loop_or_a_refusal_that_names_what_is_missing() {
        use Feature::{AtomicExchange, CookieInTracing, Loop, StorageInTracing};
        type Row = (&'static str, Features, Result<LoopKind, Vec<Feature>>);
        let table: [Row; 8] = [
            ("7.0, x86_64", ALL, Ok(LoopKind::Loop)),
            ("6.1, arm64", ALL, Ok(LoopKind::Loop)),
            ("5.15, x86_64", WITHOUT_LOOP, Ok(LoopKind::ForEachMapElem)),
            ("5.14 of a vendor, with bpf_loop", ALL, Ok(LoopKind::Loop)),
            (
                "5.15, arm64",
                Features {
                    atomic_exchange: false,
                    ..WITHOUT_LOOP
                },
                Err(vec![AtomicExchange]),
            ),
            (
                "5.11, x86_64",
                Features {
                    storage_in_tracing: true,
                    ..OLD
                },
                Err(vec![Loop, CookieInTracing, AtomicExchange]),
            ),
            (
                "5.10, x86_64",
                OLD,
                Err(vec![
                    Loop,
                    StorageInTracing,
                    CookieInTracing,
                    AtomicExchange,
                ]),
            ),
            (
                "4.18 of a vendor",
                OLD,
                Err(vec![
                    Loop,
                    StorageInTracing,
                    CookieInTracing,
                    AtomicExchange,
                ]),
            ),
        ];
        for (kernel, features, expected) in table {
            assert_eq!(
                features.loop_kind().map_err(|lacking| lacking.0),
                expected,
                "{kernel}"
            );
        }
    }

    #[test]
    fn a_refusal_names_each_feature_and_the_remedy() {
        let lacking = OLD.loop_kind().unwrap_err();
        let text = lacking.to_string();
        for name in [
            "bpf_loop",
            "socket storage",
            "socket cookies",
            "atomic exchange",
        ] {
            assert!(text.contains(name), "{text}");
        }
        assert!(lacking.remedy().contains("5.15"));

        let switched_off = Features {
            jit: false,
            atomic_exchange: false,
            ..ALL
        };
        let lacking = switched_off.loop_kind().unwrap_err();
        assert_eq!(lacking.0, [Feature::Jit]);
        assert!(lacking.remedy().contains("bpf_jit_enable=1"));
    }

    #[test]
    #[ignore = "needs root: loads programs"]
    fn a_helper_that_no_kernel_has_is_missing_from_both_kinds_of_programs() {
        let btf = offsets::read(Path::new(offsets::VMLINUX_BTF)).unwrap();
        let btf_id = tracepoint_id(&btf, TRACEPOINT).unwrap();
        for kind in [ProgramKind::CgroupSkb, ProgramKind::Tracepoint { btf_id }] {
            assert!(!has_helper(kind, 100_000, "nothing").unwrap());
            // bpf_map_lookup_elem, which every kernel has.
            assert!(has_helper(kind, 1, "maps").unwrap());
        }
        // The committed object's requirements are met wherever these tests run.
        let features = Features::of_running_kernel(&btf).unwrap();
        assert!(features.loop_kind().is_ok(), "{features:?}");
    }
}
