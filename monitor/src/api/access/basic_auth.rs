//! Names and passwords (RFC 7617), checked against bcrypt hashes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderValue;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{hmac, rand::SystemRandom};
use tokio::{sync::Semaphore, task};

/// Passwords that may be checked at the same time: each takes a CPU for about 0.1 s.
const CHECKED_AT_ONCE: usize = 1;
/// Passwords that may wait for that.
const WAITING: usize = 32;

/// The outcome of an attempt to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Granted,
    Refused,
    /// Too many others are being checked.
    Busy,
}

/// The users.
#[derive(Debug)]
pub(super) struct BasicAuth {
    hashes: BTreeMap<String, String>,
    /// The hash that is the most expensive to check. It is checked for an unknown name, which then takes as
    /// long as a wrong password.
    costliest: String,
    /// Of each user, the credentials that were right, so that a scrape does not cost 0.1 s each time.
    verified: Mutex<HashMap<String, hmac::Tag>>,
    /// Random, so the tags of credentials reveal nothing.
    key: hmac::Key,
    waiting: Semaphore,
    checking: Arc<Semaphore>,
}

impl BasicAuth {
    /// `None` without users, when everybody has access.
    pub(super) fn of(hashes: BTreeMap<String, String>) -> Option<Self> {
        let cost = |hash: &&String| {
            let parts = hash.parse::<bcrypt::HashParts>();
            parts.map_or(0, |parts| parts.get_cost())
        };
        let costliest = hashes.values().max_by_key(cost)?.clone();
        Some(Self {
            hashes,
            costliest,
            verified: Mutex::default(),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
                .expect("the kernel has random numbers"),
            waiting: Semaphore::new(WAITING),
            checking: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
        })
    }

    /// Checks the header `Authorization`.
    pub(super) async fn check(&self, header: Option<&HeaderValue>) -> Attempt {
        let Some(credentials) = header.and_then(decoded) else {
            return Attempt::Refused;
        };
        let Some((user, password)) = credentials.split_once(':') else {
            return Attempt::Refused;
        };
        let hash = self.hashes.get(user);
        if hash.is_some() && self.is_verified(user, &credentials) {
            return Attempt::Granted;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Attempt::Busy;
        };
        let Ok(permit) = self.checking.clone().acquire_owned().await else {
            return Attempt::Busy;
        };
        // While this one waited, another request with the same password may have been checked.
        if hash.is_some() && self.is_verified(user, &credentials) {
            return Attempt::Granted;
        }
        let (is_known, hash) = (hash.is_some(), hash.unwrap_or(&self.costliest).clone());
        let password = password.to_owned();
        let checked = task::spawn_blocking(move || {
            // Until the check has ended, even if the client has gone.
            let _permit = permit;
            bcrypt::verify(password, &hash).unwrap_or(false)
        });
        if !checked.await.unwrap_or(false) || !is_known {
            return Attempt::Refused;
        }
        let tag = hmac::sign(&self.key, credentials.as_bytes());
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(user.to_owned(), tag);
        Attempt::Granted
    }

    /// Lets checks wait as long as the permit is held.
    #[cfg(test)]
    pub(super) async fn hold_checks(&self) -> tokio::sync::OwnedSemaphorePermit {
        let permit = self.checking.clone().acquire_owned().await;
        permit.expect("it is never closed")
    }

    fn is_verified(&self, user: &str, credentials: &str) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        // The comparison takes the same time whatever differs.
        verified.get(user).is_some_and(|tag| {
            hmac::verify(&self.key, credentials.as_bytes(), tag.as_ref()).is_ok()
        })
    }
}

/// `name:password`, in UTF-8.
fn decoded(header: &HeaderValue) -> Option<String> {
    let (scheme, encoded) = header.to_str().ok()?.split_once(' ')?;
    let is_basic = scheme.eq_ignore_ascii_case("basic");
    let decoded = is_basic.then(|| BASE64_STANDARD.decode(encoded.trim()));
    String::from_utf8(decoded?.ok()?).ok()
}
