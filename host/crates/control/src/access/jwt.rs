//! Access and refresh tokens: JWTs (RFC 7519) under HMAC-SHA-256, the only algorithm that this process knows.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use ringfence_model::{SessionId, SigningKeyId, Timestamp, UserId, words};
use ringfence_store::Store;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use signature::{Signer, Verifier};

use super::LEASE;
use super::lease::Renewed;
use crate::Internal;
use crate::secrets::{self, MasterKeys};

/// Under which signing keys are kept.
pub(crate) const SIGNING_KEY: &str = "signing-key";

const ISSUER: &str = "ringfence";
/// How old the keys may be when a token names one that is not among them.
const UNKNOWN: Duration = Duration::from_millis(50);
/// The longest token that is looked at, in bytes; ours have about 400.
const MAX_TOKEN_BYTES: usize = 1024;

words! {
    /// What a token is for. Each kind has an audience of its own, so one is never taken for the other.
    TokenType ("token type") {
        /// Comes with every request; short-lived.
        Access = "access",
        /// Is exchanged for new tokens, once.
        Refresh = "refresh",
    }
}

impl TokenType {
    const fn audience(self) -> &'static str {
        match self {
            Self::Access => "ringfence-api",
            Self::Refresh => "ringfence-refresh",
        }
    }
}

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    pub(crate) sub: UserId,
    /// The session, which both tokens of a pair name.
    pub(crate) sid: SessionId,
    token_type: TokenType,
    /// Which exchange of the session's refresh tokens this one comes from.
    #[serde(rename = "gen")]
    pub(crate) generation: u32,
    iat: i64,
    exp: i64,
}

impl Claims {
    pub(crate) fn new(
        token_type: TokenType,
        (sub, sid): (UserId, SessionId),
        generation: u32,
        (now, expires_at): (Timestamp, Timestamp),
    ) -> Self {
        let (iss, aud) = (ISSUER.to_owned(), token_type.audience().to_owned());
        Self { iss, aud, sub, sid, token_type, generation, iat: seconds(now), exp: seconds(expires_at) }
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(1_000_000)
}

/// A token that is not good. The caller hears the same whatever it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadToken {
    #[error("the token is not one of ours, or was changed")]
    Forged,
    #[error("the token has expired")]
    Expired,
    #[error(transparent)]
    Internal(#[from] Internal),
}

/// The keys that sign and verify. Read from the database, where they are sealed.
pub(crate) struct SigningKeys(Renewed<Keys>);

/// Oldest first: the last one signs.
type Keys = Arc<[Arc<SigningKey>]>;

struct SigningKey {
    id: SigningKeyId,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl SigningKeys {
    pub(crate) async fn load(store: &Store, master: &MasterKeys) -> Result<Self, Internal> {
        install_hmac();
        let read_at = Instant::now();
        Ok(Self(Renewed::new(read(store, master).await?, read_at)))
    }

    /// Signs with the newest key.
    pub(crate) async fn sign(
        &self,
        claims: &Claims,
        (store, master): (&Store, &MasterKeys),
    ) -> Result<String, Internal> {
        let keys = self.at_most(LEASE, store, master).await?;
        let key = keys.last().ok_or(Internal::Invariant("there is no signing key"))?;
        let header = Header { kid: Some(key.id.to_string()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &key.encoding)
            .map_err(|_| Internal::Invariant("a token could not be signed"))
    }

    /// What a token says, if it is one of ours, of this type, and not too old.
    pub(crate) async fn verify(
        &self,
        token: &str,
        expected: TokenType,
        now: Timestamp,
        (store, master): (&Store, &MasterKeys),
    ) -> Result<Claims, BadToken> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(BadToken::Forged);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| BadToken::Forged)?;
        let kid = header.kid.and_then(|kid| kid.parse::<SigningKeyId>().ok()).ok_or(BadToken::Forged)?;
        let known = self.0.held().iter().any(|key| key.id == kid);
        // Another host may have made a key that is not known just now. Whoever makes ids up asks the database no more often
        // than this; whoever forges the signature of a known one, not at all.
        let mut keys = if known { self.0.held() } else { self.at_most(UNKNOWN, store, master).await? };
        let claims = claims_under(&keys, &kid, token, expected)?;
        if known {
            keys = self.at_most(LEASE, store, master).await?;
            if !keys.iter().any(|key| key.id == kid) {
                return Err(BadToken::Forged);
            }
        }
        if claims.exp <= seconds(now) {
            return Err(BadToken::Expired);
        }
        Ok(claims)
    }

    /// The keys, as they were this long ago at most: within [`LEASE`], a key that was forgotten verifies nothing any more.
    async fn at_most(&self, age: Duration, store: &Store, master: &MasterKeys) -> Result<Keys, Internal> {
        let renew = async |keys| match read(store, master).await {
            // The master key was rotated and this host was not restarted: it goes on with the keys that it has.
            Err(error @ Internal::Secret(_)) => {
                tracing::error!(%error, "the signing keys cannot be opened; restart this host with the new master key");
                still_there(store, keys).await
            }
            read => read,
        };
        self.0.at_most(age, renew).await
    }
}

/// What a token says, if one of these keys has signed it, for this purpose.
fn claims_under(
    keys: &Keys,
    kid: &SigningKeyId,
    token: &str,
    expected: TokenType,
) -> Result<Claims, BadToken> {
    let key = keys.iter().find(|key| key.id == *kid).ok_or(BadToken::Forged)?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_audience(&[expected.audience()]);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    // The library would ask the machine for the time; here it comes from the clock, afterwards.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
    let claims = claims.map_err(|_| BadToken::Forged)?.claims;
    if claims.token_type == expected { Ok(claims) } else { Err(BadToken::Forged) }
}

/// Those of the keys that were not forgotten: that can be seen without opening them.
async fn still_there(store: &Store, keys: Keys) -> Result<Keys, Internal> {
    let sealed = ringfence_store::secrets::of_kind(&mut store.reader().await?, SIGNING_KEY).await?;
    let kept = keys.iter().filter(|key| sealed.iter().any(|secret| secret.id == key.id.as_str()));
    Ok(kept.cloned().collect())
}

async fn read(store: &Store, master: &MasterKeys) -> Result<Keys, Internal> {
    let opened = secrets::of_kind(store, master, SIGNING_KEY).await?;
    let keys = opened.into_iter().map(|secret| {
        let bytes = secret.bytes.expose_secret();
        Ok(Arc::new(SigningKey {
            id: secret.id.parse().map_err(|_| Internal::Invariant("a signing key has no proper id"))?,
            encoding: EncodingKey::from_secret(bytes),
            decoding: DecodingKey::from_secret(bytes),
        }))
    });
    keys.collect()
}

/// Gives `jsonwebtoken` HMAC-SHA-256 by ring, and nothing else: a token that names another algorithm finds none.
fn install_hmac() {
    static PROVIDER: OnceLock<CryptoProvider> = OnceLock::new();
    let provider = PROVIDER.get_or_init(|| CryptoProvider {
        signer_factory: |algorithm, key| {
            only_hmac(*algorithm, key.family())?;
            Ok(Box::new(HmacSha256(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))))
        },
        verifier_factory: |algorithm, key| {
            only_hmac(*algorithm, key.family())?;
            Ok(Box::new(HmacSha256(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))))
        },
        key_utils: KeyUtils::new_unimplemented(),
    });
    // A second host in this process, in a test, finds it installed.
    let _ = provider.install_default();
}

fn only_hmac(algorithm: Algorithm, family: AlgorithmFamily) -> jsonwebtoken::errors::Result<()> {
    if algorithm == Algorithm::HS256 && family == AlgorithmFamily::Hmac {
        Ok(())
    } else {
        Err(ErrorKind::InvalidAlgorithm.into())
    }
}

struct HmacSha256(hmac::Key);

impl Signer<Vec<u8>> for HmacSha256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for HmacSha256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtSigner for HmacSha256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for HmacSha256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfence_model::{Clock as _, ManualClock, OrgId, SeededRng};
    use ringfence_store::accounts::{self, Org};

    use super::*;
    use crate::access::new_signing_key;

    struct Signed {
        store: Store,
        master: MasterKeys,
        keys: SigningKeys,
        clock: ManualClock,
        _folder: tempfile::TempDir,
    }

    impl Signed {
        async fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store =
                Store::connect(&format!("sqlite:{}", folder.path().join("x.db").display())).await.unwrap();
            let (clock, rng) = (ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()), SeededRng::new(1));
            let master = MasterKeys::parse(&MasterKeys::generate(&rng)).unwrap();
            let mut tx = store.begin().await.unwrap();
            let org = Org { id: OrgId::platform(), name: "operators".to_owned(), created_at: clock.now() };
            accounts::insert_org(&mut tx, &org).await.unwrap();
            new_signing_key(&mut tx, &master, (&clock, &rng)).await.unwrap();
            tx.commit().await.unwrap();
            let keys = SigningKeys::load(&store, &master).await.unwrap();
            Self { store, master, keys, clock, _folder: folder }
        }

        fn claims(&self, token_type: TokenType, good_for: Duration) -> Claims {
            let rng = SeededRng::new(2);
            let who = (UserId::new(&self.clock, &rng), SessionId::new(&self.clock, &rng));
            let now = self.clock.now();
            Claims::new(token_type, who, 1, (now, now.plus(good_for)))
        }

        async fn sign(&self, claims: &Claims) -> String {
            self.keys.sign(claims, (&self.store, &self.master)).await.unwrap()
        }

        async fn verify(&self, token: &str, expected: TokenType) -> Result<Claims, BadToken> {
            self.keys.verify(token, expected, self.clock.now(), (&self.store, &self.master)).await
        }
    }

    #[tokio::test]
    async fn a_token_is_good_until_its_time_is_over() {
        let signed = Signed::new().await;
        let claims = signed.claims(TokenType::Access, Duration::from_secs(900));
        let token = signed.sign(&claims).await;
        assert_eq!(signed.verify(&token, TokenType::Access).await.unwrap(), claims);
        signed.clock.advance(Duration::from_secs(899));
        assert!(signed.verify(&token, TokenType::Access).await.is_ok());
        signed.clock.advance(Duration::from_secs(1));
        assert!(matches!(signed.verify(&token, TokenType::Access).await, Err(BadToken::Expired)));
        // One that is both of another kind and too old tells nothing of its age.
        assert!(matches!(signed.verify(&token, TokenType::Refresh).await, Err(BadToken::Forged)));
    }

    #[tokio::test]
    async fn each_claim_that_is_tested_matters() {
        let signed = Signed::new().await;
        let good = signed.claims(TokenType::Access, Duration::from_secs(900));
        let changes: [fn(&mut Claims); 4] = [
            |claims| claims.iss = "somebody".to_owned(),
            |claims| claims.aud = "another".to_owned(),
            |claims| claims.aud = TokenType::Refresh.audience().to_owned(),
            |claims| claims.token_type = TokenType::Refresh,
        ];
        for change in changes {
            let mut claims = good.clone();
            change(&mut claims);
            let token = signed.sign(&claims).await;
            assert!(
                matches!(signed.verify(&token, TokenType::Access).await, Err(BadToken::Forged)),
                "{claims:?}"
            );
        }
    }

    #[tokio::test]
    async fn no_other_algorithm_is_known() {
        let signed = Signed::new().await;
        let claims = signed.claims(TokenType::Access, Duration::from_secs(900));
        let key = EncodingKey::from_secret(b"any key");
        for algorithm in [Algorithm::HS384, Algorithm::HS512, Algorithm::RS256, Algorithm::EdDSA] {
            assert!(jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).is_err(), "{algorithm:?}");
        }
    }
}
