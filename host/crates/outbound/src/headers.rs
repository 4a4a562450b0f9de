//! Headers that are between two ends of a connection, and the limits of the others.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;

use crate::config::Limits;
use crate::error::OutboundError;
use crate::target::Target;

/// RFC 9110, section 7.6.1, and what else says something about this connection alone.
const OF_THE_CONNECTION: [HeaderName; 10] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Takes out what belongs to a connection: these, and those that `Connection` names.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_THE_CONNECTION) {
        headers.remove(name);
    }
}

/// Makes the caller's headers those of a request over a connection of its own: `Host` and the length of the body are what they
/// are, whatever the caller wrote.
pub(crate) fn prepare(
    headers: &mut HeaderMap,
    target: &Target,
    body: &SizeHint,
) -> Result<(), OutboundError> {
    strip(headers);
    headers.remove(header::EXPECT);
    let host = HeaderValue::try_from(target.authority())
        .map_err(|_| OutboundError::InvalidUrl { reason: "its host is not valid" })?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if !headers.contains_key(header::USER_AGENT) {
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("ringfence/", env!("CARGO_PKG_VERSION"))),
        );
    }
    // A streamed body may have said its length; hyper holds it to that. Anything else than one number is taken out, and
    // the body goes in chunks.
    let said = headers.get_all(header::CONTENT_LENGTH).iter().map(number).collect::<Vec<_>>();
    let exact = body.exact();
    if exact.is_some() || !matches!(said.as_slice(), [Some(_)]) {
        headers.remove(header::CONTENT_LENGTH);
    }
    Ok(())
}

/// `1*DIGIT`, and nothing that only looks like it to a lenient reader.
fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whether the headers, as the caller wrote them, may be sent.
pub(crate) fn bound(target_bytes: usize, headers: &HeaderMap, limits: &Limits) -> Result<(), OutboundError> {
    // ": " and CR LF.
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let bytes = target_bytes + headers.iter().map(line).sum::<usize>();
    if bytes > limits.request_header_bytes || headers.len() > limits.headers {
        return Err(OutboundError::RequestHeadersTooLarge {
            max_bytes: limits.request_header_bytes,
            max_count: limits.headers,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(lines: &[(&'static str, &'static str)], body: &SizeHint) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let target = Target::of(&"http://a.test:81/".parse().unwrap()).unwrap();
        prepare(&mut headers, &target, body).unwrap();
        let mut lines: Vec<String> = headers
            .iter()
            .filter(|(name, _)| *name != header::USER_AGENT)
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn what_belongs_to_the_connection_is_ours() {
        let lines = [
            ("host", "internal.test"),
            ("connection", "x-secret, Upgrade"),
            ("x-secret", "1"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-connection", "keep-alive"),
            ("keep-alive", "timeout=600"),
            ("expect", "100-continue"),
            ("content-length", "7"),
            ("accept", "*/*"),
        ];
        assert_eq!(
            prepared(&lines, &SizeHint::with_exact(3)),
            ["accept: */*", "connection: close", "host: a.test:81"]
        );
    }

    #[test]
    fn a_streamed_body_says_its_length_once_or_not_at_all() {
        let kept = |lines: &[(&'static str, &'static str)]| {
            prepared(lines, &SizeHint::new()).iter().filter(|line| line.starts_with("content-length")).count()
        };
        assert_eq!(kept(&[("content-length", "7")]), 1);
        assert_eq!(kept(&[("content-length", "7"), ("content-length", "7")]), 0);
        assert_eq!(kept(&[("content-length", "+7")]), 0);
        assert_eq!(kept(&[("content-length", "7, 8")]), 0);
        assert_eq!(kept(&[("content-length", "")]), 0);
    }
}
