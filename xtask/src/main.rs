//! wsmon's own commands. `cargo xtask --help` lists them.

mod artifacts;
mod build_ebpf;
mod bytecode_lock;
mod chart;
mod cross;
mod dashboards;
mod dependencies;
mod dist;
mod documents;
mod files;
mod fuzz;
mod image;
mod lint;
mod npm;
mod package;
mod peers;
mod program;
mod release_build;
mod root;
mod service_policy;
mod setup;
mod source;
mod tar;
mod test;
mod third_party;
mod toolchain;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{program::Program, root::Prerequisite};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", about = "wsmon's own commands", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show three WebSocket connections die, and wsmon catch them
    #[command(disable_help_flag = true)]
    Demo(program::Args),
    /// Install what the bytecode and the tests need; skip what is installed
    Setup(setup::Args),
    /// Build the kernel programs into monitor/bpf/wsmon.bpf.o
    BuildEbpf(build_ebpf::Args),
    /// Write the Grafana dashboards in deploy/grafana
    Dashboards(dashboards::Args),
    /// Render the Helm chart, and check it for several versions of Kubernetes
    Chart(chart::Args),
    /// Build the files of a release, for every processor
    Dist(dist::Args),
    /// Build the container image, and test it in podman
    Image(image::Args),
    /// Check formatting, clippy and the documentation
    Lint,
    /// Build a Debian package and an rpm of wsmon
    Package(package::Args),
    /// Regenerate the recordings in testdata/recordings
    #[command(disable_help_flag = true)]
    Record(program::Args),
    /// Search for inputs that break a guarantee, guided by coverage
    Fuzz(fuzz::Args),
    /// Check the status page in Chromium
    #[command(disable_help_flag = true)]
    Page(program::Args),
    /// Measure what watching costs the traffic that is watched
    #[command(disable_help_flag = true)]
    Bench(program::Args),
    /// Measure what watching very many connections costs, and how soon deaths are found
    #[command(disable_help_flag = true)]
    Scale(program::Args),
    /// Run every test that this machine and user can run
    Test(test::Args),
    /// Run wsmon and the tests of its kernel programs on other kernels and processors, and its Debian
    /// package under systemd, in QEMU
    Vm(vm::Args),
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                     three dead connections, found; 15 s, as root
  cargo xtask setup --dry-run          what would be installed, and how
  cargo xtask build-ebpf               after a change in monitor-ebpf or monitor-common
  cargo xtask build-ebpf --check       check that the committed object matches the sources
  cargo xtask chart                    after a change of the Helm chart
  cargo xtask record --hand-made       after a change in tests/record/src/hand_made
  cargo xtask dashboards               after a change in xtask/src/dashboards
  cargo xtask test                     everything; as root, the kernel and live tests too
  cargo xtask test wheel handshake     only tests whose name contains one of these
  cargo xtask vm 6.1                   the kernel programs on Debian's Linux 6.1; no root needed
  cargo xtask vm --package             the Debian package under systemd; no root needed
  cargo xtask package                  a Debian package and an rpm, in target/dist
  cargo xtask dist                     everything that a release has, in target/dist
  cargo xtask image --test             the container image, run in podman; as root
  cargo xtask bench --workload echo    throughput lost to wsmon, tcpdump and others
  cargo xtask scale                    ten thousand connections, some of which die
  cargo xtask scale --namespaces 200   the same number in 200 network namespaces
  cargo xtask page                     the status page in Chromium, with screenshots; no root needed
  cargo xtask fuzz segment             ten minutes of generated TCP segments

Exit codes: 0 ok, 1 failure, 2 usage error, 3 something has to be installed first.";

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Task::Demo(args) => Program::Demo.exec(&args),
        Task::Setup(args) => setup::run(&args).map(done),
        Task::BuildEbpf(args) => build_ebpf::run(&args).map(done),
        Task::Dashboards(args) => dashboards::run(&args).map(done),
        Task::Chart(args) => chart::run(&args).map(done),
        Task::Dist(args) => dist::run(&args).map(done),
        Task::Image(args) => image::run(&args).map(done),
        Task::Lint => lint::run().map(done),
        Task::Package(args) => package::run(&args).map(done),
        Task::Record(args) => Program::Record.exec(&args),
        Task::Fuzz(args) => fuzz::run(&args).map(done),
        Task::Page(args) => Program::Page.exec(&args),
        Task::Bench(args) => Program::Bench.exec(&args),
        Task::Scale(args) => Program::Scale.exec(&args),
        Task::Test(args) => test::run(&args).map(done),
        Task::Vm(args) => vm::run(&args).map(done),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Prerequisite>() { 3 } else { 1 })
        }
    }
}

fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}
