//! Capabilities: language models, through the guest that has one sum up a text.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ringfence_runtime::{
    BotCall, CallError, Capabilities, Completed, Completion, Invocation, LanguageModel, Limits, Llm,
    LlmError, Outcome,
};

use crate::guests::{RUNTIME, built, prepared, tenant};

/// Answers as the test says, and remembers what it was asked.
struct Model {
    asked: Mutex<Vec<Completion>>,
    answer: Result<Completed, LlmError>,
    hangs: bool,
}

#[async_trait]
impl LanguageModel for Model {
    async fn complete(&self, request: Completion) -> Result<Completed, LlmError> {
        self.asked.lock().unwrap().push(request);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.answer.clone()
    }
}

fn answering(tokens: Option<(u64, u64)>) -> Model {
    let (content, finish_reason) = ("It is about a fox.".to_owned(), "stop".to_owned());
    let answer = Ok(Completed { content, finish_reason, model: "small-1".to_owned(), tokens });
    Model { asked: Mutex::default(), answer, hangs: false }
}

async fn sum_up(
    model: Model,
    text: &str,
    granted: &str,
    limit: u64,
) -> (Invocation<String>, Vec<Completion>) {
    let endpoint = Arc::new(model);
    let llm = Llm {
        endpoint: Arc::clone(&endpoint) as Arc<dyn LanguageModel>,
        models: [granted.to_owned()].into(),
        max_tokens_per_call: limit,
    };
    let config = [("model".to_owned(), "small".to_owned())].into();
    let call = BotCall {
        input: format!(r#"{{"text":"{text}","sentences":1}}"#),
        capabilities: Arc::new(Capabilities { config, llm: Some(llm), ..Capabilities::default() }),
        limits: Limits { wall_time_ms: 2000, ..Limits::default() },
        ..prepared(&RUNTIME, built("summary")).await
    };
    let invocation = RUNTIME.call_bot(call).await.unwrap();
    let asked = endpoint.asked.lock().unwrap().clone();
    (invocation, asked)
}

fn tokens(invocation: &Invocation<String>) -> (u64, u64) {
    (invocation.usage.llm_input_tokens, invocation.usage.llm_output_tokens)
}

#[tokio::test]
async fn a_model_answers_and_its_tokens_are_counted() {
    let (invocation, asked) = sum_up(answering(Some((40, 7))), "A fox.", "small", 1000).await;
    let output = invocation.output.as_deref().unwrap();
    assert!(
        output.contains(r#""summary":"It is about a fox.""#) && output.contains(r#""whole":true"#),
        "{output}"
    );
    assert_eq!(tokens(&invocation), (40, 7));
    let [asked] = &asked[..] else { panic!("asked {} times", asked.len()) };
    assert_eq!((asked.model.as_str(), asked.max_tokens, asked.temperature), ("small", 80, Some(0.0)));
    assert_eq!(asked.messages.iter().map(|(role, _)| *role).collect::<Vec<_>>(), ["system", "user"]);
    assert_eq!(asked.messages[1].1, "A fox.");
    let shown = format!("{:?}", invocation.logs);
    assert!(!shown.contains("fox"), "{shown}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_count_or_lies_is_estimated() {
    // 18 bytes of an answer are 6 tokens.
    for reported in [None, Some((0, 7)), Some((40, 0)), Some((0, 0))] {
        let (invocation, _) = sum_up(answering(reported), "A fox.", "small", 1000).await;
        let (input, output) = tokens(&invocation);
        assert!((50..150).contains(&input) && output == 6, "{reported:?}: {input} {output}");
    }
    let (invocation, _) = sum_up(answering(Some((u64::MAX, u64::MAX))), "A fox.", "small", 1000).await;
    assert_eq!(tokens(&invocation), (u32::MAX.into(), u32::MAX.into()));
}

#[tokio::test]
async fn a_call_has_so_many_tokens() {
    let long = "long ".repeat(200);
    let (invocation, asked) = sum_up(answering(Some((9, 9))), &long, "small", 388).await;
    assert_eq!(invocation.failure.as_ref().unwrap().code, "llm_limit", "{invocation:?}");
    assert_eq!((asked.len(), tokens(&invocation)), (0, (0, 0)), "nothing was sent");
    // What is left bounds the answer.
    let (invocation, asked) = sum_up(answering(Some((9, 9))), &long, "small", 430).await;
    assert_eq!(invocation.outcome, Outcome::Completed);
    assert!((1..80).contains(&asked[0].max_tokens), "{}", asked[0].max_tokens);
}

#[tokio::test]
async fn what_fails_reaches_the_guest() {
    for (error, code) in [
        (LlmError::Invalid("not like this".to_owned()), "llm_invalid"),
        (LlmError::Unavailable { message: "gone fishing".to_owned(), retryable: true }, "llm_unavailable"),
    ] {
        let text = error.to_string();
        let model = Model { answer: Err(error), ..answering(None) };
        let (invocation, _) = sum_up(model, "A fox.", "small", 1000).await;
        assert_eq!(tokens(&invocation), (0, 0));
        let failure = invocation.failure.unwrap();
        assert_eq!((failure.code.as_str(), failure.message.as_str()), (code, text.as_str()));
    }
    let (invocation, asked) = sum_up(answering(None), "A fox.", "large", 1000).await;
    let failure = invocation.failure.unwrap();
    assert_eq!((failure.code.as_str(), asked.len()), ("llm_not_granted", 0));
    assert!(failure.message.contains("`small`"), "{failure:?}");
}

#[tokio::test]
async fn a_call_that_ends_while_it_waits_pays_for_what_was_sent() {
    let model = Model { hangs: true, ..answering(None) };
    let (invocation, asked) = sum_up(model, "A fox.", "small", 1000).await;
    assert_eq!((invocation.outcome, asked.len()), (Outcome::TimedOut, 1));
    let (input, output) = tokens(&invocation);
    assert!(input > 50 && output == 0, "{input} {output}");
}

#[tokio::test]
async fn without_the_grant_nothing_starts() {
    let call = prepared(&RUNTIME, built("summary")).await;
    assert_eq!(RUNTIME.prepare(built("summary"), &tenant()).await.unwrap().capabilities, ["config", "llm"]);
    assert_eq!(RUNTIME.call_bot(call).await, Err(CallError::MissingGrant { capability: "llm" }));
}
