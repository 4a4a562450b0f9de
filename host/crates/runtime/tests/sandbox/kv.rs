//! Capabilities: the key-value store, configuration and structured logs, through the guest that uses all three.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ringfence_runtime::{
    BotCall, CallError, Capabilities, Invocation, KvError, KvStore, Level, Outcome, Stream,
};

use crate::guests::{RUNTIME, built, prepared, tenant};

#[derive(Default)]
struct Memory {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    /// What somebody else writes just before the next swap.
    meddle: Mutex<Vec<(String, Vec<u8>)>>,
    refuse: Option<KvError>,
}

impl Memory {
    fn refused(&self) -> Result<(), KvError> {
        self.refuse.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl KvStore for Memory {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, KvError> {
        tokio::task::yield_now().await;
        self.refused()?;
        Ok(self.values.lock().unwrap().get(key).cloned())
    }

    async fn set(&self, key: &str, value: Vec<u8>) -> Result<(), KvError> {
        self.refused()?;
        self.values.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.refused()?;
        self.values.lock().unwrap().remove(key);
        Ok(())
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        expected: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
    ) -> Result<bool, KvError> {
        self.refused()?;
        let mut values = self.values.lock().unwrap();
        if let Some((key, meddled)) = self.meddle.lock().unwrap().pop() {
            values.insert(key, meddled);
        }
        if values.get(key) != expected.as_ref() {
            return Ok(false);
        }
        match value {
            Some(value) => values.insert(key.to_owned(), value),
            None => values.remove(key),
        };
        Ok(true)
    }

    async fn list_keys(&self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, KvError> {
        let values = self.values.lock().unwrap();
        let keys = values.keys().filter(|key| key.starts_with(prefix));
        let keys = keys.filter(|key| after.is_none_or(|after| key.as_str() > after));
        Ok(keys.take(limit as usize).cloned().collect())
    }
}

async fn notes(input: &str, store: &Arc<Memory>, config: &[(&str, &str)]) -> Invocation<String> {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let capabilities =
        Capabilities { config, kv: Some(store.clone() as Arc<dyn KvStore>), ..Capabilities::default() };
    let call = BotCall {
        input: input.to_owned(),
        capabilities: Arc::new(capabilities),
        ..prepared(&RUNTIME, built("notes")).await
    };
    RUNTIME.call_bot(call).await.unwrap()
}

#[tokio::test]
async fn what_is_kept_lives_on_between_calls() {
    let store = Arc::new(Memory::default());
    let added = notes(r#"{"do":"add","name":"milk","text":"two litres"}"#, &store, &[]).await;
    assert_eq!(added.output.as_deref(), Some(r#"{"added":{"notes":1}}"#), "{added:?}");
    assert_eq!(store.values.lock().unwrap().get("note/milk").unwrap(), b"two litres");
    let line = added.logs.first().expect("a line for each change");
    assert_eq!((line.stream, line.level, line.message.as_str()), (Stream::Log, Level::Info, "added a note"));
    assert!(line.fields.contains(&("name".to_owned(), "milk".to_owned())), "{line:?}");
    assert!(added.usage.log_bytes > 0 && added.usage.host_calls >= 3, "{:?}", added.usage);

    let got = notes(r#"{"do":"get","name":"milk"}"#, &store, &[]).await.output.unwrap();
    assert!(got.contains("two litres"), "{got}");
    notes(r#"{"do":"remove","name":"milk"}"#, &store, &[]).await;
    assert_eq!(notes(r#"{"do":"list"}"#, &store, &[]).await.output.unwrap(), r#"{"notes":[]}"#);
    assert_eq!(notes(r#"{"do":"get","name":"milk"}"#, &store, &[]).await.failure.unwrap().code, "not_found");
}

#[tokio::test]
async fn configuration_is_read() {
    let store = Arc::new(Memory::default());
    let add = |name: &str| format!(r#"{{"do":"add","name":"{name}","text":""}}"#);
    let limited = [("max_notes", "1")];
    assert_eq!(notes(&add("a"), &store, &limited).await.outcome, Outcome::Completed);
    assert_eq!(notes(&add("b"), &store, &limited).await.failure.unwrap().code, "too_many_notes");
}

#[tokio::test]
async fn a_guest_that_swaps_sees_what_came_between() {
    let store = Arc::new(Memory::default());
    let count = r#"{"do":"count"}"#;
    let first = notes(count, &store, &[]).await;
    assert_eq!(first.output.unwrap(), r#"{"count":1}"#);
    store.meddle.lock().unwrap().push(("count".to_owned(), b"41".to_vec()));
    let counted = notes(count, &store, &[]).await;
    assert_eq!(counted.output.unwrap(), r#"{"count":42}"#);
    assert_eq!(counted.usage.host_calls, first.usage.host_calls + 2, "it read again, and swapped again");
    assert_eq!(store.values.lock().unwrap().get("count").unwrap(), b"42");
}

#[tokio::test]
async fn keys_have_their_size() {
    let store = Arc::new(Memory::default());
    let add = |length: usize| format!(r#"{{"do":"add","name":"{}","text":""}}"#, "k".repeat(length));
    // The guest puts `note/` in front.
    assert_eq!(notes(&add(251), &store, &[]).await.outcome, Outcome::Completed);
    let refused = notes(&add(252), &store, &[]).await;
    assert!(refused.failure.is_some(), "{refused:?}");
    assert_eq!(store.values.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_store_says_reaches_the_guest() {
    for refuse in
        [KvError::QuotaExceeded("full up".to_owned()), KvError::Unavailable("gone fishing".to_owned())]
    {
        let text = refuse.to_string();
        let store = Arc::new(Memory { refuse: Some(refuse), ..Memory::default() });
        let failure = notes(r#"{"do":"add","name":"a","text":""}"#, &store, &[]).await.failure.unwrap();
        assert!(failure.message.contains(&text), "{failure:?}");
    }
}

#[tokio::test]
async fn without_the_grant_nothing_starts() {
    let call = prepared(&RUNTIME, built("notes")).await;
    assert_eq!(RUNTIME.prepare(built("notes"), &tenant()).await.unwrap().capabilities, ["config", "kv"]);
    assert_eq!(RUNTIME.call_bot(call).await, Err(CallError::MissingGrant { capability: "kv" }));
}
