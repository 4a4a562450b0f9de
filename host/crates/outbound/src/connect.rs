//! Connections, to addresses that the policy let through and to nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use url::Host;

use crate::error::{OutboundError, SetupError};
use crate::policy::Admitted;
use crate::target::{Scheme, Target};
use crate::traffic::{Counted, Traffic};

/// Of the addresses of a name so many are tried.
const MAX_ATTEMPTS: usize = 8;

/// A connection, with or without TLS.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// TLS by rustls and ring: the authorities of the public web, and the operator's.
pub(crate) fn tls(extra_roots_pem: &[u8]) -> Result<TlsConnector, SetupError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(extra_roots_pem) {
        let certificate = certificate.map_err(|error| SetupError::Certificates(error.to_string()))?;
        roots.add(certificate).map_err(|error| SetupError::Certificates(error.to_string()))?;
    }
    if !extra_roots_pem.is_empty() && roots.len() == before {
        return Err(SetupError::NoCertificate);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // A ticket from one org's session would tell the server that another org's comes from the same host's client.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects to the first of the addresses that answers. They share the time until the deadline, at which the caller ends this.
pub(crate) async fn connect(
    target: &Target,
    addresses: &[Admitted],
    deadline: Instant,
    traffic: Arc<Traffic>,
    tls: &TlsConnector,
) -> Result<Box<dyn Connection>, OutboundError> {
    let tcp = dial(addresses, deadline).await.map_err(|error| OutboundError::ConnectFailed {
        host: target.authority(),
        reason: error.kind().to_string(),
    })?;
    let tcp = Counted::new(tcp, traffic);
    if target.scheme == Scheme::Http {
        return Ok(Box::new(tcp));
    }
    let failed = |reason: String| OutboundError::Tls { host: target.authority(), reason };
    let name = match &target.host {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| failed("the name is not valid in a certificate".into()))?,
        Host::Ipv4(address) => ServerName::IpAddress((*address).into()),
        Host::Ipv6(address) => ServerName::IpAddress((*address).into()),
    };
    let stream = tls.connect(name, tcp).await.map_err(|error| failed(tls_reason(&error)))?;
    Ok(Box::new(stream))
}

async fn dial(addresses: &[Admitted], deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let attempts = addresses.len().min(MAX_ATTEMPTS);
    for (index, address) in addresses.iter().take(attempts).enumerate() {
        // An address that does not answer leaves their share of the time to those behind it. The caller ends the last.
        let shares = u32::try_from(attempts - index).unwrap_or(u32::MAX);
        let left = deadline.saturating_duration_since(Instant::now());
        let share = if shares == 1 { Duration::MAX } else { left / shares };
        match timeout(share, TcpStream::connect(address.address())).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

/// What rustls says, or how the connection ended.
fn tls_reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(error) => error.to_string(),
        None => error.kind().to_string(),
    }
}
