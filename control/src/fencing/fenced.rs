//! What the control plane changes on nodes goes under keys that can be taken away: a request that had no answer, because its time was
//! over or the node hung, must not come late and undo what came after it.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::key_holder::WriteKeyHolder,
    node::{Authority, Node, NodeAnswer, Request, TIMEOUT},
};
use std::time::Duration;
use uuid::Uuid;

/// A request that has no answer yet. Whoever lets go of it has the node's key taken away before its copies are trusted.
struct OnItsWay<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    key: Uuid,
    is_over: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cluster.epochs.late(&self.node.name, self.key);
        }
    }
}

/// Sends a request that changes a node.
///
/// # Errors
/// No whole answer came in time, or the ledger failed.
pub async fn send(
    cluster: &Cluster,
    node: &Node,
    request: Request,
    patience: Duration,
) -> Result<NodeAnswer> {
    let holder = WriteKeyHolder::ControlPlane { node: node.name.clone() };
    let (key, text) = cluster.epochs.key(cluster, &holder).await?;
    let mut on_its_way = OnItsWay { cluster, node, key, is_over: false };
    let request = Request { authority: Authority::Header(format!("Bearer {text}")), ..request };
    let answer = node.send_within(&request, patience).await;
    // What found no connection is nowhere.
    let is_nowhere =
        |error: &Error| matches!(error, Error::Unreachable { source, .. } if source.is_connect());
    on_its_way.is_over = answer.as_ref().map_or_else(is_nowhere, |_| true);
    answer
}

/// Sends a request that a node makes a task of; gives the task.
///
/// # Errors
/// No whole answer came in time, or it was a refusal; or the ledger failed.
pub async fn enqueue(cluster: &Cluster, node: &Node, request: Request) -> Result<u64> {
    let answer = send(cluster, node, request.clone(), TIMEOUT).await?;
    let task = answer.task_uid().filter(|_| answer.is_success());
    task.map(u64::from).ok_or_else(|| node.unexpected(&request, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{
            config::{CONTROL_CLUSTER, ClusterFile, NodeConfig},
            outbound::{Outbound, Policy},
            secrets::Secrets,
            tls::NodeTls,
        },
        cluster::Options,
        domain::cluster_state::View,
        ledger::Ledger,
        publish::{Publisher, envoys::Subscribers},
    };
    use std::{path::Path, sync::Arc};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn cluster(data: &Path) -> Cluster {
        let config = ClusterFile::from_flags(&["a=http://127.0.0.1:1".into(), "b=http://127.0.0.1:2".into()]);
        let publisher = Publisher {
            folder: None,
            wasm: String::new(),
            control: "127.0.0.1:9".into(),
            control_cluster: CONTROL_CLUSTER.into(),
            tls: NodeTls::default().upstream(),
            control_tls: None,
            secret: "s".into(),
            read_key: None,
            internal_key: "k".into(),
            snapshots: tokio::sync::watch::Sender::default(),
            subscribers: Subscribers::default(),
        };
        let options = Options {
            user_master_key: true,
            commit_timeout: Duration::from_secs(1),
            callout_timeout: Duration::from_secs(1),
            outbound: Outbound::new(Policy::new(&[])).unwrap(),
        };
        let (secrets, ledger) = (Secrets::load(data).unwrap(), Ledger::open(data).unwrap());
        let http = reqwest::Client::new();
        Cluster::new(
            options,
            http,
            config.unwrap().validate().unwrap(),
            secrets,
            ledger,
            publisher,
            View::default(),
            None,
        )
    }

    fn page() -> Request {
        Request::own("POST", "/indexes/books/documents", Some(&serde_json::json!([{"id": 1}])))
    }

    /// A node that does with every connection what it is told.
    async fn node(cluster: &Cluster, answer: Option<&'static str>) -> Arc<Node> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    let _: usize = stream.read(&mut [0; 4096]).await.unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                kept.push(stream);
            }
        });
        Arc::new(cluster.stranger(NodeConfig {
            name: "c".into(),
            url,
            cluster: "c".into(),
            weight: 1,
            zone: None,
        }))
    }

    #[tokio::test]
    async fn what_may_come_late_is_owed_and_what_was_answered_is_not() {
        let data = tempfile::tempdir().unwrap();
        let cluster = cluster(data.path());
        let long = Duration::from_secs(10);
        let answers = node(&cluster, Some("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(send(&cluster, &answers, page(), long).await.unwrap().status, 202);
        assert!(!cluster.epochs.owes("c"));
        let nobody =
            cluster.stranger(NodeConfig { url: "http://127.0.0.1:1".parse().unwrap(), ..answers.config() });
        assert!(send(&cluster, &nobody, page(), long).await.is_err());
        assert!(!cluster.epochs.owes("c"), "it was never sent");
        let hangs = node(&cluster, None).await;
        // A hand-over is given up as a whole.
        let given_up =
            tokio::time::timeout(Duration::from_millis(50), send(&cluster, &hangs, page(), long)).await;
        assert!(given_up.is_err() && cluster.epochs.owes("c"));
        cluster.epochs.forget("c");
        assert!(send(&cluster, &hangs, page(), Duration::from_millis(50)).await.is_err());
        assert!(cluster.epochs.owes("c"));
        cluster.epochs.forget("c");
        let creation = crate::indexes::catalogue::creation("books", None);
        let creation = crate::indexes::catalogue::send_all(&cluster, &hangs, &creation);
        let given_up = tokio::time::timeout(Duration::from_millis(50), creation).await;
        assert!(given_up.is_err() && cluster.epochs.owes("c"), "indexes and settings are, too");
    }
}
