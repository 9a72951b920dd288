//! Envoy's discovery by gRPC: aggregated (ADS), or clusters (CDS) and the filter's configuration (ECDS) separately, for Envoys
//! that use another ADS server; each as state of the world and as differences (delta).
//!
//! Source: Envoy's "xDS REST and gRPC protocol".

use super::{Publisher, Snapshot, protobuf_resources, subscribers::Subscription};
use envoy_types::pb::envoy::{
    config::{cluster::v3::Cluster, core::v3::TypedExtensionConfig},
    service::{
        cluster::v3::cluster_discovery_service_server::{
            ClusterDiscoveryService, ClusterDiscoveryServiceServer,
        },
        discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
            aggregated_discovery_service_server::{
                AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
            },
        },
        extension::v3::extension_config_discovery_service_server::{
            ExtensionConfigDiscoveryService, ExtensionConfigDiscoveryServiceServer,
        },
    },
};
use futures_util::{Stream, stream};
use miroir_core::protocol::SECRET_HEADER;
use prost::Name;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::Arc,
};
use tokio::sync::{mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<Answers<T>>, Status>;

/// The kinds of resources, in the order in which Envoy must get changes: the filter's configuration refers to clusters.
const KINDS: [&str; 2] = ["clusters", "filter"];

/// Number of answers that may wait for a slow Envoy.
const QUEUE: usize = 4;

/// The gRPC routes, to be merged with other routes.
pub fn routes<S: Clone + Send + Sync + 'static>(publisher: &Publisher) -> axum::Router<S> {
    let discovery = Discovery { publisher: Arc::new(publisher.clone()) };
    axum::Router::new()
        .route_service(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/{*method}",
            AggregatedDiscoveryServiceServer::new(discovery.clone()),
        )
        .route_service(
            "/envoy.service.cluster.v3.ClusterDiscoveryService/{*method}",
            ClusterDiscoveryServiceServer::new(discovery.clone()),
        )
        .route_service(
            "/envoy.service.extension.v3.ExtensionConfigDiscoveryService/{*method}",
            ExtensionConfigDiscoveryServiceServer::new(discovery),
        )
}

#[derive(Clone)]
struct Discovery {
    publisher: Arc<Publisher>,
}

/// What one stream has sent of one kind of resource.
#[derive(Default)]
struct Sent {
    /// The nonce of the last answer; 0 before the first.
    nonce: u64,
    /// The version in the last answer.
    version: String,
    /// The resources that Envoy has, with their versions; for delta streams only.
    has: BTreeMap<String, String>,
}

/// A request of either protocol.
struct Asked {
    node: Option<String>,
    type_url: String,
    nonce: String,
    refused: Option<String>,
    has: HashMap<String, String>,
}

impl From<DiscoveryRequest> for Asked {
    fn from(request: DiscoveryRequest) -> Self {
        Self {
            node: request.node.map(|node| node.id),
            type_url: request.type_url,
            nonce: request.response_nonce,
            refused: request.error_detail.map(|error| error.message),
            has: HashMap::new(),
        }
    }
}

impl From<DeltaDiscoveryRequest> for Asked {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self {
            node: request.node.map(|node| node.id),
            type_url: request.type_url,
            nonce: request.response_nonce,
            refused: request.error_detail.map(|error| error.message),
            has: request.initial_resource_versions,
        }
    }
}

/// An answer of either protocol.
trait Protocol: Sized + Send + 'static {
    /// The protocol's request.
    type Request: Into<Asked> + Send + 'static;
    /// The protocol's name in the status.
    const NAME: &'static str;

    /// The answer; `None` if Envoy already has everything.
    fn answer(snapshot: &Snapshot, kind: &str, sent: &mut Sent) -> crate::base::error::Result<Option<Self>>;
}

impl Protocol for DiscoveryResponse {
    type Request = DiscoveryRequest;
    const NAME: &'static str = "gRPC";

    fn answer(snapshot: &Snapshot, kind: &str, sent: &mut Sent) -> crate::base::error::Result<Option<Self>> {
        let resources = resources(snapshot, kind)?;
        Ok(Some(Self {
            version_info: sent.version.clone(),
            type_url: type_url(kind),
            nonce: sent.nonce.to_string(),
            resources: resources.into_iter().map(|resource| resource.body).collect(),
            ..Self::default()
        }))
    }
}

impl Protocol for DeltaDiscoveryResponse {
    type Request = DeltaDiscoveryRequest;
    const NAME: &'static str = "delta gRPC";

    fn answer(snapshot: &Snapshot, kind: &str, sent: &mut Sent) -> crate::base::error::Result<Option<Self>> {
        let all = resources(snapshot, kind)?.into_iter().map(|named| Resource {
            version: hex::encode(Sha256::digest(&named.body.value)),
            name: named.name,
            resource: Some(named.body),
            ..Resource::default()
        });
        let all: Vec<Resource> = all.collect();
        let is_gone = |name: &&String| all.iter().all(|resource| resource.name != **name);
        let removed: Vec<String> = sent.has.keys().filter(is_gone).cloned().collect();
        let has = all.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
        let had = std::mem::replace(&mut sent.has, has);
        let is_new = |resource: &Resource| had.get(&resource.name) != Some(&resource.version);
        let changed: Vec<Resource> = all.into_iter().filter(is_new).collect();
        // Envoy waits for the first answer, even if nothing has changed.
        if changed.is_empty() && removed.is_empty() && sent.nonce > 1 {
            return Ok(None);
        }
        Ok(Some(Self {
            system_version_info: sent.version.clone(),
            type_url: type_url(kind),
            nonce: sent.nonce.to_string(),
            resources: changed,
            removed_resources: removed,
            ..Self::default()
        }))
    }
}

fn type_url(kind: &str) -> String {
    if kind == "clusters" { Cluster::type_url() } else { TypedExtensionConfig::type_url() }
}

fn resources(snapshot: &Snapshot, kind: &str) -> crate::base::error::Result<Vec<protobuf_resources::Named>> {
    if kind == "clusters" {
        Ok(protobuf_resources::clusters(snapshot))
    } else {
        Ok(vec![protobuf_resources::filter(snapshot)?])
    }
}

impl Discovery {
    /// Serves one stream. `kind` is its kind of resource, if the stream has only one: its requests may then omit the type.
    fn serve<P: Protocol>(
        &self,
        request: Request<Streaming<P::Request>>,
        kind: Option<&'static str>,
    ) -> Answer<P> {
        let given = request.metadata().get(SECRET_HEADER).and_then(|value| value.to_str().ok());
        if !crate::base::secrets::same(given.unwrap_or_default(), &self.publisher.secret) {
            return Err(Status::permission_denied(format!("{SECRET_HEADER} is not the gateways' secret")));
        }
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let conversation = Conversation {
            snapshots: self.publisher.snapshots.subscribe(),
            subscription: self.publisher.subscribers.join(P::NAME),
            sent: BTreeMap::new(),
            answers: sender,
            kind,
        };
        tokio::spawn(conversation.run(request.into_inner()));
        Ok(Response::new(Box::pin(stream::poll_fn(move |context| receiver.poll_recv(context)))))
    }
}

/// The state of one stream.
struct Conversation<P> {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    subscription: Subscription,
    sent: BTreeMap<&'static str, Sent>,
    answers: mpsc::Sender<Result<P, Status>>,
    kind: Option<&'static str>,
}

impl<P: Protocol> Conversation<P> {
    /// Runs until Envoy closes the stream.
    async fn run(mut self, mut requests: Streaming<P::Request>) {
        loop {
            let gone = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.hear(request.into()).await.is_err(),
                    Ok(None) | Err(_) => true,
                },
                changed = self.snapshots.changed() => changed.is_err() || self.tell_all().await.is_err(),
            };
            if gone {
                return;
            }
        }
    }

    async fn hear(&mut self, asked: Asked) -> Result<(), ()> {
        if let Some(node) = &asked.node {
            self.subscription.name(node);
        }
        let named = KINDS.into_iter().find(|kind| type_url(kind) == asked.type_url);
        // Requests for kinds that Miroir does not publish get no answer.
        let Some(kind) = named.or(self.kind.filter(|_| asked.type_url.is_empty())) else { return Ok(()) };
        match self.sent.get(kind) {
            Some(sent) if asked.nonce == sent.nonce.to_string() => {
                match asked.refused {
                    Some(reason) => self.subscription.refused(kind, &sent.version, &reason),
                    None => self.subscription.accepted(kind, &sent.version),
                }
                Ok(())
            }
            // It acknowledges an older answer.
            Some(_) if !asked.nonce.is_empty() => Ok(()),
            _ => {
                let has = asked.has.into_iter().collect();
                self.sent.entry(kind).or_insert(Sent { has, ..Sent::default() });
                self.tell(kind).await
            }
        }
    }

    async fn tell_all(&mut self) -> Result<(), ()> {
        for kind in KINDS {
            if self.sent.contains_key(kind) {
                self.tell(kind).await?;
            }
        }
        Ok(())
    }

    async fn tell(&mut self, kind: &'static str) -> Result<(), ()> {
        let Some(snapshot) = self.snapshots.borrow_and_update().clone() else { return Ok(()) };
        let Some(sent) = self.sent.get_mut(kind) else { return Ok(()) };
        sent.nonce += 1;
        sent.version = snapshot.topology.version.to_string();
        let answer = P::answer(&snapshot, kind, sent);
        match answer.map_err(|error| Status::internal(error.to_string())).transpose() {
            Some(answer) => self.answers.send(answer).await.map_err(|_| ()),
            None => {
                sent.nonce -= 1;
                self.subscription.unchanged(kind, &sent.version);
                Ok(())
            }
        }
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Discovery {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Answer<DiscoveryResponse> {
        self.serve(request, None)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Answer<DeltaDiscoveryResponse> {
        self.serve(request, None)
    }
}

/// The answer to a request without a stream, which Miroir does not support.
fn only_streams<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("ask with a stream"))
}

#[tonic::async_trait]
impl ClusterDiscoveryService for Discovery {
    type StreamClustersStream = Answers<DiscoveryResponse>;
    type DeltaClustersStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_clusters(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Answer<DiscoveryResponse> {
        self.serve(request, Some("clusters"))
    }

    async fn delta_clusters(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Answer<DeltaDiscoveryResponse> {
        self.serve(request, Some("clusters"))
    }

    async fn fetch_clusters(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        only_streams()
    }
}

#[tonic::async_trait]
impl ExtensionConfigDiscoveryService for Discovery {
    type StreamExtensionConfigsStream = Answers<DiscoveryResponse>;
    type DeltaExtensionConfigsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_extension_configs(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Answer<DiscoveryResponse> {
        self.serve(request, Some("filter"))
    }

    async fn delta_extension_configs(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Answer<DeltaDiscoveryResponse> {
        self.serve(request, Some("filter"))
    }

    async fn fetch_extension_configs(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        only_streams()
    }
}
