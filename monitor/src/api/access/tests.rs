//! Real sockets, TLS and files. Only the daemon is missing.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;

use super::*;
use crate::api::{
    http::{MetricsServer, Serving},
    tls_listener::ClientLimits,
};

mod connections;

const SOON: Duration = Duration::from_secs(15);
/// The lowest: these tests check many passwords.
const COST: u32 = 4;

/// A certificate and its key, in PEM.
struct Identity {
    certificate: String,
    key: String,
}

/// Issues certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A server with a web configuration in its own folder.
struct Bench {
    folder: TempDir,
    addr: SocketAddr,
    authority: Authority,
    access: Arc<Access>,
    _serving: Serving,
}

impl Bench {
    /// The folder has `ca.crt`, `a.crt` and `a.key`.
    fn start(config: &str) -> Self {
        Self::start_with(config, ClientLimits::default())
    }

    fn start_with(config: &str, limits: ClientLimits) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = Authority::new();
        let server = MetricsServer::bind(&["127.0.0.1:0".parse().expect("an address")]);
        let server = server.expect("a port");
        let addr = server.local_addrs().expect("addresses")[0];
        let write = |name: &str, content: &str| {
            fs::write(folder.path().join(name), content).expect("writable");
        };
        let identity = authority.issue();
        write("ca.crt", &authority.certificate);
        write("a.crt", &identity.certificate);
        write("a.key", &identity.key);
        write("web.yml", config);
        let access = Access::open(Some(&folder.path().join("web.yml")));
        let access = Arc::new(access.unwrap_or_else(|error| panic!("{error}")));
        Self {
            addr,
            authority,
            _serving: server
                .start_with(false, access.clone(), limits)
                .expect("a thread"),
            access,
            folder,
        }
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.path().join(name), content).expect("writable");
    }

    /// Makes a change, and waits until a request caused it to be read and refused.
    #[track_caller]
    fn refuse_change(&self, change: impl FnOnce()) {
        let before = self.access.failures();
        change();
        wait_until("a failure", || {
            // With TLS, the server reads the files and then refuses this request.
            let _ = request(&mut self.plain(), "");
            self.access.failures() > before
        });
    }

    fn plain(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        stream
    }

    fn tls(&self, client: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
        tls_over(self.plain(), client)
    }

    /// Trusts the authority.
    fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.builder(versions).with_no_client_auth()
    }

    fn client_with(&self, identity: &Identity) -> ClientConfig {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        self.builder(&[&TLS13])
            .with_client_auth_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
            .expect("a pair")
    }

    fn builder(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(self.authority.certificate.as_bytes());
        roots.add(certificate.expect("PEM")).expect("an authority");
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("known versions")
            .with_root_certificates(roots)
    }
}

fn tls_over(socket: TcpStream, client: ClientConfig) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    let connection = ClientConnection::new(Arc::new(client), name).expect("valid");
    StreamOwned::new(connection, socket)
}

fn basic(credentials: &str) -> String {
    format!(
        "Authorization: Basic {}\r\n",
        BASE64_STANDARD.encode(credentials)
    )
}

/// The head of the response to one request. The connection stays open.
fn request(stream: &mut (impl Read + Write), headers: &str) -> io::Result<String> {
    write!(
        stream,
        "HEAD / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn status(head: &str) -> u16 {
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("{head}"))
}

/// Waits until something that a change of files causes is so.
#[track_caller]
fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    let waited = lab::wait_until(what, SOON, is_so);
    waited.unwrap_or_else(|error| panic!("{error}"));
}

fn users(passwords: &[(&str, &str)]) -> String {
    let lines = passwords.iter().map(|(name, password)| {
        let hash = bcrypt::hash(password, COST).expect("a cost");
        format!("  {name}: {hash}\n")
    });
    format!("basic_auth_users:\n{}", lines.collect::<String>())
}

const TLS: &str = "tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n";

#[test]
fn only_the_right_password_gives_access() {
    let bench = Bench::start(&users(&[
        ("alice", "secret"),
        ("bob", "pässword:with colon"),
    ]));
    let mut stream = bench.plain();
    let refusal = request(&mut stream, "").expect("an answer");
    assert_eq!(status(&refusal), 401);
    assert!(
        refusal.contains("www-authenticate: Basic realm=\"wsmon\""),
        "{refusal}"
    );
    assert!(refusal.contains("x-frame-options: DENY"), "{refusal}");
    for (headers, expected) in [
        (basic("alice:secret"), 200),
        (basic("alice:secret").replace("Basic", "bASIC"), 200),
        (basic("bob:pässword:with colon"), 200),
        (basic("alice:secrets"), 401),
        (basic("alice:"), 401),
        (basic("alice"), 401),
        (basic("alice:pässword:with colon"), 401),
        // The hash of a user is checked for an unknown name too.
        (basic("carol:secret"), 401),
        (basic("carol:pässword:with colon"), 401),
        (basic(":secret"), 401),
        ("Authorization: Basic !\r\n".to_owned(), 401),
        ("Authorization: Basic\r\n".to_owned(), 401),
        ("Authorization: Bearer secret\r\n".to_owned(), 401),
        // It is remembered.
        (basic("alice:secret"), 200),
        (basic("alice:secrets"), 401),
    ] {
        let head = request(&mut stream, &headers).expect("an answer");
        assert_eq!(status(&head), expected, "{headers}");
    }
}

#[test]
fn a_new_password_counts_on_an_open_connection() {
    let bench = Bench::start(&users(&[("alice", "old")]));
    let mut stream = bench.plain();
    let mut status_for = |password: &str| {
        let head = request(&mut stream, &basic(&format!("alice:{password}")));
        status(&head.expect("an answer"))
    };
    assert_eq!((status_for("old"), status_for("new")), (200, 401));
    bench.write("web.yml", &users(&[("alice", "new")]));
    wait_until("the new password", || status_for("new") == 200);
    assert_eq!(status_for("old"), 401);
    // Without its content, the file has no passwords, and may not open the door.
    bench.refuse_change(|| bench.write("web.yml", ""));
    assert_eq!((status_for("new"), status_for("old")), (200, 401));
}

#[test]
fn versions_of_tls_are_those_of_the_file() {
    for (limit, old, new) in [
        ("", true, true),
        ("  min_version: TLS13\n", false, true),
        ("  max_version: TLS12\n", true, false),
    ] {
        let bench = Bench::start(&format!("{TLS}{limit}"));
        for (version, expected) in [(&TLS12, old), (&TLS13, new)] {
            let mut stream = bench.tls(bench.client(&[version]));
            let answer = request(&mut stream, "");
            assert_eq!(answer.is_ok(), expected, "{limit}{version:?}: {answer:?}");
        }
        let plain = request(&mut bench.plain(), "");
        assert!(plain.is_err(), "{plain:?}");
    }
}

#[test]
fn suites_of_tls_1_2_are_those_of_the_file() {
    let suite = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";
    let bench = Bench::start(&format!("{TLS}  cipher_suites: [{suite}]\n"));
    for (version, expected) in [(&TLS12, suite), (&TLS13, "TLS13_AES_256_GCM_SHA384")] {
        let mut stream = bench.tls(bench.client(&[version]));
        request(&mut stream, "").expect("an answer");
        let chosen = stream.conn.negotiated_cipher_suite().expect("connected");
        assert_eq!(format!("{:?}", chosen.suite()), expected);
    }
    bench.write(
        "web.yml",
        &format!("{TLS}  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n"),
    );
    let refused = Access::open(Some(&bench.folder.path().join("web.yml")));
    let refusal = refused.expect_err("unknown").to_string();
    assert!(
        refusal.contains("\"TLS_RSA_WITH_RC4_128_SHA\", expected TLS13_"),
        "{refusal}"
    );
}

#[test]
fn certificates_of_clients_are_verified() {
    let clients = "  client_ca_file: ca.crt\n  client_auth_type: ";
    for (kind, without) in [
        ("RequireAndVerifyClientCert", false),
        ("VerifyClientCertIfGiven", true),
    ] {
        let bench = Bench::start(&format!("{TLS}{clients}{kind}\n"));
        let (known, strange) = (bench.authority.issue(), Authority::new().issue());
        for (client, expected) in [
            (bench.client(&[&TLS13]), without),
            (bench.client_with(&known), true),
            (bench.client_with(&strange), false),
        ] {
            let answer = request(&mut bench.tls(client), "");
            assert_eq!(answer.is_ok(), expected, "{kind}: {answer:?}");
        }
    }
}

#[test]
fn a_renewed_certificate_is_served_and_a_broken_one_changes_nothing() {
    let bench = Bench::start(TLS);
    let served = || {
        let mut stream = bench.tls(bench.client(&[&TLS13]));
        request(&mut stream, "").expect("an answer");
        stream.conn.peer_certificates().expect("one")[0]
            .clone()
            .into_owned()
    };
    let before = served();
    let renewed = bench.authority.issue();
    // The key is still the old one: not a pair.
    bench.refuse_change(|| bench.write("a.crt", &renewed.certificate));
    assert_eq!(served(), before);
    bench.write("a.key", &renewed.key);
    wait_until("the renewed certificate", || served() != before);
    let after = served();
    let path = bench.folder.path().join("a.key");
    bench.refuse_change(|| fs::remove_file(&path).expect("there"));
    assert_eq!(served(), after);
    bench.refuse_change(|| {
        fs::write(&path, &renewed.key).expect("writable");
        bench.write("web.yml", "tls_server_config: {");
    });
    assert_eq!(served(), after);
}

#[test]
fn failures_are_counted_once_for_each_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("web.yml");
    fs::write(&file, "{}").expect("writable");
    let access = Access::open(Some(&file)).expect("valid");
    let failures = || {
        access.rules();
        access.failures().expect("there is a file")
    };
    assert_eq!(failures(), 0);
    fs::write(&file, "wrong: 1").expect("writable");
    assert_eq!(failures(), 0, "it may still be written");
    wait_until("a failure", || failures() == 1);
    assert_eq!((failures(), failures()), (1, 1));
    fs::remove_file(&file).expect("there");
    assert_eq!((failures(), failures()), (2, 2));
    assert_eq!(Access::open(None).expect("no file").failures(), None);
}

#[test]
fn headers_of_the_file_replace_those_of_the_server() {
    let bench = Bench::start(
        "http_server_config:\n  headers:\n    X-Frame-Options: sameorigin\n    \
         Strict-Transport-Security: max-age=1\n",
    );
    let head = request(&mut bench.plain(), "").expect("an answer");
    assert!(head.contains("x-frame-options: sameorigin\r\n"), "{head}");
    assert!(!head.contains("DENY"), "{head}");
    assert!(
        head.contains("strict-transport-security: max-age=1\r\n"),
        "{head}"
    );
    assert!(
        head.contains("x-content-type-options: nosniff\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn only_so_many_passwords_wait() {
    let hashes = [(
        "alice".to_owned(),
        bcrypt::hash("secret", COST).expect("a cost"),
    )];
    let auth = BasicAuth::of(hashes.into()).expect("a user");
    let wrong = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode("alice:x")));
    let wrong = wrong.expect("a header");
    let auth = Arc::new(auth);
    // Nothing is checked yet, so all that may wait do.
    let held = auth.hold_checks().await;
    let attempts = (0..40).map(|_| {
        let (auth, wrong) = (auth.clone(), wrong.clone());
        tokio::spawn(async move { auth.check(Some(&wrong)).await })
    });
    let attempts: Vec<_> = attempts.collect();
    let ended = || attempts.iter().filter(|it| it.is_finished()).count();
    while ended() < 8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended(), 8);
    drop(held);
    let attempts = futures_util::future::join_all(attempts).await;
    let count = |wanted| {
        attempts
            .iter()
            .flatten()
            .filter(|it| **it == wanted)
            .count()
    };
    assert_eq!((count(Attempt::Refused), count(Attempt::Busy)), (32, 8));
    let attempt = auth.check(Some(&wrong)).await;
    assert_eq!(attempt, Attempt::Refused, "there is room again");
}
