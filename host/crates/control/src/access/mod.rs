//! Who calls: keys, users, sessions and tokens.
//!
//! What is known of a key or a session is kept in memory for [`LEASE`] at most, counted from before it was read. Whoever
//! takes rights away answers only when that time has passed on every host ([`Control::in_force`]): what is revoked is
//! revoked everywhere once the answer says so, whether hosts can hear of each other or not.

mod jwt;
mod keys;
mod lease;
mod passwords;
mod sessions;
mod users;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::hmac;
use ringfence_model::{ApiKey, ApiKeyHash, Clock, Rng, SessionId, SigningKeyId, Timestamp};
use ringfence_store::keys::Key;
use ringfence_store::sessions::UserSession;
use ringfence_store::{Session, Store, Tx};
use secrecy::ExposeSecret as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use keys::{KeyError, KeyLimits, KeyView, MadeKey, NewKey, RotateKey};
pub(crate) use keys::{first_operator_key, fresh};
pub use sessions::{Login, PasswordChange, SessionError, TokensView, WhoAmI};
pub use users::{NewUser, UserChanges, UserError, UserView};

use crate::caller::{Identity, KeyBounds, Quotas};
use crate::secrets::{self, MasterKeys};
use crate::{Caller, Control, Denied, Internal, Origin};
use jwt::{BadToken, SigningKeys, TokenType};
pub(crate) use lease::{Leased, Renewed};
use passwords::Passwords;

/// How long a host may go by what it has read of a key, a session or the policies.
pub(crate) const LEASE: Duration = Duration::from_millis(500);
/// How exact the time of a key's last use is.
const TOUCH_EVERY: Duration = Duration::from_secs(60);
/// How many unknown credentials are looked up at a time that come from where too many wrong ones came.
const SUSPECTS_AT_A_TIME: usize = 2;
/// How long one of them waits for its turn.
const SUSPECTS_PATIENCE: Duration = Duration::from_secs(2);
/// How many keys, and how many sessions, are kept in memory.
const KEPT: usize = 20_000;

/// What a host holds to find out who calls.
pub(crate) struct Access {
    pub(crate) master: MasterKeys,
    pub(crate) audit_key: hmac::Key,
    signing: SigningKeys,
    passwords: Passwords,
    keys: Leased<ApiKeyHash, KnownKey>,
    sessions: Leased<SessionId, UserSession>,
    suspects: Arc<Semaphore>,
}

/// A key as callers are made of it, cheap to copy.
#[derive(Clone)]
struct KnownKey {
    key: Arc<Key>,
    scopes: Arc<[String]>,
}

impl KnownKey {
    fn new(mut key: Key) -> Self {
        let scopes = std::mem::take(&mut key.scopes).into();
        Self { key: Arc::new(key), scopes }
    }
}

/// Why a credential was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Neither a key nor a token of ours, or with a typing error.
    #[error("the credential is malformed or unknown")]
    Unknown,
    /// A token of ours whose time is over.
    #[error("the token has expired")]
    Expired,
    /// It could not be looked up.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl Access {
    /// Makes the host's secrets, on a database that has none.
    pub(crate) async fn seed(
        tx: &mut Tx,
        master: &MasterKeys,
        (clock, rng): (&dyn Clock, &dyn Rng),
    ) -> Result<(), Internal> {
        if ringfence_store::secrets::of_kind(tx, jwt::SIGNING_KEY).await?.is_empty() {
            new_signing_key(tx, master, (clock, rng)).await?;
        }
        let audit = (AUDIT_KEY, AUDIT_KEY);
        secrets::keep(tx, master, (clock, rng), audit, &random(rng)).await?;
        Ok(())
    }

    /// Opens the host's secrets.
    pub(crate) async fn open(store: &Store, master: MasterKeys) -> Result<Self, Internal> {
        Ok(Self {
            audit_key: audit_key(store, &master).await?,
            signing: SigningKeys::load(store, &master).await?,
            passwords: Passwords::new(),
            keys: Leased::new(KEPT),
            sessions: Leased::new(KEPT),
            suspects: Arc::new(Semaphore::new(SUSPECTS_AT_A_TIME)),
            master,
        })
    }

    /// Forgets what is known of keys and sessions.
    pub(crate) fn forget(&self) {
        self.keys.forget();
        self.sessions.forget();
    }
}

const AUDIT_KEY: &str = "audit-key";

/// The key under which the audit log is chained.
pub(crate) async fn audit_key(store: &Store, master: &MasterKeys) -> Result<hmac::Key, Internal> {
    let keys = secrets::of_kind(store, master, AUDIT_KEY).await?;
    let key = keys
        .first()
        .ok_or(Internal::Invariant("the database has no audit key: no host has started on it"))?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, key.bytes.expose_secret()))
}

fn random(rng: &dyn Rng) -> [u8; 32] {
    let mut bytes = [0; 32];
    rng.fill(&mut bytes);
    bytes
}

async fn new_signing_key(
    tx: &mut Tx,
    master: &MasterKeys,
    (clock, rng): (&dyn Clock, &dyn Rng),
) -> Result<SigningKeyId, Internal> {
    let id = SigningKeyId::new(clock, rng);
    secrets::keep(tx, master, (clock, rng), (id.as_str(), jwt::SIGNING_KEY), &random(rng)).await?;
    Ok(id)
}

impl Control {
    /// Finds out who holds an API key or an access token.
    ///
    /// # Errors
    /// [`AuthenticationError`]; what cannot be one of ours is refused without asking the database.
    pub async fn authenticate(
        &self,
        credential: &str,
        origin: Origin,
    ) -> Result<Caller, AuthenticationError> {
        if let Ok(key) = ApiKey::parse(credential) {
            return self.caller_of_key(&key, origin).await;
        }
        if credential.starts_with("rf_") {
            return Err(AuthenticationError::Unknown);
        }
        let (now, proved_at) = (self.clock.now(), Instant::now());
        let keys = (&self.store, &self.access.master);
        let claims = match self.access.signing.verify(credential, TokenType::Access, now, keys).await {
            Ok(claims) => claims,
            Err(BadToken::Forged) => return Err(AuthenticationError::Unknown),
            Err(BadToken::Expired) => return Err(AuthenticationError::Expired),
            Err(BadToken::Internal(error)) => return Err(error.into()),
        };
        let session = self.session(&claims.sid).await?;
        let (session, read_at) = session.ok_or(AuthenticationError::Unknown)?;
        if session.user_id != claims.sub || !is_open(&session, now) {
            return Err(AuthenticationError::Unknown);
        }
        let identity = Identity::User { id: session.user_id, session: session.id, role: session.role };
        Ok(Caller::new(identity, session.org_id, None, origin, read_at.min(proved_at)))
    }

    /// Whether finding out who holds this needs nothing of the database.
    #[must_use]
    pub fn remembers(&self, credential: &str) -> bool {
        // Of tokens only those are looked up whose signature is right.
        ApiKey::parse(credential).map_or(true, |key| self.access.keys.holds(&key.hash()))
    }

    async fn caller_of_key(&self, key: &ApiKey, origin: Origin) -> Result<Caller, AuthenticationError> {
        let hash = key.hash();
        let found = self.access.keys.get(&hash, || async {
            let mut reader = self.store.reader().await?;
            let found = ringfence_store::keys::find(&mut reader, &hash).await?;
            Ok::<_, Internal>(found.inspect(|key| self.note_use(key)).map(KnownKey::new))
        });
        let (KnownKey { key, scopes }, read_at) = found.await?.ok_or(AuthenticationError::Unknown)?;
        if !counts(&key, self.clock.now()) {
            return Err(AuthenticationError::Unknown);
        }
        let (reads_per_minute, writes_per_minute) = (key.reads_per_minute, key.writes_per_minute);
        let quotas = Quotas { reads_per_minute, writes_per_minute };
        let bounds = KeyBounds { scopes, quotas, expires_at: key.expires_at };
        let identity = match (&key.agent_id, key.role) {
            (Some(id), None) => Identity::Agent { id: id.clone(), key: key.id.clone() },
            (None, Some(role)) => Identity::Service { key: key.id.clone(), role },
            _ => return Err(Internal::Invariant("a key is neither an agent's nor a service key").into()),
        };
        Ok(Caller::new(identity, key.org_id.clone(), Some(bounds), origin, read_at))
    }

    /// Whether a caller is still who it was. A request can take long between its head, which proves who asks, and its body,
    /// which says for what: what was found out before the lease is asked for again.
    pub(crate) async fn is_still(&self, caller: &Caller) -> Result<bool, Internal> {
        if caller.proved_at().elapsed() < LEASE {
            return Ok(true);
        }
        self.holds(&mut self.store.reader().await?, caller).await
    }

    /// That a caller is still who it was, by what is in the database as the transaction sees it.
    pub(crate) async fn confirm(&self, tx: &mut Tx, caller: &Caller) -> Result<(), Denied> {
        if self.holds(tx, caller).await? { Ok(()) } else { Err(Denied::Gone) }
    }

    async fn holds(&self, session: &mut Session, caller: &Caller) -> Result<bool, Internal> {
        let now = self.clock.now();
        Ok(match caller.identity() {
            Identity::Agent { key, .. } | Identity::Service { key, .. } => {
                ringfence_store::keys::get(session, key).await?.is_some_and(|key| counts(&key, now))
            }
            Identity::Bot { id, agent } => {
                ringfence_store::market_bots::works_for(session, id, agent).await?
            }
            Identity::User { session: id, role, .. } => ringfence_store::sessions::get(session, id)
                .await?
                .is_some_and(|session| is_open(&session, now) && session.role == *role),
        })
    }

    async fn session(&self, id: &SessionId) -> Result<Option<(UserSession, Instant)>, Internal> {
        let found = self.access.sessions.get(id, || async {
            let mut reader = self.store.reader().await?;
            Ok::<_, Internal>(ringfence_store::sessions::get(&mut reader, id).await?)
        });
        found.await
    }

    /// Notes that a key was used, now and then, beside the request.
    fn note_use(&self, key: &Key) {
        let now = self.clock.now();
        if !counts(key, now) || key.last_used_at.is_some_and(|last| last.plus(TOUCH_EVERY) > now) {
            return;
        }
        let (store, id) = (self.store.clone(), key.id.clone());
        tokio::spawn(async move {
            let touched = async {
                let mut tx = store.begin().await?;
                ringfence_store::keys::touch(&mut tx, &id, now).await?;
                tx.commit().await
            };
            if let Err(error) = touched.await {
                tracing::debug!(key = %id, %error, "the time of a key's use was not noted");
            }
        });
    }

    /// Waits until no host goes by what was so before the last commit: a request that asks for its rights from now on asks
    /// by what is so now, however long ago its head came in.
    pub(crate) async fn in_force(&self) {
        self.access.forget();
        self.policies.forget();
        tokio::time::sleep(LEASE).await;
    }

    /// The turn of somebody who comes with a credential that is not known, from where many wrong ones came: whoever
    /// tries out keys gets little of the database, and the others who share the address are still let in. `None` if the
    /// turn does not come in time.
    pub async fn suspects_turn(&self) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.access.suspects).acquire_owned();
        tokio::time::timeout(SUSPECTS_PATIENCE, turn).await.ok()?.ok()
    }
}

/// Whether a key still counts.
fn counts(key: &Key, now: Timestamp) -> bool {
    key.revoked_at.is_none() && key.expires_at.is_none_or(|expiry| expiry > now)
}

fn is_open(session: &UserSession, now: Timestamp) -> bool {
    !session.over && session.expires_at > now
}
