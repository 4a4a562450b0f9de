//! The smallest bot: it returns its input.

use ringfence::Failure;
use serde_json::value::RawValue;

/// The input is kept as the text that it is: nothing is parsed twice.
#[ringfence::bot]
fn handle(input: Box<RawValue>) -> Result<Box<RawValue>, Failure> {
    Ok(input)
}

#[cfg(test)]
mod tests {
    use ringfence::testing::Host;

    #[test]
    fn what_goes_in_comes_out() {
        let input = r#"{"a":[1,2.50,null],"b":"ü"}"#;
        assert_eq!(
            Host::new().call(super::handle, input).unwrap().to_string(),
            r#"{"a":[1,2.5,null],"b":"ü"}"#
        );
    }
}
