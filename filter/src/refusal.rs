//! What this Envoy has refused, for the control plane to hear.
//!
//! Envoy tries a new configuration in a VM of its own, which ends when it refuses: data that all VMs share outlives it.

use miroir_core::protocol::RefusedTopology;
use proxy_wasm::hostcalls;

/// What was refused last: JSON, or nothing.
const REFUSED: &str = "miroir/refused";
/// The version that was taken last.
const TAKEN: &str = "miroir/taken";

/// A configuration is refused.
pub fn note(refused: &RefusedTopology) {
    set(REFUSED, Some(&refused.to_json()));
}

/// A configuration is taken. A worker that starts again takes the one that it had: what was refused since then still is.
pub fn taken(version: u64) {
    let version = version.to_string();
    if get(TAKEN).as_deref() != Some(version.as_bytes()) {
        set(TAKEN, Some(version.as_bytes()));
        set(REFUSED, None);
    }
}

/// What was refused since the last one that was taken.
pub fn last() -> Option<RefusedTopology> {
    get(REFUSED).and_then(|json| RefusedTopology::from_json(&json))
}

fn get(key: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(key).ok().and_then(|(value, _)| value)
}

fn set(key: &str, value: Option<&[u8]>) {
    if let Err(status) = hostcalls::set_shared_data(key, value, None) {
        log::warn!("{key} cannot be kept: {status:?}");
    }
}
