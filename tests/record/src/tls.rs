//! Recordings of connections over TLS, some of which die, each with the secrets and the truth.

mod oracle;
mod scenes;
mod truth;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Mutex,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use flate2::{Compression, GzBuilder};
use lab::{Certificate, Lab, Traffic, WssClients, WssConnection, WssServer};

use self::{
    oracle::Decrypted,
    scenes::{SCENES, Scene},
    truth::{Connection, Truth},
};
use crate::capture::{Capture, Tool};

/// The port of the server in all of them.
const PORT: u16 = 8443;

/// Scenes at the same time, each in namespaces of its own.
const AT_ONCE: usize = 4;

/// How long all clients live: several times what it takes to learn a heartbeat.
const ALL_LIVE: Duration = Duration::from_secs(30);

/// How long some are dead then.
const SOME_ARE_DEAD: Duration = Duration::from_secs(30);

/// Connections that stay alive until they end with a close frame.
const LIVING: [Traffic; 8] = [
    Traffic::Idle,
    Traffic::Chat,
    Traffic::Words,
    Traffic::Bursts,
    Traffic::Room,
    Traffic::Room,
    Traffic::Polls,
    Traffic::Ticks,
];

/// Connections whose process is stopped.
const DYING: [Traffic; 5] = [
    Traffic::Idle,
    Traffic::Chat,
    Traffic::Room,
    Traffic::Polls,
    Traffic::Ticks,
];

/// Makes all of them.
///
/// # Errors
/// If the lab cannot be built, a program is missing, or a peer misbehaves.
pub(crate) fn write(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let waiting = Mutex::new(SCENES.iter());
    let next = || waiting.lock().ok()?.next();
    thread::scope(|scope| {
        let workers = [(); AT_ONCE].map(|()| {
            scope.spawn(|| {
                while let Some(scene) = next() {
                    play(scene, folder).with_context(|| scene.name())?;
                }
                Ok(())
            })
        });
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a scene panicked")))
    })
}

fn play(scene: &Scene, folder: &Path) -> Result<()> {
    println!("record   {}", scene.name());
    let lab = Lab::new()?;
    let addr = lab.server_addr(PORT);
    let certificate = Certificate::of(addr.ip())?;
    let every = scene.ping_every;
    let _server = WssServer::start(lab.server_ns(), scene.stack, addr, &certificate, every)?;
    let base = folder.join(scene.name());
    let (recording, key_log) = (base.with_extension("pcap"), base.with_extension("keys"));
    fs::write(&key_log, "")?;
    let capture = Capture::start(lab.server_ns(), "uplink", Tool::Tcpdump, &base)?;
    let connect = |index, traffic: &[Traffic]| {
        let (clients, from) = (lab.client_ns(), lab.client_addr(index));
        let cipher = scene.cipher;
        WssClients::connect(clients, from, addr, &certificate, cipher, traffic, &key_log)
    };
    let mut living = connect(0, &LIVING)?;
    let mut dying = every.map(|_| connect(1, &DYING)).transpose()?;
    thread::sleep(ALL_LIVE);
    let mut stopped_at = None;
    if let Some(dying) = &mut dying {
        dying.stop()?;
        stopped_at = Some(now()?);
        thread::sleep(SOME_ARE_DEAD);
    }
    living.close()?;
    // Before the stopped clients are killed.
    capture.end()?;
    let decrypted = Decrypted::read(&recording, &key_log)?;
    let truth = |clients: &WssClients, stopped_at| {
        let connection = |seen: &WssConnection| Connection {
            client: seen.local,
            traffic: seen.traffic.name().to_owned(),
            stopped_at,
            pings_received: seen.pings,
            pings: decrypted
                .heartbeats(seen.local)
                .iter()
                .map(|ping| (ping.sent, ping.answered))
                .collect(),
        };
        clients.connections().iter().map(connection).collect()
    };
    let mut connections: Vec<_> = truth(&living, None);
    connections.extend(dying.iter().flat_map(|dying| truth(dying, stopped_at)));
    let truth = Truth {
        server: scene.stack.name().to_owned(),
        cipher: scene.cipher.name().to_owned(),
        addr,
        ping_every_ms: every.map(|every| every.as_millis() as u64),
        connections,
    };
    truth.write(&base.with_extension("json"))?;
    compress(&recording)
}

/// Microseconds since 1970, as in the recordings.
fn now() -> Result<u64> {
    let since: Duration = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(since.as_micros() as u64)
}

/// Replaces a file by `FILE.gz`, without its name and time.
fn compress(file: &Path) -> Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".gz");
    let mut packed = GzBuilder::new().write(File::create(name)?, Compression::best());
    io::copy(&mut File::open(file)?, &mut packed)?;
    packed.finish()?;
    fs::remove_file(file)?;
    Ok(())
}

#[cfg(test)]
mod tests;
