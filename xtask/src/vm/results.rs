//! The guest's results: the outcome of each test target, and the verifier's counts.

use std::collections::BTreeMap;

/// The output of one guest, in the protocol of `init.sh`.
#[derive(Debug, Default)]
pub(crate) struct Results {
    /// The output of `uname -r`, once received.
    pub(crate) release: Option<String>,
    /// The targets in the order they ran.
    pub(crate) targets: Vec<Target>,
    /// Whether the guest reached its last line.
    pub(crate) finished: bool,
    /// Output outside any target.
    pub(crate) rest: String,
}

/// One test executable's run.
#[derive(Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// Its exit status; `None` while it runs, or if it never ended.
    pub(crate) status: Option<i32>,
    /// Its whole output.
    pub(crate) output: String,
}

impl Results {
    /// Processes the next line. Returns text worth showing to a waiting person.
    pub(crate) fn line(&mut self, line: &str) -> Option<String> {
        let Some(mark) = line.strip_prefix("@@ ") else {
            let output = match self.targets.last_mut() {
                Some(target) if target.status.is_none() => &mut target.output,
                _ => &mut self.rest,
            };
            output.push_str(line);
            output.push('\n');
            return None;
        };
        match mark.split(' ').collect::<Vec<_>>()[..] {
            ["booted", release] => {
                self.release = Some(release.to_owned());
                Some(format!("booted {release}"))
            }
            ["begin", name] => {
                self.targets.push(Target {
                    name: name.to_owned(),
                    status: None,
                    output: String::new(),
                });
                None
            }
            ["end", name, status] => {
                let target = self.targets.iter_mut().find(|target| target.name == name)?;
                target.status = status.parse().ok();
                let (passed, failed) = target.tally();
                Some(format!("{name}: {passed} passed, {failed} failed"))
            }
            ["done"] => {
                self.finished = true;
                None
            }
            _ => None,
        }
    }

    /// Why this is not a success; empty if it is one. A target that ran no test fails, unless the
    /// tests were `filtered`.
    pub(crate) fn complaints(&self, expected: &[&str], filtered: bool) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.release.is_none() {
            complaints.push("the kernel did not reach its first process".to_owned());
        }
        for name in expected {
            let target = self.targets.iter().find(|target| target.name == *name);
            complaints.extend(match target.map(|target| (target.status, target.tally())) {
                None => Some(format!("{name} did not start")),
                Some((None, _)) => Some(format!("{name} did not end")),
                Some((Some(0), (0, _))) if !filtered => Some(format!("{name} ran no test")),
                Some((Some(0), _)) => None,
                Some((Some(status), (_, 0))) => Some(format!("{name} ended with status {status}")),
                Some((Some(_), (_, failed))) => Some(format!("{name}: {failed} failed")),
            });
        }
        if complaints.is_empty() && !self.finished {
            complaints.push("the guest ended too early".to_owned());
        }
        let tallies = self.targets.iter().map(Target::tally);
        if complaints.is_empty() && tallies.eq(expected.iter().map(|_| (0, 0))) {
            complaints.push("no test has such a name".to_owned());
        }
        complaints
    }

    /// The helper with which the programs loop, from the table of `wsmon check -v`.
    pub(crate) fn loop_helper(&self) -> Option<&str> {
        let mut lines = self.targets.iter().flat_map(|target| target.output.lines());
        lines.find_map(|line| {
            let mut words = line.split_whitespace();
            let row = [words.next()?, words.next()?];
            (row == ["yes", "loop"]).then(|| words.next())?
        })
    }

    /// The most instructions that the verifier processed for each program, over all shapes of the
    /// configuration.
    pub(crate) fn verified(&self) -> BTreeMap<String, u64> {
        let mut verified = BTreeMap::new();
        let lines = self.targets.iter().flat_map(|target| target.output.lines());
        for (program, count) in lines.filter_map(verified_count) {
            let most = verified.entry(program.to_owned()).or_default();
            *most = count.max(*most);
        }
        verified
    }
}

impl Target {
    /// Number of passed and failed tests, from the last line of a Rust test run.
    pub(crate) fn tally(&self) -> (u64, u64) {
        let number = |part: &str, word: &str| -> Option<u64> {
            part.trim().strip_suffix(word)?.trim_end().parse().ok()
        };
        self.output
            .lines()
            .filter_map(|line| line.strip_prefix("test result: ")?.split_once(". "))
            .find_map(|(_, counts)| {
                let mut counts = counts.split(';');
                let passed = number(counts.next()?, "passed")?;
                Some((passed, number(counts.next()?, "failed")?))
            })
            .unwrap_or_default()
    }
}

/// Program and count in a line of the load test: `…: ingress   1234 verified instructions`.
fn verified_count(line: &str) -> Option<(&str, u64)> {
    let line = line.strip_suffix(" verified instructions")?;
    let mut words = line.split_whitespace().rev();
    let count = words.next()?.parse().ok()?;
    Some((words.next()?, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
starting
@@ booted 6.1.0-56-cloud-amd64
@@ begin load

running 1 test
test every_shape_loads ... ok

---- every_shape_loads stdout ----
remote false debug_log false: ingress                812 verified instructions
remote false debug_log true: ingress               1,2 verified instructions
remote true debug_log true: ingress               1204 verified instructions
remote true debug_log true: egress                  99 verified instructions

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.2s

@@ end load 0
@@ begin programs
test result: ok. 8 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.9s
@@ end programs 0
@@ done";
    const EXPECTED: [&str; 2] = ["load", "programs"];

    fn parsed(lines: &str) -> Results {
        let mut results = Results::default();
        for line in lines.lines() {
            results.line(line);
        }
        results
    }

    fn complaints(lines: &str) -> Vec<String> {
        parsed(lines).complaints(&EXPECTED, false)
    }

    #[test]
    fn a_whole_run_is_a_success_with_its_numbers() {
        let results = parsed(GOOD);
        assert!(results.complaints(&EXPECTED, false).is_empty());
        assert_eq!(results.release.as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(results.targets.len(), 2);
        assert_eq!(results.targets[0].tally(), (1, 0));
        assert_eq!(results.targets[1].tally(), (8, 0));
        assert_eq!(results.rest, "starting\n");
        assert!(
            results
                .verified()
                .into_iter()
                .eq([("egress".to_owned(), 99), ("ingress".to_owned(), 1204)])
        );
    }

    #[test]
    fn the_loop_helper_is_read_from_the_check() {
        let lines = GOOD.replace(
            "test every_shape_loads ... ok",
            "yes  cgroup v2  /sys/fs/cgroup\nyes  loop       bpf_for_each_map_elem",
        );
        assert_eq!(parsed(&lines).loop_helper(), Some("bpf_for_each_map_elem"));
        assert_eq!(parsed(GOOD).loop_helper(), None);
    }

    #[test]
    fn a_failed_test_is_counted_and_its_output_kept() {
        let lines = GOOD
            .replace("ok. 8 passed; 0 failed", "FAILED. 6 passed; 2 failed")
            .replace("end programs 0", "end programs 101");
        assert_eq!(complaints(&lines), ["programs: 2 failed"]);
        let target = &parsed(&lines).targets[1];
        assert_eq!(target.tally(), (6, 2));
        assert!(target.output.contains("FAILED"));
    }

    #[test]
    fn the_exit_status_takes_precedence_over_the_output() {
        let lines = GOOD.replace("end programs 0", "end programs 139");
        assert_eq!(complaints(&lines), ["programs ended with status 139"]);
    }

    #[test]
    fn a_guest_that_stops_anywhere_is_a_failure() {
        let lines: Vec<_> = GOOD.lines().collect();
        for stop in 0..lines.len() {
            let part = lines[..stop].join("\n");
            assert!(!complaints(&part).is_empty(), "after {part:?}");
        }
        assert_eq!(
            complaints("booting\n@@ booted 6.1.0\n@@ begin load\ntest x ..."),
            ["load did not end", "programs did not start"]
        );
    }

    #[test]
    fn a_target_without_tests_is_a_failure_unless_they_were_filtered() {
        let lines = GOOD.replace("8 passed", "0 passed");
        assert_eq!(complaints(&lines), ["programs ran no test"]);
        assert!(parsed(&lines).complaints(&EXPECTED, true).is_empty());
    }

    #[test]
    fn a_filter_that_leaves_no_test_at_all_is_a_failure() {
        let lines = GOOD
            .replace("8 passed", "0 passed")
            .replace("1 passed", "0 passed");
        let complaints = parsed(&lines).complaints(&EXPECTED, true);
        assert_eq!(complaints, ["no test has such a name"]);
    }
}
