use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in millionths of a USDC, never negative. A decimal string with six places in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MicroUsdc(i64);

/// A text that is not an amount of USDC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMoney {
    /// Not digits with at most one point between them.
    #[error("not an amount: write USDC as plain digits, like \"12.50\"; no sign, exponent or separator")]
    Malformed,
    /// More precise than money is.
    #[error("USDC has six decimal places at most")]
    TooPrecise,
    /// Above [`MicroUsdc::MAX`].
    #[error("more than the largest amount, {} USDC", MicroUsdc::MAX)]
    TooLarge,
}

impl MicroUsdc {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// A thousand million USDC. Nine thousand of these still fit an account's balance.
    pub const MAX: Self = Self(1_000_000_000_000_000);

    /// From millionths; `None` if negative. (A balance may pass [`Self::MAX`], an amount asked for may not.)
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros < 0 { None } else { Some(Self(micros)) }
    }

    /// In millionths of a USDC.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The sum, unless it does not fit.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// The difference, unless it is negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        Self::from_micros(self.0.wrapping_sub(other.0))
    }
}

impl std::fmt::Display for MicroUsdc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl std::str::FromStr for MicroUsdc {
    type Err = InvalidMoney;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(places) {
            return Err(InvalidMoney::Malformed);
        }
        if places.len() > 6 {
            return Err(InvalidMoney::TooPrecise);
        }
        let whole: i64 = whole.parse().map_err(|_| InvalidMoney::TooLarge)?;
        let micros: i64 = format!("{places:0<6}").parse().map_err(|_| InvalidMoney::Malformed)?;
        let total = whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros));
        match total {
            Some(total) if total <= Self::MAX.0 => Ok(Self(total)),
            _ => Err(InvalidMoney::TooLarge),
        }
    }
}

impl Serialize for MicroUsdc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MicroUsdc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The platform's share of a price in basis points, 0 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct FeeBps(u16);

/// A price divided between the worker and the platform. The two parts make the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeeSplit {
    /// What the worker gets.
    pub payout: MicroUsdc,
    /// What the platform keeps.
    pub fee: MicroUsdc,
}

impl FeeBps {
    /// The platform's usual share: 20 %.
    pub const DEFAULT: Self = Self(2000);

    /// The share as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Divides `price`. The fee is rounded down to a whole micro-USDC, so what is lost in rounding goes to
    /// the worker.
    #[must_use]
    pub fn split(self, price: MicroUsdc) -> FeeSplit {
        // In 128 bits: the product of the largest balance and 10,000 does not fit 64.
        let fee = i128::from(price.0) * i128::from(self.0) / 10_000;
        let fee = i64::try_from(fee).unwrap_or(price.0);
        FeeSplit { payout: MicroUsdc(price.0 - fee), fee: MicroUsdc(fee) }
    }
}

impl TryFrom<u16> for FeeBps {
    type Error = String;

    fn try_from(bps: u16) -> Result<Self, Self::Error> {
        if bps <= 10_000 { Ok(Self(bps)) } else { Err("a fee is 0 to 10000 basis points".to_owned()) }
    }
}

impl From<FeeBps> for u16 {
    fn from(fee: FeeBps) -> Self {
        fee.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, micros) in
            [("0", 0), ("1", 1_000_000), ("12.5", 12_500_000), ("0.000001", 1), ("007.10", 7_100_000)]
        {
            assert_eq!(text.parse(), Ok(MicroUsdc(micros)), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_amount_is_refused() {
        use InvalidMoney::{Malformed, TooLarge, TooPrecise};
        for (text, error) in [
            ("", Malformed),
            ("-1", Malformed),
            ("+1", Malformed),
            ("1e3", Malformed),
            ("1,000", Malformed),
            (".5", Malformed),
            ("5.", Malformed),
            ("1.2.3", Malformed),
            (" 1", Malformed),
            ("١", Malformed),
            ("0.0000001", TooPrecise),
            ("1000000000.000001", TooLarge),
            ("99999999999999999999", TooLarge),
        ] {
            assert_eq!(text.parse::<MicroUsdc>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_reads_back(micros in 0..=MicroUsdc::MAX.0) {
            prop_assert_eq!(MicroUsdc(micros).to_string().parse::<MicroUsdc>(), Ok(MicroUsdc(micros)));
        }

        #[test]
        fn a_split_neither_loses_nor_makes_money(micros in 0..=i64::MAX, bps in 0u16..=10_000) {
            let split = FeeBps(bps).split(MicroUsdc(micros));
            prop_assert_eq!(split.payout.checked_add(split.fee), Some(MicroUsdc(micros)));
            prop_assert!(split.fee.0 >= 0 && split.payout.0 >= 0);
        }
    }
}
