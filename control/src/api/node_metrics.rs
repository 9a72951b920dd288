//! `GET /metrics`: the metrics of all nodes, merged into one text. Documents, indexes and tasks are counted as clients see them
//! in the cluster. Metrics of batches are left out, because each node has its own batches.

use super::{Sent, Shared, pass_on, stats};
use crate::{
    base::error::Result,
    cluster::Cluster,
    ledger::task_list::{self, Counts},
    node::{NodeAnswer, Request},
};
use axum::{http::header::CONTENT_TYPE, response::Response};
use futures_util::future::join_all;
use std::collections::BTreeMap;

/// Values by name and labels.
type Samples = BTreeMap<String, f64>;

/// `GET /metrics`. A node checks the client's key, and whether the experimental feature is enabled.
///
/// # Errors
/// No node answers; or the ledger failed.
pub async fn get(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = cluster.ask_any(&sent.request).await?;
    if !answer.is_success() {
        return Ok(pass_on(&answer));
    }
    let request = Request::own("GET", "/metrics", None);
    let nodes = cluster.current();
    let answers = join_all(nodes.iter().map(async |node| node.send(&request).await)).await;
    let texts: Vec<NodeAnswer> = answers.into_iter().flatten().filter(NodeAnswer::is_success).collect();
    let mut families = merge(texts.iter().map(|answer| String::from_utf8_lossy(&answer.body)));
    own(&cluster, &mut families).await?;
    let mut response = Response::new(write(&families).into());
    let kind = answer.content_type.as_deref().and_then(|kind| kind.parse().ok());
    kind.map(|kind| response.headers_mut().insert(CONTENT_TYPE, kind));
    Ok(response)
}

/// A metric family: all samples of one metric.
#[derive(Debug, Default, PartialEq)]
struct Family {
    /// The comments `HELP` and `TYPE`.
    about: Vec<String>,
    /// The samples in the order of the nodes' text: buckets of histograms must keep it.
    order: Vec<String>,
    values: Samples,
}

impl Family {
    fn set(&mut self, sample: String, value: f64) {
        if self.values.insert(sample.clone(), value).is_none() {
            self.order.push(sample);
        }
    }

    fn clear(&mut self) {
        self.order.clear();
        self.values.clear();
    }
}

/// How the values of two nodes are combined: most metrics are summed up.
fn combine(family: &str) -> fn(f64, f64) -> f64 {
    match family {
        "meilisearch_last_update" | "meilisearch_is_indexing" => f64::max,
        "meilisearch_task_queue_size_until_stop_registering" => f64::min,
        _ => |one, other| one + other,
    }
}

/// Merges the texts of all nodes, which are in Prometheus' format.
fn merge(texts: impl Iterator<Item = impl AsRef<str>>) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for text in texts {
        let mut name = "";
        for line in text.as_ref().lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                name = comment.split(' ').nth(1).unwrap_or_default();
                let family = families.entry(name.to_owned()).or_default();
                if !family.about.iter().any(|known| known == line) {
                    family.about.push(line.to_owned());
                }
            } else if let Some((sample, value)) = line.rsplit_once(' ')
                && let (Ok(value), Some(family)) = (value.parse::<f64>(), families.get_mut(name))
            {
                let value = family.values.get(sample).map_or(value, |known| combine(name)(*known, value));
                family.set(sample.to_owned(), value);
            }
        }
    }
    families.retain(|_, family| !family.order.iter().any(|sample| sample.contains("batch_uid=")));
    families
}

fn write(families: &BTreeMap<String, Family>) -> String {
    let mut text = String::new();
    for family in families.values().filter(|family| !family.order.is_empty()) {
        family.about.iter().for_each(|line| text.extend([line, "\n"]));
        for sample in &family.order {
            let value = family.values.get(sample).copied().unwrap_or_default();
            text.push_str(&format!("{sample} {value}\n"));
        }
    }
    text
}

/// Replaces the metrics that the control plane knows better than nodes.
async fn own(cluster: &Cluster, families: &mut BTreeMap<String, Family>) -> Result<()> {
    let cluster_state = cluster.cluster_state();
    let counts = cluster_state.indexes.keys().map(async |index| (index, stats::count(cluster, index).await));
    let counts = join_all(counts).await;
    cluster.tracked_tasks.refresh().await;
    let Counts { tasks, oldest } = cluster.ledger.read(task_list::counts).await?;
    let mut family = |name: &str, change: &dyn Fn(&mut Family)| {
        families.get_mut(name).into_iter().for_each(change);
    };
    let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    family("meilisearch_index_count", &|family| {
        family.set("meilisearch_index_count".to_owned(), number(cluster_state.indexes.len()));
    });
    family("meilisearch_index_docs_count", &|family| {
        family.clear();
        for (index, count) in &counts {
            if let Ok(count) = count {
                let sample = format!("meilisearch_index_docs_count{{index=\"{index}\"}}");
                family.set(sample, *count as f64);
            }
        }
    });
    family("meilisearch_nb_tasks", &|family| {
        // Keeps all types and states that nodes list, also those without any task.
        let known = |sample: &String| !sample.contains("kind=\"indexes\"");
        let known: Vec<String> = family.order.iter().filter(|sample| known(sample)).cloned().collect();
        family.clear();
        known.into_iter().for_each(|sample| family.set(sample, 0.0));
        for (kind, value, count) in &tasks {
            let sample = format!("meilisearch_nb_tasks{{kind=\"{kind}\",value=\"{value}\"}}");
            family.set(sample, f64::from(*count));
        }
    });
    let latency = oldest.map_or(0.0, |oldest| (cluster.clock.wall() - oldest).max(0) as f64 / 1e9);
    family("meilisearch_task_queue_latency_seconds", &|family| {
        family.set("meilisearch_task_queue_latency_seconds".to_owned(), latency);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_count_together() {
        let text = |requests: u32, update: u32, rest: &str| {
            format!(
                "# HELP requests Requests\n# TYPE requests counter\nrequests{{path=\"/a b\"}} {requests}\n\
                 # HELP meilisearch_last_update Last\n# TYPE meilisearch_last_update gauge\n\
                 meilisearch_last_update {update}\n{rest}"
            )
        };
        let batch = "# HELP traces Traces\n# TYPE traces gauge\ntraces{batch_uid=\"3\",step_name=\"x\"} 1\n";
        let more = "# HELP time Time\n# TYPE time histogram\ntime_bucket{le=\"0.1\"} 1\ntime_bucket{le=\"+Inf\"} 2\ntime_sum 0.5\n";
        let families = merge([text(2, 9, batch), text(3, 7, more)].iter());
        let expected = "# HELP meilisearch_last_update Last\n# TYPE meilisearch_last_update gauge\n\
                        meilisearch_last_update 9\n# HELP requests Requests\n# TYPE requests counter\n\
                        requests{path=\"/a b\"} 5\n";
        assert_eq!(write(&families), format!("{expected}{more}"));
    }
}
