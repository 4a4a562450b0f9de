//! The one door to the host: the component's imports, or in native builds [`crate::testing`].

#[cfg(target_family = "wasm")]
pub(crate) use imports::*;

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::imports::*;

#[cfg(target_family = "wasm")]
mod imports {
    use crate::bindings::{config, kv, log, secrets};
    use crate::kv::Error;
    use crate::log::Level;

    pub(crate) fn log_write(level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        log::write(level, message, fields);
    }

    pub(crate) fn config_get(key: &str) -> Option<String> {
        config::get(key)
    }

    pub(crate) fn config_entries() -> Vec<(String, String)> {
        config::entries()
    }

    pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, Error> {
        kv::get(key).map_err(kv_error)
    }

    pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), Error> {
        kv::set(key, value).map_err(kv_error)
    }

    pub(crate) fn kv_delete(key: &str) -> Result<(), Error> {
        kv::delete(key).map_err(kv_error)
    }

    pub(crate) fn kv_compare_and_swap(
        key: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, Error> {
        kv::compare_and_swap(key, expected, value).map_err(kv_error)
    }

    pub(crate) fn kv_list_keys(prefix: &str, after: Option<&str>) -> Result<Vec<String>, Error> {
        kv::list_keys(prefix, after).map_err(kv_error)
    }

    pub(crate) fn secret(name: &str) -> Result<String, crate::secrets::Error> {
        secrets::get(name).map_err(|error| match error {
            secrets::Error::NotGranted(detail) => crate::secrets::Error::NotGranted(detail),
            secrets::Error::Unavailable(detail) => crate::secrets::Error::Unavailable(detail),
        })
    }

    fn kv_error(error: kv::Error) -> Error {
        match error {
            kv::Error::InvalidKey(detail) => Error::InvalidKey(detail),
            kv::Error::QuotaExceeded(detail) => Error::QuotaExceeded(detail),
            kv::Error::Unavailable(detail) => Error::Unavailable(detail),
        }
    }
}
