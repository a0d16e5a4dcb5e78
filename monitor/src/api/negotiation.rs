//! Which format of the metrics a scraper gets, and whether it is compressed.

use axum::http::{
    HeaderMap, HeaderName,
    header::{ACCEPT, ACCEPT_ENCODING},
};

use crate::metrics::Format;

/// The format that the headers `Accept` prefer (RFC 9110 §12.5.1). OpenMetrics only if it is named: a
/// wildcard may come from a program that has never heard of it. The text format also if nothing is
/// acceptable.
pub(super) fn format(headers: &HeaderMap) -> Format {
    let (mut openmetrics, mut text) = (0.0_f32, 0.0_f32);
    for range in ranges(headers, ACCEPT) {
        match range.media.as_str() {
            "application/openmetrics-text" if range.fits("1.0.0") => {
                openmetrics = openmetrics.max(range.quality);
            }
            "text/plain" if range.fits("0.0.4") => text = text.max(range.quality),
            _ => {}
        }
    }
    match openmetrics > 0.0 && openmetrics >= text {
        true => Format::OpenMetrics,
        false => Format::Text,
    }
}

/// Whether the headers `Accept-Encoding` allow gzip, and prefer it to no encoding (RFC 9110 §12.5.3).
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, 0.0, 0.0);
    for range in ranges(headers, ACCEPT_ENCODING) {
        match range.media.as_str() {
            "gzip" | "x-gzip" => gzip = Some(range.quality),
            "*" => any = range.quality,
            "identity" => identity = range.quality,
            _ => {}
        }
    }
    let gzip = gzip.unwrap_or(any);
    gzip > 0.0 && gzip >= identity
}

/// The elements of all headers of this name.
fn ranges(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Range<'_>> {
    let values = headers.get_all(name).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(Range::parse)
}

/// One element of `Accept` or `Accept-Encoding`.
struct Range<'a> {
    /// The type or the encoding, in lower case.
    media: String,
    version: Option<&'a str>,
    /// From 0 to 1; 0 if it is invalid.
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut range = Self {
            media: parts.next().unwrap_or_default().to_ascii_lowercase(),
            version: None,
            quality: 1.0,
        };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                "version" => range.version = Some(value),
                "q" | "Q" => {
                    let quality = value.parse().ok();
                    let valid = quality.filter(|quality| (0.0..=1.0).contains(quality));
                    range.quality = valid.unwrap_or(0.0);
                }
                _ => {}
            }
        }
        range
    }

    fn fits(&self, version: &str) -> bool {
        self.version.is_none_or(|wanted| wanted == version)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn chosen(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, HeaderValue::from_static(value));
        }
        format(&headers)
    }

    #[test]
    fn scrapers_that_name_openmetrics_get_it() {
        for accept in [
            // Prometheus 2.42, and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.001",
            "text/plain, application/openmetrics-text; version=1.0.0",
        ] {
            assert_eq!(chosen(&[accept]), Format::OpenMetrics, "{accept}");
        }
        let two = ["text/plain;q=0.5", "application/openmetrics-text;q=0.6"];
        assert_eq!(chosen(&two), Format::OpenMetrics);
    }

    #[test]
    fn all_others_get_the_text_format() {
        for accept in [
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.9",
            "application/openmetrics-text;version=0.0.1, text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=2",
            "application/openmetrics-text;q=",
            "application/openmetrics-text;q=NaN",
            "application/json;q=1",
            ",;=,",
            "",
        ] {
            assert_eq!(chosen(&[accept]), Format::Text, "{accept}");
        }
        assert_eq!(chosen(&[]), Format::Text);
    }
}
