//! A client of the Meilisearch API, for a cluster and for a single node.

use reqwest::{Method, blocking};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// The longest time that a test waits for one thing.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The shared HTTP client; creating one takes tens of milliseconds. Each request uses a new connection: a node that refuses a
/// request without reading its body closes the connection, and the next request on it would be lost.
///
/// # Panics
/// The client cannot be created.
#[must_use]
pub fn http() -> blocking::Client {
    static HTTP: LazyLock<blocking::Client> = LazyLock::new(|| {
        let http = blocking::Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0).build();
        http.expect("an HTTP client")
    });
    HTTP.clone()
}

/// A client of one address, with one API key.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    key: Option<String>,
    http: blocking::Client,
}

/// A complete response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header values that are text.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
    /// The bytes of the body.
    pub bytes: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The values that the headers of these names list, sorted and without duplicates. Envoy adds `Vary: Accept-Encoding` to
    /// every response that could be compressed: this value is left out.
    #[must_use]
    pub fn listed<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> BTreeMap<&'n str, BTreeSet<String>> {
        let list = |name: &str| {
            let values = self.headers.iter().filter(|(key, _)| key == name);
            let values =
                values.flat_map(|(_, value)| value.split(',')).map(|value| value.trim().to_lowercase());
            values.filter(|value| value != "accept-encoding").collect()
        };
        names.into_iter().map(|name| (name, list(name))).collect()
    }
}

impl Client {
    /// A client of `url` that sends `key`.
    #[must_use]
    pub fn new(url: impl Into<String>, key: Option<&str>) -> Self {
        Self { url: url.into(), key: key.map(str::to_owned), http: http() }
    }

    /// The URL that it sends requests to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The same client with another key, or without a key.
    #[must_use]
    pub fn under(&self, key: Option<&str>) -> Self {
        Self { key: key.map(str::to_owned), ..self.clone() }
    }

    /// The same client, sending from another local address.
    ///
    /// # Panics
    /// The client cannot be created.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        let http = blocking::Client::builder().no_proxy().timeout(PATIENCE).local_address(address).build();
        Self { http: http.expect("an HTTP client"), ..self.clone() }
    }

    /// The same client, which waits this long for an answer.
    ///
    /// # Panics
    /// The client cannot be created.
    #[must_use]
    pub fn patient_for(&self, timeout: Duration) -> Self {
        let http = blocking::Client::builder().no_proxy().timeout(timeout).pool_max_idle_per_host(0).build();
        Self { http: http.expect("an HTTP client"), ..self.clone() }
    }

    /// Sends a request. Fails only if no response came.
    ///
    /// # Errors
    /// No response came.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: Vec<u8>,
    ) -> anyhow::Result<Answer> {
        self.try_send_encoded(method, path, content_type, None, body.into())
    }

    fn try_send_encoded(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        encoding: Option<&str>,
        body: blocking::Body,
    ) -> anyhow::Result<Answer> {
        let headers = [("content-type", content_type), ("content-encoding", encoding)];
        let headers: Vec<_> = headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.try_ask(method, path, &headers, body)
    }

    fn try_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: blocking::Body,
    ) -> anyhow::Result<Answer> {
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("{}{path}", self.url)).body(body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send()?;
        let status = answer.status().as_u16();
        let headers = answer.headers().iter();
        let headers = headers
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect();
        let bytes = answer.bytes()?.to_vec();
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(Answer { status, headers, body, bytes })
    }

    /// Sends a request with any headers.
    ///
    /// # Panics
    /// No response came.
    #[must_use]
    pub fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        match self.try_ask(method, path, headers, body.into().into()) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Sends a request with a body.
    ///
    /// # Panics
    /// No response came.
    #[must_use]
    pub fn send(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        self.encoded(method, path, content_type, None, body.into())
    }

    /// Sends a body that is compressed already.
    ///
    /// # Panics
    /// No response came.
    #[must_use]
    pub fn encoded(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        encoding: Option<&str>,
        body: Vec<u8>,
    ) -> Answer {
        match self.try_send_encoded(method, path, content_type, encoding, body.into()) {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    /// Posts JSON without a `Content-Length`, in chunks.
    ///
    /// # Panics
    /// No response came.
    #[must_use]
    pub fn chunked(&self, path: &str, body: impl std::io::Read + Send + 'static) -> Answer {
        let body = blocking::Body::new(body);
        match self.try_send_encoded("POST", path, Some("application/json"), None, body) {
            Ok(answer) => answer,
            Err(error) => panic!("POST {path}: {error}"),
        }
    }

    /// `GET`.
    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, Vec::new())
    }

    /// Sends JSON.
    #[must_use]
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, Some("application/json"), body.to_string())
    }

    /// Waits until the task of a 202 has ended, and returns it.
    ///
    /// # Panics
    /// The answer is not a 202, or the task does not end.
    #[must_use]
    pub fn ended(&self, accepted: &Answer) -> Value {
        assert_eq!(accepted.status, 202, "{}", accepted.body);
        let path = format!("/tasks/{}", accepted.body["taskUid"]);
        let begun = Instant::now();
        loop {
            let task = self.get(&path).body;
            if ["succeeded", "failed", "canceled"].contains(&task["status"].as_str().unwrap_or_default()) {
                return task;
            }
            assert!(begun.elapsed() < PATIENCE, "the task does not end: {task}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the task of a 202 has succeeded, and returns it.
    ///
    /// # Panics
    /// The task does not succeed.
    pub fn succeeded(&self, accepted: &Answer) -> Value {
        let task = self.ended(accepted);
        assert_eq!(task["status"], "succeeded", "{task}");
        task
    }

    /// Adds documents, and waits until they can be found.
    pub fn add(&self, index: &str, documents: &Value) {
        self.succeeded(&self.json("POST", &format!("/indexes/{index}/documents"), documents));
    }

    /// Creates an index with settings.
    pub fn create(&self, index: &str, primary_key: &str, settings: &Value) {
        let body = serde_json::json!({ "uid": index, "primaryKey": primary_key });
        self.succeeded(&self.json("POST", "/indexes", &body));
        self.succeeded(&self.json("PATCH", &format!("/indexes/{index}/settings"), settings));
    }

    /// Deletes all indexes, one after another.
    ///
    /// # Panics
    /// One of them is not deleted.
    pub fn delete_indexes(&self) {
        let indexes = self.get("/indexes?limit=1000").body;
        for index in indexes["results"].as_array().expect("a list of indexes") {
            let path = format!("/indexes/{}", index["uid"].as_str().expect("a uid"));
            self.succeeded(&self.send("DELETE", &path, None, ""));
        }
    }

    /// Searches.
    ///
    /// # Panics
    /// The answer is not a 200.
    #[must_use]
    pub fn search(&self, index: &str, query: &Value) -> Value {
        let answer = self.json("POST", &format!("/indexes/{index}/search"), query);
        assert_eq!(answer.status, 200, "{query}: {}", answer.body);
        answer.body
    }

    /// The number of documents of an index.
    #[must_use]
    pub fn count(&self, index: &str) -> u64 {
        self.get(&format!("/indexes/{index}/stats")).body["numberOfDocuments"].as_u64().unwrap_or(0)
    }
}
