//! Which addresses may be connected to.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::address::{AddressClass, class};

/// Lets the public internet through, and those networks that the operator named.
///
/// A network of the operator's opens the very addresses in it. It does not open IPv6 addresses that embed one of them
/// (other than IPv4-mapped ones, which are the same address). A cloud's metadata address is opened only by a network that has
/// no other address: `10.0.0.0/8` or `0.0.0.0/0` are not meant to give credentials away.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

/// An address that the policy let through. Nothing else can be connected to: `connect` takes this type, and only
/// [`AddressPolicy::admit`] makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted(SocketAddr);

impl Admitted {
    pub(crate) fn address(self) -> SocketAddr {
        self.0
    }
}

impl AddressPolicy {
    /// A policy with these networks besides the public internet.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether a connection may be made to this address.
    ///
    /// # Errors
    /// What the address is, if it is internal and no network of the operator's has it.
    pub fn judge(&self, address: IpAddr) -> Result<(), AddressClass> {
        let address = address.to_canonical();
        let Some(class) = class(address) else { return Ok(()) };
        let allowed = self.allowed.iter().filter(|network| network.contains(&address)).any(|network| {
            class != AddressClass::Metadata || network.prefix_len() == network.max_prefix_len()
        });
        if allowed { Ok(()) } else { Err(class) }
    }

    pub(crate) fn admit(&self, address: SocketAddr) -> Result<Admitted, AddressClass> {
        let ip = address.ip().to_canonical();
        self.judge(ip)?;
        Ok(Admitted(SocketAddr::new(ip, address.port())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(allowed: &str, address: &str) -> Result<(), AddressClass> {
        AddressPolicy::new(vec![allowed.parse().unwrap()]).judge(address.parse().unwrap())
    }

    #[test]
    fn an_allowed_network_opens_its_own_addresses_and_no_others() {
        assert_eq!(judge("10.0.0.0/8", "10.1.2.3"), Ok(()));
        assert_eq!(judge("10.0.0.0/8", "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(judge("10.0.0.0/8", "8.8.8.8"), Ok(()));
        assert_eq!(judge("10.0.0.0/8", "192.168.0.1"), Err(AddressClass::Private));
        assert_eq!(judge("10.0.0.0/8", "64:ff9b::10.1.2.3"), Err(AddressClass::Embedding));
        assert_eq!(judge("64:ff9b:1::/48", "64:ff9b:1::10.1.2.3"), Ok(()));
        assert_eq!(judge("fd00::/8", "fd12::1"), Ok(()));
    }

    #[test]
    fn metadata_is_opened_by_its_own_address_alone() {
        assert_eq!(judge("0.0.0.0/0", "169.254.169.254"), Err(AddressClass::Metadata));
        assert_eq!(judge("::/0", "fd00:ec2::254"), Err(AddressClass::Metadata));
        assert_eq!(judge("169.254.0.0/16", "169.254.169.254"), Err(AddressClass::Metadata));
        assert_eq!(judge("169.254.0.0/16", "169.254.1.1"), Ok(()));
        assert_eq!(judge("169.254.169.254/32", "169.254.169.254"), Ok(()));
    }

    #[test]
    fn a_mapped_address_is_connected_to_as_what_it_is() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let admitted = policy.admit("[::ffff:127.0.0.1]:80".parse().unwrap()).unwrap();
        assert_eq!(admitted.address(), "127.0.0.1:80".parse().unwrap());
    }
}
