//! What the operator decides, and the limits of a request.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

/// How the client is set up.
#[derive(Debug, Clone)]
pub struct OutboundConfig {
    /// Networks that can be reached although they are not on the public internet.
    pub allow_networks: Vec<IpNet>,
    /// The name servers to ask, over UDP, and TCP for what is too long for that. If there are none, those of the system
    /// (`/etc/resolv.conf`), after `/etc/hosts`.
    pub name_servers: Vec<SocketAddr>,
    /// Certificates of authorities to trust beside those of the public web, in PEM.
    pub extra_roots_pem: Vec<u8>,
    /// Requests at once on this host, from connecting to the last byte of the response.
    pub max_requests: u32,
    /// Requests at once of one org.
    pub max_requests_per_org: u32,
    /// The most that a request may take of each.
    pub limits: Limits,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            name_servers: Vec::new(),
            extra_roots_pem: Vec::new(),
            max_requests: 256,
            max_requests_per_org: 32,
            limits: Limits::default(),
        }
    }
}

/// What one request may take. Bytes are those of HTTP, before TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The request's target, and the names and values of its headers.
    pub request_header_bytes: usize,
    /// The request's body.
    pub request_body_bytes: u64,
    /// The response's status line and headers; so much at once is also read of its body. The least is 8 KiB.
    pub response_header_bytes: usize,
    /// Lines of headers, of the request and of the response each.
    pub headers: usize,
    /// The response's body.
    pub response_body_bytes: u64,
    /// Resolving, connecting and TLS together.
    pub connect_timeout: Duration,
    /// From the connection to the response's status and headers; sending the request is part of it.
    pub first_byte_timeout: Duration,
    /// Between two parts of the response's body.
    pub idle_timeout: Duration,
    /// From the beginning to the response's last byte.
    pub total_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_header_bytes: 32 * 1024,
            request_body_bytes: 16 * 1024 * 1024,
            response_header_bytes: 32 * 1024,
            headers: 100,
            response_body_bytes: 16 * 1024 * 1024,
            connect_timeout: Duration::from_secs(10),
            first_byte_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
        }
    }
}

impl Limits {
    /// The lower of both, limit by limit.
    #[must_use]
    pub fn at_most(&self, other: &Self) -> Self {
        Self {
            request_header_bytes: self.request_header_bytes.min(other.request_header_bytes),
            request_body_bytes: self.request_body_bytes.min(other.request_body_bytes),
            response_header_bytes: self.response_header_bytes.min(other.response_header_bytes),
            headers: self.headers.min(other.headers),
            response_body_bytes: self.response_body_bytes.min(other.response_body_bytes),
            connect_timeout: self.connect_timeout.min(other.connect_timeout),
            first_byte_timeout: self.first_byte_timeout.min(other.first_byte_timeout),
            idle_timeout: self.idle_timeout.min(other.idle_timeout),
            total_timeout: self.total_timeout.min(other.total_timeout),
        }
    }
}
