//! The live view while every verdict and every alert stands, at the usual sizes of a terminal.
//!
//! `WSMON_WRITE_SCREENS=1` writes the screens, and the one of docs/top.md, instead of comparing them. The files
//! are as the terminal had them; [`likeness`] says what may differ from one run to the next.

mod likeness;
mod scene;
mod server_process;
mod short_lived;

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use lab::wait_for;

use self::{likeness::differences, scene::Scene};
use crate::{stage::WSMON, tmux::Tmux};

const WRITE: &str = "WSMON_WRITE_SCREENS";
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 60)];

/// In this time, what passes comes back eight times. A view on a busy machine may miss it several times.
const LIMIT: Duration = Duration::from_secs(120);

/// Between two captures of a screen, which changes every half a second. This is the interval at which conditions are
/// checked, and not a time in which something is expected: more captures would slow down the views.
const PAUSE: Duration = Duration::from_millis(50);

/// The address of a client that comes and goes.
const RESTLESS: &str = " 10.78.";

/// What is on the screen of the connections: each kind of verdict, and what has none.
const CONNECTIONS: [&str; 11] = [
    "VERDICT",
    "expired",
    "black_holed",
    "unresponsive",
    "half_closed",
    "stalled",
    "backlogged",
    "expiring",
    "quiet",
    "\n  at risk ",
    "\n  -  ",
];

const ALERTS: [&str; 14] = [
    "SINCE",
    "reconnect_storm",
    "thrash",
    "at_risk",
    "limit_mismatch",
    "expired!",
    "expired?",
    "black_holed!",
    "unresponsive!",
    "half_closed!",
    "stalled!",
    "backlogged?",
    "expiring?",
    "quiet?",
];

/// Its name comes first, so that it runs at the same time as the other tests, not after them.
#[test]
#[ignore = "needs root: network namespaces, cgroups and programs"]
fn top_shows_every_verdict_and_every_alert_at_every_usual_size() {
    if server_process::serve_if_ordered() {
        return;
    }
    let scene = Scene::new();
    let views = SIZES.map(|(width, height)| View::new(scene.control(), width, height));
    thread::scope(|scope| {
        for view in &views {
            scope.spawn(|| view.check_connections());
            scope.spawn(|| view.check_alerts());
            scope.spawn(|| view.check_dumb());
        }
    });
    if env::var_os(WRITE).is_some() {
        write_page();
    }
}

/// `wsmon top` on terminals of one size: two without colours, and one on which nothing can move.
struct View {
    width: u16,
    height: u16,
    connections: Tmux,
    alerts: Tmux,
    dumb: Tmux,
}

impl View {
    fn new(control: &Path, width: u16, height: u16) -> Self {
        let control = control.display();
        let live = format!("NO_COLOR=1 {WSMON} top --interval 500ms --control {control}");
        let dumb = format!(
            "while printf '\\033[H\\033[2J'; do \
             TERM=dumb {WSMON} top --control {control} 2>/dev/null; sleep 0.5; done"
        );
        let view = Self {
            width,
            height,
            connections: Tmux::start(width, height, &live),
            alerts: Tmux::start(width, height, &live),
            dumb: Tmux::start(width, height, &dumb),
        };
        for live in [&view.connections, &view.alerts] {
            live.wait_for("the view", |screen| screen.contains("q quit"));
        }
        view.alerts.press(&["2"]);
        view
    }

    fn check_connections(&self) {
        let Self { connections, .. } = self;
        self.check_screen("connections", &CONNECTIONS, connections);
        connections.press(&["Enter"]);
        self.check_screen("detail", &["handshake", "path"], connections);
        connections.press(&["?"]);
        self.check_screen("help", &["these keys"], connections);
        assert!(!connections.styled_screen().contains('\u{1b}'));
    }

    fn check_alerts(&self) {
        let Self { alerts, .. } = self;
        self.check_screen("alerts", &ALERTS, alerts);
        alerts.press(&["3"]);
        self.check_screen("listeners", &["MARGIN", "widget"], alerts);
    }

    fn check_dumb(&self) {
        self.check_screen("dumb", &CONNECTIONS, &self.dumb);
    }

    /// Waits until the screen is like the file of this name, or writes the file once it has the words.
    fn check_screen(&self, name: &str, words: &[&str], tmux: &Tmux) {
        let Self { width, height, .. } = self;
        let path = screens().join(format!("{name}-{width}x{height}.txt"));
        if env::var_os(WRITE).is_some() {
            let has_all = |screen: &str| words.iter().all(|word| screen.contains(word));
            let complete = wait_for(name, LIMIT, || {
                let shown = capture(tmux);
                let is_complete = has_all(&shown) && !shown.contains(RESTLESS);
                let is_drawn = || capture(tmux) == shown;
                (is_complete && is_drawn()).then_some(shown)
            });
            let shown = complete
                .unwrap_or_else(|error| panic!("{error}; the screen is:\n{}", tmux.screen()));
            self.assert_fits(&shown);
            fs::create_dir_all(screens()).unwrap();
            fs::write(&path, shown).unwrap();
            return;
        }
        let expected = fs::read_to_string(&path);
        let expected = expected.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // What is shown moves on: the screen that was the most like it explains a failure.
        let mut nearest: Option<(Vec<String>, String)> = None;
        let found = wait_for(name, LIMIT, || {
            let shown = capture(tmux);
            let differing = differences(&shown, &expected);
            let is_nearer = |(known, _): &(Vec<String>, String)| differing.len() < known.len();
            let is_like = differing.is_empty();
            if nearest.as_ref().is_none_or(is_nearer) {
                nearest = Some((differing, shown));
            }
            is_like.then_some(())
        });
        let (differing, shown) = nearest.unwrap();
        self.assert_fits(&shown);
        found.unwrap_or_else(|error| {
            let path = path.display();
            let differing = differing.join("\n");
            panic!("{error}\n{shown}\ndiffers from {path}:\n{differing}\n{WRITE}=1 writes it")
        });
    }

    fn assert_fits(&self, screen: &str) {
        let [width, height] = [self.width, self.height].map(usize::from);
        assert!(screen.lines().count() <= height, "{screen}");
        let fits = |line: &str| line.chars().count() <= width;
        assert!(screen.lines().all(fits), "{screen}");
    }
}

/// The screen after a pause.
fn capture(tmux: &Tmux) -> String {
    thread::sleep(PAUSE);
    tmux.screen()
}

fn screens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens/live")
}

/// Puts the smallest screen of the connections into docs/top.md.
fn write_page() {
    let screen = fs::read_to_string(screens().join("connections-80x24.txt")).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/top.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once("```text\n").unwrap();
    let (_, after) = rest.split_once("```").unwrap();
    fs::write(&path, format!("{before}```text\n{screen}```{after}")).unwrap();
}
