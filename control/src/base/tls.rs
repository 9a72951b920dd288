//! TLS to nodes and on the control plane's own port: trusted authorities, certificates and client certificates.

use crate::base::error::{Error, Result, chain};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// The machine's trusted authorities: gateways trust them by default.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// TLS to nodes with `https` URLs, for the control plane and for gateways. Gateways have the files at the same paths.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NodeTls {
    /// Trusted authorities for nodes with https URLs (PEM); gateways need the file at the same path [default: publicly trusted
    /// authorities]
    #[arg(long, env = "MIROIR_NODE_CA")]
    pub node_ca: Option<PathBuf>,
    /// Client certificate for these nodes (mTLS), with its key in the same file (PEM); gateways need the file at the same path
    #[arg(long, env = "MIROIR_NODE_IDENTITY")]
    pub node_identity: Option<PathBuf>,
}

/// TLS on the control plane's own port, which gateways (HTTP and gRPC) and operators use.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ControlTls {
    /// Server certificate, with its key in the same file (PEM); the port then speaks TLS only
    #[arg(long, env = "MIROIR_TLS_IDENTITY")]
    pub tls_identity: Option<PathBuf>,
    /// Authorities (PEM) for client certificates: whoever connects must have a certificate of one of them (mTLS)
    #[arg(long, env = "MIROIR_TLS_CLIENT_CA", requires = "tls_identity")]
    pub tls_client_ca: Option<PathBuf>,
    /// Authorities (PEM) with which gateways verify the control plane; a path on the gateways [default: publicly trusted
    /// authorities]
    #[arg(long, env = "MIROIR_TLS_CA", requires = "tls_identity")]
    pub tls_ca: Option<PathBuf>,
    /// Client certificate of gateways for the control plane (mTLS), with its key in the same file (PEM); a path on the gateways
    #[arg(long, env = "MIROIR_GATEWAY_IDENTITY", requires = "tls_identity")]
    pub gateway_identity: Option<PathBuf>,
}

/// TLS from gateways to an upstream. The paths are paths on the gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Trusted authorities.
    pub authorities: PathBuf,
    /// Client certificate, with its key in the same file.
    pub identity: Option<PathBuf>,
}

impl UpstreamTls {
    fn new(authorities: Option<&PathBuf>, identity: Option<&PathBuf>) -> Self {
        let authorities = authorities.cloned().unwrap_or_else(|| SYSTEM_AUTHORITIES.into());
        Self { authorities, identity: identity.cloned() }
    }
}

/// The TLS files of an HTTP client, each with the flag that names it.
#[derive(Clone, Copy, Debug)]
pub struct ClientFiles<'a> {
    /// Trusted authorities; without them, the built-in ones.
    pub authorities: (&'static str, Option<&'a Path>),
    /// Client certificate with its key.
    pub identity: (&'static str, Option<&'a Path>),
}

impl ClientFiles<'_> {
    /// A builder of a client that trusts these authorities and has this client certificate.
    ///
    /// # Errors
    /// A file cannot be read, or is not valid.
    pub fn client(&self) -> Result<reqwest::ClientBuilder> {
        // Select rustls explicitly: other crates of the build may enable another TLS backend in reqwest, which does not accept
        // PEM identities.
        let mut builder = reqwest::Client::builder().use_rustls_tls().no_proxy();
        if let (flag, Some(path)) = self.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?);
            let authorities = authorities.map_err(|error| wrong(flag, path, error))?;
            if authorities.is_empty() {
                return Err(wrong(flag, path, "has no certificate"));
            }
            builder = builder.tls_built_in_root_certs(false);
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        if let (flag, Some(path)) = self.identity {
            let identity = reqwest::Identity::from_pem(&read(path)?);
            builder = builder.identity(identity.map_err(|error| wrong(flag, path, error))?);
        }
        Ok(builder)
    }
}

impl NodeTls {
    /// TLS from gateways to nodes.
    #[must_use]
    pub fn upstream(&self) -> UpstreamTls {
        UpstreamTls::new(self.node_ca.as_ref(), self.node_identity.as_ref())
    }

    /// The HTTP client for nodes; the process has one.
    ///
    /// # Errors
    /// A file cannot be read, or is not valid.
    pub fn client(&self) -> Result<reqwest::Client> {
        let files = ClientFiles {
            authorities: ("--node-ca", self.node_ca.as_deref()),
            identity: ("--node-identity", self.node_identity.as_deref()),
        };
        let builder = files.client()?.connect_timeout(Duration::from_secs(1)).pool_max_idle_per_host(32);
        builder.build().map_err(|error| Error::Config(vec![format!("TLS to nodes: {}", chain(&error))]))
    }
}

impl ControlTls {
    /// TLS from gateways to the control plane; `None` for plain HTTP.
    #[must_use]
    pub fn upstream(&self) -> Option<UpstreamTls> {
        self.tls_identity.as_ref()?;
        Some(UpstreamTls::new(self.tls_ca.as_ref(), self.gateway_identity.as_ref()))
    }

    /// The scheme of the control plane's URL.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_identity.is_some() { "https" } else { "http" }
    }

    /// The acceptor of TLS connections; `None` for plain HTTP.
    ///
    /// # Errors
    /// A file cannot be read, or is not valid.
    pub fn acceptor(&self) -> Result<Option<TlsAcceptor>> {
        let Some(path) = &self.tls_identity else { return Ok(None) };
        let flag = "--tls-identity";
        let pem = read(path)?;
        let own = certificates(flag, path, &pem)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(flag, path, error))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(flag, path, error))?;
        let builder = match &self.tls_client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let flag = "--tls-client-ca";
                let mut roots = RootCertStore::empty();
                for authority in certificates(flag, path, &read(path)?)? {
                    roots.add(authority).map_err(|error| wrong(flag, path, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(flag, path, error))?)
            }
        };
        let mut config = builder.with_single_cert(own, key).map_err(|error| wrong(flag, path, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::file(path))
}

fn wrong(flag: &str, path: &Path, what: impl std::fmt::Display) -> Error {
    Error::Config(vec![format!("{flag}: {}: {what}", path.display())])
}

fn certificates(flag: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| wrong(flag, path, error))?;
    if certificates.is_empty() {
        return Err(wrong(flag, path, "has no certificate"));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nothing.pem");
        assert!(NodeTls::default().client().is_ok());
        let authorities = NodeTls { node_ca: Some(file.clone()), ..NodeTls::default() };
        let identity = NodeTls { node_identity: Some(file.clone()), ..NodeTls::default() };
        assert!(authorities.client().is_err() && identity.client().is_err(), "there is no such file");
        std::fs::write(&file, "nothing").unwrap();
        let own = ControlTls { tls_identity: Some(file.clone()), ..ControlTls::default() };
        let Err(Error::Config(errors)) = own.acceptor() else { panic!("it is taken") };
        assert!(errors[0].starts_with("--tls-identity"), "{errors:?}");
        assert!(ControlTls::default().acceptor().unwrap().is_none(), "plain HTTP");
        for (tls, flag) in [(authorities, "--node-ca"), (identity, "--node-identity")] {
            let Err(Error::Config(errors)) = tls.client() else { panic!("{flag} is taken") };
            assert!(errors[0].starts_with(flag), "{errors:?}");
        }
    }
}
