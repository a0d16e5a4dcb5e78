//! `cargo xtask setup`: installs what the bytecode and the tests need, and skips what is there.

use std::{
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Error, Result, anyhow, bail};

use crate::{
    build_ebpf, chart, cross, npm, peers,
    root::{Prerequisite, is_root},
    service_policy::{remove_leftover, without_servers},
    toolchain::{self, BPF_LINKER, Compiler, LLVM_MAJOR, Linker},
    workspace,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the toolchain for the kernel programs
    #[arg(long)]
    ebpf: bool,
    /// Only what the tests and the demo use
    #[arg(long)]
    tests: bool,
    /// Only what those tests use that run without root
    #[arg(long, conflicts_with = "tests")]
    user_tests: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let steps = Steps {
        dry_run: args.dry_run,
        ..Steps::default()
    };
    if !args.dry_run {
        remove_leftover()?;
    }
    let everything = !(args.ebpf || args.tests || args.user_tests);
    if everything || args.ebpf {
        ebpf(&steps)?;
    }
    if everything || args.tests {
        tests(&steps)?;
    }
    if args.user_tests {
        user_tests(&steps)?;
    }
    Ok(())
}

/// The whole set-up, silent about what is already there.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn run_quietly() -> Result<()> {
    remove_leftover()?;
    let steps = Steps::quiet();
    ebpf(&steps)?;
    tests(&steps)
}

/// The programs that the lab's networks need, silent about what is already there.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn lab_quietly() -> Result<()> {
    let steps = Steps::quiet();
    steps.programs(&[IP, NFT])
}

/// Optional programs of `cargo xtask bench`, in addition to those of [`lab_quietly`], silent about
/// what is already there.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn bench_quietly() -> Result<()> {
    let steps = Steps::quiet();
    steps.programs(&[TCPDUMP, NODE, NPM])?;
    peers::install(&steps)
}

/// The programs that `cargo xtask record` uses, silent about what is already there.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn recording_quietly() -> Result<()> {
    let steps = Steps::quiet();
    tests(&steps)?;
    steps.programs(&[("editcap", "wireshark-common")])
}

/// What `cargo xtask page` uses, silent about what is already there. No test needs it, because the
/// browser takes 300 MB.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn page_quietly() -> Result<()> {
    let steps = Steps::quiet();
    steps.programs(&[NODE, NPM, ("chromium", "chromium")])?;
    let root = workspace::root();
    npm::ci_once(
        &steps,
        "axe-core",
        &root.join("tests/page"),
        &root.join("target/page"),
    )
}

/// Helm and the schemas of Kubernetes for `cargo xtask chart`, silent about what is already there.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn chart_quietly() -> Result<()> {
    let steps = Steps::quiet();
    python(&steps)?;
    chart::install(&steps)
}

/// What `cargo xtask dashboards --types` uses. Returns the folder with Grafana's types. No test needs it, because it
/// takes 33 MB.
///
/// # Errors
/// [`Prerequisite`] if something is missing that only root or a person can install.
pub(crate) fn dashboard_types_quietly() -> Result<PathBuf> {
    let steps = Steps::quiet();
    steps.programs(&[NODE, NPM])?;
    let root = workspace::root();
    let folder = root.join("target/grafana");
    npm::ci_once(
        &steps,
        "Grafana's types",
        &root.join("testdata/grafana"),
        &folder,
    )?;
    Ok(folder)
}

/// Programs that several commands use, and their packages.
const IP: (&str, &str) = ("ip", "iproute2");
const NFT: (&str, &str) = ("nft", "nftables");
const TCPDUMP: (&str, &str) = ("tcpdump", "tcpdump");
const NODE: (&str, &str) = ("node", "nodejs");
const NPM: (&str, &str) = ("npm", "npm");
/// Go's gorilla/websocket, as sources.
const GORILLA: &str = "golang-github-gorilla-websocket-dev";
/// Those of the tests without root.
const OF_USER_TESTS: [(&str, &str); 9] = [
    ("c++", "g++"),
    NODE,
    NPM,
    ("promtool", "prometheus"),
    ("amtool", "prometheus-alertmanager"),
    ("tshark", "tshark"),
    ("mandoc", "mandoc"),
    ("zsh", "zsh"),
    ("fish", "fish"),
];

/// How steps are executed and reported.
#[derive(Default)]
pub(crate) struct Steps {
    dry_run: bool,
    quiet: bool,
    package_lists_fresh: Cell<bool>,
}

impl Steps {
    /// Silent about what is already there.
    fn quiet() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// Reports something that needs no step.
    pub(crate) fn there(&self, what: &str, detail: &str) {
        if !self.quiet {
            println!("ok       {what}: {detail}");
        }
    }

    /// Runs one step, or prints it in a dry run.
    ///
    /// # Errors
    /// If the command fails.
    pub(crate) fn step(&self, command: &mut Command) -> Result<()> {
        match self.announce(&workspace::line(command)) {
            true => workspace::run(command.stdin(Stdio::null())),
            false => Ok(()),
        }
    }

    /// Prints a step, and returns whether to run it.
    fn announce(&self, line: &str) -> bool {
        match self.dry_run {
            true => println!("would    {line}"),
            false => println!("run      {line}"),
        }
        !self.dry_run
    }

    /// Silently writes a file and creates its folder.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(crate) fn write(&self, file: &Path, content: &str) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        file.parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(file, content))
            .with_context(|| format!("could not write {}", file.display()))
    }

    /// Installs the Debian packages of missing programs.
    ///
    /// # Errors
    /// As [`packages`](Self::packages).
    fn programs(&self, tools: &[(&str, &'static str)]) -> Result<()> {
        let mut missing = Vec::new();
        for (program, package) in tools {
            match workspace::on_path(program) {
                Some(path) => self.there(program, &path.display().to_string()),
                None => missing.push(*package),
            }
        }
        self.packages(&missing)
    }

    /// Installs those of these Debian packages that are missing.
    ///
    /// # Errors
    /// As [`packages`](Self::packages).
    fn libraries(&self, packages: &[&'static str]) -> Result<()> {
        let mut missing = Vec::new();
        for package in packages {
            match is_package_installed(package) {
                true => self.there(package, "installed"),
                false => missing.push(*package),
            }
        }
        self.packages(&missing)
    }

    /// Installs Debian packages.
    ///
    /// # Errors
    /// [`Prerequisite`] without apt-get or without root's rights.
    fn packages(&self, packages: &[&str]) -> Result<()> {
        if packages.is_empty() {
            return Ok(());
        }
        let missing = format!("not installed: {}", packages.join(" "));
        let install = format!(
            "apt-get install --no-install-recommends {}",
            packages.join(" ")
        );
        if workspace::on_path("apt-get").is_none() {
            return Err(Prerequisite {
                missing,
                remedy: vec![format!("install what Debian would with: {install}")],
            }
            .into());
        }
        if !self.dry_run && !is_root() {
            return Err(Prerequisite {
                missing,
                remedy: vec![format!("sudo {install}")],
            }
            .into());
        }
        if !self.package_lists_fresh.replace(true) {
            self.step(&mut apt_get(&["update", "--quiet"]))?;
        }
        let options = ["install", "--yes", "--quiet", "--no-install-recommends"];
        let install = apt_get(&[&options, packages].concat());
        let line = workspace::line(&install);
        if !self.announce(&line) {
            return Ok(());
        }
        workspace::run_as(&line, without_servers(install)?.stdin(Stdio::null()))
    }
}

fn ebpf(steps: &Steps) -> Result<()> {
    match Compiler::all().first() {
        Some(compiler) => steps.there(
            "compiler for the kernel programs",
            &format!("{}, {}", compiler.origin, compiler.version),
        ),
        None => install_compiler(steps)?,
    }
    match Linker::find().filter(Linker::fits) {
        Some(linker) => steps.there(
            "bpf-linker",
            &format!("{} on LLVM {}", linker.version, linker.llvm),
        ),
        None => install_linker(steps)?,
    }
    Ok(())
}

fn install_compiler(steps: &Steps) -> Result<()> {
    let mut ways = [nightly_sources, distribution_compiler];
    // The same kind of compiler as the committed object's can also prove it, byte for byte.
    if build_ebpf::locked_toolchain().is_some_and(|locked| !locked.rustc.contains("nightly")) {
        ways.reverse();
    }
    let mut refused = None;
    for way in ways {
        match way(steps) {
            Ok(()) if steps.dry_run || !Compiler::all().is_empty() => return Ok(()),
            Ok(()) => {
                println!("         not usable: too old, too new for bpf-linker, or no sources");
            }
            Err(error) => {
                println!("         {error:#}");
                refused = refused.or(error.downcast::<Prerequisite>().ok());
            }
        }
    }
    Err(refused.map_or_else(
        || anyhow!("found no compiler for the kernel programs; `{NIGHTLY}` gives one"),
        Error::from,
    ))
}

const NIGHTLY: &str = "rustup toolchain install nightly --component rust-src";

fn nightly_sources(steps: &Steps) -> Result<()> {
    if toolchain::nightly_sysroot().is_none() {
        bail!("no rustup nightly here");
    }
    steps.step(
        Command::new("rustup")
            .args(["component", "add", "rust-src", "--toolchain", "nightly"])
            .env_remove("RUST_BACKTRACE"),
    )
}

fn distribution_compiler(steps: &Steps) -> Result<()> {
    steps.packages(&["rustc-web", "rust-web-src"])
}

fn install_linker(steps: &Steps) -> Result<()> {
    let prefix = match env::var("LLVM_PREFIX") {
        Ok(prefix) => prefix,
        Err(_) => {
            let packages = [
                format!("llvm-{LLVM_MAJOR}-dev"),
                format!("libpolly-{LLVM_MAJOR}-dev"),
            ];
            let missing: Vec<_> = packages
                .iter()
                .map(String::as_str)
                .filter(|package| !is_package_installed(package))
                .collect();
            steps.packages(&missing)?;
            format!("/usr/lib/llvm-{LLVM_MAJOR}")
        }
    };
    steps.step(
        workspace::cargo(&["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
            .args(["--force", "--no-default-features", "--features"])
            .arg(format!("llvm-{LLVM_MAJOR}"))
            .env("LLVM_PREFIX", prefix),
    )?;
    if !steps.dry_run && !Linker::find().is_some_and(|linker| linker.fits()) {
        let folder = workspace::cargo_home().join("bin");
        bail!(
            "bpf-linker is installed but not found; put {} on PATH",
            folder.display()
        );
    }
    Ok(())
}

fn tests(steps: &Steps) -> Result<()> {
    let tools = [
        IP,
        NFT,
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-system-aarch64", "qemu-system-arm"),
        ("busybox", "busybox-static"),
        ("mmdebstrap", "mmdebstrap"),
        ("genext2fs", "genext2fs"),
        ("resize2fs", "e2fsprogs"),
        ("xz", "xz-utils"),
        TCPDUMP,
        ("nginx", "nginx-light"),
        ("haproxy", "haproxy"),
        ("tmux", "tmux"),
        ("buildah", "buildah"),
        ("podman", "podman"),
        ("runc", "runc"),
        ("rpmbuild", "rpm"),
        ("lintian", "lintian"),
        ("curl", "curl"),
        ("go", "golang-go"),
        ("javac", "default-jdk-headless"),
    ];
    steps.programs(&[&OF_USER_TESTS[..], &tools].concat())?;
    steps.libraries(&[GORILLA])?;
    cross_builds(steps)?;
    python(steps)?;
    peers::install(steps)?;
    peers::compile(steps)?;
    chart::install(steps)
}

/// What the tests without root use.
fn user_tests(steps: &Steps) -> Result<()> {
    steps.programs(&OF_USER_TESTS)?;
    python(steps)?;
    peers::install(steps)
}

fn python(steps: &Steps) -> Result<()> {
    match peers::python() {
        Some(python) => {
            steps.there("python3 with venv", &python.display().to_string());
            Ok(())
        }
        None => steps.packages(&["python3", "python3-venv"]),
    }
}

/// The toolchains with which `cargo xtask vm` and `cargo xtask dist` build for other processors.
fn cross_builds(steps: &Steps) -> Result<()> {
    for target in cross::TARGETS.iter().filter(|target| !target.is_native()) {
        steps.programs(&[(target.linker, target.linker_package)])?;
        steps.libraries(&[target.library_package])?;
        let what = format!("standard library for {}", target.name);
        if cross::has_standard_library(target.name) {
            steps.there(&what, "installed");
        } else if workspace::on_path("rustup").is_some() {
            steps.step(Command::new("rustup").args(["target", "add", target.name]))?;
        } else {
            println!(
                "skipped  {what}: it needs rustup; `cargo xtask vm` skips the guests that need it"
            );
        }
    }
    Ok(())
}

fn is_package_installed(package: &str) -> bool {
    workspace::answer("dpkg-query", &["--show", "--showformat=${Status}", package])
        .is_some_and(|status| status == "install ok installed")
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
