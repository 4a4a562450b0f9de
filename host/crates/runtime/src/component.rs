//! What an uploaded component is, and whether it may run here.

use serde::{Deserialize, Serialize};
use wasmtime::component::{Component, InstancePre, Linker};

use crate::bindings::{bot::BotPre, oracle::OraclePre};
use crate::digest::Digest;
use crate::state::State;

/// What a component does, told by its exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Exports `handle`: does tasks.
    Bot,
    /// Exports `evaluate`: judges submissions.
    Oracle,
}

impl Kind {
    /// `bot` or `oracle`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bot => "bot",
            Self::Oracle => "oracle",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of a component once it has been prepared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentInfo {
    /// Its name.
    pub digest: Digest,
    /// What it does.
    pub kind: Kind,
    /// The interfaces that it imports, with versions, in its own order.
    pub imports: Vec<String>,
    /// The capabilities that its imports speak of, sorted: `config`, `http` (links for every bot; without the grant a
    /// request is denied), `kv`, `llm` and `secrets` (a call needs them granted). Those that everyone has are not listed.
    pub capabilities: Vec<String>,
    /// Its size as uploaded.
    pub size_bytes: u64,
}

/// Why a component was refused. The text is meant for its author, with [`code`](Self::code) for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidComponent {
    /// No bytes at all.
    #[error("the upload is empty; send the bytes of a WebAssembly component")]
    Empty,
    /// More bytes than this host takes.
    #[error("the component has {size_bytes} bytes; this host takes up to {maximum_bytes}")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
        /// The most that is taken.
        maximum_bytes: u64,
    },
    /// Not WebAssembly.
    #[error("these bytes are not WebAssembly: they do not begin with `\\0asm`{hint}")]
    NotWasm {
        /// Empty, or what they look like instead.
        hint: &'static str,
    },
    /// A core module.
    #[error(
        "this is a core WebAssembly module, not a component; build for the target wasm32-wasip2, or wrap it \
         with `wasm-tools component new`"
    )]
    CoreModule,
    /// The validator refused it.
    #[error("the component is not valid: {message}")]
    Malformed {
        /// What the validator said, with the offset in bytes.
        message: String,
    },
    /// It needs a WebAssembly proposal that is switched off here.
    #[error("the component needs a WebAssembly feature that this host has switched off: {message}")]
    UnsupportedFeature {
        /// What the validator said.
        message: String,
    },
    /// It exports neither `handle` nor `evaluate`.
    #[error(
        "the component exports neither `handle` (a bot) nor `evaluate` (an oracle) of ringfence:guest; {found}"
    )]
    NoKnownWorld {
        /// What it does export.
        found: String,
    },
    /// It exports both.
    #[error("the component exports both `handle` and `evaluate`; build the bot and the oracle separately")]
    TwoWorlds,
    /// An export has the right name and another type.
    #[error("the export `{export}` does not have the type that ringfence:guest@0.1.0 gives it: {message}")]
    WrongExport {
        /// Its name.
        export: &'static str,
        /// Where the types differ.
        message: String,
    },
    /// It imports what this host does not offer to its kind.
    #[error("this host offers no {kind} the import{} {}", if .names.len() == 1 { "" } else { "s" }, list(.names))]
    UnknownImports {
        /// What the component is.
        kind: Kind,
        /// All that are not offered.
        names: Vec<String>,
    },
    /// An import has the right name and another type.
    #[error("an import does not have the type that this host offers: {message}")]
    WrongImport {
        /// Which one, and where the types differ.
        message: String,
    },
    /// It needs more of something than an instance has here.
    #[error("one instance would need more {dimension} than this host gives: {message}")]
    NeedsTooMuch {
        /// Of what: `core instances`, `memories`, `tables`, `memory`, `table elements` or `instance state`.
        dimension: &'static str,
        /// How much it needs and how much there is.
        message: String,
    },
    /// It is valid, but could not be compiled. A mistake of the host or of its compiler.
    #[error("the component could not be compiled: {message}")]
    CompileFailed {
        /// What the compiler said.
        message: String,
    },
    /// Compiling it was ended, for it took too much.
    #[error("compiling the component took more than {limit}; make its functions smaller or fewer")]
    CompilationLimit {
        /// The limit that was passed, with its unit.
        limit: String,
    },
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl InvalidComponent {
    /// Short and stable, for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Empty => "component_empty",
            Self::TooLarge { .. } => "component_too_large",
            Self::NotWasm { .. } => "not_wasm",
            Self::CoreModule => "core_module",
            Self::Malformed { .. } => "component_malformed",
            Self::UnsupportedFeature { .. } => "unsupported_feature",
            Self::NoKnownWorld { .. } => "no_known_world",
            Self::TwoWorlds => "two_worlds",
            Self::WrongExport { .. } => "wrong_export",
            Self::UnknownImports { .. } => "unknown_imports",
            Self::WrongImport { .. } => "wrong_import",
            Self::NeedsTooMuch { .. } => "needs_too_much",
            Self::CompileFailed { .. } => "compile_failed",
            Self::CompilationLimit { .. } => "compilation_limit",
        }
    }
}

/// Looks at size and header, before anything is spent on the bytes.
///
/// # Errors
/// That they are too many, or no component by their first eight.
pub fn check_header(wasm: &[u8], maximum_bytes: usize) -> Result<(), InvalidComponent> {
    if wasm.is_empty() {
        return Err(InvalidComponent::Empty);
    }
    if wasm.len() > maximum_bytes {
        return Err(InvalidComponent::TooLarge {
            size_bytes: wasm.len() as u64,
            maximum_bytes: maximum_bytes as u64,
        });
    }
    if !wasm.starts_with(b"\0asm") {
        let hint = match wasm.first() {
            Some(b'(' | b';') => "; they look like the text format: convert it with `wasm-tools parse`",
            Some(0x1f) => "; they look compressed with gzip",
            Some(b'P') if wasm.starts_with(b"PK") => "; they look like a zip archive",
            _ => "",
        };
        return Err(InvalidComponent::NotWasm { hint });
    }
    match wasm.get(4..8) {
        Some([1, 0, 0, 0]) => Err(InvalidComponent::CoreModule),
        Some([_, _, 1, 0]) => Ok(()),
        Some(_) => Err(InvalidComponent::Malformed { message: "unknown version (at offset 0x4)".to_owned() }),
        None => {
            Err(InvalidComponent::Malformed { message: "the header is cut off (at offset 0x4)".to_owned() })
        }
    }
}

/// Sorts out why wasmtime did not take the bytes. Its errors are text; what is not recognised is a failure to
/// compile, so a changed text makes an answer less exact and never lets anything through.
pub(crate) fn classify(message: String) -> InvalidComponent {
    let message = match needs_too_much(message) {
        Ok(error) => return error,
        Err(message) => message,
    };
    let has = |part: &str| message.contains(part);
    if has("must be enabled")
        || has("not enabled")
        || has("not supported")
        || has("feature")
        || has("disabled")
    {
        return InvalidComponent::UnsupportedFeature { message };
    }
    if has("at offset") || has("failed to parse") {
        return InvalidComponent::Malformed { message };
    }
    InvalidComponent::CompileFailed { message }
}

/// Recognises what the pool says of a component that is too much for a slot; else gives the message back.
pub(crate) fn needs_too_much(message: String) -> Result<InvalidComponent, String> {
    let has = |part: &str| message.contains(part);
    let dimension = if !has("pooling allocator") && !has("exceeds the configured maximum") {
        return Err(message);
    } else if has("core module instances,") {
        "core instances"
    } else if has("linear memories") || has("memories count") {
        "memories"
    } else if has(" tables, which") || has("tables count") {
        "tables"
    } else if has("module memory") {
        "memory"
    } else if has("module table") {
        "table elements"
    } else {
        "instance state"
    };
    Ok(InvalidComponent::NeedsTooMuch { dimension, message })
}

/// What a component is linked to, by kind.
pub(crate) struct Linkers {
    pub(crate) bot: Linker<State>,
    pub(crate) oracle: Linker<State>,
}

/// A component with its imports resolved and its export found, ready to be instantiated.
pub(crate) enum Linked {
    Bot(BotPre<State>),
    Oracle(OraclePre<State>),
}

/// Interfaces of `ringfence:guest` 0.1 that a bot may import, and whether an oracle may as well.
const GUEST_INTERFACES: [(&str, bool); 6] =
    [("types", true), ("log", true), ("config", true), ("kv", false), ("secrets", false), ("llm", false)];

/// Packages of WASI 0.2 whose interfaces the linker has.
const WASI_PACKAGES: [&str; 7] = ["cli", "clocks", "filesystem", "http", "io", "random", "sockets"];

/// Decides whether a compiled component may run here, and links it.
pub(crate) fn inspect(
    component: &Component,
    linkers: &Linkers,
    digest: Digest,
    size_bytes: u64,
) -> Result<(ComponentInfo, Linked), InvalidComponent> {
    let engine = component.engine();
    let ty = component.component_type();
    let kind = kind(ty.exports(engine).map(|(name, _)| name))?;
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let unknown: Vec<String> = imports.iter().filter(|name| !offered(name, kind)).cloned().collect();
    if !unknown.is_empty() {
        return Err(InvalidComponent::UnknownImports { kind, names: unknown });
    }

    let linker = match kind {
        Kind::Bot => &linkers.bot,
        Kind::Oracle => &linkers.oracle,
    };
    let wrong_import =
        |error: wasmtime::Error| InvalidComponent::WrongImport { message: format!("{error:#}") };
    let pre = linker.instantiate_pre(component).map_err(wrong_import)?;
    let linked = link(kind, pre)?;
    let info = ComponentInfo { digest, kind, capabilities: capabilities(&imports), imports, size_bytes };
    Ok((info, linked))
}

fn kind<'a>(exports: impl Iterator<Item = &'a str>) -> Result<Kind, InvalidComponent> {
    let exports: Vec<&str> = exports.collect();
    match (exports.contains(&"handle"), exports.contains(&"evaluate")) {
        (true, false) => Ok(Kind::Bot),
        (false, true) => Ok(Kind::Oracle),
        (true, true) => Err(InvalidComponent::TwoWorlds),
        (false, false) => {
            let found = if exports.is_empty() {
                "it exports nothing".to_owned()
            } else {
                let shown: Vec<String> = exports.iter().take(8).map(|name| (*name).to_owned()).collect();
                format!("it exports {}", list(&shown))
            };
            Err(InvalidComponent::NoKnownWorld { found })
        }
    }
}

fn link(kind: Kind, pre: InstancePre<State>) -> Result<Linked, InvalidComponent> {
    let wrong_export = |export| {
        move |error: wasmtime::Error| InvalidComponent::WrongExport { export, message: format!("{error:#}") }
    };
    match kind {
        Kind::Bot => BotPre::new(pre).map(Linked::Bot).map_err(wrong_export("handle")),
        Kind::Oracle => OraclePre::new(pre).map(Linked::Oracle).map_err(wrong_export("evaluate")),
    }
}

/// Whether the import `name`, like `wasi:cli/exit@0.2.3`, is one that a component of this kind may have.
fn offered(name: &str, kind: Kind) -> bool {
    let Some((path, version)) = name.split_once('@') else { return false };
    if let Some(interface) = path.strip_prefix("ringfence:guest/") {
        return version.starts_with("0.1.")
            && GUEST_INTERFACES
                .iter()
                .any(|(known, oracle)| *known == interface && (*oracle || kind == Kind::Bot));
    }
    let Some((package, _)) = path.strip_prefix("wasi:").and_then(|path| path.split_once('/')) else {
        return false;
    };
    version.starts_with("0.2.") && WASI_PACKAGES.contains(&package)
}

fn capabilities(imports: &[String]) -> Vec<String> {
    let imported = |prefix: &str| imports.iter().any(|name| name.starts_with(prefix));
    [
        ("config", "ringfence:guest/config@"),
        ("http", "wasi:http/outgoing-handler@"),
        ("kv", "ringfence:guest/kv@"),
        ("llm", "ringfence:guest/llm@"),
        ("secrets", "ringfence:guest/secrets@"),
    ]
    .into_iter()
    .filter(|(_, prefix)| imported(prefix))
    .map(|(capability, _)| capability.to_owned())
    .collect()
}
