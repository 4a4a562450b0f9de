//! Where requests may go.

use ringfence_outbound::{AddressClass, OutboundError, parse_url};

use crate::names::Names;
use crate::server::Server;
use crate::{anyone, ask, client};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A host, what the name server says of it (nothing of a literal), and what becomes of a request when the operator allows no
/// network, and when `127.0.0.0/8` is allowed.
struct Row {
    host: &'static str,
    addresses: &'static [&'static str],
    by_default: Option<AddressClass>,
    with_loopback: Option<AddressClass>,
}

const fn row(host: &'static str, addresses: &'static [&'static str], class: AddressClass) -> Row {
    Row { host, addresses, by_default: Some(class), with_loopback: Some(class) }
}

/// Refused by default, and there when the operator allows loopback.
const fn loopback(host: &'static str, addresses: &'static [&'static str]) -> Row {
    Row { host, addresses, by_default: Some(AddressClass::Loopback), with_loopback: None }
}

const TABLE: &[Row] = {
    use AddressClass::*;
    &[
        // Loopback in each notation.
        loopback("127.0.0.1", &[]),
        loopback("2130706433", &[]),
        loopback("0177.0.0.1", &[]),
        loopback("0x7f.1", &[]),
        loopback("0x7F000001", &[]),
        loopback("127.1", &[]),
        loopback("[::ffff:127.0.0.1]", &[]),
        loopback("[::ffff:7f00:1]", &[]),
        loopback("loopback.test", &["127.0.0.1"]),
        loopback("LOOPBACK.test.", &["127.0.0.1"]),
        loopback("mapped.test", &["::ffff:127.0.0.1"]),
        loopback("two.test", &["127.0.0.1", "127.0.0.3"]),
        // The name that needs no name server.
        row("localhost6.test", &["::1"], Loopback),
        row("[::1]", &[], Loopback),
        // Literals of each class.
        row("0.0.0.0", &[], Unspecified),
        row("0", &[], Unspecified),
        row("[::]", &[], Unspecified),
        row("10.0.0.1", &[], Private),
        row("172.31.255.254", &[], Private),
        row("0300.0250.1.1", &[], Private),
        row("[fd12:3456::1]", &[], Private),
        row("[fec0::1]", &[], Private),
        row("169.254.1.1", &[], LinkLocal),
        row("[fe80::1]", &[], LinkLocal),
        row("100.64.0.1", &[], CarrierGradeNat),
        row("169.254.169.254", &[], Metadata),
        row("2852039166", &[], Metadata),
        row("[::ffff:a9fe:a9fe]", &[], Metadata),
        row("[fd00:ec2::254]", &[], Metadata),
        row("168.63.129.16", &[], Metadata),
        row("198.18.0.1", &[], Benchmarking),
        row("192.0.2.1", &[], Documentation),
        row("[2001:db8::1]", &[], Documentation),
        row("224.0.0.1", &[], Multicast),
        row("[ff02::1]", &[], Multicast),
        row("255.255.255.255", &[], Broadcast),
        row("240.0.0.1", &[], Reserved),
        row("192.0.0.8", &[], Reserved),
        row("[100::1]", &[], Reserved),
        // Embeddings: allowing the embedded network does not open them.
        row("[::127.0.0.1]", &[], Embedding),
        row("[64:ff9b::7f00:1]", &[], Embedding),
        row("[64:ff9b:1::7f00:1]", &[], Embedding),
        row("[2002:7f00:1::]", &[], Embedding),
        row("[2001:0:4136:e378:8000:63bf:80ff:fffe]", &[], Embedding),
        row("[2606:4700::5efe:127.0.0.1]", &[], Embedding),
        // The same by name.
        row("private.test", &["192.168.0.1"], Private),
        row("ula.test", &["fd00::1"], Private),
        row("metadata.test", &["169.254.169.254"], Metadata),
        row("cgnat.test", &["100.100.0.1"], CarrierGradeNat),
        row("link-local.test", &["fe80::1"], LinkLocal),
        row("nat64.test", &["64:ff9b::10.0.0.1"], Embedding),
        row("6to4.test", &["2002:0a00:0001::1"], Embedding),
        row("teredo.test", &["2001:0:4136:e378:8000:63bf:f5ff:fffe"], Embedding),
        row("zero.test", &["0.0.0.0"], Unspecified),
        // One internal address among others spoils the name, wherever it stands.
        row("mixed.test", &["127.0.0.1", "10.0.0.1"], Private),
        row("mixed-last.test", &["1.1.1.1", "8.8.8.8", "192.168.1.1"], Private),
        row("mixed-families.test", &["127.0.0.1", "fd00::1"], Private),
    ]
};

#[tokio::test]
async fn only_the_public_internet_and_what_the_operator_allows_can_be_reached() {
    let zone: Vec<_> = TABLE.iter().map(|row| (row.host, row.addresses)).collect();
    let zone: Vec<_> =
        zone.into_iter().filter(|(host, addresses)| !addresses.is_empty() && !host.ends_with('.')).collect();
    let names = Names::serve(&zone).await;
    let server = Server::saying(OK).await;
    let closed = client(&[], &names);
    let open = client(&["127.0.0.0/8"], &names);
    let mut reached = 0;
    for row in TABLE {
        let url = format!("http://{}:{}/", row.host, server.port());
        let class = check(ask(&closed, &anyone(), &url).await, &url);
        // Some are both: which of the addresses comes first is for the resolver to say.
        assert!(class.is_some(), "{url} was reached");
        if row.addresses.len() < 2 {
            assert_eq!(class, row.by_default, "{url}");
        }
        assert_eq!(server.connections(), reached, "{url} made a connection");
        assert_eq!(check(ask(&open, &anyone(), &url).await, &url), row.with_loopback, "{url}, with loopback");
        reached += usize::from(row.with_loopback.is_none());
        assert_eq!(server.connections(), reached, "{url}, with loopback");
        // A check before anything is sent says the same.
        let uri = parse_url(&url).unwrap();
        let checked = open.check(&ringfence_outbound::AllowedHosts::every(), &uri).await;
        assert_eq!(checked.is_ok(), row.with_loopback.is_none(), "{url}, checked");
        assert_eq!(server.connections(), reached, "{url}, checked");
    }
    assert_eq!(reached, 12);
}

fn check<T>(answer: Result<T, OutboundError>, url: &str) -> Option<AddressClass> {
    match answer {
        Ok(_) => None,
        Err(error @ OutboundError::AddressRefused { .. }) => {
            let text = error.to_string();
            assert!(text.contains("the operator allows the network"), "{text}");
            let OutboundError::AddressRefused { class, .. } = error else { unreachable!() };
            Some(class)
        }
        Err(error) => panic!("{url}: {error}"),
    }
}

#[tokio::test]
async fn localhost_is_refused_by_its_name() {
    let names = Names::serve(&[]).await;
    let server = Server::saying(OK).await;
    let url = format!("http://localhost:{}/", server.port());
    let refused = ask(&client(&[], &names), &anyone(), &url).await.unwrap_err();
    assert!(
        matches!(&refused, OutboundError::AddressRefused { class: AddressClass::Loopback, .. }),
        "{refused}"
    );
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_refusal_by_name_tells_no_address() {
    let names = Names::serve(&[("db.corp.test", &["10.11.12.13"])]).await;
    let refused = ask(&client(&[], &names), &anyone(), "http://db.corp.test:5432/").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`db.corp.test:5432` is at a private address: only public addresses can be reached, unless the operator \
         allows the network (--outbound-allow-networks)"
    );
    assert!(!format!("{refused:?}").contains("10.11"));
}

/// The name server says an allowed address first, and one that is not allowed from then on. A client that looked the name up
/// again to connect would end at the second.
#[tokio::test]
async fn a_name_that_changes_between_look_up_and_connect_gains_nothing() {
    let names = Names::rebinding("rebind.test", &[&["127.0.0.1"], &["127.0.0.2"]]).await;
    let first = Server::saying(OK).await;
    let second = Server::saying_at(&format!("127.0.0.2:{}", first.port()), OK).await;
    let client = client(&["127.0.0.1/32"], &names);
    let url = format!("http://rebind.test:{}/", first.port());

    let response = ask(&client, &anyone(), &url).await.unwrap();
    assert_eq!(response.into_body().bytes(10).await.unwrap(), "ok");
    assert_eq!((names.questions(), first.connections(), second.connections()), (1, 1, 0));

    let refused = ask(&client, &anyone(), &url).await;
    assert_eq!(check(refused, &url), Some(AddressClass::Loopback));
    assert_eq!((names.questions(), first.connections(), second.connections()), (2, 1, 0));
}

#[tokio::test]
async fn redirects_are_the_callers_to_follow() {
    let names = Names::serve(&[]).await;
    let internal = Server::saying_at("127.0.0.2:0", OK).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("http://127.0.0.2:{}/", internal.port());
        let server =
            Server::saying(format!("HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
                .await;
        let client = client(&["127.0.0.1/32"], &names);
        let response = ask(&client, &anyone(), &server.url()).await.unwrap();
        assert!(response.status().is_redirection());
        assert_eq!(response.headers()["location"], location);
        // Followed, it is a request like any other.
        let followed = ask(&client, &anyone(), &location).await;
        assert_eq!(check(followed, &location), Some(AddressClass::Loopback));
    }
    assert_eq!(internal.connections(), 0);
}

#[tokio::test]
async fn a_host_that_was_not_granted_is_not_even_looked_up() {
    let names = Names::serve(&[("good.test", &["127.0.0.1"]), ("evil.test", &["127.0.0.1"])]).await;
    let server = Server::saying(OK).await;
    let client = client(&["127.0.0.0/8"], &names);
    let hosts = ringfence_outbound::AllowedHosts::new(vec!["good.test:*".parse().unwrap()]);
    let origin = ringfence_outbound::Origin::new(ringfence_model::OrgId::platform(), hosts);

    let refused = ask(&client, &origin, &format!("http://evil.test:{}/", server.port())).await.unwrap_err();
    let text = format!("`evil.test:{}` is not among the hosts that were granted", server.port());
    assert_eq!(refused.to_string(), text);
    assert_eq!((names.questions(), server.connections()), (0, 0));

    ask(&client, &origin, &format!("http://good.test:{}/", server.port())).await.unwrap();
    assert_eq!((names.questions(), server.connections()), (1, 1));
}

#[tokio::test]
async fn names_that_are_not_there_say_so() {
    let names = Names::serve(&[]).await;
    let failed = ask(&client(&[], &names), &anyone(), "http://nowhere.test/").await.unwrap_err();
    assert_eq!(failed.to_string(), "no address was found for `nowhere.test`: there is no such name");
}
