//! The Proxy-Wasm plugin.
