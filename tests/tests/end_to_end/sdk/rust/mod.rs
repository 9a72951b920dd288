//! The Rust client's whole surface, against one address: a line for what every call gave.

mod documents;
mod script;
mod searches;
mod server;
mod settings;

use documents::indexes_and_documents;
use meilisearch_sdk::client::Client;
use script::Script;
use searches::searches;
use server::{keys, rest};
use settings::settings;

/// Drives the server at this address.
pub fn drive(url: &str, key: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut script = Script { client: Client::new(url, Some(key)).unwrap(), lines: Vec::new() };
        let client = script.client.clone();
        let films = indexes_and_documents(&mut script, &client).await;
        searches(&mut script, &client, &films).await;
        settings(&mut script, &films).await;
        keys(&mut script, &client, url).await;
        rest(&mut script, &client, films).await;
        script.lines
    })
}
