//! Where a request goes: the host and the port of its URL, as the WHATWG's URL standard reads them.

use std::net::IpAddr;

use http::Uri;
use url::{Host, Url};

use crate::error::OutboundError;

/// `http` or `https`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A destination in its normal form: names in lower case, in ASCII, without a dot at the end; addresses as addresses,
/// however they were written (`2130706433`, `0x7f.1`, `0177.0.0.1`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
}

impl Target {
    /// The destination of a request, read from nothing but the URL's scheme and authority.
    pub(crate) fn of(uri: &Uri) -> Result<Self, OutboundError> {
        let invalid = |reason| OutboundError::InvalidUrl { reason };
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(_) => return Err(invalid("only http and https can be requested")),
            None => return Err(invalid("it must be absolute, with http or https")),
        };
        let authority = uri.authority().ok_or(invalid("it has no host"))?.as_str();
        if authority.contains('@') {
            return Err(invalid("it must not have a user name or a password in it"));
        }
        let url = Url::parse(&format!("{}://{authority}/", scheme.word()))
            .map_err(|_| invalid("its host or its port is not valid"))?;
        let host = url.host().ok_or(invalid("it has no host"))?.to_owned();
        let host = normal(host).ok_or(invalid("its host is not valid"))?;
        let port = url.port_or_known_default().filter(|port| *port != 0);
        Ok(Self { scheme, host, port: port.ok_or(invalid("its port is not valid"))? })
    }

    /// The address, if the host is one.
    pub(crate) fn literal(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// `host`, or `host:port` where the port is not the scheme's own: for the `Host` header, and for people.
    pub(crate) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The host without the dot that ends a full name; nothing if a label is empty.
pub(crate) fn normal(host: Host<String>) -> Option<Host<String>> {
    let Host::Domain(name) = host else { return Some(host) };
    let name = name.strip_suffix('.').unwrap_or(&name);
    let labels_are_sound = name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()));
    labels_are_sound.then(|| Host::Domain(name.to_owned()))
}

/// Reads a URL that a person has written, as a browser would: spaces and letters outside of ASCII are encoded, the fragment
/// is dropped.
///
/// # Errors
/// [`OutboundError::InvalidUrl`] if it is no `http` or `https` URL with a host, or has a user name in it.
pub fn parse_url(text: &str) -> Result<Uri, OutboundError> {
    let invalid = |reason| OutboundError::InvalidUrl { reason };
    let mut url = Url::parse(text).map_err(|_| invalid("it is not an absolute URL"))?;
    url.set_fragment(None);
    let uri: Uri = url.as_str().parse().map_err(|_| invalid("it is not a valid URL"))?;
    Target::of(&uri)?;
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Option<String> {
        let target = Target::of(&text.parse().ok()?).ok()?;
        Some(format!("{}://{}", target.scheme.word(), target.authority()))
    }

    #[test]
    fn addresses_in_any_notation_are_addresses() {
        for text in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://0x7f.1/",
            "http://0x7f000001/",
            "http://127.1/",
            "http://127.0.0.1./",
        ] {
            assert_eq!(target(text).as_deref(), Some("http://127.0.0.1"), "{text}");
        }
        assert_eq!(target("http://[0:0:0:0:0:ffff:7f00:1]:80/").as_deref(), Some("http://[::ffff:7f00:1]"));
        assert_eq!(target("http://1.2.3.256/"), None);
        assert_eq!(target("http://1.2.3.4.5/"), None);
    }

    #[test]
    fn names_have_one_form() {
        for text in ["https://API.Example.COM:443/x", "https://api.example.com./", "https://api.example.com"]
        {
            assert_eq!(target(text).as_deref(), Some("https://api.example.com"), "{text}");
        }
        assert_eq!(target("http://a.test:8080").as_deref(), Some("http://a.test:8080"));
        assert_eq!(
            parse_url("https://bücher.example/ä b#f").unwrap(),
            "https://xn--bcher-kva.example/%C3%A4%20b"
        );
    }

    #[test]
    fn what_hides_the_host_is_refused() {
        for text in [
            "http://user@internal.test/",
            "http://good.test:80@evil.test/",
            "http://good.test..",
            "http://a..b/",
            "http://./",
            "http://a.test:0/",
            "http://a.test:99999/",
            "ftp://a.test/",
            "/path",
            "a.test",
        ] {
            assert_eq!(target(text), None, "{text}");
        }
        for text in
            ["http://user:password@a.test/", "file:///etc/passwd", "http://", "gopher://a.test", "a b"]
        {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }
}
