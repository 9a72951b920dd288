//! Requests to nodes by HTTP.

use super::{Call, NoAnswer, NodeAnswer, Transport};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use futures_util::future::BoxFuture;

/// One client for all nodes.
#[derive(Clone, Debug)]
pub struct Http(reqwest::Client);

impl Http {
    /// A transport over this client.
    #[must_use]
    pub fn new(client: reqwest::Client) -> Self {
        Self(client)
    }

    async fn answer(&self, call: Call) -> reqwest::Result<NodeAnswer> {
        let mut request = self.0.request(call.method, call.url).timeout(call.timeout).body(call.body);
        for (name, value) in [
            (AUTHORIZATION, call.authorization),
            (CONTENT_TYPE, call.content_type),
            (CONTENT_ENCODING, call.content_encoding),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let header = |name: HeaderName| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
        };
        let (content_type, allow) = (header(CONTENT_TYPE), header(ALLOW));
        Ok(NodeAnswer { status, content_type, allow, body: answer.bytes().await? })
    }
}

impl Transport for Http {
    fn send(&self, call: Call) -> BoxFuture<'_, Result<NodeAnswer, NoAnswer>> {
        Box::pin(async move {
            self.answer(call).await.map_err(|error| NoAnswer {
                is_unsent: error.is_connect(),
                source: error.without_url().into(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::chain;
    use axum::http::Method;
    use std::time::Duration;

    fn call(address: std::net::SocketAddr) -> Call {
        Call {
            method: Method::GET,
            url: format!("http://{address}/keys/of-a-client").parse().unwrap(),
            authorization: None,
            content_type: None,
            content_encoding: None,
            body: Default::default(),
            timeout: Duration::from_millis(200),
        }
    }

    #[tokio::test]
    async fn whether_a_request_may_have_come_to_the_node_is_known() {
        let http = Http::new(reqwest::Client::builder().no_proxy().build().unwrap());
        // It accepts, and says nothing.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hangs = http.send(call(address)).await.unwrap_err();
        assert!(!hangs.is_unsent);
        drop(listener);
        let refused = http.send(call(address)).await.unwrap_err();
        assert!(refused.is_unsent);
        let text = chain(&*refused.source).to_string();
        assert!(text.to_lowercase().contains("connection refused"), "{text}");
        assert!(!text.contains("of-a-client"), "paths may hold clients' keys: {text}");
    }
}
