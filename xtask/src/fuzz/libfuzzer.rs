//! One run of one target: libFuzzer's arguments and output.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::fuzz_folder;
use crate::workspace;

/// Between two progress lines.
const PROGRESS: Duration = Duration::from_secs(30);
/// Longer inputs find nothing more and make runs slow.
const LONGEST_INPUT: u32 = 4096;
/// Time limit for one input, in seconds: thousands of times what it needs.
const SLOWEST_INPUT: u32 = 10;
/// Lines of libFuzzer that do not help to understand a failure.
const CHATTER: [&str; 4] = [
    "INFO: ",
    "WARNING: Failed to find function",
    "\tNEW_FUNC",
    "NOTE: ",
];

/// A target that is ready to run.
pub(super) struct Fuzzer {
    name: String,
    program: PathBuf,
    artifacts: PathBuf,
    /// libFuzzer's full output.
    log: PathBuf,
    status: Status,
    artifact: Option<PathBuf>,
    /// Other output: the panic and its backtrace.
    output: Vec<String>,
}

/// libFuzzer's latest progress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Status {
    runs: u64,
    /// Places reached in the code.
    coverage: u64,
    /// Inputs worth keeping.
    corpus: u64,
}

impl Fuzzer {
    /// Creates its output folders.
    ///
    /// # Errors
    /// If they cannot be created.
    pub(super) fn new(name: &str, program: &Path) -> Result<Self> {
        let artifacts = fuzz_folder().join("artifacts").join(name);
        make(&artifacts)?;
        let logs = workspace::root().join("target/fuzz");
        make(&logs)?;
        Ok(Self {
            name: name.to_owned(),
            program: program.to_owned(),
            artifacts,
            log: logs.join(format!("{name}.log")),
            status: Status::default(),
            artifact: None,
            output: Vec::new(),
        })
    }

    /// Runs for a time, and keeps inputs that reach new code in fuzz/corpus.
    ///
    /// # Errors
    /// If an input breaks a guarantee.
    pub(super) fn run_for(&mut self, time: Duration) -> Result<()> {
        let corpus = fuzz_folder().join("corpus").join(&self.name);
        make(&corpus)?;
        let total = humantime::format_duration(time);
        println!(
            "{}: {total}; libFuzzer's output: {}",
            self.name,
            self.log.display()
        );
        // libFuzzer interprets 0 as unlimited.
        let limit = format!("-max_total_time={}", time.as_secs().max(1));
        let mut command = self.command(&corpus);
        self.run(command.arg(limit))
    }

    /// Runs the seeds and their mutations, `runs` times; always the same ones.
    ///
    /// # Errors
    /// If an input breaks a guarantee.
    pub(super) fn run_times(&mut self, runs: u32) -> Result<()> {
        // Leftovers of an earlier run would change this one.
        let corpus = workspace::root().join("target/fuzz").join(&self.name);
        if corpus.exists() {
            fs::remove_dir_all(&corpus)?;
        }
        make(&corpus)?;
        let mut command = self.command(&corpus);
        self.run(command.args([format!("-runs={runs}"), "-seed=1".to_owned()]))
    }

    fn command(&self, corpus: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("-artifact_prefix={}/", self.artifacts.display()))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            .arg(format!("-timeout={SLOWEST_INPUT}"))
            .args([corpus, &fuzz_folder().join("seeds").join(&self.name)])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn run(&mut self, command: &mut Command) -> Result<()> {
        let begin = Instant::now();
        let mut process = command.spawn().context("could not start the target")?;
        let output = process
            .stderr
            .take()
            .context("libFuzzer has no standard error")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let status = self.follow(&mut process, &lines, begin)?;
        self.report(begin);
        if status.success() {
            return Ok(());
        }
        println!("{}", self.output.join("\n"));
        match &self.artifact {
            Some(artifact) => {
                let root = workspace::root();
                let artifact = artifact.strip_prefix(root).unwrap_or(artifact).display();
                let name = &self.name;
                bail!(
                    "{name} failed on {artifact}; to see it again: cargo xtask fuzz {name} --input {artifact}"
                )
            }
            None => bail!(
                "{} ended with {status}; see {}",
                self.name,
                self.log.display()
            ),
        }
    }

    /// Processes libFuzzer's output until it ends.
    fn follow(
        &mut self,
        process: &mut Child,
        lines: &Receiver<String>,
        begin: Instant,
    ) -> Result<ExitStatus> {
        let mut log = File::create(&self.log)
            .with_context(|| format!("could not write {}", self.log.display()))?;
        let mut next = begin + PROGRESS;
        loop {
            match lines.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    self.on_line(line);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return process.wait().context("could not wait for libFuzzer");
                }
            }
            if Instant::now() >= next {
                next += PROGRESS;
                self.report(begin);
            }
        }
    }

    fn on_line(&mut self, line: String) {
        if let Some(status) = Status::parse(&line) {
            self.status = status;
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.artifact = Some(path.into());
        } else if !CHATTER.iter().any(|chatter| line.starts_with(chatter)) {
            self.output.push(line);
        }
    }

    fn report(&self, begin: Instant) {
        let Status {
            runs,
            coverage,
            corpus,
        } = self.status;
        let seconds = begin.elapsed().as_secs();
        println!(
            "{:<13} {:>8}: {runs:>10} runs, {:>7} a second, {coverage} places reached, {corpus} inputs kept",
            self.name,
            humantime::format_duration(Duration::from_secs(seconds)).to_string(),
            runs / seconds.max(1),
        );
    }
}

impl Status {
    /// Reads `#123\tNEW    cov: 4 ft: 5 corp: 6/78b …`; `None` for every other line.
    fn parse(line: &str) -> Option<Self> {
        let (runs, rest) = line.strip_prefix('#')?.split_once('\t')?;
        let figure = |name: &str| {
            let rest = rest.split_once(name)?.1;
            rest.split([' ', '/']).next()?.parse().ok()
        };
        Some(Self {
            runs: runs.parse().ok()?,
            coverage: figure(" cov: ")?,
            corpus: figure(" corp: ")?,
        })
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_libfuzzer_output() {
        let line = "#609237\tREDUCE cov: 49 ft: 190 corp: 67/2119b lim: 4096 exec/s: 67693 rss: 27Mb L: 9/99 MS: 1 CopyPart-";
        let status = Status {
            runs: 609_237,
            coverage: 49,
            corpus: 67,
        };
        assert_eq!(Status::parse(line), Some(status));
        assert_eq!(Status::parse("#2\tINITED exec/s: 0 rss: 27Mb"), None);
        assert_eq!(Status::parse("==1== ERROR: libFuzzer: deadly signal"), None);
    }
}
