//! Secrets at rest: AES-256-GCM under a master key that is not in the database.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ringfence_model::{Clock, OrgId, Rng, Sha256, hex};
use ringfence_store::secrets::{self, Secret};
use ringfence_store::{Store, Tx};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use crate::Internal;

const KEY_BYTES: usize = 32;
/// How many secrets are in memory while all of them get a new seal.
const RESEALED_AT_A_TIME: u32 = 256;

/// The keys that seal the host's secrets: the first one seals, every one opens.
#[derive(Debug)]
pub struct MasterKeys(Vec<MasterKey>);

struct MasterKey {
    id: String,
    key: LessSafeKey,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MasterKey({})", self.id)
    }
}

/// A text that is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMasterKey {
    /// There is none.
    #[error("there is no master key in it; make one with `ringfence keys generate`")]
    Missing,
    /// Not 32 bytes in base 64.
    #[error(
        "master key {number} is not 32 bytes in base 64 (44 characters); make one with `ringfence keys generate`"
    )]
    Malformed {
        /// Which one, from 1.
        number: usize,
    },
    /// A placeholder or a pattern, not something random.
    #[error(
        "master key {number} is a placeholder: it is not random; make one with `ringfence keys generate`"
    )]
    Placeholder {
        /// Which one, from 1.
        number: usize,
    },
}

/// A secret that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// None of the master keys is the one that it was sealed with.
    #[error(
        "the secret `{id}` is sealed under the master key {master_key_id}, which this host does not have (it has {known}); \
         give it the master key of the host that made this database"
    )]
    UnknownKey {
        /// Which secret.
        id: String,
        /// The key that would open it.
        master_key_id: String,
        /// The keys that there are.
        known: String,
    },
    /// The sealed bytes, or what they belong to, were changed.
    #[error("the secret `{0}` cannot be opened: it was changed, or put in another one's place")]
    Tampered(String),
}

impl MasterKeys {
    /// Reads keys: 32 bytes in base 64 each, one a line or separated by commas, the one that seals first. Lines that
    /// begin with `#` are left out.
    ///
    /// # Errors
    /// [`BadMasterKey`] for what is no key, or was not drawn at random.
    pub fn parse(text: &SecretString) -> Result<Self, BadMasterKey> {
        let lines = text.expose_secret().lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let keys = lines.flat_map(|line| line.split(',')).map(str::trim).filter(|key| !key.is_empty());
        let keys: Vec<_> =
            keys.enumerate().map(|(at, key)| MasterKey::parse(key, at + 1)).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(BadMasterKey::Missing) } else { Ok(Self(keys)) }
    }

    /// A new key, as it is written into a file.
    #[must_use]
    pub fn generate(rng: &dyn Rng) -> SecretString {
        let mut bytes = [0; KEY_BYTES];
        rng.fill(&mut bytes);
        BASE64.encode(bytes).into()
    }

    /// What the key is called that seals: it tells nothing of the key.
    #[must_use]
    pub fn sealing_id(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    fn seal(&self, id: &str, kind: &str, bytes: &[u8], rng: &dyn Rng) -> Result<(String, String), Internal> {
        let key = self.0.first().ok_or(Internal::Invariant("there is no master key"))?;
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let mut sealed = bytes.to_vec();
        key.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(belongs_to(id, kind)),
                &mut sealed,
            )
            .map_err(|_| Internal::Invariant("a secret could not be sealed"))?;
        Ok((BASE64.encode([&nonce[..], &sealed].concat()), key.id.clone()))
    }

    pub(crate) fn open(&self, secret: &Secret) -> Result<SecretBox<Vec<u8>>, SealError> {
        let tampered = || SealError::Tampered(secret.id.clone());
        let key = self.0.iter().find(|key| key.id == secret.master_key_id);
        let key = key.ok_or_else(|| SealError::UnknownKey {
            id: secret.id.clone(),
            master_key_id: secret.master_key_id.clone(),
            known: self.0.iter().map(|key| key.id.as_str()).collect::<Vec<_>>().join(", "),
        })?;
        let bytes = BASE64.decode(&secret.sealed).map_err(|_| tampered())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(tampered)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| tampered())?;
        let mut sealed = sealed.to_vec();
        let opened = key
            .key
            .open_in_place(nonce, Aad::from(belongs_to(&secret.id, &secret.kind)), &mut sealed)
            .map_err(|_| tampered())?;
        Ok(SecretBox::new(Box::new(opened.to_vec())))
    }
}

impl MasterKey {
    fn parse(text: &str, number: usize) -> Result<Self, BadMasterKey> {
        let bytes = BASE64.decode(text).map_err(|_| BadMasterKey::Malformed { number })?;
        if bytes.len() != KEY_BYTES {
            return Err(BadMasterKey::Malformed { number });
        }
        let mut distinct = bytes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        // 32 random bytes have fewer than 20 values among them once in 10¹² draws; text and patterns always do, or are printable.
        if distinct.len() < 20 || bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) {
            return Err(BadMasterKey::Placeholder { number });
        }
        let digest = Sha256::of(&[b"ringfence master key id", &bytes[..]].concat());
        let id = digest.as_bytes().get(..6).map(hex).unwrap_or_default();
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| BadMasterKey::Malformed { number })?;
        Ok(Self { id, key: LessSafeKey::new(key) })
    }
}

/// What a sealed text is bound to, so that one cannot be put in another one's place.
fn belongs_to(id: &str, kind: &str) -> Vec<u8> {
    format!("ringfence secret\0{kind}\0{id}").into_bytes()
}

/// Keeps a secret of the platform's, unless there is one of this id. Whether there was none.
pub(crate) async fn keep(
    tx: &mut Tx,
    master: &MasterKeys,
    (clock, rng): (&dyn Clock, &dyn Rng),
    (id, kind): (&str, &str),
    bytes: &[u8],
) -> Result<bool, Internal> {
    let (sealed, master_key_id) = master.seal(id, kind, bytes, rng)?;
    let secret = Secret {
        id: id.to_owned(),
        org_id: OrgId::platform(),
        kind: kind.to_owned(),
        sealed,
        master_key_id,
        created_at: clock.now(),
    };
    Ok(secrets::insert(tx, &secret).await?)
}

/// Keeps a secret of an org's, in the place of the one of this id if there is one.
pub(crate) async fn put(
    tx: &mut Tx,
    master: &MasterKeys,
    (clock, rng): (&dyn Clock, &dyn Rng),
    org: &OrgId,
    (id, kind): (&str, &str),
    bytes: &[u8],
) -> Result<(), Internal> {
    let (sealed, master_key_id) = master.seal(id, kind, bytes, rng)?;
    let (id, org_id, kind) = (id.to_owned(), org.clone(), kind.to_owned());
    let secret = Secret { id, org_id, kind, sealed, master_key_id, created_at: clock.now() };
    Ok(secrets::put(tx, &secret).await?)
}

/// A secret that was opened.
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) bytes: SecretBox<Vec<u8>>,
}

/// The secrets of a kind, oldest first.
pub(crate) async fn of_kind(store: &Store, master: &MasterKeys, kind: &str) -> Result<Vec<Opened>, Internal> {
    let mut reader = store.reader().await?;
    let sealed = secrets::of_kind(&mut reader, kind).await?;
    let open = |secret: &Secret| -> Result<Opened, Internal> {
        Ok(Opened { id: secret.id.clone(), bytes: master.open(secret)? })
    };
    sealed.iter().map(open).collect()
}

/// Whether the database holds secrets, which only its master key opens.
///
/// # Errors
/// [`Internal`] if the database fails.
pub async fn is_sealed(store: &Store) -> Result<bool, Internal> {
    Ok(secrets::any(&mut store.reader().await?).await?)
}

/// Seals every secret under the first master key; how many were sealed under another one before.
///
/// # Errors
/// [`Internal::Secret`] if one cannot be opened: then nothing is changed.
pub async fn reseal_all(store: &Store, master: &MasterKeys, rng: &dyn Rng) -> Result<u32, Internal> {
    let mut tx = store.begin().await?;
    let (mut resealed, mut after) = (0, String::new());
    loop {
        let page = secrets::page(&mut tx, &after, RESEALED_AT_A_TIME).await?;
        for secret in &page {
            // Opened even if it needs no new seal: whoever rotates keys wants to know that all of them can be.
            let bytes = master.open(secret)?;
            if secret.master_key_id == master.sealing_id() {
                continue;
            }
            let (sealed, new_key) = master.seal(&secret.id, &secret.kind, bytes.expose_secret(), rng)?;
            if !secrets::reseal(&mut tx, &secret.id, &sealed, &new_key, &secret.master_key_id).await? {
                return Err(Internal::Invariant(
                    "a secret was resealed by somebody else meanwhile; try again",
                ));
            }
            resealed += 1;
        }
        let Some(last) = page.last() else { break };
        after.clone_from(&last.id);
    }
    tx.commit().await?;
    Ok(resealed)
}

#[cfg(test)]
mod tests {
    use ringfence_model::{SeededRng, Timestamp};

    use super::*;

    fn keys(seeds: &[u64]) -> MasterKeys {
        let texts: Vec<_> = seeds
            .iter()
            .map(|seed| MasterKeys::generate(&SeededRng::new(*seed)).expose_secret().to_owned())
            .collect();
        MasterKeys::parse(&texts.join("\n# a comment\n").into()).unwrap()
    }

    fn secret(master: &MasterKeys, id: &str, bytes: &[u8]) -> Secret {
        let (sealed, master_key_id) = master.seal(id, "test", bytes, &SeededRng::new(9)).unwrap();
        let (org_id, created_at) = (OrgId::platform(), Timestamp::EPOCH);
        Secret { id: id.to_owned(), org_id, kind: "test".to_owned(), sealed, master_key_id, created_at }
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_alone() {
        let old = keys(&[1]);
        let sealed = secret(&old, "a", b"the secret");
        assert_eq!(keys(&[2, 1]).open(&sealed).unwrap().expose_secret(), b"the secret");
        let unknown = keys(&[2]).open(&sealed).unwrap_err();
        assert!(unknown.to_string().contains(old.sealing_id()), "{unknown}");
    }

    #[test]
    fn what_was_changed_or_moved_is_refused() {
        let master = keys(&[1]);
        let sealed = secret(&master, "a", b"the secret");
        let mut moved = sealed.clone();
        moved.id = "b".to_owned();
        let mut other_kind = sealed.clone();
        other_kind.kind = "other".to_owned();
        let mut bytes = BASE64.decode(&sealed.sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let changed = Secret { sealed: BASE64.encode(&bytes), ..sealed.clone() };
        let cut = Secret { sealed: BASE64.encode(&bytes[..5]), ..sealed.clone() };
        let junk = Secret { sealed: "not base 64!".to_owned(), ..sealed };
        for bad in [moved, other_kind, changed, cut, junk] {
            assert!(matches!(master.open(&bad), Err(SealError::Tampered(_))), "{bad:?}");
        }
    }

    #[test]
    fn placeholders_are_no_keys() {
        let parse = |text: &str| MasterKeys::parse(&text.to_owned().into()).unwrap_err();
        assert_eq!(parse(""), BadMasterKey::Missing);
        assert_eq!(parse("# only a comment\n"), BadMasterKey::Missing);
        assert_eq!(parse("changeme"), BadMasterKey::Malformed { number: 1 });
        assert_eq!(parse(&BASE64.encode([0; 32])), BadMasterKey::Placeholder { number: 1 });
        assert_eq!(
            parse(&BASE64.encode(b"0123456789abcdefghijklmnopqrstuv")),
            BadMasterKey::Placeholder { number: 1 }
        );
        assert_eq!(parse(&BASE64.encode([7; 31])), BadMasterKey::Malformed { number: 1 });
    }

    #[test]
    fn nothing_is_shown() {
        let master = keys(&[1]);
        let text = format!("{master:?} {:?}", secret(&master, "a", b"the secret"));
        let key = MasterKeys::generate(&SeededRng::new(1));
        assert!(!text.contains(key.expose_secret()) && !text.contains("the secret"), "{text}");
    }
}
