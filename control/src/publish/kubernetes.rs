//! Publishes to Istio: the control plane patches an `EnvoyFilter`, and istiod passes its extension configuration to the
//! gateways.
//!
//! It is not a `WasmPlugin`, because that cannot set `allow_on_headers_stop_iteration`, without which no request body reaches
//! the filter.

use super::{Publisher, Snapshot, json_resources, subscribers::Subscription};
use crate::base::error::{Error, Result, chain};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The folder of the service account in a pod.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Annotations: the version of the topology in the resource, and the control plane that published it.
const VERSION: &str = "miroir/topology-version";
const PUBLISHER: &str = "miroir/publisher";

/// Timeout of requests to the Kubernetes API.
const PATIENCE: Duration = Duration::from_secs(10);

/// The `EnvoyFilter` resource, and how to reach it.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    url: String,
    name: String,
    account: PathBuf,
    publisher: String,
    http: reqwest::Client,
}

impl Kubernetes {
    /// `resource` is the `namespace/name` of the `EnvoyFilter`; `api` is the API's URL; `account` is the folder of the service
    /// account, with `token` and `ca.crt`. `publisher` identifies this cluster's ledger: a resource that another ledger
    /// publishes is not changed.
    ///
    /// # Errors
    /// The resource's name is invalid, or the certificate authority cannot be read.
    pub fn new(resource: &str, api: &str, account: &Path, publisher: String) -> Result<Self> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c))
        };
        let parts = resource.split_once('/').filter(|(namespace, name)| is_name(namespace) && is_name(name));
        let Some((namespace, name)) = parts else {
            return Err(Error::Config(vec![format!("--envoy-filter: `{resource}` must be NAMESPACE/NAME")]));
        };
        let ca = account.join("ca.crt");
        let mut http = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        if api.starts_with("https:") {
            let ca = std::fs::read(&ca).map_err(Error::file(&ca))?;
            let ca = reqwest::Certificate::from_pem(&ca)
                .map_err(|error| Error::Other(chain(&error).to_string()))?;
            http = http.tls_built_in_root_certs(false).add_root_certificate(ca);
        }
        Ok(Self {
            url: format!(
                "{}/apis/networking.istio.io/v1alpha3/namespaces/{namespace}/envoyfilters/{name}",
                api.trim_end_matches('/')
            ),
            name: resource.to_owned(),
            account: account.to_owned(),
            publisher,
            http: http.build().map_err(|error| Error::Other(chain(&error).to_string()))?,
        })
    }

    /// Patches the resource with every version, and retries after failures. Returns when the publisher is gone.
    pub async fn run(self, publisher: Publisher) {
        let mut snapshots = publisher.snapshots.subscribe();
        let subscription = publisher.subscribers.join("Kubernetes");
        subscription.name(&self.name);
        while snapshots.wait_for(Option::is_some).await.is_ok() {
            let Some(snapshot) = snapshots.borrow_and_update().clone() else { continue };
            let mut pause = Duration::from_millis(100);
            let told = loop {
                if self.tell(&snapshot, &subscription).await {
                    break snapshots.changed().await;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(PATIENCE),
                    // A newer version replaces the one that failed.
                    changed = snapshots.changed() => break changed,
                }
            };
            if told.is_err() {
                return;
            }
        }
    }

    async fn tell(&self, snapshot: &Snapshot, subscription: &Subscription) -> bool {
        let version = snapshot.topology.version.to_string();
        match self.patch(snapshot).await {
            Ok(()) => {
                subscription.accepted("filter", &version);
                true
            }
            Err(error) => {
                subscription.refused("filter", &version, &error.chain().to_string());
                false
            }
        }
    }

    /// Patches the resource, unless another control plane publishes it or it has a newer version.
    async fn patch(&self, snapshot: &Snapshot) -> Result<()> {
        let found = self.send(reqwest::Method::GET, None).await?;
        let annotation = |name: &str| found["metadata"]["annotations"][name].as_str();
        if let Some(other) = annotation(PUBLISHER).filter(|other| *other != self.publisher) {
            return Err(Error::Other(format!(
                "{} is published by another control plane, {other}; this one is {}: if the other one is gone, remove the \
                 resource's annotation {PUBLISHER}",
                self.name, self.publisher
            )));
        }
        let newer = annotation(VERSION).and_then(|version| version.parse::<u64>().ok());
        if let Some(newer) = newer.filter(|newer| *newer > snapshot.topology.version) {
            return Err(Error::Other(format!("{} has version {newer} already", self.name)));
        }
        let patch = json!({
            "metadata": {
                // Kubernetes refuses the patch if the resource has changed in between.
                "resourceVersion": found["metadata"]["resourceVersion"],
                "annotations": {VERSION: snapshot.topology.version.to_string(), PUBLISHER: self.publisher}
            },
            "spec": {"configPatches": patches(snapshot)?}
        });
        self.send(reqwest::Method::PATCH, Some(&patch)).await.map(drop)
    }

    async fn send(&self, method: reqwest::Method, patch: Option<&Value>) -> Result<Value> {
        // Kubernetes replaces the token's file from time to time.
        let token = self.account.join("token");
        let token = tokio::fs::read_to_string(&token).await.map_err(Error::file(&token))?;
        let mut request = self.http.request(method.clone(), &self.url).bearer_auth(token.trim());
        if let Some(patch) = patch {
            let request_body = serde_json::to_vec(patch)?;
            request = request.header("content-type", "application/merge-patch+json").body(request_body);
        }
        let failed = |error: reqwest::Error| Error::Other(format!("the Kubernetes API: {}", chain(&error)));
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let body: Result<Value, _> = answer.json().await;
        if status.is_success() {
            return body.map_err(failed);
        }
        // The status says what is wrong where the body does not.
        let body = body.unwrap_or_default();
        let message = body["message"].as_str().unwrap_or_default();
        Err(Error::Other(format!(
            "the Kubernetes API answers {method} of {} with {status}: {message}",
            self.name
        )))
    }
}

/// The `configPatches` of the `EnvoyFilter`: the filter's configuration, to which the gateway's listeners refer by name.
///
/// # Errors
/// The topology cannot be written as JSON.
pub fn patches(snapshot: &Snapshot) -> Result<Value> {
    let mut value = json_resources::extension(snapshot)?;
    // The patch already implies the resource's own type.
    if let Some(value) = value.as_object_mut() {
        value.shift_remove("@type");
    }
    Ok(json!([{
        "applyTo": "EXTENSION_CONFIG",
        "match": {"context": "GATEWAY"},
        "patch": {"operation": "ADD", "value": value}
    }]))
}
