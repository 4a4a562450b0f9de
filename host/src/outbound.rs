//! The options for requests to the outside.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;
use ringfence_outbound::{Limits, Outbound, OutboundConfig};

use crate::serve::{Failure, doing};

#[derive(Debug, Args)]
pub(crate) struct OutboundOptions {
    /// Networks that requests to the outside may reach although they are internal, such as `10.20.0.0/16`, separated by commas.
    #[arg(long, env = "RINGFENCE_OUTBOUND_ALLOW_NETWORKS", value_delimiter = ',', value_parser = network)]
    outbound_allow_networks: Vec<IpNet>,

    /// File with certificates (PEM) of authorities to believe beside those of the public web.
    #[arg(long, env = "RINGFENCE_OUTBOUND_CA_FILE")]
    outbound_ca_file: Option<PathBuf>,

    /// Name servers to ask, as `10.0.0.2` or `10.0.0.2:5353`, separated by commas, instead of those of the system.
    #[arg(long, env = "RINGFENCE_OUTBOUND_DNS_SERVERS", value_delimiter = ',', value_parser = name_server)]
    outbound_dns_servers: Vec<SocketAddr>,

    /// Requests to the outside at a time.
    #[arg(long, env = "RINGFENCE_OUTBOUND_MAX_REQUESTS", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    outbound_max_requests: u32,

    /// Requests to the outside at a time, of one organization.
    #[arg(long, env = "RINGFENCE_OUTBOUND_MAX_REQUESTS_PER_ORG", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    outbound_max_requests_per_org: u32,

    /// The largest body that is sent, and that is read, in bytes.
    #[arg(long, env = "RINGFENCE_OUTBOUND_MAX_BODY_BYTES", default_value_t = 16 << 20)]
    outbound_max_body_bytes: u64,

    /// How long a request to the outside may take, to the last byte of its response.
    #[arg(long, env = "RINGFENCE_OUTBOUND_TIMEOUT_SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    outbound_timeout_seconds: u64,
}

impl OutboundOptions {
    /// A client for requests to the outside, with these limits but for those that the operator sets.
    pub(crate) fn client(&self, limits: Limits) -> Result<Outbound, Failure> {
        let extra_roots_pem = match &self.outbound_ca_file {
            Some(file) => std::fs::read(file).map_err(doing(format!("{} cannot be read", file.display())))?,
            None => Vec::new(),
        };
        let config = OutboundConfig {
            allow_networks: self.outbound_allow_networks.clone(),
            name_servers: self.outbound_dns_servers.clone(),
            extra_roots_pem,
            max_requests: self.outbound_max_requests,
            max_requests_per_org: self.outbound_max_requests_per_org,
            limits: Limits {
                request_body_bytes: self.outbound_max_body_bytes,
                response_body_bytes: self.outbound_max_body_bytes,
                total_timeout: Duration::from_secs(self.outbound_timeout_seconds),
                ..limits
            },
        };
        Outbound::new(&config).map_err(doing("requests to the outside cannot be set up"))
    }
}

/// A network, or one address.
fn network(value: &str) -> Result<IpNet, String> {
    let address = value.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| value.parse()).map_err(|_| "must be a network such as 10.20.0.0/16".to_owned())
}

fn name_server(value: &str) -> Result<SocketAddr, String> {
    let address = value.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address
        .or_else(|_| value.parse())
        .map_err(|_| "must be an address such as 10.0.0.2 or 10.0.0.2:53".to_owned())
}
