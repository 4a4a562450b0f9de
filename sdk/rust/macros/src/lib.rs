//! The attributes `#[ringfence::bot]` and `#[ringfence::oracle]`.
//!
//! Both leave the author's function as it is, so that a test calls it like any other. For the guest
//! target they add the export that the contract asks for; natively they only check the signature.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::{FnArg, ItemFn, ReturnType};

/// Makes a function the component's bot: `fn(Input) -> Result<Output, Failure>`.
///
/// `Input` is anything that serde deserializes, or `ringfence::Task<T>` to see the invocation's id as
/// well. `Output` is anything that serde serializes.
#[proc_macro_attribute]
pub fn bot(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(arguments.into(), function.into(), &BOT).into()
}

/// Makes a function the component's oracle:
/// `fn(Job<Input>, Submission<Content>) -> Result<Verdict, Failure>`.
#[proc_macro_attribute]
pub fn oracle(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand(arguments.into(), function.into(), &ORACLE).into()
}

/// What one attribute needs to know.
struct Kind {
    attribute: &'static str,
    parameters: usize,
    shape: &'static str,
    /// A check of the function's type that costs nothing, for native builds.
    check: fn(&syn::Ident) -> Tokens,
    /// The export, for the guest target.
    export: fn(&syn::Ident) -> Tokens,
}

const BOT: Kind = Kind {
    attribute: "#[ringfence::bot]",
    parameters: 1,
    shape: "fn(Input) -> Result<Output, Failure>",
    check: |name| quote!(::ringfence::__private::check_bot(#name)),
    export: |name| {
        quote! {
            struct Component;
            impl ::ringfence::__private::bot::Guest for Component {
                fn handle(
                    task: ::ringfence::__private::bot::Task,
                ) -> ::core::result::Result<::std::string::String, ::ringfence::__private::bot::Failure> {
                    ::ringfence::__private::export_bot(#name, task)
                }
            }
            ::ringfence::__private::bot::export!(Component with_types_in ::ringfence::__private::bot);
        }
    },
};

const ORACLE: Kind = Kind {
    attribute: "#[ringfence::oracle]",
    parameters: 2,
    shape: "fn(Job<Input>, Submission<Content>) -> Result<Verdict, Failure>",
    check: |name| quote!(::ringfence::__private::check_oracle(#name)),
    export: |name| {
        quote! {
            struct Component;
            impl ::ringfence::__private::oracle::Guest for Component {
                fn evaluate(
                    job: ::ringfence::__private::oracle::Job,
                    submission: ::ringfence::__private::oracle::Submission,
                ) -> ::core::result::Result<
                    ::ringfence::__private::oracle::Verdict,
                    ::ringfence::__private::oracle::Failure,
                > {
                    ::ringfence::__private::export_oracle(#name, job, submission)
                }
            }
            ::ringfence::__private::oracle::export!(Component with_types_in ::ringfence::__private::oracle);
        }
    },
};

fn expand(arguments: Tokens, function: Tokens, kind: &Kind) -> Tokens {
    let original = function.clone();
    match checked(arguments, function, kind) {
        Ok(function) => {
            let (check, export) = ((kind.check)(&function.sig.ident), (kind.export)(&function.sig.ident));
            quote! {
                #function

                #[cfg(not(target_family = "wasm"))]
                const _: fn() = || #check;

                #[cfg(target_family = "wasm")]
                #[allow(unsafe_code, reason = "generated: the component's export")]
                const _: () = { #export };
            }
        }
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#original #error)
        }
    }
}

fn checked(arguments: Tokens, function: Tokens, kind: &Kind) -> syn::Result<ItemFn> {
    let complain =
        |what: &str| format!("{}: {what}; it goes on a function like `{}`", kind.attribute, kind.shape);
    if !arguments.is_empty() {
        return Err(syn::Error::new_spanned(arguments, complain("takes no arguments")));
    }
    let function: ItemFn = syn::parse2(function)?;
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(syn::Error::new_spanned(token, complain("the function can't be async")));
    }
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new_spanned(&signature.generics, complain("the function can't be generic")));
    }
    let receives_self = signature.inputs.iter().any(|input| matches!(input, FnArg::Receiver(_)));
    if receives_self || signature.inputs.len() != kind.parameters {
        let what = format!("the function takes {} parameter(s)", kind.parameters);
        return Err(syn::Error::new_spanned(signature, complain(&what)));
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(syn::Error::new_spanned(signature, complain("the function returns a Result")));
    }
    Ok(function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(function: Tokens, kind: &Kind) -> String {
        expand(Tokens::new(), function, kind).to_string()
    }

    #[test]
    fn a_bot_keeps_its_function_and_gets_an_export() {
        let text = expanded(
            quote!(
                fn handle(input: u8) -> Result<u8, Failure> {
                    Ok(input)
                }
            ),
            &BOT,
        );
        assert!(text.contains("fn handle (input : u8)"), "{text}");
        assert!(text.contains("export_bot (handle , task)"), "{text}");
        assert!(!text.contains("compile_error"), "{text}");
    }

    #[test]
    fn a_wrong_shape_is_named() {
        for (function, kind, what) in [
            (
                quote!(
                    fn handle() -> Result<u8, Failure> {
                        Ok(1)
                    }
                ),
                &BOT,
                "takes 1 parameter",
            ),
            (
                quote!(
                    async fn handle(a: u8) -> Result<u8, Failure> {
                        Ok(a)
                    }
                ),
                &BOT,
                "can't be async",
            ),
            (
                quote!(
                    fn handle(a: u8) {}
                ),
                &BOT,
                "returns a Result",
            ),
            (
                quote!(
                    fn judge(job: Job<u8>) -> R {
                        todo!()
                    }
                ),
                &ORACLE,
                "takes 2 parameter",
            ),
        ] {
            let text = expanded(function, kind);
            assert!(text.contains("compile_error") && text.contains(what), "{text}");
        }
    }
}
