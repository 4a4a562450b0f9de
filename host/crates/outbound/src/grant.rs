//! Which hosts somebody may send requests to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Host;

use crate::error::OutboundError;
use crate::target::{Scheme, Target, normal};

/// Hosts by pattern: `[scheme://]host[:port]`.
///
/// - `host` is a name (`api.example.com`), all names below one (`*.example.com`: `a.example.com` and `b.a.example.com`,
///   not `example.com` itself), an address (`192.0.2.1`, `[2001:db8::1]`), or `*` for every host.
/// - Without a scheme both `http` and `https` are meant.
/// - Without a port the scheme's own is meant (80, 443); `:*` means every port.
///
/// Names are compared in their normal form: in lower case, in ASCII (IDNA), without a dot at the end. What a grant opens is
/// still subject to the [`AddressPolicy`](crate::AddressPolicy): a grant never opens an internal network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern {
    scheme: Option<Scheme>,
    host: HostMatch,
    port: PortMatch,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostMatch {
    Every,
    /// Everything that ends in a dot and this name.
    Below(String),
    Exactly(Host<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortMatch {
    /// The scheme's own.
    Default,
    Exactly(u16),
    Every,
}

/// A text that is no host pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host pattern such as `api.example.com`, `*.example.com`, `https://example.com:8443` or `*`"
)]
pub struct InvalidHostPattern(String);

impl HostPattern {
    fn matches(&self, target: &Target) -> bool {
        let port = match self.port {
            PortMatch::Default => target.port == target.scheme.default_port(),
            PortMatch::Exactly(port) => target.port == port,
            PortMatch::Every => true,
        };
        let host = match (&self.host, &target.host) {
            (HostMatch::Every, _) => true,
            (HostMatch::Below(parent), Host::Domain(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|front| front.len() > 1 && front.ends_with('.')),
            (HostMatch::Below(_), Host::Ipv4(_) | Host::Ipv6(_)) => false,
            (HostMatch::Exactly(host), given) => host == given,
        };
        port && host && self.scheme.is_none_or(|scheme| scheme == target.scheme)
    }
}

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidHostPattern(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<HostPattern> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(Scheme::Https), rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(Scheme::Http), rest),
        Some(_) => return None,
        None => (None, text),
    };
    // A colon inside of brackets belongs to the address.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let port = match port {
        None => PortMatch::Default,
        Some("*") => PortMatch::Every,
        Some(port) => PortMatch::Exactly(port.parse().ok().filter(|port| *port != 0)?),
    };
    Some(HostPattern { scheme, host: parse_host(host)?, port })
}

fn parse_host(text: &str) -> Option<HostMatch> {
    if text == "*" {
        return Some(HostMatch::Every);
    }
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains(['*', '%', '@', '/', '\\', ' ']) {
        return None;
    }
    match (below, normal(Host::parse(name).ok()?)?) {
        (true, Host::Domain(name)) => Some(HostMatch::Below(name)),
        (true, Host::Ipv4(_) | Host::Ipv6(_)) => None,
        (false, host) => Some(HostMatch::Exactly(host)),
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = self.scheme {
            write!(f, "{}://", scheme.word())?;
        }
        match &self.host {
            HostMatch::Every => f.write_str("*")?,
            HostMatch::Below(name) => write!(f, "*.{name}")?,
            HostMatch::Exactly(host) => write!(f, "{host}")?,
        }
        match self.port {
            PortMatch::Default => Ok(()),
            PortMatch::Exactly(port) => write!(f, ":{port}"),
            PortMatch::Every => f.write_str(":*"),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHostPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

/// The hosts that were granted. By default none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllowedHosts(Vec<HostPattern>);

impl AllowedHosts {
    /// Those that one of the patterns has.
    pub fn new(patterns: Vec<HostPattern>) -> Self {
        Self(patterns)
    }

    /// Every host on every port: for what the host itself asks, where the address policy alone decides.
    pub fn every() -> Self {
        Self(vec![HostPattern { scheme: None, host: HostMatch::Every, port: PortMatch::Every }])
    }

    /// The patterns, in the order in which they were given.
    pub fn patterns(&self) -> &[HostPattern] {
        &self.0
    }

    pub(crate) fn permit(&self, target: &Target) -> Result<(), OutboundError> {
        if self.0.iter().any(|pattern| pattern.matches(target)) {
            Ok(())
        } else {
            Err(OutboundError::HostNotGranted { host: target.authority() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(pattern: &str, url: &str) -> bool {
        let hosts = AllowedHosts::new(vec![pattern.parse().unwrap()]);
        hosts.permit(&Target::of(&url.parse().unwrap()).unwrap()).is_ok()
    }

    #[test]
    fn patterns_permit_what_they_say() {
        for (pattern, url) in [
            ("api.example.com", "https://api.example.com/x"),
            ("api.example.com", "http://API.EXAMPLE.COM./"),
            ("API.example.com.", "http://api.example.com"),
            ("bücher.example", "https://xn--bcher-kva.example/"),
            ("*.example.com", "https://a.example.com"),
            ("*.example.com", "https://b.a.example.com"),
            ("*", "https://anything.test"),
            ("*", "http://192.0.2.1"),
            ("*:*", "http://anything.test:81"),
            ("a.test:8080", "http://a.test:8080"),
            ("a.test:8080", "https://a.test:8080"),
            ("https://a.test:*", "https://a.test:99"),
            ("127.0.0.1:80", "http://2130706433"),
            ("[::1]", "http://[0:0::1]/"),
            ("[::1]:81", "http://[::1]:81/"),
        ] {
            assert!(permits(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn patterns_permit_nothing_else() {
        for (pattern, url) in [
            ("api.example.com", "https://example.com"),
            ("api.example.com", "https://evil-api.example.com"),
            ("api.example.com", "https://api.example.com.evil.test"),
            ("api.example.com", "https://api.example.com:8443"),
            ("*.example.com", "https://example.com"),
            ("*.example.com", "https://evilexample.com"),
            ("*.example.com", "https://example.com.evil.test"),
            ("https://a.test", "http://a.test"),
            ("https://a.test", "http://a.test:443"),
            ("a.test:8080", "http://a.test"),
            ("*", "http://a.test:81"),
            ("*.0.0.test", "http://127.0.0.1"),
        ] {
            assert!(!permits(pattern, url), "{pattern} {url}");
        }
    }

    #[test]
    fn a_refusal_names_the_host() {
        let target = Target::of(&"http://EVIL.test:81/".parse().unwrap()).unwrap();
        let refused = AllowedHosts::default().permit(&target).unwrap_err();
        assert_eq!(refused.to_string(), "`evil.test:81` is not among the hosts that were granted");
    }

    #[test]
    fn what_is_no_pattern_is_refused_and_what_is_comes_back_as_it_was() {
        for text in [
            "",
            "*.",
            "a*.test",
            "*.*.test",
            "a.test/",
            "a.test/x",
            "user@a.test",
            "a.test:0",
            "a.test:x",
            "a..b",
            "ftp://a.test",
            "*.127.0.0.1",
            "a b",
            "%61.test",
            "a.test:",
            "://a",
            "[::1",
            "a.test\\b",
        ] {
            assert!(text.parse::<HostPattern>().is_err(), "{text}");
        }
        for text in ["*", "*:*", "*.a.test", "https://a.test:81", "http://*.a.test:*", "[::1]:81", "10.0.0.1"]
        {
            assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
        }
    }
}
