//! Passwords: hashed with Argon2id; bcrypt hashes that came from elsewhere are tested too, and replaced.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use ringfence_model::Rng;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use crate::Internal;

/// Argon2id at 19 MiB, two passes, one lane: the first choice of OWASP's Password Storage Cheat Sheet.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;

/// What an imported hash may cost: a hash is something that makes the host work.
const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=12;
const MAX_MEMORY_KIB: u32 = 128 * 1024;
const MAX_PASSES: u32 = 8;

/// Tests at a time: each takes memory and a processor.
const AT_A_TIME: usize = 2;
/// How long a test may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// How passwords are hashed and tested: a few at a time, beside the executor's threads.
#[derive(Clone)]
pub(crate) struct Passwords {
    turns: Arc<Semaphore>,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tested {
    Wrong,
    Right,
    /// Right, and here is a hash as they are made today.
    RightUpgrade(String),
}

/// There are too many logins at once.
#[derive(Debug, thiserror::Error)]
#[error("too many passwords are being tested")]
pub(crate) struct Crowded;

impl Passwords {
    pub(crate) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }

    /// Hashes a password.
    pub(crate) async fn hash(&self, password: &SecretString, rng: &dyn Rng) -> Result<String, PasswordError> {
        let mut salt = [0; 16];
        rng.fill(&mut salt);
        let password = password.clone();
        self.blocking(move || hash(&password, salt)).await?
    }

    /// Tests a password against a hash. Without a hash it does the same work, and says that the password is wrong.
    pub(crate) async fn test(
        &self,
        password: &SecretString,
        hash: Option<String>,
        rng: &dyn Rng,
    ) -> Result<Tested, PasswordError> {
        let mut salt = [0; 16];
        rng.fill(&mut salt);
        let password = password.clone();
        self.blocking(move || test(&password, hash.as_deref(), salt)).await?
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        let turn = tokio::time::timeout(PATIENCE, turn).await.map_err(|_| Crowded)?;
        let turn = turn.map_err(|_| Internal::Invariant("the semaphore of passwords is closed"))?;
        let done = tokio::task::spawn_blocking(move || {
            // The turn is over when the work is, not when whoever waits for it goes away.
            let _turn = turn;
            work()
        });
        Ok(done.await.map_err(|_| Internal::Invariant("testing a password panicked"))?)
    }
}

/// Why a password could not be hashed or tested.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error(transparent)]
    Crowded(#[from] Crowded),
    #[error(transparent)]
    Internal(#[from] Internal),
}

fn argon2() -> Result<Argon2<'static>, Internal> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None)
        .map_err(|_| Internal::Invariant("the parameters of Argon2 are wrong"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &SecretString, salt: [u8; 16]) -> Result<String, PasswordError> {
    let hashed = argon2()?.hash_password_with_salt(password.expose_secret().as_bytes(), &salt);
    Ok(hashed.map_err(|_| Internal::Invariant("Argon2 failed"))?.to_string())
}

/// A hash of nobody's password: what is tested where there is no user.
static NOBODY: LazyLock<Option<String>> =
    LazyLock::new(|| hash(&SecretString::from("nobody has this password"), [7; 16]).ok());

fn test(password: &SecretString, stored: Option<&str>, salt: [u8; 16]) -> Result<Tested, PasswordError> {
    let bytes = password.expose_secret().as_bytes();
    if let Some(stored) = stored.filter(|stored| is_bcrypt(stored)) {
        return Ok(if bcrypt::verify(bytes, stored).unwrap_or(false) {
            Tested::RightUpgrade(hash(password, salt)?)
        } else {
            Tested::Wrong
        });
    }
    let known = stored.is_some();
    let stored = stored.or(NOBODY.as_deref()).ok_or(Internal::Invariant("Argon2 failed"))?;
    let parsed = PasswordHash::new(stored).map_err(|_| Internal::Invariant("a password hash is broken"))?;
    let right = argon2()?.verify_password(bytes, &parsed).is_ok() && known;
    Ok(match right {
        false => Tested::Wrong,
        true if is_current(&parsed) => Tested::Right,
        true => Tested::RightUpgrade(hash(password, salt)?),
    })
}

fn is_bcrypt(hash: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|version| hash.starts_with(version))
}

fn is_current(hash: &PasswordHash) -> bool {
    hash.algorithm.as_str() == "argon2id"
        && Params::try_from(hash)
            .is_ok_and(|params| params.m_cost() >= MEMORY_KIB && params.t_cost() >= PASSES)
}

/// Whether a hash that was made elsewhere can be taken over: Argon2id or bcrypt, at a cost that the host can bear.
pub(crate) fn importable(hash: &str) -> bool {
    if hash.len() > 255 {
        return false;
    }
    if is_bcrypt(hash) {
        let parts: Result<bcrypt::HashParts, _> = hash.parse();
        return parts.is_ok_and(|parts| BCRYPT_COSTS.contains(&parts.get_cost()));
    }
    let Ok(parsed) = PasswordHash::new(hash) else { return false };
    parsed.algorithm.as_str() == "argon2id"
        && parsed.salt.is_some()
        && parsed.hash.is_some()
        && Params::try_from(&parsed).is_ok_and(|params| {
            params.m_cost() <= MAX_MEMORY_KIB && params.t_cost() <= MAX_PASSES && params.p_cost() <= 4
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "correct horse battery staple";

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[test]
    fn a_password_fits_its_own_hash() {
        let hashed = hash(&secret(PASSWORD), [1; 16]).unwrap();
        assert!(hashed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hashed}");
        assert_eq!(test(&secret(PASSWORD), Some(&hashed), [2; 16]).unwrap(), Tested::Right);
        assert_eq!(test(&secret("another one"), Some(&hashed), [2; 16]).unwrap(), Tested::Wrong);
        assert_eq!(test(&secret("nobody has this password"), None, [2; 16]).unwrap(), Tested::Wrong);
    }

    #[test]
    fn a_bcrypt_hash_is_tested_and_replaced() {
        let old = bcrypt::hash(PASSWORD, 4).unwrap();
        assert!(importable(&old));
        let Tested::RightUpgrade(new) = test(&secret(PASSWORD), Some(&old), [3; 16]).unwrap() else {
            panic!("it is to be replaced")
        };
        assert_eq!(test(&secret(PASSWORD), Some(&new), [4; 16]).unwrap(), Tested::Right);
        assert_eq!(test(&secret("wrong"), Some(&old), [3; 16]).unwrap(), Tested::Wrong);
    }

    #[test]
    fn a_weaker_argon2_is_replaced() {
        let weak = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8, 1, 1, None).unwrap());
        let old = weak.hash_password_with_salt(PASSWORD.as_bytes(), &[5; 16]).unwrap().to_string();
        assert!(matches!(test(&secret(PASSWORD), Some(&old), [6; 16]).unwrap(), Tested::RightUpgrade(_)));
    }

    #[test]
    fn a_hash_that_would_cost_hours_is_not_taken() {
        for bad in [
            "",
            "plain text",
            "$2b$31$abcdefghijklmnopqrstuuWQe1IuS5fQhB1j7p1aQyBCr0Jj6Wz2e",
            "$argon2id$v=19$m=4194304,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "$argon2id$v=19$m=19456,t=2000,p=1$AQEBAQEBAQEBAQEBAQEBAQ$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "$argon2i$v=19$m=19456,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
            "$argon2id$v=19$m=19456,t=2,p=1$AQEBAQEBAQEBAQEBAQEBAQ",
        ] {
            assert!(!importable(bad), "{bad}");
        }
    }
}
