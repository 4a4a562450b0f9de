use crate::{Rng, Sha256};

const PREFIX: &str = "rf_live_";
const RANDOM_LENGTH: usize = 32;
const CHECKSUM_LENGTH: usize = 6;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// An API key in the clear. Never stored, never printed: its `Debug` hides it, and it has no `Display`.
///
/// `rf_live_`, then 32 random base-62 digits (190 bits), then 6 digits of checksum. The checksum lets a
/// typing error or a made-up key be refused without asking the database; it keeps nobody out.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// What is stored of a key: its SHA-256. A plain hash is enough for 190 random bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiKeyHash(Sha256);

/// A text that cannot be a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: expected `rf_live_…` with its checksum")]
pub struct MalformedApiKey;

impl ApiKey {
    /// A new key.
    #[must_use]
    pub fn generate(rng: &dyn Rng) -> Self {
        let mut random = String::with_capacity(RANDOM_LENGTH);
        let mut bytes = [0; 64];
        while random.len() < RANDOM_LENGTH {
            rng.fill(&mut bytes);
            // 248 = 4 × 62: what lies above would make some digits likelier than others.
            let digits = bytes
                .iter()
                .filter(|byte| **byte < 248)
                .filter_map(|byte| BASE62.get(usize::from(byte % 62)));
            random.extend(digits.take(RANDOM_LENGTH - random.len()).map(|digit| char::from(*digit)));
        }
        let checksum = checksum(&random);
        Self(format!("{PREFIX}{random}{checksum}"))
    }

    /// Reads a key and tests its checksum.
    ///
    /// # Errors
    /// [`MalformedApiKey`] if it cannot be one of ours.
    pub fn parse(text: &str) -> Result<Self, MalformedApiKey> {
        let body = text.strip_prefix(PREFIX).ok_or(MalformedApiKey)?;
        let (random, sum) = body.split_at_checked(RANDOM_LENGTH).ok_or(MalformedApiKey)?;
        if sum.len() == CHECKSUM_LENGTH
            && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && sum == checksum(random)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedApiKey)
        }
    }

    /// The key itself, to be shown once to its owner.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What to store and look up.
    #[must_use]
    pub fn hash(&self) -> ApiKeyHash {
        ApiKeyHash(Sha256::of(self.0.as_bytes()))
    }

    /// The first characters, by which people tell their keys apart.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.0.get(..PREFIX.len() + 4).unwrap_or(PREFIX)
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

impl ApiKeyHash {
    /// As it is stored.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.to_string()
    }
}

/// The first 31 bits of the digits' SHA-256, in base 62.
fn checksum(random: &str) -> String {
    let digest = Sha256::of(random.as_bytes());
    let [a, b, c, d, ..] = *digest.as_bytes();
    let mut number = u32::from_be_bytes([a, b, c, d]) >> 1;
    let mut digits = [b'0'; CHECKSUM_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62.get((number % 62) as usize).copied().unwrap_or(b'0');
        number /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRng;

    #[test]
    fn a_key_reads_back() {
        let key = ApiKey::generate(&SeededRng::new(7));
        assert_eq!(key.reveal().len(), 46);
        assert_eq!(ApiKey::parse(key.reveal()), Ok(key));
    }

    #[test]
    fn one_wrong_character_is_enough() {
        let key = ApiKey::generate(&SeededRng::new(7)).reveal().to_owned();
        for at in 0..key.len() {
            let mut bytes = key.clone().into_bytes();
            bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(ApiKey::parse(std::str::from_utf8(&bytes).unwrap()), Err(MalformedApiKey), "{at}");
        }
        for text in ["", "rf_live_", &key[..45], &format!("{key}0"), "rf_live_ééééééééééééééééééé"]
        {
            assert_eq!(ApiKey::parse(text), Err(MalformedApiKey), "{text}");
        }
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", ApiKey::generate(&SeededRng::new(7))), "ApiKey(hidden)");
    }
}
