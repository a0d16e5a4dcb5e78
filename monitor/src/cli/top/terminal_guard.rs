//! Takes the terminal for the view, and gives it back.

use std::{
    io, panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use ratatui::crossterm::{
    cursor::{Hide, Show},
    event::{DisableMouseCapture, EnableMouseCapture},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use rustix::process::{Signal, kill_current_process_group};

/// Raw mode and the alternate screen. Dropping it restores the terminal, and so does a panic, before its
/// message is printed.
#[derive(Debug)]
pub(super) struct TerminalGuard {
    has_mouse: bool,
}

/// Whether there is something to restore.
static TAKEN: AtomicBool = AtomicBool::new(false);

static PANIC_HOOK: Once = Once::new();

impl TerminalGuard {
    /// # Errors
    /// If stdin or stdout isn't a terminal, or it refuses.
    pub(super) fn enter(has_mouse: bool) -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                restore();
                next(info);
            }));
        });
        let guard = Self { has_mouse };
        guard.take()?;
        Ok(guard)
    }

    /// Gives the terminal back and stops this process with its group, as Ctrl-Z does. Takes it again once the
    /// shell continues them. Where no shell could do that, the kernel does not stop them.
    ///
    /// # Errors
    /// If the terminal refuses.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        kill_current_process_group(Signal::TSTP)?;
        self.take()
    }

    fn take(&self) -> io::Result<()> {
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        if self.has_mouse {
            execute!(io::stdout(), EnableMouseCapture)?;
        }
        Ok(())
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    // A terminal that is gone needs no restoring.
    let _ = execute!(
        io::stdout(),
        DisableMouseCapture,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::{File, OpenOptions},
        io::Read,
        os::unix::ffi::OsStrExt,
        path::Path,
        process::Command,
    };

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::tcgetattr,
    };

    use super::*;

    /// Set in the process that panics.
    const PANIC: &str = "WSMON_PANIC_ON_TERMINAL";

    #[test]
    fn a_panic_restores_the_terminal_before_its_message() {
        if env::var_os(PANIC).is_some() {
            let _guard = TerminalGuard::enter(true).expect("a terminal");
            panic!("on purpose");
        }
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("its permissions");
        unlockpt(&controller).expect("its lock");
        let name = ptsname(&controller, Vec::new()).expect("its name");
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let terminal = OpenOptions::new().read(true).write(true).open(path);
        let terminal = terminal.expect("the other end");
        let settings = || {
            let modes = tcgetattr(&terminal).expect("its settings");
            (modes.input_modes, modes.output_modes, modes.local_modes)
        };
        let before = settings();
        let end = || terminal.try_clone().expect("the same end");
        let this_test =
            "cli::top::terminal_guard::tests::a_panic_restores_the_terminal_before_its_message";
        let status = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", this_test, "--nocapture"])
            .env(PANIC, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .status();
        assert!(!status.expect("a process").success());
        assert_eq!(settings(), before);
        drop(terminal);
        let mut written = Vec::new();
        // It ends with an error, because nobody has the other end any more.
        let _ = File::from(controller).read_to_end(&mut written);
        let written = String::from_utf8_lossy(&written);
        let parts = ["\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h", "on purpose"];
        let places = parts.map(|part| written.find(part));
        assert!(places.iter().all(Option::is_some), "{written:?}");
        assert!(places.is_sorted(), "{written:?}");
    }
}
