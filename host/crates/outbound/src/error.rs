//! What can go wrong with a request, in words for the person whose request it was.

use std::time::Duration;

use crate::address::AddressClass;

/// Why a request was not made, or has no (whole) answer. No text tells an address that the caller did not name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// It cannot be requested as it is written.
    #[error("the URL cannot be requested: {reason}")]
    InvalidUrl {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `CONNECT` would make a tunnel, and what goes through it would be seen by nobody.
    #[error("the method CONNECT is not available")]
    ConnectMethod,
    /// No pattern of the grant has this host, port and scheme.
    #[error("`{host}` is not among the hosts that were granted")]
    HostNotGranted {
        /// The host, with its port if that is not the scheme's own.
        host: String,
    },
    /// The host is, or one of its addresses is, not on the public internet, and the operator has not allowed the network.
    #[error(
        "`{host}` is at {class}: only public addresses can be reached, unless the operator allows the network \
         (--outbound-allow-networks)"
    )]
    AddressRefused {
        /// The host as it was named.
        host: String,
        /// What it is at.
        class: AddressClass,
    },
    /// Too many requests of this org, or of all, are under way.
    #[error("too many requests are under way {}; try again in {} s", whose(.of_org), .retry_after.as_secs())]
    TooMany {
        /// Whether they are of this org alone.
        of_org: bool,
        /// When to try again.
        retry_after: Duration,
    },
    /// The name has no address, or the name servers did not say.
    #[error("no address was found for `{host}`: {reason}")]
    ResolveFailed {
        /// The host as it was named.
        host: String,
        /// What the name servers said.
        reason: &'static str,
    },
    /// No connection came about.
    #[error("connecting to `{host}` failed: {reason}")]
    ConnectFailed {
        /// The host as it was named.
        host: String,
        /// What the operating system said.
        reason: String,
    },
    /// No trustworthy connection came about.
    #[error("TLS with `{host}` failed: {reason}")]
    Tls {
        /// The host as it was named.
        host: String,
        /// What is wrong, such as a certificate for another name.
        reason: String,
    },
    /// The time for this part of the request is over.
    #[error("`{host}` took too long: {phase} was not done after {} ms", .limit.as_millis())]
    TimedOut {
        /// The host as it was named.
        host: String,
        /// What was being done.
        phase: Phase,
        /// How long it may take.
        limit: Duration,
    },
    /// Target and headers of the request are more than may be sent.
    #[error(
        "the request's headers are too large: at most {max_bytes} bytes and {max_count} lines can be sent"
    )]
    RequestHeadersTooLarge {
        /// The limit of name and value together, in bytes.
        max_bytes: usize,
        /// The limit of lines.
        max_count: usize,
    },
    /// The body of the request is more than may be sent.
    #[error("the request's body is too large: at most {max_bytes} bytes can be sent")]
    RequestBodyTooLarge {
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// Whoever makes the body of the request gave up.
    #[error("the request's body was not finished")]
    RequestBodyFailed,
    /// The headers of the response are more than are read.
    #[error(
        "the headers of the response from `{host}` are too large: at most {max_bytes} bytes and {max_count} lines are read"
    )]
    ResponseHeadersTooLarge {
        /// The host as it was named.
        host: String,
        /// The limit in bytes.
        max_bytes: usize,
        /// The limit of lines.
        max_count: usize,
    },
    /// The body of the response is more than is read.
    #[error("the response from `{host}` is too large: at most {max_bytes} bytes are read")]
    ResponseTooLarge {
        /// The host as it was named.
        host: String,
        /// The limit in bytes.
        max_bytes: u64,
    },
    /// What came back is not HTTP/1.1, or not what was asked for.
    #[error("the response from `{host}` is not valid: {reason}")]
    InvalidResponse {
        /// The host as it was named.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection ended before the response did.
    #[error("`{host}` closed the connection before its response was complete")]
    ConnectionLost {
        /// The host as it was named.
        host: String,
    },
}

/// The parts of a request that have a time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Resolving the name, connecting, and agreeing on keys.
    Connecting,
    /// Sending the request and waiting for the first byte of the response.
    FirstByte,
    /// Waiting for more of the response's body.
    NextBytes,
    /// The whole request, to the last byte of the response.
    Whole,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::FirstByte => "the beginning of the response",
            Self::NextBytes => "the next part of the response",
            Self::Whole => "the whole request",
        })
    }
}

fn whose(of_org: &bool) -> &'static str {
    if *of_org { "for this organization" } else { "on this host" }
}

/// Why the client cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The operator's certificates cannot be read.
    #[error("the certificates of additional authorities are not valid PEM: {0}")]
    Certificates(String),
    /// There is none in what the operator gave.
    #[error("there is no certificate in the file of additional authorities")]
    NoCertificate,
    /// The system's resolver configuration cannot be read.
    #[error(
        "the system's resolver configuration cannot be read ({0}); name servers can be given by --outbound-dns-servers"
    )]
    Resolver(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}
