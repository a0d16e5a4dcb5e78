//! The kinds of alerts, for filters.

use std::{fmt, str::FromStr};

use crate::config::profiles::{did_you_mean, nearest};
use monitor_core::VerdictKind;

/// A value that the field `alert` or the field `kind` of an alert can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertKind(&'static str);

/// The values that are not kinds of verdicts.
const OTHERS: [&str; 6] = [
    "zombie",
    "at_risk",
    "limit_mismatch",
    "lifetime_mismatch",
    "reconnect_storm",
    "thrash",
];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid kind {wrong:?}{near}, expected {names}",
    near = did_you_mean(nearest(.wrong, AlertKind::names())),
    names = AlertKind::names().collect::<Vec<_>>().join(", ")
)]
pub struct InvalidAlertKind {
    wrong: String,
}

impl AlertKind {
    fn names() -> impl Iterator<Item = &'static str> {
        let verdicts = VerdictKind::ALL.iter().map(|kind| kind.as_str());
        OTHERS.into_iter().chain(verdicts)
    }

    /// Whether an alert with these fields is of this kind.
    pub fn is_kind_of(self, alert: &str, kind: &str) -> bool {
        self.0 == alert || self.0 == kind
    }
}

impl FromStr for AlertKind {
    type Err = InvalidAlertKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::names().find(|name| *name == text);
        known.map(Self).ok_or_else(|| InvalidAlertKind {
            wrong: text.to_owned(),
        })
    }
}

impl fmt::Display for AlertKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::records::alert::tests::{alert, storm};
    use monitor_core::{ListenerFinding, Subject, storm::Thrash};

    #[test]
    fn every_alert_has_a_kind_that_can_be_chosen() {
        let connections = VerdictKind::ALL.iter().map(|kind| {
            let mut verdict = alert().subject;
            verdict.kind = *kind;
            Subject::Connection(verdict)
        });
        let limit = Duration::from_secs(60);
        let findings = [
            ListenerFinding::AtRisk { gap: limit, limit },
            ListenerFinding::LimitMismatch {
                limit: None,
                survived: None,
                killed: None,
            },
            ListenerFinding::LifetimeMismatch {
                limit: None,
                age: limit,
                deaths: 1,
            },
        ];
        let storms = [
            Subject::Storm(Box::new(storm())),
            Subject::Thrash(Thrash {
                clients: 1,
                examples: Vec::new(),
            }),
        ];
        let subjects = connections
            .chain(findings.map(Subject::Listener))
            .chain(storms);
        for subject in subjects {
            let (alert, kind) = (subject.name(), subject.kind());
            for name in [alert, kind] {
                let chosen: AlertKind = name.parse().expect(name);
                assert!(chosen.is_kind_of(alert, kind), "{name}");
                assert_eq!(chosen.to_string(), name);
            }
        }
    }

    #[test]
    fn an_unknown_kind_is_refused_with_all_kinds() {
        let error = "dead"
            .parse::<AlertKind>()
            .expect_err("unknown")
            .to_string();
        assert!(
            error.starts_with("invalid kind \"dead\", expected zombie, at_risk, "),
            "{error}"
        );
        assert!(error.ends_with("expiring, quiet"), "{error}");
        let error = "expird".parse::<AlertKind>().expect_err("unknown");
        let error = error.to_string();
        let beginning = "invalid kind \"expird\" (did you mean \"expired\"?), expected zombie, ";
        assert!(error.starts_with(beginning), "{error}");
    }
}
