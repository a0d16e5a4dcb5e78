//! Completion scripts and man pages, read by the programs that they are for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

const WSMON: &str = env!("CARGO_BIN_EXE_wsmon");

#[test]
fn bash_completes_commands_flags_and_values() {
    let scripts = Scripts::new("bash");
    for (typed, completed) in CASES {
        // As bash calls it: the words so far, and the index of the last one.
        let program = format!(
            "source {}; COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _wsmon wsmon \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            scripts.path.display()
        );
        let offered = output("bash", &["--norc", "-c", &program]);
        assert!(
            offered.lines().any(|line| line == completed),
            "{typed}: {offered}"
        );
    }
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let scripts = Scripts::new("fish");
    for (typed, completed) in CASES {
        let program = format!(
            "source {}; complete --do-complete '{typed}'",
            scripts.path.display()
        );
        let offered = output("fish", &["--no-config", "-c", &program]);
        let words = offered.lines().filter_map(|line| line.split('\t').next());
        assert!(
            words.clone().any(|word| word == completed),
            "{typed}: {offered}"
        );
    }
}

/// zsh completes only on a terminal, so this test stops at what it registers.
#[test]
fn zsh_loads_the_script_for_wsmon() {
    let scripts = Scripts::new("zsh");
    let program = format!(
        "autoload -U compinit; compinit -u -D; source {}; print $_comps[wsmon]; functions _wsmon",
        scripts.path.display()
    );
    let loaded = output("zsh", &["--no-rcs", "-c", &program]);
    assert!(loaded.starts_with("_wsmon\n"), "{loaded}");
    for (_, completed) in CASES {
        assert!(loaded.contains(completed), "{completed}: {loaded}");
    }
}

#[test]
fn man_pages_are_clean_roff() {
    let directory = tempfile::tempdir().unwrap();
    output(WSMON, &["man", directory.path().to_str().unwrap()]);
    let pages: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(pages.len() > 10, "{pages:?}");
    for page in pages {
        output(
            "mandoc",
            &["-T", "lint", "-W", "warning", page.to_str().unwrap()],
        );
    }
}

/// What is typed, and one of the words that complete its end.
const CASES: [(&str, &str); 3] = [
    ("wsmon prof", "profiles"),
    ("wsmon list --end", "--ended"),
    ("wsmon list --sort retr", "retransmits"),
];

/// The completion script for a shell, in a file.
struct Scripts {
    path: PathBuf,
    _directory: TempDir,
}

impl Scripts {
    fn new(shell: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("_wsmon");
        write(&path, &output(WSMON, &["completions", shell]));
        Self {
            path,
            _directory: directory,
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// The output of a program that succeeds.
fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}; run `cargo xtask setup`"));
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{program}: {stdout}{stderr}");
    stdout
}
