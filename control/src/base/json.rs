//! JSON that cannot fail to be written.

use serde::Serialize;

/// A value as JSON text. Writing fails for maps whose keys are no text, and for types that refuse to be written: the control plane's
/// types have no such maps, and derive how they are written.
#[must_use]
#[expect(clippy::expect_used, reason = "a type that cannot be written is a mistake in the code")]
pub fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a type of the control plane can be written as JSON")
}
