//! Generated from `wit/` at the root of the repository.

pub(crate) mod bot {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "bot",
        imports: {
            "ringfence:guest/kv.get": async | trappable,
            "ringfence:guest/kv.set": async | trappable,
            "ringfence:guest/kv.delete": async | trappable,
            "ringfence:guest/kv.compare-and-swap": async | trappable,
            "ringfence:guest/kv.list-keys": async | trappable,
            "ringfence:guest/llm.complete": async | trappable,
            default: trappable,
        },
        exports: { default: async },
    });
}

pub(crate) mod oracle {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        world: "oracle",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "ringfence:guest/types": super::bot::ringfence::guest::types,
            "ringfence:guest/log": super::bot::ringfence::guest::log,
            "ringfence:guest/config": super::bot::ringfence::guest::config,
        },
    });
}

pub(crate) use bot::ringfence::guest::{config, kv, llm, log, secrets, types};
