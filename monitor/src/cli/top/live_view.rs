//! The loop of the view on a terminal.

use std::{
    future::pending,
    io,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        event::{self, Event},
        terminal,
    },
};
use tokio::{
    signal::unix::SignalKind,
    sync::mpsc,
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};

use super::{
    TopArgs,
    appearance::Appearance,
    poll_result::{PollResult, Request, Response, poll},
    rate_meter::RateMeter,
    refresh_timer::RefreshTimer,
    state::{Effect, ViewState},
    terminal_guard::TerminalGuard,
    view::{Freshness, View},
};
use crate::cli::{
    exit::{CommandResult, Failure},
    stop_signals::StopSignals,
};

/// Keys that wait while a screen is drawn.
const WAITING_EVENTS: usize = 64;

/// The screen is drawn at least so often, because the age of the data grows.
const REDRAW: Duration = Duration::from_secs(1);

/// In raw mode, Ctrl-C and Ctrl-Z are keys.
const STOP_SIGNALS: [SignalKind; 3] = [
    SignalKind::terminate(),
    SignalKind::interrupt(),
    SignalKind::hangup(),
];

/// Everything that is shown, and the refresh that runs.
struct LiveView<'a> {
    args: &'a TopArgs,
    state: ViewState,
    polled: PollResult,
    meter: RateMeter,
    timer: RefreshTimer,
    /// Why the last refresh failed.
    failure: Option<String>,
    refresh: Option<Refresh>,
}

/// A refresh that runs.
struct Refresh {
    request: Request,
    task: JoinHandle<Result<Response, Failure>>,
}

/// Shows the view until it is quit.
pub(super) async fn show(args: &TopArgs) -> CommandResult {
    let (width, height) = terminal::size().map_err(|error| no_terminal(&error))?;
    let mut state = ViewState::new(args.sort, args.search.as_ref(), width, height);
    // Without a daemon, its error message is better read on a terminal that was not taken.
    let response = poll(&args.control, &state.request()).await?;
    let mut polled = PollResult::new(response);
    let mut meter = RateMeter::default();
    meter.measure(&mut polled.connections.records);
    state.update(&polled);
    let mut view = LiveView {
        args,
        state,
        polled,
        meter,
        timer: RefreshTimer::new(args.interval, Instant::now()),
        failure: None,
        refresh: None,
    };
    let mut stop = StopSignals::new(&STOP_SIGNALS)?;
    let mut guard = TerminalGuard::enter(args.mouse).map_err(|error| no_terminal(&error))?;
    let ended = view.run(&mut stop, &mut guard).await;
    drop(guard);
    ended.map(|()| ExitCode::SUCCESS)
}

impl LiveView<'_> {
    async fn run(
        &mut self,
        stop: &mut StopSignals,
        guard: &mut TerminalGuard,
    ) -> Result<(), Failure> {
        let appearance = Appearance::of_stdout(self.args.color);
        let blank = || Terminal::new(CrosstermBackend::new(io::stdout()));
        let mut terminal = blank().map_err(|error| no_terminal(&error))?;
        let mut events = read_events();
        let mut redraws = time::interval(self.args.interval.min(REDRAW));
        redraws.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let drawn = terminal.draw(|frame| {
                let buffer = frame.buffer_mut();
                self.view().draw(buffer);
                appearance.apply(buffer);
            });
            drawn.map_err(|error| no_terminal(&error))?;
            let next_refresh = self.timer.next_refresh(self.state.is_paused);
            let effect = tokio::select! {
                // After a panic of a refresh, the terminal is restored: nothing may be drawn.
                biased;
                () = stop.wait() => Effect::Quit,
                finished = finished(&mut self.refresh) => {
                    let (request, result) = finished?;
                    self.refresh = None;
                    self.finish(&request, result)
                }
                () = until(next_refresh) => {
                    self.start_refresh();
                    Effect::Draw
                }
                event = events.recv() => match event {
                    Some(event) => {
                        let event = event.map_err(|error| no_terminal(&error))?;
                        self.state.on_event(&event, &self.polled)
                    }
                    None => Effect::Quit,
                },
                _ = redraws.tick() => Effect::Draw,
            };
            match effect {
                Effect::Draw => {}
                Effect::Poll => self.timer.mark_dirty(),
                Effect::Suspend => {
                    let resumed = guard.suspend().and_then(|()| blank());
                    terminal = resumed.map_err(|error| no_terminal(&error))?;
                    self.timer.mark_dirty();
                }
                Effect::Quit => return Ok(()),
            }
        }
    }

    fn view(&self) -> View<'_> {
        let now = Instant::now();
        View {
            state: &self.state,
            polled: &self.polled,
            freshness: Freshness {
                age: self.timer.age(now),
                is_overdue: self.failure.is_some() || self.timer.is_overdue(now),
                failure: self.failure.as_deref(),
            },
            has_keys: true,
        }
    }

    fn start_refresh(&mut self) {
        self.timer.start(Instant::now());
        let (control, request) = (self.args.control.clone(), self.state.request());
        let requested = request.clone();
        let task = tokio::spawn(async move { poll(&control, &requested).await });
        self.refresh = Some(Refresh { request, task });
    }

    fn finish(&mut self, request: &Request, result: Result<Response, Failure>) -> Effect {
        match result {
            Ok(response) => {
                self.polled.update(response);
                self.meter.measure(&mut self.polled.connections.records);
                self.timer.finish(request.needs_rates(), Instant::now());
                self.failure = None;
                // The keys since may have chosen something else, which the next refresh brings.
                match *request == self.state.request() {
                    true => self.state.update(&self.polled),
                    false => Effect::Draw,
                }
            }
            Err(failure) => {
                self.timer.fail();
                self.failure = Some(failure.to_string());
                Effect::Draw
            }
        }
    }
}

/// Waits for the refresh; for ever if there is none.
///
/// # Errors
/// If it panicked.
async fn finished(
    refresh: &mut Option<Refresh>,
) -> Result<(Request, Result<Response, Failure>), Failure> {
    let Some(Refresh { request, task }) = refresh else {
        return pending().await;
    };
    let result = task.await;
    let result = result.map_err(|error| Failure::failed(format!("the refresh failed: {error}")))?;
    Ok((request.clone(), result))
}

/// Waits until then; for ever if `None`.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => time::sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// Keys and the like. The thread that reads them ends with the process.
fn read_events() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    thread::spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.blocking_send(event).is_err() || is_last {
                break;
            }
        }
    });
    events
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::failed(format!(
        "cannot use the terminal: {error}; --once prints one screen"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refresh_that_panics_ends_the_view() {
        let mut refresh = Some(Refresh {
            request: Request::Listeners,
            task: tokio::spawn(async { panic!("on purpose") }),
        });
        let error = finished(&mut refresh).await.expect_err("a failure");
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}
