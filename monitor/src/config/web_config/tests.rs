use super::*;

/// Of `secret`, at the lowest cost.
const HASH: &str = "$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

fn parsed(text: &str) -> WebConfig {
    WebConfig::parse(text, Path::new("/etc/web"))
        .unwrap_or_else(|problem| panic!("{problem}: {text}"))
}

fn refused(text: &str) -> String {
    let problem = WebConfig::parse(text, Path::new("/etc/web"));
    problem.expect_err(text).to_string()
}

#[test]
fn a_full_file_is_read() {
    let config = parsed(&format!(
        "tls_server_config:
  cert_file: server.crt
  key_file: /run/keys/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
  min_version: TLS13
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
basic_auth_users:
  alice: {HASH}
  'bob smith': \"{HASH}\"
"
    ));
    let tls = config.tls.as_ref().expect("TLS");
    assert_eq!(tls.cert_file, Path::new("/etc/web/server.crt"));
    assert_eq!(tls.key_file, Path::new("/run/keys/server.key"));
    let ca_file = PathBuf::from("/etc/web/ca.crt");
    assert_eq!(tls.clients, ClientCertificates::Required { ca_file });
    assert_eq!(tls.versions, [TlsVersion::Tls13]);
    assert_eq!(tls.cipher_suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
    assert!(!tls.prefers_own_suites);
    assert_eq!(
        config.users.keys().collect::<Vec<_>>(),
        ["alice", "bob smith"]
    );
    assert_eq!(config.users["alice"], HASH);
    let headers: Vec<_> = config.headers.iter().collect();
    assert_eq!(
        headers,
        [(
            &"Strict-Transport-Security".to_owned(),
            &"max-age=31536000".to_owned()
        )]
    );
    assert_eq!(config.files().len(), 3);
}

#[test]
fn every_usable_cost_is_accepted() {
    for cost in 4..=16 {
        let hash = HASH.replace("$04$", &format!("${cost:02}$"));
        let config = parsed(&format!("basic_auth_users:\n  alice: {hash}"));
        assert_eq!(config.users["alice"], hash);
    }
}

#[test]
fn what_is_not_there_has_the_usual_value() {
    assert_eq!(parsed("{}"), WebConfig::default());
    assert_eq!(
        parsed("# nothing\nbasic_auth_users:\n"),
        WebConfig::default()
    );
    let config = parsed("tls_server_config: { cert_file: a, key_file: b }");
    let tls = config.tls.expect("TLS");
    assert_eq!(tls.clients, ClientCertificates::NotRequested);
    assert_eq!(tls.versions, [TlsVersion::Tls12, TlsVersion::Tls13]);
    assert!(tls.prefers_own_suites && tls.cipher_suites.is_empty());
}

#[test]
fn each_problem_has_its_position_and_remedy() {
    let tls = |key: &str| format!("tls_server_config:\n  cert_file: a\n  key_file: b\n  {key}\n");
    for (text, expected) in [
        (
            "",
            "1:1: the file is empty; write {} for plain HTTP without passwords",
        ),
        (
            "tls_server_config:\n  cert_file: a\n",
            "missing key `key_file`",
        ),
        ("basic_auth_user: {}", "1:1: unknown key `basic_auth_user`"),
        (&tls("cert_fil: a"), "4:3: unknown key `cert_fil`"),
        (
            &tls("min_version: TLS11"),
            "4:16: TLS11 is not secure and not supported, expected TLS12 or TLS13",
        ),
        (&tls("max_version: 1.3"), "4:16: unknown version \"1.3\""),
        (
            &tls("max_version: TLS12\n  min_version: TLS13"),
            "4:16: max_version is lower than min_version",
        ),
        (
            &tls("client_auth_type: RequireAnyClientCert"),
            "4:21: RequireAnyClientCert accepts any certificate",
        ),
        (
            &tls("client_auth_type: Require"),
            "4:21: unknown client_auth_type \"Require\"",
        ),
        (
            &tls("client_auth_type: VerifyClientCertIfGiven"),
            "4:21: VerifyClientCertIfGiven needs a client_ca_file",
        ),
        (
            &tls("client_ca_file: ca"),
            "4:19: client_ca_file has no effect without client_auth_type",
        ),
        (
            &tls("curve_preferences: [X25519]"),
            "4:22: wsmon does not support `curve_preferences`; leave it out",
        ),
        (
            &tls("key: |\n    PEM"),
            "wsmon does not support `key`; write key_file",
        ),
        ("http_server_config:\n  http2: maybe", "2:10: "),
        (
            "http_server_config:\n  headers:\n    Server: x",
            "3:13: the header \"Server\" cannot be set",
        ),
        (
            "http_server_config:\n  headers:\n    X-Frame-Options: \"a\\nb\"",
            "is not one line of ASCII",
        ),
        (
            "basic_auth_users:\n  alice: secret",
            "2:10: not a bcrypt hash for \"alice\"",
        ),
        (
            &format!("basic_auth_users:\n  'a:secret': {HASH}"),
            "2:15: a colon follows the name \"a\", which cannot have one in HTTP",
        ),
        (
            &format!("basic_auth_users:\n  a:secret: {HASH}\n  a:secret: {HASH}"),
            "3:3: duplicate key `a`",
        ),
        (
            &format!("a:secret: {HASH}"),
            "1:1: unknown key `a`, expected ",
        ),
        ("basic_auth_users:\n  a:secret", "2:3: "),
        (
            &format!(
                "basic_auth_users:\n  alice: {}",
                HASH.replace("$04$", "$03$")
            ),
            "2:10: the hash for \"alice\" has cost 3, expected 4 to 16",
        ),
        (
            &format!(
                "basic_auth_users:\n  alice: {}",
                HASH.replace("$04$", "$17$")
            ),
            "2:10: the hash for \"alice\" has cost 17, expected 4 to 16",
        ),
        ("basic_auth_users: [", "1:"),
        (
            "basic_auth_users: {}\nbasic_auth_users: {}",
            "2:1: duplicate key `basic_auth_users`",
        ),
    ] {
        let refusal = refused(text);
        assert!(refusal.contains(expected), "{refusal}\n{text}");
        assert!(
            !refusal.contains("secret"),
            "it could be the password: {refusal}"
        );
        assert_eq!(refusal.lines().count(), 1, "{refusal}");
    }
}
