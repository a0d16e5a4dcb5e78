//! Known middleboxes: the table in `data/profiles.toml`, and the hops it describes.

use std::{fmt, sync::LazyLock, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use strum::IntoStaticStr;

use monitor_core::{
    Hop, KnownHop,
    hop::{Activity, Directions, OnExpiry},
};

/// A kind of middlebox, with its defaults.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// In lower case, with hyphens; unique.
    pub name: String,
    #[serde(rename(serialize = "idle_timeout_seconds"))]
    pub idle_timeout: Idle,
    /// The range in which the idle timeout can be set; `None` if unknown.
    #[serde(
        default,
        rename(serialize = "range_seconds"),
        serialize_with = "range_seconds"
    )]
    pub range: Option<Range>,
    pub activity: Activity,
    pub direction: Directions,
    /// Whether TCP keepalive probes keep a connection alive.
    pub tcp_keepalive_counts: TriState,
    /// Whether WebSocket pings and pongs keep a connection alive.
    pub ws_ping_counts: TriState,
    pub on_expiry: IdleEnding,
    /// The age at which it closes a connection despite activity; `None` for never.
    #[serde(
        default,
        deserialize_with = "some_duration",
        rename(serialize = "max_lifetime_seconds"),
        serialize_with = "some_seconds"
    )]
    pub max_lifetime: Option<Duration>,
    /// The setting that changes the timeout.
    pub knob: Option<String>,
    /// Anything else worth knowing.
    pub note: Option<String>,
    /// The confidence in all of the above.
    pub confidence: Confidence,
    /// Where the values were read or measured.
    pub source: String,
}

/// The idle time after which it drops a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    After(Duration),
    Never,
    /// The operator sets it; there is no default.
    Yours,
}

/// The minimum and maximum of the idle timeout setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "(Text, Text)")]
pub struct Range {
    pub least: Duration,
    pub greatest: Duration,
}

/// Whether something holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TriState {
    Yes,
    No,
    Unknown,
}

/// What this host's socket sees when the middlebox drops the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum IdleEnding {
    Fin,
    Rst,
    Silent,
    RstOnNextPacket,
    /// Nothing, but the next packet may go to another backend.
    Rehash,
    /// The connection is closed; whether by FIN or RST is unknown.
    CloseUnknown,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    #[error("no profile {name:?}{}; `wsmon profiles` lists them", did_you_mean(near.as_deref()))]
    Unknown { name: String, near: Option<String> },
    #[error(
        "profile {name:?} has no default idle timeout, its operator sets it: give idle_timeout with the value of {}",
        knob.as_deref().unwrap_or("its configuration")
    )]
    NoDefault { name: String, knob: Option<String> },
}

/// Every profile, in the order of the table.
pub fn all() -> &'static [Profile] {
    static TABLE: LazyLock<Vec<Profile>> = LazyLock::new(|| {
        // The table is part of the program; a test parses it.
        let ProfileFile { profile } = toml::from_str(TEXT).expect("data/profiles.toml is valid");
        profile
    });
    &TABLE
}

/// All profiles, as names for a learned timeout or lifetime.
pub fn known_hops() -> Vec<KnownHop> {
    let known = all().iter().map(|profile| KnownHop {
        name: profile.name.clone(),
        idle_timeout: profile.hop().ok().and_then(|hop| hop.idle_timeout),
        max_lifetime: profile.max_lifetime,
    });
    known.collect()
}

/// The profile of this name.
///
/// # Errors
///
/// [`ProfileError::Unknown`], with the name that was probably meant.
pub fn find(name: &str) -> Result<&'static Profile, ProfileError> {
    let profile = all().iter().find(|profile| profile.name == name);
    profile.ok_or_else(|| {
        let names = all().iter().map(|profile| profile.name.as_str());
        ProfileError::Unknown {
            name: name.to_owned(),
            near: nearest(name, names).map(str::to_owned),
        }
    })
}

/// The one of `names` that `wrong` was probably meant to be: it contains `wrong`, or differs in a few
/// letters.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_ascii_lowercase();
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong, name);
    let ranked = names.map(|name| (distance(name), name));
    let ranked = ranked.filter(|(distance, name)| {
        let is_part = wrong.len() >= 3 && name.contains(&wrong);
        is_part || *distance <= (name.len() / 3).max(1)
    });
    Some(ranked.min_by_key(|(distance, _)| *distance)?.1)
}

/// The text that suggests the probable name.
pub fn did_you_mean(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!(" (did you mean {near:?}?)"))
}

impl Profile {
    /// The hop of this profile, with its defaults.
    ///
    /// # Errors
    ///
    /// [`ProfileError::NoDefault`] if the configuration has to give the idle timeout.
    pub fn hop(&self) -> Result<Hop, ProfileError> {
        match self.idle_timeout {
            Idle::After(limit) => Ok(self.hop_with(Some(limit))),
            Idle::Never => Ok(self.hop_with(None)),
            Idle::Yours => Err(ProfileError::NoDefault {
                name: self.name.clone(),
                knob: self.knob.clone(),
            }),
        }
    }

    /// The hop of this profile with another idle timeout; `None` for no timeout.
    pub fn hop_with(&self, idle_timeout: Option<Duration>) -> Hop {
        Hop {
            name: self.name.clone(),
            idle_timeout,
            max_lifetime: self.max_lifetime,
            activity: self.activity,
            direction: self.direction,
            on_expiry: self.on_expiry.seen(),
        }
    }

    /// A warning if, by the profile, this idle timeout cannot be set.
    pub fn doubt(&self, idle_timeout: Duration) -> Option<String> {
        let range = self.range?;
        if (range.least..=range.greatest).contains(&idle_timeout) {
            return None;
        }
        let allowed = if range.least == range.greatest {
            format!("is always {}", Seconds(range.least))
        } else {
            format!(
                "can be {} to {}",
                Seconds(range.least),
                Seconds(range.greatest)
            )
        };
        let name = &self.name;
        Some(format!(
            "the idle timeout of {name} {allowed}; use the value that is set there"
        ))
    }
}

impl IdleEnding {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// In the terms of the rules.
    fn seen(self) -> OnExpiry {
        match self {
            Self::Fin => OnExpiry::Fin,
            Self::Rst => OnExpiry::Rst,
            // The packet reaches another backend or none. This host's socket notices only after it has
            // sent something, and perhaps never.
            Self::Silent | Self::Rehash => OnExpiry::Silent,
            Self::RstOnNextPacket => OnExpiry::RstOnNextPacket,
            // The rules distinguish only whether the connection is closed, not how.
            Self::CloseUnknown => OnExpiry::Fin,
        }
    }
}

impl TriState {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Confidence {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Whole seconds, as the vendors document them.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs())
    }
}

const TEXT: &str = include_str!("../../data/profiles.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    profile: Vec<Profile>,
}

/// A duration in text form.
#[derive(Clone, Copy, Deserialize)]
struct Text(#[serde(deserialize_with = "duration")] Duration);

impl From<(Text, Text)> for Range {
    fn from((least, greatest): (Text, Text)) -> Self {
        Self {
            least: least.0,
            greatest: greatest.0,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(D::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

impl<'de> Deserialize<'de> for Idle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "never" => Ok(Self::Never),
            "yours" => Ok(Self::Yours),
            _ => humantime::parse_duration(&text)
                .map(Self::After)
                .map_err(D::Error::custom),
        }
    }
}

/// Seconds, or the word.
impl Serialize for Idle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::After(limit) => serializer.serialize_u64(limit.as_secs()),
            Self::Never => serializer.serialize_str("never"),
            Self::Yours => serializer.serialize_str("yours"),
        }
    }
}

fn some_seconds<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| value.as_secs()).serialize(serializer)
}

fn range_seconds<S: Serializer>(value: &Option<Range>, serializer: S) -> Result<S::Ok, S::Error> {
    value
        .map(|range| [range.least, range.greatest].map(|end| end.as_secs()))
        .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_profile_is_complete_and_consistent() {
        assert!(all().len() >= 36, "{}", all().len());
        let names: BTreeSet<_> = all().iter().map(|profile| &profile.name).collect();
        assert_eq!(names.len(), all().len(), "a name is there twice");
        for profile in all() {
            let name = &profile.name;
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.chars().all(is_plain), "{name}");
            assert!(!profile.source.is_empty(), "{name}");
            assert!(profile.max_lifetime != Some(Duration::ZERO), "{name}");
            if let Some(range) = profile.range {
                assert!(range.least <= range.greatest, "{name}");
            }
            match profile.idle_timeout {
                Idle::After(limit) => {
                    assert!(!limit.is_zero(), "{name}");
                    assert_eq!(profile.doubt(limit), None, "{name}");
                }
                Idle::Never => {}
                Idle::Yours => assert!(profile.hop().is_err(), "{name}"),
            }
            // A middlebox that counts any packet also counts keepalive probes.
            if profile.activity == Activity::Packet {
                assert_ne!(profile.tcp_keepalive_counts, TriState::No, "{name}");
            } else {
                assert_ne!(profile.tcp_keepalive_counts, TriState::Yes, "{name}");
            }
        }
    }

    #[test]
    fn a_profile_becomes_a_hop() {
        let hop = find("aws-nlb").unwrap().hop().unwrap();
        assert_eq!(hop.name, "aws-nlb");
        assert_eq!(hop.idle_timeout, Some(Duration::from_secs(350)));
        assert_eq!(hop.on_expiry, OnExpiry::RstOnNextPacket);
        let lasting = find("gcp-cloud-run").unwrap().hop().unwrap();
        assert_eq!(lasting.idle_timeout, None);
        assert_eq!(lasting.max_lifetime, Some(Duration::from_secs(300)));
        assert_eq!(lasting.on_expiry, OnExpiry::Fin);
        let rehashed = find("gcp-passthrough-nlb-external").unwrap();
        assert!(rehashed.hop().unwrap().on_expiry.leaves_a_zombie());
    }

    #[test]
    fn a_profile_without_a_default_names_what_to_look_up() {
        let error = find("haproxy").unwrap().hop().unwrap_err().to_string();
        assert!(error.contains("\"haproxy\""), "{error}");
        assert!(error.contains("timeout tunnel"), "{error}");
        let limit = Duration::from_secs(3600);
        let hop = find("haproxy").unwrap().hop_with(Some(limit));
        assert_eq!(hop.idle_timeout, Some(limit));
    }

    #[test]
    fn a_wrong_name_suggests_the_nearest_one() {
        for (wrong, near) in [
            ("aws-abl", Some("aws-alb")),
            ("AWS-NLB", Some("aws-nlb")),
            ("nginxx", Some("nginx")),
            ("conntrack", Some("aws-eni-conntrack")),
            ("zzz", None),
            ("", None),
        ] {
            let Err(ProfileError::Unknown { near: found, .. }) = find(wrong) else {
                panic!("{wrong:?} was found");
            };
            assert_eq!(found.as_deref(), near, "{wrong:?}");
        }
    }
}
