//! Compiled code ahead of the calls: what the deployed bots and the funded jobs need has code for this host's engine.
//!
//! After an upgrade it may not. Then it is compiled in the background while the host serves, the newest first, one at a
//! time, and always behind what uploads and calls need; a call that comes before has its component compiled at once.

use std::collections::HashSet;
use std::time::Duration;

use ringfence_model::Sha256;
use ringfence_runtime::{Precompiled, Runtime};
use ringfence_store::{Store, StoreError, bots, jobs};
use tokio::sync::watch;

use crate::jobs::OraclePin;
use crate::{Control, Internal};

/// How often the folder of compiled code is looked through.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// How many rows are read at a time.
const PAGE: u32 = 1000;
/// How often the log hears of a long compilation.
const TELL_EVERY: usize = 100;

/// The components that may be called: those of all bots and oracles that are not terminated, and the oracles that funded
/// jobs are pinned to. Each once, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn components_in_use(store: &Store) -> Result<Vec<Sha256>, StoreError> {
    let mut reader = store.reader().await?;
    let mut oldest_first = Vec::new();
    let mut last = None;
    loop {
        let page = jobs::pinned(&mut reader, last.as_ref(), PAGE).await?;
        for pinned in &page {
            // One that cannot be read is the business of its evaluation.
            let pin = pinned.pin.clone().and_then(|pin| serde_json::from_value::<OraclePin>(pin).ok());
            oldest_first.extend(pin.into_iter().flat_map(|pin| pin.oracles).map(|oracle| oracle.component));
        }
        if page.len() < PAGE as usize {
            break;
        }
        last = page.into_iter().last();
    }
    let mut last = String::new();
    loop {
        let page = bots::deployed(&mut reader, &last, PAGE).await?;
        oldest_first.extend(page.iter().map(|(_, digest)| *digest));
        match page.last() {
            Some((id, _)) if page.len() == PAGE as usize => last = id.to_string(),
            _ => break,
        }
    }
    let mut seen = HashSet::new();
    oldest_first.reverse();
    oldest_first.retain(|digest| seen.insert(*digest));
    Ok(oldest_first)
}

/// What [`precompile`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrecompileReport {
    /// Components whose code was there.
    pub kept: usize,
    /// Components that were compiled.
    pub compiled: usize,
    /// Components that could not be; why is told as it happens.
    pub failed: usize,
}

/// Sees to it that all components in use have code for this engine in the cache folder of `runtime`; tells of each that
/// took a compiler, with its place among all of them. What is done stays done when it is interrupted.
///
/// # Errors
/// Those of the database.
pub async fn precompile(
    store: &Store,
    runtime: &Runtime,
    mut tell: impl FnMut(usize, usize, &Sha256, Result<(), String>),
) -> Result<PrecompileReport, StoreError> {
    let in_use = components_in_use(store).await?;
    let mut report = PrecompileReport::default();
    for (place, digest) in (1..).zip(&in_use) {
        match runtime.precompile(*digest).await {
            Ok(Precompiled::Kept) => report.kept += 1,
            Ok(Precompiled::Compiled) => {
                report.compiled += 1;
                tell(place, in_use.len(), digest, Ok(()));
            }
            Err(error) => {
                report.failed += 1;
                tell(place, in_use.len(), digest, Err(error.to_string()));
            }
        }
    }
    Ok(report)
}

impl Control {
    /// Looks after compiled code until `stop` turns true: compiles what is missing, then removes what nobody has used for
    /// a week; again every day.
    pub(crate) async fn keep_compiled(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                looked = self.look_after_compiled() => if let Err(error) = looked {
                    tracing::warn!(error = &error as &dyn std::error::Error, "compiled code cannot be looked after");
                },
                _ = stop.changed() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.changed() => {}
            }
        }
    }

    async fn look_after_compiled(&self) -> Result<(), Internal> {
        let in_use = components_in_use(&self.store).await?;
        let folder =
            |error: std::io::Error| Internal::Sandbox(format!("the folder of compiled code: {error}"));
        let missing = self.runtime.not_compiled(in_use.clone()).await.map_err(folder)?;
        if !missing.is_empty() {
            self.compile_missing(&missing).await;
        }
        let swept = self.runtime.sweep_cache(in_use.into_iter().collect()).await.map_err(folder)?;
        if swept.files > 0 {
            tracing::info!(files = swept.files, bytes = swept.bytes, "unused compiled code is removed");
        }
        Ok(())
    }

    async fn compile_missing(&self, missing: &[Sha256]) {
        let components = missing.len();
        tracing::info!(components, "compiling in the background what has no code for this engine");
        let mut failed = 0;
        for (done, digest) in missing.iter().enumerate() {
            if done > 0 && done % TELL_EVERY == 0 {
                tracing::info!(done, components, "compiling in the background");
            }
            if let Err(error) = self.runtime.precompile(*digest).await {
                failed += 1;
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "could not be compiled ahead");
            }
        }
        tracing::info!(components, failed, "compiled in the background what had no code for this engine");
    }
}
