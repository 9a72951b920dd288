//! The control plane's port, with TLS or without.

use crate::base::error::chain;
use axum::{Router, serve::Listener};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Number of accepted connections that may wait to be served.
const WAITING: usize = 128;

/// Serves `app` on `listener` until the process ends.
///
/// # Errors
/// The server failed.
pub async fn serve(listener: TcpListener, acceptor: Option<TlsAcceptor>, app: Router) -> io::Result<()> {
    match acceptor {
        None => axum::serve(listener, app).await,
        Some(acceptor) => axum::serve(TlsListener::new(listener, acceptor)?, app).await,
    }
}

/// Accepts connections whose TLS handshake is complete. Handshakes run in tasks of their own, so that a slow client does not
/// hold up others.
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
                        // Sending fails only if the receiver is gone: the process is ending then.
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => {
                            tracing::debug!(%peer, error = %chain(&error), "TLS handshake failed")
                        }
                        Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
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

    /// The files of a certificate authority, and of a certificate with its key that the authority has signed.
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
        // A client that sends nothing does not block others.
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
