//! permessage-deflate (RFC 7692) in `Sec-WebSocket-Extensions` (RFC 6455 §9.1).

use std::borrow::Cow;

/// permessage-deflate as agreed (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deflate {
    /// The server begins each message with an empty window.
    pub server_no_context_takeover: bool,
    pub client_no_context_takeover: bool,
    /// Base-2 logarithm of the LZ77 window, 8 to 15; `None` = 15.
    pub server_max_window_bits: Option<u8>,
    pub client_max_window_bits: Option<u8>,
}

/// Parameters that are invalid in a response (RFC 7692 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadParameters;

pub(super) fn offers_deflate(values: &[Cow<'_, str>]) -> bool {
    deflates(values).next().is_some()
}

pub(super) fn accepted_deflate(values: &[Cow<'_, str>]) -> Result<Option<Deflate>, BadParameters> {
    let mut accepted = deflates(values);
    let deflate = accepted.next().map(parameters).transpose()?;
    // An extension is accepted once (RFC 6455 §9.1).
    if accepted.next().is_some() {
        return Err(BadParameters);
    }
    Ok(deflate)
}

/// The parameters of each permessage-deflate in the list.
fn deflates<'a>(values: &'a [Cow<'a, str>]) -> impl Iterator<Item = &'a str> {
    let extensions = values.iter().flat_map(|value| value.split(','));
    extensions.filter_map(|extension| {
        let (name, parameters) = extension.split_once(';').unwrap_or((extension, ""));
        (name.trim() == "permessage-deflate").then_some(parameters)
    })
}

fn parameters(text: &str) -> Result<Deflate, BadParameters> {
    let mut deflate = Deflate::default();
    for parameter in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (parameter, None),
        };
        match (name, value) {
            ("server_no_context_takeover", None) => once(&mut deflate.server_no_context_takeover)?,
            ("client_no_context_takeover", None) => once(&mut deflate.client_no_context_takeover)?,
            ("server_max_window_bits", Some(bits)) => {
                window(bits, &mut deflate.server_max_window_bits)?;
            }
            ("client_max_window_bits", Some(bits)) => {
                window(bits, &mut deflate.client_max_window_bits)?;
            }
            _ => return Err(BadParameters),
        }
    }
    Ok(deflate)
}

fn once(flag: &mut bool) -> Result<(), BadParameters> {
    match std::mem::replace(flag, true) {
        true => Err(BadParameters),
        false => Ok(()),
    }
}

fn window(text: &str, bits: &mut Option<u8>) -> Result<(), BadParameters> {
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text);
    let value = match text {
        "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15" => text.parse().ok(),
        _ => None,
    };
    match bits.replace(value.ok_or(BadParameters)?) {
        Some(_) => Err(BadParameters),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &str) -> Result<Option<Deflate>, BadParameters> {
        accepted_deflate(&[Cow::Borrowed(value)])
    }

    #[test]
    fn agreed_parameters_are_read() {
        assert_eq!(accepted(""), Ok(None));
        assert_eq!(accepted("x-webkit-deflate-frame"), Ok(None));
        assert_eq!(accepted("permessage-deflate"), Ok(Some(Deflate::default())));
        assert_eq!(
            accepted(
                "foo, permessage-deflate ; server_no_context_takeover; \
                 client_max_window_bits=\"10\";server_max_window_bits = 15"
            ),
            Ok(Some(Deflate {
                server_no_context_takeover: true,
                client_no_context_takeover: false,
                server_max_window_bits: Some(15),
                client_max_window_bits: Some(10),
            }))
        );
    }

    #[test]
    fn parameters_that_are_invalid_in_a_response_are_refused() {
        for parameters in [
            "client_max_window_bits",
            "client_max_window_bits=7",
            "client_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=8; server_max_window_bits=8",
            "server_no_context_takeover=1",
            "server_no_context_takeover; server_no_context_takeover",
            "unknown",
        ] {
            let value = format!("permessage-deflate; {parameters}");
            assert_eq!(accepted(&value), Err(BadParameters), "{value}");
        }
        let twice = "permessage-deflate, permessage-deflate";
        assert_eq!(accepted(twice), Err(BadParameters));
    }

    #[test]
    fn any_of_several_offers_counts() {
        let offer = "a, permessage-deflate; client_max_window_bits";
        assert!(offers_deflate(&[offer.into()]));
        assert!(offers_deflate(&["a".into(), "permessage-deflate".into()]));
        assert!(!offers_deflate(&["a; permessage-deflate".into()]));
        assert!(!offers_deflate(&[]));
    }
}
