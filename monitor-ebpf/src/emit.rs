//! The three outputs: rings, snapshots, counters.

use core::mem::MaybeUninit;

use monitor_common::{
    connection_totals::ConnectionTotals,
    drop_reason::DropReason,
    event::{CloseHow, ClosedEvent, EventKind, FrameSample, ListenEvent, VitalEvent},
    flow::notable,
    published::Published,
    snapshot::{Snapshot, protocol},
};

use crate::maps::{DROPS, PUBLISH_INTERVAL_NS, SAMPLES, SNAPSHOTS, VITALS};

#[inline(always)]
pub(crate) fn count_drop(reason: DropReason) {
    if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU map value; see `Counter` for what else may access it.
        unsafe { (*counter).add(1) };
    }
}

/// Sends one record to `VITALS`, or counts the drop.
#[inline(never)]
pub(crate) fn emit(kind: EventKind, detail: u32, at: u64, snapshot: &Snapshot) {
    match VITALS.reserve(0) {
        Some(mut entry) => {
            entry.write(VitalEvent {
                at,
                kind: kind as u32,
                detail,
                snapshot: *snapshot,
            });
            entry.submit(0);
        }
        None => count_drop(DropReason::VitalsFull),
    }
}

/// Sends the end of a connection with its account to `VITALS`, or counts the drop.
#[inline(never)]
pub(crate) fn emit_closed(how: CloseHow, at: u64, snapshot: &Snapshot, totals: &ConnectionTotals) {
    match VITALS.reserve_untyped::<ClosedEvent>(0) {
        Some(mut entry) => {
            entry.write(ClosedEvent {
                vital: VitalEvent {
                    at,
                    kind: EventKind::Closed as u32,
                    detail: how as u32,
                    snapshot: *snapshot,
                },
                totals: *totals,
            });
            entry.submit(0);
        }
        None => count_drop(DropReason::VitalsFull),
    }
}

/// Sends the record of a listening socket to `VITALS`, or counts the drop.
#[inline(always)]
pub(crate) fn emit_listen(event: &ListenEvent) {
    if VITALS.output_untyped::<ListenEvent>(event, 0).is_err() {
        count_drop(DropReason::VitalsFull);
    }
}

#[inline(always)]
pub(crate) fn sample(sample: FrameSample) {
    match SAMPLES.reserve(0) {
        Some(mut entry) => {
            let entry_ref: &mut MaybeUninit<FrameSample> = &mut entry;
            entry_ref.write(sample);
            entry.submit(0);
        }
        None => count_drop(DropReason::SamplesFull),
    }
}

/// Copies the facts to the map that the daemon reads.
///
/// A global function: the verifier checks it once, separately from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn publish(snapshot: *mut Snapshot) -> u32 {
    // SAFETY: callers pass null or a flow's snapshot, which lives as long as the program runs.
    let Some(snapshot) = (unsafe { snapshot.as_mut() }) else {
        return 0;
    };
    let mut facts = Published::EMPTY;
    facts.fill(snapshot);
    #[expect(
        clippy::needless_borrows_for_generic_args,
        reason = "as a value it would be on the kernel's stack of 512 bytes twice"
    )]
    let published = SNAPSHOTS.insert(snapshot.cookie, &facts, 0).is_ok();
    if !published && snapshot.unpublished == 0 {
        count_drop(DropReason::SnapshotsFull);
    }
    snapshot.unpublished = !published as u8;
    // The socket may have been closed on another CPU meanwhile, and its snapshot removed before this wrote
    // it again.
    // SAFETY: a live reference; volatile because another program may have written it.
    if unsafe { (&raw const snapshot.protocol).read_volatile() } == protocol::GONE {
        unpublish(snapshot.cookie);
    }
    0
}

/// Takes over the daemon's seed for a socket that is older than the monitor. `snapshot` is new.
#[inline(never)]
pub(crate) fn take_seed(snapshot: &mut Snapshot, now: u64) {
    if let Some(seed) = SNAPSHOTS.get_ptr(snapshot.cookie) {
        // SAFETY: a map value; it stays readable while this program runs.
        unsafe { &*seed }.restore(snapshot, now);
    }
}

/// Forgets a flow that ended or turned out not to be watched.
#[inline(always)]
pub(crate) fn unpublish(cookie: u64) {
    // A missing entry isn't a failure: the flow may never have been published.
    let _ = SNAPSHOTS.remove(cookie);
}

/// Publishes what a packet changed: at once if it is notable, otherwise at most once per publish interval.
#[inline(always)]
pub(crate) fn publish_changes(snapshot: &mut Snapshot, notes: u32, now: u64) {
    if notes & notable::DISMISSED != 0 {
        unpublish(snapshot.cookie);
        emit(EventKind::Dismissed, 0, now, snapshot);
        return;
    }
    if !snapshot.is_watched() {
        return;
    }
    let due = now.saturating_sub(snapshot.published_at) >= PUBLISH_INTERVAL_NS.load();
    if notes == 0 && !due {
        return;
    }
    snapshot.published_at = now;
    publish(snapshot);
    if notes & notable::EVENTS != 0 {
        emit_events(snapshot, notes, now);
    }
}

/// Sends a record for each event among the notes. A global function, like [`publish`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_events(snapshot: *const Snapshot, notes: u32, now: u64) -> u32 {
    // SAFETY: as for `publish`.
    let Some(snapshot) = (unsafe { snapshot.as_ref() }) else {
        return 0;
    };
    for (note, kind) in notable::RECORDS {
        if notes & note != 0 {
            emit(kind, 0, now, snapshot);
        }
    }
    0
}
