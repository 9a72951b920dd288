//! Posts ended tasks to webhooks, as Meilisearch does: newline-delimited JSON, compressed, in one request.
//!
//! Source: Meilisearch 1.50, `index-scheduler`, `notify_webhooks`.

use crate::{
    base::{
        error::{Error, Result, chain},
        outbound::{self, Outbound},
    },
    cluster::Cluster,
    ledger::webhooks::{self, Webhook},
};
use flate2::{Compression, write::GzEncoder};
use reqwest::Method;
use std::{io::Write, sync::Arc, time::Duration};

/// How often to look for ended tasks.
const PAUSE: Duration = Duration::from_millis(200);

/// Posts ended tasks to webhooks, forever. A webhook that does not answer misses those tasks: they are not sent again.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        if let Err(error) = round(&cluster).await {
            tracing::error!(error = %error.chain(), "ended tasks could not be posted to webhooks");
        }
    }
}

async fn round(cluster: &Cluster) -> Result<()> {
    let (tasks, hooks) = cluster
        .ledger
        .call(|connection| {
            let tasks = webhooks::take_unposted(connection)?;
            let hooks = if tasks.is_empty() { Default::default() } else { webhooks::all(connection)? };
            Ok((tasks, hooks))
        })
        .await?;
    if tasks.is_empty() {
        return Ok(());
    }
    let mut body = GzEncoder::new(Vec::new(), Compression::default());
    for task in &tasks {
        writeln!(body, "{}", task.view()).map_err(Error::file("a webhook's body"))?;
    }
    let body = body.finish().map_err(Error::file("a webhook's body"))?;
    for (uuid, hook) in hooks {
        let body = body.clone();
        let outbound = cluster.options.outbound.clone();
        // In a task of its own, so that a slow webhook does not delay the others.
        tokio::spawn(async move {
            if let Err(error) = post(&outbound, &hook, body).await {
                tracing::warn!(%uuid, error = %chain(&error), "ended tasks could not be posted to a webhook");
            }
        });
    }
    Ok(())
}

async fn post(outbound: &Outbound, hook: &Webhook, body: Vec<u8>) -> Result<(), outbound::Error> {
    let mut request = outbound
        .request(Method::POST, &hook.url)
        .header("content-type", "application/x-ndjson")
        .header("content-encoding", "gzip");
    for (name, value) in &hook.headers {
        request = request.header(name, value);
    }
    outbound.send(request.body(body)).await?.error_for_status()?;
    Ok(())
}
