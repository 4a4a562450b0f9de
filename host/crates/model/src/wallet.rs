/// An address on an EVM chain: `0x` and 40 hexadecimal digits, kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WalletAddress(String);

/// A text that is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWallet {
    /// Not the form of an address.
    #[error("not a wallet address: expected 0x and 40 hexadecimal digits")]
    Malformed,
    /// Mixed case that is not the address's checksum.
    #[error(
        "the wallet address has a wrong checksum (EIP-55): check it for a typing error, or write it all in lower case"
    )]
    Checksum,
}

impl WalletAddress {
    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for WalletAddress {
    type Err = InvalidWallet;

    /// All-lower and all-upper digits carry no checksum and are taken; mixed case must be the checksum of
    /// EIP-55.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").ok_or(InvalidWallet::Malformed)?;
        if digits.len() != 40 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidWallet::Malformed);
        }
        let mixed = digits.bytes().any(|byte| byte.is_ascii_lowercase())
            && digits.bytes().any(|byte| byte.is_ascii_uppercase());
        if mixed && digits != eip55(&digits.to_ascii_lowercase()) {
            return Err(InvalidWallet::Checksum);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for WalletAddress {
    type Error = InvalidWallet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WalletAddress> for String {
    fn from(wallet: WalletAddress) -> Self {
        wallet.0
    }
}

/// Upper-cases a letter where the address's Keccak-256 has a hexadecimal digit of 8 or more (EIP-55).
fn eip55(lower: &str) -> String {
    use sha3::Digest as _;
    let hash = sha3::Keccak256::digest(lower.as_bytes());
    let nibbles = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    lower
        .chars()
        .zip(nibbles)
        .map(|(digit, nibble)| if nibble >= 8 { digit.to_ascii_uppercase() } else { digit })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_eip_55_pass() {
        for text in [
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
            "0x52908400098527886E0F7030069857D2E4169EE7",
            "0xde709f2102306220921060314715629080e2fb77",
        ] {
            assert!(text.parse::<WalletAddress>().is_ok(), "{text}");
        }
    }

    #[test]
    fn a_typing_error_is_found() {
        let text = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1Beaed";
        assert_eq!(text.parse::<WalletAddress>(), Err(InvalidWallet::Checksum));
        for text in [
            "",
            "0x",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
            "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe",
        ] {
            assert_eq!(text.parse::<WalletAddress>(), Err(InvalidWallet::Malformed), "{text}");
        }
    }
}
