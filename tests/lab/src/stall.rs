use std::{
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// TCP's shortest retransmission timeout in Linux. A longer stall makes the kernel retransmit, back off and
/// measure round trips otherwise than a test expects of it.
const LONGEST_STALL: Duration = Duration::from_millis(200);
const RUNS: usize = 3;
const TICK: Duration = Duration::from_millis(5);

/// Runs a test whose expectations depend on the kernel's timers. If it panics and the machine stood still for longer
/// than 200 ms meanwhile, it runs again, at most three times in all. A panic of a run without such a stall stands.
///
/// # Panics
/// With the panic of a run without a stall, or with a text that names the stalls if all three had one.
pub fn rerun_after_stalls(test: impl FnMut()) {
    rerun(test, || {
        let meter = StallMeter::start();
        || meter.finish()
    });
}

/// As [`rerun_after_stalls`], with `measure` to begin the measurement of a run, and its result to end it.
fn rerun<L: FnOnce() -> Duration>(mut test: impl FnMut(), measure: impl Fn() -> L) {
    let mut stalls = Vec::new();
    while stalls.len() < RUNS {
        let longest_stall = measure();
        let outcome = panic::catch_unwind(AssertUnwindSafe(&mut test));
        let stall = longest_stall();
        match outcome {
            Ok(()) => return,
            Err(panic) if stall <= LONGEST_STALL => panic::resume_unwind(panic),
            Err(_) => eprintln!("this run does not count: the machine stood still for {stall:?}"),
        }
        stalls.push(stall);
    }
    panic!(
        "{RUNS} runs failed, and in each this machine stood still for longer than {LONGEST_STALL:?}: {stalls:?}. \
         It is too slow or too busy to tell whether the test holds; the failures are above"
    );
}

/// Measures how long this machine stands still: how late a thread on each CPU wakes up.
struct StallMeter {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Nanoseconds.
    longest: AtomicU64,
    is_over: AtomicBool,
}

impl StallMeter {
    fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let ours = sched_getaffinity(None).unwrap_or_default();
        let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| ours.is_set(*cpu));
        let threads = cpus.map(|cpu| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut only = CpuSet::new();
                only.set(cpu);
                // If the kernel refuses, it measures on any CPU.
                let _ = sched_setaffinity(None, &only);
                shared.measure();
            })
        });
        Self {
            threads: threads.collect(),
            shared,
        }
    }

    /// Ends it, and returns the longest stall since its start.
    fn finish(self) -> Duration {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // It has no reason to panic.
            let _ = thread.join();
        }
        Duration::from_nanos(self.shared.longest.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn measure(&self) {
        let mut last = Instant::now();
        loop {
            thread::sleep(TICK);
            let now = Instant::now();
            let late = (now - last).saturating_sub(TICK).as_nanos() as u64;
            self.longest.fetch_max(late, Ordering::Relaxed);
            last = now;
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a test runs that passes in its `passing` run, and whether it passes, when each run has this stall.
    fn runs(passing: usize, stall: Duration) -> (usize, Result<(), String>) {
        let mut runs = 0;
        let test = || {
            runs += 1;
            assert!(runs == passing, "run {runs} fails");
        };
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| rerun(test, || move || stall)));
        let text = |panic: Box<dyn std::any::Any + Send>| *panic.downcast::<String>().unwrap();
        (runs, outcome.map_err(text))
    }

    #[test]
    fn a_failure_without_a_stall_stands() {
        let (runs, outcome) = runs(2, LONGEST_STALL);
        assert_eq!((runs, outcome), (1, Err("run 1 fails".to_owned())));
    }

    #[test]
    fn a_stalled_failure_is_repeated_twice_at_most() {
        let stall = LONGEST_STALL + TICK;
        for passing in 1..=RUNS {
            assert_eq!(runs(passing, stall), (passing, Ok(())));
        }
        let (runs, outcome) = runs(RUNS + 1, stall);
        assert_eq!(runs, RUNS);
        let text = outcome.unwrap_err();
        assert!(text.contains("205ms, 205ms, 205ms"), "{text}");
    }

    #[test]
    fn a_thread_on_each_cpu_measures_how_late_it_wakes_up() {
        let meter = StallMeter::start();
        let cpus = thread::available_parallelism().unwrap().get();
        assert!(meter.threads.len() >= cpus, "{}", meter.threads.len());
        assert!(meter.finish() > Duration::ZERO);
    }
}
