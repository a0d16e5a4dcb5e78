//! `cargo xtask build-ebpf`: builds the committed object from `monitor-ebpf`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use btf::{Btf, Kind};
use object::build::elf::{Builder, SectionData};

use crate::{
    bytecode_lock::{BytecodeLock, sha256, sources_hash},
    files::read,
    toolchain::{Identity, Toolchain},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail unless the committed object is what the sources give
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check { run_check() } else { build() }
}

const OBJECT: &str = "monitor/bpf/wsmon.bpf.o";
const LOCK: &str = "monitor/bpf/wsmon.bpf.lock";
const TARGET: &str = "bpfel-unknown-none";
const REMEDY: &str = "run `cargo xtask build-ebpf` and commit monitor/bpf";
/// BTF is generated from debug info, which [`strip`] drops afterwards.
const FLAGS: [&str; 2] = ["-Cdebuginfo=2", "-Clink-arg=--btf"];

fn build() -> Result<()> {
    let root = workspace::root();
    // Keeping the toolchain of the last build keeps the diff to review small.
    let toolchain = Toolchain::find(locked_toolchain().as_ref())?;
    let object = compile(&toolchain)?;
    let lock = BytecodeLock {
        toolchain: toolchain.identity,
        object: sha256(&object),
        sources: sources_hash(&root, &FLAGS)?,
    };
    fs::create_dir_all(root.join("monitor/bpf"))?;
    fs::write(root.join(OBJECT), &object).with_context(|| format!("could not write {OBJECT}"))?;
    fs::write(root.join(LOCK), lock.to_string())
        .with_context(|| format!("could not write {LOCK}"))?;
    println!("{OBJECT}: {} bytes, sha256 {}", object.len(), lock.object);
    Ok(())
}

/// Proves that the committed object matches the sources, if the toolchain here allows it.
///
/// # Errors
/// If it does not match, with the remedy.
pub(crate) fn run_check() -> Result<()> {
    let root = workspace::root();
    let lock = read_lock()?;
    let committed = fs::read(root.join(OBJECT))
        .with_context(|| format!("could not read {OBJECT}; {REMEDY}"))?;
    if sha256(&committed) != lock.object {
        bail!("{OBJECT} is not the object that {LOCK} describes; {REMEDY}");
    }
    if sources_hash(&root, &FLAGS)? != lock.sources {
        bail!("the sources of the kernel programs have changed since {OBJECT} was built; {REMEDY}");
    }
    match Toolchain::find(Some(&lock.toolchain)) {
        Ok(here) if here.identity == lock.toolchain => {
            let rebuilt = compile(&here)?;
            if rebuilt != committed {
                let kept = target_folder().join("wsmon.bpf.o");
                fs::write(&kept, &rebuilt)?;
                bail!(
                    "{OBJECT} differs from its rebuild, kept in {}; {REMEDY}",
                    kept.display()
                );
            }
            println!("{OBJECT}: a rebuild gives the same bytes");
        }
        Ok(here) => println!(
            "{OBJECT}: sources unchanged; not rebuilt, because it was made with {} and here is {}",
            lock.toolchain, here.identity
        ),
        Err(missing) => println!(
            "{OBJECT}: sources unchanged; not rebuilt ({})",
            missing.missing
        ),
    }
    Ok(())
}

/// The toolchain that built the committed object; `None` before the first build.
pub(crate) fn locked_toolchain() -> Option<Identity> {
    read_lock().ok().map(|lock| lock.toolchain)
}

fn read_lock() -> Result<BytecodeLock> {
    let text = fs::read_to_string(workspace::root().join(LOCK))
        .with_context(|| format!("could not read {LOCK}; {REMEDY}"))?;
    text.parse()
        .with_context(|| format!("{LOCK} is damaged; {REMEDY}"))
}

/// Builds and strips the object. The same sources and toolchain give the same bytes in any folder.
fn compile(toolchain: &Toolchain) -> Result<Vec<u8>> {
    println!(
        "building with {}: {}",
        toolchain.compiler.origin, toolchain.identity
    );
    let target_folder = target_folder();
    workspace::run(
        toolchain
            .cargo()
            .args(["build", "--locked", "--release", "-Zbuild-std=core"])
            .args(["--target", TARGET, "--package", "monitor-ebpf"])
            .arg("--target-dir")
            .arg(&target_folder)
            // The loader needs symbols and types; `strip` drops the rest.
            .env("CARGO_PROFILE_RELEASE_STRIP", "none")
            // Unlike RUSTFLAGS, this variable can hold paths with spaces.
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                rustflags(toolchain)?.join("\x1f"),
            ),
    )?;
    let linked = target_folder.join(TARGET).join("release/wsmon-bpf");
    let object =
        strip(&read(&linked)?).with_context(|| format!("could not strip {}", linked.display()))?;
    refuse_forward_declarations(&object)?;
    Ok(object)
}

/// Fails if a rebuild of the object could differ.
///
/// LLVM orders forward declarations of the same rank by address. With two of them, the same sources
/// randomly give one of two objects.
fn refuse_forward_declarations(object: &[u8]) -> Result<()> {
    let elf = Builder::read(object)?;
    let section = elf
        .sections
        .iter()
        .find(|section| *section.name == *b".BTF");
    let Some(SectionData::Data(types)) = section.map(|section| &section.data) else {
        bail!("the object has no section .BTF");
    };
    let btf = Btf::parse(types.to_vec())?;
    let declared: Vec<_> = btf
        .types()
        .filter(|it| it.kind() == Kind::Forward)
        .map(|it| String::from_utf8_lossy(it.name()))
        .collect();
    if declared.len() > 1 {
        bail!(
            "the types {} are only declared, and builds with more than one of these differ by chance: \
             use opaque pointers instead",
            declared.join(", ")
        );
    }
    Ok(())
}

/// The flags, with every machine-dependent path mapped to a fixed name.
fn rustflags(toolchain: &Toolchain) -> Result<Vec<String>> {
    let mut flags: Vec<_> = FLAGS.map(str::to_owned).into();
    let mut remap = |from: PathBuf, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(workspace::root(), ".");
    remap(workspace::cargo_home(), "cargo");
    // A mirror of crates.io has a different folder name. If several prefixes match, the last one
    // wins.
    let registry = workspace::cargo_home().join("registry/src");
    for index in fs::read_dir(&registry).into_iter().flatten() {
        remap(index?.path(), "crates");
    }
    let sources = toolchain.compiler.sysroot.join("lib/rustlib/src/rust");
    // The compiler names some files by the given path and some by the resolved one.
    remap(fs::canonicalize(&sources)?, "rust");
    remap(sources, "rust");
    Ok(flags)
}

fn target_folder() -> PathBuf {
    workspace::root().join("target/ebpf")
}

/// Drops DWARF and keeps what the loader reads: code, maps, symbols, relocations, `.BTF`,
/// `.BTF.ext`.
fn strip(linked: &[u8]) -> Result<Vec<u8>> {
    let mut elf = Builder::read(linked)?;
    for section in &mut elf.sections {
        section.delete = [".debug_", ".rel.debug_"]
            .iter()
            .any(|prefix| section.name.starts_with(prefix.as_bytes()));
    }
    elf.delete_orphans();
    // LLVM keeps all names in one table; the writer needs a separate table for the section names.
    let names = elf.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    elf.write(&mut stripped)?;
    Ok(stripped)
}
