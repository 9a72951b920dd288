//! The control plane's port, with TLS or without.

use crate::base::error::chain;
use axum::{Router, serve::Listener};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long somebody may take to show who it is.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that wait to be served.
const WAITING: usize = 128;

/// Serves until the process ends.
///
/// # Errors
/// The server failed.
pub async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, app: Router) -> io::Result<()> {
    match acceptor {
        None => axum::serve(listener, app).await,
        Some(acceptor) => axum::serve(TlsListener::new(listener, acceptor)?, app).await,
    }
}

/// Connections that have shown who they are. One that is slow at it holds up nobody.
struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    fn new(mut listener: TcpListener, acceptor: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            while !sender.is_closed() {
                let (stream, peer) = Listener::accept(&mut listener).await;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        // Without a receiver the process is ending.
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%peer, error = %chain(&error), "no TLS"),
                        Err(_) => tracing::debug!(%peer, "no TLS in time"),
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tls::{ClientFiles, ControlTls};
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use std::path::{Path, PathBuf};

    /// An authority, and who it vouches for.
    fn authority(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let paths = (folder.join(format!("{name}-ca.pem")), folder.join(format!("{name}.pem")));
        std::fs::write(&paths.0, authority.pem()).unwrap();
        std::fs::write(&paths.1, format!("{}{}", own.pem(), key.serialize_pem())).unwrap();
        paths
    }

    #[tokio::test]
    async fn only_who_has_a_certificate_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (server_ca, server) = authority(folder.path(), "server");
        let (client_ca, client) = authority(folder.path(), "client");
        let tls = ControlTls {
            tls_identity: Some(server),
            tls_client_ca: Some(client_ca),
            ..ControlTls::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Somebody who says nothing is in nobody's way.
        let _silent = TcpStream::connect(address).await.unwrap();
        let app = Router::new().route("/", axum::routing::get(async || "heard"));
        tokio::spawn(serve(listener, tls.acceptor().unwrap(), app));
        let ask = async |scheme: &str, authorities: Option<&Path>, identity: Option<&Path>| {
            let files = ClientFiles { authorities: ("ca", authorities), identity: ("identity", identity) };
            let client = files.client().unwrap().build().unwrap();
            let answer = client.get(format!("{scheme}://{address}/")).send().await.ok()?;
            answer.text().await.ok()
        };
        let (ca, own) = (Some(server_ca.as_path()), Some(client.as_path()));
        assert_eq!(ask("https", ca, own).await.as_deref(), Some("heard"));
        assert_eq!(ask("https", ca, None).await, None, "without a certificate");
        assert_eq!(
            ask("https", ca, tls.tls_identity.as_deref()).await,
            None,
            "with one of another authority"
        );
        assert_eq!(ask("https", None, own).await, None, "to a server that nobody known vouches for");
        assert_eq!(ask("http", ca, own).await, None, "without TLS");
    }
}
