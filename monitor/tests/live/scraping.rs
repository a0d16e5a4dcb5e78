//! A daemon with a web configuration, as curl and Prometheus see it.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{Process, fresh_port, wait_for, wait_until};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::stage::{SOON, WSMON};

const PASSWORD: &str = "secret";
/// As of other daemons in these tests: loading takes long on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Issues certificates for loopback.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    /// Writes `ca.crt`.
    fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // With the default name, which all have, what it issues looks self-signed.
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "an authority for a test");
        let certificate = params.self_signed(&key).unwrap();
        fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        Self(Issuer::new(params, key))
    }

    /// Writes `server.crt` and `server.key`.
    fn issue(&self, folder: &Path) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(folder.join("server.crt"), certificate.pem()).unwrap();
        fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
    }
}

/// What curl printed, or its exit status.
fn curl(folder: &Path, addr: SocketAddr, arguments: &[&str]) -> Result<String, i32> {
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "15", "--cacert"])
        .arg(folder.join("ca.crt"))
        .args(arguments)
        .arg(format!("https://{addr}/metrics"))
        .output()
        .unwrap_or_else(|error| panic!("curl: {error}; `cargo xtask setup` installs it"));
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(output.status.code().unwrap_or_default()),
    }
}

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn curl_and_prometheus_scrape_with_tls_and_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new(folder);
    authority.issue(folder);
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    let web_config = format!(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n  min_version: TLS13\n\
         basic_auth_users:\n  prometheus: {hash}\n"
    );
    let file = folder.join("web.yml");
    fs::write(&file, &web_config).unwrap();
    let checked = Command::new("promtool")
        .args(["check", "web-config"])
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}; `cargo xtask setup` installs it"));
    assert!(
        checked.status.success(),
        "the toolkit refuses it: {checked:?}"
    );

    let addr = SocketAddr::from(([127, 0, 0, 1], fresh_port()));
    let log = folder.join("log");
    let _daemon = Process::spawn(
        Command::new(WSMON)
            .args(["run", "--port", &fresh_port().to_string(), "--control"])
            .arg(folder.join("wsmon.sock"))
            .args(["--metrics-addr", &addr.to_string(), "--web-config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap()),
    )
    .unwrap();
    let log = || fs::read_to_string(&log).unwrap();
    let status = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    let curl = |arguments: &[&str]| curl(folder, addr, arguments);
    let code = |user: &str| curl(&[&status[..], &["--user", user]].concat());
    let right = format!("prometheus:{PASSWORD}");
    wait_until("the first scrape", READY_LIMIT, || {
        code(&right).as_deref() == Ok("200")
    })
    .unwrap_or_else(|error| panic!("{error}: {}", log()));
    assert!(
        log().contains(&format!("metrics at https://{addr}/metrics")),
        "{}",
        log()
    );
    assert_eq!(curl(&status).as_deref(), Ok("401"));
    assert_eq!(code("prometheus:wrong").as_deref(), Ok("401"));
    assert_eq!(code(&format!("admin:{PASSWORD}")).as_deref(), Ok("401"));
    // 35: no handshake.
    assert_eq!(curl(&["--tls-max", "1.2"]), Err(35));

    let user = ["--user", &right];
    let text = curl(&user).unwrap();
    assert!(text.contains("\nwsmon_degraded 0\n"), "{text}");
    assert!(
        text.contains("\nwsmon_web_config_failures_total 0\n"),
        "{text}"
    );
    let openmetrics = [
        "--header",
        "Accept: application/openmetrics-text",
        "--compressed",
    ];
    let text = curl(&[&user[..], &openmetrics].concat()).unwrap();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let sizes = ["--header", "Accept-Encoding: gzip"];
    let size = ["--output", "/dev/null", "--write-out", "%{size_download}"];
    let compressed: usize = curl(&[&user[..], &size, &sizes].concat())
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        compressed < text.len() / 5,
        "{compressed} of {}",
        text.len()
    );

    // The old certificate is forgotten with its authority.
    let renewed = Authority::new(folder);
    renewed.issue(folder);
    wait_until("the renewed certificate", SOON, || curl(&user).is_ok()).unwrap();
    fs::write(&file, web_config.replace("basic_auth_users", "basic_auth")).unwrap();
    wait_until("a failure", SOON, || {
        let text = curl(&user).unwrap();
        text.contains("\nwsmon_web_config_failures_total 1\n")
    })
    .unwrap();
    assert!(
        log().contains("web.yml:5:1: unknown key `basic_auth`"),
        "{}",
        log()
    );

    scrape_with_prometheus(folder, addr);
}

/// Debian's Prometheus scrapes the address, in OpenMetrics.
fn scrape_with_prometheus(folder: &Path, addr: SocketAddr) {
    let config = format!(
        "global: {{ scrape_interval: 1s }}\n\
         scrape_configs:\n\
         - job_name: wsmon\n  \
           scheme: https\n  \
           tls_config: {{ ca_file: ca.crt }}\n  \
           basic_auth: {{ username: prometheus, password: {PASSWORD} }}\n  \
           static_configs: [{{ targets: [\"{addr}\"] }}]\n"
    );
    let file = folder.join("prometheus.yml");
    fs::write(&file, config).unwrap();
    let listening = SocketAddr::from(([127, 0, 0, 1], fresh_port()));
    let _prometheus = Process::spawn(
        Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={listening}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    )
    .unwrap_or_else(|error| panic!("{error}; `cargo xtask setup` installs it"));
    let http: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
    let value = |query: &str| -> Option<f64> {
        let url = format!("http://{listening}/api/v1/query?query={query}");
        let text = http
            .get(url)
            .call()
            .ok()?
            .body_mut()
            .read_to_string()
            .ok()?;
        let reply: Value = serde_json::from_str(&text).ok()?;
        reply
            .pointer("/data/result/0/value/1")?
            .as_str()?
            .parse()
            .ok()
    };
    wait_for("a scrape by Prometheus", SOON, || {
        value("up").filter(|up| *up == 1.0)
    })
    .unwrap();
    // Only OpenMetrics has it.
    let created = value("wsmon_connections_opened_created").expect("it was scraped");
    let started = value("process_start_time_seconds").expect("it was scraped");
    assert!((created - started).abs() < 0.001, "{created} {started}");
    assert_eq!(value("wsmon_degraded"), Some(0.0));
}
