//! Components: validated by the sandbox before they are stored, immutable, named by their digest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringfence_model::{BotId, Sha256, Timestamp};
use ringfence_runtime::{ComponentInfo, ComponentSource, InvalidComponent, Kind, PrepareError, Runtime};
use ringfence_store::components::{self, Component, ComponentKind};
use ringfence_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::policy::{Action, Resource};
use crate::{BotError, BotView, Caller, Control, Denied, Grants, Internal, MissingGrant, Page};

/// A stored component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComponentView {
    /// The SHA-256 of its bytes: its name.
    #[schema(value_type = String, example = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    pub digest: Sha256,
    /// `bot` or `oracle`, by the world that it exports.
    #[schema(value_type = String, example = "bot")]
    pub kind: ComponentKind,
    /// Its size.
    pub size_bytes: u64,
    /// All interfaces that it imports.
    pub imports: Vec<String>,
    /// The grants that it needs to be deployed.
    pub capabilities: Vec<String>,
    /// When it was uploaded first.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

/// What an upload would store, and what a bot would need to run it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CheckView {
    /// The SHA-256 of its bytes: its name, once it is uploaded.
    #[schema(value_type = String)]
    pub digest: Sha256,
    /// `bot` or `oracle`, by the world that it exports.
    #[schema(value_type = String, example = "bot")]
    pub kind: ComponentKind,
    /// Its size.
    pub size_bytes: u64,
    /// All interfaces that it imports.
    pub imports: Vec<String>,
    /// What it can use if it is granted.
    pub capabilities: Vec<String>,
    /// Whether the org has uploaded it already.
    pub uploaded: bool,
    /// What the bot was granted that it was compared with; nothing, if there is none.
    pub grants: Grants,
    /// What would have to be granted besides before it could be deployed, there or anew.
    pub missing: Vec<MissingGrant>,
}

/// Why a use case of components was refused.
#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    /// The bytes are not a component that could run here. Nothing was stored.
    #[error(transparent)]
    Invalid(InvalidComponent),
    /// All compilers are busy. Nothing was stored.
    #[error("all compilers are busy; try again in {retry_after:?}")]
    Busy {
        /// When trying again makes sense.
        retry_after: Duration,
    },
    /// The caller's org has no such component.
    #[error("there is no component with this digest")]
    NotFound,
    /// The bot to compare with is not there, or not to be read.
    #[error(transparent)]
    Bot(#[from] BotError),
    /// The bot to compare with is of the other kind.
    #[error("the component is of the kind `{found}`, and the bot runs one of the kind `{expected}`")]
    OtherKind {
        /// What the bot is.
        expected: ComponentKind,
        /// What the component is.
        found: ComponentKind,
    },
    /// The caller may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not the caller's fault.
    #[error(transparent)]
    Internal(#[from] Internal),
}

impl From<StoreError> for ComponentError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<PrepareError> for ComponentError {
    fn from(error: PrepareError) -> Self {
        match error {
            PrepareError::Invalid(error) => Self::Invalid(error),
            PrepareError::Busy { retry_after_ms } => {
                Self::Busy { retry_after: Duration::from_millis(retry_after_ms) }
            }
            PrepareError::Failed(_) => Self::Internal(Internal::Sandbox(error.to_string())),
        }
    }
}

impl From<Component> for ComponentView {
    fn from(component: Component) -> Self {
        Self {
            digest: component.digest,
            kind: component.kind,
            size_bytes: component.size_bytes,
            imports: component.imports,
            capabilities: component.capabilities,
            created_at: component.created_at,
        }
    }
}

/// Whether bytes can be a component, by the first eight of them: so that an upload that cannot is refused early.
///
/// # Errors
/// [`ComponentError::Invalid`].
pub fn check_component_header(first_bytes: &[u8]) -> Result<(), ComponentError> {
    ringfence_runtime::check_header(first_bytes, usize::MAX).map_err(ComponentError::Invalid)
}

/// Where the sandbox gets a component's bytes from when it has lost the compiled code.
pub struct StoredComponents(pub Store);

#[async_trait::async_trait]
impl ComponentSource for StoredComponents {
    async fn load(&self, digest: &Sha256) -> Result<Option<Bytes>, String> {
        let wasm = async {
            let mut reader = self.0.reader().await?;
            components::wasm(&mut reader, digest).await
        };
        wasm.await.map(|wasm| wasm.map(Bytes::from)).map_err(|error| error.to_string())
    }
}

/// An upload that the caller may make.
pub struct Upload {
    runtime: Runtime,
    tenant: Arc<str>,
    wasm: Bytes,
    known: bool,
}

impl Upload {
    /// Does what is long in [`Control::upload_component`] and stores nothing: validates and compiles. Dropping the
    /// future ends the compiler.
    ///
    /// # Errors
    /// [`ComponentError::Invalid`] says what is wrong with the bytes; [`ComponentError::Busy`].
    pub async fn prepare(&self) -> Result<(), ComponentError> {
        if !self.known {
            self.runtime.prepare(self.wasm.clone(), &self.tenant).await?;
        }
        Ok(())
    }
}

/// A component that the caller may have looked at.
pub struct Check {
    runtime: Runtime,
    tenant: Arc<str>,
    wasm: Bytes,
    known: Option<Component>,
    bot: Option<BotView>,
}

impl Check {
    /// Does what is long in an upload, and keeps nothing of it. Dropping the future ends the compiler.
    ///
    /// # Errors
    /// [`ComponentError::Invalid`] says what is wrong with the bytes; [`ComponentError::OtherKind`];
    /// [`ComponentError::Busy`].
    pub async fn run(self) -> Result<CheckView, ComponentError> {
        let uploaded = self.known.is_some();
        let mut view = match self.known {
            Some(Component { digest, kind, size_bytes, imports, capabilities, .. }) => {
                let (grants, missing) = Default::default();
                CheckView { digest, kind, size_bytes, imports, capabilities, uploaded, grants, missing }
            }
            None => {
                let ComponentInfo { digest, kind, imports, capabilities, size_bytes } =
                    self.runtime.check(self.wasm, &self.tenant).await?;
                let (kind, (grants, missing)) = (kind_of(kind), Default::default());
                CheckView { digest, kind, size_bytes, imports, capabilities, uploaded, grants, missing }
            }
        };
        if let Some(bot) = self.bot {
            if bot.kind != view.kind {
                return Err(ComponentError::OtherKind { expected: bot.kind, found: view.kind });
            }
            view.grants = bot.grants;
        }
        view.missing = view.grants.missing_for(&view.capabilities);
        Ok(view)
    }
}

fn kind_of(kind: Kind) -> ComponentKind {
    match kind {
        Kind::Bot => ComponentKind::Bot,
        Kind::Oracle => ComponentKind::Oracle,
    }
}

impl Control {
    /// Begins to look at a component without storing it: permits that, as an upload, and reads the bot of the caller's
    /// org that it is compared with, if there is one.
    ///
    /// # Errors
    /// [`ComponentError::Denied`]; [`ComponentError::Bot`].
    pub async fn begin_check(
        &self,
        caller: &Caller,
        wasm: Bytes,
        bot: Option<&BotId>,
    ) -> Result<Check, ComponentError> {
        self.permit(caller, Action::ComponentsUpload, Resource::Org(caller.org())).await?;
        let bot = match bot {
            Some(id) => Some(self.bot(caller, id).await?),
            None => None,
        };
        let digest = Sha256::of(&wasm);
        let known = components::get(&mut self.store.reader().await?, caller.org(), &digest).await?;
        let (runtime, tenant) = (self.runtime.clone(), caller.org().as_str().into());
        Ok(Check { runtime, tenant, wasm, known, bot })
    }

    /// Begins an upload: permits it, and writes down who may not.
    ///
    /// # Errors
    /// [`ComponentError::Denied`].
    pub async fn begin_upload(&self, caller: &Caller, wasm: Bytes) -> Result<Upload, ComponentError> {
        self.permit(caller, Action::ComponentsUpload, Resource::Org(caller.org())).await?;
        let digest = Sha256::of(&wasm);
        let known = components::get(&mut self.store.reader().await?, caller.org(), &digest).await?;
        let tenant = caller.org().as_str().into();
        Ok(Upload { runtime: self.runtime.clone(), tenant, wasm, known: known.is_some() })
    }

    /// Validates, compiles and stores a component; whether it is new to the org. Uploading the same bytes again
    /// answers with what is there.
    ///
    /// # Errors
    /// [`ComponentError::Invalid`] says what is wrong with the bytes.
    pub async fn upload_component(
        &self,
        caller: &Caller,
        wasm: Bytes,
    ) -> Result<(ComponentView, bool), ComponentError> {
        self.permit(caller, Action::ComponentsUpload, Resource::Org(caller.org())).await?;
        let digest = Sha256::of(&wasm);
        let mut reader = self.store.reader().await?;
        let known = components::get(&mut reader, caller.org(), &digest).await?;
        drop(reader);
        if let Some(known) = known {
            return Ok((known.into(), false));
        }
        let info = self.runtime.prepare(wasm.clone(), &caller.org().as_str().into()).await?;
        let component = Component {
            org_id: caller.org().clone(),
            digest,
            kind: kind_of(info.kind),
            size_bytes: info.size_bytes,
            imports: info.imports,
            capabilities: info.capabilities,
            created_at: self.clock.now(),
        };
        let mut tx = self.store.begin().await?;
        let new = components::insert(&mut tx, &component, &wasm).await?;
        let stored = components::get(&mut tx, caller.org(), &digest).await?;
        if new {
            let detail = json!({ "kind": component.kind, "size_bytes": component.size_bytes });
            let resource = Resource::Component(caller.org(), &digest);
            self.audit(&mut tx, caller, Action::ComponentsUpload, resource, detail).await?;
        }
        tx.commit().await?;
        let view = stored.map_or_else(|| component.into(), ComponentView::from);
        Ok((view, new))
    }

    /// A component of the caller's org.
    ///
    /// # Errors
    /// [`ComponentError::NotFound`].
    pub async fn component(&self, caller: &Caller, digest: &Sha256) -> Result<ComponentView, ComponentError> {
        let found = components::get(&mut self.store.reader().await?, caller.org(), digest).await?;
        let found = found.ok_or(ComponentError::NotFound)?;
        self.permit(caller, Action::ComponentsRead, Resource::Component(&found.org_id, digest)).await?;
        Ok(found.into())
    }

    /// The components of the caller's org, newest first.
    ///
    /// # Errors
    /// [`ComponentError::Internal`] only.
    pub async fn components(
        &self,
        caller: &Caller,
        limit: u32,
        offset: u32,
    ) -> Result<Page<ComponentView>, ComponentError> {
        self.permit(caller, Action::ComponentsList, Resource::Org(caller.org())).await?;
        let mut reader = self.store.reader().await?;
        Ok(Page::of(components::list(&mut reader, caller.org(), limit, offset).await?, Into::into))
    }
}
