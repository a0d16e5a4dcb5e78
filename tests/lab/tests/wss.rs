//! Each server over TLS does what `testdata/peers/README.md` says, for clients that live and die.

use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

use lab::{
    Certificate, Lab, LabError, TlsCipher, Traffic, WssClients, WssConnection, WssServer, WssStack,
    fresh_port, wait_until,
};

const SOON: Duration = Duration::from_secs(30);

const EVERY: Duration = Duration::from_millis(400);

#[test]
#[ignore = "needs root: network namespaces"]
fn every_server_answers_and_pings_over_every_cipher_it_has() {
    let lab = Lab::new().unwrap();
    let certificate = Certificate::of(lab.server_addr(0).ip()).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let serve = &|stack: WssStack| {
        let addr = lab.server_addr(fresh_port());
        let _server =
            WssServer::start(lab.server_ns(), stack, addr, &certificate, Some(EVERY)).unwrap();
        let mut accepted = Vec::new();
        for cipher in TlsCipher::ALL {
            let key_log = keys
                .path()
                .join(format!("{}-{}", stack.name(), cipher.name()));
            let connected = connect(&lab, addr, &certificate, cipher, &Traffic::ALL, &key_log);
            assert_eq!(
                connected.is_ok(),
                stack.accepts(cipher),
                "{stack:?}: {connected:?}"
            );
            accepted.extend(connected.map(|clients| (cipher, clients, key_log)));
        }
        for (cipher, clients, key_log) in &mut accepted {
            let what = format!("answers and pings of {stack:?} with {cipher:?}");
            wait_until(&what, SOON, || {
                clients
                    .connections()
                    .iter()
                    .all(|client| has_enough(stack, client))
            })
            .unwrap_or_else(|error| panic!("{error}: {:?}", clients.connections()));
            clients.close().unwrap();
            let ended = clients.connections().iter().all(|client| client.is_over);
            assert!(ended, "{stack:?}: {:?}", clients.connections());
            let secrets = fs::read_to_string(key_log).unwrap();
            assert!(secrets.lines().count() >= Traffic::ALL.len(), "{secrets}");
        }
    };
    thread::scope(|scope| {
        for stack in WssStack::ALL {
            scope.spawn(move || serve(stack));
        }
    });
}

/// aiohttp sends no ping on a connection that is busy.
fn has_enough(stack: WssStack, client: &WssConnection) -> bool {
    let is_quiet = client.traffic == Traffic::Idle;
    (client.is_answered || is_quiet)
        && (client.pings >= 2 || (stack == WssStack::Aiohttp && !is_quiet))
}

#[test]
#[ignore = "needs root: network namespaces"]
fn stopped_clients_receive_no_ping_while_others_do() {
    let lab = Lab::new().unwrap();
    let addr = lab.server_addr(fresh_port());
    let certificate = Certificate::of(addr.ip()).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let key_log = keys.path().join("keys");
    let namespace = lab.server_ns();
    let _server =
        WssServer::start(namespace, WssStack::Ws, addr, &certificate, Some(EVERY)).unwrap();
    let traffic = [Traffic::Idle; 20];
    let connect = || {
        connect(
            &lab,
            addr,
            &certificate,
            TlsCipher::Tls13,
            &traffic,
            &key_log,
        )
    };
    let (living, mut dying) = (connect().unwrap(), connect().unwrap());
    let received = |clients: &WssClients| -> Vec<_> {
        clients
            .connections()
            .iter()
            .map(|client| client.pings)
            .collect()
    };
    wait_until("a ping on each connection", SOON, || {
        received(&dying).iter().all(|pings| *pings > 0)
    })
    .unwrap();
    dying.stop().unwrap();
    let (alive, dead) = (received(&living), received(&dying));
    wait_until("two more pings on the living ones", SOON, || {
        received(&living)
            .iter()
            .zip(&alive)
            .all(|(now, then)| *now >= then + 2)
    })
    .unwrap();
    assert_eq!(received(&dying), dead);
    // A stopped process would not report an end, but the kernel of the server knows.
    let established = established_at_server(&lab);
    for client in living.connections().iter().chain(&dying.connections()) {
        let peer = client.local.to_string();
        assert!(established.contains(&peer), "{peer}: {established:?}");
    }
}

/// The peers of the server's connections that neither side has begun to close.
fn established_at_server(lab: &Lab) -> Vec<String> {
    let mut ss = lab.server_ns().command("ss");
    ss.args(["-tnH", "state", "established"]);
    let output = String::from_utf8(ss.output().unwrap().stdout).unwrap();
    let peers = output
        .lines()
        .filter_map(|line| line.split_whitespace().last());
    peers.map(str::to_owned).collect()
}

fn connect(
    lab: &Lab,
    addr: SocketAddr,
    certificate: &Certificate,
    cipher: TlsCipher,
    traffic: &[Traffic],
    key_log: &Path,
) -> Result<WssClients, LabError> {
    fs::File::options()
        .create(true)
        .append(true)
        .open(key_log)
        .unwrap();
    let (namespace, from) = (lab.client_ns(), lab.client_addr(0));
    WssClients::connect(namespace, from, addr, certificate, cipher, traffic, key_log)
}
