//! The configuration that this Envoy last refused, for reports to the control plane.
//!
//! Envoy tries a new configuration in a separate VM, which ends if it refuses; data shared by all VMs survives that.

use miroir_core::protocol::RefusedTopology;
use proxy_wasm::hostcalls;

/// The configuration that was refused last, as JSON, or nothing.
const REFUSED: &str = "miroir/refused";
/// The version that was accepted last.
const TAKEN: &str = "miroir/taken";

/// Records that a configuration was refused.
pub fn note(refused: &RefusedTopology) {
    set(REFUSED, Some(&refused.to_json()));
}

/// Records that a configuration was accepted. A worker that restarts gets the same version again, which must not clear a later
/// refusal.
pub fn taken(version: u64) {
    let version = version.to_string();
    if get(TAKEN).as_deref() != Some(version.as_bytes()) {
        set(TAKEN, Some(version.as_bytes()));
        set(REFUSED, None);
    }
}

/// The configuration that was refused since the last accepted one.
pub fn last() -> Option<RefusedTopology> {
    get(REFUSED).and_then(|json| RefusedTopology::from_json(&json))
}

fn get(key: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(key).ok().and_then(|(value, _)| value)
}

fn set(key: &str, value: Option<&[u8]>) {
    if let Err(status) = hostcalls::set_shared_data(key, value, None) {
        log::warn!("shared data {key} cannot be stored: {status:?}");
    }
}
