//! The one door to the host: the component's imports, or in native builds [`crate::testing`].

#[cfg(target_family = "wasm")]
pub(crate) use imports::*;

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::imports::*;

#[cfg(target_family = "wasm")]
mod imports {
    use crate::bindings::{config, kv, llm, log, secrets};
    use crate::kv::Error;
    use crate::log::Level;
    pub(crate) use crate::wasi_http::http_send;

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

    pub(crate) fn llm_complete(
        request: &crate::llm::Request,
    ) -> Result<crate::llm::Response, crate::llm::Error> {
        use crate::llm::{Error, FinishReason, Response, Role};
        let message = |(role, content): &(Role, String)| llm::Message {
            role: match role {
                Role::System => llm::Role::System,
                Role::User => llm::Role::User,
                Role::Assistant => llm::Role::Assistant,
            },
            content: content.clone(),
        };
        let response = llm::complete(&llm::Request {
            model: request.model.clone(),
            messages: request.messages.iter().map(message).collect(),
            max_tokens: request.max_tokens,
            temperature: request.temperature,
            json: request.json,
        });
        let response = response.map_err(|error| match error {
            llm::Error::NotGranted(message) => Error::NotGranted(message),
            llm::Error::Invalid(message) => Error::Invalid(message),
            llm::Error::Limit(message) => Error::Limit(message),
            llm::Error::Unavailable(llm::Unavailability { message, retryable }) => {
                Error::Unavailable { message, retryable }
            }
        })?;
        Ok(Response {
            content: response.content,
            finish_reason: match response.finish_reason {
                llm::FinishReason::Stop => FinishReason::Stop,
                llm::FinishReason::Length => FinishReason::Length,
                llm::FinishReason::Other => FinishReason::Other,
            },
            model: response.model,
            input_tokens: response.input_tokens,
            output_tokens: response.output_tokens,
            estimated: response.estimated,
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
