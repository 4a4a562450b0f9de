//! What kind of place an IP address is.
//!
//! The source is IANA's [IPv4] and [IPv6] Special-Purpose Address Registries, and the registries of multicast and of
//! IPv6 unicast space. What is not known to be globally routable unicast is refused, so that a network which is set aside
//! tomorrow is out of reach today: of IPv6 only `2000::/3` is let through, and `64:ff9b::/96` where what it embeds is.
//!
//! [IPv4]: https://www.iana.org/assignments/iana-ipv4-special-registry/
//! [IPv6]: https://www.iana.org/assignments/iana-ipv6-special-registry/

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// Why an address is not part of the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// `0.0.0.0/8` and `::`: this host.
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    Loopback,
    /// The networks of RFC 1918, `fc00::/7` (unique local), `fec0::/10` (site-local, which came before it).
    Private,
    /// `169.254.0.0/16` and `fe80::/10`.
    LinkLocal,
    /// `100.64.0.0/10`: between a provider and its customers.
    CarrierGradeNat,
    /// Where a cloud tells its machines their credentials. Allowed only by a network of this one address.
    Metadata,
    /// `198.18.0.0/15` and `2001:2::/48`.
    Benchmarking,
    /// Examples in documents.
    Documentation,
    /// `224.0.0.0/4` and `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// Set aside for protocols, routers' own use, or for nothing yet.
    Reserved,
    /// An IPv6 address by which an IPv4 address is meant, in a form that leads out of sight of this policy or to an address
    /// that it refuses.
    Embedding,
}

impl AddressClass {
    /// The words that go behind "at".
    pub fn words(self) -> &'static str {
        match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::CarrierGradeNat => "a shared address (carrier-grade NAT)",
            Self::Metadata => "a cloud metadata address",
            Self::Benchmarking => "a benchmarking address",
            Self::Documentation => "a documentation address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
            Self::Embedding => "an IPv6 address that embeds an IPv4 address",
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// The first that contains the address says what it is.
const V4: &[(Ipv4Net, AddressClass)] = &[
    // AWS, Azure, Google and others; Alibaba; Oracle; and Azure's host agent, which has a public address.
    (v4([169, 254, 169, 254], 32), AddressClass::Metadata),
    (v4([169, 254, 170, 2], 32), AddressClass::Metadata),
    (v4([169, 254, 170, 23], 32), AddressClass::Metadata),
    (v4([100, 100, 100, 200], 32), AddressClass::Metadata),
    (v4([192, 0, 0, 192], 32), AddressClass::Metadata),
    (v4([168, 63, 129, 16], 32), AddressClass::Metadata),
    (v4([0, 0, 0, 0], 8), AddressClass::Unspecified),
    (v4([10, 0, 0, 0], 8), AddressClass::Private),
    (v4([100, 64, 0, 0], 10), AddressClass::CarrierGradeNat),
    (v4([127, 0, 0, 0], 8), AddressClass::Loopback),
    (v4([169, 254, 0, 0], 16), AddressClass::LinkLocal),
    (v4([172, 16, 0, 0], 12), AddressClass::Private),
    // IETF protocol assignments, with two anycast addresses in them that nobody needs here.
    (v4([192, 0, 0, 0], 24), AddressClass::Reserved),
    (v4([192, 0, 2, 0], 24), AddressClass::Documentation),
    // 6to4 relays, deprecated by RFC 7526.
    (v4([192, 88, 99, 0], 24), AddressClass::Reserved),
    (v4([192, 168, 0, 0], 16), AddressClass::Private),
    (v4([198, 18, 0, 0], 15), AddressClass::Benchmarking),
    (v4([198, 51, 100, 0], 24), AddressClass::Documentation),
    (v4([203, 0, 113, 0], 24), AddressClass::Documentation),
    (v4([224, 0, 0, 0], 4), AddressClass::Multicast),
    (v4([255, 255, 255, 255], 32), AddressClass::Broadcast),
    (v4([240, 0, 0, 0], 4), AddressClass::Reserved),
];

/// The first that contains the address says what it is; `None` is the public internet. What is in no line is reserved.
const V6: &[(Ipv6Net, Option<AddressClass>)] = &[
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Some(AddressClass::Unspecified)),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Some(AddressClass::Loopback)),
    // IPv4-compatible, deprecated by RFC 4291. (IPv4-mapped addresses are IPv4 addresses before they come here.)
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 96), Some(AddressClass::Embedding)),
    // NAT64: the well-known prefix may embed public addresses only (`embedded` looks at them), the local one is local.
    (v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96), None),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Some(AddressClass::Embedding)),
    // AWS by IPv6, its credentials for pods, and Google.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128), Some(AddressClass::Metadata)),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128), Some(AddressClass::Metadata)),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128), Some(AddressClass::Metadata)),
    // Teredo, and 6to4: tunnels to the IPv4 address in them, by relays that nobody runs any more.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), Some(AddressClass::Embedding)),
    (v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), Some(AddressClass::Embedding)),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), Some(AddressClass::Benchmarking)),
    // IETF protocol assignments.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Some(AddressClass::Reserved)),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Some(AddressClass::Documentation)),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Some(AddressClass::Documentation)),
    (v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3), None),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Some(AddressClass::Private)),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Some(AddressClass::LinkLocal)),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Some(AddressClass::Private)),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Some(AddressClass::Multicast)),
];

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    let [a, b, c, d] = octets;
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(segments: [u16; 8], prefix: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

/// What the address is, if it is not part of the public internet. An IPv4-mapped address is the IPv4 address, for that is
/// where the operating system connects to.
pub(crate) fn class(address: IpAddr) -> Option<AddressClass> {
    match address.to_canonical() {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> Option<AddressClass> {
    V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, class)| *class)
}

fn class_v6(address: Ipv6Addr) -> Option<AddressClass> {
    let found = V6.iter().find(|(network, _)| network.contains(&address));
    if let Some(class) = found.map_or(Some(AddressClass::Reserved), |(_, class)| *class) {
        return Some(class);
    }
    // A public address may still stand for another one.
    embedded(address).and_then(class_v4).map(|_| AddressClass::Embedding)
}

/// The IPv4 address that a public IPv6 address leads to: by NAT64 (RFC 6052), or by ISATAP (RFC 5214).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, _, _, e, f, g, h] = address.segments();
    let isatap = matches!((e, f), (0 | 0x200, 0x5efe));
    let nat64 = (a, b) == (0x64, 0xff9b);
    (isatap || nat64).then(|| {
        let ([a, b], [c, d]) = (g.to_be_bytes(), h.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(address: &str) -> Option<AddressClass> {
        class(address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2606:4700::5efe:8.8.8.8",
        ] {
            assert_eq!(class_of(address), None, "{address}");
        }
    }

    #[test]
    fn each_special_network_is_refused_from_its_first_address_to_its_last() {
        for (network, class) in V4 {
            for address in [network.network(), network.broadcast()] {
                let found = class_v4(address).unwrap();
                // A smaller network that comes before it may have the address.
                let smaller = V4.iter().find(|(net, _)| net.contains(&address)).unwrap();
                assert!(found == *class || smaller.0.prefix_len() > network.prefix_len(), "{address}");
            }
        }
        for (network, class) in V6.iter().filter_map(|(network, class)| Some((network, (*class)?))) {
            for address in [network.network(), network.broadcast()] {
                let found = class_v6(address).unwrap();
                let first = V6.iter().find(|(net, _)| net.contains(&address)).unwrap();
                assert!(found == class || first.0.prefix_len() > network.prefix_len(), "{address}");
            }
        }
    }

    #[test]
    fn what_embeds_an_internal_address_is_refused() {
        use AddressClass::{Embedding, Loopback, Metadata, Private};
        for (address, class) in [
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:169.254.169.254", Metadata),
            ("::127.0.0.1", Embedding),
            ("64:ff9b::127.0.0.1", Embedding),
            ("64:ff9b::a9fe:a9fe", Embedding),
            ("64:ff9b:1::10.0.0.1", Embedding),
            ("64:ff9b:1::8.8.8.8", Embedding),
            ("2002:7f00:1::", Embedding),
            ("2002:a00:1::1", Embedding),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Embedding),
            ("2606:4700::5efe:10.0.0.1", Embedding),
            ("2606:4700::200:5efe:192.168.0.1", Embedding),
        ] {
            assert_eq!(class_of(address), Some(class), "{address}");
        }
    }

    #[test]
    fn what_nobody_has_assigned_is_reserved() {
        for address in
            ["100::1", "100:0:0:1::1", "5f00::1", "4000::1", "::2:0:0:1", "::ffff:0:127.0.0.1", "200::1"]
        {
            assert_eq!(class_of(address), Some(AddressClass::Reserved), "{address}");
        }
    }
}
