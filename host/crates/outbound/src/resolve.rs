//! Asks name servers for addresses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;

use crate::error::{OutboundError, SetupError};

/// How long one name server has to answer, before it or the next is asked again.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Resolver(TokioResolver);

impl Resolver {
    /// Asks these servers, or those of the system if there are none.
    pub(crate) fn new(name_servers: &[SocketAddr]) -> Result<Self, SetupError> {
        let failed = |error: NetError| SetupError::Resolver(error.to_string());
        let mut builder = if name_servers.is_empty() {
            match TokioResolver::builder(TokioRuntimeProvider::default()) {
                Ok(builder) => builder,
                Err(error) if is_missing(&error) => asking(&[(Ipv4Addr::LOCALHOST, 53).into()]),
                Err(error) => return Err(failed(error)),
            }
        } else {
            let mut builder = asking(name_servers);
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        };
        let options = builder.options_mut();
        options.timeout = QUERY_TIMEOUT;
        options.attempts = 2;
        // Permits bound how many there can be.
        options.max_active_requests = usize::from(u16::MAX);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // Nothing is kept: an org cannot tell by the time that a look-up takes what others have looked up, and what a
        // name server says is believed for one connection. It has a cache of its own.
        options.cache_size = 0;
        Ok(Self(builder.build().map_err(failed)?))
    }

    /// All addresses of a name. An answer is at most one DNS message (64 KiB) for each of IPv4 and IPv6.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, OutboundError> {
        let failed = |reason| OutboundError::ResolveFailed { host: host.to_owned(), reason };
        let mut name = Name::from_ascii(host).map_err(|_| failed("it is not a valid name"))?;
        // A full name: the system's search domains are none of a guest's business.
        name.set_fqdn(true);
        match self.0.lookup_ip(name).await {
            Ok(found) if found.iter().next().is_some() => Ok(found.iter().collect()),
            Ok(_) => Err(failed("there is no such name")),
            Err(error) if error.is_no_records_found() => Err(failed("there is no such name")),
            Err(NetError::Timeout) => Err(failed("the name servers did not answer in time")),
            Err(error) => {
                tracing::debug!(host, error = %error, "a name was not resolved");
                Err(failed("the name servers could not answer"))
            }
        }
    }
}

fn asking(name_servers: &[SocketAddr]) -> hickory_resolver::ResolverBuilder<TokioRuntimeProvider> {
    let servers = name_servers.iter().map(|server| {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (server.port(), server.port());
        NameServerConfig::new(server.ip(), true, vec![udp, tcp])
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(ResolverOpts::default())
}

/// Without `/etc/resolv.conf` the name server on this machine is asked, as resolv.conf(5) has it.
fn is_missing(error: &NetError) -> bool {
    matches!(error, NetError::Io(error) if error.kind() == io::ErrorKind::NotFound)
}
