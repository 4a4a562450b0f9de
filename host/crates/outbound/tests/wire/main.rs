//! The client against real servers: listeners on loopback and a name server of this test's own. What the operator allows is
//! the only way in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, whose helpers the lints do not recognise as such"
)]

mod limits;
mod names;
mod policy;
mod proxies;
mod server;
mod tls;
mod wire;

use http::{Request, Uri};
use ringfence_model::{OrgId, SeededRng, SystemClock};
use ringfence_outbound::{
    AllowedHosts, Limits, Origin, Outbound, OutboundConfig, OutboundError, RequestBody, ResponseBody, empty,
};

/// A client that may reach these networks and asks this name server.
fn client(networks: &[&str], names: &names::Names) -> Outbound {
    Outbound::new(&config(networks, names)).unwrap()
}

fn config(networks: &[&str], names: &names::Names) -> OutboundConfig {
    OutboundConfig {
        allow_networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        name_servers: vec![names.address()],
        ..OutboundConfig::default()
    }
}

/// Somebody who may ask every host.
fn anyone() -> Origin {
    Origin::new(OrgId::platform(), AllowedHosts::every())
}

fn limited(limits: Limits) -> Origin {
    Origin { limits: Some(limits), ..anyone() }
}

/// An org of its own for each number.
fn org(number: u64) -> OrgId {
    OrgId::new(&SystemClock, &SeededRng::new(number))
}

fn get(url: &str) -> Request<RequestBody> {
    let mut request = Request::new(empty());
    *request.uri_mut() = url.parse::<Uri>().unwrap();
    request
}

async fn ask(
    client: &Outbound,
    origin: &Origin,
    url: &str,
) -> Result<http::Response<ResponseBody>, OutboundError> {
    client.send(origin, get(url)).await
}
