//! The check of a web configuration, before the start.

use std::{fs, path::Path};

use rcgen::generate_simple_self_signed;
use tempfile::TempDir;

use crate::{USAGE, refusal, wsmon};

/// Two certificates with their keys, and the text of a web configuration.
fn folder(web_config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = |end: &str| folder.path().join(format!("{name}.{end}"));
        fs::write(path("crt"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    }
    fs::write(folder.path().join("web.yml"), web_config).unwrap();
    folder
}

/// The refusal of the web configuration, which is the same by its flag and by the key of a file. The latter is
/// explained nevertheless.
fn refused(folder: &Path) -> String {
    let web_config = folder.join("web.yml");
    let web_config = web_config.to_str().unwrap();
    let by_flag = refusal(&["config", "check", "--web-config", web_config], USAGE);
    let file = folder.join("wsmon.toml");
    let text = format!("[daemon]\nweb_config = {web_config:?}\n[[listener]]\nports = [\"80\"]\n");
    fs::write(&file, text).unwrap();
    let (explained, by_key) = checked(&[file.to_str().unwrap()]);
    assert!(explained.contains("local port 80"), "{explained}");
    assert_eq!(format!("{by_flag}\n"), by_key);
    let flags = ["--config", file.to_str().unwrap(), "--control", "none"];
    let start = refusal(&[&["run"], &flags[..]].concat(), USAGE);
    assert_eq!(by_flag, start, "as at the start");
    by_flag.replace(folder.to_str().unwrap(), "")
}

/// What the check of invalid files prints to stdout and stderr.
fn checked(args: &[&str]) -> (String, String) {
    let output = wsmon(&[&["config", "check"], args].concat());
    assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
    (stdout.unwrap(), stderr.unwrap())
}

const TLS: &str = "tls_server_config: { cert_file: a.crt, key_file: a.key }\n";

#[test]
fn a_wrong_web_configuration_is_refused_as_at_the_start() {
    for (text, refusal) in [
        (
            "basic_auth_user: {}\n",
            "/web.yml:1:1: unknown key `basic_auth_user`",
        ),
        (
            "basic_auth_users:\n  alice: secret\n",
            "/web.yml:2:10: not a bcrypt hash for \"alice\"",
        ),
        (
            &TLS.replace("a.crt", "c.crt"),
            "cannot read /c.crt: No such file",
        ),
        (&TLS.replace("a.crt", "a.key"), "no certificate in /a.key"),
        (
            &TLS.replace("a.key", "b.key"),
            "cannot use the certificate /a.crt with the key /b.key",
        ),
    ] {
        let folder = folder(text);
        let line = refused(folder.path());
        assert!(line.contains(refusal), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn an_invalid_file_does_not_hide_the_web_configuration() {
    let folder = folder(TLS);
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, valid, missing) = (path("wsmon.toml"), path("web.yml"), path("none.yml"));
    fs::write(&file, "[daemon]\nmax_workloads = 0\n").unwrap();
    let (stdout, stderr) = checked(&[&file, "--web-config", &valid]);
    assert_eq!(stdout, format!("{valid} is valid\n"));
    assert!(stderr.contains(&format!("{file}:2:17: ")), "{stderr}");
    let (stdout, stderr) = checked(&[&file, "--web-config", &missing]);
    assert_eq!(stdout, "");
    for error in [
        &format!("{file}:2:17: "),
        &format!("wsmon: cannot read {missing}: "),
    ] {
        assert!(stderr.contains(error.as_str()), "{stderr}");
    }
}

#[test]
fn a_valid_web_configuration_passes_alone_and_with_a_file() {
    let folder = folder(TLS);
    let web_config = folder.path().join("web.yml");
    let web_config = web_config.to_str().unwrap();
    let file = folder.path().join("wsmon.toml");
    fs::write(&file, "[[listener]]\nports = [\"80\"]\n").unwrap();
    let file = file.to_str().unwrap();
    let valid = format!("{web_config} is valid\n");
    for files in [&[][..], &[file]] {
        let output = wsmon(&[&["config", "check", "--web-config", web_config], files].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&valid), "{text}");
        assert_eq!(text.contains("local port 80"), !files.is_empty(), "{text}");
    }
    let neither = wsmon(&["config", "check"]);
    assert_eq!(neither.status.code(), Some(USAGE), "{neither:?}");
}
