//! The web configuration file, which Prometheus and its exporters share: TLS, passwords and headers of
//! the metrics server.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::{DefaultMessageFormatter, Error, Location, MessageFormatter, Spanned};

use super::problem::{Problem, explained};

/// The content of a valid file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// `None` for plain HTTP.
    pub tls: Option<TlsSettings>,
    /// The bcrypt hash of each user's password; empty if nobody needs one.
    pub users: BTreeMap<String, String>,
    /// Headers of each response, by their names.
    pub headers: BTreeMap<String, String>,
}

/// How TLS is served. Relative paths are already those from the current directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub clients: ClientCertificates,
    /// At least one.
    pub versions: Vec<TlsVersion>,
    /// Names of suites of TLS 1.2; empty for the usual ones.
    pub cipher_suites: Vec<String>,
    /// Whether the server's order of suites counts, and not the client's.
    pub prefers_own_suites: bool,
}

/// What a client must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    NotRequested,
    /// A certificate of this authority, if it has one.
    Optional {
        ca_file: PathBuf,
    },
    /// A certificate of this authority.
    Required {
        ca_file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

#[derive(Debug, thiserror::Error)]
pub enum WebConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}:{problem}", path.display())]
    Wrong { path: PathBuf, problem: Problem },
}

impl WebConfig {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or the first problem in it.
    pub fn read(path: &Path) -> Result<Self, WebConfigError> {
        let text = fs::read_to_string(path).map_err(|source| WebConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|problem| WebConfigError::Wrong {
            path: path.to_owned(),
            problem,
        })
    }

    /// Parses the text of a file in this folder.
    ///
    /// # Errors
    ///
    /// The first problem.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Problem> {
        // It may have lost its content, and with it the passwords.
        if text.trim().is_empty() {
            let message = "the file is empty; write {} for plain HTTP without passwords";
            return Err(Problem::new(text, 0..0, message));
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| of_yaml(text, &error))?;
        let refuse = |at: Location, message: String| problem_at(text, at, message);
        let http = file.http_server_config.unwrap_or_default();
        Ok(Self {
            tls: match file.tls_server_config {
                Some(table) => Some(table.settings(folder, refuse)?),
                None => None,
            },
            users: users(file.basic_auth_users.unwrap_or_default(), refuse)?,
            headers: headers(http.headers.unwrap_or_default(), refuse)?,
        })
    }

    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let Some(tls) = &self.tls else {
            return Vec::new();
        };
        let ca_file = match &tls.clients {
            ClientCertificates::NotRequested => None,
            ClientCertificates::Optional { ca_file } | ClientCertificates::Required { ca_file } => {
                Some(ca_file)
            }
        };
        let files = [&tls.cert_file, &tls.key_file].into_iter().chain(ca_file);
        files.map(PathBuf::as_path).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    tls_server_config: Option<TlsTable>,
    http_server_config: Option<HttpTable>,
    basic_auth_users: Option<BTreeMap<String, Spanned<String>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HttpTable {
    /// Whether clients may use HTTP/2. This server has HTTP/1.1 only, which every client may use.
    #[serde(rename = "http2")]
    _http2: Option<bool>,
    headers: Option<BTreeMap<String, Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsTable {
    cert_file: Spanned<PathBuf>,
    key_file: Spanned<PathBuf>,
    client_auth_type: Option<Spanned<String>>,
    client_ca_file: Option<Spanned<PathBuf>>,
    min_version: Option<Spanned<String>>,
    max_version: Option<Spanned<String>>,
    cipher_suites: Option<Vec<Spanned<String>>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Spanned<IgnoredAny>>,
    client_allowed_sans: Option<Spanned<IgnoredAny>>,
    cert: Option<Spanned<IgnoredAny>>,
    key: Option<Spanned<IgnoredAny>>,
    client_ca: Option<Spanned<IgnoredAny>>,
}

impl TlsTable {
    fn settings(
        self,
        folder: &Path,
        refuse: impl Fn(Location, String) -> Problem,
    ) -> Result<TlsSettings, Problem> {
        let unsupported = [
            ("curve_preferences", self.curve_preferences, "leave it out"),
            (
                "client_allowed_sans",
                self.client_allowed_sans,
                "leave it out",
            ),
            ("cert", self.cert, "write cert_file"),
            ("key", self.key, "write key_file"),
            ("client_ca", self.client_ca, "write client_ca_file"),
        ];
        for (key, value, remedy) in unsupported {
            if let Some(value) = value {
                let message = format!("wsmon does not support `{key}`; {remedy}");
                return Err(refuse(value.referenced, message));
            }
        }
        let version = |given: Option<Spanned<String>>, default| match given {
            None => Ok(default),
            Some(given) => match given.value.as_str() {
                "TLS12" => Ok(TlsVersion::Tls12),
                "TLS13" => Ok(TlsVersion::Tls13),
                old @ ("TLS10" | "TLS11") => Err(refuse(
                    given.referenced,
                    format!("{old} is not secure and not supported, expected TLS12 or TLS13"),
                )),
                other => Err(refuse(
                    given.referenced,
                    format!("unknown version {other:?}, expected TLS12 or TLS13"),
                )),
            },
        };
        let max_at = self.max_version.as_ref().map(|given| given.referenced);
        let min = version(self.min_version, TlsVersion::Tls12)?;
        let max = version(self.max_version, TlsVersion::Tls13)?;
        if let Some(at) = max_at.filter(|_| max < min) {
            return Err(refuse(
                at,
                "max_version is lower than min_version".to_owned(),
            ));
        }
        let suites = self.cipher_suites.unwrap_or_default();
        Ok(TlsSettings {
            cert_file: folder.join(self.cert_file.value),
            key_file: folder.join(self.key_file.value),
            clients: clients(self.client_auth_type, self.client_ca_file, folder, &refuse)?,
            versions: [TlsVersion::Tls12, TlsVersion::Tls13]
                .into_iter()
                .filter(|version| (min..=max).contains(version))
                .collect(),
            cipher_suites: suites.into_iter().map(|suite| suite.value).collect(),
            prefers_own_suites: self.prefer_server_cipher_suites.unwrap_or(true),
        })
    }
}

fn clients(
    kind: Option<Spanned<String>>,
    ca_file: Option<Spanned<PathBuf>>,
    folder: &Path,
    refuse: &impl Fn(Location, String) -> Problem,
) -> Result<ClientCertificates, Problem> {
    const VERIFIED: &str = "RequireAndVerifyClientCert";
    const IF_GIVEN: &str = "VerifyClientCertIfGiven";
    let Some(kind) = kind.filter(|kind| !["", "NoClientCert"].contains(&kind.value.as_str()))
    else {
        return match ca_file {
            None => Ok(ClientCertificates::NotRequested),
            Some(file) => Err(refuse(
                file.referenced,
                format!("client_ca_file has no effect without client_auth_type: {VERIFIED}"),
            )),
        };
    };
    match kind.value.as_str() {
        VERIFIED | IF_GIVEN => {}
        unverified @ ("RequestClientCert" | "RequireAnyClientCert") => {
            return Err(refuse(
                kind.referenced,
                format!(
                    "{unverified} accepts any certificate and so protects nothing, expected {VERIFIED}"
                ),
            ));
        }
        other => {
            return Err(refuse(
                kind.referenced,
                format!(
                    "unknown client_auth_type {other:?}, expected {VERIFIED}, {IF_GIVEN} or NoClientCert"
                ),
            ));
        }
    }
    let Some(ca_file) = ca_file else {
        return Err(refuse(
            kind.referenced,
            format!("{} needs a client_ca_file", kind.value),
        ));
    };
    let ca_file = folder.join(ca_file.value);
    Ok(match kind.value == VERIFIED {
        true => ClientCertificates::Required { ca_file },
        false => ClientCertificates::Optional { ca_file },
    })
}

/// Costs of a bcrypt hash: from the lowest that bcrypt has to some seconds for a check.
const COSTS: RangeInclusive<u32> = 4..=16;

fn users(
    given: BTreeMap<String, Spanned<String>>,
    refuse: impl Fn(Location, String) -> Problem,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut users = BTreeMap::new();
    for (user, hash) in given {
        if user.contains(':') {
            let name = before_colon(&user);
            let message =
                format!("a colon follows the name {name:?}, which cannot have one in HTTP");
            return Err(refuse(hash.referenced, message));
        }
        // Not with the text: if it isn't a hash, it may be the password.
        let parts = hash.value.parse::<bcrypt::HashParts>().map_err(|_| {
            let message = format!(
                "not a bcrypt hash for {user:?}; `htpasswd -nBC 10 \"\"` makes one, behind the colon"
            );
            refuse(hash.referenced, message)
        })?;
        let cost = parts.get_cost();
        if !COSTS.contains(&cost) {
            let message = format!(
                "the hash for {user:?} has cost {cost}, expected {} to {}; each step doubles the time \
                 of a check",
                COSTS.start(),
                COSTS.end(),
            );
            return Err(refuse(hash.referenced, message));
        }
        users.insert(user, hash.value);
    }
    Ok(users)
}

/// The headers that the format allows.
const HEADERS: [&str; 5] = [
    "Strict-Transport-Security",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "X-XSS-Protection",
    "Content-Security-Policy",
];

fn headers(
    given: BTreeMap<String, Spanned<String>>,
    refuse: impl Fn(Location, String) -> Problem,
) -> Result<BTreeMap<String, String>, Problem> {
    let mut headers = BTreeMap::new();
    for (name, value) in given {
        if !HEADERS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&name))
        {
            let message = format!(
                "the header {name:?} cannot be set, expected {}",
                HEADERS.join(", ")
            );
            return Err(refuse(value.referenced, message));
        }
        if value
            .value
            .contains(|c: char| !c.is_ascii() || c.is_ascii_control())
        {
            let message = format!("the value of {name:?} is not one line of ASCII");
            return Err(refuse(value.referenced, message));
        }
        headers.insert(name, value.value);
    }
    Ok(headers)
}

/// A problem found by the parser, without the text around it, which may have a password.
fn of_yaml(text: &str, error: &Error) -> Problem {
    let message = match error.without_snippet() {
        Error::SerdeUnknownField {
            field, expected, ..
        } => {
            let expected: Vec<_> = expected.iter().map(|key| format!("`{key}`")).collect();
            let field = before_colon(field);
            format!("unknown field `{field}`, expected {}", expected.join(", "))
        }
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("duplicate field `{}`", before_colon(key))
        }
        error => DefaultMessageFormatter.format_message(error).into_owned(),
    };
    let message = explained(&message).replace(char::is_control, " ");
    problem_at(text, error.location().unwrap_or(Location::UNKNOWN), message)
}

/// A key without what follows its colon, which may be a password.
fn before_colon(key: &str) -> &str {
    key.split_once(':').map_or(key, |(name, _)| name)
}

fn problem_at(text: &str, at: Location, message: String) -> Problem {
    let line = usize::try_from(at.line()).unwrap_or(1).max(1);
    let column = usize::try_from(at.column()).unwrap_or(1).max(1);
    let before: usize = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    let rest = text[before..].char_indices();
    let inside = rest.map(|(index, _)| index).nth(column - 1);
    let start = inside.map_or(text.len(), |inside| before + inside);
    Problem::new(text, start..start, message)
}

#[cfg(test)]
mod tests;
