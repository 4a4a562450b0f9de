//! Components: validated by the sandbox before they are stored, immutable, named by their digest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringfence_model::{Sha256, Timestamp};
use ringfence_runtime::{ComponentSource, InvalidComponent, Kind, PrepareError, Runtime};
use ringfence_store::components::{self, Component, ComponentKind};
use ringfence_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::policy::{Action, Resource};
use crate::{Caller, Control, Denied, Internal, Page};

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

impl Control {
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
            kind: match info.kind {
                Kind::Bot => ComponentKind::Bot,
                Kind::Oracle => ComponentKind::Oracle,
            },
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
