//! The sandbox: runs other people's WebAssembly components, one fresh instance for each call, within limits
//! that each end a call in their own way.
//!
//! ```no_run
//! # async fn example(wasm: bytes::Bytes) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use ringfence_runtime::{BotCall, Limits, LogOptions, NoSource, PrepareError, Runtime, RuntimeConfig};
//!
//! let runtime = Runtime::new(RuntimeConfig::default(), Arc::new(NoSource))?;
//! let info = runtime.prepare(wasm, &"org_1".into()).await?;
//! let invocation = runtime
//!     .call_bot(BotCall {
//!         digest: info.digest,
//!         invocation_id: "inv_1".to_owned(),
//!         input: r#"{"text":"hello"}"#.to_owned(),
//!         limits: Limits::default(),
//!         capabilities: Arc::default(),
//!         tenant: "org_1".into(),
//!         logs: LogOptions::default(),
//!     })
//!     .await?;
//! println!("{}: {:?}", invocation.outcome, invocation.output);
//! # Ok(())
//! # }
//! ```
//!
//! What is promised, and how it is kept, is in `docs/sandbox.md`. This crate knows no database and no server.

mod bindings;
mod cache;
mod call;
mod capability;
mod child;
mod compile;
mod component;
mod confine;
mod digest;
mod engine;
mod epoch;
mod invocation;
mod lane;
mod limits;
mod logs;
mod refused;
mod runtime;
mod slots;
mod state;
mod upkeep;

pub use capability::Capabilities;
pub use capability::clock::CLOCK_STEP_NS;
pub use capability::directories::{Access, Directory, MAX_ENTRIES, MAX_FILE_WORK, MAX_OPEN, REMOVED_PREFIX};
pub use capability::http::HttpGrant;
pub use capability::kv::{KvError, KvStore, MAX_KEY_BYTES, MAX_LISTED_KEYS};
pub use capability::llm::{Completed, Completion, LanguageModel, Llm, LlmError};
pub use capability::secrets::Secrets;
pub use child::{CompileLimits, compile_from_stdin};
pub use compile::Compiler;
pub use component::{ComponentInfo, InvalidComponent, Kind, check_header};
#[doc(hidden)]
pub use confine::confine_this_process;
pub use digest::{Digest, InvalidDigest};
pub use engine::MAX_STACK_BYTES;
#[doc(hidden)]
pub use engine::config as engine_config;
pub use invocation::{
    BotCall, CallError, Failure, Invocation, Job, OracleCall, Outcome, Step, Submission, Usage, Verdict,
};
pub use limits::{LimitError, Limits};
pub use logs::{Level, LineSink, LogLine, LogOptions, Stream};
pub use runtime::{
    ComponentSource, Load, NoSource, Precompiled, PrepareError, Runtime, RuntimeConfig, StartError,
};
pub use state::MAX_HOST_CALL_BYTES;
pub use upkeep::Swept;
