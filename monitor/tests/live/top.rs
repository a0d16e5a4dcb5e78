//! The live view, on a terminal and printed.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use lab::{Client, Manner, Process, fresh_port, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    stage::{SOON, Stage, WSMON, Watch},
    tmux::Tmux,
    viewer::query,
};

/// A zombie and a healthy connection.
struct Scene {
    watch: Watch,
    dead: Client,
    healthy: Client,
    stage: Stage,
}

impl Scene {
    fn new() -> Self {
        let stage = Stage::new();
        let mut watch = stage.watch(&["--lb-timeout", "2s"]);
        let healthy = stage.client(1, "/heartbeat?every=500ms", Manner::Responsive);
        let dead = stage.client(0, "/quiet", Manner::Responsive);
        watch.verdict(dead.local_addr(), "expired", SOON);
        Self {
            watch,
            dead,
            healthy,
            stage,
        }
    }

    fn control(&self) -> &Path {
        self.watch.daemon.control()
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn one_screen_is_printed_with_the_zombie_first() {
    let scene = Scene::new();
    let [dead, healthy] = [&scene.dead, &scene.healthy].map(|client| client.local_addr());
    let interval = "a known interval of the pings";
    wait_until(interval, SOON, || {
        let shown = printed(scene.control(), &["--once"]);
        row(&shown, healthy).contains("ms ") || row(&shown, healthy).contains("us ")
    })
    .unwrap();
    let shown = printed(scene.control(), &["--once"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() <= 24, "{shown}");
    assert!(
        lines.iter().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    assert!(!shown.contains('\u{1b}'), "{shown:?}");
    assert!(
        lines[0].starts_with("wsmon  2 open  1 zombie (suspected)  "),
        "{shown}"
    );
    assert!(lines[3].starts_with("  VERDICT       PEER "), "{shown}");
    assert!(lines[4].starts_with("  expired?  "), "{shown}");
    assert!(lines[4].contains(&dead.to_string()), "{shown}");
    assert!(lines[4].contains("s/2.0s"), "{shown}");
    assert!(lines[5].starts_with("  -  "), "{shown}");
    assert!(lines[5].contains(&healthy.to_string()), "{shown}");

    let peer = dead.to_string();
    let only_dead = printed(scene.control(), &["--once", "--search", &peer]);
    assert!(only_dead.contains(&peer), "{only_dead}");
    assert!(!only_dead.contains(&healthy.to_string()), "{only_dead}");
    let sorted = printed(scene.control(), &["--once", "--sort", "frames"]);
    let order = [healthy, dead].map(|peer| sorted.find(&peer.to_string()));
    assert!(order.is_sorted() && order[0].is_some(), "{sorted}");

    let piped = query(scene.control(), &["top"]);
    let said = String::from_utf8(piped.stderr).unwrap();
    assert_eq!(
        said,
        "printing one screen, because stdout is not a terminal\n"
    );
    let shown = String::from_utf8(piped.stdout).unwrap();
    assert!(row(&shown, dead).starts_with("  expired?  "), "{shown}");
}

/// The output of `wsmon top` in a pipe, which must succeed.
fn printed(control: &Path, args: &[&str]) -> String {
    let output = Command::new(WSMON)
        .arg("top")
        .args(args)
        .arg("--control")
        .arg(control)
        .env_remove("COLUMNS")
        .env_remove("LINES")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The row about a peer, below the header; empty if there is none.
fn row(screen: &str, peer: SocketAddr) -> &str {
    let peer = peer.to_string();
    let mut lines = screen.lines().skip(3);
    lines.find(|line| line.contains(&peer)).unwrap_or_default()
}

/// `wsmon top` in a terminal. The shell around it compares the terminal's settings before and after.
struct Session {
    tmux: Tmux,
    directory: tempfile::TempDir,
}

impl Session {
    fn start(control: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let control = control.display();
        let script = format!(
            "stty -a > {at}/before; \
             sh -c 'echo $$ > {at}/pid; exec {WSMON} top --interval 200ms --control {control}'; \
             echo status $?; stty -a > {at}/after; echo restored; exec cat"
        );
        Self {
            tmux: Tmux::start(80, 24, &script),
            directory,
        }
    }

    /// Waits for the end of the view, with the terminal as it was.
    fn assert_restored(&self) {
        let screen = self
            .tmux
            .wait_for("the end", |screen| screen.contains("restored"));
        assert!(screen.contains("status 0"), "{screen}");
        let settings = |name| fs::read_to_string(self.directory.path().join(name)).unwrap();
        assert_eq!(settings("after"), settings("before"));
        assert_eq!(self.tmux.variable("alternate_on"), "0");
        assert_eq!(self.tmux.variable("cursor_flag"), "1");
        assert_eq!(self.tmux.variable("mouse_any_flag"), "0");
    }

    fn signal(&self, signal: Signal) {
        let pid = wait_for("its process id", SOON, || {
            let text = fs::read_to_string(self.directory.path().join("pid")).ok()?;
            Pid::from_raw(text.trim().parse().ok()?)
        });
        kill_process(pid.unwrap(), signal).unwrap();
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn keys_move_through_the_view_and_the_terminal_is_restored() {
    let scene = Scene::new();
    let [dead, healthy] = [&scene.dead, &scene.healthy].map(|client| client.local_addr());
    let session = Session::start(scene.control());
    let tmux = &session.tmux;
    tmux.wait_for("the connections", |screen| {
        row(screen, dead).starts_with("> expired?") && row(screen, healthy).starts_with("  -")
    });
    assert_eq!(tmux.variable("alternate_on"), "1");
    assert_eq!(tmux.variable("cursor_flag"), "0");

    tmux.press(&["Enter"]);
    tmux.wait_for("its details", |screen| {
        screen.contains("verdict") && screen.contains("101 after") && screen.contains("Esc back")
    });
    tmux.press(&["Escape"]);
    // Until it is read, the next key could be taken for one with Alt.
    tmux.wait_for("the connections again", |screen| {
        !row(screen, healthy).is_empty()
    });
    tmux.press(&["Down"]);
    tmux.wait_for("the next row", |screen| {
        row(screen, healthy).starts_with('>')
    });
    tmux.press(&["?"]);
    tmux.wait_for("the keys", |screen| {
        screen.contains("next or previous order")
    });
    tmux.press(&["q"]);
    let text = dead.to_string();
    tmux.press(&["/"]);
    tmux.press(&["-l", &text]);
    tmux.wait_for("the typed text", |screen| {
        screen.contains(&format!("search: {text}"))
    });
    tmux.press(&["Enter"]);
    tmux.wait_for("one connection", |screen| {
        row(screen, dead).starts_with('>') && row(screen, healthy).is_empty()
    });
    tmux.press(&["Escape"]);
    tmux.wait_for("both connections", |screen| {
        !row(screen, healthy).is_empty()
    });
    tmux.press(&["2"]);
    tmux.wait_for("the alert", |screen| {
        row(screen, dead).contains("  expired?  ")
    });
    tmux.press(&["3"]);
    let port = scene.stage.port();
    tmux.wait_for("the listener", |screen| {
        screen.contains("MARGIN") && screen.contains(&format!("> {port} "))
    });
    tmux.press(&["1"]);
    tmux.resize(120, 40);
    tmux.wait_for("more columns, and the listeners below", |screen| {
        screen.contains("QUEUE") && screen.contains("TX/S") && screen.contains("\nListeners\n")
    });
    tmux.resize(20, 5);
    tmux.wait_for("a small screen", |screen| {
        screen.lines().all(|line| line.chars().count() <= 20) && screen.contains("> expired?")
    });
    tmux.resize(80, 24);
    tmux.wait_for("the first size", |screen| {
        screen.contains("OWNER") && screen.contains("q quit")
    });
    tmux.press(&["q"]);
    session.assert_restored();
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn a_signal_ends_the_view_and_restores_the_terminal() {
    let scene = Scene::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let session = Session::start(scene.control());
        session
            .tmux
            .wait_for("the view", |screen| screen.contains("? help"));
        session.signal(signal);
        session.assert_restored();
    }
    let session = Session::start(scene.control());
    session
        .tmux
        .wait_for("the view", |screen| screen.contains("? help"));
    session.tmux.press(&["C-c"]);
    session.assert_restored();
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_environment_says_what_the_terminal_can_show() {
    let scene = Scene::new();
    let dead = scene.dead.local_addr();
    let control = scene.control().display();
    let start = |environment: &str| {
        let script = format!("{environment} {WSMON} top --control {control}; exec cat");
        Tmux::start(80, 24, &script)
    };
    let is_shown = |screen: &str| row(screen, dead).contains("expired?");
    let dumb = start("TERM=dumb");
    let screen = dumb.wait_for("one screen", |screen| is_shown(screen));
    let reason = "printing one screen, because TERM is dumb";
    assert!(screen.contains(reason), "{screen}");
    assert_eq!(dumb.variable("alternate_on"), "0");
    drop(dumb);
    for (environment, has_color, filled) in [
        ("LC_ALL=C.UTF-8", true, "██"),
        ("LC_ALL=C.UTF-8 NO_COLOR=1", false, "██"),
        ("LC_ALL=C", true, "##"),
    ] {
        let tmux = start(environment);
        let screen = tmux.wait_for("the view", |screen| is_shown(screen));
        assert!(row(&screen, dead).contains(filled), "{screen}");
        assert_eq!(
            tmux.styled_screen().contains("\u{1b}["),
            has_color,
            "{environment}"
        );
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_view_is_whole_after_many_sizes() {
    let scene = Scene::new();
    let session = Session::start(scene.control());
    let is_whole = |screen: &str| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 24
            && lines.iter().all(|line| line.chars().count() <= 80)
            && lines[3].starts_with("  VERDICT       PEER ")
            && row(screen, scene.dead.local_addr()).starts_with("> expired?")
            && row(screen, scene.healthy.local_addr()).starts_with("  -")
            && lines[23].ends_with("q quit")
    };
    session.tmux.wait_for("the view", is_whole);
    for step in 1..=30 {
        session
            .tmux
            .resize(10 + step * 47 % 190, 3 + step * 31 % 60);
    }
    session.tmux.resize(80, 24);
    session.tmux.wait_for("the first size again", is_whole);
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_view_is_suspended_and_continued_by_its_shell() {
    let scene = Scene::new();
    let control = scene.control().display();
    let script = format!(
        "set -m; stty -a > before; {WSMON} top --control {control}; stty -a > after; \
         cmp before after && echo suspended; read _; fg; echo status $?; exec cat"
    );
    let folder = tempfile::tempdir().unwrap();
    let script = format!("cd {}; {script}", folder.path().display());
    let tmux = Tmux::start(80, 24, &script);
    let is_shown = |screen: &str| row(screen, scene.dead.local_addr()).contains("expired?");
    tmux.wait_for("the view", is_shown);
    tmux.press(&["C-z"]);
    tmux.wait_for("the shell", |screen| screen.contains("suspended"));
    assert_eq!(tmux.variable("alternate_on"), "0");
    assert_eq!(tmux.variable("cursor_flag"), "1");
    tmux.press(&["Enter"]);
    tmux.wait_for("the view again", is_shown);
    assert_eq!(tmux.variable("alternate_on"), "1");
    tmux.press(&["q"]);
    tmux.wait_for("its end", |screen| screen.contains("status 0"));
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn the_view_outlives_the_daemon_and_finds_the_next_one() {
    let mut scene = Scene::new();
    let peer = scene.healthy.local_addr();
    let control = scene.control().to_owned();
    let session = Session::start(&control);
    let tmux = &session.tmux;
    tmux.wait_for("the connections", |screen| !row(screen, peer).is_empty());
    scene.watch.daemon.terminate(SOON).unwrap();
    let screen = tmux.wait_for("the loss of the daemon", |screen| {
        screen.contains("no answer: ") && screen.contains("s old")
    });
    assert!(
        !row(&screen, peer).is_empty(),
        "the last data stays: {screen}"
    );

    let port = fresh_port();
    let mut next = Command::new(WSMON);
    next.args(["run", "--port", scene.stage.port()])
        .arg("--control")
        .arg(&control)
        .args(["--metrics-addr", &format!("127.0.0.1:{port}")])
        .args(["--alert-log", "/dev/null"])
        .stderr(Stdio::null());
    let _next = Process::spawn(&mut next).unwrap();
    tmux.wait_for("the next daemon", |screen| {
        !screen.contains("no answer") && !row(screen, peer).is_empty()
    });
    tmux.press(&["q"]);
    session.assert_restored();
}
