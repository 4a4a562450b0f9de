//! Logging in, staying logged in, logging out.

use std::time::{Duration, Instant};

use ringfence_model::{ApiKeyId, OrgId, Role, SessionId, Timestamp, UserId};
use ringfence_store::sessions::{self, EndReason, UserSession};
use ringfence_store::users::{self, User};
use ringfence_store::{StoreError, Tx};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::jwt::{BadToken, Claims, TokenType};
use super::passwords::{PasswordError, Tested};
use super::{is_open, new_signing_key};
use crate::audit::{ANONYMOUS, AuditOutcome, Deed};
use crate::caller::Identity;
use crate::error::Checks;
use crate::limits::{Counted, LimitGroup};
use crate::policy::{Action, Denied, Resource};
use crate::{Caller, Control, Internal, Invalid, Limited, Origin};

/// How long an access token is good.
const ACCESS_FOR: Duration = Duration::from_secs(15 * 60);
/// How long a session lasts, however often its tokens are exchanged.
const SESSION_FOR: Duration = Duration::from_secs(30 * 24 * 3600);
/// A refused login is answered this long after it came, whatever was found out meanwhile: whether there is such a user,
/// and which kind of hash it has, must not show in the time.
const REFUSED_AFTER: Duration = Duration::from_secs(1);

/// What a user logs in with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's address.
    pub email: String,
    /// The password.
    #[schema(value_type = String, format = Password)]
    pub password: SecretString,
}

/// A change of one's own password.
#[derive(Debug, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The password so far.
    #[schema(value_type = String, format = Password)]
    #[garde(skip)]
    pub current_password: SecretString,
    /// The new one: 12 to 256 characters.
    #[schema(value_type = String, format = Password)]
    #[garde(custom(super::users::a_password))]
    pub new_password: SecretString,
}

/// A pair of tokens.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokensView {
    /// Comes with every request, as `Authorization: Bearer …`.
    pub access_token: String,
    /// Is exchanged for a new pair, once, before the access token expires.
    pub refresh_token: String,
    /// `Bearer`.
    pub token_type: &'static str,
    /// Seconds until the access token expires.
    pub expires_in: u64,
    /// When the session ends, however often tokens are exchanged.
    #[schema(value_type = String, format = DateTime)]
    pub session_expires_at: Timestamp,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhoAmI {
    /// `agent`, `service` or `user`.
    #[schema(example = "user")]
    pub kind: &'static str,
    /// The agent, the service key or the user.
    pub id: String,
    /// The org that the caller acts for.
    #[schema(value_type = String)]
    pub org_id: OrgId,
    /// What a user or a service key may do; agents have no role.
    #[schema(value_type = Option<String>)]
    pub role: Option<Role>,
    /// What the key may be used for; absent for users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The key that was used.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_id: Option<ApiKeyId>,
    /// The login.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// Why somebody was not logged in, or is no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such user, another password, or the user was disabled: which one is nobody's business.
    #[error("the address or the password is wrong")]
    WrongCredentials,
    /// The refresh token is not one of ours, or its session is over.
    #[error("the refresh token is not valid")]
    BadRefreshToken,
    /// The refresh token was used before: somebody else has it, so the session is ended.
    #[error("the refresh token was used before; the session is ended")]
    Reused,
    /// There were too many logins into this account.
    #[error(transparent)]
    Limited(Limited),
    /// There are too many logins at this moment.
    #[error("too many logins at once")]
    Crowded,
    /// Only a user has a password and a session.
    #[error("only a user has a session")]
    NotAUser,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<PasswordError> for SessionError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Crowded(_) => Self::Crowded,
            PasswordError::Internal(error) => Self::Internal(error),
        }
    }
}

impl Control {
    /// Logs a user in.
    ///
    /// # Errors
    /// [`SessionError::WrongCredentials`] whatever was wrong, always after the same time.
    pub async fn log_in(&self, login: Login, origin: &Origin) -> Result<TokensView, SessionError> {
        let begun = Instant::now();
        let result = self.try_log_in(login, origin).await;
        if matches!(result, Err(SessionError::WrongCredentials)) {
            tokio::time::sleep(REFUSED_AFTER.saturating_sub(begun.elapsed())).await;
        }
        result
    }

    async fn try_log_in(&self, login: Login, origin: &Origin) -> Result<TokensView, SessionError> {
        let email = super::users::canonical_email(&login.email);
        // What cannot be an address is counted as well, but not under all of its characters.
        let account: String = email.chars().filter(|c| !c.is_control()).take(254).collect();
        self.limit(Counted::Account(&account), LimitGroup::Logins).await.map_err(SessionError::Limited)?;
        // Another login may have replaced the hash of the same password meanwhile. That happens once.
        for _ in 0..2 {
            if let Some(tokens) = self.log_in_unless_rehashed(&account, &login.password, origin).await? {
                return Ok(tokens);
            }
        }
        Err(SessionError::WrongCredentials)
    }

    /// Logs in; nothing if the password's hash was replaced while the password was tested against it.
    async fn log_in_unless_rehashed(
        &self,
        account: &str,
        password: &SecretString,
        origin: &Origin,
    ) -> Result<Option<TokensView>, SessionError> {
        let user = users::by_email(&mut self.store.reader().await?, account).await?;
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let tested = self.access.passwords.test(password, hash, &*self.rng).await?;
        let user = match user {
            Some(user) if tested != Tested::Wrong && user.disabled_at.is_none() => user,
            user => {
                self.record_failed_login(user.as_ref(), origin).await;
                return Err(SessionError::WrongCredentials);
            }
        };
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        // Between the test and here the user may have been disabled, and its password changed.
        let current = users::lock(&mut tx, &user.id).await?.filter(|current| current.disabled_at.is_none());
        let current = current.ok_or(SessionError::WrongCredentials)?;
        if current.password_hash != user.password_hash {
            return Ok(None);
        }
        let session = self.new_session(&current);
        if let Tested::RightUpgrade(hash) = tested {
            users::rehash(&mut tx, &user.id, &user.password_hash, &hash).await?;
        }
        users::logged_in(&mut tx, &user.id, now).await?;
        sessions::insert(&mut tx, &session, now).await?;
        self.record_session(&mut tx, &session, "sessions:login", AuditOutcome::Done, origin).await?;
        tx.commit().await?;
        Ok(Some(self.tokens(&session).await?))
    }

    /// Exchanges a refresh token for a new pair.
    ///
    /// # Errors
    /// [`SessionError::Reused`] for one that was exchanged before: the session is ended then, for one of the two who
    /// have used it is not its owner.
    pub async fn refresh(&self, token: &SecretString, origin: &Origin) -> Result<TokensView, SessionError> {
        use secrecy::ExposeSecret as _;
        let now = self.clock.now();
        let keys = (&self.store, &self.access.master);
        let claims = self.access.signing.verify(token.expose_secret(), TokenType::Refresh, now, keys).await;
        let claims = match claims {
            Ok(claims) => claims,
            Err(BadToken::Internal(error)) => return Err(error.into()),
            Err(_) => return Err(SessionError::BadRefreshToken),
        };
        let mut tx = self.store.begin().await?;
        let advanced = sessions::advance(&mut tx, &claims.sid, claims.generation, now).await?;
        let session = sessions::get(&mut tx, &claims.sid).await?;
        let session = session.filter(|session| session.user_id == claims.sub && is_open(session, now));
        let session = session.ok_or(SessionError::BadRefreshToken)?;
        if !advanced {
            sessions::end(&mut tx, &session.id, EndReason::Reuse, now).await?;
            self.record_session(&mut tx, &session, "sessions:reuse", AuditOutcome::Failed, origin).await?;
            tx.commit().await?;
            self.in_force().await;
            return Err(SessionError::Reused);
        }
        tx.commit().await?;
        Ok(self.tokens(&session).await?)
    }

    /// Ends the caller's session, or all of its user's.
    ///
    /// # Errors
    /// [`SessionError::NotAUser`] for keys: they are revoked, not logged out.
    pub async fn log_out(&self, caller: &Caller, everywhere: bool) -> Result<(), SessionError> {
        let (user, session) = user_of(caller)?;
        self.permit(caller, Action::AccountChange, Resource::Caller(caller)).await?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        if everywhere {
            sessions::end_of_user(&mut tx, user, EndReason::Logout, now).await?;
        } else {
            sessions::end(&mut tx, session, EndReason::Logout, now).await?;
        }
        let detail = json!({ "logout": if everywhere { "everywhere" } else { "here" } });
        self.audit_end(&mut tx, caller, Action::AccountChange, Resource::Caller(caller), detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(())
    }

    /// Changes the caller's own password, ends all its sessions, and begins a new one: whoever has a token of the old ones
    /// has nothing any more.
    ///
    /// # Errors
    /// [`SessionError::WrongCredentials`] if the current password is another one.
    pub async fn change_password(
        &self,
        caller: &Caller,
        change: PasswordChange,
    ) -> Result<TokensView, SessionError> {
        let begun = Instant::now();
        let (id, _) = user_of(caller)?;
        self.permit(caller, Action::AccountChange, Resource::Caller(caller)).await?;
        Checks::of(&change).done()?;
        // Whoever has stolen a token could otherwise try passwords here.
        let account = Counted::Account(id.as_str());
        self.limit(account, LimitGroup::Logins).await.map_err(SessionError::Limited)?;
        let user = users::get(&mut self.store.reader().await?, id).await?;
        let user = user.ok_or(SessionError::WrongCredentials)?;
        let hash = Some(user.password_hash.clone());
        if self.access.passwords.test(&change.current_password, hash, &*self.rng).await? == Tested::Wrong {
            self.record_failed_change(caller).await;
            tokio::time::sleep(REFUSED_AFTER.saturating_sub(begun.elapsed())).await;
            return Err(SessionError::WrongCredentials);
        }
        let new_hash = self.access.passwords.hash(&change.new_password, &*self.rng).await?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let current = users::lock(&mut tx, id).await?;
        let mut current = current
            .filter(|current| current.password_hash == user.password_hash)
            .ok_or(SessionError::WrongCredentials)?;
        (current.password_hash, current.updated_at) = (new_hash, now);
        users::update(&mut tx, &current).await?;
        self.confirm(&mut tx, caller).await?;
        sessions::end_of_user(&mut tx, id, EndReason::Password, now).await?;
        let session = self.new_session(&current);
        sessions::insert(&mut tx, &session, now).await?;
        let detail = json!({ "changed": ["password"], "session": session.id });
        self.audit_end(&mut tx, caller, Action::AccountChange, Resource::Caller(caller), detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(self.tokens(&session).await?)
    }

    fn new_session(&self, user: &User) -> UserSession {
        UserSession {
            id: SessionId::new(&*self.clock, &*self.rng),
            user_id: user.id.clone(),
            org_id: user.org_id.clone(),
            generation: 1,
            expires_at: self.clock.now().plus(SESSION_FOR),
            over: false,
            role: user.role,
        }
    }

    /// Writes down that somebody who has a token did not know the password.
    async fn record_failed_change(&self, caller: &Caller) {
        let resource = Resource::Caller(caller);
        let outcome = AuditOutcome::Failed;
        self.record_alone(&Deed::of(caller, Action::AccountChange, &resource, outcome, json!({}))).await;
    }

    /// Who the caller is.
    ///
    /// # Errors
    /// [`Denied`] if a policy forbids to ask.
    pub async fn who_am_i(&self, caller: &Caller) -> Result<WhoAmI, Denied> {
        self.permit(caller, Action::AccountRead, Resource::Caller(caller)).await?;
        let (kind, session_id) = match caller.identity() {
            Identity::Agent { .. } => ("agent", None),
            Identity::Bot { .. } => ("bot", None),
            Identity::Service { .. } => ("service", None),
            Identity::User { session, .. } => ("user", Some(session.clone())),
        };
        Ok(WhoAmI {
            kind,
            id: caller.principal().to_owned(),
            org_id: caller.org().clone(),
            role: caller.role(),
            scopes: caller.scopes().map(<[String]>::to_vec),
            key_id: caller.key().cloned(),
            session_id,
        })
    }

    /// Signs tokens with a new key from now on. What the keys before it have signed stays good, unless they are
    /// forgotten: then everybody has to log in again.
    ///
    /// # Errors
    /// [`Denied`] for all but the operators' admins.
    pub async fn rotate_signing_key(&self, caller: &Caller, forget_old: bool) -> Result<(), Denied> {
        let org = OrgId::platform();
        self.permit(caller, Action::SigningKeysRotate, Resource::Org(&org)).await?;
        let rotated = async {
            let mut tx = self.store.begin().await.map_err(Internal::from)?;
            self.confirm(&mut tx, caller).await?;
            let detail = json!({ "forget_old": forget_old });
            self.replace_signing_key(&mut tx, forget_old).await?;
            self.audit_end(&mut tx, caller, Action::SigningKeysRotate, Resource::Org(&org), detail).await?;
            Ok::<_, Denied>(tx.commit().await.map_err(Internal::from)?)
        };
        rotated.await?;
        self.in_force().await;
        Ok(())
    }

    pub(crate) async fn replace_signing_key(&self, tx: &mut Tx, forget_old: bool) -> Result<(), Internal> {
        if forget_old {
            sessions::end_all(tx, EndReason::SigningKey, self.clock.now()).await?;
            for old in ringfence_store::secrets::of_kind(tx, super::jwt::SIGNING_KEY).await? {
                ringfence_store::secrets::delete(tx, &old.id).await?;
            }
        }
        new_signing_key(tx, &self.access.master, (&*self.clock, &*self.rng)).await.map(drop)
    }

    async fn tokens(&self, session: &UserSession) -> Result<TokensView, Internal> {
        let now = self.clock.now();
        let keys = (&self.store, &self.access.master);
        let who = || (session.user_id.clone(), session.id.clone());
        let access_until = now.plus(ACCESS_FOR).min(session.expires_at);
        let access = Claims::new(TokenType::Access, who(), session.generation, (now, access_until));
        let refresh = Claims::new(TokenType::Refresh, who(), session.generation, (now, session.expires_at));
        Ok(TokensView {
            access_token: self.access.signing.sign(&access, keys).await?,
            refresh_token: self.access.signing.sign(&refresh, keys).await?,
            token_type: "Bearer",
            expires_in: u64::try_from((access_until.as_micros() - now.as_micros()) / 1_000_000).unwrap_or(0),
            session_expires_at: session.expires_at,
        })
    }

    async fn record_session(
        &self,
        tx: &mut Tx,
        session: &UserSession,
        action: &str,
        outcome: AuditOutcome,
        origin: &Origin,
    ) -> Result<(), Internal> {
        self.record(
            tx,
            &Deed {
                actor: session.user_id.as_str(),
                credential: Some(session.id.as_str()),
                org: &session.org_id,
                action,
                resource: session.user_id.as_str().into(),
                resource_org: &session.org_id,
                outcome,
                origin,
                detail: json!({}),
            },
        )
        .await
    }

    async fn record_failed_login(&self, user: Option<&User>, origin: &Origin) {
        let platform = OrgId::platform();
        let org = user.map_or(&platform, |user| &user.org_id);
        self.record_alone(&Deed {
            actor: ANONYMOUS,
            credential: None,
            org,
            action: "sessions:login",
            // Not what was typed in: it may be a password.
            resource: user.map_or("unknown account", |user| user.id.as_str()).into(),
            resource_org: org,
            outcome: AuditOutcome::Failed,
            origin,
            detail: json!({}),
        })
        .await;
    }
}

fn user_of(caller: &Caller) -> Result<(&UserId, &SessionId), SessionError> {
    match caller.identity() {
        Identity::User { id, session, .. } => Ok((id, session)),
        _ => Err(SessionError::NotAUser),
    }
}
