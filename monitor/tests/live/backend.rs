//! A server in a separate process that can be killed: this test program, started once more.

use std::{
    env,
    io::{BufRead, BufReader, Write, stdin},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lab::{Namespace, Process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

/// The address to listen on, and the warm-up time in milliseconds.
const ORDER: &str = "WSMON_LIVE_BACKEND";
/// The test that acts as the server if [`ORDER`] is set.
const SELF: &str = "backend::a_backend_refuses_while_it_warms_up_and_counts_what_it_answers";
const READY: &str = "backend listens";

pub(crate) struct Backend {
    process: Process,
    answers: BufReader<std::process::ChildStdout>,
}

/// Answers of the server since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
}

impl Backend {
    /// Listens on `addr` in the namespace, refuses with 503 for `warm_up`, then accepts.
    pub(crate) fn start(namespace: &Namespace, addr: SocketAddr, warm_up: Duration) -> Self {
        let me = env::current_exe().unwrap();
        Self::spawn(namespace.command(me.to_str().unwrap()), addr, warm_up)
    }

    /// The same in a cgroup, and it accepts at once.
    pub(crate) fn start_in(cgroup: &Path, namespace: &Namespace, addr: SocketAddr) -> Self {
        let me = env::current_exe().unwrap();
        // The namespace's command unmounts the cgroups.
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""])
            .arg(cgroup)
            .args(["ip", "netns", "exec", namespace.name()])
            .arg(me);
        Self::spawn(command, addr, Duration::ZERO)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    fn spawn(mut command: Command, addr: SocketAddr, warm_up: Duration) -> Self {
        command
            .args(["--exact", SELF, "--nocapture"])
            .env(ORDER, format!("{addr} {}", warm_up.as_millis()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).unwrap();
        let answers = BufReader::new(process.child_mut().stdout.take().unwrap());
        let mut backend = Self { process, answers };
        backend.line(READY);
        backend
    }

    /// Its answers so far.
    pub(crate) fn answers(&mut self) -> Answers {
        let stdin = self.process.child_mut().stdin.as_mut().unwrap();
        stdin.write_all(b"\n").unwrap();
        let line = self.line("answered ");
        let mut counts = line.split(' ').map(|count| count.parse().unwrap());
        Answers {
            accepted: counts.next().unwrap(),
            refused: counts.next().unwrap(),
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// The rest of the next line that starts with `beginning`.
    fn line(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some((_, rest)) = line.split_once(beginning) {
                return rest.trim().to_owned();
            }
        }
    }
}

#[test]
fn a_backend_refuses_while_it_warms_up_and_counts_what_it_answers() {
    if let Ok(order) = env::var(ORDER) {
        let (addr, warm_up) = order.split_once(' ').unwrap();
        let warm_up = Duration::from_millis(warm_up.parse().unwrap());
        serve(addr.parse().unwrap(), warm_up);
        return;
    }
    let own = || Command::new(env::current_exe().unwrap());
    let request = |addr: SocketAddr| {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        let head = "GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = String::new();
        BufReader::new(stream).read_line(&mut status).unwrap();
        status
    };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let mut cold = Backend::spawn(own(), addr, Duration::from_secs(3600));
    assert!(request(addr).starts_with("HTTP/1.1 503"));
    assert_eq!((cold.answers().accepted, cold.answers().refused), (0, 1));
    cold.kill();
    let mut warm = Backend::spawn(own(), addr, Duration::ZERO);
    assert!(request(addr).starts_with("HTTP/1.1 101"));
    assert_eq!((warm.answers().accepted, warm.answers().refused), (1, 0));
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    refused: AtomicU64,
}

/// Runs until this process is killed.
fn serve(addr: SocketAddr, warm_up: Duration) {
    let counters = Arc::<Counters>::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let listener = socket.listen(4096).unwrap();
        println!("{READY}");
        let warm = Instant::now() + warm_up;
        let reported = Arc::clone(&counters);
        std::thread::spawn(move || {
            for _ in stdin().lines() {
                let (accepted, refused) = (&reported.accepted, &reported.refused);
                println!(
                    "answered {} {}",
                    accepted.load(Relaxed),
                    refused.load(Relaxed)
                );
            }
            // The process that started this one is gone.
            std::process::exit(0);
        });
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counters = Arc::clone(&counters);
            tokio::spawn(response(stream, warm, counters));
        }
    });
}

async fn response(mut stream: TcpStream, warm: Instant, counters: Arc<Counters>) {
    let mut head = [0; 1024];
    let mut read = 0;
    while !head[..read].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[read..]).await {
            Ok(0) | Err(_) => return,
            Ok(more) => read += more,
        }
    }
    let accepts = Instant::now() >= warm;
    let (text, counter) = match accepts {
        true => (wire::RESPONSE, &counters.accepted),
        false => (UNAVAILABLE, &counters.refused),
    };
    // Before the answer leaves: its reader may query the count at once.
    counter.fetch_add(1, Relaxed);
    if stream.write_all(text).await.is_err() {
        counter.fetch_sub(1, Relaxed);
    }
    while accepts && stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
}

const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\
    Connection: close\r\n\r\n";
