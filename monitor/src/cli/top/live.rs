//! The loop of the view on a terminal.

use std::{
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
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    TopArgs,
    appearance::Appearance,
    polled::{Answer, Polled, poll},
    rate_meter::RateMeter,
    refresh_timer::RefreshTimer,
    state::{Effect, ViewState},
    terminal_guard::TerminalGuard,
    view::{Freshness, View},
};
use crate::cli::exit::{CommandResult, Failure};

/// Keys that wait while a screen is drawn.
const WAITING_EVENTS: usize = 64;

/// Everything that is shown, and the refresh on its way.
struct LiveView<'a> {
    args: &'a TopArgs,
    state: ViewState,
    polled: Polled,
    meter: RateMeter,
    timer: RefreshTimer,
    /// Why the last refresh failed.
    failure: Option<String>,
    /// At most one: a slow daemon is not asked again before it answers, unless something else is to be shown.
    refresh: Option<JoinHandle<Result<Answer, Failure>>>,
}

/// Shows the view until it is quit.
pub(super) async fn show(args: &TopArgs) -> CommandResult {
    let (width, height) = terminal::size().map_err(|error| no_terminal(&error))?;
    let mut state = ViewState::new(args.sort, &args.filter, width, height);
    // Without a daemon, its error message is better read on a terminal that was not taken.
    let answer = poll(&args.control, &state.question()).await?;
    let mut polled = Polled::new(answer);
    let mut meter = RateMeter::default();
    meter.measure(&mut polled.connections.records);
    state.adopt(&polled);
    let mut view = LiveView {
        args,
        state,
        polled,
        meter,
        timer: RefreshTimer::new(args.interval, Instant::now()),
        failure: None,
        refresh: None,
    };
    let mut ends = Ends::new()?;
    let guard = TerminalGuard::enter(args.mouse).map_err(|error| no_terminal(&error))?;
    let ended = view.run(&mut ends).await;
    drop(guard);
    ended.map(|()| ExitCode::SUCCESS)
}

impl LiveView<'_> {
    async fn run(&mut self, ends: &mut Ends) -> Result<(), Failure> {
        let appearance = Appearance::of_stdout(self.args.color);
        let backend = CrosstermBackend::new(io::stdout());
        let mut terminal = Terminal::new(backend).map_err(|error| no_terminal(&error))?;
        let mut events = read_events();
        let mut ticks = ticks(self.args.interval);
        loop {
            let drawn = terminal.draw(|frame| {
                let buffer = frame.buffer_mut();
                self.view().draw(buffer);
                appearance.apply(buffer);
            });
            drawn.map_err(|error| no_terminal(&error))?;
            let effect = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => {
                        let event = event.map_err(|error| no_terminal(&error))?;
                        self.state.on_event(&event, &self.polled)
                    }
                    None => Effect::Quit,
                },
                answer = finished(&mut self.refresh) => {
                    self.refresh = None;
                    self.take(answer)
                }
                _ = ticks.tick() => match self.is_refresh_due() {
                    true => Effect::Poll,
                    false => Effect::Draw,
                },
                () = ends.next() => Effect::Quit,
            };
            match effect {
                Effect::Draw => {}
                Effect::Poll => self.poll(),
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

    fn is_refresh_due(&self) -> bool {
        let is_idle = !self.state.is_paused && self.refresh.is_none();
        is_idle && self.timer.is_due(Instant::now())
    }

    fn poll(&mut self) {
        if let Some(outdated) = self.refresh.take() {
            outdated.abort();
        }
        let (control, question) = (self.args.control.clone(), self.state.question());
        self.timer.ask(Instant::now());
        self.refresh = Some(tokio::spawn(async move { poll(&control, &question).await }));
    }

    fn take(&mut self, answer: Result<Answer, Failure>) -> Effect {
        match answer {
            Ok(answer) => {
                self.polled.update(answer);
                self.meter.measure(&mut self.polled.connections.records);
                self.timer.answer(self.state.order, Instant::now());
                self.failure = None;
                self.state.adopt(&self.polled)
            }
            Err(failure) => {
                self.failure = Some(failure.to_string());
                Effect::Draw
            }
        }
    }
}

/// Waits for the refresh; for ever if there is none.
async fn finished(
    refresh: &mut Option<JoinHandle<Result<Answer, Failure>>>,
) -> Result<Answer, Failure> {
    match refresh {
        Some(refresh) => refresh
            .await
            .unwrap_or_else(|error| Err(Failure::failed(format!("the refresh failed: {error}")))),
        None => std::future::pending().await,
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
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

/// The signals that end the view. In raw mode, Ctrl-C is a key.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
        };
        Ok(Self([
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
            listen(SignalKind::hangup())?,
        ]))
    }

    async fn next(&mut self) {
        let [terminated, interrupted, hung_up] = &mut self.0;
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
            _ = hung_up.recv() => {}
        }
    }
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::failed(format!(
        "cannot use the terminal: {error}; --once prints one screen"
    ))
}
