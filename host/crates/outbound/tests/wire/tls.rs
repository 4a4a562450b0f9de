//! TLS: whom the client believes.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ringfence_outbound::{Outbound, OutboundConfig, OutboundError, SetupError};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::names::Names;
use crate::server::{Server, read_head};
use crate::{anyone, ask, config};

/// An authority of the test's own, and a server that it vouches for as `secure.test` and `127.0.0.1`.
async fn secure() -> (String, Server) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["secure.test".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = Server::at("127.0.0.1:0", move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                read_head(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                let _ = stream.shutdown().await;
            }
        }
    })
    .await;
    (authority.pem(), server)
}

fn trusting(pem: &str, networks: &[&str], names: &Names) -> Result<Outbound, SetupError> {
    Outbound::new(&OutboundConfig { extra_roots_pem: pem.into(), ..config(networks, names) })
}

const LOOPBACK: &[&str] = &["127.0.0.0/8"];

#[tokio::test]
async fn only_certificates_for_the_name_by_a_known_authority_are_believed() {
    let (pem, server) = secure().await;
    let names = Names::serve(&[("secure.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])]).await;
    let client = trusting(&pem, LOOPBACK, &names).unwrap();
    for host in ["secure.test", "SECURE.test.", "127.0.0.1"] {
        let url = format!("https://{host}:{}/", server.port());
        let response = ask(&client, &anyone(), &url).await.unwrap();
        assert_eq!(response.into_body().bytes(10).await.unwrap(), "ok", "{url}");
    }

    let failed = async |client: &Outbound, host: &str| match ask(
        client,
        &anyone(),
        &format!("https://{host}:{}/", server.port()),
    )
    .await
    .unwrap_err()
    {
        OutboundError::Tls { reason, .. } => reason,
        error => panic!("{error}"),
    };
    let reason = failed(&client, "other.test").await;
    assert!(reason.contains("certificate not valid for name"), "{reason}");
    let stranger = trusting("", LOOPBACK, &names).unwrap();
    let reason = failed(&stranger, "secure.test").await;
    assert!(reason.contains("UnknownIssuer"), "{reason}");
}

#[tokio::test]
async fn a_refused_address_hears_no_hello() {
    let (pem, server) = secure().await;
    let names = Names::serve(&[("secure.test", &["127.0.0.1"])]).await;
    let client = trusting(&pem, &[], &names).unwrap();
    let url = format!("https://secure.test:{}/", server.port());
    let error = ask(&client, &anyone(), &url).await.unwrap_err();
    assert!(matches!(error, OutboundError::AddressRefused { .. }), "{error}");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to() {
    let names = Names::serve(&[]).await;
    let plain = Server::saying("HTTP/1.1 200 OK\r\n\r\n").await;
    let url = format!("https://127.0.0.1:{}/", plain.port());
    let plain_client = trusting("", LOOPBACK, &names).unwrap();
    // It waits for the end of a request that never comes, so it hangs up when we do.
    let origin = crate::limited(ringfence_outbound::Limits {
        connect_timeout: std::time::Duration::from_millis(200),
        ..Default::default()
    });
    let error = ask(&plain_client, &origin, &url).await.unwrap_err();
    assert!(matches!(error, OutboundError::TimedOut { .. } | OutboundError::Tls { .. }), "{error}");
}

#[tokio::test]
async fn what_holds_no_certificate_is_refused_at_the_start() {
    let names = Names::serve(&[]).await;
    assert!(matches!(trusting("not PEM", &[], &names), Err(SetupError::NoCertificate)));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(trusting(broken, &[], &names), Err(SetupError::Certificates(_))));
}
