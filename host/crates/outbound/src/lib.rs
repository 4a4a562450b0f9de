//! The one HTTP client that leaves the house: for guests, webhooks, external agents and language models.
//!
//! [`Outbound::send`] takes a request and an [`Origin`], who says on whose behalf, to which hosts, and within which limits.
//! Between them and the wire stand, in this order:
//!
//! 1. the URL, read as the WHATWG's standard has it, so that `0x7f.1` is `127.0.0.1` before anybody looks;
//! 2. the grant ([`AllowedHosts`]): which hosts, ports and schemes;
//! 3. permits: how many requests at once, in all and of each org;
//! 4. the [`AddressPolicy`], for the address in the URL or for all addresses that the name servers give. An address that it lets
//!    through becomes an `Admitted`, and nothing else can be connected to. So there is no second look-up, and nothing that could
//!    change between the check and the connection;
//! 5. TLS, by rustls;
//! 6. HTTP/1.1, by hyper, with limits on headers, bodies and times.
//!
//! There is no other way: the client follows no redirects (the caller gets them, and following one is a new request), reads no
//! proxies from the environment, and keeps no connection for another request.
//!
//! What this cannot know: addresses of the public internet that only this host's network can reach, such as a NAT64 prefix
//! of the operator's own, or its load balancer from inside. Those belong into the network's own rules.

mod address;
mod body;
mod client;
mod config;
mod connect;
mod error;
mod grant;
mod headers;
mod permits;
mod policy;
mod resolve;
mod target;
mod traffic;

pub use address::AddressClass;
pub use body::{RequestBody, ResponseBody, empty, full};
pub use client::{Origin, Outbound, json_request};
pub use config::{Limits, OutboundConfig};
pub use error::{OutboundError, Phase, SetupError};
pub use grant::{AllowedHosts, HostPattern, InvalidHostPattern};
pub use policy::AddressPolicy;
pub use target::parse_url;
pub use traffic::Traffic;
