use std::{str::FromStr, time::Duration};

use tokio_tungstenite::tungstenite::http::Uri;

/// The server's behaviour on one connection; the client chooses it with the request path.
///
/// | path | the server |
/// |---|---|
/// | `/quiet` | sends nothing and waits in its read |
/// | `/deaf` | never reads, like a hung process, until [`Server::read_on`](crate::Server::read_on) |
/// | `/heartbeat?every=2s` | sends a ping every interval |
/// | `/stream?every=200ms&size=1024` | sends a binary message every interval |
/// | `/echo` | echoes every data message |
///
/// On every other path it reads, and answers pings with pongs and a close frame with a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    Quiet,
    Deaf,
    Heartbeat { every: Duration },
    Stream { every: Duration, size: usize },
    Echo,
}

impl FromStr for Script {
    type Err = String;

    fn from_str(path: &str) -> Result<Self, String> {
        let uri: Uri = path.parse().map_err(|error| format!("{path}: {error}"))?;
        let query = uri.query().unwrap_or_default();
        let parameter = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find_map(|(key, value)| (key == name).then_some(value))
                .ok_or_else(|| format!("{path}: `{name}` is missing"))
        };
        let every = || {
            let every = humantime::parse_duration(parameter("every")?)
                .map_err(|error| format!("{path}: `every`: {error}"))?;
            if every.is_zero() {
                return Err(format!("{path}: `every` is zero"));
            }
            Ok(every)
        };
        let size = || {
            parameter("size")?
                .parse()
                .map_err(|error| format!("{path}: `size`: {error}"))
        };
        match uri.path() {
            "/quiet" => Ok(Self::Quiet),
            "/deaf" => Ok(Self::Deaf),
            "/heartbeat" => Ok(Self::Heartbeat { every: every()? }),
            "/stream" => Ok(Self::Stream {
                every: every()?,
                size: size()?,
            }),
            "/echo" => Ok(Self::Echo),
            other => Err(format!(
                "{other}: not one of /quiet, /deaf, /heartbeat, /stream, /echo"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_choose_the_script() {
        let every = Duration::from_secs(2);
        assert_eq!("/quiet".parse(), Ok(Script::Quiet));
        assert_eq!(
            "/heartbeat?every=2s".parse(),
            Ok(Script::Heartbeat { every })
        );
        assert_eq!(
            "/stream?size=1024&every=2s".parse(),
            Ok(Script::Stream { every, size: 1024 })
        );
    }

    #[test]
    fn a_wrong_path_is_refused_with_the_reason() {
        let complaint = |path: &str| path.parse::<Script>().unwrap_err();
        assert!(complaint("/heartbeat").contains("`every` is missing"));
        assert!(complaint("/heartbeat?every=0s").contains("`every` is zero"));
        assert!(complaint("/stream?every=1s&size=big").contains("`size`"));
        assert!(complaint("/loud").contains("not one of"));
    }
}
