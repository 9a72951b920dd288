//! Publishing to Istio: the control plane patches an `EnvoyFilter`, whose extension configuration istiod hands to the gateways.
//!
//! Not a `WasmPlugin`: that cannot set `allow_on_headers_stop_iteration`, without which no request's body reaches the filter.

use super::{Publisher, Snapshot, envoy, envoys::Subscription};
use crate::base::error::{Error, Result};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a pod finds its service account.
pub const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Says which version a resource has, and whose.
const VERSION: &str = "miroir/topology-version";
const PUBLISHER: &str = "miroir/publisher";

/// How long the API may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The resource, and how to reach it.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    url: String,
    name: String,
    account: PathBuf,
    publisher: String,
    http: reqwest::Client,
}

impl Kubernetes {
    /// `resource` is `namespace/name` of the `EnvoyFilter`; `api` is the API's URL; `account` the folder of the service account,
    /// with `token` and `ca.crt`. `publisher` names this cluster's ledger: another's resource is left alone.
    ///
    /// # Errors
    /// The resource's name is none, or the certificate authority cannot be read.
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
            let ca = reqwest::Certificate::from_pem(&ca).map_err(|error| Error::Other(error.to_string()))?;
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
            http: http.build().map_err(|error| Error::Other(error.to_string()))?,
        })
    }

    /// Patches the resource with every version, for ever; what fails is tried again.
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
                    // What is newer is told instead.
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
                subscription.refused("filter", &version, &error.to_string());
                false
            }
        }
    }

    /// Patches the resource, unless it is another's, or has a newer version.
    async fn patch(&self, snapshot: &Snapshot) -> Result<()> {
        let found = self.send(reqwest::Method::GET, None).await?;
        let annotation = |name: &str| found["metadata"]["annotations"][name].as_str();
        if let Some(other) = annotation(PUBLISHER).filter(|other| *other != self.publisher) {
            return Err(Error::Other(format!(
                "{} is published by another control plane, {other}; this one is {}: remove its annotation {PUBLISHER}, \
                 where that one is no more",
                self.name, self.publisher
            )));
        }
        let newer = annotation(VERSION).and_then(|version| version.parse::<u64>().ok());
        if let Some(newer) = newer.filter(|newer| *newer > snapshot.topology.version) {
            return Err(Error::Other(format!("{} has version {newer} already", self.name)));
        }
        let patch = json!({
            "metadata": {
                // Refused where somebody has changed it meanwhile.
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
        let failed = |error: reqwest::Error| Error::Other(format!("the Kubernetes API: {error}"));
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

/// What the `EnvoyFilter` says: the filter's configuration, which a filter of the gateway's listeners asks for by its name.
///
/// # Errors
/// The topology cannot be written as JSON.
pub fn patches(snapshot: &Snapshot) -> Result<Value> {
    let mut value = envoy::extension(snapshot)?;
    // The resource's own type is said by the patch.
    if let Some(value) = value.as_object_mut() {
        value.shift_remove("@type");
    }
    Ok(json!([{
        "applyTo": "EXTENSION_CONFIG",
        "match": {"context": "GATEWAY"},
        "patch": {"operation": "ADD", "value": value}
    }]))
}
