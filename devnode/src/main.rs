//! A node for demos and tests.
fn main() {}
