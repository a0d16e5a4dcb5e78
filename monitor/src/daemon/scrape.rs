//! Responses to HTTP requests.

use std::sync::Once;

use procfs::ProcError;

use super::Daemon;
use crate::{
    api::http::MetricsRequest,
    config::listeners::ListenerConfig,
    diagnostics::log_limit,
    kernel::{
        bpf::maps::{MapAccessError, RingUse},
        clock,
        host::{kernel_release, own_process::ProcessFigures},
    },
    metrics::{Exposition, Losses, MissedRuns, ProgramRuns, RingUsage, Scrape},
    records::status::unserved_text,
};
use monitor_common::stats::ListenerStats;

impl Daemon {
    pub(super) fn respond_to_metrics(&mut self, request: MetricsRequest) {
        // The requester may have gone.
        match request {
            MetricsRequest::Alive(reply) => drop(reply.send(())),
            MetricsRequest::Ready(reply) => {
                drop(reply.send(self.unserved().map(unserved_line).collect()));
            }
            MetricsRequest::Page(reply) => self.respond_to_page(reply),
            MetricsRequest::Metrics(reply) => match self.scrape() {
                Ok(exposition) => drop(reply.send(exposition)),
                Err(error) => log::error!("cannot answer a scrape: {error}"),
            },
        }
    }

    /// The local listeners on whose ports nobody listens.
    pub(super) fn unserved(&self) -> impl Iterator<Item = &ListenerConfig> {
        let listeners = self.listeners.iter().zip(self.core.tallies());
        listeners
            .filter(|(listener, tally)| !listener.remote && tally.listen_sockets == 0)
            .map(|(listener, _)| listener)
    }

    fn scrape(&mut self) -> Result<Exposition, MapAccessError> {
        let (losses, stats) = self.read_counts()?;
        let now = clock::now();
        Ok(Exposition::of(&Scrape {
            listeners: &self.listeners,
            stats: &stats,
            tallies: self.core.tallies(),
            workloads: self.core.workloads(),
            now,
            clocks: self.clocks,
            started: self.process.started(),
            process: self.process_figures().as_ref(),
            losses: &losses,
            degraded: self.housekeeping.degradation.is_degraded(now),
            owner_gaps: &self.outputs.owners.misses().by_reason(),
            suppressed_log_lines: log_limit::suppressed(),
            frame_viewers: self.outputs.frame_stream.viewers(),
            rings: &[
                ring("vitals", self.intake.vitals.get_ref().usage()),
                ring("handshakes", self.intake.handshakes.get_ref().usage()),
                ring("samples", self.outputs.frame_stream.ring_use()),
            ],
            tracked: self.core.len(),
            max_connections: self.intake.snapshots.max_entries(),
            programs: &self.program_runs(),
            missed_runs: &self.missed_runs(),
            kernel: &kernel_release(),
        }))
    }

    /// The losses and the counts of the kernel programs, by listener. The core gets them too.
    pub(super) fn read_counts(&mut self) -> Result<(Losses, Vec<ListenerStats>), MapAccessError> {
        let losses = self.notice_losses();
        let poll = &mut self.housekeeping.stats_poll;
        let stats = poll.read(&self.intake.missed_ends)?;
        poll.report(&stats, &mut self.core);
        Ok((losses, stats))
    }

    /// What this process uses; `None` if that cannot be read, such as without a free file descriptor.
    fn process_figures(&self) -> Option<ProcessFigures> {
        static REPORTED: Once = Once::new();
        let figures = self.process.read();
        let report = |error: &ProcError| {
            REPORTED.call_once(|| {
                log::warn!("cannot read what this process uses: {error}. /metrics lacks process_*");
            });
        };
        figures.inspect_err(report).ok()
    }

    /// The runs of each program that the kernel skipped.
    fn missed_runs(&self) -> Vec<MissedRuns> {
        let mut programs: Vec<_> = self
            .loaded
            .missed_runs()
            .filter_map(|(name, missed)| match missed {
                Ok(missed) => Some(MissedRuns {
                    program: name.to_owned(),
                    missed,
                }),
                Err(error) => {
                    log::warn!("cannot read how often program {name} was skipped: {error}");
                    None
                }
            })
            .collect();
        programs.sort_by(|a, b| a.program.cmp(&b.program));
        programs
    }

    /// Program run counts; the kernel counts only while `kernel.bpf_stats_enabled` is on.
    fn program_runs(&self) -> Vec<ProgramRuns> {
        let enabled = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled")
            .is_ok_and(|value| value.trim() == "1");
        if !enabled {
            return Vec::new();
        }
        let mut programs: Vec<_> = self
            .loaded
            .programs()
            .map(|(name, info)| ProgramRuns {
                name: name.to_owned(),
                runs: info.run_count(),
                seconds: info.run_time().as_secs_f64(),
            })
            .collect();
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        programs
    }
}

fn unserved_line(listener: &ListenerConfig) -> String {
    unserved_text(&listener.rules.name, &listener.ports_text())
}

fn ring(name: &'static str, RingUse { size, peak }: RingUse) -> RingUsage {
    RingUsage { name, size, peak }
}
