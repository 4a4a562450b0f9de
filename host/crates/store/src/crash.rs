//! Crashes on purpose: how tests end a host between any two statements of a transaction. Only in builds with debug
//! assertions; in others there is nothing of it.

/// Ends the process, as kill −9 would, if its turn has come: `RINGFENCE_CRASH_FILE` names a file, and while that holds a
/// number, each point takes one off. Whoever finds 1 there removes the file and is gone.
#[cfg(debug_assertions)]
pub(crate) fn point() {
    use std::path::PathBuf;
    use std::sync::{LazyLock, Mutex, PoisonError};

    static FILE: LazyLock<Option<Mutex<PathBuf>>> =
        LazyLock::new(|| std::env::var_os("RINGFENCE_CRASH_FILE").map(|path| Mutex::new(path.into())));
    let Some(file) = &*FILE else { return };
    let path = file.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(left) = std::fs::read_to_string(&*path).ok().and_then(|text| text.parse::<u64>().ok()) else {
        return;
    };
    if left > 1 {
        // A test that cannot count fails by itself.
        let _ = std::fs::write(&*path, (left - 1).to_string());
    } else {
        let _ = std::fs::remove_file(&*path);
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
pub(crate) const fn point() {}
