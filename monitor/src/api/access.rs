//! Who may read the metrics: TLS, passwords and headers, as the web configuration has them.
//!
//! The file, the certificates and the keys are read again when they have changed, so that a renewed
//! certificate or a new password needs no restart. What cannot be applied changes nothing.

mod basic_auth;
mod tls;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Extension,
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use rustls::ServerConfig;

use crate::config::web_config::{WebConfig, WebConfigError};
use basic_auth::{Attempt, BasicAuth};
use tls::TlsError;

/// The rules of the metrics server.
#[derive(Debug)]
pub struct Access {
    /// `None` without a web configuration: plain HTTP without passwords.
    file: Option<PathBuf>,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    rules: Arc<Rules>,
    /// The files as they were when they were last read.
    files: Vec<(PathBuf, Stamp)>,
    failures: u64,
}

/// How TLS is served; `None` for plain HTTP.
pub(super) type Tls = Option<Arc<ServerConfig>>;

/// What one reading of the files gave.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) tls: Tls,
    auth: Option<Arc<BasicAuth>>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Config(#[from] WebConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Access {
    /// Reads the web configuration and the files that it names.
    ///
    /// # Errors
    ///
    /// If one of them cannot be read or is invalid.
    pub fn open(file: Option<&Path>) -> Result<Self, AccessError> {
        let (rules, files) = match file {
            None => (Rules::default(), Vec::new()),
            Some(file) => {
                let reading = Reading::of(file);
                (reading.rules?, reading.files)
            }
        };
        Ok(Self {
            file: file.map(Path::to_owned),
            current: Mutex::new(Current {
                rules: Arc::new(rules),
                files,
                failures: 0,
            }),
        })
    }

    /// Whether TLS is served.
    pub fn has_tls(&self) -> bool {
        self.rules().tls.is_some()
    }

    /// The rules that hold now. Reads the files again if one of them has changed.
    pub(super) fn rules(&self) -> Arc<Rules> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file
            && has_settled_change(&current.files)
        {
            let reading = Reading::of(file);
            current.files = reading.files;
            match reading.rules {
                Ok(rules) => {
                    current.rules = Arc::new(rules);
                    log::info!("read {} again", file.display());
                }
                Err(error) => {
                    current.failures += 1;
                    log::error!(
                        "{error}. The metrics server keeps the old rules until the file is valid"
                    );
                }
            }
        }
        current.rules.clone()
    }

    /// Changes that could not be applied; `None` without a web configuration.
    pub(super) fn failures(&self) -> Option<u64> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.as_ref().map(|_| current.failures)
    }
}

/// One attempt to read everything.
struct Reading {
    /// Those that are known, each as it was before it was read.
    files: Vec<(PathBuf, Stamp)>,
    rules: Result<Rules, AccessError>,
}

impl Reading {
    fn of(file: &Path) -> Self {
        let mut files = vec![(file.to_owned(), Stamp::of(file))];
        let config = WebConfig::read(file);
        for named in config.iter().flat_map(WebConfig::files) {
            files.push((named.to_owned(), Stamp::of(named)));
        }
        let rules = config.map_err(AccessError::from).and_then(Rules::of);
        Self { files, rules }
    }
}

impl Rules {
    fn of(config: WebConfig) -> Result<Self, AccessError> {
        let headers = config.headers.iter().filter_map(|(name, value)| {
            // The configuration has checked both.
            Some((name.parse().ok()?, value.parse().ok()?))
        });
        Ok(Self {
            headers: headers.collect(),
            tls: match &config.tls {
                Some(settings) => Some(Arc::new(tls::server_config(settings)?)),
                None => None,
            },
            auth: BasicAuth::of(config.users).map(Arc::new),
        })
    }
}

/// Refuses a request without a valid password, and adds the configured headers. The response to a request on a
/// connection with older rules of TLS is its last one.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    Extension(tls): Extension<Tls>,
    request: Request,
    next: Next,
) -> Response {
    let rules = access.rules();
    let attempt = match &rules.auth {
        None => Attempt::Granted,
        Some(auth) => auth.check(request.headers().get(AUTHORIZATION)).await,
    };
    let mut response = match attempt {
        Attempt::Granted => next.run(request).await,
        Attempt::Refused => {
            let realm = [(WWW_AUTHENTICATE, "Basic realm=\"wsmon\", charset=\"UTF-8\"")];
            (StatusCode::UNAUTHORIZED, realm, "unauthorized\n").into_response()
        }
        Attempt::Busy => {
            let busy = "too many passwords to check\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], busy).into_response()
        }
    };
    for (name, value) in &rules.headers {
        response.headers_mut().insert(name, value.clone());
    }
    if !is_same(&tls, &rules.tls) {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    response
}

/// Whether both are of the same reading of the files.
fn is_same(one: &Tls, other: &Tls) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// How long a file must be unchanged before it is read: it may still be written.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

fn has_settled_change(files: &[(PathBuf, Stamp)]) -> bool {
    let now: Vec<_> = files.iter().map(|(path, _)| Stamp::of(path)).collect();
    let changed = files.iter().zip(&now).any(|((_, was), is)| was != is);
    changed && now.iter().all(Stamp::is_settled)
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Missing,
    File {
        device: u64,
        inode: u64,
        size: u64,
        /// Of the content and of the inode, in seconds and nanoseconds since 1970.
        changed: [(i64, i64); 2],
    },
}

impl Stamp {
    fn of(path: &Path) -> Self {
        // Through links: a volume of Kubernetes replaces the link to a folder.
        fs::metadata(path).map_or(Self::Missing, |file| Self::File {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            changed: [
                (file.mtime(), file.mtime_nsec()),
                (file.ctime(), file.ctime_nsec()),
            ],
        })
    }

    fn is_settled(&self) -> bool {
        let Self::File { changed, .. } = self else {
            return true;
        };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        changed.iter().all(|(seconds, nanoseconds)| {
            let seconds = Duration::from_secs(seconds.unsigned_abs());
            let changed = seconds + Duration::from_nanos(nanoseconds.unsigned_abs());
            // A time in the future says nothing.
            now.checked_sub(changed)
                .is_none_or(|age| age >= SETTLED_AFTER)
        })
    }
}

#[cfg(test)]
mod tests;
