//! The HTTP client for URLs that API clients give: webhooks, and the targets of exports. It connects only to public addresses
//! and to networks that the operator allows, so that no client can reach Envoy's admin interface, a cloud's metadata service,
//! or nodes through it.
//!
//! Rule, default and messages follow Meilisearch 1.50, `--experimental-allowed-ip-networks` and its crate `http-client`. The
//! policy checks the address that is connected to, not only the URL: a name that resolves to a private address is refused.
//! Redirects are checked too.

mod policy;

pub use policy::{Policy, Rejected};

use reqwest::{
    IntoUrl, Method, Request, RequestBuilder, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use std::{error::Error as StdError, sync::Arc, time::Duration};

/// Timeout of one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy refuses the URL's address.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The request failed.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

impl Error {
    /// Whether the policy refused an address: that of the URL, that of a redirect, or one that a name resolves to.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(error) = cause {
            if error.is::<Rejected>() {
                return true;
            }
            cause = error.source();
        }
        matches!(self, Self::Rejected(_))
    }
}

/// The HTTP client for URLs that API clients give.
#[derive(Clone, Debug)]
pub struct Outbound {
    http: reqwest::Client,
    policy: Policy,
}

impl Outbound {
    /// Makes the client.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(policy: Policy) -> reqwest::Result<Self> {
        let judged = policy.clone();
        let follow = redirect::Policy::custom(move |attempt| match judged.check_url(attempt.url()) {
            Ok(()) => redirect::Policy::default().redirect(attempt),
            Err(rejected) => attempt.error(rejected),
        });
        let resolver = Arc::new(Resolver(policy.clone()));
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(follow).dns_resolver(resolver);
        Ok(Self { http: builder.build()?, policy })
    }

    /// Builds a request, to be sent with [`Self::send`].
    pub fn request(&self, method: Method, url: impl IntoUrl) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The policy refuses the address, or the request fails.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        let request: Request = request.build()?;
        // The resolver checks names only. A URL with an address is never resolved, so it is checked here.
        self.policy.check_url(request.url())?;
        Ok(self.http.execute(request).await?)
    }
}

/// A DNS resolver that applies the policy. If the policy refuses one of a name's addresses, the name is refused.
struct Resolver(Policy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                policy.check(address.ip())?;
            }
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, response::Redirect, routing::get};

    async fn serve(app: Router) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, app).await });
        port
    }

    async fn ask(outbound: &Outbound, url: &str) -> Result<String, Error> {
        Ok(outbound.send(outbound.request(Method::GET, url)).await?.text().await?)
    }

    fn allowing(networks: &[&str]) -> Outbound {
        let networks = networks.iter().map(|network| network.parse().unwrap()).collect::<Vec<_>>();
        Outbound::new(Policy::new(&networks)).unwrap()
    }

    #[tokio::test]
    async fn the_loopback_is_refused_however_it_is_spelled() {
        let port = serve(Router::new().route("/", get(|| async { "here" }))).await;
        for host in ["127.0.0.1", "127.1", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0", "localhost"] {
            let url = format!("http://{host}:{port}/");
            let refused = ask(&allowing(&[]), &url).await.unwrap_err();
            assert!(refused.is_rejected(), "{host}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn networks_that_are_allowed_are_connected_to() {
        let port = serve(Router::new().route("/", get(|| async { "here" }))).await;
        // A name may have IPv4 and IPv6 addresses; each of them must be allowed.
        let loopback = ["127.0.0.0/8", "::1"];
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"] {
            let url = format!("http://{host}:{port}/");
            assert_eq!(ask(&allowing(&loopback), &url).await.unwrap(), "here", "{host}");
            assert_eq!(ask(&allowing(&["any"]), &url).await.unwrap(), "here", "{host}");
            assert!(ask(&allowing(&["10.0.0.0/8"]), &url).await.unwrap_err().is_rejected(), "{host}");
        }
    }

    #[tokio::test]
    async fn redirects_are_judged_like_urls() {
        let target = serve(Router::new().route("/", get(|| async { "here" }))).await;
        let by_name = format!("http://localhost:{target}/");
        let by_address = format!("http://127.0.0.2:{target}/");
        let app = Router::new()
            .route("/name", get(move || async move { Redirect::temporary(&by_name) }))
            .route("/address", get(move || async move { Redirect::temporary(&by_address) }))
            .route("/loop", get(|| async { Redirect::temporary("/loop") }));
        let port = serve(app).await;
        let only_first = allowing(&["127.0.0.1"]);
        let refused = ask(&only_first, &format!("http://127.0.0.1:{port}/address")).await.unwrap_err();
        assert!(refused.is_rejected(), "{refused:?}");
        let only_v6 = allowing(&["127.0.0.2", "::1"]);
        let refused = ask(&only_v6, &format!("http://127.0.0.2:{port}/name")).await.unwrap_err();
        assert!(refused.is_rejected() || refused.to_string().contains("error sending"), "{refused:?}");
        let endless = ask(&only_first, &format!("http://127.0.0.1:{port}/loop")).await.unwrap_err();
        assert!(matches!(&endless, Error::Http(error) if error.is_redirect()), "{endless:?}");
    }
}
