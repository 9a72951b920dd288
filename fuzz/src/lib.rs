//! Properties of core that must hold for any input. Each target makes a plausible input from bytes, uses core as the filter
//! does, and panics if a property does not hold.
//!
//! A target is a module with `check`, a line in [`TARGETS`], a file in `fuzz_targets/` and its `[[bin]]`.

pub mod content_encoding;
pub mod disguise;
pub mod documents;
mod input;
pub mod multi_search;
pub mod rank;
pub mod route;
pub mod scrub;
pub mod topology;

pub use input::{Input, Seeded};

/// Makes an input from bytes, and panics if a property does not hold.
pub type Check = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Check); 8] = [
    ("content_encoding", content_encoding::check),
    ("disguise", disguise::check),
    ("documents", documents::check),
    ("multi_search", multi_search::check),
    ("rank", rank::check),
    ("route", route::check),
    ("scrub", scrub::check),
    ("topology", topology::check),
];

/// The shard tag's name, repeated here so that a change in core cannot change what is searched for.
const TAG: &str = "_miroir_shard";

fn mentions_tag(bytes: &[u8]) -> bool {
    bytes.windows(TAG.len()).any(|window| window == TAG.as_bytes())
}
