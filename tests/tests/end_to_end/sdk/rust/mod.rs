//! Calls all functions of the Rust client on one server. Returns one line per call.

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

/// Runs all calls on the server at this URL.
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
