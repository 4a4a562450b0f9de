//! People who log in: made, changed and removed by admins.

use ringfence_model::{OrgId, Role, Timestamp, UserId};
use ringfence_store::sessions::{self, EndReason};
use ringfence_store::users::{self, User};
use ringfence_store::{StoreError, Tx, accounts};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::passwords::{self, PasswordError};
use crate::error::{Checks, rules};
use crate::policy::{Action, Denied, Resource};
use crate::{Caller, Control, Internal, Invalid, Page};

/// A new user.
#[derive(Debug, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// What it logs in with. Upper and lower case are the same.
    #[schema(example = "ada@example.org", max_length = 254)]
    #[garde(custom(an_address))]
    pub email: String,
    /// What people call it: 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    #[garde(custom(rules::label(100)))]
    pub name: String,
    /// `admin`, `operator`, `user` or `viewer`.
    #[schema(value_type = String, example = "viewer")]
    #[garde(skip)]
    pub role: Role,
    /// The password, 12 to 256 characters; or else `password_hash`.
    #[schema(value_type = Option<String>, format = Password)]
    #[garde(inner(custom(a_password)), custom(or_else(&self.password_hash)))]
    pub password: Option<SecretString>,
    /// A hash that was made elsewhere: Argon2id, or bcrypt at a cost of at most 12. A bcrypt hash is replaced at the next login.
    #[schema(value_type = Option<String>)]
    #[garde(inner(custom(importable_hash)))]
    pub password_hash: Option<SecretString>,
    /// The org; the caller's own if none is named. Only the operators' admins name another one.
    #[schema(value_type = Option<String>)]
    #[garde(skip)]
    pub org_id: Option<OrgId>,
}

/// Changes to a user. What is absent stays. A new password, a role or `disabled` counts at once, everywhere.
#[derive(Debug, Default, Deserialize, ToSchema, garde::Validate)]
#[serde(deny_unknown_fields)]
pub struct UserChanges {
    /// The new name.
    #[schema(min_length = 1, max_length = 100)]
    #[garde(inner(custom(rules::label(100))))]
    pub name: Option<String>,
    /// The new role.
    #[schema(value_type = Option<String>)]
    #[garde(skip)]
    pub role: Option<Role>,
    /// The new password, 12 to 256 characters; it ends all sessions.
    #[schema(value_type = Option<String>, format = Password)]
    #[garde(inner(custom(a_password)))]
    pub password: Option<SecretString>,
    /// Whether the user is kept from logging in; it ends all sessions.
    #[garde(skip)]
    pub disabled: Option<bool>,
}

/// A user.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct UserView {
    /// The user.
    #[schema(value_type = String)]
    pub user_id: UserId,
    /// Its org.
    #[schema(value_type = String)]
    pub org_id: OrgId,
    /// What it logs in with.
    pub email: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    #[schema(value_type = String)]
    pub role: Role,
    /// Whether it is kept from logging in.
    pub disabled: bool,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it last logged in.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_login_at: Option<Timestamp>,
}

/// Why a use case of users was refused.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Some fields are not as they must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such user, or another org's.
    #[error("there is no user with this id")]
    NotFound,
    /// No such org, or one that the caller has nothing to do with.
    #[error("there is no org with this id")]
    NoSuchOrg,
    /// Another user has it.
    #[error("another user has this address")]
    EmailTaken,
    /// The org would be without an admin.
    #[error("this is the last admin of the org")]
    LastAdmin,
    /// Too many passwords are being worked on.
    #[error("too many logins at once")]
    Crowded,
    /// The user has, or would have, a role that the caller does not cover.
    #[error("nobody gives more than they have")]
    MoreThanYours,
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for UserError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<PasswordError> for UserError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Crowded(_) => Self::Crowded,
            PasswordError::Internal(error) => Self::Internal(error),
        }
    }
}

/// The one spelling of an address.
pub(super) fn canonical_email(email: &str) -> String {
    email.trim().to_lowercase()
}

fn an_address(email: &str, (): &()) -> garde::Result {
    let email = email.trim();
    let parts = email.split_once('@');
    let holds = email.len() <= 254
        && parts.is_some_and(|(local, domain)| {
            !local.is_empty() && local.len() <= 64 && !domain.is_empty() && !domain.contains('@')
        })
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    rules::require(holds, "must be an address such as ada@example.org, of at most 254 characters")
}

fn importable_hash(hash: &SecretString, (): &()) -> garde::Result {
    let message = "must be a hash of Argon2id, or of bcrypt at a cost of at most 12";
    rules::require(passwords::importable(hash.expose_secret()), message)
}

/// One of the two is there.
fn or_else(hash: &Option<SecretString>) -> impl Fn(&Option<SecretString>, &()) -> garde::Result {
    let other = hash.is_some();
    move |password, ()| rules::require(password.is_some() != other, "must be given, or else `password_hash`")
}

/// 12 to 256 characters, whatever they are (NIST SP 800-63B asks for length, not for kinds of characters).
pub(super) fn a_password(password: &SecretString, (): &()) -> garde::Result {
    let length = password.expose_secret().chars().count();
    rules::require((12..=256).contains(&length), "must have 12 to 256 characters")
}

impl Control {
    /// Makes a user.
    ///
    /// # Errors
    /// [`UserError::EmailTaken`]; [`UserError::NoSuchOrg`] for an org that is not the caller's;
    /// [`UserError::MoreThanYours`] for a role above the caller's.
    pub async fn create_user(&self, caller: &Caller, new: NewUser) -> Result<UserView, UserError> {
        let org = new.org_id.clone().unwrap_or_else(|| caller.org().clone());
        if !caller.reaches(&org) {
            return Err(UserError::NoSuchOrg);
        }
        self.permit(caller, Action::UsersCreate, Resource::Org(&org)).await?;
        covered(caller, new.role)?;
        let user = self.prepare_user(new, org).await?;
        let mut tx = self.store.begin().await?;
        insert_user(&mut tx, &user).await?;
        let resource = Resource::User(&user.org_id, &user.id, user.role);
        let detail = json!({ "role": user.role });
        self.audit(&mut tx, caller, Action::UsersCreate, resource, detail).await?;
        tx.commit().await?;
        Ok(view(user))
    }

    /// Makes a user from the host's command line: whoever has that, has the database.
    ///
    /// # Errors
    /// As [`Self::create_user`].
    pub async fn create_user_by_command(&self, new: NewUser) -> Result<UserView, UserError> {
        let org = new.org_id.clone().unwrap_or_else(OrgId::platform);
        let user = self.prepare_user(new, org).await?;
        let mut tx = self.store.begin().await?;
        insert_user(&mut tx, &user).await?;
        let (action, detail) =
            (Action::UsersCreate.name(), json!({ "role": user.role, "org_id": user.org_id }));
        self.audit_command(&mut tx, action, user.id.as_str(), detail).await?;
        tx.commit().await?;
        Ok(view(user))
    }

    async fn prepare_user(&self, new: NewUser, org_id: OrgId) -> Result<User, UserError> {
        Checks::of(&new).done()?;
        let email = canonical_email(&new.email);
        let password_hash = match (&new.password, &new.password_hash) {
            (Some(password), _) => self.access.passwords.hash(password, &*self.rng).await?,
            (None, hash) => hash.as_ref().map(|hash| hash.expose_secret().to_owned()).unwrap_or_default(),
        };
        let now = self.clock.now();
        Ok(User {
            id: UserId::new(&*self.clock, &*self.rng),
            org_id,
            email,
            name: new.name,
            role: new.role,
            password_hash,
            created_at: now,
            updated_at: now,
            last_login_at: None,
            disabled_at: None,
        })
    }

    /// A user.
    ///
    /// # Errors
    /// [`UserError::NotFound`], also for another org's.
    pub async fn user(&self, caller: &Caller, id: &UserId) -> Result<UserView, UserError> {
        let user = users::get(&mut self.store.reader().await?, id).await?;
        let user = visible(caller, user)?;
        let resource = Resource::User(&user.org_id, &user.id, user.role);
        self.permit(caller, Action::UsersRead, resource).await?;
        Ok(view(user))
    }

    /// The users of an org, oldest first.
    ///
    /// # Errors
    /// [`UserError::NoSuchOrg`] for an org that is not the caller's.
    pub async fn users(
        &self,
        caller: &Caller,
        org: Option<&OrgId>,
        limit: u32,
        offset: u32,
    ) -> Result<Page<UserView>, UserError> {
        let org = org.unwrap_or_else(|| caller.org());
        if !caller.reaches(org) {
            return Err(UserError::NoSuchOrg);
        }
        self.permit(caller, Action::UsersList, Resource::Org(org)).await?;
        Ok(Page::of(users::list(&mut self.store.reader().await?, org, limit, offset).await?, view))
    }

    /// Changes a user.
    ///
    /// # Errors
    /// [`UserError::LastAdmin`] if the org would be without an admin; [`UserError::MoreThanYours`] if the user has, or
    /// would have, a role above the caller's.
    pub async fn update_user(
        &self,
        caller: &Caller,
        id: &UserId,
        changes: UserChanges,
    ) -> Result<UserView, UserError> {
        let found = visible(caller, users::get(&mut self.store.reader().await?, id).await?)?;
        let resource = Resource::User(&found.org_id, &found.id, found.role);
        self.permit(caller, Action::UsersUpdate, resource).await?;
        Checks::of(&changes).done()?;
        let new_hash = match &changes.password {
            Some(password) => Some(self.access.passwords.hash(password, &*self.rng).await?),
            None => None,
        };
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let mut user = lock(&mut tx, &found).await?;
        self.confirm(&mut tx, caller).await?;
        // Whoever sets a password can log in with it.
        covered(caller, user.role)?;
        covered(caller, changes.role.unwrap_or(user.role))?;
        let was_admin = is_admin(&user);
        let mut changed = Vec::new();
        if let Some(name) = changes.name {
            user.name = name;
            changed.push("name");
        }
        if let Some(role) = changes.role {
            user.role = role;
            changed.push("role");
        }
        if let Some(disabled) = changes.disabled {
            user.disabled_at = disabled.then(|| user.disabled_at.unwrap_or(now));
            changed.push("disabled");
        }
        if let Some(hash) = new_hash {
            user.password_hash = hash;
            changed.push("password");
            sessions::end_of_user(&mut tx, id, EndReason::Password, now).await?;
        }
        if user.disabled_at.is_some() {
            sessions::end_of_user(&mut tx, id, EndReason::Disabled, now).await?;
        }
        user.updated_at = now;
        if was_admin && !is_admin(&user) {
            keep_an_admin(&mut tx, &user.org_id).await?;
        }
        users::update(&mut tx, &user).await?;
        let detail = json!({ "changed": changed, "role": user.role, "disabled": user.disabled_at.is_some() });
        let resource = Resource::User(&user.org_id, &user.id, user.role);
        self.audit_end(&mut tx, caller, Action::UsersUpdate, resource, detail).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(view(user))
    }

    /// Removes a user; its address becomes free, its deeds stay in the audit log.
    ///
    /// # Errors
    /// [`UserError::LastAdmin`] if the org would be without an admin.
    pub async fn delete_user(&self, caller: &Caller, id: &UserId) -> Result<(), UserError> {
        let found = visible(caller, users::get(&mut self.store.reader().await?, id).await?)?;
        let resource = Resource::User(&found.org_id, &found.id, found.role);
        self.permit(caller, Action::UsersDelete, resource).await?;
        let now = self.clock.now();
        let mut tx = self.store.begin().await?;
        let user = lock(&mut tx, &found).await?;
        self.confirm(&mut tx, caller).await?;
        covered(caller, user.role)?;
        if is_admin(&user) {
            keep_an_admin(&mut tx, &user.org_id).await?;
        }
        users::delete(&mut tx, id, now).await?;
        sessions::end_of_user(&mut tx, id, EndReason::Disabled, now).await?;
        self.audit_end(&mut tx, caller, Action::UsersDelete, resource, json!({ "role": user.role })).await?;
        tx.commit().await?;
        self.in_force().await;
        Ok(())
    }
}

async fn insert_user(tx: &mut Tx, user: &User) -> Result<(), UserError> {
    if accounts::lock_org(tx, &user.org_id).await?.is_none() {
        return Err(UserError::NoSuchOrg);
    }
    match users::insert(tx, user).await {
        Err(StoreError::Conflict(_)) => Err(UserError::EmailTaken),
        inserted => Ok(inserted?),
    }
}

/// The user, if the caller may know of it.
fn visible(caller: &Caller, user: Option<User>) -> Result<User, UserError> {
    user.filter(|user| caller.reaches(&user.org_id)).ok_or(UserError::NotFound)
}

/// Nobody gives more than they have, not even where a policy of the operators lets others than admins make users.
fn covered(caller: &Caller, role: Role) -> Result<(), UserError> {
    // A user does not end, so whoever ends makes none.
    let lasting = caller.expires_at().is_none();
    (lasting && caller.covers(role)).then_some(()).ok_or(UserError::MoreThanYours)
}

/// Locks the user's org, then the user: changes to the users of an org take turns, so that two admins cannot remove each
/// other.
async fn lock(tx: &mut Tx, found: &User) -> Result<User, UserError> {
    accounts::lock_org(tx, &found.org_id).await?;
    users::lock(tx, &found.id).await?.ok_or(UserError::NotFound)
}

fn is_admin(user: &User) -> bool {
    user.role == Role::Admin && user.disabled_at.is_none()
}

/// One admin is about to be none: there must be another.
async fn keep_an_admin(tx: &mut Tx, org: &OrgId) -> Result<(), UserError> {
    if users::admins(tx, org).await? > 1 { Ok(()) } else { Err(UserError::LastAdmin) }
}

fn view(user: User) -> UserView {
    UserView {
        user_id: user.id,
        org_id: user.org_id,
        email: user.email,
        name: user.name,
        role: user.role,
        disabled: user.disabled_at.is_some(),
        created_at: user.created_at,
        updated_at: user.updated_at,
        last_login_at: user.last_login_at,
    }
}
