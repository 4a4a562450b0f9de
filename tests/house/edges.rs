//! Doors open one way: which crate may depend on which, and on what from outside.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// What each crate of the host may use of the others, in the order of the house.
const EDGES: &[(&str, &[&str])] = &[
    ("ringfence-model", &[]),
    ("ringfence-outbound", &["ringfence-model"]),
    ("ringfence-runtime", &["ringfence-model", "ringfence-outbound"]),
    ("ringfence-store", &["ringfence-model"]),
    ("ringfence-control", &["ringfence-model", "ringfence-outbound", "ringfence-runtime", "ringfence-store"]),
    ("ringfence-api", &["ringfence-control", "ringfence-model"]),
    (
        "ringfence",
        &[
            "ringfence-api",
            "ringfence-control",
            "ringfence-model",
            "ringfence-outbound",
            "ringfence-runtime",
            "ringfence-store",
        ],
    ),
    ("ringfence-testkit", &[]),
    ("ringfence-sdk", &["ringfence-macros"]),
    ("ringfence-macros", &[]),
];

/// What from outside may be used by whom alone: the heavy, and what reaches past the permission checks.
const RESERVED: &[(&str, &[&str])] = &[
    ("wasmtime", &["ringfence-runtime"]),
    ("wasmtime-wasi", &["ringfence-runtime"]),
    ("wasmtime-wasi-http", &["ringfence-runtime"]),
    ("rusqlite", &["ringfence-store"]),
    ("sqlx", &["ringfence-store", "ringfence-testkit"]),
    ("axum", &["ringfence-api"]),
    ("tokio-rustls", &["ringfence-outbound"]),
    ("hickory-resolver", &["ringfence-outbound"]),
    ("reqwest", &["ringfence-testkit"]),
];

/// The licences of what is linked into the binary. Each alternative of an SPDX expression is looked at.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    // Of data: the certificate authorities in webpki-roots.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> Metadata {
    let manifest = ringfence_testkit::root().join("Cargo.toml");
    // What is built for this platform, which is what a build has fetched.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = vec!["--locked".to_owned(), "--offline".to_owned(), platform];
    MetadataCommand::new().manifest_path(manifest).other_options(options).exec().unwrap()
}

fn normal(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}

#[test]
fn doors_open_one_way() {
    let metadata = metadata();
    let allowed: BTreeMap<_, BTreeSet<_>> =
        EDGES.iter().map(|(name, edges)| (*name, edges.iter().copied().collect())).collect();
    let members = metadata.workspace_packages();
    for package in &members {
        let edges = allowed
            .get(package.name.as_str())
            .unwrap_or_else(|| panic!("{} has no place in EDGES", package.name));
        for used in normal(package).filter(|used| used.starts_with("ringfence")) {
            assert!(edges.contains(used), "{} must not depend on {used}", package.name);
        }
    }
    assert_eq!(members.len(), EDGES.len(), "EDGES names a crate that is gone");
}

#[test]
fn what_is_reserved_is_used_where_it_belongs() {
    for package in metadata().workspace_packages() {
        for (reserved, users) in RESERVED {
            let uses = normal(package).any(|used| used == *reserved);
            assert!(
                !uses || users.contains(&package.name.as_str()),
                "{} must not depend on {reserved}",
                package.name
            );
        }
    }
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    for package in metadata.packages.iter().filter(|package| package.source.is_some()) {
        let licence = package.license.clone().unwrap_or_default().replace('/', " OR ");
        let terms = licence.replace(['(', ')'], "");
        let all_of =
            terms.split(" AND ").all(|part| part.split(" OR ").any(|one| LICENCES.contains(&one.trim())));
        assert!(all_of, "{} {} is under `{licence}`", package.name, package.version);
    }
}
