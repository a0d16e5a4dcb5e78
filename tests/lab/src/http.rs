//! HTTP requests to a daemon.

use std::{net::SocketAddr, time::Duration};

use crate::LabError;

/// An emulated guest on a busy machine takes seconds to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that sends requests without a proxy, and keeps its connections.
#[derive(Debug)]
pub struct HttpClient(ureq::Agent);

impl Default for HttpClient {
    fn default() -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .proxy(None);
        Self(config.build().into())
    }
}

impl HttpClient {
    /// The body of a successful response.
    ///
    /// # Errors
    /// [`LabError::Scrape`] without a response, or with a status of 400 and above.
    pub fn get(&self, addr: SocketAddr, path: &str) -> Result<String, LabError> {
        let url = format!("http://{addr}{path}");
        self.0
            .get(&url)
            .call()
            .and_then(|mut response| response.body_mut().read_to_string())
            .map_err(|source| LabError::Scrape {
                url,
                source: Box::new(source),
            })
    }
}
