use serde::de::DeserializeOwned;

/// Reads a JSON text. The error names the place in the data, then what serde says of it:
/// ``at `orders[3].cents`: invalid type: …``.
pub(crate) fn json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let what = error.into_inner();
        if path == "." { what.to_string() } else { format!("at `{path}`: {what}") }
    })?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}
